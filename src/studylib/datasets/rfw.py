"""RFW, Racial Faces in the Wild: four groups with a list of pairs each (Wang et al. 2019)."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from studylib import align, errors
from studylib.datasets import tables
from studylib.faces import Faces, read_image

RACES = ("African", "Asian", "Caucasian", "Indian")
LAYOUT = (
    "txts/<Race>/<Race>_pairs.txt and <Race>_lmk.txt, data/<Race>/<id>/<id>_0001.jpg, in ROOT or "
    f"ROOT/test; <Race> is one of {', '.join(RACES)}"
)
PAIR = re.compile(
    r"(?P<one>[^/\s]+)\s+(?P<n>\d{1,4})\s+((?P<other>[^/\s]+)\s+)?(?P<m>\d{1,4})", re.A
)
EXPECTED = "id, n, n of one person or id, n, other id, n of two, separated by tabs"
POINTS = "a picture, a number, and x and y of five landmarks"


def pairs(root: Path) -> tuple[Faces, pd.DataFrame]:
    """Read the lists of pairs and align the pictures that they name.

    Pictures of 112 x 112 px count as aligned already; others are warped by the set's own
    landmarks. A copy may lack groups.

    Returns
    -------
    faces : Faces
        Each picture once, with `race` in lower case. Twelve people are listed under two races:
        one subject, and the race is that of the picture's folder.
    pairs : pandas.DataFrame
        a, b, genuine, fold (the file order of each group cut in ten) and group.

    Raises
    ------
    DataError
        If a list is missing or a line of it is not as expected, a folder is none of the four
        groups, a picture is missing or broken, or one that is not aligned has no landmarks.
    """
    root = root / "test" if (root / "test").is_dir() else root
    listed = pd.concat([_listed(root, race) for race in _races(root)], ignore_index=True)
    names = pd.concat([listed["first"], listed["second"]], ignore_index=True)
    positions, items = pd.factorize(names)  # in the order of their first use
    table = pd.DataFrame([item.split("/") for item in items], columns=["race", "subject", "file"])
    paths = [root / "data" / race / subject / file for race, subject, file in table.to_numpy()]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise tables.unlike(root, "rfw", absent, LAYOUT)
    images = _aligned(root, paths)
    table = table.assign(item=items.str.removesuffix(".jpg"), race=table["race"].str.lower())
    found = pd.DataFrame({"a": positions[: len(listed)], "b": positions[len(listed) :]})
    faces = Faces(images, table[["item", "subject", "race"]], "rfw")
    return faces, found.join(listed[["genuine", "fold", "group"]])


def _races(root: Path) -> list[str]:
    """List the groups that are there, in the set's own order."""
    folders = sorted((root / "txts").glob("[!.]*/"))
    if not folders:
        raise tables.wrong_layout(root, "rfw", "txts holds no folder", LAYOUT)
    for folder in folders:
        if folder.name not in RACES:
            choices = ", ".join(RACES)
            raise errors.DataError(errors.UNKNOWN_RACE.format(folder=folder, choices=choices))
    return [folder.name for folder in folders]


def _listed(root: Path, race: str) -> pd.DataFrame:
    """Read one group's list: the pictures of each pair, as <Race>/<id>/<file>."""
    path = root / "txts" / race / f"{race}_pairs.txt"
    rows = []
    for number, line in tables.lines(root, "rfw", path, LAYOUT):
        found = PAIR.fullmatch(line)
        if found is None or found["one"] == found["other"]:
            raise tables.bad_line(path, number, line, EXPECTED)
        genuine = found["other"] is None
        other = found["one"] if genuine else found["other"]
        first, second = _picture(race, found["one"], found["n"]), _picture(race, other, found["m"])
        rows.append((first, second, genuine))
    if not rows:
        raise tables.wrong_layout(root, "rfw", f"{path.relative_to(root)} is empty", LAYOUT)
    table = pd.DataFrame(rows, columns=["first", "second", "genuine"])
    return table.assign(fold=tables.folds(len(table)), group=race.lower())


def _picture(race: str, person: str, number: str) -> str:
    return f"{race}/{person}/{person}_{int(number):04d}.jpg"


def _aligned(root: Path, paths: list[Path]) -> torch.Tensor:
    """Read all pictures as aligned faces: uint8 (N, 3, 112, 112), filled in place."""
    images = torch.empty(len(paths), 3, align.SIZE, align.SIZE, dtype=torch.uint8)
    points = {race: _landmarks(root, race) for race in {path.parts[-3] for path in paths}}

    def fill(index: int) -> None:
        path = paths[index]
        race, _, name = path.parts[-3:]
        picture = read_image(path)
        height, width = picture.shape[:2]
        if height == width == align.SIZE:
            images[index] = torch.from_numpy(picture.copy()).permute(2, 0, 1)
        elif name in points[race]:
            images[index] = align.warp(picture, points[race][name])
        else:
            lists = _landmark_list(root, race)
            raise errors.DataError(
                errors.NO_LANDMARKS.format(path=path, width=width, height=height, lists=lists)
            )

    with ThreadPoolExecutor() as readers:
        for _ in readers.map(fill, range(len(paths))):
            pass  # what is wrong with a picture is raised here
    return images


def _landmark_list(root: Path, race: str) -> Path:
    return root / "txts" / race / f"{race}_lmk.txt"


def _landmarks(root: Path, race: str) -> dict[str, np.ndarray]:
    """Read a group's landmarks by file name: float64 (5, 2), x and y in pixels; none if absent."""
    path, points = _landmark_list(root, race), {}
    for number, line in tables.lines(root, "rfw", path, LAYOUT) if path.is_file() else ():
        fields = line.split()
        try:
            five = np.array(fields[2:], dtype=np.float64).reshape(5, 2)
        except ValueError:
            raise tables.bad_line(path, number, line, POINTS) from None
        if not np.isfinite(five).all():
            raise tables.bad_line(path, number, line, POINTS)
        points[fields[0].rpartition("/")[2]] = five
    return points
