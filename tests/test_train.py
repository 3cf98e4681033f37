import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import contrastasc
from contrastasc.beats import BEATs, BEATsConfig
from contrastasc.scenes import load_scenes
from contrastasc.train import (TensorData, TrainConfig, atomic_write, extract_embeddings, fit, load_matching, read_weights,
                               save_weights)

ROOT = Path(__file__).resolve().parent.parent
CONFIG = TrainConfig(epochs=4, batch_size=8, lr=0.1, warmup_epochs=1)


class Net(nn.Module):
    "A layer with running statistics and dropout, so that resuming must restore more than weights."
    def __init__(self, width=3):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))

    def forward(self, batch): return dict(loss=(self.net(batch["x"])[:, 0] - batch["y"]).square().mean())


def data(n=30):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, generator=g)
    return TensorData(x=x, y=x.sum(1))


def weights(m): return torch.cat([v.flatten().double() for v in m.state_dict().values()])


def test_a_seed_fixes_everything_and_leaves_the_global_draws_alone():
    torch.manual_seed(5)
    a, b, c = Net(), Net(), Net()
    torch.manual_seed(7); fit(a, data(), CONFIG, progress=False); after = torch.rand(1)
    torch.manual_seed(9); fit(b, data(), CONFIG, progress=False)
    torch.manual_seed(7)
    fit(c, data(), dataclasses.replace(CONFIG, seed=1), progress=False)
    assert torch.equal(weights(a), weights(b)) and not torch.equal(weights(a), weights(c)) and torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 9, 15])
def test_resume_after_any_step(tmp_path, stop):
    whole, part = Net(), Net()
    expected = fit(whole, data(), CONFIG, tmp_path / "whole", progress=False)
    steps = 0

    def unplug(*_):
        nonlocal steps
        steps += 1
        if steps == stop: raise KeyboardInterrupt

    part.register_forward_pre_hook(unplug)
    with pytest.raises(KeyboardInterrupt): fit(part, data(), CONFIG, tmp_path / "part", progress=False)
    again = Net()
    history = fit(again, data(), CONFIG, tmp_path / "part", progress=False)
    assert torch.equal(weights(whole), weights(again))
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), expected.drop(columns="seconds"))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "part/history.csv").drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=False)


def test_finished_run_returns_at_once(tmp_path):
    first = fit(Net(), data(), CONFIG, tmp_path, progress=False)
    model = Net()
    model.forward = None
    assert len(fit(model, data(), CONFIG, tmp_path, progress=False)) == len(first)


@pytest.mark.parametrize("change, words", [
    (lambda: (Net(), data(), dataclasses.replace(CONFIG, lr=0.2)), "lr 0.1 there, 0.2 now"),
    (lambda: (Net(), data(29), CONFIG), "other data"),
    (lambda: (Net(4), data(), CONFIG), "other architecture"),
])
def test_run_folder_of_something_else(tmp_path, change, words):
    fit(Net(), data(), CONFIG, tmp_path, progress=False)
    before = (tmp_path / "last.pt").read_bytes()
    model, rows, config = change()
    with pytest.raises(ValueError, match=words): fit(model, rows, config, tmp_path, progress=False)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_broken_checkpoint(tmp_path):
    fit(Net(), data(), CONFIG, tmp_path, progress=False)
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:500])
    with pytest.raises(ValueError, match="not a whole checkpoint"): fit(Net(), data(), dataclasses.replace(CONFIG), tmp_path, progress=False)


def test_disk_full_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    real, calls = os.fsync, 0

    def full(fd):
        nonlocal calls
        calls += 1
        if calls > 3: raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="last.pt.*disk is full"): fit(Net(), data(), CONFIG, tmp_path, progress=False)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["epoch"] == 1
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.undo()
    model, whole = Net(), Net()
    fit(model, data(), CONFIG, tmp_path, progress=False); fit(whole, data(), CONFIG, progress=False)
    assert torch.equal(weights(model), weights(whole))


def test_no_permission(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"): fit(Net(), data(), CONFIG, tmp_path / "file" / "run", progress=False)


def test_loss_that_blows_up(tmp_path):
    class Wild(Net):
        def forward(self, batch): return dict(loss=super().forward(batch)["loss"] * float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 1, step 1"): fit(Wild(), data(), CONFIG, tmp_path, progress=False)
    assert not (tmp_path / "last.pt").exists()


def test_nothing_to_train_on():
    with pytest.raises(ValueError, match="no clips"): fit(Net(), TensorData(x=torch.zeros(0, 2)), CONFIG)


@pytest.mark.parametrize("n, batch", [(1, 8), (8, 8), (9, 8), (17, 8)])
def test_last_batches(n, batch):
    "A last batch of one clip would break batch statistics; it is left out unless it is all there is."
    seen = []

    class Count(nn.Module):
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.zeros(1))
        def forward(self, b): seen.append(len(b["x"])); return dict(loss=(self.w * b["x"]).sum())

    fit(Count(), TensorData(x=torch.zeros(n, 1)), TrainConfig(epochs=1, batch_size=batch), progress=False)
    assert all(s > 1 for s in seen) or n == 1
    assert sum(seen) >= n - 1


def test_frozen_weights_stay_out_of_checkpoints_and_do_not_move(tmp_path):
    model = Net()
    model.net[0].requires_grad_(False)
    before = model.net[0].weight.clone()
    fit(model, data(), CONFIG, tmp_path, progress=False)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["model"]
    assert torch.equal(before, model.net[0].weight) and "net.0.weight" not in saved and "net.1.running_mean" in saved


def test_run_json_tells_the_run(tmp_path):
    fit(Net(), data(), CONFIG, tmp_path, progress=False)
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["config"]["lr"] == 0.1 and about["clips"] == 30 and about["code"].startswith(contrastasc.__version__) and about["data"]


def test_bfloat16_trains():
    history = fit(Net(), data(), dataclasses.replace(CONFIG, precision="bfloat16"), progress=False)
    assert np.isfinite(history.loss).all()


def test_atomic_write_replaces_whole_files(tmp_path):
    atomic_write(tmp_path / "a", b"1" * 1000)
    atomic_write(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2" and len(list(tmp_path.iterdir())) == 1


def test_weights_of_something_else(tmp_path):
    save_weights(Net(), tmp_path / "net", dict(kind="student"))
    with pytest.raises(ValueError, match="holds a student, not a teacher"): read_weights(tmp_path / "net", "teacher")
    about, state = read_weights(tmp_path / "net", "student")
    with pytest.raises(ValueError, match=r"another architecture: net.0.weight: \[3, 2\] in the file, \[5, 2\] in the model"):
        load_matching(Net(5), state, tmp_path / "net")
    (tmp_path / "net/weights.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="not whole"): read_weights(tmp_path / "net", "student")


class Scenes:
    "Five ten-second clips, enough of a SceneSet to embed."
    fingerprint = "five"
    frame = pd.DataFrame(dict(path=list("abcde"), duration=10.0))
    waves = torch.arange(5.)[:, None] + torch.linspace(0, 0.5, 160000)

    def __len__(self): return 5
    def windows(self, i): return self.waves[i].view(10, 16000)
    def waveform(self, i): return self.waves[i]


class Mean(nn.Module):
    name, sample_rate = "mean", 16000
    calls = 0

    def embed(self, wave):
        assert not self.training
        Mean.calls += 1
        return torch.stack([wave.mean(1), wave[:, 0]], 1)


def test_long_clips_average_their_windows():
    model = Mean().train()
    windows, whole = (extract_embeddings(model, Scenes(), progress=False, whole_clip=w) for w in (False, True))
    assert model.training and windows.shape == (5, 2) and windows.dtype == np.float32
    np.testing.assert_allclose(windows[:, 0], whole[:, 0], rtol=1e-4)
    assert (windows[:, 1] > whole[:, 1]).all()


def test_extraction_resumes_and_keeps_weights_apart(tmp_path):
    expected = extract_embeddings(Mean(), Scenes(), progress=False)

    class Stops(Mean):
        def embed(self, wave):
            if wave[0, 0] >= 2: raise KeyboardInterrupt
            return super().embed(wave)

    with pytest.raises(KeyboardInterrupt): extract_embeddings(Stops(), Scenes(), batch_size=10, progress=False, cache=tmp_path)
    part, = tmp_path.glob("*.part")
    with open(part, "ab") as f: f.write(b"torn")  # killed while writing a row
    assert not list(tmp_path.glob("*.npy"))
    Mean.calls = 0
    np.testing.assert_array_equal(extract_embeddings(Mean(), Scenes(), batch_size=10, progress=False, cache=tmp_path), expected)
    assert Mean.calls == 3 and not list(tmp_path.glob("*.part"))
    np.testing.assert_array_equal(extract_embeddings(Mean(), Scenes(), cache=tmp_path), expected)
    assert Mean.calls == 3
    other = Mean(); other.register_buffer("more", torch.ones(1))
    extract_embeddings(other, Scenes(), progress=False, cache=tmp_path)
    assert Mean.calls > 3 and len(list(tmp_path.glob("*.npy"))) == 2


def test_extraction_of_nan_names_the_clip(tmp_path):
    class Broken(Mean):
        def embed(self, wave): return super().embed(wave) / (wave[:, :1] - 3)
    with pytest.raises(ValueError, match="NaN or infinity for d"): extract_embeddings(Broken(), Scenes(), batch_size=10, progress=False, cache=tmp_path)
    assert not list(tmp_path.glob("*.npy"))


def test_a_probe_writes_into_the_history_and_changes_nothing(tmp_path):
    plain, asked = Net(), Net()
    fit(plain, data(), CONFIG, progress=False)
    def probe():
        torch.rand(3); asked.eval()
        return dict(size=float(weights(asked).norm()))
    history = fit(asked, data(), CONFIG, tmp_path, progress=False, probe=probe)
    assert torch.equal(weights(plain), weights(asked)) and history["size"].nunique() == CONFIG.epochs
    assert np.allclose(pd.read_csv(tmp_path / "history.csv")["size"], history["size"])


def test_another_readout_is_another_cache(tmp_path):
    scenes = load_scenes("synth-icme24").subset(range(4))
    model = BEATs(BEATsConfig.nano()).eval()
    by_mean = extract_embeddings(model, scenes, progress=False, cache=tmp_path)
    model.config = dataclasses.replace(model.config, readout="bands")
    assert extract_embeddings(model, scenes, progress=False, cache=tmp_path).shape == (4, 16 * by_mean.shape[1])
