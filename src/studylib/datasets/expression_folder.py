"""The reader's own expression set: a folder a part and class, as FER2013 is often handed around."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studylib import errors
from studylib.datasets import tables
from studylib.faces import Photos
from studylib.vision import torchvision

CROPPED = True
PARTS = ("train", "test")
LAYOUT = (
    "ROOT/train/<expression>/<picture>.jpg|png|pgm and the same under ROOT/test, one of them at "
    "least; optionally ROOT/groups.csv (file, and any of subject, gender, race, age, group)"
)


def read(root: Path) -> Photos:
    """Read ROOT/{train,test}/<expression>/<picture>; names are sorted, so the order is fixed.

    The pictures are taken as faces that are cut out already.

    Returns
    -------
    Photos
        With `part`, `label` (the classes are the folders' names, sorted) and what ROOT/groups.csv
        says of each `file` (its path below ROOT). Where that names no `subject`, every picture is
        a subject of its own.

    Raises
    ------
    DataError
        If there is no picture, the parts have other classes, or groups.csv is not as described.
    """
    parts = [part for part in PARTS if (root / part).is_dir()]
    if not parts:
        raise _wrong(root, "there is neither a folder train nor a folder test")
    listings = {part: _listing(root, part) for part in parts}
    classes = listings[parts[0]].classes
    for part in parts[1:]:
        other = sorted(set(classes) ^ set(listings[part].classes))
        if other:
            raise _wrong(root, f"only one of {' and '.join(parts)} has a folder {other[0]}")
    rows = [
        {"item": path.relative_to(root).as_posix(), "part": part, "path": path, "label": label}
        for part in parts
        for path, label in ((Path(path), label) for path, label in listings[part].samples)
    ]
    table = pd.DataFrame(rows).assign(subject=lambda rows: rows["item"])
    table = tables.with_groups(
        table, root / "groups.csv", key="item", column="file", also=("subject",)
    )
    return Photos("expression_folder", table, tuple(classes))


def _listing(root: Path, part: str):
    try:
        return torchvision.datasets.ImageFolder(str(root / part))
    except FileNotFoundError as problem:
        raise _wrong(root, f"{part} holds no folder with pictures, or an empty one") from problem


def _wrong(root: Path, problem: str) -> errors.DataError:
    return tables.wrong_layout(root, "expression_folder", problem, LAYOUT)
