from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studylib import compare, errors, findings, published, verdicts
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


PUBLISHED = Path(__file__).parents[1] / "book" / "published"


def kinds(*rows):
    return pd.DataFrame(rows, columns=["network", "architecture", "trained_on"])


def test_trainings_are_counted_by_kind():
    rows = [("a", "r", "x"), ("a", "r", "x"), ("b", "r", "x"), ("c", "m", "x")]
    text = findings.trainings(kinds(*rows))
    assert text.startswith("3 networks (trainings of r on x: 2, m on x: 1).")
    assert "differ by their seed alone" in text
    assert findings.trainings(kinds(rows[0])).startswith("1 network (trainings of r on x: 1).")
    alone = findings.trainings(kinds(*rows[2:]))
    assert "one of two networks" in alone and "test people alone" in alone


def averages(*rows):
    """Averages with intervals of half a point about them (SER: of 0.2)."""
    table = pd.DataFrame(rows, columns=["source", "precision", "metric", "value", "p_holm"])
    half = np.where(table["metric"] == "ser", 0.2, 0.005)
    table = table.assign(low=table["value"] - half, high=table["value"] + half)
    table = table.assign(people_low=table["low"], people_high=table["high"], p=table["p_holm"])
    table.loc[table["value"].isna(), "p"] = np.nan
    return table.assign(tests=6, networks=3, repeats=2)


def test_changes_of_bias_are_told_in_their_units():
    table = averages(
        ("real", "w4a4", "ser", 0.5, 0.01),
        ("real", "w4a4", "std", 0.012, 0.02),
        ("noise", "w8a8", "std", -0.02, 0.04),
        ("real", "w8a8", "ser", np.nan, np.nan),
        ("real", "w4a4", "worst", -0.03, 0.2),
    )
    text = findings.bias_changes(table, "this minus that")
    assert text.startswith("**This minus that**")
    assert "of 3 changes of STD and SER 2 are resolved rises and 1 resolved falls" in text
    assert "over the 6 of their family)." in text and "no proof" not in text
    assert "test people alone" not in text.lower()
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert lines == [
        "- w8a8, noise (3 networks): STD -2.00 points (-2.50 to -1.50) \\*.",
        "- w8a8, real (3 networks): SER not defined.",
        "- w4a4, real (3 networks): STD +1.20 points (+0.70 to +1.70) \\*, "
        "SER +0.50 (+0.30 to +0.70) \\*, worst group -3.00 points (-3.50 to -2.50).",
    ]
    nothing = findings.bias_changes(table.assign(p_holm=1.0), "this minus that")
    assert "the intervals of STD reach from -2.50 to +1.70 points" in nothing
    assert "Nothing to compare" in findings.bias_changes(table[:0], "this minus that")
    once = table["source"] == "noise"
    table.loc[once, ["networks", "repeats"]] = [1, 0]
    table.loc[3, "repeats"] = 0  # undefined: it has no interval to be marked
    text = findings.bias_changes(table, "this minus that")
    assert "- w8a8, noise (1 network, test people alone): STD" in text
    assert "- w8a8, real (3 networks): SER not defined." in text
    assert "*Test people alone*: no kind of these networks was trained twice" in text


def test_names_tell_how_many_networks_are_behind_them():
    rows = [("x", 4, 2, 0.1), ("x", 2, 1, 0.1), ("y", 1, 0, 0.1), ("z", 3, 1, 0.1), ("z", 3, 0, 1)]
    table = pd.DataFrame(rows, columns=["source", "networks", "repeats", "value"])
    x, y, z = "x (2 to 4 networks)", "y (1 network", "z (3 networks"
    wanted = [x, x, f"{y}, test people alone)", *[f"{z}, in part test people alone)"] * 2]
    assert findings.counted(table, "source").tolist() == wanted
    bare = findings.counted(table.drop(columns="repeats"), "source")
    assert bare.tolist() == [x, x, f"{y})", f"{z})", f"{z})"]


def test_the_width_of_the_first_rise_is_told():
    table = averages(
        ("real", "w8a8", "std", -0.02, 0.01),
        ("real", "w6a6", "std", 0.01, 0.01),
        ("real", "w4a4", "std", 0.03, 0.01),
        ("noise", "w8a8", "std", 0.001, 0.9),
    )
    noise, real = findings.bias_width(table).splitlines()
    assert "noise (3 networks): no rise of STD is resolved down to w8a8; STD rises most" in noise
    said = "the first resolved rise is at w6a6; STD rises most (or falls least) at w4a4"
    assert f"real (3 networks): {said}" in real
    assert "+3.0 points" not in real and "+3.00 points (95 % interval +2.50 to +3.50)" in real
    assert findings.bias_width(table[:0]) == "Nothing was quantised."


def test_scenarios_are_counted():
    rows = [("a", "x/w4", "std", -1.0), ("a", "x/w4", "ser", 0.0), ("b", "x/w4", "std", 2.0)]
    each = pd.DataFrame(rows, columns=["network", "column", "metric", "value"])
    text = findings.scenarios(each, "this minus that", even=True)
    assert "this minus that, in 2 scenarios (a network, a source and a precision)" in text
    assert "about half would be lower" in text
    uneven = findings.scenarios(each, "this minus that", even=False)
    assert "about half" not in uneven and "STD rises by itself" in uneven
    assert "STD is lower in 1 and higher in 1; SER is lower in 0 and higher in 0" in text


def test_noise_is_told_with_its_largest_change():
    table = pd.DataFrame(
        [
            ("std", "fp32", 2, 2, 0.5, 0.0, 0.0, 0.0),
            ("std", "real/w8a8", 2, 1, 0.6, 0.1, 0.0, 0.1),
            ("std", "real/w4a4", 2, 0, 0.7, -1.5, 0.5, -2.0),
        ],
        columns=[
            *("metric", "column", "networks", "within"),
            *("share", "change", "null_change", "excess"),
        ],
    )
    text = findings.bias_noise(table)
    assert "STD: 3 of 6 values lie within the band" in text and "50% to 70% of the mean STD" in text
    assert (
        "real/w4a4 (2 networks): -1.50 points" in text
        and "by +0.50 points, which leaves -2.00" in text
    )
    for nothing in (table[:1], table.assign(change=np.nan)):
        assert "largest" not in findings.bias_noise(nothing)


def test_published_rfw_stands_beside_ours():
    rows = [("fp32", "std", 0.01), ("real/w4a4", "std", 0.03), ("noise/w8a8", "std", 0.02)]
    rows += [("fp32", "ser", 1.5), ("real/w4a4", "ser", 1.7), ("noise/w8a8", "ser", 1.4)]
    ours = pd.DataFrame(rows, columns=["column", "metric", "value"]).assign(networks=3)
    moved = ours.iloc[[1, 4]].assign(value=[0.015, 0.2])  # of the same networks: not 0.03 - 0.01
    table = findings.rfw_beside(verdicts.read(PUBLISHED, draws=500), ours, moved)
    assert table["precision"].tolist() == ["fp32", "w8a8", "fp32", "w8a8", "w4a4"]
    assert table["network"].tolist()[1:3] == ["resnet50, published, quoted", "ours, mean of 3"]
    quoted = table.iloc[1]
    assert quoted["STD"].startswith("0.52 (equal: 0.0") and quoted["SER"].startswith("2.53 (")
    assert quoted["change of STD"].startswith("+0.026 (-0.")
    last = table.iloc[-1]
    assert (last["STD"], last["change of STD"], last["change of SER"]) == (
        "3.00",
        "+1.500",
        "+0.20",
    )
    assert table["change of STD"].tolist()[::2] == ["", "", "+1.500"]


def test_published_drops_stand_beside_ours():
    columns = ["architecture", "precision", "source", "group", "metric", "value", "low", "high"]
    rows = [("iresnet18", "w8a8", "real", "all", "accuracy", -0.01, -0.02, 0.0)]
    rows += [("small", "w4a4", "noise", "all", "accuracy", -0.1, -0.2, -0.05)]
    rows += [("small", "w4a4", "noise", "A", "accuracy", 0.5, 0.5, 0.5)]
    drops = published.quantface_drops(published.read_quantface(PUBLISHED))
    table = findings.drops_beside(drops, pd.DataFrame(rows, columns=columns))
    by = table.set_index(["architecture", "precision"])
    assert by.loc[("iresnet18", "w8a8"), "published"] == "-0.19 (-0.43 to -0.06)"
    assert by.loc[("iresnet18", "w8a8"), "real"] == "-1.00 (-2.00 to +0.00)"
    assert by.loc[("small", "w4a4")].tolist() == [
        "not found",
        "-10.00 (-20.00 to -5.00)",
        "not run",
    ]
    assert len(table) == 9


def test_two_rules_side_by_side():
    rows = [("real/w4a4", "std", 0.02), ("real/w4a4", "ser", 2.0), ("fp32", "std", 0.01)]
    one = pd.DataFrame([*rows, ("fp32", "ser", 1.0)], columns=["column", "metric", "value"])
    one = one.assign(networks=[2, 2, 3, 3])
    table = findings.two_rules({"a": one, "b": one.assign(value=one["value"] * 2)})
    assert table.index.tolist() == ["fp32", "real/w4a4"]
    assert table.to_numpy().tolist() == [[3, 1, 1, 2, 2], [2, 2, 2, 4, 4]]


def test_drawn_changes_are_in_the_units_of_their_panels():
    rows = [("real", "w4a4", m, 0.02, 0.01) for m in ("accuracy", "worst", "ser", "std")]
    table = findings.drawn_changes(averages(*rows, ("real", "w8a8", "std", 0.01, 0.5)))
    assert table["panel"].tolist() == ["STD, points", "STD, points", "SER", "worst group, points"]
    assert table["setting"].tolist() == ["w8a8", "w4a4", "w4a4", "w4a4"]
    assert table["value"].tolist() == pytest.approx([1, 2, 0.02, 2])
    assert table["inner_high"].tolist() == pytest.approx([1.5, 2.5, 0.22, 2.5])
    assert table["resolved"].tolist() == [False, True, True, True]
    assert set(table["series"]) == {"real (3 networks)"}


def test_some_of_the_networks_are_shown_by_what_is_resolved():
    rows = [("real", "w4a4", m, 0.02, p) for m, p in (("std", 0.2), ("ser", 0.1), ("worst", 0.01))]
    table = averages(*rows).assign(over="architecture", of="r", networks=2, repeats=1)
    table = table.assign(reference="fp32", column="real/w4a4")
    shown, said = findings.some_networks(table)
    assert shown["metric"].tolist() == ["SER", "STD, points"]
    assert shown["value"].tolist() == pytest.approx([0.02, 2.0])
    assert "0 of 2 such changes" in said and "over the 6 of their family" in said
    assert "those of smallest p" in said and len(findings.some_networks(table, most=1)[0]) == 1
    shown, said = findings.some_networks(table.assign(p_holm=[0.01, 0.5, 0.01]))
    assert shown["metric"].tolist() == ["STD, points"] and "shows them" in said
    assert "0 more are of networks" in said
    once = table.assign(p=[0.2, np.nan, 0.01], p_holm=[0.2, np.nan, 0.01], repeats=[1, 0, 1])
    shown, said = findings.some_networks(once)
    assert shown["metric"].tolist() == ["STD, points"]
    assert "0 of 1 such changes" in said and "1 more are of networks" in said
    untested = {"p": np.nan, "p_holm": np.nan, "repeats": 0}
    shown, said = findings.some_networks(table.assign(**untested))
    assert shown.empty and said.startswith("No such change of STD and SER could be tested. 2 more")
    none, said = findings.some_networks(table.assign(over="all networks"))
    assert none.empty and said == "All networks are of one architecture and one training set."
