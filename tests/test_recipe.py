"The recipe: joined sets, what may be learnt from, stages and what they leave."
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from contrastasc.pretrained import load_pretrained, model_card
from contrastasc.recipe import _again, CLEAR, MODELS, Recipe, cook, judge, licensed, make_models, write_card
from contrastasc.scenes import SceneError, SceneSet
from contrastasc.soundscapes import Joined
from contrastasc.sounds import sound_packages


def tones(names, seconds=1, seed=0):
    rng = np.random.default_rng(seed)
    return SceneSet.from_arrays([(0.1 * rng.standard_normal(16000 * seconds)).astype(np.float32) for _ in names], list(names))


def test_joined_sets():
    a, b = tones(["x", "y", "x"]), tones(["z", "x"], seed=1)
    both = Joined([a, b, a])
    assert len(both) == 8 and both.classes == ["x", "y", "z"] and both.labels.tolist() == [0, 1, 0, 2, 0, 0, 1, 0]
    batch = both.batch([7, 0, 3, 4])
    for wave, (part, i) in zip(batch["wave"], ((a, 2), (a, 0), (b, 0), (b, 1))): assert torch.equal(wave, part[i][0])
    assert batch["label"].tolist() == [0, 0, 2, 0] and batch["index"].tolist() == [7, 0, 3, 4]
    assert both.fingerprint != Joined([b, a, a]).fingerprint
    with pytest.raises(SceneError, match="more than a second"): Joined([a, tones(["x"], 2)])


@pytest.fixture
def recordings(tmp_path):
    "Twelve recordings of three seconds: two classes, both splits, one origin that is not clear."
    folder, rows = tmp_path / "real", []
    (folder / "audio").mkdir(parents=True)
    for i in range(12):
        name = f"{i}.flac"
        soundfile.write(folder / "audio" / name, 0.1 * np.random.default_rng(i).standard_normal(48000), 16000)
        rows.append(dict(filename=name, **{"class": "ab"[i % 2]}, split="pool" if i < 6 else "test", split_group=f"g{i}",
                         source_repo=CLEAR[i % 2] if i else "somebody/else", licence_note="CC0"))
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder


def test_only_what_may_be_learnt_from(recordings):
    heard = licensed(recordings)
    assert set(heard.frame.split) == {"pool"} and set(heard.frame.source_repo) <= set(CLEAR) and heard.frame.recording.nunique() == 5
    with pytest.raises(SceneError, match="is from nobody/here; there are .*somebody/else.*--learn-from"): licensed(recordings, sources=["nobody/here", "somebody/else"])
    assert licensed(recordings, sources="somebody/else").frame.recording.nunique() == 1
    for column in ("licence_note", "source_repo"):
        pd.read_csv(recordings / "manifest.csv").drop(columns=column).to_csv(recordings / "manifest.csv", index=False)
        with pytest.raises(SceneError, match=f"no column {column}"): licensed(recordings)


def test_a_model_that_is_not_in_the_recipe(tmp_path):
    with pytest.raises(ValueError, match="no model 'cpm7k'"): cook(tones(["a", "b"]), tmp_path, models=["cpm7k"])


def test_from_sounds_to_models(tmp_path, recordings):
    "The whole path at scale tiny: compose, three stages, judge, card, box; again without training."
    sounds = tmp_path / "sounds"
    for n, family in enumerate(["birds", "speech", "vehicle", "music"] * 2):
        (sounds / family).mkdir(parents=True, exist_ok=True)
        soundfile.write(sounds / family / f"{n}.flac", 0.1 * np.random.default_rng(n).standard_normal(32000), 16000)
    args = (sounds, tmp_path / "out", recordings, "tiny", 1, ("nano-ssl", "nano", "cpm6k"))
    box = make_models(*args, progress=False)
    wave = 0.1 * torch.randn(2, 16000)
    with torch.inference_mode(): first = {n: load_pretrained(n, box).embed(wave) for n in ("nano-ssl", "nano", "cpm6k")}
    assert first["nano-ssl"].shape == (2, 16 * 192) and first["nano"].shape == (2, 192)  # read by bands; by the mean
    results = pd.read_csv(box / "results.csv")
    assert set(results.row) == {"mean log-mel", "random nano", "random nano, bands", "random cpm126k", "random cpm126k, bands", "nano-ssl, mean", "nano-ssl", "nano", "cpm6k"}
    assert set(results.k) == {5}  # a class has nine seconds to give, too few for 20 shots
    assert '; read by its mean, of "random nano" by ' in model_card("nano-ssl", box) and "by its mean" not in model_card("nano", box)
    assert CLEAR[0] in model_card("cpm6k", box) and CLEAR[0] not in model_card("nano-ssl", box)  # pre-training never hears them
    assert "5 of the 6 recordings of real that give shots were learnt from" in model_card("nano", box) and "Ahead of the untrained \"random nano\" by " in model_card("nano", box)
    assert "| train | 1 epochs" in model_card("cpm6k", box) and "learning rate 0.012" in model_card("cpm6k", box)  # its own, not the largest student's
    assert "seed 1" in model_card("nano", box) and "Training took " in model_card("nano", box) and set(results.seed) == {1}
    make_models(*args, progress=False)
    with torch.inference_mode(): assert all(torch.equal(load_pretrained(n, box).embed(wave), x) for n, x in first.items())
    students_of_a_given_teacher(sounds, tmp_path, recordings)
    recordings_that_only_judge(sounds, tmp_path, recordings)


def students_of_a_given_teacher(sounds, tmp_path, recordings):
    "A student with another seed, of the teacher that was made: no other stage is run."
    teacher, args = tmp_path / "out" / "4-teacher" / "teacher", (sounds, tmp_path / "more", recordings, "tiny", 2)
    box = make_models(*args, ("cpm6k",), progress=False, teacher=teacher)
    assert {p.name for p in (tmp_path / "more").iterdir() if p.is_dir()} == {"models", "5-cpm6k"} and set(pd.read_csv(box / "results.csv").seed) == {2}
    card = model_card("cpm6k", box)
    assert "--teacher teacher --models cpm6k --seed 2" in card and "distilled from `teacher`" in card
    with pytest.raises(ValueError, match="makes students, not nano: "): make_models(*args, ("nano", "cpm6k"), teacher=teacher)
    with pytest.raises(ValueError, match="holds a student, not a teacher"): make_models(*args, ("cpm6k",), teacher="cpm6k")
    with pytest.raises(ValueError, match="was taught other scenes"): make_models(*args, ("cpm6k",), teacher="nano", progress=False)


def recordings_that_only_judge(sounds, tmp_path, recordings):
    "A teacher that never heard them, from the pre-training that never does."
    shutil.copytree(tmp_path / "out", tmp_path / "deaf", ignore=shutil.ignore_patterns("4-teacher", "5-*", "models", "embeddings*"))
    box = make_models(sounds, tmp_path / "deaf", recordings, "tiny", 1, ("nano",), progress=False, sources=())
    card, results = model_card("nano", box), pd.read_csv(box / "results.csv")
    assert CLEAR[0] not in card and "--recordings real --learn-from --models nano --seed 1" in card and set(results.data) == {"real"}
    assert load_pretrained("nano", box).classes != load_pretrained("nano", tmp_path / "out" / "models").classes and results.unseen.notna().all()


def test_recordings_that_cannot_judge_are_refused_before_training(tmp_path, recordings):
    table = pd.read_csv(recordings / "manifest.csv").assign(split="pool")
    table.to_csv(recordings / "manifest.csv", index=False)
    with pytest.raises(SceneError, match="real cannot judge: its manifest needs a column split"): make_models(tmp_path / "no sounds", tmp_path / "out", recordings, "tiny", teacher="nano", sources=())


def test_the_line_that_makes_it_again_and_licences_that_were_read(tmp_path):
    list_ = sound_packages()
    some = SceneSet.from_arrays([np.zeros(16000, np.float32)] * 2, ["a", "b"])
    some.frame["package"], some.frame["version"] = ["acm", "mine"], [list_.version[list_.package == "acm"].iat[0], "1"]
    text = write_card("cpm6k", load_pretrained("cpm6k"), Recipe.at("tiny"), "", some)
    assert "- acm 6.0+20200416-1.1+b1: GPL-2.0-only\n- mine 1: see its copyright file\n" in text
    some.frame["version"] = "0"
    assert "- acm 0: GPL-2.0-only in version 6.0+20200416-1.1+b1; see this one's copyright file" in write_card("cpm6k", load_pretrained("cpm6k"), Recipe.at("tiny"), "", some)
    (tmp_path / "my sounds").mkdir()
    args = (tmp_path / "my sounds", tmp_path / "out", None, CLEAR, None, MODELS, 0, "tiny", "float32")
    assert _again(["acm"], *args) == "contrastasc pretrain --sounds 'my sounds' --out out --fetch --packages acm --seed 0 --scale tiny --precision float32"
    assert " --fetch --seed" in _again(list(list_.package), *args) and "--fetch" not in _again([], *args)


def test_scales_and_seeds():
    assert Recipe.at("paper", 5).round.seed == 5 and len(MODELS) == 7
    rough = Recipe.at("tiny", precision="bfloat16")
    assert rough.round.precision == rough.teacher.precision == "bfloat16" and rough.student.precision == "float32"
    with pytest.raises(ValueError): Recipe.at("huge")
