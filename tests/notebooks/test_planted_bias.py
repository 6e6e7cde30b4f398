"""The chapter that plants a gap, run by stock papermill on very small studies."""

import re
from pathlib import Path

import numpy as np
import papermill
import pytest

from studylib import runs
from studylib.metrics import testing

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "planted_bias.ipynb"
TINY = {
    "trainings": 2,
    "n_train": 96,
    "epochs": 1,
    "null_tests": 3,
    "null_faces": 96,
    "truth_faces": 160,
    "tests": 2,
    "people": [2, 3],
    "size": 32,
    "width": 0.125,
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
    sizes = {
        "none 0": 96,
        "none 1": 96,
        "none 2": 96,
        "truth": 2 * 160,
        "planted 0": 96,
        "planted 1": 96,
    }
    assert outcomes["test"].value_counts().to_dict() == sizes
    assert outcomes.groupby("subject")["test"].nunique().max() == 1  # every test has its own people

    null = found.table("null").set_index("test")
    for number in range(3):
        table = outcomes[outcomes["test"] == f"none {number}"]
        accuracy = (table["predicted_fp32_none"] == table["label"]).groupby(table["group"]).mean()
        assert null.loc[number, "gap"] == pytest.approx(accuracy.max() - accuracy.min())
    alarms = (null["p"] <= testing.ALPHA).sum()
    page = re.sub(r'",\s*"', "", (tmp_path / "out.ipynb").read_text())
    assert f"reported in {alarms} of 3 tests with nothing to find" in page

    truth = outcomes[outcomes["test"] == "truth"]
    assert truth["training"].value_counts().to_dict() == {0: 160, 1: 160}
    right = (truth["predicted_fp32_skewed"] == truth["label"]).groupby(truth["group"]).mean()
    lead = right["A"] - right.drop("A").mean()
    assert f"under equal shares and {100 * lead:+.1f} under skewed" in page
    planted = found.table("planted").set_index(["variant", "group"])["value"]
    assert planted.loc["fp32_skewed"].to_dict() == pytest.approx(right.to_dict())
    detected = found.table("detected")
    assert detected["n"].tolist() == [16, 24]
    assert (detected["low"] <= detected["found"] + 1e-9).all()
    assert np.isfinite(found.table("compression")["change"]).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"common": 1.5}, "common must lie strictly between 0 and 1, got 1.5"),
        ({"null_tests": 1}, "null_tests must be at least 2, got 1"),
        ({"people": []}, "people must be at least 2, got 0"),
        ({"variant": "z9"}, "'z9' is no variant"),
        ({"tets": 3}, "knows no parameter 'tets'.*did you mean 'tests'"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, **parameters)
    assert re.search(message, caught.value.evalue)
    assert not (tmp_path / "run" / "run.json").exists()
