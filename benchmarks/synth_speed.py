"""Seconds of sound generated per second of CPU time, on one core: `python benchmarks/synth_speed.py [segments]`.

"segments" renders fresh ten-second clips, one place each. "pieces" renders the table of synth-tau22 at scale "class",
where most of a segment is thrown away: it counts the seconds that come out.
"""
import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import sys
import time

import torch

from contrastasc.synth import SAMPLE_RATE, WORLDS, render_frame, world_frame


def ratio(world, frame):
    "Seconds of sound per second of CPU time."
    began = time.process_time()
    samples = sum(len(wave) for wave in render_frame(world, frame))
    return samples / SAMPLE_RATE / (time.process_time() - began)


if __name__ == "__main__":
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for world in ("synth-tut17", "synth-icme24"):
        frame = world_frame(world, "class").sample(count, random_state=0)
        ratio(world, frame.head(3))
        print(f"{world:14} segments  {ratio(world, frame):6.0f} x real time")
    frame = world_frame("synth-tau22", "class")
    frame = frame[frame.recording.isin(frame.recording.drop_duplicates().sample(count, random_state=0))]
    print(f"synth-tau22    pieces    {ratio('synth-tau22', frame):6.0f} x real time ({len(frame) / frame.recording.nunique():.1f} s kept of every 10 s)")
    began = time.process_time()
    for world in WORLDS: world_frame(world, "paper")
    print(f"three tables at scale paper  {time.process_time() - began:.2f} s")
