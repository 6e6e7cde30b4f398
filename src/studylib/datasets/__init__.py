"""Readers, one file a data set, and the one way to load any of them by name."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd

from studylib import align, catalog, errors
from studylib.faces import GROUP_COLUMNS, Faces, Photos


def read(name: str, root: str | Path | None = None) -> Photos:
    """Read a data set's pictures as they are stored.

    Parameters
    ----------
    name : str
        A data set of the catalog.
    root : path, optional
        The user's own copy; embedded sets need none.

    Raises
    ------
    DataError
        Unknown name, no root where one is needed, a missing folder, or a broken layout.
    """
    entry = _entry(name)
    reader = importlib.import_module(entry.reader)
    if root is None and entry.tier != "embedded":
        raise errors.DataError(errors.NEEDS_ROOT.format(name=name, get=entry.get))
    if root is not None:
        root = Path(root).expanduser()
        if not root.is_dir():
            raise errors.DataError(
                errors.MISSING_ROOT.format(root=root, name=name, layout=reader.LAYOUT)
            )
    return reader.read(root)


def load(name: str, root: str | Path | None = None) -> tuple[Faces, list[str]]:
    """Read and align a data set: its faces at 112 x 112, and the items without a face.

    Raises
    ------
    DataError
        As `read`, and if a picture is broken or too many show no face.
    """
    return align.align(read(name, root))


def counts(missed: list[str], **parts: Faces | None) -> pd.DataFrame:
    """How many faces and people each part of a set holds, and how many pictures showed no face."""
    rows = {
        part: {"faces": len(faces), "people": len(faces.subjects)}
        for part, faces in parts.items()
        if faces is not None
    }
    rows["no face found"] = {"faces": len(missed), "people": 0}
    return pd.DataFrame.from_dict(rows, orient="index")


def check(name: str, root: str | Path | None = None) -> list[str]:
    """Read every file of a data set once and say what was found, a line a fact.

    Raises
    ------
    DataError
        At the first thing that is wrong: layout, table, or a picture that cannot be read.
    """
    photos = read(name, root)
    for index in range(len(photos)):
        photos.open(index)
    subjects = photos.table.drop_duplicates("subject")
    findings = [f"{len(photos)} pictures of {len(subjects)} subjects, all readable"]
    for column in (c for c in GROUP_COLUMNS if c in subjects):
        counts = subjects[column].value_counts().sort_index()
        shown = ", ".join(f"{value} {count}" for value, count in counts.items())
        findings.append(f"{column} (subjects): {shown}")
    return findings


def _entry(name: str) -> catalog.Entry:
    known = {key: e for key, e in catalog.ENTRIES.items() if e.reader}
    if name not in known:
        raise errors.DataError(
            errors.UNKNOWN_DATASET.format(name=name, known=", ".join(sorted(known)))
        )
    return known[name]
