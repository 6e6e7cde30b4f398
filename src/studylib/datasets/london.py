"""Face Research Lab London Set: 102 adults, neutral and smiling (DeBruine and Jones 2017).

Age, gender and ethnicity are self-reported; the catalog says so wherever they are shown.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studylib import errors
from studylib.faces import Photos

EXPRESSIONS = {"neutral": "03", "smiling": "08"}
COLUMNS = {"face_gender": "gender", "face_eth": "race", "face_age": "age"}
LAYOUT = "london_info.csv, neutral/NNN_03.jpg and smiling/NNN_08.jpg"


def read(root: Path) -> Photos:
    """Read both pictures of every person listed in london_info.csv.

    Returns
    -------
    Photos
        Two pictures a person, with `expression`, `gender`, `race` (the set's own ethnicity terms)
        and `age` (years, as text, or unknown).

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
            **{ours: _value(getattr(person, theirs)) for theirs, ours in COLUMNS.items()},
        }
        for person in people.itertuples()
        for expression, number in EXPRESSIONS.items()
    ]
    absent = [row["path"] for row in rows if not row["path"].is_file()]
    if absent:
        raise _wrong(root, f"{absent[0].relative_to(root)} is missing ({len(absent)} such files)")
    return Photos("london", pd.DataFrame(rows))


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
    return errors.DataError(
        errors.WRONG_LAYOUT.format(root=root, name="london", problem=problem, layout=LAYOUT)
    )
