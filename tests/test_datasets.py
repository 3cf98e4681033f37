"""Readers of the real data sets: exact formats on small copies, every broken line named, the real label files where they are at hand."""
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile as sf
import torch

from contrastasc import scenes as rooms
from contrastasc.audio import read_audio
from contrastasc.datasets import (COLUMNS, DATASETS, ICME24_FOLDER, ICME24_LABELS, ICME24_SPLITS, ICME24_TIMES, PUBLISHED, SEEN, TAU22_FOLDER, TUT17_FOLDERS,
                                  SceneError, difference_to_published, locate, read_icme24, read_labels, read_tau22, read_tut17, sets_home, write_miniature)
from contrastasc.scenes import check_pack, load_scenes, seen_classes
from contrastasc.synth import render, world_frame

REAL = Path(__file__).resolve().parents[2] / "shared" / "icme24-metadata"
READ = dict(tau22=read_tau22, tut17=read_tut17, icme24=read_icme24)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    "Tables of small copies; {name: root}."
    roots = {}
    for name in READ:
        roots[name] = tmp_path_factory.mktemp(name)
        write_miniature(name, roots[name], sound=False)
    return roots


def copy_of(copies, name, tmp_path):
    "A copy that may be spoilt."
    for file in copies[name].rglob("*"):
        if file.is_file():
            target = tmp_path / "spoilt" / file.relative_to(copies[name])
            target.parent.mkdir(parents=True, exist_ok=True); target.write_bytes(file.read_bytes())
    return tmp_path / "spoilt"


def swap(path, old, new, count=1):
    text = path.read_bytes()
    assert old.encode() in text, f"{old!r} is not in {path}"
    path.write_bytes(text.replace(old.encode(), new.encode(), count))


def says(words, read, *args, **kwargs):
    with pytest.raises(SceneError) as e: read(*args, **kwargs)
    assert words in str(e.value) and "\n" not in str(e.value), str(e.value)


# ---- the formats

@pytest.mark.parametrize("name", READ)
def test_a_copy_reads_back_as_its_world(name, copies):
    table, world = READ[name](copies[name]), world_frame(f"synth-{name}", "tiny")
    assert tuple(table.columns) == COLUMNS and table.path.is_unique and list(table.index) == list(range(len(table)))
    kept = table[table.split != "unused"]
    assert len(kept) == len(world) and kept.scene.value_counts().to_dict() == world.scene.value_counts().to_dict()
    assert set(table.split) == ({"train", "test", "unused"} if name == "tau22" else {"train", "test"})
    assert table.duration.unique() == [1.0 if name == "tau22" else 10.0]
    assert not set(table.group[table.split == "train"]) & set(table.group[table.split == "test"])


def test_tau22_is_written_as_documented(copies):
    folder = copies["tau22"] / TAU22_FOLDER
    meta = (folder / "meta.csv").read_text().splitlines()
    assert meta[0] == "filename\tscene_label\tidentifier\tsource_label" and all(len(l.split("\t")) == 4 for l in meta)
    assert (folder / "evaluation_setup" / "fold1_train.csv").read_text().startswith("filename\tscene_label\naudio/")
    assert (folder / "evaluation_setup" / "fold1_test.csv").read_text().startswith("filename\naudio/")


@pytest.fixture
def two_clips(tmp_path):
    folder = tmp_path / TAU22_FOLDER
    rows = ["audio/airport-lisbon-1000-40000-0-a.wav\tairport\tlisbon-1000\ta", "audio/street_traffic-prague-1006-41673-7-s5.wav\tstreet_traffic\tprague-1006\ts5",
            "audio/airport-barcelona-0-0-0-a.wav\tairport\tbarcelona-0\ta"]
    (folder / "evaluation_setup").mkdir(parents=True)
    (folder / "meta.csv").write_text("filename\tscene_label\tidentifier\tsource_label\n" + "\n".join(rows) + "\n")
    (folder / "evaluation_setup" / "fold1_train.csv").write_text("filename\tscene_label\naudio/airport-lisbon-1000-40000-0-a.wav\tairport\n")
    (folder / "evaluation_setup" / "fold1_evaluate.csv").write_text("filename\tscene_label\naudio/street_traffic-prague-1006-41673-7-s5.wav\tstreet_traffic\n")
    return tmp_path


def test_tau22_reads_documented_lines(two_clips):
    table = read_tau22(two_clips)
    assert table.iloc[1].to_dict() == dict(
        path=f"{TAU22_FOLDER}/audio/street_traffic-prague-1006-41673-7-s5.wav", scene="street_traffic", device="s5", city="prague", location="prague-1006",
        recording="street_traffic-prague-1006-41673", group="prague-1006", split="test", start=0.0, duration=1.0)
    assert list(table.split) == ["train", "test", "unused"]


def test_tau22_without_labels_of_the_test(copies, tmp_path):
    root = copy_of(copies, "tau22", tmp_path)
    (root / TAU22_FOLDER / "evaluation_setup" / "fold1_evaluate.csv").unlink()
    pd.testing.assert_frame_equal(read_tau22(root), read_tau22(copies["tau22"]))


@pytest.mark.parametrize("file, old, new, words", [
    ("meta.csv", "\tairport\t", "\tbus\t", "meta.csv, line 2: audio/airport-"),
    ("meta.csv", "airport-", "airport+", "meta.csv, line 2: audio/airport+"),
    ("meta.csv", "\ta\n", "\ts1\n", "is said to come from device s1"),
    ("meta.csv", "identifier", "place", "meta.csv, line 1: there is no column 'identifier'"),
    ("evaluation_setup/fold1_train.csv", "\tairport\n", "\tbus\n", "fold1_train.csv, line 2: audio/airport-"),
    ("evaluation_setup/fold1_train.csv", "audio/airport-", "audio/airport-x", "is not in meta.csv"),
    ("evaluation_setup/fold1_train.csv", "\n", "\n\x00\n", "fold1_train.csv, line 2: 1 columns"),
])
def test_tau22_names_the_line(file, old, new, words, copies, tmp_path):
    root = copy_of(copies, "tau22", tmp_path)
    swap(root / TAU22_FOLDER / file, old, new)
    says(words, read_tau22, root)


def test_a_tau22_clip_on_both_sides(copies, tmp_path):
    setup = copy_of(copies, "tau22", tmp_path) / TAU22_FOLDER / "evaluation_setup"
    line = (setup / "fold1_evaluate.csv").read_text().splitlines()[1]
    with open(setup / "fold1_train.csv", "a") as f: f.write(line + "\n")
    says("is also in the test", read_tau22, tmp_path / "spoilt")


def test_an_unknown_class(two_clips):
    for file in ("meta.csv", "evaluation_setup/fold1_train.csv"): swap(two_clips / TAU22_FOLDER / file, "airport", "harbour", -1)
    says("line 2: harbour is no class of TAU22", read_tau22, two_clips)


@pytest.mark.parametrize("text, words", [("", "has no rows"), ("a\tb\n", "has no rows"), ("b\ta\n1\n", "line 2: 1 columns, but 2 are needed"), ("a\tb\n1\t2\n\n1\t3\n", "line 4: 1 is named a second time")])
def test_label_files(text, words, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    says(words, read_labels, tmp_path / "x.csv", ("a", "b"))


def test_label_files_that_are_no_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    says("not UTF-8", read_labels, tmp_path / "x.csv", ("a",))
    says("is missing", read_labels, tmp_path / "y.csv", ("a",))
    says("cannot be read", read_labels, tmp_path, ("a",))


@pytest.mark.parametrize("sep, text, words", [("\t", "a,b\n1,2\n", "among a,b; is it separated by commas? It should be tabs"), (",", "a;b\n1;2\n", "semicolons? It should be commas"),
                                              ("\t", "a\tb\n1,2\n", "1 columns, but 2 are needed; is it separated by commas?"), ("\t", "c\n1\n", "no column 'a' among c")])
def test_label_files_with_another_separator(sep, text, words, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    says(words, read_labels, tmp_path / "x.csv", ("a", "b"), sep)


@pytest.mark.parametrize("name, file", [("tau22", f"{TAU22_FOLDER}/meta.csv"), ("tut17", f"{TUT17_FOLDERS[0]}/meta.txt"), ("icme24", ICME24_LABELS)])
def test_what_is_missing_comes_with_its_command(name, file, tmp_path):
    says(f"{tmp_path / file} is missing; `contrastasc download {name} --root {tmp_path}` gets it", READ[name], tmp_path)


def test_a_home_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path / "file" / "home"))
    says("point CONTRASTASC_HOME at a folder of yours", sets_home)


# ---- TUT17

def test_tut17_without_its_optional_files(copies, tmp_path):
    root = copy_of(copies, "tut17", tmp_path)
    whole, setup = read_tut17(root), root / TUT17_FOLDERS[1] / "evaluation_setup"
    (setup / "map.txt").unlink()
    bare = read_tut17(root)
    pd.testing.assert_frame_equal(bare[["path", "scene", "split"]], whole[["path", "scene", "split"]])
    tests = bare[bare.split == "test"]
    assert tests.group.nunique() == len(tests) > whole[whole.split == "test"].group.nunique() and set(tests.location) == {""}
    assert "without map.txt" in difference_to_published("tut17", bare) and "map.txt" not in difference_to_published("tut17", whole)
    (setup / "evaluate.txt").rename(root / TUT17_FOLDERS[1] / "meta.txt")
    pd.testing.assert_frame_equal(read_tut17(root), bare)
    (root / TUT17_FOLDERS[1] / "meta.txt").unlink()
    says("evaluate.txt is missing", read_tut17, root)
    assert len(read_tut17(root, "fold2")) == (whole.split == "train").sum()


@pytest.fixture
def renamed(copies, tmp_path):
    "The file with the old names of a copy's evaluation clips, and the copy's root."
    root = copy_of(copies, "tut17", tmp_path)
    return root / TUT17_FOLDERS[1] / "evaluation_setup" / "map.txt", root


def test_tut17_old_names_are_found_by_base_name(renamed, copies):
    path, root = renamed
    for text in (path.read_text().replace("audio/", ""), path.read_text().replace("audio/", "TUT-acoustic-scenes-2017-evaluation/audio/")):
        path.write_text(text)
        pd.testing.assert_frame_equal(read_tut17(root), read_tut17(copies["tut17"]))


def test_tut17_old_names_that_do_not_fit(renamed):
    path, root = renamed
    lines = path.read_text().splitlines()
    count = len(lines)
    path.write_text("\n".join(lines[1:]))
    says(f"map.txt has no line for {lines[0].split('/')[-1]}; get it again", read_tut17, root)
    path.write_text("\n".join("\t".join(l.split("\t")[::-1]) for l in lines))
    says(f"and {count - 1} more of {count} files", read_tut17, root)
    path.write_text("\n".join([*lines, "other_0_10.wav\t" + lines[2].split("\t")[1]]))
    says(f"line {count + 1}: {lines[2].split(chr(9))[1]} is named a second time", read_tut17, root)
    path.write_text("\n".join(l.replace("\t", ",") for l in lines))
    says("is it separated by commas?", read_tut17, root)


def test_tut17_halves_keep_apart_where_their_numbers_meet(renamed):
    path, root = renamed
    taken = read_tut17(root).query("split == 'train'").recording.iat[0]
    names = [f"audio/{taken}_{10 * n}_{10 * n + 10}.wav\t{l.split(chr(9))[1]}" for n, l in enumerate(path.read_text().splitlines())]
    path.write_text("\n".join(names))
    table = read_tut17(root)
    groups = {s: set(table.group[table.split == s]) for s in ("train", "test")}
    assert groups["test"] == {f"evaluation-{taken}"} and not groups["test"] & groups["train"] and taken in groups["train"]


def test_tut17_recordings_are_what_clips_were_cut_from(copies):
    table = read_tut17(copies["tut17"])
    assert (table.recording == table.location).all() and table.groupby("recording").scene.nunique().eq(1).all() and not table.recording.str.contains("_").any()


def test_tut17_further_columns_are_ignored(copies, tmp_path):
    root = copy_of(copies, "tut17", tmp_path)
    path = root / TUT17_FOLDERS[0] / "evaluation_setup" / "fold1_train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join("\t".join(l.split("\t")[:2]) for l in lines[::2]) + "\n" + "\n".join(l + "\tmore" for l in lines[1::2]) + "\n")
    assert sorted(read_tut17(root, "fold1").path) == sorted(read_tut17(copies["tut17"], "fold1").path)


def test_tut17_says_what_is_wrong(copies, tmp_path):
    root = copy_of(copies, "tut17", tmp_path)
    swap(root / TUT17_FOLDERS[0] / "meta.txt", "\tcafe/restaurant\t", "\tcafe\t")
    says("is no class of TUT17", read_tut17, root)
    with pytest.raises(ValueError, match="side must be one of"): read_tut17(root, "fold5")
    swap(root / TUT17_FOLDERS[0] / "meta.txt", "\tcafe\t", "\tcafe/restaurant\t")
    swap(root / TUT17_FOLDERS[0] / "evaluation_setup" / "fold1_train.txt", "audio/a", "audio/z")
    says("is not in", read_tut17, root, "fold1")


def test_tut17_slash(copies):
    table = read_tut17(copies["tut17"])
    assert "cafe/restaurant" in set(table.scene) and table.path.str.count("/").eq(2).all()


# ---- ICME24

def test_icme24_is_written_as_documented(copies):
    labels, times = ((copies["icme24"] / f).read_bytes() for f in (ICME24_LABELS, ICME24_TIMES))
    assert labels.startswith(b"filename,scene_label\r\n") and b",\r\n" in labels
    assert times.startswith(b"\xef\xbb\xbffilename,location,record_time,scene_label\r\n") and b"Xi'an" in times


def test_icme24_without_times(copies, tmp_path):
    root = copy_of(copies, "icme24", tmp_path)
    labelled = read_icme24(root)
    (root / ICME24_TIMES).unlink()
    says(f"{ICME24_TIMES} is missing", read_icme24, root)
    random = read_icme24(root, "random")
    assert sorted(random.path) == sorted(labelled.path) and random.split.eq("train").mean() == pytest.approx(0.8, abs=0.05)
    with pytest.raises(ValueError, match="split must be one of"): read_icme24(root, "city")


def test_icme24_from_the_second_table_alone(copies, tmp_path):
    root = copy_of(copies, "icme24", tmp_path)
    (root / ICME24_LABELS).unlink()
    pd.testing.assert_frame_equal(read_icme24(root), read_icme24(copies["icme24"]))


@pytest.mark.parametrize("file, old, new, words", [
    (ICME24_LABELS, ",Bar\r\n", ",Pub\r\n", "Pub is no class of ICME24"),
    (ICME24_TIMES, "2023-06", "2023/06", "is not a time like"),
    (ICME24_TIMES, ",Bar\r\n", ",Bus\r\n", "the labels call it Bar"),
])
def test_icme24_says_what_is_wrong(file, old, new, words, copies, tmp_path):
    root = copy_of(copies, "icme24", tmp_path)
    swap(root / file, old, new)
    says(words, read_icme24, root)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real label files are not here")
def test_real_icme24_labels(tmp_path):
    for file in (ICME24_LABELS, ICME24_TIMES): (tmp_path / file).write_bytes((REAL / file).read_bytes())
    assert hashlib.md5((tmp_path / ICME24_LABELS).read_bytes()).hexdigest() == "00387dfe0f87df266cb83b16aadb8b98"
    tables = {s: read_icme24(tmp_path, s) for s in ICME24_SPLITS}
    counts = {"Airport": 220, "Metro": 209, "Bus": 188, "Public square": 174, "Restaurant": 173, "Construction site": 173, "Bar": 165, "Urban park": 148,
              "Shopping mall": 147, "Traffic street": 143}
    for table in tables.values():
        assert table.scene.value_counts().to_dict() == counts and table.groupby("scene").split.nunique().eq(2).all()
    session, recording, random = tables.values()
    assert session.recording.nunique() == 309 and session.groupby("scene").group.nunique().to_dict() == {
        "Airport": 12, "Metro": 12, "Restaurant": 5, "Construction site": 4, "Shopping mall": 4, "Bar": 3, "Bus": 3, "Public square": 3, "Traffic street": 3, "Urban park": 3}
    tests = session[session.split == "test"].scene.value_counts()
    assert tests.min() == tests["Public square"] == 40
    assert recording[recording.split == "test"].scene.value_counts().min() >= 64
    def leaked(t, column): return round(100 * t[t.split == "test"][column].isin(set(t[t.split == "train"][column])).mean(), 2)
    assert [(leaked(t, "recording"), leaked(t, "location")) for t in tables.values()] == [(0, 0), (0, 86.83), (97.72, 100)], "chapter 01b prints these"
    assert all(difference_to_published(n, t) == "" for n, t in zip(("icme24", "icme24-recording", "icme24-random"), tables.values()))
    clips = pd.read_csv(tmp_path / ICME24_TIMES, encoding="utf-8-sig").groupby(["location", "record_time"]).size()
    assert (clips.min(), clips.median(), clips.max()) == (1, 26, 53)


def test_icme24_labels_that_were_cut_short(copies, tmp_path):
    root = copy_of(copies, "icme24", tmp_path)
    for file in (ICME24_LABELS, ICME24_TIMES):
        lines = (root / file).read_bytes().split(b"\r\n")
        (root / file).write_bytes(b"\r\n".join(lines[:len(lines) // 2]) + b"\r\n")
        if file == ICME24_LABELS: says(f"but none in {ICME24_LABELS}", read_icme24, root)
    for split in ICME24_SPLITS[1:]: assert "of 1,740 labelled clips" in difference_to_published(f"icme24-{split}", read_icme24(root, "random"))


# ---- sound

@pytest.fixture(scope="module")
def sounding(tmp_path_factory):
    "Small copies with a few clips of sound, one root for all; {name: table of files}."
    root, files = tmp_path_factory.mktemp("sounding"), {}
    for name, n in (("tau22", 4), ("tut17", 2), ("icme24", 2)):
        frame = world_frame(f"synth-{name}", "tiny")
        frame = frame[frame.scene.isin(frame.scene.unique()[:2])].groupby(["scene", "split"]).head(n)
        files[name] = write_miniature(name, root, frame)
    return root, files


@pytest.mark.parametrize("name, channels, seconds", [("tau22", 1, 1), ("tut17", 2, 10), ("icme24", 1, 10)])
def test_sound_of_a_copy(name, channels, seconds, sounding):
    root, files = sounding
    info = sf.info(root / files[name].path[0])
    assert (info.samplerate, info.subtype, info.channels, info.duration) == (44100, "PCM_24", channels, seconds)
    assert (read_audio(root / files[name].path[0]).std() / render(f"synth-{name}", files[name]["name"][0]).std()).log10().abs() < 0.1


@pytest.mark.parametrize("name", ["tau22", "tut17", "icme24", "icme24-random", "tut17-fold1"])
def test_load_scenes(name, sounding):
    root, files = sounding
    scenes = load_scenes(name, root)
    assert scenes.name == name and scenes.classes == list(DATASETS[name][1]) and seen_classes(scenes) == tuple(c for c in scenes.classes if c in SEEN[name])
    for i in (0, len(scenes) - 1):
        torch.testing.assert_close(scenes.waveform(i), read_audio(root / scenes.frame.path[i])[: len(scenes.waveform(i))], atol=1e-4, rtol=0)
    assert load_scenes(name, root).fingerprint == scenes.fingerprint
    assert check_pack(name, root, clips=5) == min(5, len(scenes))


def test_a_copy_elsewhere_is_the_same_set(sounding, tmp_path):
    root, _ = sounding
    scenes = load_scenes("tau22", root)
    for file in (root / TAU22_FOLDER).rglob("*"):
        if file.is_file():
            (target := tmp_path / "elsewhere" / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True); target.write_bytes(file.read_bytes())
    assert load_scenes("tau22", tmp_path / "elsewhere").fingerprint == scenes.fingerprint


def test_a_pack_that_was_spoilt_is_told(sounding):
    root, _ = sounding
    scenes = load_scenes("tau22", root)
    sound = np.memmap(scenes._store.folder / "sound.i16", np.int16, "r+", 0, (*scenes._store.shape, 16000))
    sound[len(scenes) // 2 - 1] = np.roll(sound[len(scenes) // 2 - 1], 4000, -1); sound.flush()
    says("sounds unlike its place", check_pack, "tau22", root, clips=len(scenes))


def test_missing_sound_is_named(sounding, tmp_path):
    root, files = sounding
    for file in (root / TAU22_FOLDER).rglob("*"):
        if file.is_file() and file.name != Path(files["tau22"].path[1]).name:
            (target := tmp_path / "elsewhere" / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True); target.write_bytes(file.read_bytes())
    says(Path(files["tau22"].path[1]).name, load_scenes, "tau22", tmp_path / "elsewhere")
    says(f"`contrastasc download tau22 --root {tmp_path / 'elsewhere'}` gets what", load_scenes, "tau22", tmp_path / "elsewhere")
    says("meta.csv is missing", load_scenes, "tau22", tmp_path)


def test_sound_that_lies_deeper(sounding, tmp_path):
    root, files = sounding
    for file in (ICME24_LABELS, ICME24_TIMES): (tmp_path / file).write_bytes((root / file).read_bytes())
    for path in files["icme24"].path:
        target = tmp_path / ICME24_FOLDER / "ICME2024_GC_ASC_dev" / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True); target.write_bytes((root / path).read_bytes())
    table, sizes = locate(read_icme24(tmp_path), tmp_path)
    assert all((tmp_path / p).stat().st_size == n for p, n in zip(table.path, sizes)) and table.path.str.count("/").eq(2).all()


def test_counts_are_held_against_the_published(copies):
    assert "of 139,620 train clips" in difference_to_published("tau22", read_tau22(copies["tau22"]))
    whole = pd.DataFrame(dict(split=np.repeat(list(PUBLISHED["tau22"]), list(PUBLISHED["tau22"].values()))))
    assert difference_to_published("tau22", whole) == "" and len(whole) == 230350 and sum(PUBLISHED["tut17"].values()) == 6300
    fold = read_tut17(copies["tut17"], "fold3")
    assert f"tut17-fold3 is not whole here: {len(fold)} of 4,680 labelled clips. " == difference_to_published("tut17-fold3", fold)
    assert set(PUBLISHED) == set(DATASETS) and difference_to_published("synth-tut17", fold) == ""


def test_default_place(tmp_path):
    assert sets_home() == tmp_path / "home" / "datasets"
    says(str(tmp_path / "home" / "datasets"), load_scenes, "tut17")
    assert set(rooms.READERS) == {"synth-tau22", "synth-tut17", "synth-icme24", *DATASETS}


# ---- a long packing goes to processes, which leave with their parent

LONG = """
import sys, contrastasc.scenes as rooms
rooms._LONG, rooms.ThreadPoolExecutor = 1, None
print(len(rooms.load_scenes("tau22", sys.argv[1])))
"""


def test_packing_with_processes(sounding, tmp_path, monkeypatch):
    root, _ = sounding
    alone = load_scenes("tau22", root)
    (script := tmp_path / "long.py").write_text(LONG)  # no guard for __main__: it must not need one
    out = subprocess.run([sys.executable, script, root], env=os.environ | dict(CONTRASTASC_HOME=str(tmp_path / "other")), capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) == len(alone)
    monkeypatch.setenv("CONTRASTASC_HOME", str(tmp_path / "other"))
    torch.testing.assert_close(load_scenes("tau22", root).batch(range(len(alone)))["wave"], alone.batch(range(len(alone)))["wave"], rtol=0, atol=0)


SLOW = """
import os, sys, time, torch
import contrastasc.scenes as rooms
from contrastasc.synth import world_frame
rooms._LONG = 1

def read(rows):
    for _ in range(len(rows)): time.sleep(0.2); yield torch.ones(16000)

print("begun", flush=True)
rooms.SceneSet.from_opener(world_frame("synth-tau22", "tiny"), rooms.Opener("slow", tuple(rooms.TAU22_CLASSES), read), "slow")
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    (script := tmp_path / "slow.py").write_text(SLOW)
    packing = subprocess.Popen([sys.executable, script], env=os.environ | dict(CONTRASTASC_HOME=str(tmp_path / "other")), stdout=subprocess.PIPE, text=True)
    packing.stdout.readline()
    workers, stop = [], time.time() + 60
    while len(workers) < 2 and time.time() < stop:
        time.sleep(0.2); workers = [p for p in psutil.Process(packing.pid).children(recursive=True) if "loky" in " ".join(p.cmdline()) and "tracker" not in " ".join(p.cmdline())]
    assert workers, "no worker was started"
    time.sleep(3); packing.kill(); packing.wait()
    gone, left = psutil.wait_procs(workers, timeout=15)
    for p in left: p.kill()
    assert not left
