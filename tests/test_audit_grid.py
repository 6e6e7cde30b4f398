"""Many networks in many columns: parity with a single audit, planted effects, and false alarms."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studylib import audit, compare, errors, published, runs
from studylib.audit import frames, grid
from studylib.audit.grid import Row
from studylib.metrics import testing, verification
from tests.fixtures import race_runs

COLUMNS = {"fp32": 0.0, "real/w8a8": 0.0, "real/w4a4": 0.15, "generator/w4a4": 0.1}
RULE = "global_best_accuracy"
ASKED = {"rule": RULE, "resamples": 200, "seed": 3}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    table = race_runs.joined(race_runs.pairs(), {"one": 1, "two": 2}, COLUMNS)
    file = tmp_path_factory.mktemp("grid") / "outcomes.parquet"
    table.to_parquet(file)
    return file


@pytest.fixture(scope="module")
def one(path):
    return grid.read(path, "one", list(COLUMNS), **ASKED)


def _audited(path, *columns):
    scores = [f"score_one/{column}" for column in columns]
    return audit.audit(path, score=scores, resamples=200, seed=3)


@pytest.mark.parametrize(
    ("reference", "others"),
    [("fp32", ["real/w8a8", "real/w4a4"]), ("real/w4a4", ["generator/w4a4"])],
)
def test_differences_are_an_audits(path, one, reference, others):
    told = frames.differences(_audited(path, reference, *others), RULE)
    wanted = told[told["metric"].isin(["accuracy", "std"])]
    keys = ["column", "group", "metric"]
    wanted = wanted.assign(column=wanted["score"].str.removeprefix("score_one/")).set_index(keys)
    rows = grid.differences(one, reference, others)
    found = grid.by_network(rows).set_index(keys).loc[wanted.index]
    for ours, theirs in (("value", "difference"), ("low", "low"), ("high", "high")):
        np.testing.assert_allclose(100 * found[ours], wanted[theirs], rtol=1e-6, atol=1e-9)
    assert (wanted["difference"].abs() > 1).any()


def test_levels_are_an_audits(path, one):
    rules = {n: part["rules"] for n, part in _audited(path, *COLUMNS)["scores"].items()}
    found = {(r.column, r.group, r.metric): r.value for r in grid.levels(one)}
    for column in COLUMNS:
        part = rules[f"score_one/{column}"][RULE]
        for group, rates in part["groups"].items():
            assert 100 * found[column, group, "accuracy"] == pytest.approx(rates["accuracy"])
        assert 100 * found[column, "all", "accuracy"] == pytest.approx(part["overall"]["accuracy"])
        for metric, scale in (("std", 100), ("worst", 100), ("ser", 1)):
            assert scale * found[column, "all", metric] == pytest.approx(part["fairness"][metric])


def test_panels_are_an_audits(path, one):
    rules = _audited(path, *COLUMNS)["scores"]["score_one/real/w4a4"]["rules"]
    wanted = frames.panel({RULE: rules[RULE]})[0].set_index("key").loc[["std", "ser"]]
    found = grid.panel(one).query("column == 'real/w4a4'").set_index("metric").loc[["std", "ser"]]
    numbers = ["value", "low", "high", "null_low", "null_median", "null_high"]
    np.testing.assert_allclose(found[numbers], wanted[numbers], rtol=1e-6)
    assert (found["network"] == "one").all()


def test_other_sources_are_compared_at_their_own_precision(one):
    rows = grid.between_sources(one, "real")
    assert {(r.column, r.reference) for r in rows} == {("generator/w4a4", "real/w4a4")}
    direct = grid.differences(one, "real/w4a4", ["generator/w4a4"])
    assert [r[:6] for r in rows] == [r[:6] for r in direct]
    assert grid.between_sources(one, "noise") == []
    assert grid.differences(one, "fp32", ["fp32", "noise/w2a2"]) == []


def test_no_rows_make_an_empty_table():
    about = pd.DataFrame({"network": ["one"], "architecture": ["a"], "trained_on": ["b"]})
    found = grid.corrected(grid.averages([], about, 20))
    assert found.empty and {"source", "precision", "p_holm", "tests"} <= set(found)


def test_sources_are_compared_by_the_same_method(tmp_path):
    columns = ["fp32", "real/w4a4", "real qat/w4a4", "generator qat/w4a4", "noise/w8a8"]
    made = race_runs.joined(race_runs.pairs(), {"one": 0}, dict.fromkeys(columns, 0.0))
    made.to_parquet(tmp_path / "o.parquet")
    (measured,) = grid.read_all(tmp_path / "o.parquet", **ASKED)
    rows = grid.between_sources(measured, "real")
    assert {(r.column, r.reference) for r in rows} == {("generator qat/w4a4", "real qat/w4a4")}


def test_all_networks_of_a_table_are_read(path):
    found = grid.read_all(path, **ASKED)
    assert [(m.network, m.columns) for m in found] == [(n, list(COLUMNS)) for n in ("one", "two")]
    assert {m.people for m in found} == {20}


def test_networks_see_the_same_people_also_where_none_are_named(tmp_path):
    table = race_runs.joined(race_runs.pairs(), {"x": 1, "y": 1, "z": 2}, COLUMNS)
    for name, part in {"named": table, "bare": table.filter(regex="score|genuine|group")}.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
        x, y, z = grid.read_all(tmp_path / f"{name}.parquet", **ASKED)
        drawn = [grid.differences(m, "fp32", ["real/w4a4"])[0].draws for m in (x, y, z)]
        assert (drawn[0] == drawn[1]).all()
        assert (drawn[0] != drawn[2]).any()
    assert z.people == 200  # of the bare table: each pair stands for itself


def _rows(values, draws=None, least=1e-6, metric="std"):
    draws = np.zeros((len(values), 50)) if draws is None else draws
    return [
        Row(f"n{k}", "real/w4a4", "fp32", "all", metric, v, d, least)
        for k, (v, d) in enumerate(zip(values, draws, strict=True))
    ]


def _about(*kinds):
    table = pd.DataFrame(kinds, columns=["architecture", "trained_on"])
    return table.assign(network=[f"n{k}" for k in range(len(kinds))])


def test_trainings_of_one_kind_have_students_interval():
    values = [0.01, 0.04, 0.03]
    found, repeats = grid.estimate(_rows(values), np.array(["a"] * 3), 20)
    wanted = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(found.interval(), wanted, rtol=1e-6)
    assert repeats == 2
    assert found.p() == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-4)


def test_kinds_share_their_variance_and_may_lie_apart():
    values, kinds = np.array([0.1, 0.12, 0.5, 0.56, 0.9]), np.array(list("aabbc"))
    found, repeats = grid.estimate(_rows(values), kinds, 20)
    assert repeats == found.runs_df == 2
    within = (0.01**2 * 2 + 0.03**2 * 2) / 2
    assert found.runs == pytest.approx(within / 5)
    assert found.value == pytest.approx(values.mean())


def test_test_people_count_by_the_average_of_their_draws():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 0.02, 400), rng.normal(0, 0.02, (2, 400))
    for draws, wanted in ((np.stack([shared] * 2), shared.var()), (own, own.mean(0).var())):
        found, _ = grid.estimate(_rows([0.1, 0.1], draws), np.array(list("ab")), 20)
        assert found.test == pytest.approx(wanted)
    assert own.mean(0).var() < 0.7 * shared.var()


def test_a_column_that_never_moves_is_not_known_exactly():
    found, _ = grid.estimate(_rows([0.0], least=0.02), np.array(["a"]), 10_000)
    assert found.interval()[1] == pytest.approx(0.02, rel=1e-3)
    assert found.p() == 1.0


def test_one_network_is_a_comparison_of_two_networks(one):
    rows = grid.differences(one, "fp32", one.columns)
    about = pd.DataFrame({"network": ["one"], "architecture": "x", "trained_on": "y"})
    found = grid.averages(rows, about, one.people)
    assert (found["repeats"] == 0).all() and set(found["over"]) == {"all networks"}
    assert (found["low"] == found["people_low"]).all()
    assert (found["high"] == found["people_high"]).all()
    each = grid.by_network(rows).set_index(["column", "group", "metric"])["value"]
    own = found.set_index(["column", "group", "metric"])["value"]
    np.testing.assert_allclose(own, each.loc[own.index], atol=1e-12)


def test_averages_are_of_all_of_an_architecture_and_of_a_training_set():
    about = _about(("r", "balanced"), ("r", "skewed"), ("m", "skewed"))
    found = grid.averages(_rows([0.1, 0.2, 0.6]), about, 20).set_index(["over", "of"])
    assert found["value"].round(9).to_dict() == {
        ("all networks", "all"): 0.3,
        ("architecture", "r"): 0.15,
        ("architecture", "m"): 0.6,
        ("training set", "balanced"): 0.1,
        ("training set", "skewed"): 0.4,
    }
    assert found.loc[("architecture", "r"), "networks"] == 2
    assert set(found["source"]) == {"real"} and set(found["precision"]) == {"w4a4"}
    by = grid.averages_by("architecture", _rows([0.1, 0.2, 0.6]), about, 20)
    assert dict(zip(by["architecture"], by["value"].round(9), strict=True)) == {"r": 0.15, "m": 0.6}


def test_a_ratio_to_no_error_is_not_defined():
    rows = _rows([1.2, np.inf], metric="ser")
    found = grid.corrected(grid.averages(rows, _about(("r", "a"), ("r", "a")), 20))
    assert found[["value", "low", "p", "p_holm"]].isna().all(axis=None)
    assert found["tests"].tolist() == [0]


def test_families_are_corrected_by_themselves():
    about = _about(("r", "a"), ("r", "a"), ("r", "b"))
    rows = [
        r
        for m in ("accuracy", "worst", "std", "ser")
        for r in _rows([0.02, 0.01, 0.01], least=0.01, metric=m)
    ]
    rows += [r._replace(group="A") for r in _rows([0.5, 0.5], metric="accuracy")]
    found = grid.corrected(grid.averages(rows, about, 20))
    assert (found["group"] == "all").all()
    assert found.groupby("family")["tests"].first().to_dict() == {
        "all networks, STD and SER": 2,
        "all networks, accuracies": 2,
        "some networks, STD and SER": 2,  # of a, trained twice; b is not tested
        "some networks, accuracies": 2,
    }
    for _, part in found.groupby("family"):
        np.testing.assert_array_equal(part["p_holm"], testing.holm(part["p"]))


def test_a_column_of_kinds_trained_once_holds_test_people_alone():
    """Noise is only in two of four networks, and none of the two repeats the other's kind."""
    about = _about(("r", "a"), ("r", "a"), ("r", "b"), ("m", "b"))
    draws = np.random.default_rng(1).normal(0, 0.001, (4, 200))
    rows = _rows([0.02, 0.04, 0.03, 0.03], draws)
    rows += [row._replace(column="noise/w4a4") for row in (rows[1], rows[3])]
    found = grid.corrected(grid.averages(rows, about, 20)).set_index(["source", "over", "of"])
    real, noise = (found.loc[(s, "all networks", "all")] for s in ("real", "noise"))
    assert real[["networks", "repeats", "tests"]].tolist() == [4, 1, 2]
    assert noise[["networks", "repeats", "tests"]].tolist() == [2, 0, 2]
    assert real["low"] < real["people_low"] - 0.01 and noise["low"] == noise["people_low"]
    assert noise["p"] < 1e-6 < real["p"]
    some = found[found["family"] == "some networks, STD and SER"]
    tested = some["p"].notna()
    assert tested.equals(some["repeats"] > 0) and set(some["tests"]) == {2}
    assert set(some[tested].index) == {
        ("real", "architecture", "r"), ("real", "training set", "a")
    }  # fmt: skip
    assert some["low"].notna().all() and some.loc[~tested, "p_holm"].isna().all()


def _most(studies: int) -> int:
    """Alarms of so many studies that a true rate of 5 % exceeds once in a hundred times."""
    return int(stats.binom.ppf(0.99, studies, 0.05))


def test_alarms_of_estimates_are_as_rare_as_they_say():
    """Chance of trainings and of test people as `estimate` supposes them, and no effect."""
    rng, studies, kinds = np.random.default_rng(2), 1000, np.array(list("aaabbbcd"))
    for people, training in ((0.02, 0.0), (0.02, 0.02), (0.0, 0.02)):
        p = []
        for _ in range(studies):
            values = rng.normal(0, people) + rng.normal(0, training, len(kinds))
            draws = np.repeat(rng.normal(0, people, (1, 200)), len(kinds), 0)
            found, repeats = grid.estimate(_rows(values, draws), kinds, 1000)
            p.append(found.p())
        alarms = np.less(p, 0.05).sum()
        assert repeats == 4 and 0 < alarms <= _most(studies)
    assert stats.binom.cdf(_most(studies), studies, 0.1) < 0.01  # twice the rate would not pass


STUDIES, MANY = 30, 200
MOST_ALARMS = _most(STUDIES)
SMALL = {"people": 16, "per_group": 100}


def _study(folder, k: int, damage: float, luck: float = 0.0) -> tuple[pd.DataFrame, ...]:
    """One study of three networks: averages of real/w4a4 minus fp32.

    As trainings of one kind, and as networks of three. The damage of a network is its own by `luck`
    (a standard deviation).
    """
    table, parts = race_runs.pairs(**SMALL, seed=k), []
    for n, own in enumerate(np.random.default_rng([k, 1]).normal(damage, luck, 3)):
        columns = {"fp32": 0.0, "real/w4a4": own}
        parts.append(race_runs.joined(table, {f"n{n}": 1000 * n + k}, columns))
    made = pd.concat([parts[0], *(part.filter(like="score") for part in parts[1:])], axis=1)
    made.to_parquet(folder / "study.parquet")
    measured = grid.read_all(folder / "study.parquet", rule=RULE, resamples=100, seed=0)
    rows = [row for m in measured for row in grid.differences(m, "fp32", m.columns)]
    rows = [row for row in rows if row.group == "all"]
    kinds = [("r", "a")] * 3, [("r", "a"), ("s", "a"), ("t", "a")]
    found = [grid.averages(rows, _about(*of), measured[0].people) for of in kinds]
    return tuple(t[t["over"] == "all networks"].set_index("metric") for t in found)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """What a damage of 0.2 does to the accuracies of a far larger test of the same model."""
    made = race_runs.joined(
        race_runs.pairs(people=2000, per_group=20_000), {"n": 1}, {"fp32": 0.0, "real/w4a4": 0.2}
    )
    made.to_parquet(path := tmp_path_factory.mktemp("truth") / "t.parquet")
    m = grid.read(path, "n", ["fp32", "real/w4a4"], rule=RULE, resamples=100, seed=0)
    return {r.metric: r.value for r in grid.differences(m, "fp32", m.columns) if r.group == "all"}


def test_a_planted_loss_is_found_and_measured(tmp_path, truth):
    assert truth["std"] > 0.05 and truth["worst"] < -0.1
    found = [_study(tmp_path, k, 0.2)[0] for k in range(STUDIES)]
    for metric in ("accuracy", "worst", "std"):
        held = [t.loc[metric, "low"] <= truth[metric] <= t.loc[metric, "high"] for t in found]
        assert np.mean(held) >= 0.9
    assert np.mean([t.loc["std", "p"] < 0.05 for t in found]) > 0.7
    assert np.mean([t.loc["worst", "value"] < 0 for t in found]) == 1


def _alarms(found, metric) -> int:
    return sum(not t.loc[metric, "people_low"] <= 0 <= t.loc[metric, "people_high"] for t in found)


def test_nothing_planted_is_rarely_found(tmp_path):
    studies = [_study(tmp_path, k, 0.0) for k in range(MANY)]
    for found in zip(*studies, strict=True):
        for metric in ("worst", "std"):
            assert sum(t.loc[metric, "p"] < 0.05 for t in found) <= _most(MANY)
            assert _alarms(found, metric) <= _most(MANY)
    assert stats.binom.cdf(_most(MANY), MANY, 0.15) < 0.01  # three times the rate would not pass
    values = [alone.loc["std", "value"] for _, alone in studies]
    assert 0.003 < np.std(values) < 0.02  # there was something to be alarmed about


def test_luck_in_training_passes_for_an_effect_if_each_kind_was_trained_once(tmp_path):
    """Every network has a loss or a gain of its own."""
    studies = [_study(tmp_path, k, 0.0, luck=0.25) for k in range(STUDIES)]
    trained, alone = zip(*studies, strict=True)
    for metric in ("worst", "std"):
        assert sum(t.loc[metric, "p"] < 0.05 for t in trained) <= MOST_ALARMS
        assert sum(t.loc[metric, "p"] < 0.05 for t in alone) > 2 * MOST_ALARMS


def _panels(values, bands):
    rows = [
        {"network": n, "column": c, "metric": "ser", "value": v, "null_median": m, "null_high": h}
        for (n, c, v), (m, h) in zip(values, bands, strict=True)
    ]
    return pd.DataFrame(rows)


def test_noise_is_counted_from_the_fairest_value_on():
    values = [
        ("a", "fp32", 1.5),
        ("a", "real/w4a4", 2.0),
        ("b", "fp32", 1.1),
        ("c", "real/w4a4", 3),
    ]
    found = grid.noise(_panels(values, [(1.2, 1.4), (1.6, 2.2), (1.1, 1.2), (1.5, 2)]), "fp32")
    found = found.set_index("column")
    assert found["within"].to_dict() == {"fp32": 1, "real/w4a4": 1}
    assert found.loc["fp32", "share"] == pytest.approx(0.3 / 0.6)
    last = found.loc["real/w4a4"]
    assert last["share"] == pytest.approx(1.1 / 3.0)
    assert last[["change", "null_change", "excess"]].tolist() == pytest.approx([0.5, 0.4, 0.1])
    assert (last["source"], last["precision"], last["networks"]) == ("real", "w4a4", 2)


def test_panels_are_averaged_over_a_training_set(path):
    panels = pd.concat([grid.panel(m) for m in grid.read_all(path, **ASKED)])
    about = pd.DataFrame({"network": ["one", "two"], "trained_on": ["x", "x"]})
    found = grid.mean_panels(panels, about).set_index(["column", "metric"])
    alone = panels.set_index(["network", "column", "metric"])
    at = ("real/w4a4", "std")
    for number in ("value", "null_median", "high"):
        both = [alone.loc[(name, *at), number] for name in ("one", "two")]
        assert found.loc[at, number] == pytest.approx(np.mean(both))
    assert (found["networks"] == 2).all()


def _finished(folder, name, **options):
    kinds = options.pop("kinds", [("iresnet", "balanced", (0,))])
    race_runs.write_runs(folder / name, kinds, **options)
    return runs.finished(folder / name, "fr_race_bias", "quick")


def test_benchmarks_follow_their_protocol(tmp_path):
    found = _finished(tmp_path, "lfw", eval_set="lfw", groups=("everybody",), sources=("real",))
    table = grid.benchmarks(found).set_index("precision")
    outcomes = found[0].outcomes
    distance = 2 * (1 - outcomes["score_w4a4"].to_numpy())
    folds = verification.ten_fold(distance, outcomes["genuine"].to_numpy())
    assert table.loc["w4a4", "accuracy"] == pytest.approx(folds.accuracy.mean())
    assert table.loc["w4a4", ["network", "source", "benchmark"]].tolist() == [
        "iresnet-balanced-0", "real", "lfw"
    ]  # fmt: skip
    assert grid.benchmarks(_finished(tmp_path, "others", sources=("real",))).empty


def test_networks_of_several_runs_are_joined(tmp_path):
    found = _finished(tmp_path, "a", sources=("generator", "real"))
    about = compare.networks(found)
    assert about["source"].tolist() == ["generator", "real"]
    table = compare.join_networks(found, about)
    assert [c for c in table if c.startswith("score")] == [
        f"score_iresnet-balanced-0/{column}"
        for column in ("fp32", "generator/w8a8", "generator/w4a4", "real/w8a8", "real/w4a4")
    ]
    own = found[1].outcomes["score_w4a4"]
    assert (table["score_iresnet-balanced-0/real/w4a4"] == own).all()


def test_what_a_network_does_not_say_is_not_noted(tmp_path):
    (one,) = _finished(tmp_path, "a", sources=("real",))
    table = one.table("network").assign(trained_on=None, training_seed=None)
    table.to_parquet(one.folder / "network.parquet")
    about = compare.networks([one])
    assert about.loc[0, ["trained_on", "training_seed"]].tolist() == ["not noted"] * 2
    assert about.loc[0, "architecture"] == "iresnet"


def _change(run, change) -> None:
    change(run.outcomes).to_parquet(run.folder / "outcomes.parquet")


def test_runs_that_do_not_fit_are_refused(tmp_path):
    found = _finished(tmp_path, "a", sources=("generator", "real"))
    _change(found[1], lambda t: t.assign(score_fp32=t["score_fp32"] + 0.5))
    found = runs.finished(tmp_path / "a", "fr_race_bias", "quick")
    named = {"network": "iresnet-balanced-0"}
    first, other = (run.name for run in found)
    with pytest.raises(errors.RunError) as caught:
        compare.join_networks(found, compare.networks(found))
    said = errors.OTHER_FP32.format(first=first, other=other, **named, most=0.5)
    assert str(caught.value) == said

    record = found[1].record
    record["parameters"]["calibration"] = "generator"
    (found[1].folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(errors.RunError) as caught:
        compare.networks(runs.finished(tmp_path / "a", "fr_race_bias", "quick"))
    said = errors.SAME_VERSION.format(first=first, other=other, **named, source="generator")
    assert str(caught.value) == said

    _change(found[0], lambda t: t.drop(columns="score_fp32"))
    with pytest.raises(errors.RunError) as caught:
        compare.networks(runs.finished(tmp_path / "a", "fr_race_bias", "quick"))
    assert str(caught.value) == errors.NO_REFERENCE.format(run=first)


def test_runs_without_groups_are_refused(tmp_path):
    found = _finished(tmp_path, "a", groups=("everybody",), eval_set="lfw", sources=("real",))
    with pytest.raises(errors.RunError) as caught:
        compare.with_groups(found)
    assert str(caught.value) == errors.NOTHING_GROUPED.format(sets="lfw")
    path = found[0].folder / "outcomes.parquet"
    table = found[0].outcomes.rename(columns={"score_fp32": "score_x/fp32"})
    table.to_parquet(path)
    with pytest.raises(errors.DataError) as caught:
        grid.read(path, "x", ["fp32"], **ASKED)
    assert str(caught.value) == errors.ONE_GROUP.format(source=path, group="everybody")


def test_parameters_are_checked(path):
    with pytest.raises(errors.ParameterError, match="Unknown threshold rule 'global_fmr'"):
        grid.read(path, "one", ["fp32"], rule="global_fmr", resamples=100, seed=0)
    said = errors.BAD_SIZE.format(what="resamples", least=100, value=10)
    with pytest.raises(errors.ParameterError) as caught:
        grid.read(path, "one", ["fp32"], rule=RULE, resamples=10, seed=0)
    assert str(caught.value) == said
    assert grid.REFERENCE == published.BASELINE == "fp32"
