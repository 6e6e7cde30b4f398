"""The reader's own pictures: one folder a person, and optionally a table of groups."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studylib import errors
from studylib.faces import GROUP_COLUMNS, Photos
from studylib.vision import torchvision

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
        raise errors.DataError(
            errors.WRONG_LAYOUT.format(
                root=root,
                name="folder",
                problem="it holds no folder with pictures, or an empty one",
                layout=LAYOUT,
            )
        ) from problem
    paths = [Path(path) for path, _ in listing.samples]
    table = pd.DataFrame(
        {
            "item": [path.relative_to(root).as_posix() for path in paths],
            "subject": [path.relative_to(root).parts[0] for path in paths],
            "path": paths,
        }
    )
    return Photos("folder", _with_groups(table, root / "groups.csv"))


def _with_groups(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the group columns of `path`; every subject must be in it, if it is there at all."""
    if not path.exists():
        return table
    try:
        groups = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as problem:
        raise _bad_groups(path, f"it cannot be read ({problem})") from problem
    known = [column for column in GROUP_COLUMNS if column in groups.columns]
    if "subject" not in groups.columns or not known:
        raise _bad_groups(path, f"its columns are {', '.join(groups.columns)}")
    if groups["subject"].duplicated().any():
        twice = groups.loc[groups["subject"].duplicated(), "subject"].iloc[0]
        raise _bad_groups(path, f"subject {twice} is in it twice")
    absent = sorted(set(table["subject"]) - set(groups["subject"]))
    if absent:
        raise _bad_groups(path, f"subject {absent[0]} is not in it ({len(absent)} such)")
    cleaned = groups[known].apply(lambda column: column.str.strip().str.lower())
    groups[known] = cleaned.replace("", "unknown")
    return table.merge(groups[["subject", *known]], on="subject", how="left")


def _bad_groups(path: Path, problem: str) -> errors.DataError:
    return errors.DataError(
        errors.BAD_GROUPS.format(path=path, problem=problem, columns=", ".join(GROUP_COLUMNS))
    )
