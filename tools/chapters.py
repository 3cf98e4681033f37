"""Run chapters in order, each in a real Jupyter kernel of its own, with progress and time.

    chapters.py [--scale class] [--results] [CHAPTER ...]     a chapter by its number or name; all of them by default
"""
import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def chapters(wanted=()):
    "The notebooks in the order of the course: the appendix that everything imports first, the rest by name, the index last."
    def key(p): return (p.stem == "index", not p.stem.startswith("A0"), p.stem.startswith("A"), p.stem)
    found = sorted(NBS.glob("*.ipynb"), key=key)
    return [p for p in found if not wanted or any(p.stem.startswith(w) for w in wanted)]


def run(path, scale):
    "Execute one notebook; returns seconds, or raises CellExecutionError."
    nb = nbformat.read(path, as_version=4)
    live = sys.stdout.isatty()
    code = [i for i, c in enumerate(nb.cells) if c.cell_type == "code"]

    def show(cell, cell_index, **_):
        if live: print(f"\r  {path.stem:16} cell {sum(i <= cell_index for i in code)}/{len(code)}", end="", flush=True)

    os.environ["CONTRASTASC_SCALE"] = scale
    began = time.time()
    NotebookClient(nb, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(NBS)}}, on_cell_start=show,
                   record_timing=False).execute()
    return time.time() - began


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--scale", default=os.environ.get("CONTRASTASC_SCALE", "class"))
    a.add_argument("--results", action="store_true", help="print the results table at the end")
    a.add_argument("--keep-going", action="store_true", help="run the rest after a failure")
    a.add_argument("chapter", nargs="*")
    a = a.parse_args()
    os.environ.setdefault("CONTRASTASC_HOME", str(ROOT / ".cache"))
    todo, done, failed, total = chapters(a.chapter), 0, [], 0.0
    if not todo: sys.exit(f"no chapter is called {' or '.join(a.chapter)}")
    for n, path in enumerate(todo, 1):
        if not sys.stdout.isatty(): print(f"  {path.stem:16} ", end="", flush=True)
        try: seconds = run(path, a.scale)
        except CellExecutionError as e:
            failed.append(path.stem)
            print(f"\r  {path.stem:16} FAILED\n{str(e)[-3000:]}", flush=True)
            if not a.keep_going: break
        else:
            done += 1; total += seconds
            print(f"\r  {path.stem:16} {seconds:6.1f} s   ({n} of {len(todo)}, {total / 60:.1f} min so far)", flush=True)
    if a.results and not failed:
        from contrastasc.synth import home
        table = home() / "results" / f"course-{a.scale}.md"
        print(table.read_text() if table.exists() else "(no chapter wrote a table of results)")
        print("\nOpen the course:  make lab")
    else: print(f"{done} passed, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__": main()
