"""Faces of which nothing is known: every picture below a folder, to calibrate or distil with."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

from studylib import align, errors
from studylib.datasets import identities, tables
from studylib.faces import Photos, stored

CROPPED = False
LAYOUT = "pictures (jpg, png) at any depth"


def read(root: Path) -> Photos:
    """List every picture below a folder, sorted; each counts as a subject of its own.

    Raises
    ------
    DataError
        If there is none.
    """
    paths = sorted(path for path in root.rglob("*") if identities.is_picture(path.name))
    if not paths:
        raise tables.wrong_layout(root, "unlabelled", "it holds no picture", LAYOUT)
    names = [path.relative_to(root).as_posix() for path in paths]
    return Photos("unlabelled", pd.DataFrame({"item": names, "subject": names, "path": paths}))


def aligned(photos: Photos) -> bool:
    """Whether the pictures all have the size of aligned faces, by their headers alone."""
    return all(_size(path) == (align.SIZE, align.SIZE) for path in photos.table["path"])


def _size(path) -> tuple[int, int]:
    try:
        with Image.open(stored(path)) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise errors.DataError(
            errors.UNREADABLE_IMAGE.format(path=path, reason=problem)
        ) from problem
