import pytest
import torch

import contrastasc
from contrastasc.frontend import Fbank, LogMel, kaldi_mel_bank

TOL = 1e-3


def close(a, b, tol=TOL): torch.testing.assert_close(a, b, atol=tol, rtol=0)


@pytest.mark.parametrize("name, sample_rate, edges", [("mel16k", 16000, (6001, 7000, 8000)), ("mel32k", 32000, (15001, 16000))])
def test_logmel(fixture, name, sample_rate, edges):
    data = fixture(name)
    model = LogMel(sample_rate, fmax_jitter=1000).eval()
    assert model.fmax == data.json("config")["fmax_eval"]
    close(model(data["inputs/wave"])[:, 0], data["outputs/logmel_eval"])
    for fmax in edges:
        close(LogMel(sample_rate, fmax=fmax).eval()(data["inputs/wave"][:1])[:, 0], data[f"outputs/logmel_fmax{fmax}"])


@pytest.mark.parametrize("name, sample_rate, n_fft", [("mel16k", 16000, 2048), ("mel32k", 32000, 4096)])
def test_mel_banks(fixture, name, sample_rate, n_fft):
    data = fixture(name)
    for key in [k for k in data if k.endswith("/index")]:
        fmax = int(key.split("fmax")[1].split("/")[0])
        index, value = data[key].long().T, data[key.replace("index", "value")]
        dense = torch.sparse_coo_tensor(index, value, (256, n_fft // 2)).to_dense()
        bank = kaldi_mel_bank(256, n_fft, sample_rate, 0, fmax)
        close(bank[:, :-1], dense, 2e-4)
        assert not bank[:, -1].any()


def test_training_bank_is_the_reference_bank(fixture):
    data, front = fixture("mel16k"), LogMel(fmax_jitter=2000).train()
    torch.manual_seed(0)
    fmax = 8000 - torch.randint(2000, ()).item()
    torch.manual_seed(0)
    torch.testing.assert_close(front(data["inputs/wave"]), LogMel(fmax=fmax).eval()(data["inputs/wave"]))


@pytest.mark.parametrize("name, part", [("beats_tiny", "a"), ("beats_tiny", "b")])
def test_fbank(fixture, name, part):
    data = fixture(name)
    close(Fbank()(data[f"inputs/wave_{part}"]), data[f"outputs_{part}/fbank"], 5e-4)
