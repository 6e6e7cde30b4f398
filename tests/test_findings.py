import numpy as np
import pandas as pd
import pytest

from studylib import compare, errors, findings
from studylib.metrics import uncertainty, verification
from studylib.runs import Finished


def differences(**rows):
    return pd.DataFrame(
        [
            {"variant": v, "metric": "TAR@FAR=1e-3", "difference": d, "low": low, "high": high}
            for v, (d, low, high) in rows.items()
        ]
    )


def test_first_resolved_drop_and_cliff_are_told_apart():
    table = differences(
        w8a8=(0.0, -0.004, 0.004),
        w6a6=(-0.001, -0.005, 0.003),
        w5a5=(-0.43, -0.6, -0.14),
        w4a4=(-1.0, -1.0, -0.99),
        w4=(-0.001, -0.006, 0.003),
    )
    text = findings.cliff(table, reference="fp32")
    assert "first resolved drop of TAR@FAR=1e-3 from fp32 is at w5a5, 43.00 points" in text
    assert "(95 % interval 14.00 to 60.00)" in text
    assert "the step that costs most, lies between w5a5 and w4a4, 57.00 points" in text
    assert "**weights only**: no drop of TAR@FAR=1e-3 from fp32 is resolved down to w4" in text
    assert "the intervals reach down to 0.60 points" in text


def test_nothing_to_compare():
    empty = differences(w8=(0, 0, 0)).iloc[:0]
    assert "Only fp32 was run" in findings.cliff(empty, reference="fp32")
    assert "<td" not in findings.differences_table(empty).to_html()


def test_cliff_at_the_first_step():
    text = findings.cliff(differences(w8=(-0.2, -0.3, -0.1)), reference="fp32")
    assert "is at w8, 20.00 points" in text
    assert "lies between fp32 and w8, 20.00 points" in text
    assert "activations" not in text


def test_tables_show_percent_with_intervals_and_a_star_where_resolved():
    html = findings.differences_table(
        differences(w8a8=(0.0, -0.004, 0.004), w4a4=(-0.5, -0.6, -0.4))
    ).to_html()
    assert "+0.00 (-0.40 to +0.40)" in html and "-50.00 (-60.00 to -40.00) *" in html
    rates = pd.DataFrame([{"variant": "fp32", "metric": "EER", "value": 0.01, "low": 0, "high": 1}])
    assert "1.00 (0.00 to 100.00)" in findings.rates_table(rates).to_html()


def group_rates(*rows):
    columns = ["group", "value", "low", "high", "n_subjects"]
    return pd.DataFrame(rows, columns=columns).assign(metric="FMR", variant="fp32", n_pairs=99)


def test_groups_warn_about_sizes_and_name_only_what_parts():
    table = group_rates(
        ("race: a", 0.01, 0.005, 0.02, 69),
        ("race: b", 0.05, 0.03, 0.09, 13),
        ("race: c", 0.03, 0.001, 0.2, 9),
        ("gender: d", 0.2, 0.15, 0.3, 9),
    )
    alike = table.assign(variant="w4a4", low=0.0, high=1.0)
    text = findings.groups(pd.concat([table, alike]), reference="fp32", fmr=0.01)
    assert text.startswith("> **Warning.** The smallest groups here are race: c 9, gender: d 9,")
    assert "the fp32 interval of race: c alone runs from 0.10% to 20.00%" in text
    assert text.endswith("- fp32: race: a below race: b.\n- w4a4: none.")


def test_no_groups_no_claim():
    empty = pd.DataFrame(columns=uncertainty.GROUP_RATES)
    assert findings.groups(empty, reference="fp32", fmr=0.01).startswith("No group result")
    assert findings.group_chart(empty, target=0.01, source="s") is None


def test_training_table():
    logs = {"w4a4": pd.DataFrame({"loss": [4.0] * 5 + [1.0] * 5})}
    table = findings.training_table(logs)
    assert table.iloc[0].tolist() == ["w4a4", 10, 4.0, 1.0]
    assert findings.training_table({}).empty


@pytest.fixture
def finished_runs(simulated_pairs, tmp_path):
    """Two runs on the same pairs: calibration alone, and training that wins back most of it."""
    rng = np.random.default_rng(5)
    pairs = simulated_pairs.assign(item_a=range(len(simulated_pairs)), item_b=0)
    pairs["score_w8a8"] = pairs["score_fp32"]
    trained = pairs["score_fp32"] + rng.normal(0, 0.1, len(pairs))
    runs = []
    for name, w4a4 in (("ptq", pairs["score_w4a4"]), ("qat", trained)):
        folder = tmp_path / f"quick-{name}"
        folder.mkdir()
        pairs.assign(score_w4a4=w4a4).to_parquet(folder / "outcomes.parquet")
        runs.append(Finished(folder, {"profile": "quick", "parameters": {}}))
    return runs


def test_runs_are_joined_and_compared_on_the_same_pairs(finished_runs):
    table = compare.join_outcomes(finished_runs)
    names = compare.variants(table)
    assert names == [f"{run}/{v}" for run in ("ptq", "qat") for v in ("fp32", "w4a4", "w8a8")]
    drawn = uncertainty.resample(
        table, names, {"TAR@FAR=1e-3": verification.STATISTICS["TAR@FAR=1e-2"]}, resamples=300
    )
    rows = compare.between(drawn, "qat", "ptq", ["w4a4", "w8a8", "w2a2"]).set_index("variant")
    assert rows.loc["w4a4", "low"] > 0 and list(rows["series"]) == ["qat", "qat"]
    text = findings.between_runs(rows.reset_index(), "training", "calibration")
    assert text.startswith("**Training minus calibration**")
    difference = 100 * rows.loc["w4a4", "difference"]
    assert f"- w4a4: {difference:+.2f} points of TAR@FAR=1e-3 (95 % interval" in text
    assert "- w8a8: +0.00 points" in text and text.endswith("not resolved.")
    absent = compare.between(drawn, "qat", "other", ["w4a4"])
    assert "No precision was run with both" in findings.between_runs(absent, "a", "b")

    won = compare.recoveries(drawn, "ptq", "qat", ["w8a8", "w4a4"]).set_index("variant")
    assert np.isnan(won.loc["w8a8", "share"])
    base, lost = drawn.values[0, 0, 0], drawn.values[1, 0, 0]
    after = drawn.values[4, 0, 0]
    assert won.loc["w4a4", "share"] == pytest.approx((after - lost) / (base - lost))
    assert won.loc["w4a4", "low"] < won.loc["w4a4", "share"] < won.loc["w4a4", "high"]
    text = findings.recovered(won.reset_index(), "qat")
    assert "w8a8" not in text
    assert f"- w4a4, TAR@FAR=1e-3: {won.loc['w4a4', 'share']:.0%} (95 % interval" in text
    nothing = findings.recovered(won.loc[["w8a8"]].reset_index(), "qat")
    assert "nothing resolved was lost" in nothing
    absent = compare.recoveries(drawn, "other", "qat", ["w4a4"])
    assert "has no precision" in findings.recovered(absent, "qat")


def test_runs_on_other_pairs_are_refused(finished_runs):
    first, other = finished_runs
    other.outcomes["item_a"] = other.outcomes["item_a"].to_numpy()[::-1]
    with pytest.raises(errors.RunError, match="The runs ptq and qat scored different pairs"):
        compare.join_outcomes([first, other])
