"""Responses to calibration sets: who is dealt where, effects by hand, both kinds of chance."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studylib import audit, errors
from studylib import calibration_response as response
from studylib.audit import frames
from studylib.compress import quantize
from studylib.faces import Faces
from studylib.metrics import thresholds, uncertainty

NAMES = ["balanced", "only-A", "only-B"]
GROUPS = ["A", "B"]


def pool_of(*groups: str, people: int, each: int = 1) -> Faces:
    """Grey faces of `people` people a group, with `each` pictures."""
    subject = [f"{g}{k:02d}" for g in groups for k in range(people) for _ in range(each)]
    table = pd.DataFrame({"item": range(len(subject)), "subject": subject})
    table["group"] = [name[0] for name in subject]
    return Faces(torch.zeros(len(subject), 3, 8, 8, dtype=torch.uint8), table, "simfaces")


def faces_items(people: int = 10, each: int = 4) -> response.Items:
    person = np.repeat(np.arange(2 * people), each)
    return response.Items(GROUPS, person // people, person)


def pairs_items(rng, people: int = 12, pairs: int = 400) -> response.Items:
    """Half genuine pairs of one person, half impostors within a group of `people`."""
    group = rng.integers(0, 2, pairs)
    a, b = (rng.integers(0, people, pairs) for _ in range(2))
    genuine = np.arange(pairs) % 2 == 0
    b = np.where(genuine, a, np.where(a == b, (a + 1) % people, b))
    return response.Items(GROUPS, group, a + people * group, b + people * group, genuine)


def found(values, of, names=NAMES, **given) -> pd.DataFrame:
    about, weights = response.contrasts(names, of.groups)
    rows = response.estimates(values, of, weights, resamples=given.pop("resamples", 200), seed=0)
    return pd.concat([about, pd.DataFrame(rows)], axis=1).set_index(
        ["effect", "composition", "group"]
    )


def test_people_are_dealt_out_once_and_evenly():
    pool = pool_of("A", "B", "C", people=7, each=3)
    parts = response.deal(pool, 3, column="group", seed=1)
    dealt = [set(part.subjects) for part in parts]
    assert set.union(*dealt) == set(pool.subjects)
    assert sum(map(len, dealt)) == len(pool.subjects)
    for part in parts:
        counts = part.table.drop_duplicates("subject")["group"].value_counts()
        assert set(counts.index) == set("ABC") and counts.between(2, 3).all()
    again = response.deal(pool, 3, column="group", seed=1)
    other = response.deal(pool, 3, column="group", seed=2)
    assert [part.subjects for part in again] == [part.subjects for part in parts]
    assert [part.subjects for part in other] != [part.subjects for part in parts]


def test_somebody_without_a_group_calibrates_nobody():
    pool = pool_of("A", "B", people=4)
    pool.table.loc[pool.table["subject"] == "A03", "group"] = None
    sets = response.compositions(pool, 1, 2, column="group", seed=0)
    assert list(sets) == NAMES
    used = {name for of in sets.values() for one in of for name in one.subjects}
    assert "A03" not in used and len(used) > 1


def test_sets_have_their_size_and_composition_and_share_the_faces_of_a_draw():
    sets = response.compositions(pool_of("A", "B", people=8), 4, 2, column="group", seed=0)
    assert {name: len(of) for name, of in sets.items()} == dict.fromkeys(NAMES, 2)
    for k in range(2):
        balanced, a, b = (sets[name][k] for name in NAMES)
        assert sorted(balanced.table["group"]) == list("AABB")
        assert set(a.table["group"]) == {"A"} and set(b.table["group"]) == {"B"}
        assert len(a) == len(b) == 4
        assert set(balanced.table["item"]) <= set(a.table["item"]) | set(b.table["item"])
    everybody = [set().union(*(set(of[k].subjects) for of in sets.values())) for k in range(2)]
    assert not everybody[0] & everybody[1]


def test_sets_that_cannot_be_composed():
    pool = pool_of("A", "B", people=8)
    few = errors.FEW_OF_GROUP.format(group="A", found=4, wanted=5, n=5)
    with pytest.raises(errors.ParameterError, match=re.escape(few)):
        response.compositions(pool, 5, 2, column="group", seed=0)
    with pytest.raises(errors.ParameterError, match="draws must be at least 2, got 1"):
        response.compositions(pool, 4, 1, column="group", seed=0)
    with pytest.raises(errors.ParameterError, match="draws must be at least 1, got 0"):
        response.deal(pool, 0, column="group", seed=0)
    with pytest.raises(errors.ParameterError, match="Unknown group column 'race'"):
        response.compositions(pool, 4, 2, column="race", seed=0)
    alone = errors.ONE_GROUP.format(source="simfaces", group="A")
    with pytest.raises(errors.ParameterError, match=re.escape(alone)):
        response.compositions(pool_of("A", people=8), 4, 2, column="group", seed=0)


def test_the_width_of_ranges_is_their_geometric_mean():
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU())
    network.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    small = quantize.prepare(network, "w4a4")
    for one, high in zip(quantize.activation_quantizers(small), (2.0, 8.0), strict=True):
        one.high = torch.tensor(high)
    assert response.width(small) == pytest.approx(4.0)


def test_items_take_their_group_from_the_pairs():
    faces = pool_of("A", "B", people=2, each=2).take([0, 1, 2, 4, 5, 6, 7])
    pairs = pd.DataFrame(
        {
            "a": [0, 0, 3, 4],
            "b": [1, 2, 4, 5],
            "genuine": [True, False, True, False],
            "group": ["x", "x", "y", "y"],
        }
    )
    of_faces, of_pairs = response.items(faces, pairs)
    assert of_faces.groups == of_pairs.groups == ["x", "y"]
    assert of_faces.group.tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert of_faces.subject_a.tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert of_pairs.subject_a.tolist() == [0, 0, 2, 2]
    assert of_pairs.subject_b.tolist() == [0, 1, 2, 3]
    assert of_pairs.of_kind(genuine=True).group.tolist() == [0, -1, 1, -1]
    assert of_pairs.of_kind(genuine=False).group.tolist() == [-1, 0, -1, 1]


def test_a_group_without_impostors_is_refused():
    faces = pool_of("A", people=2, each=2)
    pairs = pd.DataFrame({"a": [0, 2], "b": [1, 3], "genuine": [True, True], "group": "x"})
    message = errors.ONE_KIND_OF_GROUP.format(group="x", genuine=2, impostor=0)
    with pytest.raises(errors.DataError, match=re.escape(message)):
        response.items(faces, pairs)


def test_effects_by_hand():
    #             balanced          only-A            only-B      (draws, groups)
    means = [[[0.8, 0.6]] * 2, [[0.9, 0.6], [0.7, 0.6]], [[0.7, 0.7]] * 2]
    values = np.repeat(np.array(means), 40, axis=-1)  # (C, R, 80), the same for all of a group
    rows = found(values, faces_items())
    value = rows["value"]
    assert value["level", "only-A", "A"] == pytest.approx(0.8)
    assert value["less balanced", "only-A", "A"] == pytest.approx(0.0)
    assert value["less balanced", "only-B", "B"] == pytest.approx(0.1)
    assert value["less balanced", "only-B", "mean of groups"] == pytest.approx(0.0)
    assert value["less the mean change", "only-B", "A"] == pytest.approx(-0.1)
    assert value["own group", "only-A", "A"] == pytest.approx(0.8 - 0.7)
    assert value["own group", "only-B", "B"] == pytest.approx(0.7 - 0.6)
    assert value["own group", "only-", "mean of groups"] == pytest.approx(0.1)
    # draws of only-A in A are 0.9 and 0.7: s^2 / 2 = 0.02 / 2; people do not differ
    runs = rows["runs"]
    assert runs["level", "only-A", "A"] == pytest.approx(0.01)
    assert runs["own group", "only-", "mean of groups"] == pytest.approx(0.0025)
    assert runs["less balanced", "only-B", "B"] == pytest.approx(0.0)
    assert rows["test"].abs().max() < 1e-20
    assert rows["runs_df"].eq(1).all()
    assert rows["test_df"]["level", "only-A", "A"] == 9
    assert rows["test_df"]["own group", "only-", "mean of groups"] == 18


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_what_cancels(seed):
    """Main effects of compositions and of groups leave untouched what is told apart from them."""
    rng = np.random.default_rng(seed)
    of = faces_items()
    values = rng.normal(size=(3, 4, 80))
    before = found(values, of, resamples=20)
    to_everybody = rng.normal(size=(3, 4, 1))  # of each set, draw by draw
    after = found(values + to_everybody, of, resamples=20)
    for column in ("value", "runs", "test"):
        same = after[column] - before[column]
        assert same["less the mean change"].abs().max() < 1e-9
        assert abs(same["own group", "only-", "mean of groups"]) < 1e-9
    assert (after["value"] - before["value"])["less balanced"].abs().max() > 1e-3
    easier = rng.normal(size=2)[of.group]
    same = found(values + easier, of, resamples=20)["value"] - before["value"]
    assert same.drop("level", level="effect").abs().max() < 1e-9


def test_items_in_no_group_do_not_count():
    rng = np.random.default_rng(0)
    values, of = rng.normal(size=(3, 2, 80)), faces_items()
    more = of._replace(group=np.append(of.group, -1), subject_a=np.append(of.subject_a, 3))
    wide = np.concatenate([values, np.full((3, 2, 1), 1e6)], -1)
    assert np.allclose(found(wide, more), found(values, of))


def test_variance_of_faces_is_that_of_means_of_people():
    rng = np.random.default_rng(1)
    of = faces_items(people=40)
    values = (rng.normal(size=80)[of.subject_a] + rng.normal(size=320))[None, None]
    values = np.repeat(np.repeat(values, 3, 0), 2, 1)
    got = found(values, of, resamples=4000)["test"]["level", "balanced", "A"]
    people = values[0, 0, :160].reshape(40, 4).mean(1)
    assert got == pytest.approx(people.var() / 40, rel=0.08)


def dyadic(e, a, b) -> float:
    """Variance of a sum over pairs that share people (Fafchamps and Gubert 2007), pair by pair."""
    shared = (a[:, None] == a) | (a[:, None] == b) | (b[:, None] == a) | (b[:, None] == b)
    return float(e @ shared @ e)


def test_variance_of_impostor_pairs_is_the_dyadic_one():
    rng = np.random.default_rng(2)
    of = pairs_items(rng, people=30, pairs=3000)
    ease = rng.normal(0, 0.25, 60)
    values = (rng.random(3000) < 0.5 + ease[of.subject_a] + ease[of.subject_b])[None, None]
    values = np.repeat(np.repeat(values, 3, 0), 2, 1)
    impostors = of.of_kind(genuine=False)
    got = found(values, impostors, resamples=4000)["test"]["level", "balanced", "A"]
    at = impostors.group == 0
    e = (values[0, 0, at] - values[0, 0, at].mean()) / at.sum()
    assert got == pytest.approx(dyadic(e, of.subject_a[at], of.subject_b[at]), rel=0.12)
    assert got > 2 * (e**2).sum()  # pairs taken for independent would be far too sure


def test_no_pair_that_changes_sides_is_no_proof_of_no_difference():
    of = pairs_items(np.random.default_rng(3))
    rows = found(np.ones((3, 2, 400), bool), of)
    row = rows.loc[("less balanced", "only-A", "A")]
    low, high = response.Estimate(*row).interval()
    least = uncertainty.wilson(0, (of.group == 0).sum())[1]
    assert (row["value"], -low, high) == pytest.approx((0.0, least, least))


@pytest.fixture
def two_systems(tmp_path):
    """A table of pairs with two scores, and how the audit sees it."""
    rng = np.random.default_rng(4)
    of = pairs_items(rng, people=60, pairs=4000)
    ease = rng.normal(0, 0.15, 120)
    truth = np.where(of.kind, 0.5 + ease[of.subject_a], 0.0)
    table = pd.DataFrame({"genuine": of.kind, "group": np.array(GROUPS)[of.group]})
    for side in ("a", "b"):
        table[f"subject_{side}"] = getattr(of, f"subject_{side}").astype(str)
    one = truth + rng.normal(0, 0.2, 4000)
    table = table.assign(score_one=one, score_two=one + rng.normal(0, 0.1, 4000))
    table.to_parquet(tmp_path / "pairs.parquet")
    report = audit.audit(tmp_path / "pairs.parquet", resamples=1000, seed=0)
    right = {}
    for name in ("one", "two"):
        decided = thresholds.decide(
            "global_best_accuracy", table[f"score_{name}"], of.kind, of.group
        )
        right[name] = decided.accepted == of.kind
    return of, right, report


def test_accuracies_and_differences_are_those_of_the_audit(two_systems):
    of, right, report = two_systems
    values = np.stack([right["one"], right["two"], right["one"]])[:, None].repeat(2, 1)
    rows = found(values, of, resamples=1000)
    rates = frames.rates(report["scores"]["score_one"]["rules"])
    rates = rates[rates["rule"].eq("global_best_accuracy") & rates["metric"].eq("accuracy")]
    levels = rows.loc["level"].loc["balanced"]
    assert levels["value"].tolist() == pytest.approx(rates["value"].tolist())
    for row, low, high in zip(levels.itertuples(index=False), rates.low, rates.high, strict=True):
        own = response.Estimate(*row).interval()
        assert own[1] - own[0] == pytest.approx(high - low, rel=0.2)

    theirs = frames.differences(report, "global_best_accuracy")
    theirs = theirs[theirs["metric"].eq("accuracy") & theirs["group"].isin(GROUPS)]
    less = rows.loc["less balanced"].loc["only-A"].loc[GROUPS]
    assert (100 * less["value"]).tolist() == pytest.approx(theirs["difference"].tolist())
    for row, low, high in zip(less.itertuples(index=False), theirs.low, theirs.high, strict=True):
        own = response.Estimate(*row).interval()
        assert 100 * (own[1] - own[0]) == pytest.approx(high - low, rel=0.2)


def studies(gain: float, repetitions: int):
    """Simulated studies of two groups, in which a group's own faces add `gain` to its response."""
    rng = np.random.default_rng(5)
    of = faces_items(people=15, each=2)
    own = np.zeros((3, 1, 2))
    own[1, 0, 0] = own[2, 0, 1] = gain
    for _ in range(repetitions):
        draw = rng.normal(0, 0.02, (3, 5, 1)) + rng.normal(0, 0.01, (3, 5, 2))
        people = rng.normal(0, 0.02, (3, 1, 30))[..., of.subject_a]
        noise = rng.normal(0, 0.01, (3, 1, len(of.group)))
        values = (own + draw)[..., of.group] + people + noise
        measured = {"agreement": (values, of)}
        yield response.responses(NAMES, measured, ("agreement",), resamples=100, seed=0)


def test_intervals_hold_a_planted_gain_of_the_own_group_and_nothing_is_invented():
    held, false_alarms, tested = [], 0, 0
    for table in studies(0.03, 150):
        row = table[(table["effect"] == "own group") & (table["composition"] == "only-")].iloc[0]
        held.append(row["low"] <= 0.03 <= row["high"])
    for table in studies(0.0, 150):
        tested += 1
        false_alarms += response.resolved(table).any()
    low, high = stats.binomtest(sum(held), len(held)).proportion_ci(0.999)
    assert low <= 0.95 <= high
    assert false_alarms <= stats.binom.ppf(0.999, tested, 0.05)


def test_a_planted_gain_is_found_where_it_is_large():
    table = next(studies(0.5, 1))
    own = table[table["effect"] == "own group"].set_index("group")
    assert response.resolved(own).tolist() == [True] * 3
    said = " ".join(response.sentences(table))
    assert "which is resolved: a group gains. Single groups: A +" in said
    family = table["p"].notna().sum()
    assert table["family"].eq(family).all() and family == 2 * 3 + 2 * 2 + 3
    assert table.loc[table["effect"] == "level", ["p", "p_holm"]].isna().all(axis=None)


def test_levels_stay_within_their_bounds_and_kinds_within_the_family():
    of = pairs_items(np.random.default_rng(6))
    right = np.random.default_rng(6).random((3, 2, 400)) < 0.999
    like = np.full((3, 2, 80), 0.9999) + np.random.default_rng(6).normal(0, 1e-3, (3, 2, 80))
    measured = {"agreement": (like, faces_items()), "accuracy": (right, of), "FMR": (~right, of)}
    table = response.responses(NAMES, measured, ("agreement", "accuracy"), resamples=50, seed=0)
    level = table["effect"] == "level"
    assert table.loc[level, "high"].max() == 1.0
    rates = table[level & table["metric"].isin(["accuracy", "FMR"])]
    assert rates["low"].min() == 0.0
    assert set(table.loc[table["p"].notna(), "metric"]) == {"agreement", "accuracy"}
    assert (table["people_low"] >= table["low"] - 1e-12).all()
    assert (table["people_high"] <= table["high"] + 1e-12).all()


def planted(rows) -> pd.DataFrame:
    columns = ["effect", "composition", "group", "value", "p_holm"]
    table = pd.DataFrame(rows, columns=columns).assign(metric="accuracy", se_people=0.01)
    table = table.assign(low=table["value"] - 0.02, high=table["value"] + 0.02, se_draws=0.01)
    return table.assign(p=table["p_holm"])


def test_sentences_say_what_the_table_says():
    table = planted(
        [
            ("level", "balanced", "A", 0.9, np.nan),
            ("less balanced", "noise", "A", -0.05, 0.01),
            ("less balanced", "noise", "B", -0.04, 0.04),
            ("less balanced", "only-A", "A", 0.03, 0.04),
            ("less balanced", "only-A", "B", 0.01, 0.9),
            ("less the mean change", "noise", "A", -0.005, 0.9),
            ("own group", "only-A", "A", -0.03, 0.02),
            ("own group", "only-", "mean of groups", -0.02, 0.2),
        ]
    )
    compositions, between, own = response.sentences(table)
    assert compositions.startswith("**accuracy**: 3 of 4 differences from the balanced set")
    assert "(noise lower: A, B; only-A higher: A)" in compositions
    assert "that of noise, A: -5.00 points (-7.00 to -3.00)" in compositions
    assert "50% is of the draw" in compositions
    assert "0 of 1 of the groups' changes are resolved" in between
    assert "reaches further than 2.50 points" in between
    assert "by -2.00 points (-4.00 to +0.00), which is not resolved" in own
    assert own.endswith("Single groups: A -3.00 points (-5.00 to -1.00).")


def test_sentences_without_shared_groups():
    table = planted([("less balanced", "noise", "everybody", 0.0, 1.0)])
    compositions, own = response.sentences(table)
    assert compositions.startswith("**accuracy**: 0 of 1 differences")
    assert "share fewer than two groups" in own
