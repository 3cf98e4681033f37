"""K-shot evaluation against a loop of scikit-learn fits, in one run.

    python benchmarks/kshot.py [--repeats 300] [--rounds 3]

300 draws of 5 shots from each of 15 classes, 768 dimensions, 1,620 test clips, the same shots for both sides. scikit-learn runs
at one and at two threads and its better time counts. Both sides are measured in turn, each takes its best round. Exit status 1
where the ratio is below 5 or the mean accuracies differ by more than 0.2 points.
"""
import argparse
import sys
import time

import contrastasc
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from contrastasc.evaluate import kshot, shot_lists


def clouds(n, classes=15, d=768, seed=0):
    "Gaussian clips [classes * n, d] around fixed class centres, where 5 shots give about two thirds."
    centre = 0.2 * np.random.default_rng(99).normal(size=(classes, d))
    y = np.repeat(np.arange(classes), n)
    return (centre[y] + np.random.default_rng(seed).normal(size=(len(y), d))).astype(np.float32), y


def loop(pool_x, pool_y, test_x, test_y, shots, threads):
    "Accuracy of each repeat, one fit after the other."
    with threadpool_limits(threads):
        return [LogisticRegression(max_iter=1000).fit(pool_x[s], pool_y[s]).score(test_x, test_y) for s in shots]


def timed(f, *args):
    "What f gives, and its seconds."
    start = time.perf_counter()
    return f(*args), time.perf_counter() - start


def main(repeats, rounds):
    "Measure both sides in turn; True where the ratio and the accuracies hold."
    (pool_x, pool_y), (test_x, test_y) = clouds(100), clouds(108, seed=1)
    shots = shot_lists(pool_y, 5, repeats)
    ours, theirs = [], {1: [], 2: []}
    kshot(pool_x, pool_y, test_x, test_y, 5, 10)
    for _ in range(rounds):
        result, seconds = timed(kshot, pool_x, pool_y, test_x, test_y, 5, repeats)
        ours.append(seconds)
        for threads in theirs:
            reference, seconds = timed(loop, pool_x, pool_y, test_x, test_y, shots, threads)
            theirs[threads].append(seconds)
    best = {threads: min(s) for threads, s in theirs.items()}
    ratio, difference = min(best.values()) / min(ours), 100 * (result.mean - np.mean(reference))
    print(f"{repeats} repeats of 5-shot: kshot {min(ours):.2f} s, scikit-learn " + ", ".join(f"{s:.2f} s at {t} threads" for t, s in best.items()))
    print(f"ratio {ratio:.1f}; accuracy {100 * result.mean:.2f} % and {100 * np.mean(reference):.2f} %, difference {difference:+.2f} points")
    return ratio >= 5 and abs(difference) <= 0.2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sys.exit(0 if main(options.repeats, options.rounds) else 1)
