"""Run chapters in order, each in a real Jupyter kernel of its own, with progress and time.

    chapters.py [--scale class] [--jobs 1] [--results] [CHAPTER ...]     a chapter by its number or name; all of them by default
"""
import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def chapters(wanted=()):
    "The notebooks in the order of the course: the appendix that everything imports first, the rest by name, the index last."
    def key(p): return (p.stem == "index", not p.stem.startswith("A0"), p.stem.startswith("A"), p.stem)
    found = sorted(NBS.glob("*.ipynb"), key=key)
    return [p for p in found if not wanted or any(p.stem.startswith(w) for w in wanted)]


def run(path, live):
    "Execute one notebook; returns seconds and its error or None."
    nb = nbformat.read(path, as_version=4)
    code = [i for i, c in enumerate(nb.cells) if c.cell_type == "code"]

    def show(cell, cell_index, **_):
        if live: print(f"\r  {path.stem:16} cell {sum(i <= cell_index for i in code)}/{len(code)}", end="", flush=True)

    began = time.time()
    client = NotebookClient(nb, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(NBS)}}, on_cell_start=show, record_timing=False, extra_arguments=["--IPKernelApp.log_level=40"])
    try: client.execute()
    except (CellExecutionError, DeadKernelError) as e: return time.time() - began, e
    return time.time() - began, None


def run_all(todo, jobs=1, keep_going=False):
    "Execute notebooks, some at a time, and say how each went; returns (passed, failed)."
    done, failed, began = 0, 0, time.time()
    live = sys.stdout.isatty() and jobs == 1
    with ThreadPoolExecutor(jobs) as pool:
        many = pool.map if jobs > 1 else map  # one at a time stays in the main thread, where Ctrl-C stops the kernel at once
        for n, (path, (seconds, error)) in enumerate(zip(todo, many(lambda p: run(p, live), todo)), 1):
            if error is None:
                done += 1
                print(f"\r  {path.stem:16} {seconds:6.1f} s   ({n} of {len(todo)}, {(time.time() - began) / 60:.1f} min so far)", flush=True)
                continue
            failed += 1
            print(f"\r  {path.stem:16} FAILED\n{str(error)[-4000:]}", flush=True)
            if not keep_going:
                pool.shutdown(cancel_futures=True)
                break
    return done, failed


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--scale", default=os.environ.get("CONTRASTASC_SCALE", "class"))
    a.add_argument("--jobs", type=int, default=1, help="chapters at a time")
    a.add_argument("--results", action="store_true", help="print the results table at the end")
    a.add_argument("--keep-going", action="store_true", help="run the rest after a failure")
    a.add_argument("chapter", nargs="*")
    a = a.parse_args()
    os.environ.setdefault("CONTRASTASC_HOME", str(ROOT / ".cache"))
    os.environ["CONTRASTASC_SCALE"] = a.scale
    todo = chapters(a.chapter)
    if not todo: sys.exit(f"no chapter is called {' or '.join(a.chapter)}")
    done, failed = run_all(todo, a.jobs, a.keep_going)
    if a.results and not failed:
        from contrastasc.synth import home
        table = home() / "results" / f"course-{a.scale}.md"
        print(table.read_text() if table.exists() else "(no chapter wrote a table of results)")
        print("\nOpen the course:  make lab")
    else: print(f"{done} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__": main()
