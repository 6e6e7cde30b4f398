"""IJB-B and IJB-C: templates of several pictures, compared pair by pair (Maze et al. 2018).

The layout is that of the InsightFace release: loosely cropped pictures, and three lists.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import torch
from pyarrow import csv

from studylib import align, errors
from studylib.datasets import tables
from studylib.faces import read_image

# The lists, as the ends of their file names, with their columns; fields are separated by a space.
POINTS = tuple(f"{axis}{k}" for k in range(5) for axis in "xy")
LISTS = {
    "face_tid_mid": {"name": "string", "template": "int64", "media": "int64"},
    "name_5pts_score": {"name": "string", **dict.fromkeys((*POINTS, "score"), "float64")},
    "template_pair_label": {"first": "int64", "second": "int64", "genuine": "int64"},
}
LAYOUT = (
    "loose_crop/<picture> and meta/ijbc_face_tid_mid.txt, meta/ijbc_name_5pts_score.txt and "
    "meta/ijbc_template_pair_label.txt (or ijbb_ likewise)"
)


@dataclass(frozen=True)
class Templates:
    """A template protocol, its pictures not read yet.

    Attributes
    ----------
    folder : Path
        Where the pictures are.
    pictures : pandas.DataFrame
        N rows: name, template (code 0..T-1), media (the set's number: a photograph or a video)
        and score (the detector's, 0..1).
    points : numpy.ndarray
        float64 (N, 5, 2), landmarks, x and y in pixels of the picture.
    ids : numpy.ndarray
        int64 (T,), the set's numbers of the templates.
    pairs : pandas.DataFrame
        P rows: a and b (int64, template codes) and genuine (bool).
    """

    folder: Path
    pictures: pd.DataFrame
    points: np.ndarray
    ids: np.ndarray
    pairs: pd.DataFrame

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def people(self) -> pd.Series:
        """Who each template is of (T names). The lists name nobody: genuine pairs connect them."""
        return pd.Series(tables.connected(self.pairs, len(self.ids)).astype(str))

    @property
    def subjects(self) -> list[str]:
        """The distinct ones of these people, sorted."""
        return sorted(self.people.unique())

    def batch(self, start: int, stop: int) -> torch.Tensor:
        """Read and align the pictures from start up to stop: uint8 (n, 3, 112, 112).

        Raises
        ------
        DataError
            If a picture cannot be read; the message names it.
        """
        names = self.pictures["name"].iloc[start:stop]

        def one(name: str, points: np.ndarray) -> torch.Tensor:
            return align.warp(read_image(self.folder / name), points)

        with ThreadPoolExecutor() as readers:
            return torch.stack(list(readers.map(one, names, self.points[start:stop])))


def read(root: Path) -> Templates:
    """Read the three lists and hold them against each other; no picture is opened.

    Raises
    ------
    DataError
        If a list or a picture is missing, a list cannot be read, lists disagree on the pictures,
        or a pair names a template without pictures.
    """
    media, points, pairs = (_list(root, name) for name in LISTS)
    faces, marks = _table(root, media), _table(root, points)
    if len(faces) != len(marks):
        problem = f"{media.name} has {len(faces)} lines and {points.name} {len(marks)}"
        raise tables.wrong_layout(root, "ijbc", problem, LAYOUT)
    differ = np.flatnonzero((faces["name"] != marks["name"]).to_numpy())
    if len(differ):
        line = differ[0]
        raise errors.DataError(
            errors.OTHER_ORDER.format(
                number=line + 1,
                path=points,
                found=marks["name"][line],
                media=media.name,
                expected=faces["name"][line],
            )
        )
    folder = root / "loose_crop"
    absent = [folder / name for name in faces["name"] if not (folder / name).is_file()]
    if absent:
        raise tables.unlike(root, "ijbc", absent, LAYOUT)
    ids, codes = np.unique(faces["template"], return_inverse=True)
    pictures = faces.assign(template=codes, score=marks["score"])
    landmarks = marks[list(POINTS)].to_numpy().reshape(-1, 5, 2)
    return Templates(folder, pictures, landmarks, ids, _pairs(root, pairs, ids, media))


def _list(root: Path, name: str) -> Path:
    found = sorted((root / "meta").glob(f"ijb[bc]_{name}.txt"))
    if len(found) != 1:
        problem = f"meta holds {len(found)} files ijbb_{name}.txt or ijbc_{name}.txt"
        raise tables.wrong_layout(root, "ijbc", problem, LAYOUT)
    return found[0]


def _table(root: Path, path: Path) -> pd.DataFrame:
    """Read a list strictly: every line has every field, and numbers are finite numbers."""
    types = LISTS[path.stem.partition("_")[2]]
    try:
        table = csv.read_csv(
            path,
            csv.ReadOptions(column_names=list(types), use_threads=False),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        ).to_pandas()
    except (pyarrow.ArrowInvalid, UnicodeDecodeError) as problem:
        reason = f"{path.relative_to(root)} cannot be read ({problem})"
        raise tables.wrong_layout(root, "ijbc", reason, LAYOUT) from problem
    numbers = table.select_dtypes("float64").to_numpy()
    if not np.isfinite(numbers).all():
        line = int(np.flatnonzero(~np.isfinite(numbers).all(1))[0])
        shown = " ".join(map(str, table.iloc[line]))
        raise tables.bad_line(path, line + 1, shown, "finite numbers")
    return table


def _pairs(root: Path, path: Path, ids: np.ndarray, media: Path) -> pd.DataFrame:
    """Read the pairs, with templates as codes instead of the set's numbers."""
    table = _table(root, path)
    bad = np.flatnonzero(~table["genuine"].isin((0, 1)).to_numpy())
    if len(bad):
        shown = " ".join(map(str, table.iloc[bad[0]]))
        raise tables.bad_line(path, bad[0] + 1, shown, "two templates and 0 or 1")
    codes = {}
    for side, column in (("a", "first"), ("b", "second")):
        numbers = table[column].to_numpy()
        codes[side] = np.searchsorted(ids, numbers).clip(max=len(ids) - 1)
        strange = np.flatnonzero(ids[codes[side]] != numbers)
        if len(strange):
            line = strange[0]
            raise errors.DataError(
                errors.NO_TEMPLATE.format(
                    path=path, number=line + 1, template=numbers[line], media=media.name
                )
            )
    return pd.DataFrame(codes | {"genuine": table["genuine"] == 1})
