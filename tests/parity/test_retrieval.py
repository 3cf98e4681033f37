"""Leave-one-out retrieval against numbers computed from the definition in float64."""
from pathlib import Path

import contrastasc
import numpy as np
import pytest
from safetensors.numpy import load_file

from contrastasc.evaluate import average_precision, retrieval_map

FIXTURE = load_file(Path(__file__).parent / "losses_float64.safetensors")
EMBEDDINGS, LABELS = FIXTURE["map/emb"], FIXTURE["map/labels"]


@pytest.mark.parametrize("chunk", [1, 5, 512])
def test_average_precision(chunk):
    ap, valid = average_precision(EMBEDDINGS, LABELS, chunk=chunk)
    assert (valid == FIXTURE["map/valid"]).all()
    assert np.abs(ap - np.nan_to_num(FIXTURE["map/ap"]))[valid].max() < 1e-9


def test_means():
    assert abs(retrieval_map(EMBEDDINGS, LABELS) - FIXTURE["map/mean_over_queries"].item()) < 1e-9
    assert abs(retrieval_map(EMBEDDINGS, LABELS, average="macro") - FIXTURE["map/mean_over_classes"].item()) < 1e-9
    assert abs(retrieval_map(EMBEDDINGS.astype(np.float32), LABELS) - FIXTURE["map/mean_over_queries"].item()) < 1e-6
