"""All tests: pytest on tests/, and the checks of every notebook. Ends with `N passed, N failed`."""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import chapters
import warm

ROOT = Path(__file__).resolve().parent.parent
THREADS = dict(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")  # workers share the cores


def pytest():
    "Run tests/; returns (passed, failed)."
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "--durations", "8", "--junitxml", report, "tests"]
        code = subprocess.run(command, cwd=ROOT).returncode
        counts = dict(re.findall(r'(tests|failures|errors|skipped)="(\d+)"', report.read_text()[:2000])) if report.exists() else {}
    failed = int(counts.get("failures", 0)) + int(counts.get("errors", 0))
    passed = int(counts.get("tests", 0)) - failed - int(counts.get("skipped", 0))
    return passed, max(failed, 1 if code or not passed else 0)


def notebooks():
    "Every notebook with the checks inside it, each in a real Jupyter kernel; returns (passed, failed)."
    return chapters.run_all(chapters.chapters(), jobs=3, keep_going=True)  # neighbours may wait for the same training


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="contrastasc-") as home:
        os.environ.update(THREADS, CONTRASTASC_SCALE="tiny", CONTRASTASC_HOME=home, CONTRASTASC_TEST_HOME=home)
        with warm.kernels() as environment:
            os.environ.update(environment)
            results = [pytest(), notebooks()]
    passed, failed = (sum(x) for x in zip(*results))
    print(f"{passed} passed, {failed} failed")
    sys.exit(bool(failed))
