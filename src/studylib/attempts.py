"""What an attempt to make a run left behind: the notebook that papermill writes as it goes.

Read where a run is watched, and where one failed, was killed or found the disk full.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from studylib import errors

NOTEBOOK, LOG, REASON = "notebook.ipynb", "kernel.log", "reason.txt"
_CLUSTER_LOGS = "logs/slurm"  # below runs/, as profiles/slurm/config.yaml says
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


def where(notebook: Path) -> str:
    """Say where an attempt stopped, as a part of a sentence."""
    cell, line = stopped_at(notebook)
    return f"at cell In [{cell}], {line!r}" if cell else "before its first cell"


def first_line(source: str) -> str:
    """Return the first line of a cell that says anything, shortened: comments are left out."""
    lines = (line.strip() for line in source.splitlines())
    line = next((line for line in lines if line and not line.startswith("#")), "")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."


def new_name() -> str:
    """Return a name that no other attempt has; in a job of SLURM it ends in the job's number."""
    number = os.environ.get("SLURM_JOB_ID", "")
    return "-".join([uuid.uuid4().hex[:8], *([number] if number.isdigit() else [])])


def names(partial: Path) -> frozenset[str]:
    """Return the names of a run's attempts that are under way or were cut off."""
    return frozenset(folder.name for folder in partial.glob("*/"))


def cut_off(partial: Path, root: Path, known: frozenset[str] = frozenset()) -> str:
    """Say where an attempt ended that nobody finished; empty if none was cut off.

    Parameters
    ----------
    partial : pathlib.Path
        The hidden folder of a run's attempts.
    root : pathlib.Path
        The project's folder, from which paths are shown.
    known : frozenset of str
        Attempts that are left out, as those that were cut off before.
    """
    for name in sorted(names(partial) - known):
        notebook, log = partial / name / NOTEBOOK, partial / name / LOG
        left, number = "", name.partition("-")[2]
        if notebook.exists() and log.exists():
            paths = {"partial": notebook.relative_to(root), "log": log.relative_to(root)}
            left += errors.CUT_OFF_LEFT.format(**paths)
        logs = (partial.parents[1] / _CLUSTER_LOGS).rglob(f"{number}.log") if number else ()
        for log in logs:  # none where somebody works by hand in a job of the cluster
            left += errors.CUT_OFF_CLUSTER.format(log=log.relative_to(root))
        return errors.CUT_OFF.format(where=where(notebook), left=left)
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
