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
from contrastasc.evaluate import _Groups, _accuracy, _deal
from contrastasc.fewshot import FewShotClassifier, reliability
from contrastasc.pretrained import load_pretrained
from contrastasc.project import directions
from contrastasc.recipe import MODELS
from contrastasc.scenes import load_scenes, seen_classes
from contrastasc.train import extract_embeddings


def decks(frame, rows, dice):
    "Rows by group, groups and rows in random order."
    found = [dice.permutation(g.index) for _, g in frame[rows].groupby("group")]
    return [found[i] for i in dice.permutation(len(found))]


def draw(x, frame, scenes, ways, k, seed):
    "One draw: right and wrong answers with their group, and what became of the strangers."
    dice = np.random.default_rng([seed, ways, k])
    chosen = dice.permutation(scenes)[:ways]
    shots = [r for c in chosen for r in _deal(decks(frame, (frame.scene == c) & (frame.split == "pool"), dice), k)]
    asked = [r for d in decks(frame, frame.split == "test", dice) for r in d[:8]]
    known = frame.scene[asked].isin(chosen).to_numpy()
    clf = FewShotClassifier(standardise=True).fit(x[shots], frame.scene[shots].to_numpy(str), frame.group[shots].to_numpy(str))
    truth, p, novelty = frame.scene[asked].to_numpy(str), clf.predict_proba(x[asked]), clf.novelty(x[asked])
    answers = pd.DataFrame(dict(scene=truth, group=frame.group[asked].to_numpy(str), right=clf.classes_[p.argmax(1)] == truth))[known]
    error = reliability(p[known], np.searchsorted(clf.classes_, truth[known]))[3]
    return answers, [roc_auc_score(~known, novelty), (novelty[known] > 1).mean(), (novelty[~known] <= 1).mean(), error]


def interval(answers):
    "Mean over scenes of the share of right answers, and its bootstrap over groups within scenes."
    scenes, truth = np.unique(answers.scene, return_inverse=True)
    table = _Groups.of(answers.right.to_numpy(), np.ones(len(answers)), truth, (answers.scene + " " + answers.group).to_numpy(str), len(scenes))
    return float(_accuracy(table.hits.sum(0, keepdims=True), table.trials.sum(0, keepdims=True), "macro")[0]), *np.percentile(table.resample("macro"), (2.5, 97.5))


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
