"""Is everything before the network faster than the network? Milliseconds a batch of each part, and their sum over the training step.

    python benchmarks/loader.py [--batch 256] [--variant cpm126k] [--base] [--precision float32|bfloat16]

Student: a batch read from the packed memory map (random rows), brought to the device, impulse responses (60 % of the clips) and roll,
log-mel with its jitter, mask and Freq-MixStyle; against forward, backward and AdamW of CP-Mobile with equation (4) on ready
pictures and stored answers of a teacher. Teacher: the same reading, roll, filter bank, mask, Freq-MixStyle, mixup; against forward,
backward and AdamW of BEATs (nano, or --base) with equation (2). Freq-MixStyle is counted in every batch (training applies it to 40 %).
The parts take turns, and each number is the median of --repeats; a GPU is waited for before and after each. The pack is in the
system's page cache; "cold" is the same reading after asking the system to drop it (Linux). --precision is that of the step
alone. Exit status 1 unless both sums are below their steps.
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import contrastasc
import torch
import torch.nn.functional as F

from benchmarks.full_scale import noise_scenes, rule_beats
from contrastasc.augment import DeviceImpulseResponse, FreqMask, FreqMixStyle, Mixup, TimeRoll
from contrastasc.cpmobile import VARIANTS, CPMobile
from contrastasc.crd import student_loss
from contrastasc.frontend import LogMel
from contrastasc.softsupcon import CosineHead, ProjectionHead, teacher_loss

CLASSES = 10


class Timed:
    "Milliseconds of parts by name, and the device that holds what each gave last. A part's first run does not count."

    def __init__(self, device): self.device, self.times, self.where = device, {}, {}

    def wait(self):
        if self.device.type == "cuda": torch.cuda.synchronize(self.device)

    def run(self, name, f, *given):
        self.wait()
        began = time.perf_counter()
        out = f(*given)
        self.wait()
        self.times.setdefault(name, []).append(1000 * (time.perf_counter() - began))
        self.where[name] = (out[0] if isinstance(out, tuple) else out).device
        return out

    def median(self, name): return median(self.times[name][1:])


def forget_pages(scenes):
    "Ask the system to drop what it holds of the packed sound; False where it can't be asked."
    if not hasattr(os, "posix_fadvise"): return False
    scenes._store._sound = None  # a page stays as long as it is mapped
    with open(scenes._store.folder / "sound.i16", "rb") as f: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def step(parameters, loss, device, precision):
    "One update for a loss, as `fit` makes it."
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4)

    def update(*given):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"): value = loss(*given)
        value.item()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value
    return update


def student_parts(args, device):
    "Names and functions of what a batch goes through in stage 2, the step last."
    net = CPMobile(args.variant).to(device, memory_format=torch.channels_last).train()
    projection = ProjectionHead(net.embed_dim, 128).to(device)
    opinions, positions = 10 * torch.randn(args.batch, CLASSES, device=device), torch.randn(args.batch, 128, device=device)

    def loss(spec, labels):
        normed = net.embed(spec, normed=True)
        return student_loss(net.head(normed), labels, opinions, projection(normed), positions)["loss"]
    update = step([*net.parameters(), *projection.parameters()], loss, device, args.precision)
    responses, roll, mel = DeviceImpulseResponse(0.6).to(device), TimeRoll(1600), LogMel().to(device).train()
    mask, mix = FreqMask(48), FreqMixStyle(1.0, 0.4)
    return [("impulse responses, roll", lambda wave, labels: (roll(responses(wave)), labels)), ("log-mel, jitter", lambda wave, labels: (mel(wave), labels)),
            ("mask, Freq-MixStyle", lambda spec, labels: (mix(mask(spec)), labels)), (f"step of {net.name}", update)]


def teacher_parts(args, device):
    "The same for phase 2 of stage 1."
    beats = rule_beats("base" if args.base else "nano").to(device).train()
    dim = beats.config.encoder_embed_dim
    head, projection = CosineHead(dim, CLASSES).to(device), ProjectionHead(dim).to(device)

    def loss(spec, targets):
        embedding = beats.encode(spec).mean(1)
        return teacher_loss(head(embedding), projection(embedding), targets)["loss"]
    update = step([p for m in (beats, head, projection) for p in m.parameters()], loss, device, args.precision)
    roll, mask, mix, mixup = TimeRoll(1600), FreqMask(48, fill=0.0), FreqMixStyle(1.0, 0.4), Mixup(0.3, 2.0)
    def both(spec, labels): return mixup(mix(mask(spec)), F.one_hot(labels, CLASSES).float())
    return [("roll", lambda wave, labels: (roll(wave), labels)), ("filter bank", lambda wave, labels: (beats.fbank(wave), labels)),
            ("mask, Freq-MixStyle, mixup", both), (f"step of {beats.name}", update)]


def compare(title, scenes, parts, args, device):
    "Milliseconds of every part, their sum, the step, and the ratio."
    clock = Timed(device)
    def draw(): return torch.randint(len(scenes), (args.batch,)).numpy()
    def read(rows): return tuple(scenes.batch(rows)[k] for k in ("wave", "label"))
    def bring(*batch): return tuple(x.to(device, non_blocking=True) for x in batch)
    for _ in range(args.repeats + 1):
        given = clock.run("read from the pack", read, draw())
        for name, f in [("to the device", bring), *parts]: given = clock.run(name, f, *given)
    for _ in range(args.repeats + 1):
        if forget_pages(scenes): clock.run("cold", read, draw())
    *before, last = [n for n in clock.times if n != "cold"]
    total, trained = sum(map(clock.median, before)), clock.median(last)
    print(f"\n{title}, batch {args.batch}, step in {args.precision}, median of {args.repeats}")
    for name in before: print(f"  {name:32s} {clock.median(name):10.2f} ms   on {clock.where[name]}")
    if "cold" in clock.times: print(f"  {'(cold: read from the pack)':32s} {clock.median('cold'):10.2f} ms   not in the sum")
    print(f"  {'sum':32s} {total:10.2f} ms\n  {last:32s} {trained:10.2f} ms   on {clock.where[last]}\n  {'sum / step':32s} {total / trained:10.3f}", flush=True)
    return dict(parts={n: clock.median(n) for n in before}, sum=total, step=trained, ratio=total / trained)


def main(argv=None):
    "What `compare` gives, for the student and the teacher."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256); parser.add_argument("--variant", choices=VARIANTS, default="cpm126k")
    parser.add_argument("--base", action="store_true", help="BEATs base instead of nano")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--clips", type=int, default=4000); parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, CONTRASTASC_HOME=home):
        scenes = noise_scenes(args.clips)
        print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {torch.get_num_threads()} threads'}; {len(scenes):,} packed clips")
        return {name: compare(name, scenes, parts(args, device), args, device)
                for name, parts in (("stage 2", student_parts), ("stage 1", teacher_parts))}


if __name__ == "__main__":
    found = main()
    passed = all(f["ratio"] < 1 for f in found.values())
    print("passed" if passed else "FAILED: what comes before a network takes longer than its training step")
    sys.exit(0 if passed else 1)
