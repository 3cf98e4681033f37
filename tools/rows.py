"""Measure rows of the paper's tables at one scale, and write those that ship.

    rows.py [--data worlds|FOLDER] [--seeds 0,1,2] [--variant SIZE] [ROW ...]    measure (all rows by default); stopped, it goes on
    rows.py --write            put every line measured here at scale "class" into data/rows_class.csv

What is in the file and was not measured here stays. On two cores all rows, three seeds and both benches take about four hours.
"""
import argparse
import time
from pathlib import Path

import pandas as pd

from contrastasc.paper import STUDENTS, TEACHERS, load_rows, measure, recordings, worlds

ROOT = Path(__file__).resolve().parent.parent


def write():
    path = ROOT / "data" / "rows_class.csv"
    frame = load_rows(scale="class").drop(columns="origin")
    numbers = frame.columns.difference(["data", "scale", "row", "variant", "seed", "code", "parameters"])
    frame[numbers] = frame[numbers].astype(float).round(4)
    frame.to_csv(path, index=False)
    print(f"{len(frame)} lines in {path.relative_to(ROOT)}")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", default="worlds"); a.add_argument("--scale", default="class"); a.add_argument("--variant")
    a.add_argument("--seeds", default="0,1,2"); a.add_argument("--write", action="store_true")
    a.add_argument("row", nargs="*")
    a = a.parse_args()
    if a.write: return write()
    bench = worlds(a.scale) if a.data == "worlds" else recordings(a.data)
    if not a.row: measure("mean log-mel", bench, a.scale)  # nothing in it is drawn: one seed is all
    for seed in map(int, a.seeds.split(",")):
        for row in a.row or [*TEACHERS, *STUDENTS]:
            began = time.time()
            line = measure(row, bench, a.scale, seed, a.variant)
            print(f"{row:26} seed {seed} {line['variant']:8} {time.time() - began:6.0f} s  " + "  ".join(f"{k} {100 * v:.1f}" for k, v in line.items() if k in ("closed", "tut17_5", "icme24_5", "recordings_5", "recordings_20")), flush=True)


if __name__ == "__main__": main()
