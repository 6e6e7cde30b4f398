"""An audit's numbers as tables: the report's own, with their units."""

import numpy as np
import pandas as pd
import pytest

from studylib import audit
from studylib.audit import frames


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    rng = np.random.default_rng(0)
    n = 1200
    table = pd.DataFrame({"genuine": np.arange(n) % 2 == 0, "group": np.repeat(list("xyz"), 400)})
    table["score_a"] = table["genuine"] + rng.normal(size=n)
    table["score_b"] = table["score_a"] + (table["group"] == "z") * rng.normal(size=n)
    path = tmp_path_factory.mktemp("audit") / "pairs.parquet"
    table.to_parquet(path)
    return audit.audit(path, fmr=0.05, resamples=100)


def test_rates_are_fractions_of_what_they_count(report):
    rules = report["scores"]["score_a"]["rules"]
    table = frames.rates(rules)
    assert len(table) == len(rules) * 3 * 3
    row = table[(table["rule"] == "global_fmr") & (table["group"] == "y")].set_index("metric")
    told = rules["global_fmr"]["groups"]["y"]
    assert row["value"].to_dict() == {
        "accuracy": told["accuracy"] / 100,
        "FMR": told["fmr"] / 100,
        "FNMR": told["fnmr"] / 100,
    }
    assert row["n"].to_dict() == {"accuracy": 400, "FMR": 200, "FNMR": 200}
    assert row.loc["FMR", "value"] == told["false_matches"] / 200
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_the_panel_has_values_intervals_and_bands(report):
    rules = report["scores"]["score_b"]["rules"]
    table, left_out = frames.panel(rules)
    part = rules["global_best_accuracy"]
    row = table.query("rule == 'global_best_accuracy' and key == 'std'").iloc[0]
    assert row["value"] == part["fairness"]["std"]
    assert [row["low"], row["high"]] == part["fairness_intervals"]["std"]
    assert row["null_low"] == 0 and row["null_high"] == part["null_bands"]["std"][-1]
    assert left_out == []
    assert table["metric"].notna().all()


def test_no_groups_no_panel(tmp_path):
    table = pd.DataFrame({"genuine": [True, False] * 20, "group": "all"})
    table["score"] = np.linspace(0, 1, 40)
    table.to_csv(tmp_path / "t.csv")
    report = audit.audit(tmp_path / "t.csv", fmr=0.1, resamples=100)
    panel, _ = frames.panel(report["scores"]["score"]["rules"])
    assert panel.empty and "value" in panel


def test_differences_are_those_that_were_tested(report):
    table = frames.differences(report, "global_best_accuracy")
    assert set(table["score"]) == {"score_b"} and set(table["reference"]) == {"score_a"}
    assert table["p"].notna().all()
    told = next(
        d
        for d in report["differences"]
        if (d["rule"], d["group"], d["metric"]) == ("global_best_accuracy", "z", "accuracy")
    )
    row = table[(table["group"] == "z") & (table["metric"] == "accuracy")].iloc[0]
    assert [row["difference"], row["low"], row["high"]] == [told["difference"], *told["interval"]]
    assert row["difference"] < 0 and row["p_holm"] < 0.05  # z alone was made noisier
    assert {"all", "x", "y", "z"} == set(table["group"])
