"""Face Research Lab London Set: 102 adults, neutral and smiling (DeBruine and Jones 2017).

Age, gender and ethnicity are self-reported; the catalog says so wherever they are shown.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studylib import errors
from studylib.datasets import tables
from studylib.faces import Photos

CROPPED = False
EXPRESSIONS = {"neutral": "03", "smiling": "08"}
COLUMNS = {"face_gender": "gender", "face_eth": "race", "face_age": "age"}
LAYOUT = "london_info.csv, neutral/NNN_03.jpg and smiling/NNN_08.jpg"


def read(root: Path) -> Photos:
    """Read both pictures of every person listed in london_info.csv.

    Returns
    -------
    Photos
        Two pictures a person, with `expression` and its `label`, `gender`, `race` (the set's own
        ethnicity terms) and `age` (years, as text, or unknown).

    Raises
    ------
    DataError
        If the information file is missing or has other columns, or a picture is missing.
    """
    people = _people(root)
    rows = [
        {
            "item": f"{person.face_id}/{expression}",
            "subject": person.face_id,
            "path": root / expression / f"{person.face_id}_{number}.jpg",
            "expression": expression,
            "label": label,
            **{ours: _value(getattr(person, theirs)) for theirs, ours in COLUMNS.items()},
        }
        for person in people.itertuples()
        for label, (expression, number) in enumerate(EXPRESSIONS.items())
    ]
    absent = [row["path"] for row in rows if not row["path"].is_file()]
    if absent:
        raise tables.unlike(root, "london", absent, LAYOUT)
    return Photos("london", pd.DataFrame(rows), tuple(EXPRESSIONS))


def _people(root: Path) -> pd.DataFrame:
    try:
        people = pd.read_csv(root / "london_info.csv", dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise _wrong(root, "london_info.csv is missing") from None
    except (ValueError, UnicodeDecodeError) as problem:
        raise _wrong(root, f"london_info.csv cannot be read ({problem})") from problem
    missing = {"face_id", *COLUMNS} - set(people.columns)
    if missing:
        raise _wrong(root, f"london_info.csv has no column {', '.join(sorted(missing))}")
    return people.sort_values("face_id")


def _value(text: str) -> str:
    text = text.strip().lower()
    return "unknown" if text in ("", "na") else text


def _wrong(root: Path, problem: str) -> errors.DataError:
    return tables.wrong_layout(root, "london", problem, LAYOUT)
