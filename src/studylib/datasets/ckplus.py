"""CK+, the Extended Cohn-Kanade set: posed expressions from neutral to peak (Lucey et al. 2010).

Pictures are taken from it as Stoychev and Gunes (2022) did: of every sequence with an emotion
label the first frame, as neutral, and the last three.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from studylib import errors
from studylib.datasets import tables
from studylib.faces import Faces, Photos

CROPPED = False
CLASSES = ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
GENDERS = {"f": "female", "m": "male", "female": "female", "male": "male", "unsure": "unsure"}
LAYOUT = (
    "cohn-kanade-images/S005/001/S005_001_00000001.png, "
    "Emotion/S005/001/S005_001_00000011_emotion.txt and optionally gender.csv (subject, gender)"
)
LAST = 3  # frames at the end of a sequence that show its emotion
TRAIN_SHARE = 0.7
# The paper's own counts; people, whether or not a sequence of theirs is labelled.
PUBLISHED = {"people in the label folder": 123, "labelled sequences": 327, "pictures": 1308}
PUBLISHED_LABELS = dict(zip(CLASSES, (327, 135, 54, 177, 75, 207, 84, 249), strict=True))


def read(root: Path) -> Photos:
    """Read the first and the last three frames of every labelled sequence.

    Most sequences of the set have no emotion label, by its authors' choice; they are left out.
    `facts` says how many were found.

    Returns
    -------
    Photos
        With `label`, `sequence` and, where ROOT/gender.csv is present, `gender`: CK+ itself tells
        no gender.

    Raises
    ------
    DataError
        If a folder is missing, a label cannot be read or is out of range, a labelled sequence has
        too few frames, or gender.csv leaves out somebody.
    """
    for folder in ("cohn-kanade-images", "Emotion"):
        if not (root / folder).is_dir():
            raise _wrong(root, f"there is no folder {folder}")
    files = sorted((root / "Emotion").glob("S*/*/S*_emotion.txt"))
    if not files:
        raise _wrong(root, "no sequence has an emotion file (Emotion/*/*/*_emotion.txt)")
    rows = [row for file in files for row in _sequence(root, file)]
    table = tables.with_groups(pd.DataFrame(rows), root / "gender.csv")
    return Photos("ckplus", _checked_gender(table, root / "gender.csv"), CLASSES)


def _sequence(root: Path, file: Path) -> list[dict]:
    """Make the four rows of one labelled sequence."""
    label = _label(file)
    subject, sequence = file.parts[-3:-1]
    frames = sorted((root / "cohn-kanade-images" / subject / sequence).glob("S*.png"))
    if len(frames) <= LAST:
        raise _wrong(
            root,
            f"sequence {subject}/{sequence} has {len(frames)} frames, at least {LAST + 1} "
            "are needed",
        )
    return [
        {
            "item": path.relative_to(root / "cohn-kanade-images").as_posix(),
            "subject": subject,
            "sequence": f"{subject}/{sequence}",
            "path": path,
            "label": code,
        }
        for path, code in [(frames[0], 0), *((frame, label) for frame in frames[-LAST:])]
    ]


def _label(file: Path) -> int:
    """Read an emotion code: the file holds one number, written as a float."""
    text = file.read_text(encoding="utf-8", errors="replace").strip()
    try:
        code = float(text)
    except ValueError:
        code = -1.0
    if code not in range(len(CLASSES)):
        raise errors.DataError(
            errors.BAD_LABEL.format(path=file, value=text, least=0, most=len(CLASSES) - 1)
        )
    return int(code)


def _checked_gender(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Take f, m and the full words; somebody without gender is refused, for nobody else knows."""
    if "gender" not in table:
        return table
    known = table["gender"].isin(GENDERS)
    if not known.all():
        first = table[~known].iloc[0]
        given = "no gender" if first["gender"] == "unknown" else f"the gender {first['gender']!r}"
        problem = f"subject {first['subject']} has {given}, not f, m or unsure"
        raise tables.bad_groups(path, problem)
    return table.assign(gender=table["gender"].map(GENDERS))


def people(root: str | Path) -> list[str]:
    """List the subjects of the label folder, sorted, also those without a labelled sequence."""
    folders = (Path(root).expanduser() / "Emotion").glob("S*")
    return sorted(folder.name for folder in folders if folder.is_dir())


def split(faces: Faces, root: str | Path, seed: int) -> tuple[Faces, Faces]:
    """Split by subject as the paper did: 70 % of the label folder's people, rounded down, train.

    The paper drew 86 of 123 people; its draw was not seeded, so it cannot be repeated.

    Returns
    -------
    train, test : Faces
        Nobody is in both.

    Raises
    ------
    DataError
        If nobody with a labelled sequence is on one of the sides.
    """
    everybody = np.array(people(root))
    drawn = np.random.default_rng(seed).permutation(everybody)[: int(TRAIN_SHARE * len(everybody))]
    train = faces.table["subject"].isin(drawn).to_numpy()
    if train.all() or not train.any():
        raise errors.DataError(errors.NO_SPLIT.format(root=root, people=len(faces.subjects)))
    return faces.take(train), faces.take(~train)


def facts(photos: Photos) -> list[str]:
    """Hold the copy's counts against those of Stoychev and Gunes (2022)."""
    table = photos.table
    root = table["path"].iloc[0].parents[3]
    last = table.groupby("sequence")["path"].last()
    found = {
        "people in the label folder": len(people(root)),
        "labelled sequences": len(last),
        "pictures": len(table),
    }
    labels = table["label"].map(dict(enumerate(CLASSES))).value_counts().to_dict()
    peaks = sum(_peak(root, path) == path.stem for path in last)
    lines = [
        tables.beside("found", found, PUBLISHED),
        tables.beside("expression (pictures)", labels, PUBLISHED_LABELS),
        f"the labelled frame is the last one in {peaks} of {len(last)} sequences",
    ]
    if "gender" not in table:
        lines.append("there is no gender.csv: results by gender need one (subject, gender)")
    return lines


def _peak(root: Path, frame: Path) -> str:
    """Say which frame a sequence's emotion file belongs to."""
    file = next((root / "Emotion").joinpath(*frame.parts[-3:-1]).glob("S*_emotion.txt"))
    return re.sub("_emotion$", "", file.stem)


def _wrong(root: Path, problem: str) -> errors.DataError:
    return tables.wrong_layout(root, "ckplus", problem, LAYOUT)
