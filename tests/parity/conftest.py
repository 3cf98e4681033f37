import json
from pathlib import Path

import pytest
from safetensors import safe_open

HERE = Path(__file__).parent


class Fixture(dict):
    "Tensors of one fixture file by name, its metadata beside them."

    def __init__(self, name):
        with safe_open(HERE / f"{name}.safetensors", "pt") as f:
            super().__init__({k: f.get_tensor(k) for k in f.keys()})
            self.metadata = f.metadata() or {}

    def under(self, prefix):
        "The tensors below `prefix`, without it."
        return {k[len(prefix):]: v for k, v in self.items() if k.startswith(prefix)}

    def json(self, key): return json.loads(self.metadata[key])


@pytest.fixture(scope="session")
def fixture(): return Fixture
