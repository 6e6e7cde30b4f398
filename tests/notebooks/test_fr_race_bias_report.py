"""The report on quantised networks, from made-up runs: stock papermill, then the saved tables."""

import papermill
import pytest

from studylib import errors
from tests.fixtures import race_runs
from tests.notebooks.test_chapters import charts, execute
from tests.notebooks.test_fer_report import texts

RACES = ("african", "asian", "caucasian", "indian")


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_a_planted_rise_and_what_synthetic_faces_spare(tmp_path):
    kinds = [("iresnet", "balanced", (0, 1, 2)), ("mobilefacenet", "skewed", (0, 1))]
    layout = {"people": 30, "per_group": 300}
    race_runs.write_runs(tmp_path / "runs", kinds, damage=0.3, relief=0.2, **layout)
    found = execute(tmp_path, "fr_race_bias_report", runs_dir=str(tmp_path / "runs"), resamples=100)
    assert charts(tmp_path) == 4
    assert len(found.table("runs")) == 15 and len(found.outcomes) == 1200

    tested = found.table("tested")
    main = tested[tested["over"] == "all networks"]
    assert set(main["tests"]) == {20}  # 3 sources and 2 others, 2 precisions, 2 metrics
    std = main[main["metric"] == "std"].set_index(["reference", "column"])
    assert (std["networks"] == 5).all() and (std["repeats"] == 3).all()
    rise, spared = std.loc[("fp32", "real/w4a4")], std.loc[("real/w4a4", "generator/w4a4")]
    assert rise["value"] > 0.05 and rise["p_holm"] < 0.05
    assert spared["value"] < -0.03 and spared["p_holm"] < 0.05
    assert std.loc[("fp32", "real/w8a8"), "p_holm"] > 0.05

    text = texts(tmp_path)
    for said in (
        "5 networks (trainings of iresnet on balanced: 3, mobilefacenet on skewed: 2)",
        "- real (5 networks): the first resolved rise is at w4a4",
        "**Generator minus real**",
        "in 10 scenarios",
        "**Other sources minus real**",
    ):
        assert said in text
    assert "nan" not in text
    assert set(found.table("noise")["metric"]) == {"std", "ser"}
    assert found.table("benchmarks").empty
    drops = found.table("drops").set_index(["architecture", "precision"])
    assert drops.loc[("iresnet", "w4a4"), "published"] == "not found"
    assert drops.loc[("mobilefacenet", "w8a8"), "published"] == "-0.55 (-1.25 to -0.12)"


@pytest.mark.filterwarnings("ignore")
def test_one_network_on_rfw_and_on_a_benchmark(tmp_path):
    kinds = [("iresnet50", "bupt_balancedface", (0,))]
    given = {"groups": RACES, "eval_set": "rfw", "people": 20, "per_group": 200}
    race_runs.write_runs(tmp_path / "runs", kinds, sources=("real",), **given)
    bench = {"groups": ("everybody",), "eval_set": "lfw", "people": 40, "per_group": 400}
    race_runs.write_runs(tmp_path / "other", kinds, sources=("real",), **bench)
    made = tmp_path / "other" / "fr_race_bias" / "quick-iresnet50-bupt_balancedface-0-real"
    made.rename(tmp_path / "runs" / "fr_race_bias" / "quick-lfw")
    asked = {"runs_dir": str(tmp_path / "runs"), "resamples": 100, "draws": 500}
    found = execute(tmp_path, "fr_race_bias_report", **asked)
    assert set(found.outcomes["group"]) == set(RACES)
    assert charts(tmp_path) == 3  # nothing was quantised on other faces than real ones
    assert (found.table("tested")["repeats"] == 0).all()
    assert found.table("benchmarks")["precision"].tolist() == ["fp32", "w8a8", "w4a4"]
    text = texts(tmp_path)
    assert "one of two networks" in text and "800 test pairs of rfw, 50% of them genuine" in text
    assert "All networks are of one architecture and one training set." in text
    assert "No network was quantised on real faces and on others too." in text
    assert "Nothing to compare: no network has both columns of *generator minus real*" in text


@pytest.mark.filterwarnings("ignore")
def test_own_thresholds_are_refused_as_the_rule_of_intervals(tmp_path):
    asked = {"runs_dir": str(tmp_path), "rule": "per_group_10fold"}
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, "fr_race_bias_report", **asked)
    choices = "global_best_accuracy, global_best_accuracy_minus_std"
    said = {"what": "rule of one threshold", "value": "per_group_10fold", "choices": choices}
    assert errors.UNKNOWN_NAME.format(**said) in caught.value.evalue


@pytest.mark.filterwarnings("ignore")
def test_a_source_that_no_run_has_is_refused(tmp_path):
    kinds = [("iresnet", "balanced", (0,))]
    small = {"people": 10, "per_group": 40, "sources": ("real", "noise")}
    race_runs.write_runs(tmp_path / "runs", kinds, **small)
    asked = {"runs_dir": str(tmp_path / "runs"), "real": "photographs"}
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, "fr_race_bias_report", **asked)
    said = {"what": "source", "value": "photographs", "choices": "noise, real"}
    assert errors.UNKNOWN_NAME.format(**said) in caught.value.evalue
    assert not (tmp_path / "run" / "run.json").exists()
