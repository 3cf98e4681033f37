"""README.md from nbs/index.ipynb, without Quarto: prose and code as they stand, no hidden cells, no directives, no outputs."""
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


def render(notebook):
    parts = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if re.search(r"^#\|\s*hide", cell.source, re.M): continue
        text = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
        if text: parts.append(text if cell.cell_type == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts).replace("](../", "](") .replace('src="../', 'src="').replace('srcset="../', 'srcset="') + "\n"


if __name__ == "__main__": (ROOT / "README.md").write_text(render(ROOT / "nbs" / "index.ipynb"), encoding="utf-8")
