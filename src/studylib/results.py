"""Results that the study carries: the tables of a run that not every reader can repeat.

A run on data that nobody may pass on, or on a machine that few have, is kept as a folder of small
tables (CSV, aggregated: no row is about fewer people than the run's parameter `fewest`) and the
run's record, without names of places on the machine where it ran. Its notebook shows them beside
what the reader's own machine computes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from studylib import errors
from studylib.runs import Finished, Record, project_root

RECORD = "record.json"
# Parameters that name a folder on somebody's machine are called or end so.
FOLDERS = ("cache", "checkpoints", "_root", "_dir")
_LEFT_OUT = ("platform",)


class Stored(NamedTuple):
    """A result that was kept: its tables by name, and the record of the run that made them."""

    tables: dict[str, pd.DataFrame]
    record: Record


def store(run: Finished, folder: Path | str, tables: list[str] | None = None) -> Path:
    """Keep some side tables of a finished run.

    Where a table counts the people behind each row (a column `people`), rows about fewer people
    than the run's parameter `fewest` are left out. Of the parameters, folders are left out, and a
    file keeps its own name alone.

    Parameters
    ----------
    run : runs.Finished
        From `runs.read`.
    folder : path
        Where to; made if it is not there. Tables of an earlier result in it are removed.
    tables : list of str, optional
        Names of side tables; all of them if not given. The outcomes, one row a picture, are not for
        keeping (ParameterError).

    Returns
    -------
    pathlib.Path
        The folder.
    """
    if tables is None:
        tables = sorted({path.stem for path in run.folder.glob("*.parquet")} - {"outcomes"})
    if "outcomes" in tables or not tables:
        raise errors.ParameterError(errors.ONLY_AGGREGATED)
    fewest = run.parameters.get("fewest", 1)
    found = {name: _without_few(run.table(name), fewest) for name in tables}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.csv"):
        old.unlink()
    hashes = {}
    for name, table in found.items():
        text = table.to_csv(index=False, lineterminator="\n")
        (folder / f"{name}.csv").write_text(text, encoding="utf-8", newline="\n")
        hashes[name] = _digest(text)
    kept = {key: value for key, value in run.record.items() if key not in _LEFT_OUT}
    kept["parameters"] = {
        name: None if name.endswith(FOLDERS) else _without_folders(value)
        for name, value in run.parameters.items()
    }
    text = json.dumps(kept | {"tables": hashes}, indent=1, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8", newline="\n")
    return folder


def _without_folders(value):
    """Every text in a parameter's value without the folders of a path, of Windows' too."""
    if isinstance(value, dict):
        return {name: _without_folders(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return value.replace("\\", "/").rpartition("/")[2] if isinstance(value, str) else value


def _without_few(table: pd.DataFrame, fewest: int) -> pd.DataFrame:
    return table[table["people"] >= fewest] if "people" in table else table


def read(folder: Path | str) -> Stored:
    """Read a kept result.

    Parameters
    ----------
    folder : path
        From `store`; a relative one counts from the project's root.

    Raises
    ------
    DataError
        If there is no record, a table is missing, or one was changed since.
    """
    folder = (project_root(Path.cwd()) or Path.cwd()) / folder
    try:
        record = Record(json.loads((folder / RECORD).read_text(encoding="utf-8")))
        hashes = dict(record["tables"])
    except FileNotFoundError:
        raise errors.DataError(errors.NO_STORED.format(folder=folder, file=RECORD)) from None
    except (ValueError, KeyError, TypeError) as problem:
        raise _changed(folder / RECORD, "it is no record of a run") from problem
    return Stored({name: _table(folder / f"{name}.csv", d) for name, d in hashes.items()}, record)


def _table(path: Path, digest: str) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8")  # any line ending, as git may have made them
    except (OSError, UnicodeDecodeError) as problem:
        raise _changed(path, "it cannot be read") from problem
    if _digest(text) != digest:
        raise _changed(path, "its content is another than the record says")
    return pd.read_csv(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(path: Path, problem: str) -> errors.DataError:
    return errors.DataError(errors.STORED_TABLE.format(file=path, problem=problem))
