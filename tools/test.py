"""All tests: pytest on tests/, and the checks of every notebook. Ends with `N passed, N failed`."""
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
THREADS = dict(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")  # two workers share the cores


def pytest():
    "Run tests/; returns (passed, failed)."
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--durations", "8", "--junitxml", report, "tests"]
        code = subprocess.run(command, cwd=ROOT, env=os.environ | THREADS).returncode
        counts = dict(re.findall(r'(tests|failures|errors|skipped)="(\d+)"', report.read_text()[:2000])) if report.exists() else {}
    failed = int(counts.get("failures", 0)) + int(counts.get("errors", 0))
    passed = int(counts.get("tests", 0)) - failed - int(counts.get("skipped", 0))
    return passed, max(failed, 1 if code or not passed else 0)


def notebook(path):
    env = os.environ | THREADS | dict(MPLBACKEND="agg")
    began = time.time()
    done = subprocess.run([BIN / "nbdev_test", "--path", path, "--n_workers", "0"], cwd=ROOT, env=env, capture_output=True, text=True)
    return path, done, time.time() - began


def notebooks():
    "The checks of every notebook, two at a time; returns (passed, failed)."
    failed, paths = 0, sorted((ROOT / "nbs").glob("*.ipynb"))
    with ThreadPoolExecutor(2) as pool:
        for path, done, seconds in pool.map(notebook, paths):
            failed += done.returncode != 0
            print(f"  {path.stem:16} {seconds:6.1f} s {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
            if done.returncode: print((done.stdout + done.stderr)[-4000:], flush=True)
    return len(paths) - failed, failed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="contrastasc-") as home:
        os.environ.update(CONTRASTASC_SCALE="tiny", CONTRASTASC_HOME=home)
        results = [pytest(), notebooks()]
    passed, failed = (sum(x) for x in zip(*results))
    print(f"{passed} passed, {failed} failed")
    sys.exit(bool(failed))
