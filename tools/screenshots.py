"""The pictures of widgets in images/, taken in JupyterLab in headless Chromium, light and dark.

    screenshots.py [--scale class]
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.lab import browser, jupyter, kernel, open_lab, run_all, window, write_notebook

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
X = "document.querySelector('.cx').explorer"


def explorer(page):
    "Open the bus that the student finds least like a bus, and who is confused with whom below."
    page.wait_for_selector(".cx-view", timeout=600000)
    page.wait_for_function(f"{X}.model.get('quality').length && {X}.views.at(-1).k && !Object.keys({X}.model.get('busy')).length", timeout=600000)
    page.locator(".cx").scroll_into_view_if_needed()
    page.evaluate(f"(i) => {{ {X}.last = 2; {X}.open(i, false); }}", kernel(page, "print(worst())"))
    page.get_by_role("tab", name="Errors").click()
    page.wait_for_function(f"{X}.near?.children.length > 1")
    page.mouse.move(2, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="class")
    os.environ["CONTRASTASC_SCALE"] = parser.parse_args().scale
    with tempfile.TemporaryDirectory() as folder, jupyter(Path(folder)) as address, browser() as chromium:
        write_notebook(Path(folder) / "explorer.ipynb", EXPLORER, "explorer")
        page = window(chromium, 1400, 1250)
        open_lab(page, address, "explorer.ipynb"); run_all(page)
        explorer(page)
        for theme, night in (("light", "false"), ("dark", "true")):
            page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", f"JupyterLab {theme.title()}")
            page.wait_for_function(f"{X}.night === {night}"); time.sleep(1)
            page.locator(".cx").screenshot(path=ROOT / "images" / f"explorer-{theme}.png")
            print(f"images/explorer-{theme}.png", flush=True)
        if page.strangers or page.faults: sys.exit(f"asked for {page.strangers}, failed with {page.faults}")


if __name__ == "__main__": main()
