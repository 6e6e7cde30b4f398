"""Sentences and verdicts on expression runs: every number in them is that of a table."""

import numpy as np
import pandas as pd
import pytest

from studylib import claims, expressions, verdicts
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
    tied = gaps["group"].assign(lowest=gaps["group"]["highest"])
    assert "no group is better than another" in findings.gap_now(tied, "fp32")
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
            "as_published gain low": [0.005, np.nan],
            "as_published gain high": [0.025, np.nan],
            "sound gain": [0.02, np.nan],
        }
    )
    text = findings.protocols(table, "as_published", "sound")
    published, sound = (expressions.PROTOCOLS[n] for n in ("as_published", "sound"))
    for said in (
        f"the scale of the pixels ({published['pixels']} against {sound['pixels']})",
        f"batch normalisation ({published['norm_momentum']} against {sound['norm_momentum']})",
        "number of training faces, since sound keeps 15% of the training people",
        "the best epoch of fp32 stands 1.5 points above its last one",
        "(95 % interval +0.5 to +2.5 over the runs)",
    ):
        assert said in text
    assert "can have bought" not in text
    table["as_published gain low"] = np.nan
    assert "(a single run, so without an interval)" in findings.protocols(
        table, "as_published", "sound"
    )
    assert "fp32: 85.0% under as_published, 82.0% under sound, a difference of +3.0 points" in text
    assert "(+1.0 to +5.0). Of 2 variants the difference is resolved in 1 (Holm)" in text
    assert "over 1 trained variants the lead is 1.5 points on average and 1.5 at most" in text


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
        "own_small": verdicts.SUPPORTED,
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
    assert table.index.tolist() == ["small", "own_small", "robust"]
    assert table.loc["small", "verdict"] == verdicts.CONTRADICTED
    said = "No variant is 100 times smaller: 5.71 times is most."
    assert table.loc["small", "evidence"] == table.loc["own_small", "evidence"] == said


def test_without_compressed_variants_nothing_is_judged(joined, described):
    drawn = compare.resample(joined, variants=["fp32", "ft2"], resamples=20)
    grouped = compare.resample(joined, "group", variants=["fp32", "ft2"], resamples=20)
    table = findings.judge(details.Resampled(drawn, [grouped], described), MARGINS, where="")
    assert set(table["verdict"]) == {verdicts.NONE}


def test_losses_are_judged_by_the_control_too(joined, described):
    """A baseline that fails on half of what it knew hides what pruning to s90 costs."""
    rng = np.random.default_rng(0)
    label = joined.items["label"].to_numpy()
    low = np.where(rng.random(joined.predicted["fp32"].shape) < 0.5, (label + 1) % 7, label)
    worse = {
        name: np.where(low != label, low, codes) if name in ("fp32", "w8") else codes
        for name, codes in joined.predicted.items()
    }
    undertrained = joined._replace(predicted=worse)
    kept = described[described["variant"].isin(["fp32", "ft2", "s90"])]
    drawn = compare.resample(undertrained, resamples=100)
    table = findings.judge(details.Resampled(drawn, [], kept), MARGINS, where="").set_index("key")
    assert table.loc["small", "verdict"] == verdicts.SUPPORTED
    assert table.loc["own_small", "verdict"] == verdicts.CONTRADICTED
    assert "from fp32 it loses" in table.loc["small", "evidence"]
    assert "from ft2 it loses" in table.loc["own_small", "evidence"]
    gain = compare.contrast(drawn, [1], "ft2", "fp32").value
    said = "The baseline was not trained to the end: training on alone gains ft2 "
    assert f"{said}{100 * gain:+.1f} points (" in table.loc["small", "evidence"]
    assert "not trained to the end" not in table.loc["own_small", "evidence"]


def test_a_baseline_that_training_on_leaves_alone_is_not_called_undertrained(joined, described):
    same = joined._replace(predicted=joined.predicted | {"ft2": joined.predicted["fp32"]})
    alone = details.Resampled(compare.resample(same, resamples=50), [], described)
    table = findings.judge(alone, MARGINS, where="")
    assert len(table) == 3
    assert not table["evidence"].str.contains("not trained to the end").any()


def study(**parameters) -> details.Study:
    given = {"data_set": "simfaces", "n_train": 924, "epochs": 24, "n_test": 384, "size": None}
    return details.Study(given | parameters, {})


def test_robustness_is_judged_by_the_difference_of_losses(whole):
    found = {"s50": Estimate(0.04, 0.01**2, 0.0, 300), "w8": Estimate(0.0, 0.01**2, 0.0, 300)}
    alone = whole._replace(by_group=[])

    def judged(*pair):
        sets = details.TwoSizes(*pair)
        table = findings.judge(alone, MARGINS, where="", robust=found, sets=sets)
        return table.set_index("key").loc["robust"]

    row = judged(study(), study(n_train=2000, epochs=16))
    assert row["verdict"] == verdicts.SUPPORTED and row["value"] == 0.04
    said = "simfaces with 924 training faces against simfaces with 2,000 training faces: of 2 "
    said += "variants made on both, 1 lose more on the first; resolved (Holm) are 1 that lose more "
    said += "there and 0 that lose less. Clearest is s50: +4.0 points"
    assert row["evidence"].startswith(said)
    assert row["evidence"].endswith("the studies also differ in epochs (24 against 16).")
    assert row["said"].startswith("A network with more faces to train on is more robust")
    row = judged(study(), study(n_train=2000, n_test=800, size=100))
    assert row["evidence"].endswith("test faces (384 against 800), pixels a side (48 against 100).")
    row = judged(study(), study(n_train=2000))
    assert row["evidence"].endswith("One program drew both; the studies differ in nothing else.")
    row = judged(study(data_set="ckplus"), study(data_set="rafdb"))
    assert row["said"].startswith("The larger, more varied set is more robust")
    assert "ckplus against rafdb: of 2" in row["evidence"]
    assert "Size may not be why: the sets differ in much more" in row["evidence"]


def test_without_two_studies_that_fit_nothing_is_said_of_how_many_there_are(judged):
    row = judged.set_index("key").loc["robust"]
    assert row["verdict"] == verdicts.NONE
    assert row["evidence"].endswith("and in little else; among these studies no two do.")
