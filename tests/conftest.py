"""What several tests share: data sets, networks, and where optional real data are looked for."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image

from studylib import datasets, models
from studylib.faces import Faces
from tests.fixtures import pictures

# The same examples every time, so that a failure is a change in the code; tests assert no seconds.
settings.register_profile("study", derandomize=True, deadline=None)
settings.load_profile("study")

# Real data that cannot be carried along; a clone usually has none, and such tests skip.
LONDON = Path(
    os.environ.get("STUDYLIB_LONDON", Path(__file__).parents[2] / "shared" / "data" / "london")
)

LFW = Path(
    os.environ.get(
        "STUDYLIB_LFW", Path(__file__).parents[2] / "shared" / "data" / "lfw_gray_112.zip"
    )
)

RFW_SCORES = Path(
    os.environ.get(
        "STUDYLIB_RFW_SCORES",
        Path(__file__).parents[2] / "shared" / "data" / "rfw_scores" / "rfw_scores.csv",
    )
)


@pytest.fixture(scope="session")
def orl() -> Faces:
    faces, missed = datasets.load("orl")
    assert missed == []
    return faces


@pytest.fixture(scope="session")
def sface() -> torch.nn.Module:
    return models.load("sface")


@pytest.fixture(scope="session")
def london_root() -> Path:
    if not LONDON.is_dir():
        pytest.skip(f"no London set in {LONDON}: name its folder in STUDYLIB_LONDON")
    return LONDON


@pytest.fixture(scope="session")
def lfw_root() -> Path:
    """LFW's people: a folder of `lfw_people`'s layouts, or a zip file."""
    if not LFW.exists():
        pytest.skip(f"no LFW people in {LFW}: name their folder or zip file in STUDYLIB_LFW")
    return LFW


@pytest.fixture
def own_pictures(tmp_path) -> Path:
    """Six people of the ORL set in the layout of a reader's own pictures, with made-up groups."""
    return pictures.orl_folder(
        tmp_path / "pictures", people=6, each=4, race=lambda s: "green" if s % 2 else "violet"
    )


@pytest.fixture(scope="session")
def rfw_scores() -> Path:
    """A public release of RFW scores: columns group, pair, genuine, and a score a network."""
    if not RFW_SCORES.is_file():
        pytest.skip(f"no RFW scores in {RFW_SCORES}: name the CSV in STUDYLIB_RFW_SCORES")
    return RFW_SCORES


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    """Two people with two noise pictures each, in the layout of the reader's own data."""
    rng = np.random.default_rng(0)
    for subject in ("ada", "bob"):
        (tmp_path / subject).mkdir()
        for k in (1, 2):
            pixels = rng.integers(0, 256, (40, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / subject / f"{k}.png")
    return tmp_path


@pytest.fixture
def simulated_pairs() -> pd.DataFrame:
    """Scores of all pairs of 12 people with 4 faces each; people differ in how alike they look."""
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(12), 4)
    a, b = np.triu_indices(len(subject), 1)
    genuine = subject[a] == subject[b]
    ease = rng.normal(0, 0.1, 12)
    scores = rng.normal(np.where(genuine, 0.6, 0.0), 0.2) + np.where(genuine, ease[subject[a]], 0)
    table = pd.DataFrame({"subject_a": subject[a], "subject_b": subject[b], "genuine": genuine})
    table["race_a"] = np.where(subject[a] < 8, "green", "violet")
    table["race_b"] = np.where(subject[b] < 8, "green", "violet")
    return table.assign(
        score_fp32=scores.astype(np.float32),
        score_w4a4=(scores + rng.normal(0, 0.3, len(scores))).astype(np.float32),
    )
