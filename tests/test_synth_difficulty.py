"""The generated worlds are neither trivial nor hopeless, whatever the seed.

Scale "class", three seeds: logistic regression on mean log-mel spectra, a small CP-Mobile on log-mel pictures, and few-shot
learning of classes that synth-tau22 does not have. Measuring takes minutes and gives the same as long as the code is the same, so
the numbers are kept in world_difficulty.json beside a hash of all code they depend on. Where the hash is another, one world is
measured anew; `python tests/test_synth_difficulty.py` measures all three and keeps them, `... 7` prints the numbers of world 7.
"""
import hashlib
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from contrastasc.cpmobile import CPMobile
from contrastasc.frontend import LogMel
from contrastasc.synth import WORLDS, render_frame, world_frame

SEEDS, KEPT = (0, 1, 2), Path(__file__).with_name("world_difficulty.json")
UNSEEN_DEVICES = ("s4", "s5", "s6")
UNSEEN_CLASSES = {
    "synth-tut17": ["beach", "cafe/restaurant", "car", "city_center", "forest_path", "grocery_store", "home", "library", "office", "residential_area", "train"],
    "synth-icme24": ["Restaurant", "Construction site", "Bar"],
}


@torch.no_grad()
def pictures(world, frame, seed, windows=(0,)):
    "Log-mel [clips * windows, 1, 64, 64] of some one-second windows of each clip."
    mel, clips, parts = LogMel(n_mels=64).eval(), render_frame(world, frame, seed), []
    while batch := list(islice(clips, 64)):
        parts.append(mel(torch.stack(batch).unflatten(1, (-1, 16000))[:, list(windows)].flatten(0, 1)))
    return torch.cat(parts)


def train(x, y, seed, epochs=8, batch=32, lr=0.01):
    "A small CP-Mobile, trained with AdamW on clean pictures."
    torch.manual_seed(seed)
    net, steps = CPMobile("cpm12k", head="conv"), len(x) // batch
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps + 1, pct_start=0.2)
    for _ in range(epochs):
        for i in torch.randperm(len(x))[: steps * batch].split(batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[i]), y[i]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def in_batches(function, x): return torch.cat([function(b) for b in x.split(256)])


def few_shot(net, world, seed, shots=5, repeats=30, windows=(2, 7)):
    "Mean accuracy (%) on the classes that synth-tau22 lacks: shots from the training places, tests from the others."
    frame = world_frame(world, "class", seed)
    frame = frame[frame.scene.isin(UNSEEN_CLASSES[world])].groupby(["scene", "group"]).head(2)
    x = in_batches(net.embed, pictures(world, frame, seed, windows)).unflatten(0, (-1, len(windows))).mean(1).numpy()
    y, pool, draw = frame.scene.to_numpy(), (frame.split == "train").to_numpy(), np.random.default_rng(0)
    def once():
        picked = np.concatenate([draw.choice(np.flatnonzero(pool & (y == c)), shots, replace=False) for c in UNSEEN_CLASSES[world]])
        return LogisticRegression(max_iter=500).fit(x[picked], y[picked]).score(x[~pool], y[~pool])
    return 100 * np.mean([once() for _ in range(repeats)])


def measure(seed):
    "All accuracies (%) of one world."
    frame = world_frame("synth-tau22", "class", seed).iloc[::2].reset_index(drop=True)  # half of the clips say the same in half the time
    x, y = pictures("synth-tau22", frame, seed), frame.scene.map(WORLDS["synth-tau22"].classes.index).to_numpy()
    known, new_device = np.array(frame.split == "train"), np.array(frame.device.isin(UNSEEN_DEVICES))
    mean = x.mean((1, 3)).numpy()
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(mean[known], y[known])
    net = train(x[known], torch.tensor(y)[known], seed)
    right = in_batches(net, x).argmax(1).numpy() == y
    return dict(
        seed=seed, linear=100 * linear.score(mean[~known], y[~known]), student=100 * right[~known].mean(),
        seen=100 * right[~known & ~new_device].mean(), unseen=100 * right[~known & new_device].mean(),
        **{world: few_shot(net, world, seed) for world in UNSEEN_CLASSES},
    )


def code():
    "A hash of all code that the numbers depend on."
    library = Path(__file__).parent.parent / "contrastasc"
    files = [Path(__file__), *(library / name for name in ("synth.py", "frontend.py", "cpmobile.py", "softsupcon.py"))]
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def rounded(numbers): return {k: round(float(v), 2) for k, v in numbers.items()}


@pytest.fixture(scope="module")
def worlds():
    "The numbers of every seed; of the first, measured now, where the code is not what it was."
    kept = json.loads(KEPT.read_text())
    return kept["worlds"] if kept["code"] == code() else [measure(SEEDS[0])]


def test_mean_spectra_are_right_about_half_the_time(worlds):
    for w in worlds: assert 35 <= w["linear"] <= 65, w


def test_a_student_that_sees_time_does_better_but_not_perfectly(worlds):
    for w in worlds: assert w["linear"] + 5 <= w["student"] < 90, w


def test_unseen_devices_are_harder(worlds):
    for w in worlds: assert w["unseen"] + 3 <= w["seen"], w


@pytest.mark.parametrize("world", UNSEEN_CLASSES)
def test_unseen_classes_can_be_learned_from_five_examples(worlds, world):
    chance = 100 / len(UNSEEN_CLASSES[world])
    for w in worlds: assert w[world] > chance + 15, w


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:]: print(json.dumps(rounded(measure(int(sys.argv[1])))))
    else: KEPT.write_text(json.dumps(dict(code=code(), worlds=[rounded(measure(s)) for s in SEEDS]), indent=1) + "\n")
