"""What an attempt to make a run left behind: the notebook that papermill writes as it goes.

Read where a run is watched, and where one failed, was killed or found the disk full.
"""

from __future__ import annotations

import json
from pathlib import Path

from studylib import errors

NOTEBOOK, LOG, REASON = "notebook.ipynb", "kernel.log", "reason.txt"
_WIDTH = 60  # of a cell's first line in a message


def progress(notebook: Path) -> tuple[int, int] | None:
    """Return how many code cells of an executed notebook are done, and of how many.

    None where it cannot be read, as while papermill is writing it.
    """
    if cells := _code_cells(notebook):
        return sum(_note(cell).get("status") == "completed" for cell in cells), len(cells)
    return None


def stopped_at(notebook: Path) -> tuple[int, str]:
    """Return the number of the code cell that ran last, and its first line of code; 0 if none."""
    cells = enumerate(_code_cells(notebook), start=1)
    started = [(n, "".join(cell["source"])) for n, cell in cells if _note(cell).get("start_time")]
    number, source = max(started, default=(0, ""))
    return number, first_line(source)


def first_line(source: str) -> str:
    """Return the first line of a cell that says anything, shortened: comments are left out."""
    lines = (line.strip() for line in source.splitlines())
    line = next((line for line in lines if line and not line.startswith("#")), "")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."


def cut_off(partial: Path, root: Path) -> str:
    """Say where an attempt ended that nobody finished; empty if none was cut off.

    Parameters
    ----------
    partial : pathlib.Path
        The hidden folder of a run's attempts.
    root : pathlib.Path
        The project's folder, from which paths are shown.
    """
    for folder in partial.glob("*/"):
        cell, line = stopped_at(folder / NOTEBOOK)
        left, log = (path.relative_to(root) for path in (folder / NOTEBOOK, folder / LOG))
        return errors.CUT_OFF.format(cell=cell, line=line, partial=left, log=log)
    return ""


def _code_cells(notebook: Path) -> list[dict]:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return []
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _note(cell: dict) -> dict:
    """Return papermill's notes on a cell: status, start and end."""
    return cell["metadata"].get("papermill", {})
