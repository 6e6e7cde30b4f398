"""The chapter that plants a gap, run by stock papermill on very small studies."""

import re
from pathlib import Path

import numpy as np
import papermill
import pytest

from studylib import expression_compare, runs

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "planted_bias.ipynb"
TINY = {
    "planted_studies": 2,
    "n_train": 96,
    "n_test": 160,
    "epochs": 1,
    "null_studies": 3,
    "null_train": 96,
    "null_test": 96,
    "null_epochs": 1,
    "width": 0.125,
    "draws": 2,
    "resamples": 30,
    "device": "cpu",
}


def execute(folder, **parameters):
    out = folder / "run"
    papermill.execute_notebook(
        NOTEBOOK,
        folder / "out.ipynb",
        parameters=TINY | parameters | {"out_dir": str(out)},
        kernel_name="python3",
        progress_bar=False,
    )
    return out


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_what_the_chapter_says_follows_from_its_outcomes(tmp_path):
    found = runs.read(execute(tmp_path))
    outcomes = found.outcomes
    assert outcomes.groupby(["planted", "study"]).size().tolist() == [96] * 3 + [160] * 2
    # only planted studies have networks from skewed shares
    assert outcomes.loc[~outcomes["planted"], "predicted_fp32_skewed"].isna().all()
    assert outcomes.loc[outcomes["planted"], "predicted_fp32_skewed"].notna().all()

    null = found.table("null").set_index("study")
    for number, table in outcomes[~outcomes["planted"]].groupby("study"):
        accuracy = (table["predicted_fp32"] == table["label"]).groupby(table["group"]).mean()
        assert null.loc[number, "gap"] == pytest.approx(accuracy.max() - accuracy.min())
    alarms = (null["p"] <= expression_compare.ALPHA).sum()
    page = (tmp_path / "out.ipynb").read_text()
    assert f"reported in {alarms} of 3 studies with nothing to find" in page

    planted = found.table("planted")
    assert planted["study"].nunique() == 2 and set(planted["group"]) == set("ABCD")
    detected = found.table("detected")
    assert detected["n"].is_monotonic_increasing and detected["found"].between(0, 1).all()
    assert (detected["low"] <= detected["found"]).all()
    assert np.isfinite(found.table("compression")["change"]).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"common": 1.5}, "common must lie strictly between 0 and 1, got 1.5"),
        ({"null_studies": 1}, "null_studies must be at least 2, got 1"),
        ({"variant": "z9"}, "'z9' is no variant"),
        ({"studies": 3}, "knows no parameter 'studies'"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, **parameters)
    assert re.search(message, caught.value.evalue)
    assert not (tmp_path / "run" / "run.json").exists()
