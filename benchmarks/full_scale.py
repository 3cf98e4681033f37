"""What the paper's full schedule costs: samples a second of every part, through the library's own `fit`, at TAU22's size.

    python benchmarks/full_scale.py [--clips 230350] [--stage 1|2|both] [--seconds 60] [--precision bfloat16|float32] [--batch N]
    torchrun --nproc_per_node=N benchmarks/full_scale.py ...          several GPUs, the batch divided among them
    python benchmarks/full_scale.py --clips 256 --batch 8 --seconds 20 --precision float32          without a GPU

A memory-mapped set is packed first: of --clips clips the share that TAU22 trains on and tests on, a second of seeded noise each.
Stage 1 is BEATs of base shape whose weights follow a closed formula (no checkpoint is needed): embedding extraction, phase 1's head
on embeddings and its projection through the frozen encoder, phase 2's end-to-end step. Stage 2 is CP-Mobile (cpm126k; --all-sizes:
all five) on a teacher's stored answers. Each part runs for about --seconds after a short run that sets the number of steps; its rate is the
median of three passes over these steps, its clips drawn from the whole set. "waits for sound" is the share of `fit`'s time spent in
reading batches. Peak memory is the GPU's, of the first process; without a GPU the most that this process has held so far.
The last lines project the schedule: every number of clips there is the paper's, whatever --clips was.
"""
import argparse
import csv
import gc
import os
import resource
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import contrastasc
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from contrastasc.beats import BEATs, BEATsConfig
from contrastasc.cpmobile import VARIANTS, CPMobile, Student
from contrastasc.datasets import COLUMNS, PUBLISHED, TAU22_CLASSES
from contrastasc.distill import DistillConfig, StudentObjective, TeacherOutputs
from contrastasc.finetune import EndToEndObjective, FinetuneConfig, HeadObjective, ProjectionObjective, Teacher
from contrastasc.frontend import LogMel
from contrastasc.scenes import Opener, SceneSet
from contrastasc.softsupcon import CosineHead, ProjectionHead
from contrastasc.train import TensorData, extract_embeddings, fit, world_size

RANK, LOCAL = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
TRAIN, TEST, ALL = PUBLISHED["tau22"]["train"], PUBLISHED["tau22"]["test"], sum(PUBLISHED["tau22"].values())
PASSES = 3


def say(*words):
    if RANK == 0: print(*words, flush=True)


def noise(rows):
    "A second of noise for each row, cut from one stretch where the row's number says."
    long = np.random.default_rng(0).normal(scale=0.1, size=1 << 18).astype(np.float32)
    for k in rows.path.astype(int):
        at = k * 7919 % (len(long) - 16000)
        yield torch.from_numpy(long[at:at + 16000] * np.float32(0.2 + 0.1 * (k % 9)))


def noise_scenes(train, test=0):
    "A packed set of so many clips; of the training clips three quarters come from device a."
    k = np.arange(train + test)
    columns = dict(path=k.astype(str), scene=np.array(TAU22_CLASSES)[k % 10], device=np.where(k % 4 < 3, "a", "b"), recording=(k // 10).astype(str),
                   group=(k // 100).astype(str), split=np.where(k < train, "train", "test"), start=0.0, duration=1.0)
    frame = pd.DataFrame(dict.fromkeys(COLUMNS, "") | columns)
    return SceneSet.from_opener(frame, Opener(f"noise {train} {test}", TAU22_CLASSES, noise, probes=3), "noise")


def by_rule(key, place, shape):
    "One weight of the closed formula: the state dict's keys in order have places 0, 1, ...; j counts a weight's elements."
    j = torch.arange(shape.numel(), dtype=torch.float64)
    wave = torch.sin(0.7 * j + 1.3 * (place + 1)) * torch.cos(0.013 * j + place)
    rules = (("relative_attention_bias.weight", lambda: torch.sin(0.7 * j) / 2), ("grep_a", lambda: 1 + 0.3 * wave),
             ("layer_norm.weight", lambda: 1 + 0.1 * wave), (".bias", lambda: 0.05 * wave), ("weight_g", lambda: 1 + 0.2 * wave),
             ("patch_embedding.weight", lambda: wave / 16), ("weight_v", lambda: 0.1 * wave), ("", lambda: wave * (2 / shape[-1]) ** 0.5))
    return next(make for ending, make in rules if key.endswith(ending))().reshape(shape).float()


def rule_beats(size="base"):
    "BEATs of a size, weights by the formula."
    model = BEATs(getattr(BEATsConfig, size)())
    model.load_state_dict({key: by_rule(key, place, v.shape) for place, (key, v) in enumerate(sorted(model.state_dict().items()))})
    return model


def new_teacher(size):
    encoder = rule_beats(size)
    dim = encoder.config.encoder_embed_dim
    return Teacher(encoder, CosineHead(dim, len(TAU22_CLASSES)), ProjectionHead(dim), list(TAU22_CLASSES))


class Some:
    "Rows of a data set as training data, which knows how long it has been read from."

    def __init__(self, data, rows): self.data, self.rows, self.seconds = data, rows, 0.0

    def __len__(self): return len(self.rows)

    def batch(self, indices):
        began = time.perf_counter()
        batch = self.data.batch(self.rows[np.asarray(indices)])
        self.seconds += time.perf_counter() - began
        return batch


def drawn(n, clips): return np.resize(np.random.default_rng(1).permutation(n), clips)


def slowest(seconds, device):
    "The longest of all processes' times, so that all take as many steps."
    if world_size() == 1: return seconds
    t = torch.tensor(seconds, device=device)
    dist.all_reduce(t, dist.ReduceOp.MAX)
    return t.item()


def forget(device):
    gc.collect()
    if device.type == "cuda": torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats(device)


def peak(device):
    "GiB."
    if device.type == "cuda": return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Bench:
    "Parts measured one after the other, and what came out."

    def __init__(self, args, device):
        self.args, self.device, self.rows = args, device, []

    def config(self, paper): return replace(paper, precision=self.args.precision, batch_size=self.args.batch or paper.batch_size, warmup_epochs=0)

    def steps(self, name, objective, data, paper):
        "Samples a second of `fit`."
        forget(self.device)
        config = self.config(paper)
        def go(steps, epochs):
            some = Some(data, drawn(len(data), steps * config.batch_size))
            return fit(objective, some, replace(config, epochs=epochs), progress=False).seconds, some.seconds
        step = slowest(float(go(2, 2)[0].iat[-1]) / 2, self.device)
        steps = max(1, min(int(self.args.seconds / PASSES / step), len(data) // config.batch_size))
        seconds, reading = go(steps, PASSES)
        return self.told(name, config.batch_size, steps * config.batch_size / median(seconds), reading / sum(seconds))

    def embeddings(self, name, encoder, scenes, precision):
        "Clips a second of `extract_embeddings` by one process, at its own batch size; 0 in the others."
        if RANK: return 0.0
        forget(self.device)
        encoder.to(self.device)
        batch = self.args.batch or 64
        def go(clips):
            some = scenes.subset(np.sort(drawn(len(scenes), min(clips, len(scenes)))))
            began = time.perf_counter()
            with torch.autocast(self.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext():
                extract_embeddings(encoder, some, batch_size=batch, progress=False)
            return len(some) / (time.perf_counter() - began)
        go(batch)
        rate = go(2 * batch)
        return self.told(name, batch, median(go(max(batch, int(rate * self.args.seconds / PASSES))) for _ in range(PASSES)))

    def told(self, name, batch, rate, reading=float("nan")):
        memory = peak(self.device)
        self.rows.append(dict(part=name, batch=batch, samples_per_second=rate, waits_for_sound=reading, peak_gib=memory))
        waits = "" if np.isnan(reading) else f"waits for sound {100 * reading:4.1f} %"
        say(f"{name:46s} batch {batch:5d}  {rate:11,.1f} samples/s   peak {memory:6.2f} GiB   {waits}")
        return rate


def stage1(bench, scenes, size):
    "Rates of the teacher's parts, by name."
    began = time.perf_counter()
    teacher, paper = new_teacher(size), FinetuneConfig()
    say(f"stage 1: {teacher.encoder.name}, {sum(p.numel() for p in teacher.encoder.parameters()):,} parameters by rule in {time.perf_counter() - began:.0f} s")
    rate = dict(extract=bench.embeddings("embedding extraction, float32", teacher.encoder, scenes, "float32"))
    if bench.args.precision != "float32": bench.embeddings(f"embedding extraction, {bench.args.precision}", teacher.encoder, scenes, bench.args.precision)
    n, dim = len(scenes), teacher.encoder.config.encoder_embed_dim
    data = TensorData(x=torch.randn(n, dim), label=torch.as_tensor(scenes.labels))
    rate["head"] = bench.steps("phase 1, head on embeddings", HeadObjective(teacher.head), data, paper.head_phase)
    teacher.encoder.requires_grad_(False)
    rate["projection"] = bench.steps("phase 1, projection through the frozen encoder", ProjectionObjective(teacher, paper), scenes, paper.projection_phase)
    teacher.encoder.requires_grad_(True)
    rate["end to end"] = bench.steps("phase 2, end to end", EndToEndObjective(teacher, paper), scenes, paper.end_to_end)
    return rate


def stage2(bench, scenes, variant, width=768):
    "Rates of one student's parts."
    n, paper = len(scenes), DistillConfig.at("paper", variant=variant)
    student = Student(LogMel(fmax_jitter=paper.fmax_jitter), CPMobile(variant))
    outputs = TeacherOutputs(torch.randn(n, width), 10 * torch.randn(n, len(TAU22_CLASSES)), torch.randn(n, 128))
    from_a = torch.tensor((scenes.frame.device == "a").to_numpy())
    objective = StudentObjective(student.to(memory_format=torch.channels_last), paper, outputs, from_a)
    rate = dict(train=bench.steps(f"stage 2, {variant}", objective, scenes, paper.train))
    rate["extract"] = bench.embeddings(f"{variant} embedding extraction, float32", student, scenes, "float32")
    return rate


def hours(clips, rate): return clips / rate / 3600


def schedule(what, parts):
    "Say the hours of every part and of all; returns the latter."
    def span(h): return f"{h:,.1f} h" if h >= 1 else f"{60 * h:.1f} min"
    total = sum(parts.values())
    say(f"{what}, paper's schedule: " + ", ".join(f"{name} {span(h)}" for name, h in parts.items()) + f"; {span(total)} in all")
    return total


def project_teacher(rate):
    "Hours of stage 1."
    c = FinetuneConfig()
    parts = {"embeddings of the training clips": hours(TRAIN, rate["extract"])}
    for name, phase, part in (("head", c.head_phase, "head"), ("projection", c.projection_phase, "projection"), ("end to end", c.end_to_end, "end to end")):
        parts[f"{phase.epochs} epochs {name}"] = hours(phase.epochs * TRAIN, rate[part])
    return schedule("stage 1", parts | {"evaluation": hours(TEST, rate["extract"])})


def project_student(variant, rate, teacher):
    "Hours of stage 2 for one student."
    epochs, answers = DistillConfig().train.epochs, {"teacher's answers": hours(TRAIN, teacher["extract"])} if teacher else {}
    return schedule(f"stage 2, {variant}", answers | {f"{epochs} epochs": hours(epochs * TRAIN, rate["train"]), "evaluation": hours(TEST, rate["extract"])})


ASSUMED = f"""assumed: {TRAIN:,} clips an epoch and {TEST:,} in one evaluation pass; the rates above hold for hours; sound in the system's page cache;
extraction by one process in float32; the teacher's answers are the same for all students; nothing for packing (pack.py), checkpoints, few-shot fits"""


def write(path, bench, device, args):
    "A line for each part; a header where the file is new."
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    new = not Path(path).exists()
    with open(path, "a", newline="") as f:
        out = csv.DictWriter(f, ["device", "processes", "precision", "clips", *bench.rows[0]])
        if new: out.writeheader()
        for row in bench.rows: out.writerow(dict(device=name, processes=int(os.environ.get("WORLD_SIZE", 1)), precision=args.precision, clips=args.clips) | row)


def measure(args, device):
    "The set, the stages, the projection; rates and hours by name."
    began, share = time.perf_counter(), args.clips / ALL
    scenes = noise_scenes(max(20, round(TRAIN * share)), round(TEST * share))
    train, bench, found = scenes.subset(split="train"), Bench(args, device), {}
    say(f"{len(scenes):,} clips packed in {time.perf_counter() - began:.1f} s, {len(train):,} to train on; "
        f"{device}, {os.environ.get('WORLD_SIZE', 1)} process(es), {args.precision}")
    rates, teacher = {}, stage1(bench, train, args.teacher) if args.stage in ("1", "both") else None
    if args.stage in ("2", "both"): rates = {v: stage2(bench, train, v) for v in (VARIANTS if args.all_sizes else (args.variant,))}
    if RANK: return {}
    if args.out: write(args.out, bench, device, args)
    if teacher: found["stage 1 hours"] = project_teacher(teacher)
    found |= {f"{v} hours": project_student(v, rate, teacher) for v, rate in rates.items()}
    say(ASSUMED)
    return found | {row["part"]: row["samples_per_second"] for row in bench.rows}


def main(argv=None):
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=ALL, help="size of the whole development set")
    parser.add_argument("--stage", choices=("1", "2", "both"), default="both"); parser.add_argument("--seconds", type=float, default=60, help="for each part")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16" if gpu else "float32")
    parser.add_argument("--batch", type=int, help="of all parts; default the paper's 2048, 2048, 128 and 256, and 64 for extraction")
    parser.add_argument("--variant", choices=VARIANTS, default="cpm126k"); parser.add_argument("--all-sizes", action="store_true")
    parser.add_argument("--teacher", choices=("base", "nano"), default="base", help="nano only to see that everything runs")
    parser.add_argument("--out", help="CSV file to append to"); parser.add_argument("--workdir", help="for the packed set, 32 kB a clip")
    args = parser.parse_args(argv)
    device = torch.device("cuda", LOCAL) if gpu else torch.device("cpu")
    if gpu: torch.cuda.set_device(device)
    home = Path(args.workdir or tempfile.gettempdir()) / f"contrastasc-full-scale-{os.getppid() if 'RANK' in os.environ else os.getpid()}"
    try:
        with patch.dict(os.environ, CONTRASTASC_HOME=str(home)): found = measure(args, device)
        if dist.is_initialized(): dist.barrier(); dist.destroy_process_group()
        return found
    finally:
        if RANK == 0: shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__": main()
