"""Students of other seeds, for data/seeds.csv.

    seeds.py WEIGHTS [WEIGHTS ...]    folders that `contrastasc pretrain --out WEIGHTS --teacher nano --seed N` has finished

Their results stand beside each other; what ships itself, seed 0, is in data/results.csv.
"""
import sys
from pathlib import Path

import pandas as pd

from contrastasc.cpmobile import VARIANTS

PATH = Path(__file__).resolve().parent.parent / "data" / "seeds.csv"


def main(folders):
    if not folders: sys.exit(__doc__)
    frame = pd.concat([pd.read_csv(Path(f) / "models" / "results.csv") for f in folders])
    frame = frame[frame.row.isin(VARIANTS)]
    if (frame.seed == 0).any() or frame.duplicated(["row", "k", "data", "seed"]).any(): sys.exit("a seed is there twice, or is the one that ships")
    order = frame.row.map(list(VARIANTS).index)
    frame.assign(order=order).sort_values(["k", "order", "seed"]).drop(columns="order").to_csv(PATH, index=False)
    print(f"{len(frame)} lines in {PATH.name}")


if __name__ == "__main__": main(sys.argv[1:])
