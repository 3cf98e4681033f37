"""The pictures of widgets and of the exported page in images/, taken in headless Chromium (widgets in JupyterLab), light and dark.

    screenshots.py [--scale class] [--only enroll]
"""
import argparse
import os
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.lab import browser, jupyter, kernel, microphone, open_lab, run_all, window, write_notebook

EXPLORER = """
from contrastasc.explore import EmbeddingExplorer
from contrastasc.pretrained import load_pretrained
from contrastasc.scenes import load_scenes
from contrastasc.train import extract_embeddings
scenes = load_scenes("synth-tau22", split="test")
encoders = {"pre-trained, nano-ssl": "nano-ssl", "teacher, nano": "nano", "student, cpm126k": "cpm126k"}
explorer = EmbeddingExplorer({t: extract_embeddings(load_pretrained(n), scenes) for t, n in encoders.items()}, scenes)
explorer.worker.join()
def worst(): return int(explorer.table["margin, student, cpm126k"].where(scenes.frame.scene == "bus").idxmin())
"""
ENROLLER = """
import numpy as np, soundfile as sf, torch
from contrastasc.audio import resample
from contrastasc.enroll import LiveEnroller
from contrastasc.pretrained import load_pretrained
from contrastasc.scenes import load_scenes
scenes = load_scenes("synth-tut17", split="train")
enroller = LiveEnroller(load_pretrained("cpm126k"), "enrolled.sqlite", scenes=scenes)
def some(scene, n): return np.flatnonzero(scenes.frame.scene == scene)[n]
for name in ("beach", "office", "tram"):
    for n in (0, 2): enroller.enrol(some(name, n), name)
walk = torch.cat([scenes.waveform(int(some(name, 1)))[:80000] for name in ("beach", "office", "tram", "beach", "grocery_store")])
sf.write("walk.wav", resample(walk, 16000, 48000).numpy(), 48000, subtype="PCM_16")
"""
X = "document.querySelector('.cx').explorer"
E = "document.querySelector('.ce').enroller"


def explorer(page):
    "Open the bus that the student finds least like a bus, and who is confused with whom below."
    page.wait_for_selector(".cx-view", timeout=600000)
    page.wait_for_function(f"{X}.model.get('quality').length && {X}.views.at(-1).k && !Object.keys({X}.model.get('busy')).length", timeout=600000)
    page.locator(".cx").scroll_into_view_if_needed()
    page.evaluate(f"(i) => {{ {X}.last = 2; {X}.open(i, false); }}", kernel(page, "print(worst())"))
    page.get_by_role("tab", name="Errors").click()
    page.wait_for_function(f"{X}.near?.children.length > 1")
    page.mouse.move(2, 2)


def enroller(page):
    "Half a minute of a walk through three enrolled scenes and one that is not, and a new one in hand."
    page.wait_for_function(f"document.querySelector('.ce')?.enroller.clips?.length === 6", timeout=600000)
    page.locator(".ce").scroll_into_view_if_needed()
    page.get_by_role("button", name="Listen").first.click()
    page.wait_for_function(f"{E}.heardTo > 24.5", timeout=60000)
    page.get_by_label("seconds to record").select_option("3"); page.get_by_role("button", name="Keep the last seconds").click()
    page.wait_for_function(f"{E}.taken"); page.get_by_label("name of the scene").fill("grocery store")
    page.mouse.move(2, 2)


def both(page, selector, dark, name):
    "A widget in Jupyter's light and dark theme."
    for theme in ("light", "dark"):
        page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", f"JupyterLab {theme.title()}")
        page.wait_for_function(dark if theme == "dark" else f"!({dark})"); time.sleep(1)
        page.locator(selector).screenshot(path=ROOT / "images" / f"{name}-{theme}.png")
        print(f"images/{name}-{theme}.png", flush=True)
    if page.strangers or page.faults: sys.exit(f"asked for {page.strangers}, failed with {page.faults}")


def exported(folder):
    "The page of three enrolled scenes, hearing a walk through them and into one that is not."
    made, see = {}, "document.querySelector('.cx').page"
    with chdir(folder): exec(ENROLLER, made)
    from contrastasc.deploy import export_page
    file = export_page(made["enroller"].recogniser.encoder, folder / "page.html", made["enroller"])
    for theme in ("light", "dark"):
        with browser(*microphone(folder / "walk.wav")) as chromium:
            page = window(chromium, 860, 740, color_scheme=theme)
            page.goto(f"file://{file}")
            page.get_by_role("button", name="Listen").click()
            while page.evaluate(f"() => {see}.heard.length") < 19: time.sleep(0.1)
            page.screenshot(path=ROOT / "images" / f"page-{theme}.png", full_page=True)
            print(f"images/page-{theme}.png", flush=True)
            if page.strangers or page.faults: sys.exit(f"asked for {page.strangers}, failed with {page.faults}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="class"); parser.add_argument("--only", choices=("explorer", "enroll", "page"))
    given = parser.parse_args()
    os.environ["CONTRASTASC_SCALE"] = given.scale
    if given.only in (None, "page"):
        with tempfile.TemporaryDirectory() as folder: exported(Path(folder))
    if given.only == "page": return
    with tempfile.TemporaryDirectory() as folder, jupyter(Path(folder)) as address:
        for name, code, act, selector, dark in (("explorer", EXPLORER, explorer, ".cx", f"{X}.night === true"), ("enroll", ENROLLER, enroller, ".ce", f"getComputedStyle({E}.root).color.match(/\\d+/)[0] > 128")):
            if given.only not in (None, name): continue
            write_notebook(Path(folder) / f"{name}.ipynb", code, act.__name__)
            with browser(*microphone(Path(folder) / "walk.wav")) as chromium:
                page = window(chromium, 1400, 1250)
                open_lab(page, address, f"{name}.ipynb"); run_all(page)
                act(page)
                both(page, selector, dark, name)


if __name__ == "__main__": main()
