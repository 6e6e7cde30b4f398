"""A teacher by stock papermill: simulated people, and sets in their real layouts."""

import pytest

from studylib import models, train_recognition
from tests.fixtures import fr_trees
from tests.notebooks.test_chapters import charts, execute

TINY = {
    "settings": {"depth": [1, 1, 1, 1], "width": 0.0625, "embedding": 16},
    "size": 32,
    "epochs": 1,
    "batch_size": 8,
    "milestones": [],
    "resamples": 100,
    "device": "cpu",
}
PEOPLE = {"n_people": 20, "per_person": 2, "n_test_people": 80, "per_test_person": 3}


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_simulated_people(tmp_path):
    pairs = {"pairs_per_group": 60, "domain_pairs": 60}
    found = execute(tmp_path, "kd_teacher", **TINY, **PEOPLE, **pairs)
    assert len(found.outcomes) == 240
    assert found.outcomes.groupby(["group", "fold"])["genuine"].mean().eq(0.5).all()
    _, about = models.read(found.folder / train_recognition.NETWORK)
    assert about["settings"]["size"] == 32 and about["trained_on"] == "simfaces"
    network = found.table("network").iloc[0]
    assert network[["architecture", "training_set", "training_seed"]].tolist() == [
        "iresnet",
        "real",
        0,
    ]
    accuracy = found.table("rates").query("metric == 'accuracy' and rule == 'per_group_10fold'")
    assert accuracy["group"].tolist() == list("ABCD")
    domains = found.table("domains")
    assert set(domains["domain"]) == {"camera", "generator"}
    assert domains[["low", "value", "high"]].stack().between(0, 1).all()
    assert charts(tmp_path) == 1


@pytest.mark.filterwarnings("ignore")
def test_bupt_in_folders_and_rfw_with_its_lists(tmp_path):
    sets = {
        "real_set": "bupt_balancedface",
        "real_root": str(fr_trees.identity_tree(tmp_path / "bupt")),
        "eval_set": "rfw",
        "eval_root": str(fr_trees.rfw_tree(tmp_path / "rfw")),
    }
    found = execute(tmp_path, "kd_teacher", **TINY, **sets)
    groups = ("african", "asian", "caucasian", "indian")
    assert found.outcomes.groupby("group").size().to_dict() == dict.fromkeys(groups, 60)
    assert not (found.folder / "domains.parquet").exists()
    assert "no generated faces of the same people" in (tmp_path / "out.ipynb").read_text()
