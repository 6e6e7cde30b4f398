"""Students by stock papermill: with and without a teacher, simulated and in real layouts."""

import numpy as np
import pytest
from papermill.exceptions import PapermillExecutionError

from studylib import errors, models, train_recognition
from tests.fixtures import fr_trees
from tests.notebooks.test_chapters import charts, execute

WIDTH = {"depth": [1, 1, 1, 1], "width": 0.0625, "embedding": 16}
TINY = {
    "settings": WIDTH,
    "size": 32,
    "epochs": 1,
    "batch_size": 8,
    "milestones": [],
    "n_calibration": 8,
    "resamples": 100,
    "device": "cpu",
}
PEOPLE = {"n_people": 20, "per_person": 2, "n_test_people": 80, "per_test_person": 3}
SIMULATED = TINY | PEOPLE | {"pairs_per_group": 60}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A network that was never trained: it teaches, too."""
    path = tmp_path_factory.mktemp("teacher") / train_recognition.NETWORK
    settings = WIDTH | {"width": 0.125, "size": 32}
    about = {"architecture": "iresnet", "settings": settings}
    models.save(models.build("iresnet", **settings, seed=3), path, about)
    return str(path)


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_a_mix_with_a_teacher_and_again(tmp_path, teacher):
    given = SIMULATED | {"training_set": "mix", "share": 0.4, "teacher": teacher}
    given |= {"cache": str(tmp_path / "cache")}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    found, again = (execute(tmp_path / name, "kd_student", **given) for name in ("one", "two"))
    assert found.record["outcomes_sha256"] == again.record["outcomes_sha256"]
    caches = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    assert len(caches) == 1  # the second student read what the first one's teacher had said

    scores = [c for c in found.outcomes if c.startswith("score_")]
    assert scores == [f"score_{v}" for v in ("fp32", "teacher", "w8a8", "w4a4", "s50")]
    assert len(found.outcomes) == 240 and found.outcomes[scores].stack().between(-1, 1).all()
    assert found.outcomes["score_w4a4"].ne(found.outcomes["score_fp32"]).any()
    about = found.table("network").iloc[0].to_dict()
    assert about == {
        "architecture": "iresnet",
        "training_set": "mix",
        "share": 0.4,
        "synthetic_share": 0.4,
        "taught": "kd: embedding",
        "loss": "cosface",
        "training_seed": 0,
        "size": 32,
    }
    people = found.table("people")
    assert people.groupby("domain")["identities"].sum().to_dict() == {"real": 12, "synthetic": 8}
    assert found.table("history")["kd"].between(0, 4 / 16).all()
    agreement = found.table("agreement")
    assert agreement["what"].tolist() == ["same decision"] * 5 + ["cosine"] * 5
    assert (agreement["low"] <= agreement["value"]).all()
    rates = found.table("rates").query("metric == 'accuracy' and rule == 'per_group_10fold'")
    assert rates.groupby("variant")["group"].apply(list).eq([list("ABCD")] * 5).all()
    assert charts(tmp_path / "one") == 2


@pytest.mark.filterwarnings("ignore")
def test_alone_and_with_another_loss(tmp_path, teacher):
    for name in ("alone", "rkd"):
        (tmp_path / name).mkdir()
    alone = execute(tmp_path / "alone", "kd_student", **SIMULATED | {"compress": []})
    assert alone.table("network")["taught"].tolist() == ["alone"]
    assert [c for c in alone.outcomes if c.startswith("score_")] == ["score_fp32"]
    assert not (alone.folder / "agreement.parquet").exists()

    # any number of dimensions will do for what lies between faces
    other = {"settings": WIDTH | {"embedding": 8}, "teacher": teacher, "kd_loss": "rkd"}
    other |= {"balance": "constrained", "cache": str(tmp_path / "cache"), "compress": ["s50"]}
    found = execute(tmp_path / "rkd", "kd_student", **SIMULATED | other)
    assert found.table("network")["taught"].tolist() == ["kd: rkd constrained"]
    assert set(found.table("agreement")["what"]) == {"same decision"}
    assert {"kd_A", "kd_B", "kd_C", "kd_D"} <= set(found.table("history"))


@pytest.mark.filterwarnings("ignore")
def test_bupt_and_generated_identities_tested_on_rfw(tmp_path, teacher):
    real = fr_trees.identity_tree(tmp_path / "bupt", people=4)
    fake = fr_trees.identity_tree(tmp_path / "fake", groups=(), people=16, count=3)
    sets = {
        "real_set": "bupt_balancedface",
        "real_root": str(real),
        "synthetic_set": "identity_folder",
    }
    sets |= {"synthetic_root": str(fake), "training_set": "mix_equal_ids", "share": 0.5}
    sets |= {"eval_set": "rfw", "eval_root": str(fr_trees.rfw_tree(tmp_path / "rfw"))}
    sets |= {"packed_dir": str(tmp_path / "packed"), "cache": str(tmp_path / "cache")}
    found = execute(tmp_path, "kd_student", **TINY, **sets, teacher=teacher)
    races = [race.lower() for race in fr_trees.RACES]
    assert found.outcomes.groupby("group").size().to_dict() == dict.fromkeys(races, 60)
    people = found.table("people").set_index(["domain", "group"])["identities"].to_dict()
    assert people == {("real", race): 2 for race in races} | {("synthetic", "unknown"): 8}
    assert found.table("history")["kd"].notna().all()
    assert np.isfinite(found.outcomes["score_s50"]).all()


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_done_is_said_before_anything_is_drawn(tmp_path):
    with pytest.raises(PapermillExecutionError, match="w99") as caught:
        execute(tmp_path, "kd_student", compress=["s50", "w99"])
    assert caught.value.cell_index <= 3


@pytest.mark.filterwarnings("ignore")
def test_a_teacher_of_other_faces_is_refused(tmp_path, teacher):
    expected = errors.TEACHER_SIZE.format(teacher=teacher, found=32, wanted=40)
    with pytest.raises(PapermillExecutionError) as caught:
        execute(tmp_path, "kd_student", teacher=teacher)
    assert caught.value.evalue == expected and caught.value.cell_index <= 3
