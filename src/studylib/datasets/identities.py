"""Pictures by identity, to train on: ROOT/<id>/<picture>, or ROOT/<group>/<id>/<picture>.

The second is the layout of BUPT-Balancedface and BUPT-Globalface (Wang and Deng 2020), whose groups
are African, Asian, Caucasian and Indian.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from studylib import errors
from studylib.datasets import tables
from studylib.datasets.rfw import RACES

LAYOUT = "ROOT/<id>/<picture>.jpg|png or ROOT/<group>/<id>/<picture>.jpg|png"
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass
class Identities:
    """Pictures by identity, not decoded yet: what `packed.pack` takes.

    Attributes
    ----------
    root : Path
        The folder that the items start from.
    items : list of str
        N pictures, as paths below the root, sorted by identity.
    labels : numpy.ndarray
        int64 (N,), the code of each picture's identity.
    names : list of str
        K identities: the folders' paths below the root. Somebody in two groups is two of them.
    groups : pandas.DataFrame
        K rows: `race` where all groups are RFW's, else `group` (in lower case); no column where
        identities lie in no group.
    origin : str
        The catalog entry they come from.
    """

    root: Path
    items: list[str]
    labels: np.ndarray
    names: list[str]
    groups: pd.DataFrame
    origin: str = "identity_folder"

    def __len__(self) -> int:
        return len(self.items)

    def encoded(self, index: int) -> bytes:
        """Read a picture's file as it is stored; DataError names one that cannot be read."""
        path = self.root / self.items[index]
        try:
            return path.read_bytes()
        except OSError as problem:
            raise errors.DataError(
                errors.UNREADABLE_IMAGE.format(path=path, reason=problem)
            ) from problem


def read(root: Path) -> Identities:
    """List the pictures below a folder; names are sorted, so codes depend on the names alone.

    Files of other types and hidden ones are passed over, and so are identities without a picture.

    Raises
    ------
    DataError
        If there is no picture, or a folder holds both pictures and folders of pictures, or some
        identities lie in a group and others do not.
    """
    found: dict[str, list[str]] = {}
    for folder in _folders(root, ""):
        inner = _folders(root, folder)
        pictures = _pictures(root, folder)
        if pictures and inner:
            raise _wrong(root, f"{folder} holds both pictures and folders")
        found |= {name: _pictures(root, name) for name in inner} if inner else {folder: pictures}
    found = {name: pictures for name, pictures in found.items() if pictures}
    if not found:
        raise _wrong(root, "no folder in it holds pictures")
    depths = {name.count("/"): name for name in found}
    if len(depths) > 1:
        raise _wrong(root, f"{depths[1]} lies in a group, {depths[0]} does not")
    counts = [len(pictures) for pictures in found.values()]
    return Identities(
        root,
        [name for pictures in found.values() for name in pictures],
        np.repeat(np.arange(len(found)), counts),
        list(found),
        _groups(found) if 1 in depths else pd.DataFrame(index=range(len(found))),
    )


def _groups(names: Iterable[str]) -> pd.DataFrame:
    """Take each identity's group from its path, GROUP/id."""
    groups = [name.partition("/")[0].lower() for name in names]
    column = "race" if {race.lower() for race in RACES}.issuperset(groups) else "group"
    return pd.DataFrame({column: groups})


def _folders(root: Path, below: str) -> list[str]:
    """List the folders in ROOT/below, as paths below the root."""
    with os.scandir(root / below) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    return [f"{below}/{name}".lstrip("/") for name in names]


def _pictures(root: Path, below: str) -> list[str]:
    with os.scandir(root / below) as entries:
        names = sorted(e.name for e in entries if is_picture(e.name))
    return [f"{below}/{name}" for name in names]


def is_picture(name: str) -> bool:
    """Whether a file is named like a picture, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _wrong(root: Path, problem: str) -> errors.DataError:
    return tables.wrong_layout(root, "identities", problem, LAYOUT)
