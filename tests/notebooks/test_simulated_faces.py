"""The chapter on simulated faces, run by stock papermill with very few of them."""

import contextlib
from pathlib import Path

import papermill
import pytest

from studylib import runs
from studylib.synthetic import simfactors

PROJECT = Path(__file__).parents[2]
FEW = {"size": 32, "n_train": 96, "n_test": 64, "width": 0.125, "epochs": 1, "resamples": 50}


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_simulated_faces(tmp_path):
    with contextlib.chdir(PROJECT):
        papermill.execute_notebook(
            "notebooks/simulated_faces.ipynb",
            tmp_path / "out.ipynb",
            parameters=FEW | {"device": "cpu", "out_dir": str(tmp_path / "run")},
            kernel_name="python3",
            progress_bar=False,
        )
    found = runs.read(tmp_path / "run")
    assert found.table("factors")["factor"].tolist() == list(simfactors.FACTORS)
    assert found.table("recipes")["expression"].tolist() == list(simfactors.EXPRESSIONS)

    outcomes = found.outcomes
    assert len(outcomes) == 64 and outcomes["subject"].nunique() == 8
    assert outcomes["predicted_network"].between(0, 6).all()
    assert outcomes["intensity"].eq(0).eq(outcomes["label"] == 0).all()
    accuracies = found.table("accuracies")
    assert set(accuracies["variant"]) == {"network", "linear"}
    linear = accuracies[accuracies["variant"] == "linear"].iloc[0]
    right = (outcomes["predicted_linear"] == outcomes["label"]).mean()
    assert linear["value"] == pytest.approx(right) and linear["low"] <= right <= linear["high"]

    page = (tmp_path / "out.ipynb").read_text()
    assert "give the same pictures: **True**" in page
    assert page.count("data:image/jpeg") >= 7 and page.count("vnd.vegalite") >= 1
