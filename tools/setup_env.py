"""Make .venv with pinned dependencies and the project in it (editable). Run by `make`; needs nothing but Python 3.11 or newer.

On a machine without an NVIDIA GPU torch comes as a CPU build where one can be had: from whatever pip is configured to look
at, else from TORCH_INDEX (an index of wheels; default below), else the registry's own build is taken. With a GPU the
registry's build is taken. TORCH_INDEX set by hand is always asked first.
"""
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CONSTRAINTS = ROOT / "tools" / "constraints.txt"


def pip(*args, quiet=False):
    "Run pip in the environment; True if it succeeded."
    out = subprocess.DEVNULL if quiet else None
    return subprocess.run([PYTHON, "-m", "pip", "--disable-pip-version-check", *args], stdout=out, stderr=out).returncode == 0


def has_nvidia_gpu():
    return shutil.which("nvidia-smi") is not None and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0


def installed_torch():
    code = "import importlib.metadata as m; print(m.version('torch'))"
    return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True).stdout.strip()


def torch_sources(version):
    "Ways to get torch, best first, each as arguments for pip."
    index = os.environ.get("TORCH_INDEX")
    if index: yield "from TORCH_INDEX", [f"torch=={version}", "--extra-index-url", index]
    if not has_nvidia_gpu() and platform.system() != "Darwin":
        yield "a CPU build pip already knows of", [f"torch=={version}+cpu"]
        if not index: yield "a CPU build", [f"torch=={version}+cpu", "--extra-index-url", CPU_INDEX, "--retries", "1", "--timeout", "20"]
    yield "the registry's build", [f"torch=={version}"]


def main():
    if sys.version_info < (3, 11): sys.exit(f"ContrastASC needs Python 3.11 or newer; this is {platform.python_version()}. Use `make PYTHON=python3.12 ...`.")
    if not PYTHON.exists():
        print("making .venv", flush=True)
        venv.create(VENV, with_pip=True)
    version = next(l.split("==")[1].strip() for l in CONSTRAINTS.read_text().splitlines() if l.startswith("torch=="))
    if not installed_torch().startswith(version):
        for what, args in torch_sources(version):
            print(f"installing torch {version}: {what}", flush=True)
            if pip("install", "-q", *args, quiet=what != "the registry's build"): break
        else: sys.exit("torch could not be installed; set TORCH_INDEX to an index that has it, for instance " + CPU_INDEX)
    print("installing the rest (a minute or two)", flush=True)
    if not pip("install", "-q", "-c", str(CONSTRAINTS), "-e", f"{ROOT}[dev,deploy]"): sys.exit("the installation failed; what pip said stands above")
    (VENV / ".installed").write_text(installed_torch())
    print(f"ready: torch {installed_torch()} in .venv", flush=True)


if __name__ == "__main__": main()
