"""Every test runs at scale "tiny" with a cache folder of its own; real recordings are used where there are some."""
import os
import tempfile
from pathlib import Path

os.environ["CONTRASTASC_SCALE"] = "tiny"
_home = tempfile.TemporaryDirectory(prefix="contrastasc-tests-")
os.environ["CONTRASTASC_HOME"] = os.environ.get("CONTRASTASC_TEST_HOME") or _home.name  # one for all workers of `make test`

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


LONG = ("test_real_data", "test_enroll", "test_deploy", "test_explore", "test_processes", "test_recipe", "test_stages")


def pytest_collection_modifyitems(items):
    "Files that take long come first, so that no worker is left alone with one at the end."
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def real_scenes_folder():
    "A folder of real recordings with a manifest.csv: $CONTRASTASC_RECORDINGS, or shared/real-scenes beside the project."
    for folder in (os.environ.get("CONTRASTASC_RECORDINGS"), ROOT.parent / "shared" / "real-scenes"):
        if folder and (Path(folder) / "manifest.csv").exists(): return Path(folder)


@pytest.fixture
def real_scenes():
    folder = real_scenes_folder()
    if folder is None: pytest.skip("no real recordings here: set CONTRASTASC_RECORDINGS to a folder with a manifest.csv")
    return folder
