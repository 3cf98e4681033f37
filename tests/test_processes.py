"""Several processes: losses of the global batch equal one process's, in value and in gradient; both stages train and resume under torchrun."""
import os
import socket
import subprocess
import sys

import pytest
import torch

LOSSES = """
import contrastasc, torch, torch.distributed as dist
from contrastasc.crd import crd_loss
from contrastasc.softsupcon import soft_supcon_loss
from contrastasc.train import gather_rows, world_size

world, rank = world_size(), dist.get_rank() if dist.is_initialized() else 0
g = torch.Generator().manual_seed(0)
z, t = torch.randn(12, 5, generator=g, dtype=torch.float64), torch.randn(12, 5, generator=g, dtype=torch.float64)
y = torch.eye(3, dtype=torch.float64)[torch.arange(12) % 3]
y = 0.7 * y + 0.3 * y.roll(1, 0)  # mixed labels
mine = z[rank::world].clone().requires_grad_()
loss = soft_supcon_loss(gather_rows(mine), gather_rows(y[rank::world])) + 0.1 * crd_loss(gather_rows(mine), gather_rows(t[rank::world]))
loss.backward()
torch.save(dict(loss=loss.detach(), gradient=mine.grad / world), f"losses-{world}-{rank}.pt")  # / world: what averaging over processes does
"""

STAGES = """
import contrastasc, torch, torch.distributed as dist
from accelerate import Accelerator
from torch import nn
from contrastasc.beats import BEATs, BEATsConfig
from contrastasc.distill import DistillConfig, StudentObjective, TeacherOutputs
from contrastasc.finetune import EndToEndObjective, FinetuneConfig, ProjectionObjective, _with_heads
from contrastasc.train import world_size

accelerator = Accelerator(cpu=True)
world, rank = accelerator.num_processes, accelerator.process_index
g = torch.Generator().manual_seed(0)
batch = dict(wave=0.1 * torch.randn(8, 16000, generator=g), label=torch.arange(8) % 3, index=torch.arange(8))
still = dict(roll=0, mask=0, mixstyle=(0.0, 0.4), mixup=(0.0, 2.0))

class Tiny(nn.Module):
    "A student without BatchNorm."
    embed_dim = 6
    def __init__(self): super().__init__(); self.net, self.norm, self.head = nn.Linear(64, 6), nn.LayerNorm(6), nn.Linear(6, 3)
    def embed(self, x, normed=False): e = self.net(x).relu(); return self.norm(e) if normed else e

class Whole(nn.Module):
    def __init__(self): super().__init__(); self.backbone = Tiny()
    def frontend(self, wave): return wave.unflatten(1, (-1, 64)).square().mean(1).sqrt()

def objectives():
    torch.manual_seed(0)
    config = FinetuneConfig(**still)
    small = BEATsConfig.from_dict(dict(encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=64, encoder_attention_heads=2, embed_dim=16,
                                       input_patch_size=16, conv_pos=16, conv_pos_groups=2, deep_norm=True, gru_rel_pos=True, relative_position_embedding=True,
                                       num_buckets=32, max_distance=80, dropout=0.0, attention_dropout=0.0))
    teacher = _with_heads(BEATs(small), "CosineHead", 3, 56.0, 32, 16, list("abc"))
    yield "end to end", EndToEndObjective(teacher, config)
    teacher = _with_heads(BEATs(small), "CosineHead", 3, 56.0, 32, 16, list("abc"))
    teacher.encoder.requires_grad_(False); teacher.head.requires_grad_(False)
    yield "projection", ProjectionObjective(teacher, config)
    answers = TeacherOutputs(torch.randn(8, 32), torch.randn(8, 3), torch.randn(8, 16))
    yield "student", StudentObjective(Whole(), DistillConfig(roll=0, mask=0, mixstyle=(0.0, 0.4), impulse_response=0.0), answers)
    yield "student, teacher without projection", StudentObjective(Whole(), DistillConfig(roll=0, mask=0, mixstyle=(0.0, 0.4), impulse_response=0.0), TeacherOutputs(answers.embeddings, answers.logits, None))

out = {}
for name, objective in objectives():
    model = accelerator.prepare(objective.train())
    losses = model({k: v[rank::world] for k, v in batch.items()})
    accelerator.backward(losses["loss"])
    out[name] = dict(loss=accelerator.reduce(losses["loss"].detach(), "mean"), gradient={k: p.grad for k, p in objective.named_parameters() if p.grad is not None})
if rank == 0: torch.save(out, f"stages-{world}.pt")
"""

COURSE = """
import contrastasc, torch
from contrastasc.distill import DistillConfig, distill
from contrastasc.finetune import FinetuneConfig, finetune
from contrastasc.scenes import load_scenes
scenes = load_scenes("synth-tau22", split="train", scale="tiny").subset(range(0, 200, 5))
teacher = finetune(scenes, config=FinetuneConfig.at("tiny"), run="teacher", progress=False)
student = distill(scenes, teacher, DistillConfig.at("tiny", variant="cpm6k"), "student", progress=False)
"""

STEPS = """
import contrastasc, torch, torch.distributed as dist
from torch import nn
from contrastasc.crd import crd_loss
from contrastasc.softsupcon import soft_supcon_loss
from contrastasc.train import TensorData, TrainConfig, fit, gather_rows, world_size

class Net(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    def forward(self, b):
        z = gather_rows(self.net(b["x"])); t = gather_rows(b["t"]); y = gather_rows(b["y"])
        return dict(loss=soft_supcon_loss(z, y) + 0.1 * crd_loss(z, t))

g = torch.Generator().manual_seed(3)
data = TensorData(x=torch.randn(24, 4, generator=g), t=torch.randn(24, 3, generator=g), y=torch.eye(3)[torch.arange(24) % 3])
net, world = Net(), world_size()
fit(net, data, TrainConfig(epochs=3, batch_size=12, lr=0.02, warmup_epochs=0, schedule="constant"), f"steps-{world}", progress=False)
if not dist.is_initialized() or dist.get_rank() == 0: torch.save(net.state_dict(), f"steps-{world}.pt")
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    "A folder in which two processes did everything and then one did, and when the two had written their last checkpoints."
    folder, parts = tmp_path_factory.mktemp("processes"), dict(stages=STAGES, losses=LOSSES, steps=STEPS, course=COURSE)
    for name, part in parts.items(): (folder / f"{name}.py").write_text(part)
    (folder / "all.py").write_text(f"import runpy\nfor name in {list(parts)}: runpy.run_path(name + '.py')\n")
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    env = os.environ | dict(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", CONTRASTASC_HOME=str(folder / "home"))
    written = []
    for several in (["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}"], []):
        done = subprocess.run([sys.executable, *several, "all.py"], cwd=folder, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        written.append({p: p.stat().st_mtime_ns for part in ("teacher", "student") for p in (folder / part).rglob("last.pt")})
    return folder, *written


def saved(folder, *names): return [torch.load(folder / f"{name}.pt", weights_only=True) for name in names]


def test_contrastive_losses_of_two_processes(ran):
    "Loss and gradient with respect to the embeddings, in float64."
    one, *two = saved(ran[0], "losses-1-0", "losses-2-0", "losses-2-1")
    whole = torch.empty_like(one["gradient"])
    for rank, part in enumerate(two):
        torch.testing.assert_close(part["loss"], one["loss"], atol=1e-12, rtol=0)
        whole[rank::2] = part["gradient"]
    torch.testing.assert_close(whole, one["gradient"], atol=1e-12, rtol=0)
    assert one["gradient"].abs().max() > 1e-3


def test_objectives_of_both_stages_in_two_processes(ran):
    "Loss and gradient with respect to every parameter, of models without BatchNorm and without disturbances."
    one, two = saved(ran[0], "stages-1", "stages-2")
    assert len(one) == 4
    for name in one:
        torch.testing.assert_close(two[name]["loss"], one[name]["loss"], atol=2e-5, rtol=2e-5, msg=lambda m: f"{name}: {m}")
        assert set(two[name]["gradient"]) == set(one[name]["gradient"]) and len(one[name]["gradient"]) > 3
        for k, g in one[name]["gradient"].items():
            size = g.abs().max().clamp(min=1e-6)
            torch.testing.assert_close(two[name]["gradient"][k] / size, g / size, atol=2e-3, rtol=0, msg=lambda m: f"{name}, {k}: {m}")


def test_steps_of_two_processes(ran):
    "Contrastive losses over two gloo processes see the global batch: same weights as one process after six steps."
    one, two = saved(ran[0], "steps-1", "steps-2")
    for k in one: torch.testing.assert_close(one[k], two[k], atol=1e-4, rtol=1e-4)


def test_both_stages_under_torchrun(ran):
    "Two processes train a teacher and a student, each file written once and whole; called again, the run is read."
    from contrastasc.distill import load_student
    from contrastasc.finetune import load_teacher
    folder, before, after = ran
    teacher, student = load_teacher(folder / "teacher" / "teacher"), load_student(folder / "student" / "student")
    assert all(p.isfinite().all() for m in (teacher, student) for p in m.parameters())
    assert len(before) == 4 and before == after and not list(folder.rglob("*.part"))
