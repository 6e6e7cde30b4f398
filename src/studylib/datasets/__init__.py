"""Readers, one file a data set, and the one way to load any of them by name."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pandas as pd

from studylib import align, catalog, errors
from studylib.datasets import tables
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
    reader = _reader(entry)
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


def load_pictures(
    name: str, root: str | Path | None = None, *, size: int, grey: bool = True
) -> tuple[Faces, list[str]]:
    """Read a data set as faces of size x size pixels, for expressions.

    Sets whose pictures are faces already (RAF-DB, expression_folder) are only resized; from the
    others faces are cut out by `align.crop`.

    Parameters
    ----------
    name, root
        As `read` takes them.
    size : int
        Height and width of the faces, in pixels.
    grey : bool
        One channel instead of RGB.

    Returns
    -------
    faces : Faces
        uint8 (M, 1 or 3, size, size), with classes where the set has labels.
    missed : list of str
        The items in which no face was found; they are not in `faces`.

    Raises
    ------
    DataError
        As `load`.
    ParameterError
        If size is below 1.
    """
    errors.at_least(1, size=size)
    photos = read(name, root)
    if _reader(_entry(name)).CROPPED:
        return align.resize_all(photos, size, grey=grey), []
    return align.crop(photos, size, grey=grey)


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

    Where a paper published counts of the set, each is held against what was found: a partial copy
    is told, not refused.

    Raises
    ------
    DataError
        At the first thing that is wrong: layout, table, or a picture that cannot be read.
    """
    photos = read(name, root)
    with ThreadPoolExecutor() as readers:
        for _ in readers.map(lambda index: photos.open(index).shape, range(len(photos))):
            pass  # what is wrong with a picture is raised here
    subjects = photos.table.drop_duplicates("subject")
    if (photos.table["subject"] == photos.table["item"]).all():
        kind, findings = "pictures", [f"{len(photos)} pictures, all readable; nobody is named"]
    else:
        kind = "subjects"
        findings = [f"{len(photos)} pictures of {len(subjects)} subjects, all readable"]
    if photos.classes:
        labels = photos.table["label"].map(dict(enumerate(photos.classes)))
        findings.append(tables.counted("label (pictures)", labels))
    findings += [
        tables.counted(f"{column} ({kind})", subjects[column])
        for column in GROUP_COLUMNS
        if column in subjects
    ]
    facts = getattr(_reader(_entry(name)), "facts", None)
    return findings + (facts(photos) if facts else [])


def _reader(entry: catalog.Entry) -> ModuleType:
    return importlib.import_module(entry.reader)


def _entry(name: str) -> catalog.Entry:
    known = {key: e for key, e in catalog.ENTRIES.items() if e.reader}
    if name in catalog.ENTRIES and catalog.ENTRIES[name].kind == "faces" and name not in known:
        raise errors.DataError(errors.NO_FILES.format(name=name))
    if name not in known:
        raise errors.DataError(
            errors.UNKNOWN_DATASET.format(name=name, known=", ".join(sorted(known)))
        )
    return known[name]
