"""Live enrolment in a real browser whose microphone plays a tone: how soon a second becomes a bar, and a clip becomes knowledge.

    python benchmarks/enroll.py [--model cpm126k] [--seconds 60] [--scenes 5]

Second to bar: the last piece of a second arriving in the page, to the frame in which its bars are drawn. Lag: a piece to Python and
its answer. Enrol: Enter pressed, to the frame that shows the new prediction; clips of five seconds. Then, without a browser, one more
class of five shots for 50 classes of 50 shots in 168 dimensions: the class means, the logistic regression from its last answer (both
`calibrate=False`), and a new temperature. Medians in ms, and what 95 % stay below.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from contrastasc.fewshot import FewShotClassifier
from tests.lab import browser, jupyter, microphone, open_lab, run_all, stop_kernel, window, write_notebook

MADE = """
import numpy as np
from contrastasc.enroll import LiveEnroller
from contrastasc.pretrained import load_pretrained
e = LiveEnroller(load_pretrained("{model}"), "bench.sqlite")
dice = np.random.default_rng(0)
for k in range({scenes}):
    for _ in range(2): e.enrol(0.1 * np.sin(2 * np.pi * 200 * 1.5 ** k * np.arange(80000) / 16000) + 0.01 * dice.normal(size=80000), f"tone {{k}}")
"""


def told(name, times): print(f"{name}: median {np.median(times):.0f}, 95 % {np.percentile(times, 95):.0f}  ({len(times)} times)", flush=True)


def live(model, seconds, scenes):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sf.write(folder / "tone.wav", 0.3 * np.sin(2 * np.pi * 500 * np.arange(480000) / 48000), 48000, subtype="PCM_16")
        write_notebook(folder / "b.ipynb", MADE.format(model=model, scenes=scenes), "e")
        with jupyter(folder) as address, browser(*microphone(folder / 'tone.wav')) as chromium:
            page = window(chromium)
            open_lab(page, address, "b.ipynb"); run_all(page)
            def see(what): return page.evaluate(f"() => {{ const x = document.querySelector('.ce').enroller; return {what}; }}")
            def until(what): page.wait_for_function(f"(() => {{ const x = document.querySelector('.ce')?.enroller; return x && ({what}); }})()", timeout=1000 * seconds + 120000)
            until("x.clips")
            page.get_by_role("button", name="Listen").first.click(); until(f"x.heardTo > {seconds}")
            told("second to bar [ms]", see("x.delays.slice(3)")); told("lag of a piece [ms]", see("x.lags.slice(12)"))
            enrolled = []
            for k in range(9):
                page.get_by_role("button", name="Keep the last seconds").click(); until("x.taken")
                page.get_by_label("name of the scene").fill(f"new {k % 3}")
                see("x.enrolled = null"); page.get_by_label("name of the scene").press("Enter"); until("x.enrolled")
                enrolled.append(see("x.enrolled"))
            told("enrol to prediction [ms]", enrolled)
            stop_kernel(page)


def timed(act):
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


def classifier(repeats=7):
    dice = np.random.default_rng(0)
    y, centres = np.repeat(np.arange(51), 50), dice.normal(size=(51, 168))
    x, groups = centres[y] + 1.5 * dice.normal(size=(len(y), 168)), np.arange(len(y)) // 10
    old, new = slice(0, 2500), slice(2500, 2505)
    for method in ("mean", "logistic"):
        more, again = [], []
        for _ in range(repeats):
            clf = FewShotClassifier(method, calibrate=False).fit(x[old], y[old], groups[old])
            more.append(timed(lambda: clf.partial_fit(x[new], y[new], groups[new]))); again.append(timed(clf.recalibrate))
        told(f"one more class, {method} [ms]", more); told(f"new temperature, {method} [ms]", again)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cpm126k"); parser.add_argument("--seconds", type=int, default=60); parser.add_argument("--scenes", type=int, default=5)
    given = parser.parse_args()
    live(given.model, given.seconds, given.scenes)
    classifier()
