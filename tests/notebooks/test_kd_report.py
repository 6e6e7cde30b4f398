"""The report on distilled students, from made-up runs: stock papermill, then the saved tables."""

import papermill
import pytest

from studylib import errors
from tests.fixtures import kd_runs
from tests.notebooks.test_chapters import charts, execute
from tests.notebooks.test_fer_report import texts


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_a_planted_gain_two_architectures_and_another_loss(tmp_path):
    given = {"kinds": ("iresnet", "mobilefacenet"), "losses": (kd_runs.KD, "kd: rkd")}
    layout = {"people": 30, "per_group": 300}
    kd_runs.write_runs(
        tmp_path / "runs", gain=0.25, damage=0.2, seeds=(0, 1), teachers=2, **given, **layout
    )
    real = {"real": kd_runs.SETS["real"]}  # a kind that was trained on real faces alone
    kd_runs.write_runs(
        tmp_path / "runs", sets=real, heads=("adaface",), seeds=(0, 1), teachers=0, **layout
    )
    found = execute(tmp_path, "kd_report", runs_dir=str(tmp_path / "runs"), resamples=100)
    assert charts(tmp_path) == 8
    assert len(found.table("students")) == 40 and len(found.outcomes) == 1200

    gained = found.table("gained").query("over == 'all networks'").set_index("metric")
    assert (gained["networks"] == 4).all() and (gained["repeats"] == 2).all()
    assert gained.loc["accuracy", "value"] > 0.05 and gained.loc["accuracy", "p_holm"] < 0.05
    assert set(gained["tests"]) == {2}
    gaps = found.table("gaps").query("over == 'all networks' and metric == 'accuracy'")
    assert set(gaps["reference"]) == {
        "real/alone", f"real/{kd_runs.KD}", "the gap without a teacher",
    }  # fmt: skip
    assert found.table("closed").set_index("metric").loc["worst", "value"] > 0
    assert set(found.table("other_losses")["column"]) == {"kd: rkd"}
    assert set(found.table("spared")["precision"]) == {"w8a8", "w4a4"}
    assert set(found.table("verdicts")["key"]) >= {"every-group", "narrower", "not-fairer"}
    assert found.table("likeness")["metric"].nunique() == 4
    assert "teacher" in set(found.table("levels")["architecture"])

    text = texts(tmp_path)
    for said in (
        "Each student was trained with 2 seed(s)",
        "40 students, and 1 network(s) that taught; 1,200 test pairs of simfaces",
        "- Distillation raises the accuracy of these students: +",
        "Distillation on synthetic makes up for",
        "learnt alone in w4a4, more in nothing; not resolved: w8a8.",
        "- kd: rkd less kd: embedding (4 networks): accuracy ",
        "- accuracy, mobilefacenet, kd: embedding: highest at ",
        "- **other studies** (2): ",
        "- **Short trainings:** the loss still fell by more than 5% an epoch when the rate was",
        "each with its mean over mix 30%, real, synthetic; for the worst group",
        "- iresnet adaface on real (2 networks): accuracy ",
        "- The teacher teacher-0 was trained on 640 identities of simfaces, the students' real set",
    ):
        assert said in text
    assert text.count("other people, so that what distillation adds") == 3  # above the claims too
    assert found.table("sizes")["synthetic_share"].tolist() == [0, 0.3, 1]
    assert sorted(found.table("trained")["trainings"]) == [1] * 2 + [4] * 7 + [6] * 2
    assert "nan" not in text.replace("nance", "")


@pytest.mark.filterwarnings("ignore")
def test_few_runs_on_rfw_without_a_mix_or_a_teachers_run(tmp_path):
    races = ("african", "asian", "caucasian", "indian")
    sets = {name: kd_runs.SETS[name] for name in ("real", "synthetic")}
    kd_runs.write_runs(
        tmp_path / "runs", sets=sets, seeds=(0,), groups=races, people=20, per_group=200
    )
    asked = {"runs_dir": str(tmp_path / "runs"), "teacher_experiment": None, "resamples": 100}
    found = execute(tmp_path, "kd_report", **asked)
    assert set(found.outcomes["group"]) == set(races)
    assert charts(tmp_path) == 7  # no sweep of shares
    assert (found.table("gained")["repeats"] == 0).all()
    assert found.table("other_losses").empty
    text = texts(tmp_path)
    assert "No architecture was trained on three shares of synthetic faces." in text
    assert "Nothing else was taught" in text and "There are none." in text
    assert "No student was trained with two seeds" in text
    verdicts = found.table("verdicts").set_index("key")["verdict"]
    assert verdicts["mix"] == "no figures found" and verdicts["every-group"] != verdicts["mix"]


@pytest.mark.filterwarnings("ignore")
def test_a_training_set_that_no_run_has_is_refused(tmp_path):
    kd_runs.write_runs(tmp_path / "runs", seeds=(0,), people=10, per_group=40)
    asked = {"runs_dir": str(tmp_path / "runs"), "synthetic": "drawings"}
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, "kd_report", **asked)
    choices = "mix 30%, real, synthetic"
    said = {"what": "training set", "value": "drawings", "choices": choices}
    assert errors.UNKNOWN_NAME.format(**said) in caught.value.evalue
    assert not (tmp_path / "run" / "run.json").exists()
