"""RAF-DB, real-world expressions: the basic set, aligned images (Li, Deng and Du 2017)."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from studylib import errors
from studylib.datasets import tables
from studylib.faces import Photos

CROPPED = True
CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
# The codes of the annotators' files, in the order of their three last lines.
ATTRIBUTES = {
    "gender": ("male", "female", "unsure"),
    "race": ("caucasian", "african-american", "asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
LANDMARKS = 5  # lines of an attributes file before the three
LIST = "EmoLabel/list_patition_label.txt"  # spelt as the set spells it
LAYOUT = (
    f"{LIST}, Image/aligned/train_00001_aligned.jpg and "
    "Annotation/manual/train_00001_manu_attri.txt (each archive unpacked), in ROOT or ROOT/basic"
)
PUBLISHED = {"train": 12_271, "test": 3_068}
PUBLISHED_TEST = {
    "gender": {"male": 1_249, "female": 1_620, "unsure": 199},
    "race": {"caucasian": 2_351, "african-american": 234, "asian": 483},
    "age": {"0-3": 329, "4-19": 486, "20-39": 1_662, "40-69": 502, "70+": 89},
}


def read(root: Path) -> Photos:
    """Read every picture of the list, with its part and its manually annotated attributes.

    Returns
    -------
    Photos
        With `part` (train or test), `label`, `gender`, `race` and `age`. The set tells no
        identities, so every picture is a subject of its own.

    Raises
    ------
    DataError
        If the list is missing or has a line it should not have, a label is out of range, a
        picture or an attributes file is missing, or such a file is cut short.
    """
    root = root / "basic" if (root / "basic").is_dir() else root
    rows = _rows(root)
    for kind in ("path", "attributes"):
        absent = [row[kind] for row in rows if not row[kind].is_file()]
        if absent:
            raise tables.unlike(root, "rafdb", absent, LAYOUT)
    table = pd.DataFrame(row | _attributes(row.pop("attributes")) for row in rows)
    return Photos("rafdb", table, CLASSES)


def _rows(root: Path) -> list[dict]:
    """Read the list: a picture and its label, 1 to 7, a line."""
    path = root / LIST
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise _wrong(root, f"{LIST} is missing") from None
    except UnicodeDecodeError as problem:
        raise _wrong(root, f"{LIST} cannot be read ({problem})") from problem
    rows, seen = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = re.fullmatch(r"((train|test)_\d+)\.jpg\s+(-?\d+)", line.strip())
        if found is None:
            raise _wrong(root, f"line {number} of {LIST} is {line.strip()!r}")
        item, part, label = found[1], found[2], int(found[3])
        if not 1 <= label <= len(CLASSES):
            where = f"{path}, line {number}"
            raise errors.DataError(
                errors.BAD_LABEL.format(path=where, value=label, least=1, most=len(CLASSES))
            )
        if item in seen:
            raise _wrong(root, f"{LIST} names {item}.jpg twice")
        seen.add(item)
        rows.append(
            {
                "item": item,
                "subject": item,
                "part": part,
                "path": root / "Image" / "aligned" / f"{item}_aligned.jpg",
                "attributes": root / "Annotation" / "manual" / f"{item}_manu_attri.txt",
                "label": label - 1,
            }
        )
    if not rows:
        raise _wrong(root, f"{LIST} is empty")
    return sorted(rows, key=lambda row: row["item"])


def _attributes(path: Path) -> dict[str, str]:
    """Read gender, race and age: the three lines after the five landmarks."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) != LANDMARKS + len(ATTRIBUTES):
        raise errors.DataError(errors.SHORT_ATTRIBUTES.format(path=path, found=len(lines)))
    values = {}
    for (name, meanings), code in zip(ATTRIBUTES.items(), lines[LANDMARKS:], strict=True):
        if code not in map(str, range(len(meanings))):
            raise errors.DataError(
                errors.BAD_ATTRIBUTE.format(
                    path=path, name=name, value=code, most=len(meanings) - 1
                )
            )
        values[name] = meanings[int(code)]
    return values


def facts(photos: Photos) -> list[str]:
    """Hold the copy's counts against those of the set and of Stoychev and Gunes (2022)."""
    table = photos.table
    test = table[table["part"] == "test"]
    return [
        tables.beside("pictures", table["part"].value_counts().to_dict(), PUBLISHED),
        *(
            tables.beside(f"{name} (test pictures)", test[name].value_counts().to_dict(), counts)
            for name, counts in PUBLISHED_TEST.items()
        ),
    ]


def _wrong(root: Path, problem: str) -> errors.DataError:
    return tables.wrong_layout(root, "rafdb", problem, LAYOUT)
