"""Comparisons of expression runs, on made-up outcomes of which the truth is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studylib import errors, expressions, plan
from studylib import expression_compare as compare
from studylib import expression_details as details
from studylib import expression_findings as findings
from studylib.metrics import classification, intervals, testing
from studylib.runs import Finished, read
from tests.fixtures import expression_runs

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tables():
    return {f"s{k}": expression_runs.outcomes(k, gap=0.1, widening=0.15) for k in range(3)}


@pytest.fixture(scope="module")
def joined(tables):
    return compare.join(tables)


@pytest.fixture(scope="module")
def drawn(joined):
    return compare.resample(joined, "group", resamples=400)


# --- joining ---


def test_runs_are_joined_by_item_whatever_the_order_of_their_rows(tables):
    first, second = tables["s0"], tables["s1"]
    joined = compare.join({"a": first, "b": second.sample(frac=1, random_state=0)})
    assert joined.runs == ["a", "b"]
    assert (joined.predicted["s50"][1] == second["predicted_s50"]).all()
    assert joined.confidence["fp32"].shape == (2, len(first))
    assert list(joined.items) == ["item", "subject", "label", "gender", "group"]
    right = (first["predicted_c16"] == first["label"]).to_numpy()
    assert (joined.right("c16")[0] == right).all()


def test_variants_that_some_run_lacks_are_left_out_and_named(tables):
    short = tables["s1"].drop(columns=["predicted_s90", "confidence_w8"])
    joined = compare.join({"a": tables["s0"], "b": short})
    assert joined.left_out == ["s90"] and "s90" not in joined.predicted
    assert "w8" in joined.predicted and "w8" not in joined.confidence


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.drop(columns="subject"), "there is no column subject"),
        (lambda t: t[["item", "subject", "label"]], "there is no column predicted_<variant>"),
        (lambda t: pd.concat([t, t.head(1)]), "an item comes twice"),
    ],
)
def test_tables_that_are_no_outcomes_are_refused(tables, change, problem):
    with pytest.raises(errors.DataError) as caught:
        compare.join({"bad": change(tables["s0"])})
    assert str(caught.value) == errors.NOT_OUTCOMES.format(name="bad", problem=problem)


def test_runs_on_other_pictures_or_labels_are_refused(tables):
    said = errors.OTHER_PICTURES.format(first="a", other="b")
    for other in (tables["s0"].head(50), tables["s0"].assign(label=0)):
        with pytest.raises(errors.DataError) as caught:
            compare.join({"a": tables["s0"], "b": other})
        assert str(caught.value) == said
    with pytest.raises(errors.DataError) as caught:
        compare.join({})
    assert str(caught.value) == errors.NO_TABLES
    other = tables["s0"].rename(columns=lambda c: f"{c}g" if c.startswith("predicted_") else c)
    with pytest.raises(errors.DataError) as caught:
        compare.join({"a": tables["s0"], "b": other})
    assert str(caught.value) == errors.NO_SHARED_VARIANT.format(runs="a, b")


def test_group_columns_leave_out_the_unsure_and_what_is_no_grouping(tables):
    table = tables["s0"].assign(age=np.arange(len(tables["s0"])), race="green")
    table.loc[:6, "gender"] = "unsure"
    table.loc[7:13, "gender"] = None
    joined = compare.join({"a": table})
    assert joined.columns == ["gender", "group"]
    assert joined.groups("gender") == ["f", "m"]
    drawn = compare.resample(joined, "gender", resamples=10)
    assert drawn.n.sum() == len(table) - 14


# --- resampling and contrasts ---


def test_values_are_accuracies_and_draws_spread_about_them(joined, drawn):
    in_a = (joined.items["group"] == "A").to_numpy()
    assert drawn.groups == ["A", "B"]
    assert drawn.n.tolist() == [280, 280] and drawn.people.tolist() == [40, 40]
    at = drawn.variants.index("s50")
    expected = joined.right("s50")[:, in_a].mean(1)
    assert np.allclose(drawn.values[at, :, 0], expected)
    centre = drawn.draws.mean(0)
    assert np.abs(centre - drawn.values).max() < 0.01
    again = compare.resample(joined, "group", resamples=400)
    assert np.array_equal(again.draws, drawn.draws)


def test_the_test_part_of_one_run_is_the_variance_of_clustered_means(tables):
    """Against the linearised variance of a mean of clusters, worked out by hand."""
    table = tables["s0"]
    drawn = compare.resample(compare.join({"a": table}), resamples=4000)
    found = compare.contrast(drawn, [1], "fp32")
    right = (table["predicted_fp32"] == table["label"]).astype(float)
    person = (right - right.mean()).groupby(table["subject"]).sum()
    people = len(person)
    expected = people / (people - 1) * (person**2).sum() / len(table) ** 2
    assert found.test == pytest.approx(expected, rel=0.08)
    assert (found.runs, found.test_df) == (0.0, people - 1)


def test_the_run_part_of_two_groups_is_that_of_their_paired_difference(joined, drawn):
    found = compare.contrast(drawn, [1, -1], "s50", "ft2")
    values = [drawn.values[drawn.variants.index(v)] for v in ("s50", "ft2")]
    change = (values[0] - values[1]) @ [1, -1]
    assert found.value == pytest.approx(change.mean())
    assert found.runs == pytest.approx(change.var(ddof=1) / 3)
    assert found.runs_df == pytest.approx(2)


def test_the_test_part_is_what_runs_share_and_the_sum_no_less_than_of_their_mean(
    drawn,
):
    for variant, control in (("fp32", None), ("s50", "ft2"), ("s90", "ft2")):
        found = compare.contrast(drawn, [1, -1], variant, control)
        gaps = drawn.change(variant, control)[1] @ [1, -1]  # (resamples, R)
        mean = gaps.mean(1).var(ddof=1)
        assert found.test + found.runs >= mean * (1 - 1e-9)
        shared = np.cov(gaps.T)[~np.eye(3, dtype=bool)].mean()
        least = drawn.least(variant).sum()
        assert found.test == pytest.approx(max(shared, mean - found.runs, least), rel=1e-6)


def test_the_run_part_of_everybody_is_that_of_the_runs(joined):
    drawn = compare.resample(joined, resamples=50)
    found = compare.contrast(drawn, [1], "fp32")
    assert found.runs == pytest.approx(joined.right("fp32").mean(1).var(ddof=1) / 3)
    assert found.runs_df == pytest.approx(2)


def test_four_groups_and_three_runs_give_six_degrees_of_freedom(tables):
    four = {k: t.assign(race=t["group"] + t["gender"]) for k, t in tables.items()}
    drawn = compare.resample(compare.join(four), "race", resamples=50)
    assert compare.contrast(drawn, [1, 0, 0, -1], "fp32").runs_df == pytest.approx(6)


def test_a_contrast_in_which_nothing_moves_still_has_an_interval(drawn):
    low, high = compare.contrast(drawn, [1, -1], "w8", "fp32").interval()
    assert low < -0.005 and high > 0.005
    assert compare.contrast(drawn, [1, -1], "w8", "fp32").p() == 1


def test_with_classes_the_values_are_recalls(joined):
    drawn = compare.resample(joined, "group", classes=expression_runs.CLASSES, resamples=20)
    assert len(drawn.groups) == 14 and drawn.groups[1] == "A, anger"
    assert drawn.cells[1] == ("A", "anger") and drawn.classes.tolist() == [*range(7), *range(7)]
    codes = (joined.items["group"] == "B").astype(int)
    counts = classification.confusion(
        joined.items["label"], joined.predicted["fp32"][0], classes=7, groups=codes
    )
    assert np.allclose(drawn.values[0, 0], classification.recall(counts).ravel())


def test_names_with_commas_stay_whole(joined):
    classes = ["happy, really", *expression_runs.CLASSES[1:]]
    drawn = compare.resample(joined, "group", variants=["fp32", "s50"], classes=classes)
    assert drawn.cells[0] == ("A", "happy, really")
    table = findings.by_class(compare.changes(drawn, {"s50": "fp32"}), classes)
    assert table["expression"].iloc[:2].tolist() == ["happy, really"] * 2
    assert table["group"].iloc[:2].tolist() == ["A", "B"]


def moved_recalls(study: int, *, people=200, varying=2) -> compare.Joined:
    """Three runs in which s50 recognises all expressions as fp32 does, on average over runs.

    Every run moves the first expressions, each by its own amount, in all four groups together.
    """
    rng = np.random.default_rng(study)
    codes = np.arange(len(expression_runs.CLASSES))
    subject, label = np.repeat(np.arange(people), len(codes)), np.tile(codes, people)
    table = pd.DataFrame({"item": np.arange(len(label)), "subject": subject, "label": label})
    table["group"] = np.array(list("ABCD"))[subject % 4]
    score = 0.3 * rng.normal(size=people)[subject] + 0.7 * rng.normal(size=len(label))
    runs = {}
    for run in range(3):
        moved = np.where(codes < varying, 0.8 * rng.normal(size=len(codes)), 0)[label]
        for variant, by in (("fp32", 0), ("s50", moved)):
            hit = score + 0.5 * rng.normal(size=len(label)) + by > 0
            table[f"predicted_{variant}"] = np.where(hit, label, (label + 1) % len(codes))
        runs[str(run)] = table.copy()
    return compare.join(runs)


def test_expressions_that_vary_between_runs_raise_no_more_false_alarms_than_others():
    """Nothing changes in truth; the cells of an expression that varies are one draw, not four."""
    studies, varying = 50, 2
    alarms = np.zeros((studies, 4, len(expression_runs.CLASSES)), bool)
    for study in range(studies):
        drawn = compare.resample(
            moved_recalls(study, varying=varying),
            "group",
            classes=expression_runs.CLASSES,
            resamples=40,
        )
        p = compare.changes(drawn, {"s50": "fp32"})["p"].to_numpy()
        alarms[study] = compare.resolved(p).reshape(alarms.shape[1:])
    for part, draws in ((alarms[..., :varying], studies * varying), (alarms[..., varying:], 1000)):
        assert part.mean() <= stats.binom.ppf(0.999, draws, 0.05) / draws


def test_the_run_part_of_a_recall_is_pooled_over_the_groups_of_its_class_alone(joined):
    drawn = compare.resample(joined, "group", classes=expression_runs.CLASSES, resamples=20)
    at = drawn.classes == 2
    values = drawn.values[drawn.variants.index("s50")]
    of_class = drawn._replace(
        cells=[cell for cell, kept in zip(drawn.cells, at, strict=True) if kept],
        n=drawn.n[at],
        people=drawn.people[at],
        values=drawn.values[..., at],
        draws=drawn.draws[..., at],
    )
    whole, alone = (
        compare.contrast(d, np.eye(len(d.n))[list(d.cells).index(("A", "disgust"))], "s50")
        for d in (drawn, of_class)
    )
    assert whole == pytest.approx(alone)
    both = np.where(at, drawn.n, 0) / drawn.n[at].sum()
    found = compare.contrast(drawn, both, "s50")
    assert found.runs >= (values @ both).var(ddof=1) / 3 * (1 - 1e-9)


def test_nothing_that_moves_is_worth_no_more_than_the_people_and_no_less():
    """The floor: n over the design effect, between the people and the pictures."""
    p, people, n = 0.8, np.array([50, 50, 50, 50]), np.array([400, 400, 400, 400])
    rng, alone = np.random.default_rng(0), p * (1 - p) / 400
    effect = np.array([0.5, 2, 20, 0])  # variance over that of independent pictures
    draws = p + np.sqrt(alone * effect) * rng.normal(size=(20_000, 1, 4))
    worth = [400, 200, 50, 50]
    bound = intervals.wilson(0, worth)[1] / stats.norm.isf(0.025)
    found = compare.least(n, people, np.full((1, 4), p), draws)
    assert np.sqrt(found) == pytest.approx(bound, rel=0.02)
    draws[0, 0, 1] = np.nan  # a resample without anybody of the group
    assert compare.least(n, people, np.full((1, 4), p), draws) == pytest.approx(found, rel=0.01)


def test_the_level_itself_is_resolved():
    assert compare.resolved(0.05) and not compare.resolved(0.0501)
    assert compare.resolved(pd.Series([0.05, 0.06])).tolist() == [True, False]


def test_wrong_names_are_refused(joined, drawn):
    with pytest.raises(errors.ParameterError, match="Unknown group column 'race'"):
        compare.resample(joined, "race")
    with pytest.raises(errors.ParameterError, match="Unknown variant 's10'"):
        compare.contrast(drawn, [1, -1], "s10")
    with pytest.raises(errors.ParameterError, match="resamples must be at least 2"):
        compare.resample(joined, resamples=1)


def test_a_column_in_which_nobody_is_and_one_with_one_group_are_refused(tables):
    table = tables["s0"]
    empty = compare.join({"a": table.assign(race=None)})
    with pytest.raises(errors.DataError) as caught:
        compare.resample(empty, "race")
    assert str(caught.value) == errors.NOBODY_LABELLED.format(column="race")
    one = compare.resample(compare.join({"a": table.assign(race="green")}), "race", resamples=5)
    with pytest.raises(errors.DataError) as caught:
        compare.equality(one, "fp32")
    assert str(caught.value) == errors.ONE_GROUP.format(source="race", group="green")


# --- tests of gaps ---


def test_a_large_gap_is_found_and_its_interval_agrees_with_its_p(drawn):
    found = compare.equality(drawn, "s90")
    assert (found["highest"], found["lowest"]) == ("B", "A")
    assert found["p"] < 0.05 and found["low"] > 0
    assert found["low"] < found["gap"] < found["high"]
    assert found["p"] == pytest.approx(compare.contrast(drawn, [1, -1], "s90").p())
    accuracy = drawn.accuracy("s90")
    assert found["gap"] == pytest.approx(accuracy[1] - accuracy[0])


def test_only_the_planted_change_of_the_gap_is_resolved(drawn):
    described = compare.settings([expression_runs.variants()])
    controls = compare.controls(described)
    assert controls == {"w8": "fp32", "s50": "ft2", "s90": "ft2", "s50+w8": "ft2", "c16": "ft2"}
    table = compare.gap_changes(drawn, controls, reference="fp32").set_index("variant")
    assert table.index[table["p_holm"] < 0.05].tolist() == ["s90"]
    row = table.loc["s90"]
    assert row["pair"] == "B over A" and row["widest"]
    assert row["change"] == pytest.approx(row["gap"] - row["control_gap"])
    assert row["low"] < 0.15 < row["high"]
    assert table["p_holm"].to_numpy() == pytest.approx(testing.holm(table["p"]))


def test_nothing_to_compare_gives_an_empty_table(drawn):
    assert compare.gap_changes(drawn, {"s50": "ft9"}, reference="fp32").empty
    assert list(compare.changes(drawn, {})) == compare.CHANGES


def test_equal_groups_raise_few_false_alarms_and_a_gap_is_found():
    """Twenty studies of three runs: no gap, and one of 20 points."""
    rejected = {0.0: 0, 0.2: 0}
    for gap in rejected:
        for study in range(20):
            tables = {
                str(r): expression_runs.outcomes(100 * study + r, gap=gap, data_seed=study)
                for r in range(3)
            }
            drawn = compare.resample(
                compare.join(tables), "group", variants=["fp32"], resamples=200
            )
            rejected[gap] += compare.equality(drawn, "fp32")["p"] < 0.05
    assert rejected[0.0] <= 3
    assert rejected[0.2] >= 17


# --- tables ---


def test_accuracies_and_their_pareto_front(drawn):
    table = compare.accuracies(drawn)
    assert len(table) == 14 and (table["low"] < table["value"]).all()
    assert table["effect"].between(0.2, 4).all()
    sized = compare.by_size(table, compare.settings([expression_runs.variants()]))
    assert "control" not in set(sized["method"])
    part = sized[sized["group"] == "A"].set_index("setting")
    assert part.loc["s90", "front"] and part.loc["s50", "size_mb"] == 2.5
    assert not part.loc["fp32", "front"] or part["value"].idxmax() == "fp32"


def test_sizes_are_means_over_the_runs_and_the_strongest_are_the_smallest_files():
    first = expression_runs.variants()
    second = first.assign(zip_mb=first["zip_mb"] + 1)
    described = compare.settings([first, second]).set_index("variant")
    assert described.loc["s50", "zip_mb"] == 3.0
    assert described.loc["s50+w8", "method"] == "pruned, quantised"
    more = ["pruned_2of4", "pruned_and_clustered", "pruned_clustered_and_quantised"]
    words = compare.settings([first.head(3).assign(method=more)])["method"].tolist()
    assert words == ["pruned 2of4", "pruned, clustered", "pruned, clustered, quantised"]
    chosen = compare.strongest(described.reset_index(), ["pruned", "static", "clustered"])
    assert chosen == ["s90", "c16"]


# --- details ---


def test_exemplars_are_those_of_hooker_and_are_shown_one_a_person(joined):
    found = details.exemplars(joined, {"s90": "ft2", "s50": "ft9"})
    expected = classification.identified_exemplars(joined.predicted["ft2"], joined.predicted["s90"])
    assert list(found) == ["s90"] and (found["s90"] == expected).all()
    table = details.exemplar_table(joined, "s90", "ft2", expression_runs.CLASSES, most=5)
    assert len(table) == 5 and table["subject"].is_unique
    assert (table["before"] != table["after"]).all()
    assert table["agreed"].is_monotonic_decreasing and table["agreed"].iloc[0] == 1
    row = joined.items.set_index("item").loc[table["item"].iloc[0]]
    assert table["expression"].iloc[0] == expression_runs.CLASSES[row["label"]]
    drawn = compare.shares(joined, {"s90": found["s90"][None]}, resamples=50)
    assert drawn.values[0, 0, 0] == pytest.approx(expected.mean())


def test_calibration_is_the_mean_error_of_the_runs_and_bins_add_up(joined):
    table, bins = details.calibration(joined, "group", ["fp32", "s99"], resamples=100)
    in_a = (joined.items["group"] == "A").to_numpy()
    expected = [
        classification.expected_calibration_error(
            classification.calibration_bins(sure[in_a], right[in_a], 10)
        )
        for sure, right in zip(joined.confidence["fp32"], joined.right("fp32"), strict=True)
    ]
    row = table.set_index("group").loc["A"]
    assert row["value"] == pytest.approx(np.mean(expected))
    assert row["low"] < row["value"] < row["high"] and row["runs"] == 3
    part = bins[bins["group"] == "A"]
    assert part["n"].sum() == 3 * in_a.sum()
    total = (part["n"] * part["value"]).sum()
    assert total == pytest.approx(joined.right("fp32")[:, in_a].sum())
    assert ((part["low"] < part["value"]) & (part["value"] < part["high"])).all()


def test_calibration_without_any_spread_still_has_an_interval():
    table = expression_runs.outcomes(people=20)
    table = table.assign(predicted_fp32=table["label"], confidence_fp32=1.0)
    sure, _ = details.calibration(compare.join({"a": table}), None, ["fp32"], resamples=50)
    row = sure.iloc[0]
    # right throughout, so that a person's pictures may have everything in common: 20 people
    bound = intervals.wilson(0, 20)[1] / stats.norm.isf(0.025) * stats.t.isf(0.025, 19)
    assert (row["value"], row["low"]) == (0, 0) and row["high"] == pytest.approx(bound)


def test_protocols_that_answer_alike_still_have_an_interval(tables):
    one = {"p": tables["s0"]}
    histories = {name: [expression_runs.history()] for name in ("as_published", "sound")}
    table = details.protocols({"as_published": one, "sound": one}, histories, resamples=50)
    assert (table["difference"] == 0).all() and (table["p"] == 1).all()
    drawn = compare.resample(compare.join(one), resamples=50)
    least = [drawn.least(variant).item() for variant in table["variant"]]
    assert table["high"].to_numpy() == pytest.approx(stats.t.isf(0.025, 79) * np.sqrt(least))
    assert np.isnan(table["sound gain low"]).all()


def test_protocols_are_compared_on_the_same_pictures(tables):
    published = {"p": expression_runs.outcomes(7, gap=0.1, lift=0.1)}
    histories = {"as_published": [expression_runs.history(s) for s in range(3)], "sound": []}
    table = details.protocols(
        {"as_published": published, "sound": tables}, histories, resamples=300
    ).set_index("variant")
    row = table.loc["fp32"]
    assert row["difference"] == pytest.approx(row["as_published"] - row["sound"])
    assert row["low"] < 0.1 < row["high"] and row["p"] < 0.05
    assert row["as_published gain"] == pytest.approx(0.04)  # 3, 4 and 5 points
    half = stats.t.isf(0.025, 2) * 0.01 / np.sqrt(3)
    ends = [row["as_published gain low"], row["as_published gain high"]]
    assert ends == pytest.approx([0.04 - half, 0.04 + half])
    assert table.loc["s50", "as_published gain"] == 0
    assert np.isnan(row["sound gain"]) and np.isnan(table.loc["w8", "as_published gain"])


def test_losses_on_two_sets_are_subtracted(tables):
    drawn = [
        compare.resample(compare.join(part), resamples=100)
        for part in (tables, {"x": expression_runs.outcomes(5, data_seed=8)})
    ]
    found = details.loss_differences(*drawn, reference="fp32")
    assert "fp32" not in found and set(found) == set(drawn[0].variants) - {"fp32"}
    first, second = (compare.contrast(d, [-1], "s90", "fp32") for d in drawn)
    assert found["s90"].value == pytest.approx(first.value - second.value)
    assert found["s90"].test == pytest.approx(first.test + second.test)


def test_our_rows_stand_beside_the_published_ones(tables, tmp_path):
    table = tables["s0"].assign(gender=np.where(tables["s0"]["gender"] == "f", "female", "male"))
    joined = compare.join({"a": table, "b": table})
    described = compare.settings([expression_runs.variants()])
    groups = details.published_groups("ckplus")
    ours = details.as_published(joined, described, groups).set_index("setting")
    right = table["predicted_s50"] == table["label"]
    women = table["gender"] == "female"
    assert ours.loc["s50", "overall"] == pytest.approx(100 * right.mean())
    assert ours.loc["s50", "gender=female"] == pytest.approx(100 * right[women].mean())
    assert ours.loc["s50", "overall std"] == 0
    paper = ours.loc[["fp32", "s50"]].reset_index().assign(runs=3)
    for name in ("a", "b"):
        place = tmp_path / name
        expression_runs.write_run(place, table, data_set="ckplus")
    study = details.studies([read(tmp_path / name) for name in ("a", "b")])[0]
    shown = details.beside(study, "sound", paper, groups)
    assert shown["setting"].tolist()[:4] == ["fp32", "fp32", "s50", "s50"]
    assert shown["figures"].tolist()[:4] == ["published", "ours"] * 2
    assert shown["figures"].tolist().count("ours") == 7
    with pytest.raises(errors.ParameterError, match="Unknown data set of the paper 'simfaces'"):
        details.published_groups("simfaces")


def test_names_of_groups_match_however_they_are_written(tables):
    names = np.array(["african-american", "African American", "asian", None], object)
    table = tables["s0"].assign(race=names[np.arange(len(tables["s0"])) % 4])
    joined = compare.join({"a": table})
    described = compare.settings([expression_runs.variants()])
    ours = details.as_published(joined, described, ["race=african_american", "age=0-3"])
    right = table["predicted_fp32"] == table["label"]
    inside = np.arange(len(table)) % 4 < 2
    assert ours["race=african_american"].iloc[0] == pytest.approx(100 * right[inside].mean())
    assert np.isnan(ours["age=0-3"].iloc[0])


def finished(folder, name, **parameters):
    given = {"data_set": "simfaces", "protocol": "sound", "seed": 0, "n_train": 1000, "width": 1.0}
    given |= {"epochs": 20}
    record = {"profile": "quick", "wall_seconds": 30, "parameters": given | parameters}
    run = Finished(folder / f"quick-{name}", record)
    run.__dict__["outcomes"] = pd.DataFrame({"item": range(7)})  # a cached property
    return run


def test_runs_are_sorted_into_studies_by_what_they_share(tmp_path):
    found = [
        finished(tmp_path, "wide", width=2.0),
        finished(tmp_path, "a", seed=1),
        finished(tmp_path, "b", seed=2, device="cuda"),
        finished(tmp_path, "p", protocol="as_published"),
        finished(tmp_path, "large", n_train=9000, n_test=70, epochs=5),
    ]
    first, *others = details.studies(found)
    assert list(first.main) == ["a", "b"] and list(first.runs["as_published"]) == ["p"]
    assert [list(one.main) for one in others] == [["wide"], ["large"]]
    smaller, larger = details.of_two_sizes(first, others)
    assert (smaller, larger) == (first, others[1])
    differences = ["epochs (20 against 5)", "test faces (None against 70)"]
    assert details.of_two_sizes(first, others).differences == differences
    assert details.of_two_sizes(first, others).names == (
        "simfaces with 1,000 training faces against simfaces with 9,000 training faces"
    )
    assert details.of_two_sizes(first, others[:1]) is None
    table = details.overview([first, *others])
    assert table["study"].iloc[-1] == "simfaces with 9,000 training faces"
    assert set(table["test pictures"]) == {7}
    assert table["runs"].tolist() == [2, 1, 1, 1] and table["seeds"].iloc[0] == "1, 2"
    ck, raf = (details.studies([finished(tmp_path, s, data_set=s)])[0] for s in details.SMALLER)
    assert details.of_two_sizes(raf, [ck]) == (ck, raf)
    assert not details.of_two_sizes(raf, [ck]).simulated


@pytest.mark.parametrize(("profile", "found"), [("smoke", False), ("quick", True), ("full", True)])
def test_the_study_itself_has_a_smaller_and_a_larger_set(tmp_path, profile, found):
    made = [
        finished(tmp_path, job.name, **plan.declared(job.notebook) | job.parameters)
        for job in plan.load(ROOT / "study.yml").jobs(profile, ["fer_compression"])
    ]
    first, *others = details.studies(made)
    pair = details.of_two_sizes(first, others)
    assert (pair is not None) == found
    if pair:
        faces, variants = ([one.parameters[k] for one in pair] for k in ("n_train", "variants"))
        assert faces[0] < faces[1] and set(variants[0]) & set(variants[1])
        assert pair.simulated and [one.protocol for one in pair] == ["sound"] * 2


def test_faces_that_are_not_at_hand_are_told():
    missing = {"data_set": "rafdb", "data_root": "/nowhere", "data_seed": 0, "size": 48}
    sheet = details.faces_of(missing | {"n_test": 64}, ["x"])
    assert sheet.picture is None and "There is no folder /nowhere" in sheet.text
    drawn = {"data_set": "simfaces", "data_root": None, "data_seed": 0, "size": 48, "n_test": 64}
    sheet = details.faces_of(drawn, ["no such face"])
    assert sheet.text == "The faces cannot be shown here: those at hand are others."
    test = expressions.load("simfaces", n_train=800, n_test=64).test.table
    items = test.drop_duplicates("subject")["item"].iloc[[3, 1]]
    sheet = details.faces_of(drawn, items)
    assert sheet.picture is not None and sheet.text.startswith("2 of 2 faces")
