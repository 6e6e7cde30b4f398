"""The reader's own pictures: one folder a person, and optionally a table of groups."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studylib.datasets import tables
from studylib.faces import Photos
from studylib.vision import torchvision

CROPPED = False
LAYOUT = (
    "ROOT/<subject>/<picture>.jpg|png|pgm and optionally ROOT/groups.csv (subject, gender, ...)"
)


def read(root: Path) -> Photos:
    """Read ROOT/<subject>/<picture>; file and folder names are sorted, so the order is fixed.

    Returns
    -------
    Photos
        With the group columns of ROOT/groups.csv where that file is present.

    Raises
    ------
    DataError
        If there is no picture, or groups.csv lacks a subject or a known column.
    """
    try:
        listing = torchvision.datasets.ImageFolder(str(root))
    except FileNotFoundError as problem:
        raise tables.wrong_layout(
            root, "folder", "it holds no folder with pictures, or an empty one", LAYOUT
        ) from problem
    paths = [Path(path) for path, _ in listing.samples]
    table = pd.DataFrame(
        {
            "item": [path.relative_to(root).as_posix() for path in paths],
            "subject": [path.relative_to(root).parts[0] for path in paths],
            "path": paths,
        }
    )
    return Photos("folder", tables.with_groups(table, root / "groups.csv"))
