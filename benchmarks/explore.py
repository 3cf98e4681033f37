"""The explorer in a real browser: frames a second while the maps move, lasso to Python, click to sound.

    python benchmarks/explore.py [--points 1000 10000 20000] [--views 4]

Points are random clusters on PCA maps, so that only drawing and talking are measured, and the kernel is idle. Frames: intervals of
requestAnimationFrame while all views are dragged and zoomed for three seconds. Lasso: mouse released to Python's `on_select`, and to
the page knowing that Python has it, medians of nine. An empty question is for comparison: the way there and back takes 10 or 50 ms by
turns, because the Jupyter server lets small packets wait for the browser's acknowledgement. Click: pointer up to the sound having
been started, clips not heard before, median of nine.
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
import json, time
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
heard = []
explorer.on_select(lambda clips: heard.append(1000 * time.time()))
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
  x.choose(v.inside([[0, 0], [v.w * r, 0], [v.w * r, v.h], [0, v.h]])).then(() => done([performance.timeOrigin + begin, performance.now() - begin])); })"""
EMPTY = """() => new Promise((done) => {
  const begin = performance.now();
  document.querySelector('.cx').explorer.ask('filter', { query: '' }).then(() => done(performance.now() - begin)); })"""
CLICK = """(i) => new Promise((done) => {
  const x = document.querySelector('.cx').explorer, begin = performance.now(), before = x.source;
  x.open(i, true);
  const wait = () => x.source !== before ? done(performance.now() - begin) : setTimeout(wait, 1);
  wait(); })"""


def measure(chromium, address, folder, points, views):
    "Frames a second; milliseconds to draw one, of a lasso to Python and back, of an empty question, of a click."
    name = f"{points}.ipynb"
    write_notebook(folder / name, MADE.format(points=points, views=views), "explorer")
    page = window(chromium, 1500, 1400)
    open_lab(page, address, name); run_all(page)
    page.wait_for_selector(".cx-view", timeout=1800000)
    page.wait_for_function("document.querySelector('.cx').explorer.model.get('quality').length", timeout=1800000)
    page.locator(".cx").scroll_into_view_if_needed(); time.sleep(2)
    fps, draw = page.evaluate(FRAMES)
    begun, back = zip(*[page.evaluate(LASSO, 0.3 + 0.05 * k) for k in range(9)])
    there = [b - a for a, b in zip(begun, kernel(page, "print(json.dumps(heard))"))]
    empty = [page.evaluate(EMPTY) for _ in range(9)]
    page.evaluate(CLICK, 0)
    clicks = [page.evaluate(CLICK, 1 + k) for k in range(9)]
    kernel(page, "explorer.close()")
    page.context.close()
    return fps, draw, *map(median, (there, back, empty, clicks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[1000, 10000, 20000]); parser.add_argument("--views", type=int, default=4)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, jupyter(Path(folder)) as address, browser() as chromium:
        print(f"{a.views} views, times in ms\npoints  frames/s  draw  lasso to Python  and back  empty question  click to sound")
        for points in a.points:
            print("{:6d}  {:8.1f}  {:4.1f}  {:15.1f}  {:8.1f}  {:14.1f}  {:14.1f}".format(points, *measure(chromium, address, Path(folder), points, a.views)), flush=True)
