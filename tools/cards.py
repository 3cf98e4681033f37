"""Write "How good it is" into the cards of the models that ship, from data/results.csv and data/seeds.csv.

    cards.py [WEIGHTS ...]    first take in the students of other seeds, from folders that `contrastasc pretrain --out WEIGHTS --teacher nano --seed N` has finished

What ships itself is seed 0 and stands in data/results.csv. Lines of folders that are not given stay as they were.
"""
import re
import sys
from pathlib import Path

import pandas as pd

from contrastasc.cpmobile import VARIANTS
from contrastasc.pretrained import model_card, pack_model
from contrastasc.recipe import MODELS, results_text

DATA = Path(__file__).resolve().parent.parent / "data"


def results(weights):
    "Lines of the students of one folder, each with what its card says of the time it took."
    frame = pd.read_csv(weights / "models" / "results.csv")
    frame = frame[frame.row.isin(VARIANTS)]
    if (frame.seed == 0).any(): sys.exit(f"{weights} has seed 0, which ships itself")
    return frame.assign(took=[re.search(r"Training took (.*)\.\n", (weights / "models" / row / "card.md").read_text())[1] for row in frame.row])


def together(folders):
    "What data/seeds.csv has, and the lines of some folders in place of its own."
    kept = [pd.read_csv(DATA / "seeds.csv")] if (DATA / "seeds.csv").exists() else []
    frame = pd.concat([*kept, *map(results, folders)]).drop_duplicates(["row", "k", "data", "seed"], keep="last")
    return frame.assign(order=frame.row.map(list(VARIANTS).index)).sort_values(["k", "order", "seed"]).drop(columns="order")


def listed(words): return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def remark(lines):
    "A paragraph about one student's other seeds, if there are any."
    if lines.empty: return ""
    shots = [f"{listed([f'{100 * a:.1f}' for a in same.accuracy])} % with {k} shots" for k, same in lines.groupby("k")]
    first = lines[lines.k == lines.k.min()]
    return (f"Distilled again from the same teacher with seed{'s' * (len(first) > 1)} {listed([str(s) for s in first.seed])}: "
            f"{', '.join(shots)}. That took {listed(list(first.took))}.\n\n")


def main(folders):
    shipped, frame = pd.read_csv(DATA / "results.csv"), together(folders)
    frame.to_csv(DATA / "seeds.csv", index=False)
    for name in MODELS:
        before, after = re.split(r"(?<=## How good it is\n\n)(?s:.*)(?=## What it heard)", model_card(name, DATA))
        pack_model(DATA / name, name, f"{before}{results_text(name, shipped)}\n\n{remark(frame[frame.row == name])}{after}", DATA)
    print(f"{len(frame)} lines of {frame.row.nunique()} students in data/seeds.csv, {len(MODELS)} cards written")


if __name__ == "__main__": main([Path(f) for f in sys.argv[1:]])
