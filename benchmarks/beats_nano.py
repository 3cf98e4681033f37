"How fast the nano BEATs is: milliseconds a one-second clip, and its ratio to one large matrix product measured beside it."
import argparse
import time

import torch

from contrastasc.beats import BEATs, BEATsConfig

BUDGET = 5.0  # ms a clip, forward with the filter bank, batch of 64, two cores


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def interleaved(jobs, repeats):
    "Best time of each job, the jobs taking turns so that a busy machine slows them alike."
    for f in jobs.values(): f()
    times = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, f in jobs.items(): times[name].append(seconds(f))
    return {name: min(t) for name, t in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, wave, square = BEATs(BEATsConfig.nano()).eval(), 0.1 * torch.randn(args.batch, 16000), torch.randn(1024, 1024)
    fbank = model.fbank(wave)

    def forward():
        with torch.no_grad(): model.embed(wave)

    def encode():
        with torch.no_grad(): model.encode(fbank)

    def train():
        model.zero_grad()
        model.encode(fbank).square().sum().backward()

    best = interleaved({"matmul 1024": lambda: square @ square, "fbank": lambda: model.fbank(wave), "encode": encode, "embed": forward,
                        "encode + backward": train}, args.repeats)
    print(f"{model.name}: {sum(p.numel() for p in model.parameters()):,} parameters, batch {args.batch}, {args.threads} threads")
    for name, t in best.items():
        each = 1 if name.startswith("matmul") else args.batch
        print(f"{name:20s} {1000 * t / each:8.3f} ms{'' if each == 1 else ' a clip':8s} {t / each / best['matmul 1024']:8.2f} x matmul")
    clip = 1000 * best["embed"] / args.batch
    print(f"{clip:.2f} ms a clip: {'within' if clip <= BUDGET else 'OVER'} the budget of {BUDGET:g} ms")
    raise SystemExit(clip > BUDGET)


if __name__ == "__main__": main()
