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


def test_cliff_is_the_finest_precision_with_a_resolved_drop():
    table = differences(
        w8a8=(0.0, -0.004, 0.004),
        w6a6=(-0.001, -0.005, 0.003),
        w5a5=(-0.43, -0.6, -0.14),
        w4a4=(-1.0, -1.0, -0.99),
        w4=(-0.001, -0.006, 0.003),
    )
    text = findings.cliff(table, reference="fp32")
    assert "the cliff lies at w5a5 (w6a6 still holds): TAR@FAR=1e-3 is 43.00 points lower" in text
    assert "(95 % interval 14.00 to 60.00)" in text
    assert "**weights only**: down to w4, no drop" in text
    assert "a drop of more than 0.60 points is ruled out" in text


def test_nothing_to_compare():
    empty = differences(w8=(0, 0, 0)).iloc[:0]
    assert "Only fp32 was run" in findings.cliff(empty, reference="fp32")
    assert "<td" not in findings.differences_table(empty).to_html()


def test_cliff_at_the_first_step():
    text = findings.cliff(differences(w8=(-0.2, -0.3, -0.1)), reference="fp32")
    assert "the cliff lies at w8 (no finer precision was tried)" in text
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
    text = findings.groups(table, reference="fp32", fmr=0.01)
    assert "race: c 9" in text and "the interval of race: c alone runs from 0.10% to 20.00%" in text
    assert text.endswith("part are: race: a below race: b.")


def test_no_groups_no_claim():
    empty = pd.DataFrame(columns=uncertainty.GROUP_RATES)
    assert findings.groups(empty, reference="fp32", fmr=0.01).startswith("This set says nothing")
    assert findings.group_chart(empty, target=0.01, source="s").startswith("This set says nothing")


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
    text = findings.between_sources(rows.reset_index(), "training", "calibration")
    assert "- w4a4: TAR@FAR=1e-3 is" in text and "higher with training" in text
    assert "- w8a8: no difference is resolved" in text

    won = compare.recoveries(drawn, "ptq", "qat", ["w8a8", "w4a4"]).set_index("variant")
    assert np.isnan(won.loc["w8a8", "share"])
    base, lost = drawn.values[0, 0, 0], drawn.values[1, 0, 0]
    after = drawn.values[4, 0, 0]
    assert won.loc["w4a4", "share"] == pytest.approx((after - lost) / (base - lost))
    assert won.loc["w4a4", "low"] < won.loc["w4a4", "share"] < won.loc["w4a4", "high"]
    text = findings.recovered(won.reset_index())
    assert "- w8a8: calibration alone lost nothing that is resolved." in text
    assert f"training won back {won.loc['w4a4', 'share']:.0%} of them" in text


def test_runs_on_other_pairs_are_refused(finished_runs):
    first, other = finished_runs
    other.outcomes["item_a"] = other.outcomes["item_a"].to_numpy()[::-1]
    with pytest.raises(errors.RunError, match="The runs ptq and qat scored different pairs"):
        compare.join_outcomes([first, other])
