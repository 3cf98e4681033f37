"""The command: one sentence for wrong use, and the whole course on a small folder."""
import numpy as np
import pytest
import soundfile as sf
import torch

import contrastasc
from contrastasc import cli
from contrastasc.cpmobile import Student
from contrastasc.distill import save_student
from contrastasc.pretrained import load_pretrained
from contrastasc.scenes import load_scenes
from contrastasc.store import EnrollmentStore


def write_folder(folder, classes=("park", "tram", "kitchen"), places=4, seconds=6):
    "A folder of class/recording files from a generated world."
    world = load_scenes("synth-tau22", split="train")
    rng = np.random.default_rng(0)
    for c, name in enumerate(classes):
        clips = np.flatnonzero(world.labels == 3 * c)
        for p in range(places):
            path = folder / name / f"place{p}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, np.concatenate([world.waveform(i).numpy() for i in rng.choice(clips, seconds)]), 16000)
    return folder


def run(capsys, *args):
    code = cli.main([str(a) for a in args])
    out = capsys.readouterr()
    return code, out.out, out.err


def wrong(capsys, *args):
    "Exit status 2 and one sentence, which is returned."
    code, _, err = run(capsys, *args)
    lines = [l for l in err.replace("\r", "\n").splitlines() if l.startswith("contrastasc ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def test_doctor_is_content(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and "WRONG" not in out and all(w in out for w in ("Python", "torchaudio", "wav, flac, ogg, mp3", "disk", "GPU", "browser"))


def test_doctor_says_what_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(cli, "version", lambda name: "1.0")
    monkeypatch.setenv("CONTRASTASC_HOME", "/dev/null/nowhere")
    code, out, _ = run(capsys, "doctor")
    assert code == 1 and "the course needs 2.4.14" in out and "set CONTRASTASC_HOME" in out


@pytest.mark.parametrize("option, value", [("--tut17", "icme24"), ("--icme24", "synth-icme24"), ("--sizes", "cpm7k"), ("--variant", "cpm7k")])
def test_what_paper_cannot_do_is_said_before_it_begins(capsys, option, value):
    with pytest.raises(SystemExit): cli.main(["paper", option, value])
    assert f"invalid choice: '{value}'" in capsys.readouterr().err


def test_choices_are_those_of_the_library():
    from contrastasc.cpmobile import VARIANTS
    from contrastasc.datasets import DATASETS
    words = cli.parser().parse_args
    assert cli._STUDENTS == tuple(VARIANTS)
    for name in DATASETS:
        if name != "tau22": assert vars(words(["paper", f"--{name.split('-')[0]}", name]))[name.split("-")[0]] == name


def test_paper_wants_the_folder_of_all_sets_and_a_teacher_that_knows_something(capsys, tmp_path):
    one = tmp_path / "TUT-acoustic-scenes-2017-evaluation"; one.mkdir()
    assert f"the folder in which all of them lie, {tmp_path}" in wrong(capsys, "paper", "--data", one)
    assert "meta.csv is missing" in wrong(capsys, "paper", "--data", tmp_path)
    data = write_folder(tmp_path / "mine", seconds=24)
    assert "download beats" in wrong(capsys, "paper", "--data", data, "--scale", "paper")
    assert "no impulse responses here" in wrong(capsys, "paper", "--data", data, "--responses", tmp_path)


def test_clips_to_check_are_counted_from_one(capsys):
    with pytest.raises(SystemExit): cli.main(["pack", "--data", "synth-tau22", "--check", "-5"])
    assert "invalid positive value: '-5'" in capsys.readouterr().err


def test_ctrl_c_says_that_the_same_command_goes_on(capsys, monkeypatch):
    def stop(*a, **k): raise KeyboardInterrupt
    monkeypatch.setattr("contrastasc.download.download", stop)
    assert cli.main(["download", "tau22", "tut17"]) == 130 and "stopped; the same command goes on" in capsys.readouterr().err


def test_several_sets_in_one_command(capsys, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("contrastasc.download.download", lambda name, root, *a, **k: asked.append(name) or root)
    assert cli.main(["download", "tau22", "micirp", "--root", str(tmp_path)]) == 0 and asked == ["tau22", "micirp"]
    assert "--parts belong to one set" in wrong(capsys, "download", "tau22", "micirp", "--parts", "meta")


def test_unknown_scene_set(capsys): assert "synth-tau22" in wrong(capsys, "pack", "--data", "synth-tau2")


def test_folder_without_audio(capsys, tmp_path):
    (tmp_path / "park").mkdir()
    (tmp_path / "park/notes.txt").write_text("no sound")
    assert str(tmp_path) in wrong(capsys, "course", "--data", tmp_path, "--scale", "tiny")


def test_class_with_too_few_recordings_is_said_before_training(capsys, tmp_path):
    write_folder(tmp_path, seconds=4)
    line = wrong(capsys, "course", "--data", tmp_path, "--scale", "tiny", "--out", tmp_path / "out")
    assert "20" in line and any(c in line for c in ("park", "tram", "kitchen")) and not (tmp_path / "out").exists()


def test_too_few_groups(capsys, tmp_path):
    write_folder(tmp_path, places=2)
    assert "groups" in wrong(capsys, "course", "--data", tmp_path, "--scale", "tiny")


def test_checkpoint_of_something_else(capsys, tmp_path):
    save_student(Student(backbone="cpm6k"), tmp_path / "s")
    assert "holds a student, not a teacher" in wrong(capsys, "distill", "--data", "synth-tau22", "--teacher", tmp_path / "s", "--out", tmp_path / "x")
    assert "holds no saved" in wrong(capsys, "evaluate", "--model", tmp_path, "--data", "synth-icme24")
    (tmp_path / "page.pt").write_text("<html>")
    assert "page.pt" in wrong(capsys, "finetune", "--data", "synth-tau22", "--split", "train", "--beats", tmp_path / "page.pt", "--out", tmp_path / "x")


def test_no_place_to_write(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in wrong(capsys, "distill", "--data", "synth-tau22", "--split", "train", "--scale", "tiny", "--variant", "cpm6k", "--out", tmp_path / "file" / "run")


def test_lab_outside_the_project(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no chapters here" in wrong(capsys, "lab")


def test_finetune_distill_evaluate_by_hand(capsys, tmp_path):
    data = write_folder(tmp_path / "data")
    for args in (("finetune", "--loss", "contrastive"), ("distill", "--variant", "cpm6k", "--teacher", tmp_path / "1/teacher")):
        code, out, err = run(capsys, *args, "--data", data, "--scale", "tiny", "--out", tmp_path / ("1" if args[0] == "finetune" else "2"))
        assert code == 0, err
    code, out, err = run(capsys, "evaluate", "--model", tmp_path / "2/student", "--data", data, "--k", 2, "--repeats", 5)
    assert code == 0 and "| cpm6k | 2 |" in out and "Intervals cover test groups" in out, err


def test_what_ships_goes_wherever_a_saved_model_does(capsys, tmp_path):
    data = write_folder(tmp_path / "data", classes=("park", "tram"))
    code, out, err = run(capsys, "evaluate", "--model", "cpm6k", "--data", data, "--k", 2, "--repeats", 5)
    assert code == 0 and "| mean log-mel | 2 |" in out and "| cpm6k | 2 |" in out and "cpm6k was taught all of these classes" in out and "unseen" not in out, err
    write_folder(data, classes=("park", "tram", "zoo"))
    code, out, err = run(capsys, "evaluate", "--model", "cpm6k", "--data", data, "--k", 2, "--repeats", 5)
    assert code == 0 and "| seen | unseen |" in out and "cpm6k was taught the classes called seen" in out, err
    code, out, err = run(capsys, "finetune", "--beats", "nano-ssl", "--data", data, "--scale", "tiny", "--out", tmp_path / "teacher")
    assert code == 0 and (tmp_path / "teacher/teacher/weights.safetensors").exists(), err
    assert "the teacher knows" in wrong(capsys, "distill", "--teacher", "nano", "--data", data, "--scale", "tiny", "--out", tmp_path / "student")
    assert "nano-ssl holds a beats, not a teacher" in wrong(capsys, "distill", "--teacher", "nano-ssl", "--data", data, "--out", tmp_path / "student")


def test_what_would_be_ignored_is_refused(capsys, tmp_path):
    words = ("pretrain", "--sounds", tmp_path, "--out", tmp_path / "out")
    assert "give --fetch too" in wrong(capsys, *words, "--packages", "acm")
    assert "give --recordings too" in wrong(capsys, *words, "--learn-from")


def test_a_student_and_what_was_enrolled_are_exported(capsys, tmp_path):
    save_student(Student(backbone="cpm6k"), tmp_path / "s")
    world = load_scenes("synth-tau22", split="test")
    with EnrollmentStore(tmp_path / "e.sqlite", load_pretrained("cpm12k")) as store: store.add([world.waveform(i) for i in (0, 1, -2, -1)], ["one", "one", "two", "two"])
    for args in ((tmp_path / "s", tmp_path / "own.html"), ("cpm6k", tmp_path / "page.html", "--store", tmp_path / "e.sqlite")):
        code, out, err = run(capsys, "export", *args)
        assert code == 0 and f"{args[1]}: {args[1].stat().st_size:,} bytes" in out, err
    assert '"classes": ["one", "two"]' in (tmp_path / "page.html").read_text()


def test_an_export_that_cannot_be(capsys, tmp_path):
    assert "cpm7k is neither a folder nor a model that ships" in wrong(capsys, "export", "cpm7k", tmp_path / "x.html")
    assert "must end in .onnx" in wrong(capsys, "export", "cpm6k", tmp_path / "x.tflite")
    assert "there is no store" in wrong(capsys, "export", "cpm6k", tmp_path / "x.html", "--store", tmp_path / "no.sqlite")
    assert "nano holds a teacher, not a student" in wrong(capsys, "export", "nano", tmp_path / "x.html", "--store", __file__)
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file" / "x.html") in wrong(capsys, "export", "cpm6k", tmp_path / "file" / "x.html")


def test_course_on_a_folder(capsys, tmp_path):
    data = write_folder(tmp_path / "data", seconds=12)
    code, out, err = run(capsys, "course", "--data", data, "--scale", "tiny", "--out", tmp_path / "out")
    assert code == 0, err
    for row in ("mean log-mel", "student without KD", "FT+KD", "C-FT+CRD", "teacher CE", "teacher contrastive"): assert f"| {row} | 5 |" in out and f"| {row} | 20 |" in out
    assert "start from scratch" in out and "trained on 2 of them (park, tram" in out and "names no splits" in out
    assert (tmp_path / "out/course-data-tiny.md").read_text() == out[:-1] and (tmp_path / "out/course-data-tiny.csv").exists()


def test_course_reads_real_recordings(real_scenes):
    "The recordings' own splits and TAU22's names are used as they stand."
    from contrastasc.course import kshot_rows
    from contrastasc.paper import MeanLogMel
    from contrastasc.train import extract_embeddings
    scenes = load_scenes(real_scenes)
    frame = kshot_rows({"mean log-mel": extract_embeddings(MeanLogMel().eval(), scenes, progress=False)}, scenes.frame, ["park", "metro"], (5,), 5)
    assert frame.classes.iloc[0] == 21 and 0.05 < frame.accuracy.iloc[0] < 0.25 and np.isfinite(frame.seen.iloc[0])
