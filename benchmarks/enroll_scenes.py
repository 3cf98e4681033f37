"""How well scenes are enrolled from a few seconds: accuracy, strangers, calibration, on a folder of real recordings, by model that ships.

    python benchmarks/enroll_scenes.py FOLDER [--models cpm126k cpm12k] [--draws 100] [--ways 3 5 10] [--shots 5 20]

FOLDER has a manifest with splits, groups and a column tau_class. Each draw enrols N scenes, chosen among those that TAU22 does not have, with K
one-second shots each, dealt over the groups of split `pool`. Up to eight seconds of every group of split `test` are asked: of the
enrolled scenes (accuracy, mean over scenes; calibration error of the shares), and of all other scenes (strangers: area under the
curve of the novelty, and how many of either side the threshold from the shots calls unknown). Intervals: 95 %, a bootstrap over the
test groups within their scenes for the accuracy, over draws for the rest.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from contrastasc.fewshot import FewShotClassifier, reliability
from contrastasc.pretrained import load_pretrained
from contrastasc.project import directions
from contrastasc.recipe import MODELS
from contrastasc.scenes import load_scenes, seen_classes
from contrastasc.train import extract_embeddings


def deal(dice, decks, k):
    "k cards, one from each deck in turn."
    decks, hand = [list(dice.permutation(d)) for d in dice.permutation(np.array(decks, dtype=object))], []
    while len(hand) < k and any(decks): hand += [d.pop() for d in decks if d][:k - len(hand)]
    return hand


def decks(frame, rows): return [list(g.index) for _, g in frame[rows].groupby("group")]


def draw(x, frame, scenes, ways, k, seed):
    "One draw: right and wrong answers with their group, and what became of the strangers."
    dice = np.random.default_rng([seed, ways, k])
    chosen = dice.permutation(scenes)[:ways]
    shots = [r for c in chosen for r in deal(dice, decks(frame, (frame.scene == c) & (frame.split == "pool")), k)]
    asked = [r for d in decks(frame, frame.split == "test") for r in dice.permutation(d)[:8]]
    known = frame.scene[asked].isin(chosen).to_numpy()
    clf = FewShotClassifier(standardise=True).fit(x[shots], frame.scene[shots].to_numpy(str), frame.group[shots].to_numpy(str))
    truth, p, novelty = frame.scene[asked].to_numpy(str), clf.predict_proba(x[asked]), clf.novelty(x[asked])
    answers = pd.DataFrame(dict(scene=truth, group=frame.group[asked].to_numpy(str), right=clf.classes_[p.argmax(1)] == truth))[known]
    error = reliability(p[known], np.searchsorted(clf.classes_, truth[known]))[3]
    return answers, [roc_auc_score(~known, novelty), (novelty[known] > 1).mean(), (novelty[~known] <= 1).mean(), error]


def interval(answers, draws=2000, seed=0):
    "Mean over scenes of the share of right answers, and its bootstrap over groups within scenes."
    table = answers.groupby(["scene", "group"]).right.agg(["sum", "count"]).reset_index()
    dice, parts = np.random.default_rng(seed), []
    for _, rows in table.groupby("scene"):
        times = dice.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws)
        parts.append((times @ rows["sum"].to_numpy()) / (times @ rows["count"].to_numpy()))
    mean = table.groupby("scene")[["sum", "count"]].sum()
    return (mean["sum"] / mean["count"]).mean(), *np.percentile(np.mean(parts, 0), (2.5, 97.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder"); parser.add_argument("--models", nargs="+", default=[m for m in MODELS if m.startswith("cpm")] + ["nano"])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--ways", type=int, nargs="+", default=[3, 5, 10]); parser.add_argument("--shots", type=int, nargs="+", default=[5, 20])
    given = parser.parse_args()
    data = load_scenes(given.folder)
    seen = set(seen_classes(data))
    frame = data.frame.reset_index(drop=True)
    split = frame.groupby("scene").split.agg(set)
    scenes = sorted(s for s in split.index if {"pool", "test"} <= split[s] and s not in seen)
    print(f"{len(scenes)} scenes that TAU22 does not have: {', '.join(scenes)}\n")
    print("| model | scenes | shots | accuracy [%] | chance | strangers, area under the curve | known called unknown [%] | strangers passed [%] | calibration error [points] |\n|" + "---|" * 9)
    for model in given.models:
        x = directions(extract_embeddings(load_pretrained(model), data, progress=False))
        for ways in given.ways:
            for k in given.shots:
                answers, rest = zip(*[draw(x, frame, scenes, ways, k, s) for s in range(given.draws)])
                mean, low, high = (100 * v for v in interval(pd.concat(answers)))
                middle, (least, most) = np.mean(rest, 0), np.percentile(rest, (2.5, 97.5), axis=0)
                print(f"| {model} | {ways} | {k} | {mean:.1f} [{low:.1f}, {high:.1f}] | {100 / ways:.0f} | {middle[0]:.2f} [{least[0]:.2f}, {most[0]:.2f}] | "
                      f"{100 * middle[1]:.0f} | {100 * middle[2]:.0f} | {100 * middle[3]:.1f} |", flush=True)


if __name__ == "__main__": main()
