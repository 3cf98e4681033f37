"""Both stages of the method, killed and started again."""
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import itertools, os, signal, sys, traceback
import contrastasc, torch
from contrastasc.distill import DistillConfig, distill
from contrastasc.finetune import FinetuneConfig, finetune
from contrastasc.scenes import load_scenes

def train(out, kind, at):
    count = 0
    def die(*args, **kwargs):
        nonlocal count
        count += 1
        if count == at: os.kill(os.getpid(), signal.SIGKILL)
    if kind == "step":  # in the middle of an epoch
        step = torch.optim.AdamW.step
        torch.optim.AdamW.step = lambda self, *a, **k: (die(), step(self, *a, **k))[1]
    if kind == "write":  # with a file written but not yet in its place
        replace = os.replace
        os.replace = lambda *a, **k: (die(), replace(*a, **k))[1]
    scenes = load_scenes("synth-tau22", split="train").subset(range(0, 200, 3))
    teacher = finetune(scenes, config=FinetuneConfig.at("tiny"), run=out + "/stage1", progress=False)
    distill(scenes, teacher, DistillConfig.at("tiny", variant="cpm6k"), out + "/stage2", progress=False)

def attempt(out, kind="", at=0):  # a process of its own, which need not import anything; how it ended
    if pid := os.fork(): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try: train(out, kind, at)
    except BaseException: traceback.print_exc(); os._exit(1)
    os._exit(0)

print(attempt(sys.argv[1] + "/whole"))
for kind, at in itertools.islice(itertools.cycle((("step", 3), ("write", 4))), 12):
    print(ended := attempt(sys.argv[1] + "/killed", kind, at))
    if ended != -signal.SIGKILL: break
"""


def test_killed_and_started_again_gives_the_same_weights(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=os.environ | dict(OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=300)
    whole, *kills, last = map(int, done.stdout.split())
    assert whole == last == 0 and len(kills) >= 4 and set(kills) == {-9}, (done.stdout, done.stderr[-2000:])
    for part in ("stage1/teacher", "stage2/student"):
        a, b = (load_file(tmp_path / f / part / "weights.safetensors") for f in ("whole", "killed"))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), part


@pytest.fixture(scope="module")
def scenes():
    from contrastasc.scenes import load_scenes
    whole = load_scenes("synth-tau22", split="train")
    return whole.subset(np.random.default_rng(0).permutation(len(whole))[:32])


def teacher_config(**changes):
    from contrastasc.finetune import FinetuneConfig
    return FinetuneConfig.at("tiny", **changes)


def test_paper_numbers_are_the_defaults():
    from contrastasc.distill import LEARNING_RATES, DistillConfig
    from contrastasc.finetune import FinetuneConfig
    c = FinetuneConfig.at("paper")
    assert (c.weight, c.temperature, c.scale, c.mixstyle, c.mixup, c.roll, c.mask, c.out_features) == (0.25, 0.2, 56.0, (0.4, 0.4), (0.3, 2.0), 1600, 48, 128)
    for phase in (c.head_phase, c.projection_phase):
        assert (phase.epochs, phase.lr, phase.weight_decay, phase.batch_size, phase.schedule) == (50, 0.008, 1e-4, 2048, "constant")
    e = c.end_to_end
    assert (e.epochs, e.warmup_epochs, e.lr, e.batch_size, e.weight_decay, e.schedule) == (30, 2, 1e-4, 128, 1e-4, "cosine")
    d = DistillConfig.at("paper")
    assert (d.alpha, d.beta, d.kd_temperature, d.crd_temperature, d.impulse_response, d.fmax_jitter, d.mixstyle, d.hidden) == (0.02, 0.1, 2.0, 0.07, 0.6, 2000, (0.4, 0.4), 128)
    assert (d.train.epochs, d.train.warmup_epochs, d.train.batch_size, d.train.weight_decay, d.train.schedule) == (75, 7, 256, 1e-4, "cosine")
    assert LEARNING_RATES == {"cpm6k": 0.04, "cpm12k": 0.04, "cpm30k": 0.03, "cpm54k": 0.02, "cpm126k": 0.01}


def test_phase_1_leaves_the_encoder_alone(scenes, monkeypatch):
    import contrastasc.finetune as f
    from contrastasc.beats import BEATs, BEATsConfig
    torch.manual_seed(0)
    encoder, seen = BEATs(BEATsConfig.nano()), []
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    real = f.fit

    def watch(objective, *args, **kwargs):
        if isinstance(objective, f.EndToEndObjective): seen.append(all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items()))
        return real(objective, *args, **kwargs)

    monkeypatch.setattr(f, "fit", watch)
    teacher = f.finetune(scenes, encoder, teacher_config(), progress=False)
    assert seen == [True] and teacher.encoder is encoder
    assert all(p.requires_grad for p in encoder.parameters())
    assert any(not torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_same_seed_same_teacher_other_seed_other_teacher(scenes):
    from contrastasc.finetune import finetune
    a, b, c = (finetune(scenes, config=teacher_config(loss="ce", seed=s), progress=False) for s in (0, 0, 1))
    assert torch.equal(a.head.weight, b.head.weight) and not torch.equal(a.head.weight, c.head.weight)


def test_teacher_without_projection_cannot_project(scenes):
    from contrastasc.finetune import Teacher
    from contrastasc.beats import BEATs, BEATsConfig
    with pytest.raises(ValueError, match="no projection head"): Teacher(BEATs(BEATsConfig.nano()), torch.nn.Linear(192, 3)).project(torch.randn(1, 16000))


def test_ft_crd_trains_its_own_teacher_projection(scenes):
    from contrastasc.distill import DistillConfig, StudentObjective, distill, teacher_outputs
    from contrastasc.finetune import finetune
    teacher = finetune(scenes, config=teacher_config(loss="ce"), progress=False)
    student = distill(scenes, teacher, DistillConfig.at("tiny", variant="cpm6k"), progress=False)
    assert student(scenes.batch([0])["wave"]).shape == (1, len(scenes.classes))
    objective = StudentObjective(student, DistillConfig.at("tiny", variant="cpm6k"), teacher_outputs(teacher, scenes, progress=False)).train()
    objective(scenes.batch(range(8)))["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in objective.teacher_projection.parameters() if p.ndim > 1)
    assert all(p.grad is None or not p.grad.any() for p in teacher.parameters())


@pytest.mark.parametrize("loss", ["ce", "contrastive"])
def test_teacher_may_hear_what_the_student_hears(scenes, loss):
    from contrastasc.distill import DistillConfig, distill
    from contrastasc.finetune import finetune
    teacher = finetune(scenes, config=teacher_config(loss=loss), progress=False)
    before = teacher.head.weight.clone()
    distill(scenes, teacher, DistillConfig.at("tiny", variant="cpm6k", teacher_hears="same"), progress=False)
    assert torch.equal(before, teacher.head.weight)


def test_impulse_responses_only_change_device_a(scenes):
    from contrastasc.cpmobile import Student
    from contrastasc.distill import DistillConfig, StudentObjective
    devices = scenes.frame.device.to_numpy()
    assert {"a", "b"} <= set(devices)
    objective = StudentObjective(Student(backbone="cpm6k"), DistillConfig.at("tiny", variant="cpm6k", alpha=1.0, beta=0.0), may_change=torch.from_numpy(devices == "a"))
    heard = {}
    objective.responses.register_forward_hook(lambda m, args, out: heard.update(before=args[0], after=out))
    objective.responses.p = 1.0
    batch = scenes.batch(range(len(scenes)))
    objective.train()(batch)
    changed = (heard["before"] != heard["after"]).any(1).numpy()
    assert (changed == (devices == "a")).all()


@pytest.mark.parametrize("wrong, words", [
    (lambda s: dict(teacher=None), "needs a teacher"),
    (lambda s: dict(outputs=outputs(len(s) - 1, len(s.classes))), "answered"),
    (lambda s: dict(outputs=outputs(len(s), 3)), "knows 3 classes"),
    (lambda s: dict(outputs=outputs(len(s), len(s.classes), s.subset(range(len(s))[::-1]).fingerprint)), "answer other clips"),
])
def test_wrong_use_of_distill(scenes, wrong, words):
    from contrastasc.distill import DistillConfig, distill
    with pytest.raises(ValueError, match=words): distill(scenes, config=DistillConfig.at("tiny", variant="cpm6k"), progress=False, **wrong(scenes))


def outputs(n, classes, clips=None):
    from contrastasc.distill import TeacherOutputs
    return TeacherOutputs(torch.randn(n, 8), torch.randn(n, classes), torch.randn(n, 128), clips)


def test_student_of_another_architecture(scenes, tmp_path):
    from contrastasc.cpmobile import Student
    from contrastasc.distill import load_student, save_student
    import json
    save_student(Student(backbone="cpm6k"), tmp_path)
    about = json.loads((tmp_path / "about.json").read_text())
    about["backbone"]["variant"] = "cpm12k"
    (tmp_path / "about.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="another architecture"): load_student(tmp_path)


def test_student_keeps_how_it_is_read(tmp_path):
    from contrastasc.cpmobile import Student
    from contrastasc.distill import load_student, save_student
    import json
    student = Student(backbone="cpm6k").eval()
    wave = torch.randn(2, 16000)
    halves = load_student(save_student(student.read_as(2), tmp_path)).embed(wave)
    assert student.bands == 1 and halves.shape == (2, 64)
    assert torch.allclose(halves.view(2, 32, 2).mean(2), student.embed(wave), atol=1e-6)
    about = json.loads((tmp_path / "about.json").read_text())
    del about["bands"]
    (tmp_path / "about.json").write_text(json.dumps(about))
    assert load_student(tmp_path).bands == 1
    with pytest.raises(ValueError, match="bands"): Student(backbone="cpm6k", bands=0)
