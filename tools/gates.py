"""What must hold before any test: notebooks clean, library in step with them, README regenerated, no orphan module, chapters in shape.

Works on a copy of the tree, so that nothing is changed; prints `N passed, N failed` and exits non-zero on any failure.
"""
import ast
import filecmp
import re
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

import nbformat

import shape

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def different(a, b, pattern):
    "Names below two folders that match the pattern and differ or exist in one only."
    names = {p.relative_to(r) for r in (a, b) for p in r.glob(pattern)}
    return sorted(str(n) for n in names if not ((a / n).exists() and (b / n).exists() and filecmp.cmp(a / n, b / n, shallow=False)))


def run(copy, command): subprocess.run([BIN / command], cwd=copy, check=True, capture_output=True)


def notebooks_clean(copy):
    run(copy, "nbdev_clean")
    return [f"{n}: run nbdev_clean" for n in different(ROOT / "nbs", copy / "nbs", "*.ipynb")]


def cells_compile(copy):
    "nbdev writes a broken module without naming the notebook; name it here."
    wrong = []
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code" or cell.source.lstrip().startswith(("%", "!")): continue
            try: compile(cell.source, path.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            except SyntaxError as e: wrong.append(f"{path.name}, cell {cell.id}, line {e.lineno}: {e.msg}")
    return wrong


def library_in_step(copy):
    run(copy, "nbdev_export")
    return [f"contrastasc/{n} is not what the notebooks export: run nbdev_export" for n in different(ROOT / "contrastasc", copy / "contrastasc", "*.py")]


def readme_regenerated(copy):
    subprocess.run([sys.executable, copy / "tools" / "readme.py"], check=True)
    same = (ROOT / "README.md").exists() and filecmp.cmp(ROOT / "README.md", copy / "README.md", shallow=False)
    return [] if same else ["README.md is not what nbs/index.ipynb gives: run make readme"]


def no_orphan_module(copy):
    "Every module comes from exactly one notebook."
    exports = {}
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        for name in re.findall(r"^#\|\s*default_exp\s+(\S+)", text, re.M): exports.setdefault(name, []).append(path.name)
    wrong = [f"contrastasc/{n}.py has {len(v)} notebooks: {', '.join(v)}" for n, v in exports.items() if len(v) != 1]
    modules = {p.stem for p in (ROOT / "contrastasc").glob("*.py")} - {"__init__", "_modidx"}
    return wrong + [f"contrastasc/{m}.py belongs to no notebook: delete it" for m in sorted(modules - set(exports))]


def imports_go_up(copy):
    "A room imports only rooms before it in the order of the course."
    order, wrong = [], []
    for path in sorted((ROOT / "nbs").glob("*.ipynb"), key=lambda p: (not p.stem.startswith("A0"), p.stem.startswith("A"), p.stem)):
        for cell in nbformat.read(path, as_version=4).cells:
            order += re.findall(r"^#\|\s*default_exp\s+(\S+)", cell.source, re.M)
    for module in order:
        source = (ROOT / "contrastasc" / f"{module}.py").read_text(encoding="utf-8")
        for name in re.findall(r"^\s*from \.(\w+) import", source, re.M):
            if name in order and order.index(name) >= order.index(module): wrong.append(f"{module} imports {name}, which comes after it")
    return wrong


def chapters_are_lessons(copy):
    "Counts, theses, pictures and checks that every chapter has (tools/shape.py)."
    return [f"{path.stem}: {what}" for path in shape.chapters() for what in shape.measure(path)[1]]


def same_version(copy):
    ini = ConfigParser(delimiters=["="], interpolation=None); ini.read(ROOT / "settings.ini")
    written = re.search(r'__version__ = "(.+)"', (ROOT / "contrastasc" / "__init__.py").read_text())[1]
    return [] if written == ini["DEFAULT"]["version"] else [f"__init__.py says {written}, settings.ini {ini['DEFAULT']['version']}"]


GATES = [cells_compile, notebooks_clean, library_in_step, readme_regenerated, no_orphan_module, imports_go_up, chapters_are_lessons, same_version]


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", ".cache", "build", "__pycache__", "*.egg-info"))
        for gate in GATES:
            try: wrong = gate(copy)
            except subprocess.CalledProcessError as e: wrong = [f"{e.cmd[0]} failed: {(e.stderr or b'')[-500:]}"]
            failed += bool(wrong)
            print(f"  {gate.__name__.replace('_', ' '):24} {'ok' if not wrong else 'FAILED'}", *wrong, sep="\n      " if wrong else " ", flush=True)
    print(f"{len(GATES) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__": main()
