"""Training and its report, by stock papermill: simulated people, and sets in their real layouts."""

import numpy as np
import pytest

from studylib import models, runs, train_recognition
from tests.fixtures import fr_files, fr_trees
from tests.notebooks.test_chapters import charts, execute

QUICK = {
    "settings": {"depth": [1, 1, 1, 1], "width": 0.0625, "embedding": 16},
    "size": 32,
    "epochs": 1,
    "batch_size": 8,
    "milestones": [],
    "resamples": 100,
    "device": "cpu",
}
GROUPS = ("african", "asian", "caucasian", "indian")
PEOPLE = {"n_people": 25, "per_person": 2, "n_test_people": 80, "per_test_person": 3}
SIMULATED = QUICK | PEOPLE | {"pairs_per_group": 60}


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_simulated_people_trained_twice_and_compared(tmp_path):
    made = tmp_path / "runs" / "fr_training"
    made.mkdir(parents=True)
    for name, settings in {"smoke-a": {}, "smoke-b": {"shares": "skewed"}}.items():
        (folder := tmp_path / name).mkdir()
        one = execute(folder, "fr_training", **SIMULATED, **settings)
        runs.write_record(one.folder, one.record | {"profile": "smoke"})
        one.folder.rename(made / name)
    found = runs.read(made / "smoke-a")
    assert len(found.outcomes) == 240
    assert found.outcomes["score_fp32"].between(-1, 1).all()
    assert found.outcomes.groupby(["group", "fold"])["genuine"].mean().eq(0.5).all()
    _, about = models.read(made / "smoke-a" / train_recognition.NETWORK)
    assert about["trained_on"] == "balanced" and about["settings"]["size"] == 32

    accuracy = found.table("rates").query("metric == 'accuracy' and rule == 'per_group_10fold'")
    assert accuracy["group"].tolist() == list("ABCD")
    assert (accuracy["low"] <= accuracy["value"]).all()
    assert set(found.table("panel")["key"]) >= {"std", "ser"}

    of = {"runs_dir": str(tmp_path / "runs"), "profile": "smoke", "resamples": 100}
    report = execute(tmp_path, "fr_training_report", **of)
    assert charts(tmp_path) == 2
    assert report.table("networks")["trained on"].tolist() == ["balanced", "skewed"]
    differences = report.table("differences")
    assert differences["metric"].tolist() == ["accuracy", "std"]
    rates = report.table("rates").query("rule == 'global_best_accuracy' and metric == 'accuracy'")
    means = 100 * rates.groupby("network")["value"].mean()
    assert differences["difference"].iloc[0] == pytest.approx(means["b"] - means["a"])


@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for k in "12":
        (tmp_path / k).mkdir()
    one, two = (execute(tmp_path / k, "fr_training", **SIMULATED) for k in "12")
    assert one.record["outcomes_sha256"] == two.record["outcomes_sha256"]


@pytest.mark.filterwarnings("ignore")
def test_bupt_in_folders_and_rfw_with_its_lists(tmp_path):
    root = fr_trees.identity_tree(tmp_path / "bupt")
    test = fr_trees.rfw_tree(tmp_path / "rfw")
    sets = {"data_set": "bupt_balancedface", "data_root": str(root)}
    sets |= {"eval_set": "rfw", "eval_root": str(test)}
    found = execute(tmp_path, "fr_training", **QUICK, **sets)
    assert found.outcomes.groupby("group").size().to_dict() == dict.fromkeys(GROUPS, 60)
    assert (tmp_path / "bupt-packed-32" / "manifest.json").exists()
    (tmp_path / "again").mkdir()
    again = execute(tmp_path / "again", "fr_training", **QUICK, **sets)  # opens what was packed
    assert again.record["outcomes_sha256"] == found.record["outcomes_sha256"]


@pytest.mark.filterwarnings("ignore")
def test_recordio_and_a_bin_that_names_no_groups(tmp_path):
    root = fr_files.records_tree(tmp_path / "ms1mv2")
    test = fr_files.benchmark(tmp_path / "lfw.bin")
    sets = {"data_set": "ms1mv2", "data_root": str(root)}
    sets |= {"eval_set": "lfw", "eval_root": str(test), "packed_dir": str(tmp_path / "packed")}
    found = execute(tmp_path, "fr_training", **QUICK, **sets)
    assert found.outcomes["group"].tolist() == ["everybody"] * 20
    assert found.table("panel").empty
    assert np.isfinite(found.outcomes["score_fp32"]).all()
