"""What a user gets from a wheel, from the command line, and from an import."""
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import contrastasc

ROOT = Path(__file__).resolve().parent.parent


def python(code, cwd, **env):
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    ignore = [".venv", ".git", ".cache", "build", "*.egg-info", "tests", "__pycache__"]
    import shutil
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*ignore))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, copy], check=True, timeout=300)
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", folder / "site", next(folder.glob("*.whl"))], check=True, timeout=300)
    return folder / "site"


def test_wheel_brings_data_and_every_module(wheel, tmp_path):
    code = """
import contrastasc, importlib, importlib.resources as r, pkgutil
names = [m.name for m in pkgutil.iter_modules(contrastasc.__path__)]
for n in names: importlib.import_module(f"contrastasc.{n}")
from contrastasc.augment import load_impulse_responses
assert load_impulse_responses().shape == (32, 1024)
print(contrastasc.__file__, sorted(names), r.files("contrastasc.data") / "impulse_responses.safetensors")
"""
    out = python(code, tmp_path, PYTHONPATH=str(wheel))
    assert out.count(str(wheel)) == 2
    for p in (ROOT / "contrastasc").glob("*.py"): assert (wheel / "contrastasc" / p.name).exists()
    for p in (ROOT / "contrastasc" / "static").glob("*"): assert (wheel / "contrastasc" / "static" / p.name).exists()
    for p in (ROOT / "data").rglob("*.*"):
        if "__pycache__" not in p.parts: assert (wheel / "contrastasc" / "data" / p.relative_to(ROOT / "data")).exists()


def test_import_is_light(tmp_path):
    assert python("import sys, contrastasc; print('torch' in sys.modules, 'pandas' in sys.modules)", tmp_path) == "False False"


def test_any_torchaudio_imports(tmp_path):
    "A torchaudio whose extension raises imports with it off; one that works is left alone."
    code = """
import contrastasc, sys, torchaudio, torch, torchaudio.functional as F
from contrastasc import _torchaudio
from torchaudio import _extension
print(_torchaudio.error is None, _extension._IS_TORCHAUDIO_EXT_AVAILABLE, tuple(F.resample(torch.ones(2, 441), 44100, 16000).shape))
"""
    fine, extension, shape = eval("(" + python(code, tmp_path).replace(" ", ",", 2) + ")")
    assert shape == (2, 160) and (fine or not extension)
    for error in ("OSError('no such library')", "RuntimeError('versions differ')", "ImportError('x')", "AttributeError('y')"):
        forced = f"""
import contrastasc, torch
from contrastasc import _torchaudio
def broken(self, spec):
    class L:
        def create_module(self, spec): return None
        def exec_module(self, module): raise {error}
    return L()
import importlib.machinery as m
real = m.PathFinder.find_spec
def find(name, path=None, target=None):
    spec = real(name, path, target)
    if name == "torchaudio._extension": spec.loader = broken(None, spec)
    return spec
_torchaudio.PathFinder = type("P", (), dict(find_spec=staticmethod(find)))
import torchaudio, torchaudio.functional as F
print(type(_torchaudio.error).__name__, tuple(F.resample(torch.ones(441), 44100, 16000).shape))
try: F.forced_align(torch.zeros(1, 2, 3), torch.ones(1, 1))
except RuntimeError as e: print("clear")
"""
        assert python(forced, tmp_path) == f"{error.split('(')[0]} (160,)\nclear"


def test_settings_name_every_requirement():
    ini = ConfigParser(delimiters=["="], interpolation=None)
    ini.read(ROOT / "settings.ini")
    cfg = ini["DEFAULT"]
    named = {r.split("=")[0].split("<")[0].split(">")[0] for r in cfg["requirements"].split()}
    asked = {"jupyterlab", "torch", "torchaudio", "ipywidgets", "matplotlib", "umap-learn", "scikit-learn", "nbdev", "librosa"}
    assert asked <= named and {"deploy_requirements", "app_requirements", "book_requirements", "dev_requirements"} <= set(cfg)
    assert not (ROOT / "pyproject.toml").exists()


def test_command_is_installed_and_says_one_sentence(tmp_path):
    command = Path(sys.executable).parent / "contrastasc"
    done = subprocess.run([command, "pack", "--data", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and str(tmp_path) in done.stderr and "Traceback" not in done.stderr


def test_nbdev_test_runs_a_notebook_too():
    done = subprocess.run([Path(sys.executable).with_name("nbdev_test"), "--path", ROOT / "nbs" / "A0_figures.ipynb", "--n_workers", "0"],
                          cwd=ROOT, env=os.environ | dict(MPLBACKEND="agg"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
