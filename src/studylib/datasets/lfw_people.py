"""LFW's people by name: press photographs of well-known people, no group labels (Huang 2007).

The same pictures come in several layouts, which the reader tells apart by what is there: the folder
that scikit-learn's `fetch_lfw_people` leaves on disk, that of the original archives, and a folder
or a zip file of faces that somebody has aligned.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pandas as pd

from studylib import errors
from studylib.datasets import identities, tables, unlabelled
from studylib.faces import Photos

CROPPED = False
ARCHIVE = True  # the root may be one file
LAYOUT = (
    "Name/Name_0001.jpg and so on, in the folder itself, in lfw or lfw_funneled, or in either "
    "below lfw_home (as scikit-learn leaves them); or a zip file of such folders"
)
# scikit-learn's default, the funneled pictures, comes before the others where both are there.
PLACES = ("lfw_home/lfw_funneled", "lfw_home/lfw", "lfw_funneled", "lfw", ".")
PUBLISHED = {"pictures": 13_233, "people": 5_749}

aligned = unlabelled.aligned


def read(root: Path) -> Photos:
    """List every picture, sorted by person and number; the person is the folder's name.

    Parameters
    ----------
    root : Path
        scikit-learn's data folder or one of those within it, or a zip file.

    Raises
    ------
    DataError
        If there is no picture that is named after its folder, or the file is no zip archive.
    """
    listed = _members(root) if root.is_file() else _files(root)
    rows = [
        {"item": f"{path.parent.name}/{_stem(path)}", "subject": path.parent.name, "path": path}
        for path in listed
        if identities.is_picture(path.name) and path.name.startswith(f"{path.parent.name}_")
    ]
    if not rows:
        raise _wrong(root, "no picture in it is named after its folder")
    table = pd.DataFrame(rows).sort_values("item", ignore_index=True)
    if twice := table.loc[table["item"].duplicated(), "item"].tolist():
        raise _wrong(root, f"{twice[0]} is in it twice")
    return Photos("lfw_people", table)


def _files(root: Path) -> list[Path]:
    """Pictures in the first of the places that has any folders of pictures."""
    for place in PLACES:
        if found := list((root / place).glob("*/*_*.*")):
            return found
    return []


def _members(root: Path) -> list[zipfile.Path]:
    """Pictures of an archive, however deep, still packed."""
    try:
        archive = zipfile.ZipFile(root)
    except (zipfile.BadZipFile, OSError) as problem:
        raise _wrong(root, f"it is neither a folder nor a zip file ({problem})") from problem
    top = zipfile.Path(archive)
    return [top / name for name in archive.namelist() if name.count("/")]


def _stem(path: Path | zipfile.Path) -> str:
    return Path(path.name).stem


def facts(photos: Photos) -> list[str]:
    """Say what the whole set holds, where this copy holds something else."""
    found = {"pictures": len(photos), "people": photos.table["subject"].nunique()}
    return [tables.beside("counts", found, PUBLISHED)]


def _wrong(root: Path, problem: str) -> errors.DataError:
    return tables.wrong_layout(root, "lfw_people", problem, LAYOUT)
