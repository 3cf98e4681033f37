"""Is every chapter a lesson? Counts what can be counted and names what is missing.

    shape.py [CHAPTER ...]      a table; exits non-zero where a chapter is out of shape
"""
import ast
import re
import sys
from pathlib import Path

import nbformat
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PICTURE = re.compile(r"plt\.show|\blisten\(|\bdraw_\w+\(|\bplot_\w+\(|\.plot\(|imshow\(|Audio\(")
CHECK = re.compile(r"^\s*assert\b|:\s*assert\b|\braises\(|\btest_\w+\(|\bexpect_error\(", re.M)
MAP = ("Built so far", "Build now", "This enables", "Time")


def lines(cell): return len([l for l in cell.source.splitlines() if l.strip() and not l.startswith("#|")])


def exported(code):
    "Public names in `__all__` of the module that these code cells export."
    module = re.search(r"^#\|\s*default_exp\s+(\S+)", "\n".join(c.source for c in code), re.M)
    if not module: return []
    tree = ast.parse((ROOT / "contrastasc" / f"{module[1]}.py").read_text(encoding="utf-8"))
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    return ast.literal_eval(lists[0]) if lists else []


def sections(cells):
    "Cells by second-level heading: [(title, cells)]."
    found = []
    for cell in cells:
        heading = cell.cell_type == "markdown" and re.search(r"^## (.+)$", cell.source, re.M)
        if heading: found.append((heading[1], []))
        if found: found[-1][1].append(cell)
    return found


def without_thesis(cells):
    "Headings that no line beginning with > follows."
    missing = []
    for n, cell in enumerate(cells):
        if cell.cell_type != "markdown": continue
        text = cell.source.splitlines()
        for at, line in enumerate(text):
            if not re.match(r"#{1,3} ", line): continue
            rest = [l for l in text[at + 1:] if l.strip()] or (cells[n + 1].source.splitlines() if n + 1 < len(cells) and cells[n + 1].cell_type == "markdown" else [])
            if not rest or not rest[0].startswith("> "): missing.append(line.lstrip("# "))
    return missing


def measure(path):
    "Numbers of one chapter, and what is wrong with it."
    cells = nbformat.read(path, as_version=4).cells
    code = [c for c in cells if c.cell_type == "code"]
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    sizes = [lines(c) for c in code]
    checks = "\n".join(c.source for c in code if CHECK.search(c.source))
    n = dict(code=len(code), words=len(prose.split()), median=float(np.median(sizes)), p90=float(np.percentile(sizes, 90)), longest=max(sizes),
             checks=sum(bool(CHECK.search(c.source)) for c in code), pictures=sum(bool(PICTURE.search(c.source)) for c in code))
    wrong = []
    if not 25 <= n["code"] <= 60: wrong.append(f"{n['code']} code cells, not 25 to 60")
    if not 800 <= n["words"] <= 2000: wrong.append(f"{n['words']} words, not 800 to 2000")
    if n["median"] > 5: wrong.append(f"median code cell of {n['median']:.0f} lines, more than 5")
    if n["p90"] > 18: wrong.append(f"a tenth of the code cells are over {n['p90']:.0f} lines, more than 18")
    if not any(c.cell_type == "code" and PICTURE.search(c.source) for c in cells[:3]): wrong.append("nothing to hear or see in the first three cells")
    wrong += [f"no thesis under '{h}'" for h in without_thesis(cells)]
    wrong += [f"the map lacks '{m}'" for m in MAP if f"**{m}" not in prose]
    titles = sections(cells)
    if not titles or not titles[-1][0].startswith("Summary"): wrong.append("does not end with '## Summary'")
    wrong += [f"no picture or sound in '{t}'" for t, cs in titles[:-1] if not any(c.cell_type == "code" and PICTURE.search(c.source) for c in cs)]
    wrong += [f"no check of {name}" for name in exported(code) if not re.search(rf"\b{name}\b", checks)]
    return n, wrong


def chapters(wanted=()): return [p for p in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")) if not wanted or any(p.stem.startswith(w) for w in wanted)]


def main():
    bad = 0
    for path in chapters(sys.argv[1:]):
        n, wrong = measure(path)
        bad += bool(wrong)
        print(f"{path.stem:14} " + "  ".join(f"{k} {v:g}" for k, v in n.items()), *wrong, sep="\n    ")
    sys.exit(bool(bad))


if __name__ == "__main__": main()
