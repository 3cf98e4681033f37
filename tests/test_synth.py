"""The generated worlds: same bits always, the real sets' names and splits, sane levels, clear errors."""
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from contrastasc import synth
from contrastasc.synth import SAMPLE_RATE, SCALES, WORLDS, home, render, render_frame, resolve_scale, world_frame

NAMES = list(WORLDS)
COLUMNS = ["path", "scene", "device", "city", "location", "recording", "group", "split", "start", "duration"]
PATHS = {"synth-tau22": "metro_station-lisbon-1000-40000-3-s2", "synth-tut17": "c004_30_40", "synth-icme24": world_frame("synth-icme24", "tiny").path[7]}


def digest(waves): return hashlib.sha256(b"".join(w.numpy().tobytes() for w in waves)).hexdigest()


def few(world, seed=0, n=12):
    frame = world_frame(world, "tiny", seed)
    return frame.iloc[np.linspace(0, len(frame) - 1, n).astype(int)]


# ---- scale and home

def test_scale_from_argument_environment_and_default(monkeypatch):
    monkeypatch.setenv("CONTRASTASC_SCALE", "paper")
    assert (resolve_scale(), resolve_scale("tiny")) == ("paper", "tiny")
    monkeypatch.delenv("CONTRASTASC_SCALE")
    assert resolve_scale() == "class"


@pytest.mark.parametrize("word", ["huge", "Tiny", "paper "])
def test_other_scales_are_refused(word, monkeypatch):
    with pytest.raises(ValueError, match="tiny, class, paper"): resolve_scale(word)
    with pytest.raises(ValueError, match="tiny, class, paper"): world_frame("synth-tau22", word)
    monkeypatch.setenv("CONTRASTASC_SCALE", word)
    with pytest.raises(ValueError, match="CONTRASTASC_SCALE"): resolve_scale()


def test_home_is_made_on_demand(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path / "a" / "b"))
    assert home() == tmp_path / "a" / "b" and home().is_dir()


# ---- determinism

@pytest.mark.parametrize("world", NAMES)
def test_same_bits_in_any_order_and_with_any_workers(world):
    frame = few(world)
    forward = list(render_frame(world, frame))
    backward = list(render_frame(world, frame.iloc[::-1], workers=3))[::-1]
    single = [render(world, row) for _, row in frame.sample(frac=1, random_state=1).sort_index().iterrows()]
    assert digest(forward) == digest(backward) == digest(single)


def test_same_bits_in_another_process_with_other_threads():
    code = f"""
import hashlib
from contrastasc.synth import render
paths = {PATHS!r}
print(hashlib.sha256(b"".join(render(w, paths[w], 5).numpy().tobytes() for w in reversed(list(paths)))).hexdigest())
"""
    here = digest(render(w, PATHS[w], 5) for w in reversed(list(PATHS)))
    for threads in ("1", "4"):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, PYTHONHASHSEED=threads))
        assert run.returncode == 0, run.stderr[-800:]
        assert run.stdout.strip() == here


@pytest.mark.parametrize("world", NAMES)
def test_another_seed_is_another_world(world):
    assert not torch.equal(render(world, PATHS[world], 0), render(world, PATHS[world], 1))
    assert world_frame(world, "tiny", 0).equals(world_frame(world, "tiny", 0))
    assert not world_frame(world, "tiny", 0).path.equals(world_frame(world, "tiny", 1).path)


def test_clips_may_be_written_to_without_harm():
    wave = render("synth-tut17", PATHS["synth-tut17"])
    kept = wave.clone()
    wave.zero_()
    assert torch.equal(render("synth-tut17", PATHS["synth-tut17"]), kept)


def test_rendering_can_stop_half_way():
    clips = render_frame("synth-tau22", world_frame("synth-tau22", "tiny"), workers=2)
    assert next(clips).shape == (SAMPLE_RATE,)
    clips.close()


# ---- the tables

@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("world", NAMES)
def test_every_table(world, scale):
    frame, w = world_frame(world, scale), WORLDS[world]
    assert list(frame.columns) == COLUMNS and not frame.isna().any().any()
    assert frame.path.is_unique and (frame.index == np.arange(len(frame))).all()
    assert set(frame.split) == {"train", "test"}
    for _, part in frame.groupby("split"): assert set(part.scene) == set(w.classes)
    assert not set(frame.group[frame.split == "train"]) & set(frame.group[frame.split == "test"])
    assert set(frame.city) == set(w.cities) if w.cities and scale != "tiny" else set(frame.city) <= set(w.cities or [""])
    assert set(frame.device) == set(w.devices or [""])
    assert (frame.start == 0).all() and (frame.duration == w.clip_seconds).all()
    for column in ("scene", "city", "group", "location", "split"): assert (frame.groupby("recording")[column].nunique() == 1).all(), column
    assert (frame.groupby("group")["scene"].nunique() == 1).all()
    runs = (frame.recording != frame.recording.shift()).sum()
    assert runs == frame.recording.nunique(), "rows of one recording lie side by side"


@pytest.mark.parametrize("world", NAMES)
def test_names_say_what_the_table_says(world):
    for _, row in world_frame(world, "tiny").iterrows():
        clip = synth._parse(WORLDS[world], row.path)
        assert (clip.scene, clip.city, clip.location, clip.recording) == (row.scene, row.city, row.location, row.recording)


def test_class_names_and_order_are_the_real_sets():
    assert WORLDS["synth-tau22"].classes == tuple("airport bus metro metro_station park public_square shopping_mall street_pedestrian street_traffic tram".split())
    assert WORLDS["synth-tut17"].classes == tuple("beach bus cafe/restaurant car city_center forest_path grocery_store home library metro_station office park residential_area train tram".split())
    assert WORLDS["synth-icme24"].classes == tuple("Bus,Airport,Metro,Restaurant,Shopping mall,Public square,Urban park,Traffic street,Construction site,Bar".split(","))
    assert WORLDS["synth-tau22"].cities == tuple("barcelona helsinki lisbon london lyon milan paris prague stockholm vienna".split())
    assert set(WORLDS["synth-icme24"].cities) == {"Xi'an", "Luoyang", "Hefei", "Shanghai", "Chongqing", "Jinan", "Shangrao", "Liupanshui"}


@pytest.mark.parametrize("scale", SCALES)
def test_tau22_devices_and_names(scale):
    frame = world_frame("synth-tau22", scale)
    parts = frame.path.str.rsplit("-", n=5, expand=True)
    parts.columns = ["scene", "city", "place", "segment", "piece", "device"]
    assert (parts[["scene", "city", "device"]] == frame[["scene", "city", "device"]]).all().all()
    assert (parts.city + "-" + parts.place == frame.location).all() and (frame.location == frame.group).all()
    assert parts.piece.astype(int).between(0, 9).all()
    train, test = frame[frame.split == "train"], frame[frame.split == "test"]
    assert set(train.device) == {"a", "b", "c", "s1", "s2", "s3"}
    assert (train.device == "a").mean() > 0.7
    assert set(train[train.device != "a"].recording) <= set(train[train.device == "a"].recording)
    whole = test.groupby(["recording", parts.piece]).device.nunique()
    assert (whole == 9).mean() > 0.99 and (scale == "paper" or (whole == 9).all())
    assert test.device.value_counts().max() - test.device.value_counts().min() <= 20


def test_sizes():
    sizes = {(w, s): tuple(world_frame(w, s).split.value_counts()[["train", "test"]]) for w in NAMES for s in SCALES}
    assert sizes["synth-tau22", "paper"] == (139620, 29680)
    assert sizes["synth-tut17", "paper"] == (4680, 1620)
    assert sum(sizes["synth-icme24", "paper"]) == 1740
    assert sizes["synth-tau22", "tiny"] == (200, 180)
    assert sizes["synth-tau22", "class"] == (2400, 1080)
    labelled = world_frame("synth-icme24", "paper").scene.value_counts()
    assert labelled.to_dict() == {"Airport": 220, "Metro": 209, "Bus": 188, "Public square": 174, "Restaurant": 173, "Construction site": 173, "Bar": 165, "Urban park": 148, "Shopping mall": 147, "Traffic street": 143}
    places = world_frame("synth-tau22", "paper").drop_duplicates("group").split.value_counts()
    assert places.to_dict() == dict(train=365, test=146)


@pytest.mark.parametrize("world", ["synth-tut17", "synth-icme24"])
def test_few_shot_worlds_have_enough_clips_and_places(world):
    for scale, pool, test, places in (("tiny", 6, 4, 2), ("class", 24, 12, 4)):
        frame = world_frame(world, scale)
        counts = frame.groupby(["scene", "split"]).path.nunique().unstack()
        assert (counts.train >= pool).all() and (counts.test >= test).all()
        assert (frame.groupby(["scene", "split"]).group.nunique() >= places).all()


def test_class_scale_has_enough_places():
    places = world_frame("synth-tau22", "class").groupby(["scene", "split"]).group.nunique().unstack()
    assert (places.train >= 8).all() and (places.test >= 4).all()


# ---- the sounds

@pytest.mark.parametrize("world", NAMES)
def test_clips_are_finite_mono_and_as_loud_as_recordings(world):
    frame, w = few(world, 3, 60), WORLDS[world]
    waves = torch.stack(list(render_frame(world, frame, 3)))
    assert waves.dtype == torch.float32 and waves.shape == (60, int(w.clip_seconds * SAMPLE_RATE))
    assert waves.isfinite().all() and waves.abs().max() < 1
    assert (waves.abs() > 0.95).float().mean() < 1e-3, "hardly ever near full scale"
    assert waves.mean(1).abs().max() < 0.01, "no offset"
    level = 10 * waves.square().mean(1).log10()
    assert level.min() > -55 and level.max() < -10
    assert ((level > -46) & (level < -14)).float().mean() > 0.9
    assert level.std() > 2


@pytest.mark.parametrize("name", sorted(synth._LAYERS))
def test_every_layer_is_finite_and_mostly_heard(name):
    levels = []
    for place in range(6):
        mix = synth._Mix(("test", place), ("test", place, 0))
        synth._LAYERS[name](mix, synth._dice("test", place, name), synth._dice("test", place, 0, name), -30.0)
        sound = mix.sound()
        assert sound.shape == (160000,) and np.isfinite(sound).all()
        levels.append(10 * np.log10(np.mean(sound**2) + 1e-12))
    assert -62 < np.median(levels) < -20


def test_devices_hear_the_same_segment():
    stem = "park-paris-1000-40000-4"
    waves = {d: render("synth-tau22", f"{stem}-{d}") for d in WORLDS["synth-tau22"].devices}
    for device, wave in waves.items():
        likeness = torch.corrcoef(torch.stack([waves["a"], wave]))[0, 1]
        assert likeness > 0.4, device
        assert device == "a" or not torch.equal(wave, waves["a"])
    elsewhere = render("synth-tau22", "park-paris-1000-40001-4-a")
    assert torch.corrcoef(torch.stack([waves["a"], elsewhere]))[0, 1].abs() < 0.3


def test_pieces_follow_each_other():
    stem, device = "street_pedestrian-lyon-7-8", synth._response("synth-tau22", 0, "a")
    pieces = torch.cat([render("synth-tau22", f"{stem}-{k}-a") for k in range(10)]).numpy()
    segment = synth._segment("synth-tau22", 0, "street_pedestrian", "lyon", "lyon-7", stem)
    whole = np.convolve(np.concatenate([segment[-256:], segment]), device)[256 : 256 + len(segment)]
    assert np.abs(0.95 * np.tanh(whole / 0.95) - pieces).max() < 5e-3, "no seams beyond the noise floor"


def test_a_place_stays_and_a_moment_passes():
    def mean(path): return torch.stft(render("synth-tau22", path), 512, window=torch.hann_window(512), return_complex=True).abs().square().mean(1).log()
    same, other = [], []
    for n in range(12):
        here = mean(f"bus-paris-{n}-1-0-a")
        same.append((here - mean(f"bus-paris-{n}-2-0-a")).std())
        other.append((here - mean(f"bus-paris-{n + 50}-2-0-a")).std())
    assert 0.5 < np.mean(same) < np.mean(other)


# ---- errors

def test_unknown_world():
    for call in (lambda: world_frame("synth-mars"), lambda: render("synth-mars", "x"), lambda: list(render_frame("tau22", few("synth-tau22")))):
        with pytest.raises(ValueError, match="synth-tau22, synth-tut17, synth-icme24"): call()


@pytest.mark.parametrize("world, path", [
    ("synth-tau22", "airport-lisbon-1000-40000-3"), ("synth-tau22", "airport-lisbon-1000-40000-3-s9"), ("synth-tau22", "airport-lisbon-1000-40000-10-a"),
    ("synth-tau22", "airport-rome-1000-40000-3-a"), ("synth-tau22", "beach-lisbon-1000-40000-3-a"), ("synth-tau22", "airport-lisbon-1000-x-3-a"), ("synth-tau22", ""),
    ("synth-tut17", "c004_30_50"), ("synth-tut17", "z004_30_40"), ("synth-tut17", "c004"), ("synth-tut17", "A004_30_40"), ("synth-tut17", "airport-lisbon-1000-40000-3-a"),
    ("synth-icme24", "xyz_1"), ("synth-icme24", PATHS["synth-icme24"][:-1] + "3"), ("synth-icme24", "ff" * 16 + "1_1"), ("synth-icme24", PATHS["synth-tut17"]),
])
def test_a_path_of_another_world(world, path):
    with pytest.raises(ValueError, match="is no clip of"): render(world, path)


def test_a_path_may_have_a_folder_and_an_ending():
    path = PATHS["synth-tau22"]
    assert torch.equal(render("synth-tau22", f"audio/{path}.wav"), render("synth-tau22", path))
