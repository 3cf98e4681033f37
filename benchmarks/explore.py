"""The explorer in a real browser: frames a second while the maps move, lasso to Python, click to sound.

    python benchmarks/explore.py [--points 1000 10000 20000] [--views 4]

Points are random clusters on PCA maps, so that only drawing and talking are measured. Frames: intervals of requestAnimationFrame
while all views are dragged and zoomed for three seconds. Lasso: mouse released to the selection having reached Python and the answer
the page, median of nine; of these, up to 50 ms are the way there and back, which a question with nothing to answer takes too. Click: pointer up to the sound having been started, clips not heard before, median of nine.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.lab import browser, jupyter, kernel, open_lab, run_all, window, write_notebook

MADE = """
import numpy as np
from contrastasc.explore import EmbeddingExplorer
from contrastasc.scenes import SceneSet
dice, n = np.random.default_rng(0), {points}
labels = np.arange(n) % 10
sound = (0.1 * dice.normal(size=16000)).astype(np.float32)
scenes = SceneSet.from_arrays(np.broadcast_to(sound, (n, 16000)), [f"scene {{c}}" for c in labels])
x = (3 * np.eye(10)[labels] + dice.normal(size=(n, 10))).astype(np.float32)
explorer = EmbeddingExplorer({{f"space {{s}}": x[:, np.roll(np.arange(10), s)] for s in range({views})}}, scenes, method="pca", limit=n)
explorer.worker.join()
"""
FRAMES = """() => new Promise((done) => {
  const x = document.querySelector('.cx').explorer, begin = performance.now(); let frames = 0;
  const step = (now) => {
    frames++;
    x.views.forEach((v) => { v.cx = 0.5 + 0.1 * Math.sin(now / 200); v.zoom = 1.5 + 0.4 * Math.cos(now / 300); });
    x.redraw();
    now - begin < 3000 ? requestAnimationFrame(step) : done([1000 * frames / (now - begin), x.times.slice(-60).sort((a, b) => a - b)[30]]);
  };
  requestAnimationFrame(step); })"""
LASSO = """(r) => new Promise((done) => {
  const x = document.querySelector('.cx').explorer, v = x.views[0], begin = performance.now();
  x.choose(v.inside([[0, 0], [v.w * r, 0], [v.w * r, v.h], [0, v.h]])).then(() => done([performance.now() - begin, x.chosen.size])); })"""
CLICK = """(i) => new Promise((done) => {
  const x = document.querySelector('.cx').explorer, begin = performance.now(), before = x.source;
  x.open(i, true);
  const wait = () => x.source !== before ? done(performance.now() - begin) : setTimeout(wait, 1);
  wait(); })"""


def measure(chromium, address, folder, points, views):
    "Frames a second, milliseconds to draw one, lasso and click in milliseconds."
    name = f"{points}.ipynb"
    write_notebook(folder / name, MADE.format(points=points, views=views), "explorer")
    page = window(chromium, 1500, 1400)
    open_lab(page, address, name); run_all(page)
    page.wait_for_selector(".cx-view", timeout=1800000)
    page.wait_for_function("document.querySelector('.cx').explorer.model.get('quality').length", timeout=1800000)
    page.locator(".cx").scroll_into_view_if_needed(); time.sleep(2)
    fps, draw = page.evaluate(FRAMES)
    lassos = [page.evaluate(LASSO, 0.3 + 0.05 * k)[0] for k in range(9)]
    page.evaluate(CLICK, 0)
    clicks = [page.evaluate(CLICK, 1 + k) for k in range(9)]
    kernel(page, "explorer.close()")
    page.context.close()
    return fps, draw, median(lassos), median(clicks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[1000, 10000, 20000]); parser.add_argument("--views", type=int, default=4)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, jupyter(Path(folder)) as address, browser() as chromium:
        print(f"{a.views} views\npoints  frames/s  draw [ms]  lasso [ms]  click to sound [ms]")
        for points in a.points: print("{:6d}  {:8.1f}  {:9.1f}  {:10.1f}  {:19.1f}".format(points, *measure(chromium, address, Path(folder), points, a.views)), flush=True)
