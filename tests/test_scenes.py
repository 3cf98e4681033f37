"""Edge cases of `contrastasc.scenes`: readers, packing that survives crashes, selection, group splits."""
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import contrastasc.scenes as rooms
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from contrastasc.audio import AudioError, read_audio
from contrastasc.scenes import CLASS_MAP, COLUMNS, NEAR_CLASSES, SEEN, TAU22_CLASSES, Opener, SceneError, SceneSet, load_scenes, seen_classes
from contrastasc.synth import WORLDS, home, render_frame, world_frame
from hypothesis import given, settings, strategies as st

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    "A cache of this test's own."
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "packed"


def record(path, seconds=3.0, rate=16000, seed=0, level=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.random.default_rng(seed).normal(0, level, round(seconds * rate)).clip(-1, 1), rate)
    return path


def small_folder(folder, classes=("bus", "park"), places=("a", "b", "c"), seconds=2.5):
    for i, (c, p) in enumerate((c, p) for c in classes for p in places): record(folder / c / p / f"take{i}.wav", seconds, seed=i)
    return folder


def says(match, *args, **kwargs):
    with pytest.raises(SceneError, match=match) as e: load_scenes(*args, **kwargs)
    assert "\n" not in str(e.value)
    return str(e.value)


# ---- generated worlds

@pytest.mark.parametrize("name", WORLDS)
def test_worlds(name):
    scenes = load_scenes(name)
    frame = world_frame(name, "tiny")
    assert scenes.name == name and scenes.classes == list(WORLDS[name].classes) and len(scenes) == len(frame)
    pd.testing.assert_frame_equal(scenes.frame, frame)
    assert scenes.labels.dtype == np.int64 and [scenes.classes[k] for k in scenes.labels] == list(frame.scene)
    some = np.random.default_rng(0).permutation(len(frame))[:12]
    for i, wave in zip(some, render_frame(name, frame.iloc[some])):
        got = scenes.waveform(i)
        assert got.shape == wave.shape == (round(frame.duration[i] * 16000),) and got.dtype == torch.float32
        assert (got - wave).abs().max() <= wave.abs().max() / 65000
        assert torch.equal(got[:16000], scenes[i][0]) and scenes[i][1] == scenes.labels[i]
        assert torch.equal(scenes.windows(i).flatten(), got)


def test_scale_and_seed_make_other_worlds(monkeypatch):
    a, b = load_scenes("synth-icme24", scale="tiny"), load_scenes("synth-icme24", scale="tiny", seed=1)
    assert a.fingerprint != b.fingerprint and not torch.equal(a[0][0], b[0][0])
    assert load_scenes("synth-icme24").fingerprint == a.fingerprint
    with pytest.raises(ValueError, match="paper"): load_scenes("synth-icme24", scale="huge")


def test_split_of_a_world():
    both = [load_scenes("synth-tau22", split=s) for s in ("train", "test")]
    assert [set(s.frame.split) for s in both] == [{"train"}, {"test"}] and sum(map(len, both)) == len(load_scenes("synth-tau22"))
    assert not set(both[0].frame.group) & set(both[1].frame.group)
    assert says("no split 'valid'.*'test', 'train'", "synth-tau22", split="valid")


# ---- names

def test_unknown_names(tmp_path):
    assert "did you mean 'synth-tut17'" in says("neither a folder nor a scene set", "synth-tut-17")
    assert "did you mean 'synth-tau22'" in says("synth-icme24", "SYNTH-TAU22")
    assert "did you mean" not in says("neither", "/nowhere/at/all")
    says("neither", "")
    says("is a file", record(tmp_path / "a.wav"))


def test_a_reader_can_be_added(cache, monkeypatch):
    def reader(root, split, columns, scale, seed):
        frame = pd.DataFrame(dict.fromkeys(COLUMNS, "") | dict(path=["x", "y"], scene=["b", "a"], recording=["1", "2"], group=["1", "2"], start=0.0, duration=1.0))
        return frame, Opener("mine", ("b", "a"), lambda rows: (torch.ones(16000) * (p == "x") for p in rows.path))
    monkeypatch.setitem(rooms.READERS, "mine", reader)
    scenes = load_scenes("mine")
    assert scenes.labels.tolist() == [0, 1] and scenes[0][0].sum() == 16000 and scenes[1][0].sum() == 0


# ---- folders

def test_class_folders(tmp_path):
    record(tmp_path / "bus" / "one.wav", 2.9, seed=1)
    record(tmp_path / "bus" / "two.flac", 1.0, seed=2)
    record(tmp_path / "park" / "lake" / "three.ogg", 3.2, 44100, seed=3)
    record(tmp_path / "park" / "lake" / "deep" / "four.WAV", 0.4, seed=4)
    scenes = load_scenes(tmp_path)
    assert tuple(scenes.frame.columns) == COLUMNS and scenes.classes == ["bus", "park"] and scenes.name == tmp_path.name
    assert list(scenes.frame.path) == ["bus/one.wav"] * 2 + ["bus/two.flac", "park/lake/deep/four.WAV"] + ["park/lake/three.ogg"] * 3
    assert list(scenes.frame.group) == ["bus/one"] * 2 + ["bus/two"] + ["park/lake"] * 4
    assert list(scenes.frame.start) == [0, 1, 0, 0, 0, 1, 2] and (scenes.frame.duration == 1).all() and (scenes.frame.split == "").all()
    whole = read_audio(tmp_path / "bus" / "one.wav")
    assert (scenes[1][0] - whole[16000:32000]).abs().max() < 1e-5
    short = scenes[3][0]
    assert short.shape == (16000,) and short[6400:].abs().max() == 0 and short[:6400].std() > 0.05


def test_what_is_not_sound_is_left_alone(tmp_path):
    small_folder(tmp_path)
    for name in ("README.md", "bus/cover.jpg", ".DS_Store", "bus/._take0.wav", ".ipynb_checkpoints/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    assert len(load_scenes(tmp_path)) == 12


def test_relative_folders_and_roots(tmp_path, monkeypatch):
    small_folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    sets = [load_scenes("mine"), load_scenes("mine", root=tmp_path), load_scenes(tmp_path / "mine"), load_scenes(Path("."), root="mine")]
    assert len({s.fingerprint for s in sets}) == 1 and {s.name for s in sets} == {"mine"}


def test_folder_errors(tmp_path):
    says("holds no recordings", tmp_path)
    record(tmp_path / "loose.wav")
    says("loose.wav lies outside any class", tmp_path)
    (tmp_path / "loose.wav").unlink()
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "x.m4a").write_bytes(b"x")
    says("x.m4a is of a kind that cannot be read", tmp_path)


def test_damaged_recordings_are_named(tmp_path):
    small_folder(tmp_path)
    (tmp_path / "bus" / "bad.flac").write_bytes(b"no sound")
    with pytest.raises(AudioError, match="bad.flac"): load_scenes(tmp_path)
    record(tmp_path / "bus" / "bad.flac", 5)
    data = (tmp_path / "bus" / "bad.flac").read_bytes()
    (tmp_path / "bus" / "bad.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="bad.flac is cut short"): load_scenes(tmp_path)


def test_folder_without_splits(tmp_path):
    says("comes without splits.*split_by_group", small_folder(tmp_path), split="train")


def test_new_files_are_noticed(tmp_path):
    small_folder(tmp_path)
    before = load_scenes(tmp_path)
    record(tmp_path / "bus" / "new.wav", 4)
    after = load_scenes(tmp_path)
    assert len(after) == len(before) + 4 and after.fingerprint != before.fingerprint
    record(tmp_path / "bus" / "new.wav", 4, seed=9)
    os.utime(tmp_path / "bus" / "new.wav", ns=(1, 1))
    again = load_scenes(tmp_path)
    row = list(after.frame.path).index("bus/new.wav")
    assert again.fingerprint != after.fingerprint and not torch.equal(again[row][0], after[row][0])


# ---- manifests

def manifest(folder, text, name="manifest.csv"):
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


@pytest.fixture
def two(tmp_path):
    record(tmp_path / "audio" / "x.wav", 2.0, seed=1)
    record(tmp_path / "y.wav", 1.0, seed=2)
    return tmp_path


@pytest.mark.parametrize("text", [
    "filename,scene\nx.wav,bus\ny.wav,park\n",
    "filename\tscene_label\nx.wav\tbus\ny.wav\tpark\n",
    "File;Class\nx.wav;bus\ny.wav;park\n",
    "﻿filename,label\r\nx.wav,bus\r\ny.wav,park\r\n",
    " File Name , Category\n x.wav , bus\n y.wav , park\n\n",
    'path,target,class\naudio/x.wav,0,bus\n"y.wav",1,"park"\n',
    "path,scene\naudio\\x.wav,bus\ny.wav,park\n",
])
def test_manifest_dialects(two, text):
    scenes = load_scenes(manifest(two, text))
    assert list(scenes.frame.scene) == ["bus", "bus", "park"] and list(scenes.frame.start) == [0, 1, 0]
    assert scenes[2][0].std() > 0.05 and list(scenes.frame.group) == list(scenes.frame.recording)


def test_absolute_paths(two):
    scenes = load_scenes(manifest(two, f"path,scene\n{two / 'audio' / 'x.wav'},bus\n{two / 'y.wav'},park\n"))
    assert len(scenes) == 3 and scenes[0][0].std() > 0.05


def test_all_columns_and_others(two):
    scenes = load_scenes(manifest(two, "filename,scene_label,source_label,city,identifier,recording_id,split,weather,start,NA\n"
                                       "x.wav,NA,s1,lyon,lyon-1,r1,train,rain,7,NA\ny.wav,None,a,,,r2,,,,\n"))
    f = scenes.frame
    assert list(f.columns) == [*COLUMNS, "weather", "NA"] and scenes.classes == ["NA", "None"]
    assert list(f.device) == ["s1", "s1", "a"] and list(f.city) == ["lyon", "lyon", ""] and list(f.location) == ["lyon-1", "lyon-1", ""]
    assert list(f.group) == ["lyon-1", "lyon-1", "r2"] and list(f.recording) == ["r1", "r1", "r2"] and list(f.split) == ["train", "train", ""]
    assert list(f.weather) == ["rain", "rain", ""] and list(f.start) == [0, 1, 0]
    assert len(load_scenes(two, split="train")) == 2


def test_columns_by_hand(two):
    manifest(two, "what,sound,where,scene\nbus,x.wav,home,1\npark,y.wav,town,2\n")
    says("no column for the path; its columns are what, sound, where, scene", two)
    scenes = load_scenes(two, columns=dict(path="sound", scene="what", group="where"))
    assert scenes.classes == ["bus", "park"] and list(scenes.frame.group) == ["home", "home", "town"]
    says("no column 'wat'", two, columns=dict(scene="wat"))
    says("no 'colour'", two, columns=dict(colour="what"))


@pytest.mark.parametrize("text,match", [
    ("", "not a table"), ("\n\n", "not a table"), ("filename,scene\n", "no rows"), ("filename,tags\nx.wav,bus\n", "no column for the scene.*filename, tags"),
    ("filename,scene\nx.wav,bus\nz.wav,bus\n", "names z.wav, which is neither"), ("filename,scene\nz1.wav,b\nz2.wav,b\n", "2 files are missing"),
    ("filename,scene\nx.wav,bus\naudio/x.wav,park\n", "audio/x.wav twice"), ("filename,scene\nx.wav,\n", "no class in row 1"),
    ("filename,scene\nx.wav,bus\n,park\n", "no file name in row 2"), ("filename,scene\nx.wav\ny.wav,park\n", "no class in row 1"),
    ("filename,scene\nx.wav,bus,loud\ny.wav,park\n", "not a table"), ("filename,scene\n\"x.wav,bus\n", "not a table|names"),
    (b"filename,scene\nx\xff.wav,bus\n", "not UTF-8"),
])
def test_manifest_errors(two, text, match): says(match, manifest(two, text))


def test_manifest_names_a_folder(two):
    says("names audio, which", manifest(two, "filename,scene\naudio,bus\n"))


def test_manifest_wins_over_folders(tmp_path):
    small_folder(tmp_path)
    assert load_scenes(manifest(tmp_path, "filename,scene\nbus/a/take0.wav,other\n")).classes == ["other"]


def test_labels_do_not_touch_the_pack(two, cache):
    a = load_scenes(manifest(two, "filename,scene\nx.wav,bus\ny.wav,park\n"))
    b = load_scenes(manifest(two, "filename,scene\nx.wav,bus\ny.wav,tram\n"))
    assert a.fingerprint != b.fingerprint and len([p for p in cache.iterdir() if p.is_dir()]) == 1


# ---- real recordings, where there are some

def test_real_scenes(real_scenes):
    scenes = load_scenes(real_scenes)
    assert scenes.frame.path.nunique() == len(pd.read_csv(real_scenes / "manifest.csv"))
    groups = scenes.frame.groupby("scene").group.nunique()
    tool = real_scenes.parent / "tools" / "real_kshot.py"
    if not tool.exists(): pytest.skip("no real_kshot.py beside the recordings")
    run = subprocess.run([sys.executable, str(tool), "windows", "--manifest", str(real_scenes / "manifest.csv")], capture_output=True, text=True, check=True)
    want = pd.read_csv(io.StringIO(run.stdout), keep_default_na=False)
    ours = scenes.subset(scene=list(groups.index[groups >= 4])).frame
    assert len(ours) == len(want) and [Path(p).name for p in ours.path] == list(want.filename)
    for mine, theirs in (("start", "start_s"), ("scene", "class"), ("group", "group"), ("split", "split")): assert list(ours[mine]) == list(want[theirs])
    assert set(seen_classes(scenes)) == set(scenes.classes) & set(TAU22_CLASSES)
    for i in np.random.default_rng(0).permutation(len(scenes))[:20]:
        row = scenes.frame.iloc[i]
        piece = read_audio(real_scenes / row.path)[int(row.start) * 16000:][:16000]
        assert (scenes[i][0] - piece).abs().max() <= piece.abs().max() / 65000


def test_real_scenes_split_by_group(real_scenes):
    scenes = load_scenes(real_scenes)
    with pytest.raises(SceneError, match="one group only"): scenes.split_by_group(0.5)
    groups = scenes.frame.groupby("scene").group.nunique()
    a, b = scenes.subset(scene=list(groups.index[groups >= 2])).split_by_group(0.5)
    assert not set(a.frame.group) & set(b.frame.group) and 0.35 < len(a) / (len(a) + len(b)) < 0.65


# ---- packing

def test_resolution_of_quiet_and_loud_windows(tmp_path):
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 1, 16000) * level for level in (1e-7, 1e-4, 1.0, 30.0)] + [np.zeros(16000)]
    wave = np.concatenate(parts).astype(np.float32)
    (tmp_path / "a").mkdir()
    sf.write(tmp_path / "a" / "x.wav", wave, 16000, subtype="FLOAT")
    scenes = load_scenes(tmp_path)
    for i, part in enumerate(parts): assert np.abs(scenes[i][0].numpy() - part).max() <= np.abs(part).max() / 65000
    assert (scenes[4][0] == 0).all()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_encoding_error_is_below_half_a_step(values):
    wave = np.array(values, np.float32)
    sound, scale = rooms._encode([torch.from_numpy(wave)], 1)
    back = np.multiply(sound[0, 0], scale[0, 0], dtype=np.float32)
    assert sound.dtype == np.int16 and np.isfinite(back).all()
    assert np.abs(back[: len(wave)] - wave).max() <= 0.5001 * max(np.abs(wave).max() / 32767, 1e-25) + 1e-6 * np.abs(wave).max() and (back[len(wave):] == 0).all()


def test_second_load_reads_no_sound(tmp_path, monkeypatch):
    small_folder(tmp_path)
    first = load_scenes(tmp_path)
    monkeypatch.setattr(rooms, "read_audio", lambda path: pytest.fail("read again"))
    assert torch.equal(first[0][0], load_scenes(tmp_path)[0][0])


@given(lengths=st.lists(st.tuples(st.integers(1, 200), st.sampled_from([1.0, 10.0])), min_size=1, max_size=20), seconds=st.sampled_from([1, 64, 500]))
@settings(max_examples=100, deadline=None)
def test_chunks_cover_everything_once(lengths, seconds):
    frame = pd.DataFrame([(str(k), d) for k, (n, d) in enumerate(lengths) for _ in range(n)], columns=["recording", "duration"])
    chunks = rooms._chunks(frame, seconds)
    assert [i for start, stop in chunks for i in range(start, stop)] == list(range(len(frame)))
    for start, stop in chunks[:-1]:
        assert frame.recording[stop - 1] != frame.recording[stop] and frame.duration[start:stop].sum() >= seconds


CRASH = """
import sys, time, torch, pandas as pd
import contrastasc.scenes as s
s._DONE_EVERY = 0.0
def read(rows):
    for i in rows.start:
        if i >= 300 and len(sys.argv) > 1: time.sleep(0.02)
        yield torch.full((16000,), float(i + 1))
frame = pd.DataFrame(dict(path="", recording=[str(i // 10) for i in range(600)], start=range(600), duration=1.0))
store = s._pack(frame, s.Opener("crash", (), read), "crash")
import numpy as np
assert torch.allclose(store.pick(np.arange(600), 0)[:, 7], torch.arange(1.0, 601)), "wrong sound"
print("whole")
"""


def run_python(code, *args, **kwargs):
    return subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **kwargs)


def test_a_broken_recording_is_named_and_leaves_no_half_made_pack(tmp_path, cache):
    folder = small_folder(tmp_path / "mine")
    broken = record(folder / "bus/b/take9.flac")
    whole = broken.read_bytes(); broken.write_bytes(whole[:len(whole) // 2])  # a header that promises more
    with pytest.raises(ValueError, match="take9.flac"): load_scenes(folder)
    assert cache.is_dir() and not list(cache.glob("*.part"))
    broken.write_bytes(whole); assert len(load_scenes(folder)) and len(packs(cache)) == 1


def packs(cache): return [p for p in cache.iterdir() if p.is_dir() and p.suffix != ".part"] if cache.exists() else []


def test_killed_while_packing(cache):
    victim = run_python(CRASH, "slow")
    deadline = time.time() + 60
    while time.time() < deadline and not any(p.read_text().count("\n") >= 3 for p in cache.glob("*.part/done")): time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert not packs(cache), "a killed packing left something that looks whole"
    done = next(cache.glob("*.part/done"))
    noted = done.read_text()
    assert noted.count("\n") >= 3
    with open(done, "a") as f: f.write("48")
    second = run_python(CRASH)
    out, err = second.communicate()
    assert out.strip() == "whole", err
    assert len(packs(cache)) == 1 and not list(cache.glob("*.part"))


def test_resuming_reads_only_what_is_missing(cache):
    seen, frame = [], pd.DataFrame(dict(path="", recording=[str(i // 10) for i in range(600)], start=range(600), duration=1.0))
    def opener(stop_at):
        def read(rows):
            for i in rows.start:
                if i == stop_at: raise KeyboardInterrupt
                seen.append(i)
                yield torch.full((16000,), float(i))
        return Opener("resume", (), read)
    with pytest.raises(KeyboardInterrupt): rooms._pack(frame, opener(400), "x")
    assert not packs(cache)
    seen.clear()
    store = rooms._pack(frame, opener(-1), "x")
    assert len(seen) < 400 and torch.allclose(store.pick(np.arange(600), 0)[:, 0], torch.arange(600.0))


def test_two_processes_pack_once(cache):
    both = [run_python(CRASH, "slow") for _ in range(2)]
    assert [p.communicate()[0].strip() for p in both] == ["whole", "whole"]
    assert len(packs(cache)) == 1


def test_a_damaged_pack_is_made_again(tmp_path, cache):
    scenes = load_scenes(small_folder(tmp_path / "mine"))
    want, pack = scenes.batch(range(len(scenes)))["wave"], packs(cache)[0]
    for damage in (lambda: (pack / "index.json").unlink(), lambda: (pack / "index.json").write_text("{"), lambda: os.truncate(pack / "sound.i16", 100),
                   lambda: (pack / "scale.f32").unlink(), lambda: shutil.rmtree(pack)):
        damage()
        assert torch.equal(load_scenes(tmp_path / "mine").batch(range(len(scenes)))["wave"], want)


def test_a_pack_of_another_world_is_made_again(cache, monkeypatch):
    want = load_scenes("synth-icme24")[0][0].clone()
    pack = packs(cache)[0]
    sound = np.memmap(pack / "sound.i16", np.int16, "r+")
    sound[:] = np.roll(sound, 1)
    sound.flush()
    assert torch.equal(load_scenes("synth-icme24")[0][0], want)


def test_a_part_without_notes_is_started_over(tmp_path, cache):
    scenes = load_scenes(small_folder(tmp_path / "mine"))
    pack = packs(cache)[0]
    pack.rename(pack.with_suffix(".part"))
    assert torch.equal(load_scenes(tmp_path / "mine")[0][0], scenes[0][0])


def test_full_disk_is_seen_before_it_is_full(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    says("mine needs [1-9][0-9]* kB.*CONTRASTASC_HOME", small_folder(tmp_path / "mine"))
    monkeypatch.undo()
    assert not packs(cache)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a file size limit")
def test_disk_that_fills_up_while_packing(cache):
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, resource.RLIM_INFINITY))\n" + CRASH
    out, err = run_python(code).communicate()
    assert "SceneError: crash cannot be packed" in err and "CONTRASTASC_HOME" in err and not packs(cache)
    out, err = run_python(CRASH).communicate()
    assert out.strip() == "whole", err


def test_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path / "file"))
    says("cannot be packed into the cache", small_folder(tmp_path / "mine"))


def test_batches_are_fast():
    scenes = load_scenes("synth-tau22")
    order, began, rounds = np.random.default_rng(0).permutation(len(scenes)), time.perf_counter(), 10
    for _ in range(rounds):
        for part in np.array_split(order, 4): scenes.batch(part)
    rate = rounds * len(scenes) / (time.perf_counter() - began)
    assert rate > 2000, f"{rate:.0f} clips a second"


# ---- SceneSet

def tiny(n=12, classes=3, groups=6, seconds=1.0, **columns):
    waves = np.random.default_rng(0).normal(0, 0.1, (n, round(seconds * 16000))).astype(np.float32)
    return SceneSet.from_arrays(waves, [f"c{i % classes}" for i in range(n)], groups=[f"g{i % groups}" for i in range(n)], **columns)


def test_items():
    scenes = tiny()
    wave, label = scenes[-1]
    assert type(label) is int and wave.shape == (16000,) and wave.dtype == torch.float32 and torch.equal(wave, scenes[11][0]) and torch.equal(wave, scenes[np.int64(11)][0])
    for bad in (12, -13):
        with pytest.raises(IndexError): scenes[bad]
    for bad in ("a", 1.5, slice(2)):
        with pytest.raises((TypeError, AttributeError)): scenes[bad]
    assert len(list(scenes)) == 12


def test_batches():
    scenes = tiny()
    for indices in ([3, 0, 3], np.array([3, 0, 3]), torch.tensor([3, 0, 3]), (3, 0, 3)):
        batch = scenes.batch(indices)
        assert set(batch) == {"wave", "label", "index"} and batch["index"].tolist() == [3, 0, 3] and batch["label"].tolist() == [0, 0, 0]
        assert batch["wave"].dtype == torch.float32 and batch["label"].dtype == batch["index"].dtype == torch.int64
        assert torch.equal(batch["wave"], torch.stack([scenes[i][0] for i in (3, 0, 3)]))
    assert scenes.batch([])["wave"].shape == (0, 16000) and scenes.batch([-1])["index"].tolist() == [11]
    assert len(scenes.batch(scenes.labels == 1)["label"]) == 4
    with pytest.raises(IndexError): scenes.batch([12])
    scenes.batch([0])["wave"].fill_(9)
    scenes[0][0].fill_(9)
    assert scenes[0][0].max() < 2


def test_packed_batches_do_not_share_memory(tmp_path):
    scenes = load_scenes(small_folder(tmp_path))
    scenes[0][0].fill_(9); scenes.windows(0).fill_(9); scenes.waveform(0).fill_(9)
    assert scenes[0][0].max() < 2


def test_clips_of_other_lengths():
    waves = [np.ones(100), np.ones(16000), np.ones(40000), np.ones(160000)]
    scenes = SceneSet.from_arrays(waves, list("abca"))
    assert [len(scenes.waveform(i)) for i in range(4)] == [100, 16000, 40000, 160000]
    assert [tuple(scenes.windows(i).shape) for i in range(4)] == [(1, 16000), (1, 16000), (2, 16000), (10, 16000)]
    assert scenes[0][0].sum() == 100 and scenes.batch([2])["wave"].shape == (1, 16000)
    assert "0.00625 to 10 s" in repr(scenes)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, pd.Series])
def test_number_labels(kind):
    waves = torch.zeros(3, 16000)
    assert SceneSet.from_arrays(waves, kind([2, 0, 2]), classes=["x", "y", "z"]).frame.scene.tolist() == ["z", "x", "z"]
    scenes = SceneSet.from_arrays(waves, kind([10, 9, 10]))
    assert scenes.classes == ["9", "10"] and scenes.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("arguments,match", [
    (dict(waves=torch.zeros(3, 100), labels=["a"]), "3 clips and 1 labels"), (dict(waves=torch.zeros(0, 100), labels=[]), "no clip"),
    (dict(waves=torch.zeros(2, 100), labels=["a", "b"], groups=["g"]), "2 clips and 1 values of group"),
    (dict(waves=torch.zeros(2, 100), labels=["a", "b"], device=["x"] * 3), "2 clips and 3 values of device"),
    (dict(waves=torch.zeros(2, 100), labels=["a", "q"], classes=["a", "b"]), "'q' is not among the classes a, b"),
    (dict(waves=torch.zeros(2, 100), labels=[0, 2], classes=["a", "b"]), "run from 0 to 2"), (dict(waves=torch.zeros(2, 100), labels=[-1, 1], classes=["a", "b"]), "run from -1"),
    (dict(waves=[np.zeros(5), np.zeros(0)], labels=["a", "b"]), "clip 1 has shape"), (dict(waves=torch.zeros(2, 2, 100), labels=["a", "b"]), "clip 0 has shape"),
    (dict(waves=[np.zeros(5), np.array([np.nan])], labels=["a", "b"]), "clip 1 holds NaN"), (dict(waves=torch.zeros(2, 100), labels=[["a"], ["b"]]), "labels of shape"),
])
def test_from_arrays_refuses(arguments, match):
    with pytest.raises(SceneError, match=match): SceneSet.from_arrays(**arguments)


def test_from_arrays_columns():
    scenes = tiny(split=["train", "test"] * 6, device=list("abcabcabcabc"), noise=range(12))
    assert list(scenes.frame.columns) == [*COLUMNS, "noise"] and len(scenes.subset(split="train", device="a")) == 2 and len(scenes.subset(noise=[3, 4])) == 2


def test_subset():
    scenes = tiny(device=["x"] * 6 + ["y"] * 6)
    for where in (scenes.labels == 1, scenes.frame.scene == "c1", [1, 4, 7, 10], np.array([1, 4, 7, 10]), torch.tensor([1, 4, 7, 10])):
        part = scenes.subset(where)
        assert len(part) == 4 and set(part.labels) == {1} and part.classes == scenes.classes and list(part.frame.index) == [0, 1, 2, 3]
        assert torch.equal(part[2][0], scenes[7][0]) and torch.equal(part.batch([2])["wave"][0], scenes[7][0])
    assert len(scenes.subset(scene=["c0", "c1"], device="y")) == 4 and len(scenes.subset([0, 1], device="x")) == 2
    assert scenes.subset([5, 3]).subset([1]).frame.path[0] == scenes.frame.path[3]


@pytest.mark.parametrize("arguments,match", [
    (dict(colour="red"), "no column 'colour'; the columns are path, scene"), (dict(scene="zoo"), "no class 'zoo'; the classes are c0, c1, c2"), (dict(scene=["c0", "zoo"]), "no class 'zoo'"),
    (dict(group="g9"), "no clip has group 'g9'; there are 'g0', 'g1'"), (dict(where=[True, False]), "mask of shape"), (dict(where=np.zeros(12, bool)), "leaves no clip"),
    (dict(where=[99]), "between 0 and 11"), (dict(where=[0.5]), "whole numbers"), (dict(where=["c0"]), "whole numbers"), (dict(where=[]), "whole numbers|no clip"),
    (dict(scene="c0", group="g1"), "no clip has group 'g1'"),
])
def test_subset_refuses(arguments, match):
    with pytest.raises(SceneError, match=match): tiny().subset(**arguments)


def test_fingerprints():
    scenes = tiny()
    prints = [scenes.fingerprint, scenes.subset([0, 1]).fingerprint, scenes.subset([1, 0]).fingerprint, scenes.subset([0, 0]).fingerprint,
              tiny(device=["x"] * 12).fingerprint, tiny(groups=5).fingerprint, tiny(n=11).fingerprint, tiny(seconds=2.0).fingerprint]
    assert len(set(prints)) == len(prints) and all(len(p) == 16 and int(p, 16) >= 0 for p in prints)
    assert tiny().fingerprint == scenes.fingerprint == scenes.subset(range(12)).fingerprint
    assert SceneSet.from_arrays(np.zeros((1, 9)), ["a"], classes=["a", "b"]).fingerprint != SceneSet.from_arrays(np.zeros((1, 9)), ["a"]).fingerprint


def test_pickles_small(tmp_path):
    scenes = load_scenes("synth-tau22")
    scenes[0]
    data = pickle.dumps(scenes)
    assert len(data) < 10**6 and torch.equal(pickle.loads(data).batch([5])["wave"], scenes.batch([5])["wave"])


def test_data_loader_workers():
    scenes = load_scenes("synth-tau22").subset(range(20))
    for context in ("fork", "spawn"):
        if context not in torch.multiprocessing.get_all_start_methods(): continue
        waves, labels = zip(*torch.utils.data.DataLoader(scenes, batch_size=8, num_workers=2, multiprocessing_context=context))
        assert torch.equal(torch.cat(waves), scenes.batch(range(20))["wave"]) and torch.equal(torch.cat(labels), torch.from_numpy(scenes.labels))


def test_repr():
    assert repr(tiny()) == "SceneSet arrays: 12 clips of 1 s (0.2 min), 3 classes, 6 groups"
    assert "splits: train 6, test 6" in repr(tiny(split=["train", "test"] * 6))


# ---- group splits

@given(data=st.data(), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_no_group_on_both_sides(data, fraction, seed):
    sizes = data.draw(st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=8), min_size=1, max_size=6))
    rows = [(f"c{c}", f"c{c}g{g}") for c, groups in enumerate(sizes) for g, n in enumerate(groups) for _ in range(n)]
    order = np.random.default_rng(seed).permutation(len(rows))
    scene, group = (pd.Series([rows[i][k] for i in order]) for k in (0, 1))
    first = rooms._divide(scene, group, fraction, seed)
    assert first.dtype == bool and first.shape == (len(rows),)
    assert not set(group[first]) & set(group[~first])
    assert set(scene[first]) == set(scene[~first]) == set(scene)
    assert (first == rooms._divide(scene, group, fraction, seed)).all()
    for c, groups in enumerate(sizes):
        share, here = fraction * sum(groups), first[(scene == f"c{c}").values].sum()
        assert abs(here - share) <= max(groups)


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=60), fraction=st.floats(0.1, 0.9))
@settings(max_examples=150, deadline=None)
def test_groups_of_several_classes(pairs, fraction):
    scene, group = (pd.Series([f"{p[k]}" for p in pairs]) for k in (0, 1))
    try: first = rooms._divide(scene, group, fraction, 0)
    except SceneError as e: assert "one group only" in str(e) or "span several classes" in str(e); return
    assert not set(group[first]) & set(group[~first]) and set(scene[first]) == set(scene[~first])


def test_row_order_does_not_matter():
    scene, group = pd.Series([f"c{i % 3}" for i in range(60)]), pd.Series([f"g{i % 15}" for i in range(60)])
    order = np.random.default_rng(1).permutation(60)
    first = rooms._divide(scene, group, 0.6, 3)
    assert (rooms._divide(scene[order].reset_index(drop=True), group[order].reset_index(drop=True), 0.6, 3) == first[order]).all()


def test_split_by_group_on_sets():
    scenes = load_scenes("synth-tut17")
    a, b = scenes.split_by_group(0.5, seed=1)
    assert len(a) + len(b) == len(scenes) and a.classes == b.classes == scenes.classes and not set(a.frame.group) & set(b.frame.group)
    assert set(a.labels) == set(b.labels) == set(range(15))
    other, _ = scenes.split_by_group(0.5, seed=2)
    assert other.fingerprint != a.fingerprint and scenes.split_by_group(0.5, seed=1)[0].fingerprint == a.fingerprint


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fraction_must_be_one(fraction):
    with pytest.raises(SceneError, match="between 0 and 1"): tiny().split_by_group(fraction)


def test_classes_with_one_group():
    with pytest.raises(SceneError, match=r"class 'c0' has one group only.*\(the same for 2 more classes\)"): tiny(groups=3).split_by_group(0.5)


# ---- seen and unseen

def test_seen():
    assert SEEN["tau22"] == SEEN["synth-tau22"] == TAU22_CLASSES == WORLDS["synth-tau22"].classes
    assert set(SEEN["tut17"]) == {"bus", "metro_station", "park", "tram"} and set(SEEN["synth-tut17"]) <= set(WORLDS["synth-tut17"].classes)
    assert set(WORLDS["synth-icme24"].classes) - set(SEEN["icme24"]) == {"Restaurant", "Construction site", "Bar"} and SEEN["icme24"] == SEEN["synth-icme24"]
    assert set(CLASS_MAP) | set(NEAR_CLASSES) <= set(TAU22_CLASSES)
    assert all(name not in SEEN[target] for near in NEAR_CLASSES.values() for target, name in near.items())


def test_seen_classes_of_any_set(tmp_path):
    assert seen_classes(load_scenes("synth-tut17")) == ("bus", "metro_station", "park", "tram")
    assert seen_classes(SceneSet.from_arrays(np.zeros((4, 9)), ["Metro Station", "zoo", "metro-station", "parking"])) == ("Metro Station", "metro-station")
    for i, name in enumerate("abcd"): record(tmp_path / f"{name}.wav", seed=i)
    manifest(tmp_path, "filename,class,tau_class\na.wav,Subway,metro\nb.wav,Wood,\nc.wav,mixed,park\nd.wav,mixed,\n")
    assert seen_classes(load_scenes(tmp_path)) == ("Subway",)


def test_of_classes_counts_labels_anew():
    scenes = SceneSet.from_arrays(np.random.default_rng(0).normal(size=(6, 16000)) / 10, list("abcabc"))
    some = scenes.of_classes(["c", "a"])
    assert some.classes == ["c", "a"] and list(some.labels) == [1, 0, 1, 0] and len(some) == 4
    assert torch.equal(some.waveform(1), scenes.waveform(2)) and some.fingerprint != scenes.subset(scene=["c", "a"]).fingerprint
    with pytest.raises(SceneError, match="no class 'z'"): scenes.of_classes(["a", "z"])


def test_the_worlds_are_the_edition_that_packs_are_named_after():
    "Whoever changes what the worlds sound like gives scenes._EDITION another name, and these levels with it."
    from contrastasc.scenes import _EDITION
    from contrastasc.synth import render, world_frame
    levels = {"synth-tau22": [0.0506, 0.10243, 0.020977, 0.020295, 0.030415, 0.043783, 0.027687, 0.041632],
              "synth-tut17": [0.016391, 0.017929, 0.038839, 0.022506, 0.015875, 0.011163, 0.015332, 0.036844],
              "synth-icme24": [0.022823, 0.018111, 0.031218, 0.095558, 0.042403, 0.050658, 0.041806, 0.066905]}
    assert _EDITION == "8ec84b5afb7e4475"
    for world, expected in levels.items():
        frame = world_frame(world, "tiny", 0)
        waves = [render(world, row) for _, row in frame.iloc[np.linspace(0, len(frame) - 1, 8).astype(int)].iterrows()]
        assert np.allclose([w.square().mean().sqrt() for w in waves], expected, rtol=1e-3)


def test_sound_that_is_not_finite_is_never_packed(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path))
    frame = pd.DataFrame(dict.fromkeys(COLUMNS, "") | dict(path=["good", "bad"], scene="x", recording=["a", "b"], start=0.0, duration=1.0))
    waves = dict(good=np.ones(16000, np.float32), bad=np.full(16000, np.nan, np.float32))
    opener = Opener("nan test", ("x",), lambda rows: (waves[p] for p in rows.path))
    with pytest.raises(SceneError, match="bad holds NaN"): SceneSet.from_opener(frame, opener, "test")
    assert not list((tmp_path / "packed").glob("*/index.json"))
