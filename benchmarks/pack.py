"""Packing a data set in TAU22's format: tables read, files packed by processes, a packing killed half way, a pack checked.

    python benchmarks/pack.py [--clips 10000] [--workdir DIR]

Writes at least so many one-second clips of generated sound, 44.1 kHz and 24 bit, then measures: `read_tau22` and `locate`;
`load_scenes` into an empty cache against `read_audio` on files of the same tree, one by one in one thread (the ratio of their clips
a second, half of the single reads before and half after; beside it the processor time of both, which a busy machine changes less);
a packing that is killed (SIGKILL) when half of the clips have been read, and taken up again, with every read counted; `check_pack`;
the tables alone at full size. From fewer than 100 chunks of about 64 s packing uses threads, so that 10,000 clips are the least that
show the processes. Everything lies in the page cache of the system: a cold disk is not measured. Needs 0.2 MB a clip in DIR
(default: the system's temporary folder), which is freed at the end.
Exit status 1 where the two packs differ.
"""
import argparse
import filecmp
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import contrastasc
import numpy as np
import torch

from contrastasc.audio import read_audio
from contrastasc.datasets import PUBLISHED, locate, read_tau22, write_miniature
from contrastasc.scenes import READERS, SceneSet, check_pack, load_scenes
from contrastasc.synth import world_frame

PAPER = sum(PUBLISHED["tau22"].values())
LIMIT = 10.0  # seconds to wait for orphans
PACKED = 2 * 16000 + 4  # bytes a clip


def told(what, number, unit):
    print(f"{what:62s} {number:12,.2f} {unit}", flush=True)
    return number


def timed(f, *args, **kwargs):
    "What f gives, and its seconds."
    began = time.perf_counter()
    return f(*args, **kwargs), time.perf_counter() - began


def worked():
    "Processor seconds of this process and of those that it has waited for."
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def at(home): return patch.dict(os.environ, CONTRASTASC_HOME=str(home))


def some(clips):
    "Rows of the world at full size with at least so many clips: one recording to train on, then whole ones of the test."
    frame = world_frame("synth-tau22", "paper")
    train, test = (frame[frame.split == s] for s in ("train", "test"))
    first = (train.recording == train.recording.iat[0]).sum()
    sizes = test.groupby("recording", sort=False).size().cumsum()
    wanted = sizes.index[: 1 + int(np.searchsorted(sizes, clips - first))]
    return frame[(frame.recording == train.recording.iat[0]) | frame.recording.isin(wanted)].sort_values("recording", kind="stable")


def bytes_of(folder): return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())


def one_by_one(root, paths):
    "Clips a second of one thread, and processor milliseconds a clip."
    before, work = torch.get_num_threads(), worked()
    torch.set_num_threads(1)
    _, seconds = timed(lambda: [read_audio(root / p) for p in paths])
    torch.set_num_threads(before)
    return len(paths) / seconds, 1000 * (worked() - work) / len(paths)


def counted(rows, read, log):
    "What `read` gives, and a byte in the log for each clip."
    for wave in read(rows):
        with open(log, "ab", 0) as f: f.write(b".")
        yield wave


def pack_counted(root, log):
    "`load_scenes('tau22', root)` with its reads counted."
    frame, opener = READERS["tau22"](root, None, None, None, 0)
    SceneSet.from_opener(frame, replace(opener, read=partial(counted, read=opener.read, log=log)), "tau22")


def outlived(group, limit=LIMIT):
    "Seconds that workers of a killed process stayed on; at the limit they are killed."
    began = time.perf_counter()
    while (lived := time.perf_counter() - began) < limit:
        try: os.killpg(group, 0)
        except ProcessLookupError: return lived
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    return lived


def killed_and_resumed(root, home, clips):
    "Seconds that workers outlived the first attempt, seconds of the second, clips read by the first, reads in all."
    log = home / "reads"
    log.parent.mkdir(); log.touch()
    command = [sys.executable, __file__, "--root", str(root), "--log", str(log)]
    with at(home):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and log.stat().st_size < clips / 2: time.sleep(0.002)
        process.kill(); process.wait()
        stayed = outlived(process.pid)
        first = log.stat().st_size
        _, seconds = timed(subprocess.run, command, check=True, stderr=subprocess.DEVNULL)
    return stayed, seconds, first, log.stat().st_size


def same(a, b):
    "True where two caches hold one pack each, of the same bytes."
    (a,), (b,) = ([f for f in (home / "packed").iterdir() if f.is_dir()] for home in (a, b))
    return a.name == b.name and all(filecmp.cmp(a / f, b / f, shallow=False) for f in ("sound.i16", "scale.f32"))


def full_tables(root, rows=None):
    "Rows and seconds of the tables of the whole set, without sound."
    frame = world_frame("synth-tau22", "paper")
    write_miniature("tau22", root, frame if rows is None else frame.groupby("split").head(rows), sound=False)
    table, seconds = timed(read_tau22, root)
    return len(table), seconds


def measure(root, work, args):
    "All numbers by name."
    out = {}
    files, seconds = timed(write_miniature, "tau22", root, some(args.clips))
    n, size = len(files), bytes_of(root)
    print(f"{n:,} clips in {seconds:.0f} s of generating and writing, {size / 1e9:.2f} GB, {os.cpu_count()} cores")
    (table, out["tables_s"]), sample = timed(read_tau22, root), [root / p for p in files.path[:: max(1, n // args.sample)]]
    out["locate_s"] = timed(locate, table, root)[1]
    told("tables read", out["tables_s"], "s"); told("files found", out["locate_s"], "s")
    parts = np.array_split(sample, 6)
    single = [one_by_one(root, p) for p in parts[:3]]
    with at(work / "unbroken"):
        spent = worked()
        out["pack_s"] = timed(load_scenes, "tau22", root)[1]
        out["pack_cpu_ms"] = 1000 * (worked() - spent) / n
        single += [one_by_one(root, p) for p in parts[3:]]
        out["open_s"] = timed(load_scenes, "tau22", root)[1]
        checked, out["check_s"] = timed(check_pack, "tau22", root, clips=min(n, args.checked))
    rates, costs = zip(*single)
    out |= dict(clips=n, pack_rate=n / out["pack_s"], single_rate=median(rates), single_cpu_ms=median(costs))
    out["ratio"] = out["pack_rate"] / out["single_rate"]
    told("packed (tables included)", out["pack_s"], "s"); told("packing", out["pack_rate"], "clips/s")
    told(f"one thread, one by one (median of {min(rates):.0f} to {max(rates):.0f})", out["single_rate"], "clips/s")
    told("packing against one by one", out["ratio"], "times")
    told("processor time of packing", out["pack_cpu_ms"], "ms/clip"); told("processor time one by one", out["single_cpu_ms"], "ms/clip")
    told("opened again (tables and eight probes)", out["open_s"], "s")
    told(f"{checked} clips checked against their files", out["check_s"], "s")
    out["stayed_s"], out["resumed_s"], out["read_first"], reads = killed_and_resumed(root, work / "broken", n)
    out["twice"], out["same"] = reads - n, same(work / "unbroken", work / "broken")
    told("killed when it had read", out["read_first"], "clips"); told(f"its workers stayed on (limit {LIMIT:g})", out["stayed_s"], "s")
    told("taken up again and finished in", out["resumed_s"], "s"); told("read twice", out["twice"], f"clips, {100 * out['twice'] / n:.1f} % of all")
    print(f"the finished pack {'equals' if out['same'] else 'DIFFERS FROM'} the unbroken one byte for byte")
    out["rows"], out["full_s"] = full_tables(work / "tables", args.rows)
    told(f"tables of {out['rows']:,} rows read", out["full_s"], "s")
    out["extrapolated_min"], out["pack_gb"] = PAPER / out["pack_rate"] / 60, PAPER * PACKED / 1e9
    print(f"extrapolated, not measured, to {PAPER:,} clips: {out['extrapolated_min']:.1f} min, {out['pack_gb']:.1f} GB for the pack beside "
          f"{PAPER * size / n / 1e9:.0f} GB of files; files found in {PAPER * out['locate_s'] / n:.1f} s, tables read in "
          f"{PAPER * out['full_s'] / out['rows']:.1f} s at every opening")
    return out


def main(argv=None):
    "The numbers measured; a parent that gives --root and --log wants one packing instead."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10000); parser.add_argument("--workdir")
    parser.add_argument("--sample", type=int, default=600, help="files read one by one")
    parser.add_argument("--checked", type=int, default=500, help="clips to compare with their files")
    parser.add_argument("--rows", type=int, help="rows of each split in the tables at full size; default all")
    parser.add_argument("--root", help=argparse.SUPPRESS); parser.add_argument("--log", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.log: return pack_counted(args.root, args.log)
    with tempfile.TemporaryDirectory(dir=args.workdir) as folder: return measure(Path(folder) / "tree", Path(folder), args)


if __name__ == "__main__":
    found = main()
    sys.exit(0 if found is None or found["same"] else 1)
