"""Sentences and verdicts on expression runs: every number in them is that of a table."""

import numpy as np
import pandas as pd
import pytest

from studylib import claims, verdicts
from studylib import expression_compare as compare
from studylib import expression_details as details
from studylib import expression_findings as findings
from studylib.published import Estimate
from tests.fixtures import expression_runs

CLASSES = expression_runs.CLASSES
MARGINS = verdicts.Margins()


@pytest.fixture(scope="module")
def tables():
    """Six runs with 500 people: A is 5 points worse, and loses 20 more in s90."""
    return {
        f"s{k}": expression_runs.outcomes(k, people=500, per=4, gap=0.05, widening=0.2)
        for k in range(6)
    }


@pytest.fixture(scope="module")
def joined(tables):
    return compare.join(tables)


@pytest.fixture(scope="module")
def described():
    return compare.settings([expression_runs.variants()])


@pytest.fixture(scope="module")
def everybody(joined):
    return compare.resample(joined, resamples=300)


@pytest.fixture(scope="module")
def by_group(joined):
    return [compare.resample(joined, name, resamples=300) for name in joined.columns]


def test_about_names_sizes_and_warns_of_few_runs(joined, tables):
    text = findings.about(joined, simulated=True)
    assert "2,000 test pictures of 500 people, 7 variants, 6 runs" in text
    assert "no statement about people" in text
    assert "gender (f 1,000, m 1,000); group (A 1,000, B 1,000)" in text
    assert "**One run.**" not in text and "left out" not in text
    first = tables["s0"]
    alone = findings.about(compare.join({"a": first}), simulated=False)
    assert "> **One run.** How much another seed" in alone and "imulated" not in alone
    two = compare.join({"a": first, "b": tables["s1"].drop(columns="predicted_c16")})
    text = findings.about(two, simulated=False)
    assert "> **2 runs** know little" in text
    assert "Not made by every run, and so left out: c16." in text


def test_about_says_what_a_set_does_not_tell(tables):
    table = tables["s0"].assign(subject=tables["s0"]["item"]).drop(columns=["group", "gender"])
    text = findings.about(compare.join({"a": table}), simulated=False)
    assert "Every picture counts as a person of its own" in text
    assert "no column of two to ten groups" in text
    some = tables["s0"].assign(gender=tables["s0"]["gender"].where(tables["s0"].index > 9, None))
    assert "; in none 10)" in findings.about(compare.join({"a": some}), simulated=False)


def test_the_first_resolved_loss_of_each_method(everybody, described):
    table = compare.changes(everybody, compare.controls(described))
    text = findings.losses(table, described)
    rows, ends = table.set_index("variant"), {}
    for name in ("s50", "s90"):
        change, low, high = (f"{100 * rows.loc[name, c]:+.1f}" for c in ("change", "low", "high"))
        ends[name] = f"{name}, {change} points from ft2 ({low} to {high})"
    first = f"the first resolved loss is that of {ends['s50']}"
    assert f"- **pruned**: {first}; the smallest file, {ends['s90']}." in text
    assert "- **quantised**: no loss is resolved down to w8, which differs from fp32 by" in text
    assert "**control**" not in text
    trained = compare.changes(everybody, {"ft2": "fp32"})
    row = trained.iloc[0]
    said = f"- ft2: {100 * row['change']:+.1f} points from fp32 ({100 * row['low']:+.1f} to "
    assert findings.training_on(trained).startswith(said)
    verdict = "resolved" if row["p"] < 0.05 else "not resolved"
    assert findings.training_on(trained).endswith(f"), {verdict}.")
    assert findings.training_on(trained.head(0)) == "No control was made."
    assert "nothing to compare" in findings.losses(table.head(0), described)


def test_a_loss_before_the_smallest_file_names_both(described):
    table = pd.DataFrame(
        {
            "variant": ["s50", "s90"],
            "control": "ft2",
            "change": [-0.1, -0.3],
            "low": [-0.12, -0.33],
            "high": [-0.08, -0.27],
            "p": [1e-5, 1e-9],
        }
    )
    assert findings.losses(table, described) == (
        "- **pruned**: the first resolved loss is that of s50, -10.0 points from ft2 (-12.0 to "
        "-8.0); the smallest file, s90, -30.0 points from ft2 (-33.0 to -27.0)."
    )


def test_gaps_now_and_their_changes(by_group, described):
    gaps = {d.column: compare.gaps(d) for d in by_group}
    row = gaps["group"].set_index("variant").loc["fp32"]
    text = findings.gap_now(gaps["group"], "fp32")
    assert "best group is B, the worst A" in text
    assert f"{100 * row['gap']:.1f} points apart" in text
    assert "1,000 pictures of 250 people" in text
    assert text.endswith(
        f"{'resolved' if row['p'] < 0.05 else 'not resolved'}. "
        "The smallest group has 1,000 pictures of 250 people."
    )
    controls = compare.controls(described)
    changed = {d.column: compare.gap_changes(d, controls, reference="fp32") for d in by_group}
    text = findings.gap_changes(changed["group"], 0.02)
    assert text.startswith("5 comparisons of a gap with the same gap of the control: 1 wider and 0")
    assert "\n- s90, B over A: +" in text
    none = findings.gap_changes(changed["gender"], 0.5)
    assert "0 wider and 0 narrower" in none and "lies outside 5 of the" in none
    assert not none.endswith("\n")
    assert "no gap can be compared" in findings.gap_changes(changed["group"].head(0), 0.02)


def test_which_expressions_are_lost_first(joined, described):
    drawn = compare.resample(joined, "group", classes=CLASSES, resamples=200)
    table = findings.by_class(compare.changes(drawn, compare.controls(described)), CLASSES)
    assert table["expression"].iloc[:4].tolist() == ["neutral", "neutral", "anger", "anger"]
    assert table["group"].iloc[:4].tolist() == ["A", "B"] * 2
    text = findings.class_losses(table, described)
    assert (
        "the first variant in which a loss is resolved (Holm over its 14 cells) is **s90**" in text
    )
    worst = table[(table["variant"] == "s90")].sort_values("value").iloc[0]
    assert f"**s90**: {worst['expression']} of A {100 * worst['value']:+.1f} points" in text
    assert "Resolved in most variants: A " in text
    mild = findings.class_losses(table[table["variant"] == "s50"], described)
    assert mild.startswith("In none of 1 variants is the loss of any of 14 cells")
    assert "no expression can be compared" in findings.class_losses(table.head(0), described)


def test_exemplars_and_calibration_in_words(joined):
    marked = {v: f[None] for v, f in details.exemplars(joined, {"s90": "ft2"}).items()}
    table = compare.accuracies(compare.shares(joined, marked, resamples=50))
    text = findings.exemplars(table, {"s90": "ft2"})
    assert text.startswith(f"- s90 against ft2: {marked['s90'].mean():.1%} of the pictures (")
    assert "No variant" in findings.exemplars(table.head(0), {})
    sure, _ = details.calibration(joined, "group", ["fp32", "s90"], resamples=50)
    text = findings.calibration(sure, "fp32")
    values = sure.set_index(["variant", "group"])["value"]
    assert f"- fp32: A {100 * values['fp32', 'A']:.1f} (" in text
    apart = 100 * abs(values["s90", "A"] - values["s90", "B"])
    assert f"and {apart:.1f} to {apart:.1f} in the other variants" in text
    assert "kept no confidences" in findings.calibration(sure.head(0), "fp32")


def test_what_the_choice_of_the_epoch_bought():
    table = pd.DataFrame(
        {
            "variant": ["fp32", "w8"],
            "as_published": [0.85, 0.84],
            "sound": [0.82, 0.82],
            "difference": [0.03, 0.02],
            "low": [0.01, -0.01],
            "high": [0.05, 0.05],
            "p_holm": [0.01, 0.3],
            "as_published gain": [0.015, np.nan],
            "sound gain": [0.02, np.nan],
        }
    )
    text = findings.protocols(table, "as_published", "sound")
    assert "fp32: 85.0% under as_published, 82.0% under sound, a difference of +3.0 points" in text
    assert "(+1.0 to +5.0). Of 2 variants the difference is resolved in 1 (Holm)" in text
    assert "1.5 points above the last one on the test pictures, on average over 1 trained" in text


# --- verdicts ---


@pytest.fixture(scope="module")
def whole(everybody, by_group, described):
    return details.Resampled(everybody, by_group, described)


@pytest.fixture(scope="module")
def judged(whole):
    return findings.judge(whole, MARGINS, where="made up")


def test_the_planted_truth_is_what_the_verdicts_say(judged):
    table = judged.set_index("key")
    found = table["verdict"].to_dict()
    # 2 points of no change between women and men are more than these runs can exclude everywhere
    assert found.pop("stays_gender") in (verdicts.OPEN, verdicts.SUPPORTED)
    assert found.pop("own_gender") in (verdicts.OPEN, verdicts.SUPPORTED)
    assert found == {
        "small": verdicts.SUPPORTED,
        "robust": verdicts.NONE,
        "widens_gender": verdicts.OPEN,
        "stays_group": verdicts.CONTRADICTED,
        "widens_group": verdicts.SUPPORTED,
        "own_group": verdicts.CONTRADICTED,
    }
    row = table.loc["widens_group"]
    assert row["low"] < 0.2 < row["high"] and row["p"] < 0.05
    assert table.loc["small", "evidence"].startswith("4 of 5 variants are at least 4 times smaller")


def test_gaps_that_stay_are_shown_to_stay_under_a_wide_margin(whole):
    table = findings.judge(whole, verdicts.Margins(gap=0.3), where="").set_index("key")
    assert table.loc["stays_group", "verdict"] == verdicts.SUPPORTED
    assert table.loc["own_gender", "verdict"] == verdicts.SUPPORTED


def test_verdicts_are_told_as_those_on_published_figures(judged):
    shown = claims.overview(judged)
    assert shown["verdict"].tolist() == judged["verdict"].tolist()
    text = claims.told(judged, "robust", "widens_group")
    assert "**no figures found**" in text and "*What would decide:* the same variants" in text
    p = judged.set_index("key").loc["widens_group", "p"]
    assert f"(p of no change in any figure: {verdicts.p_text(p)})" in text


def test_nothing_small_enough_contradicts_and_no_groups_leave_two_claims(whole):
    alone, huge = whole._replace(by_group=[]), verdicts.Margins(smaller=100.0)
    table = findings.judge(alone, huge, where="").set_index("key")
    assert table.index.tolist() == ["small", "robust"]
    assert table.loc["small", "verdict"] == verdicts.CONTRADICTED
    said = "No variant is 100 times smaller: 5.71 times is most."
    assert table.loc["small", "evidence"] == said


def test_without_compressed_variants_nothing_is_judged(joined, described):
    drawn = compare.resample(joined, variants=["fp32", "ft2"], resamples=20)
    grouped = compare.resample(joined, "group", variants=["fp32", "ft2"], resamples=20)
    table = findings.judge(details.Resampled(drawn, [grouped], described), MARGINS, where="")
    assert set(table["verdict"]) == {verdicts.NONE}


def test_robustness_is_judged_by_the_difference_of_losses(whole):
    found = {"s50": Estimate(0.04, 0.01**2, 0.0, 300), "w8": Estimate(0.0, 0.01**2, 0.0, 300)}
    alone = whole._replace(by_group=[])
    table = findings.judge(alone, MARGINS, where="", robust=found, sets="small against large")
    table = table.set_index("key")
    assert table.loc["robust", "verdict"] == verdicts.SUPPORTED
    said = "small against large: of 2 variants made on both, 1 lose more on the first; resolved "
    said += "(Holm) are 1 that lose more there and 0 that lose less. Clearest is s50: +4.0 points"
    assert table.loc["robust", "evidence"].startswith(said)
    assert table.loc["robust", "value"] == 0.04
