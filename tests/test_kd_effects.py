"""What distillation changes: parity with direct counts, Fieller's interval, agreement of errors."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from studylib import compare, errors, kd_effects, runs
from studylib.audit import grid
from studylib.audit.grid import Row
from studylib.metrics import thresholds
from tests.fixtures import kd_runs
from tests.fixtures.kd_runs import KD

ASKED = {"rule": "global_best_accuracy", "resamples": 200, "seed": 1}
SMALL = {"people": 20, "per_group": 200}


def made(folder, **given):
    kd_runs.write_runs(folder, **(SMALL | given))
    return runs.finished(folder, "kd_student", "quick"), runs.finished(
        folder, "kd_teacher", "quick"
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Students, their table, outcomes and its file, teachers: everything that functions take."""
    folder = tmp_path_factory.mktemp("runs")
    found, teachers = made(folder, damage=0.2, teachers=2)
    about = kd_effects.students(found)
    outcomes, teacher = kd_effects.join(found, about, teachers)
    outcomes.to_parquet(folder / "outcomes.parquet")
    return about, outcomes, folder / "outcomes.parquet", teacher


@pytest.fixture(scope="module")
def measured(study):
    return kd_effects.read(study[2], study[0], **ASKED)


def test_students_are_told_by_kind_set_teaching_and_seed(study):
    about = study[0]
    assert len(about) == 18 and set(about["network"]) == {f"iresnet-{seed}" for seed in range(3)}
    assert set(about["set"]) == {"real", "mix 30%", "synthetic"}
    row = about[about["run"] == f"iresnet-cosface-mix-0.3-kd{KD[4:]}-1"].iloc[0]
    assert row["column"] == f"mix 30%/{KD}" and row["network"] == "iresnet-1"


def test_kinds_carry_what_their_runs_differ_in(tmp_path):
    found, _ = made(tmp_path, kinds=("a", "b/c"), heads=("cosface", "adaface"), seeds=(0,))
    wide = [run for run in found if run.name.startswith("a-cosface")]
    for run in wide:
        kd_runs.set_parameters(run.folder, settings={"depth": [2, 2, 2, 2], "size": 112})
    about = kd_effects.students(runs.finished(tmp_path, "kd_student", "quick"))
    assert set(about["architecture"]) == {
        "a depth [2, 2, 2, 2] width None cosface",
        "a depth [1, 1, 1, 1] width 0.25 adaface",
        "b c cosface",
        "b c adaface",
    }


def test_one_student_twice_is_refused(tmp_path):
    found, _ = made(tmp_path, seeds=(0, 1))
    twins = [run for run in found if run.name.startswith("iresnet-cosface-real-0-alone")]
    kd_runs.edit(twins[1].folder, training_seed=0)
    said = {"first": twins[0].name, "other": twins[1].name}
    said |= {"network": "iresnet-0", "column": "real/alone"}
    with pytest.raises(errors.RunError) as caught:
        kd_effects.students(found)
    assert str(caught.value) == errors.SAME_STUDENT.format(**said)


def test_a_run_without_full_precision_is_refused(tmp_path):
    found, _ = made(tmp_path, seeds=(0,))
    place = found[0].folder / runs.OUTCOMES
    pd.read_parquet(place).drop(columns="score_fp32").to_parquet(place)
    with pytest.raises(errors.RunError) as caught:
        kd_effects.students(found)
    assert str(caught.value) == errors.NO_REFERENCE.format(run=found[0].name)


@pytest.mark.parametrize(
    ("which", "changes", "parameter"),
    [
        ("real-0-alone-1", {"epochs": 9}, "epochs"),  # not the others' length
        ("synthetic-1-kdembedding-0", {"flip": False}, "flip"),  # others on this set have another
        ("real-0-alone-0", {"real_set": "rfw"}, "real_set"),
        ("mix-0.3-kdembedding-1", {"kd_weight": 5.0}, "kd_weight"),  # another seed's is other
    ],
)
def test_students_of_different_recipes_are_refused(tmp_path, which, changes, parameter):
    made(tmp_path, seeds=(0, 1))
    name = f"iresnet-cosface-{which}"
    kd_runs.set_parameters(tmp_path / "kd_student" / f"quick-{name}", **changes)
    with pytest.raises(errors.RunError) as caught:
        kd_effects.students(runs.finished(tmp_path, "kd_student", "quick"))
    said = str(caught.value)
    runs_named = said.split("The runs ")[1].split(" are students")[0].split(" and ")
    given = {"first": runs_named[0], "other": runs_named[1], "parameter": parameter}
    usual = {"epochs": 4, "real_set": "simfaces"}
    values = (usual.get(parameter), changes[parameter])
    values = values if runs_named[1] == name else values[::-1]
    given |= {"kind": "iresnet", "given": values[0], "wanted": values[1]}
    assert name in runs_named and said == errors.OTHER_RECIPE.format(**given)


def test_recipes_may_differ_in_teaching_and_between_kinds(tmp_path):
    found, _ = made(tmp_path, kinds=("iresnet", "mobilefacenet"), seeds=(0,))
    for run in found:
        if "mobile" in run.name:
            kd_runs.set_parameters(run.folder, lr=0.05)
        kd_runs.set_parameters(run.folder, kd_weight=None if "alone" in run.name else 3.0)
        kd_runs.set_parameters(run.folder, teacher="alone" not in run.name)
    assert len(kd_effects.students(runs.finished(tmp_path, "kd_student", "quick"))) == 12


def test_recipes_may_differ_in_places_and_in_what_belongs_to_a_set(tmp_path):
    """As in the paper, which mirrored real faces alone; real students name no synthetic set."""
    found, _ = made(tmp_path, seeds=(0, 1))
    for number, run in enumerate(found):
        kd_runs.set_parameters(run.folder, flip="synthetic-1" not in run.name)
        kd_runs.set_parameters(run.folder, **dict.fromkeys(["real_root", "eval_root"], number))
        if "real" not in run.name:
            kd_runs.set_parameters(run.folder, synthetic_set="drawn", per_synthetic=50)
        if "synthetic-1" in run.name:
            kd_runs.set_parameters(run.folder, real_set="unused")
    found = runs.finished(tmp_path, "kd_student", "quick")
    about = kd_effects.students(found)
    table = kd_effects.recipes_of_sets(found, about)
    assert table.values.tolist() == [
        ["iresnet", "flip", True, ["mix 30%", "real"]],
        ["iresnet", "flip", False, ["synthetic"]],
    ]
    mixed = next(run for run in found if "mix" in run.name)
    kd_runs.set_parameters(mixed.folder, per_synthetic=20)
    with pytest.raises(errors.RunError, match="differ in per_synthetic"):
        kd_effects.students(runs.finished(tmp_path, "kd_student", "quick"))


def test_one_network_has_one_teacher_on_all_sets(tmp_path):
    found, teachers = made(tmp_path, seeds=(0,), teachers=2)
    about = kd_effects.students(found)
    (other,) = (run for run in found if "synthetic" in run.name and "kdembedding" in run.name)
    table = other.outcomes
    table["score_teacher"] = teachers[1].outcomes["score_fp32"]
    table.to_parquet(other.folder / runs.OUTCOMES)
    with pytest.raises(errors.RunError) as caught:
        kd_effects.join(runs.finished(tmp_path, "kd_student", "quick"), about, teachers)
    said = {"network": "iresnet-0", "taught": KD, "other": other.name}
    said |= {"first": "iresnet-cosface-mix-0.3-kdembedding-0"}
    said |= {"first_teacher": "teacher-0", "other_teacher": "teacher-1"}
    assert str(caught.value) == errors.OTHER_TEACHER.format(**said)


def test_the_share_that_a_set_came_to_stands_beside_the_one_asked_for(tmp_path):
    """Sets of unequal size: a mix of 30 % asked for has 13 % synthetic identities."""
    found, _ = made(tmp_path, seeds=(0,))
    for run in found:
        if "mix" in run.name:
            kd_runs.edit(run.folder, synthetic_share=0.13)
            place = run.folder / "people.parquet"
            numbers = {"identities": [7, 80, 13], "pictures": [70, 800, 26]}
            people = pd.DataFrame({"domain": ["real", "real", "synthetic"]} | numbers)
            people.astype({"domain": "category"}).to_parquet(place)
    about = kd_effects.students(found)
    mixed = about[about["training_set"] == "mix"].iloc[0]
    assert (mixed["set"], mixed["share"], mixed["synthetic_share"]) == ("mix 30%", 0.3, 0.13)
    assert (about.loc[about["set"] == "synthetic", "synthetic_share"] == 1).all()  # not told
    sizes = kd_effects.sizes(found, about)
    assert sizes.values.tolist() == [
        ["real", 0.0, 100, 0, 1000, 0],
        ["mix 30%", 0.13, 87, 13, 870, 26],
        ["synthetic", 1.0, 0, 100, 0, 1000],
    ]
    counted = ["identities real", "identities synthetic", "pictures real", "pictures synthetic"]
    assert list(sizes) == ["set", "synthetic_share", *counted]
    other = about.assign(architecture=["b" if r == "mix" else "a" for r in about["training_set"]])
    other.loc[other["column"] == "mix 30%/alone", "architecture"] = "a"
    (run,) = (run for run in found if "mix" in run.name and "alone" in run.name)
    people.assign(pictures=[70, 800, 27]).to_parquet(run.folder / "people.parquet")
    several = kd_effects.sizes(found, other).set_index("students")
    assert several.loc["a"].shape == (3, 6) and several.loc["b", "pictures synthetic"] == 26


def test_students_with_and_without_a_teacher_are_needed(study):
    about = study[0]
    assert len(kd_effects.taught_or_alone(about, KD)) == len(about)
    one_way = (about["network"] == "iresnet-2") & (about["taught"] == "alone")
    kept = kd_effects.taught_or_alone(about[~one_way], KD)
    assert set(kept["network"]) == {"iresnet-0", "iresnet-1"}
    apart = about[(about["set"] == "real") == (about["taught"] == KD)]
    for part, taught in ((apart, KD), (about, "kd: rkd")):
        with pytest.raises(errors.RunError) as caught:
            kd_effects.taught_or_alone(part, taught)
        assert str(caught.value) == errors.NOTHING_TAUGHT.format(taught=taught)


def test_outcomes_are_joined_with_their_teachers(study):
    about, outcomes, _, teacher = study
    scores = [c for c in outcomes if c.startswith("score_")]
    assert len(scores) == 18 * 3 + 2  # fp32 and two compressed versions each, and two teachers
    assert f"score_iresnet-2/synthetic/{KD}/w4a4" in scores and "score_teacher-1/fp32" in scores
    assert set(teacher) == {"teacher-0"} and set(teacher.index) == set(about["run"])
    assert kd_effects.variants(outcomes) == ["w4a4", "w8a8"]


def test_a_teacher_without_a_run_of_its_own_is_taken_from_its_student(tmp_path):
    found, teachers = made(tmp_path, seeds=(0, 1))
    about = kd_effects.students(found)
    outcomes, teacher = kd_effects.join(found, about, [])
    first = about.loc[about["taught"] == KD, "run"].iloc[0]
    assert set(teacher) == {f"teacher of {first}"}
    known = teachers[0].outcomes["score_fp32"]
    assert np.abs(outcomes[f"score_teacher of {first}/fp32"] - known).max() < 1e-4


def test_students_without_their_teachers_scores_are_refused(tmp_path):
    found, teachers = made(tmp_path, seeds=(0,))
    about = kd_effects.students(found)
    alone = [run for run in found if "score_teacher" not in run.outcomes]
    part = about[about["run"].isin([run.name for run in alone])]
    with pytest.raises(errors.RunError) as caught:
        kd_effects.join(alone, part, teachers)
    assert str(caught.value) == errors.NO_TEACHER.format(runs=", ".join(part["run"]))


def _accuracy(outcomes, column, group=None):
    codes = pd.factorize(outcomes["group"], sort=True)[0]
    scores, genuine = outcomes[f"score_{column}"].to_numpy(), outcomes["genuine"].to_numpy()
    right = thresholds.decide(ASKED["rule"], scores, genuine, codes).accepted == genuine
    return right[(outcomes["group"] == group) if group else slice(None)].mean()


def _value(rows, **fields):
    (row,) = kd_effects.picked(rows, **fields)
    return row.value


def test_gains_gaps_and_drops_are_differences_of_accuracies(study, measured):
    about, outcomes, path, _ = study
    net = "iresnet-1"
    accuracy = {c: _accuracy(outcomes, f"{net}/{c}", "C") for c in measured[1].columns}
    picked = {"network": net, "group": "C", "metric": "accuracy"}
    gain = _value(kd_effects.gains(measured, [KD]), column=f"synthetic/{KD}", **picked)
    assert gain == pytest.approx(accuracy[f"synthetic/{KD}"] - accuracy["synthetic/alone"])
    rows = kd_effects.gaps(measured, "real", ["alone", KD])
    gap = {c: _value(rows, column=c, **picked) for c in (f"synthetic/{KD}", "synthetic/alone")}
    assert gap["synthetic/alone"] == pytest.approx(
        accuracy["synthetic/alone"] - accuracy["real/alone"]
    )
    narrower = kd_effects.against_alone(rows, KD, kd_effects.GAP_ALONE)
    change = _value(narrower, column=f"synthetic/{KD}", reference=kd_effects.GAP_ALONE, **picked)
    assert change == pytest.approx(gap[f"synthetic/{KD}"] - gap["synthetic/alone"])
    rows = kd_effects.drops(path, about, ["w4a4", "s50"], **ASKED)
    assert {row.column.split("/")[2] for row in rows} == {"w4a4"}  # nothing was pruned
    drop = _value(rows, column="real/alone/w4a4", reference="real/alone", **picked)
    lost = _accuracy(outcomes, f"{net}/real/alone/w4a4", "C") - accuracy["real/alone"]
    assert drop == pytest.approx(lost)


def test_second_differences_need_a_partner_and_keep_its_draws(measured):
    rows = kd_effects.gaps(measured, "real", ["alone", KD])
    found = kd_effects.against_alone(rows, KD)
    assert {row.column for row in found} == {f"mix 30%/{KD}", f"synthetic/{KD}"}
    fields = {"network": "iresnet-0", "group": "all", "metric": "std"}
    parts = [
        kd_effects.picked(of, column=f"synthetic/{how}", **fields)[0]
        for of, how in ((found, KD), (rows, KD), (rows, "alone"))
    ]
    np.testing.assert_array_equal(parts[0].draws, parts[1].draws - parts[2].draws)
    without = [row for row in rows if row.column != "synthetic/alone"]
    assert {row.column for row in kd_effects.against_alone(without, KD)} == {f"mix 30%/{KD}"}


def test_each_training_counts_by_itself_on_its_set(study, measured):
    about, rows = study[0], kd_effects.on_sets(kd_effects.gains(measured, [KD]))
    assert {(row.column, row.reference) for row in rows} == {(KD, "alone")}
    found = grid.averages(rows, kd_effects.networks_on_sets(about), 20)
    every = found[(found["over"] == "all networks") & (found["metric"] == "worst")].iloc[0]
    assert (every["networks"], every["repeats"]) == (9, 6)  # three sets, three seeds
    assert set(found["of"]) == {"all", "real", "mix 30%", "synthetic"}
    values = [row.value for row in kd_effects.picked(rows, metric="worst")]
    assert every["value"] == pytest.approx(np.mean(values))


def test_over_all_sets_a_network_counts_once(study, measured):
    about, rows = study[0], kd_effects.gains(measured, [KD])
    found = kd_effects.averages(rows, about, 20)
    every = found[(found["over"] == "all networks") & (found["metric"] == "worst")].iloc[0]
    assert (every["networks"], every["repeats"]) == (3, 2)  # three seeds, whatever the sets
    fields = {"group": "all", "metric": "worst"}
    values = [row.value for row in kd_effects.picked(rows, **fields)]
    assert every["value"] == pytest.approx(np.mean(values))
    own = kd_effects.picked(rows, network="iresnet-1", **fields)
    (mean,) = kd_effects.picked(kd_effects.over_sets(rows), network="iresnet-1", **fields)
    assert (mean.column, mean.reference) == (KD, "alone")
    assert mean.value == pytest.approx(np.mean([row.value for row in own]))
    np.testing.assert_allclose(mean.draws, np.mean([row.draws for row in own], 0))
    of_sets = found[found["over"] == "training set"]
    assert set(of_sets["of"]) == {"real", "mix 30%", "synthetic"}
    assert (of_sets["repeats"] == 2).all() and kd_effects.averages([], about, 20).empty


def test_an_average_over_sets_is_of_sets_that_all_networks_have(study, measured):
    """One run is missing, and another kind was trained on real faces alone."""
    about, rows = study[0], kd_effects.gains(measured, [KD])
    missing = [row for row in rows if (row.network, row.column) != ("iresnet-2", f"mix 30%/{KD}")]
    assert kd_effects.common_sets(rows) == ["mix 30%", "real", "synthetic"]
    assert kd_effects.common_sets(missing) == ["real", "synthetic"]
    asked = {"network": "iresnet-1", "group": "all", "metric": "accuracy"}
    (mean,) = kd_effects.picked(kd_effects.over_sets(missing), **asked)
    own = {row.column: row.value for row in kd_effects.picked(rows, **asked)}
    two = np.mean([own[f"real/{KD}"], own[f"synthetic/{KD}"]])
    assert mean.value == pytest.approx(two) and two != pytest.approx(np.mean([*own.values()]))
    apart = [row for row in rows if ("real" in row.column) == (row.network == "iresnet-0")]
    assert kd_effects.common_sets(apart) == [] and kd_effects.common_sets([]) == []
    assert len(kd_effects.picked(kd_effects.over_sets(apart), group="all", metric="worst")) == 3

    lacks = (about["network"] == "iresnet-0") & (about["set"] != "real")
    one_way = (about["network"] == "iresnet-1") & (about["column"] == "synthetic/alone")
    kept = kd_effects.with_sets(about[~lacks & ~one_way], ["real", "synthetic"])
    assert set(kept["network"]) == {"iresnet-2"} and len(kept) == 6
    nobody = about[about["set"] != "synthetic"]
    assert kd_effects.with_sets(nobody, ["real", "synthetic"]) is nobody


def test_kinds_with_other_sets_are_averaged_by_themselves(study, measured):
    about, rows = study[0], kd_effects.gains(measured, [KD])
    kinds = about["network"].map({"iresnet-0": "a"}).fillna("b")
    found = kd_effects.averages_of_kinds(
        [row for row in rows if row.network != "iresnet-0" or row.column == f"real/{KD}"],
        about.assign(architecture=kinds), 20,
    )  # fmt: skip
    found = found[(found["group"] == "all") & (found["metric"] == "accuracy")]
    assert found[["architecture", "networks", "repeats"]].values.tolist() == [
        ["a", 1, 0], ["b", 2, 1],
    ]  # fmt: skip
    of = {"group": "all", "metric": "accuracy"}
    only = kd_effects.picked(rows, network="iresnet-0", column=f"real/{KD}", **of)
    assert found["value"].iloc[0] == pytest.approx(only[0].value)
    others = [row.value for row in kd_effects.picked(rows, **of) if row.network != "iresnet-0"]
    assert found["value"].iloc[1] == pytest.approx(np.mean(others))
    assert kd_effects.averages_of_kinds([], about.iloc[:0], 20).empty


def test_other_losses_are_compared_with_none_and_with_the_main_one(tmp_path):
    found, teachers = made(tmp_path, losses=(KD, "kd: rkd"), seeds=(0,))
    about = kd_effects.students(found)
    kept = about[(about["taught"] != "kd: rkd") | (about["set"] == "real")]
    outcomes, _ = kd_effects.join(found, about, teachers)
    outcomes.to_parquet(tmp_path / "o.parquet")
    rows = kd_effects.other_gains(tmp_path / "o.parquet", kept, KD, **ASKED)
    assert {(r.column, r.reference) for r in rows} == {
        ("real/kd: rkd", "real/alone"),
        ("real/kd: rkd", f"real/{KD}"),
    }
    assert kd_effects.other_gains(tmp_path / "o.parquet", about[about["taught"] != "kd: rkd"], KD,
                                  **ASKED) == []  # fmt: skip


# --- Fieller ---


def _rows(values, draws, least=1e-9):
    return [Row(f"n{k}", "c", "r", "all", "accuracy", v, d, least)
            for k, (v, d) in enumerate(zip(values, draws, strict=True))]  # fmt: skip


def _about(n, kinds=1):
    names = [f"n{k}" for k in range(n)]
    return pd.DataFrame({"network": names, "architecture": [f"k{i % kinds}" for i in range(n)],
                         "trained_on": "x"})  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 2))
def test_fiellers_ends_are_where_the_difference_just_touches_zero(seed, n, kinds):
    rng = np.random.default_rng(seed)
    people = rng.normal(0, 0.01, (2, 300))
    gap = 0.3 + rng.normal(0, 0.01, n)
    gain = 0.4 * gap + rng.normal(0, 0.01, n)
    draws = [value + row for value, row in ((0, people[0]), (0, 0.5 * people[0] + people[1]))]
    gap_rows = _rows(gap, [draws[0]] * n)
    gain_rows = _rows(gain, [draws[1]] * n)
    about = _about(n, kinds)
    found = kd_effects.share_closed(gain_rows, gap_rows, about, 30)
    if not found.defined:  # two networks of one kind know their variance badly
        assert found.gap_low <= 0
        return
    assert found.value == pytest.approx(gain.mean() / gap.mean())
    assert found.low < found.value < found.high
    kind = about["architecture"].to_numpy()
    for ratio in (found.low, found.high):
        mixed = _rows(gain - ratio * gap, [draws[1] - ratio * draws[0]] * n)
        low, high = grid.estimate(mixed, kind, 30)[0].interval()
        assert min(abs(low), abs(high)) < 1e-6


def test_no_share_of_a_gap_that_is_not_told_from_zero_or_is_none():
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.02, (1, 400))
    gain = _rows([0.02], draws)
    for value in (0.03, -0.3):
        found = kd_effects.share_closed(gain, _rows([value], draws), _about(1), 30)
        assert not found.defined and found.gap == value and np.isnan([found.low, found.high]).all()
    assert kd_effects.share_closed(gain, _rows([0.3], draws), _about(1), 30).defined
    assert not kd_effects.share_closed([], _rows([0.3], draws), _about(1), 30).defined
    undefined = _rows([np.nan], draws)
    assert not kd_effects.share_closed(undefined, _rows([0.3], draws), _about(1), 30).defined


def test_the_interval_of_a_share_holds_the_truth():
    """True share 0.5, both sources of chance at work, a gap six standard errors wide."""
    rng, inside, seen = np.random.default_rng(1), 0, 0
    for _ in range(400):
        person = rng.normal(0, 0.01, 2)  # the test people of this study move gap and gain
        draws = rng.normal(0, 0.01, (2, 200))
        gap = 0.1 + person[0] + rng.normal(0, 0.015, 3)
        gain = 0.05 + person[1] + rng.normal(0, 0.015, 3)
        rows = [_rows(v, [d] * 3) for v, d in ((gain, draws[1]), (gap, draws[0]))]
        found = kd_effects.share_closed(*rows, _about(3), 200)
        seen += found.defined
        inside += not found.defined or found.low <= 0.5 <= found.high  # undefined: all shares
    assert 0.93 <= inside / 400 <= 1.0 and seen > 300


def test_shares_are_of_every_group_and_of_the_worst(study, measured):
    networks = kd_effects.networks(study[0])
    gain = kd_effects.picked(kd_effects.gains(measured, [KD]), column=f"synthetic/{KD}")
    alone = kd_effects.gaps(measured, "real", ["alone"])
    gap = kd_effects.negated(kd_effects.picked(alone, column="synthetic/alone"))
    found = kd_effects.shares_closed(gain, gap, networks, 20)
    assert list(zip(found["group"], found["metric"], strict=True)) == [
        ("all", "accuracy"),
        *((group, "accuracy") for group in "ABCD"),
        ("all", "worst"),
    ]
    assert (found["networks"] == 3).all() and (found["gap"] > 0.05).all()


# --- agreement ---


def test_kappa_is_cohens_on_errors_where_there_is_one_kind_of_pair():
    rng = np.random.default_rng(2)
    own = rng.random(500) < 0.2
    other = np.where(rng.random(500) < 0.5, own, rng.random(500) < 0.3)
    counts = np.array([500, own.sum(), other.sum(), (own & other).sum()], float).reshape(4, 1, 1)
    alike, kappa, shared, repeated = kd_effects._agreed(counts)
    assert alike == pytest.approx((own == other).mean())
    assert kappa == pytest.approx(cohen_kappa_score(own, other))
    assert repeated == pytest.approx((own & other).sum() / other.sum())
    nested = np.arange(500) < min(own.sum(), other.sum())  # as alike as the two accuracies allow
    wider = np.arange(500) < max(own.sum(), other.sum())
    assert shared == pytest.approx(kappa / cohen_kappa_score(nested, wider))


def test_errors_that_fall_apart_by_group_and_kind_alone_are_no_agreement():
    """Both err in the same stratum only, independently there: pooled kappa would see agreement."""
    n = np.array([[100.0, 100.0], [100.0, 100.0]])
    own = other = np.array([[50.0, 0.0], [0.0, 0.0]])
    both = np.array([[25.0, 0.0], [0.0, 0.0]])
    _, kappa, shared, _ = kd_effects._agreed(np.stack([n, own, other, both]))
    assert kappa == pytest.approx(0) and shared == pytest.approx(0)
    same = kd_effects._agreed(np.stack([n, own, own, own]))
    assert [float(x) for x in same] == [1, 1, 1, 1]
    part = kd_effects._agreed(np.stack([n, own, own / 2, own / 2]))  # all of its errors are mine
    assert [float(x) for x in part[2:]] == [1, 1] and 0 < part[1] < 1
    never = kd_effects._agreed(np.stack([n, 0 * n, 0 * n, 0 * n]))
    assert never[0] == 1 and np.isnan(never[1:]).all()


def test_agreement_with_the_teacher(study, measured):
    about, outcomes, path, teacher = study
    known = kd_effects.teachers(path, teacher, ["teacher-1"], **ASKED)
    assert list(known) == ["teacher-0", "teacher-1"]
    rows = kd_effects.with_teachers(measured, about, teacher, known)
    m = measured[2]
    wrong = m.wrong[m.columns.index("real/alone")]
    alike = wrong == known["teacher-0"].wrong[0]
    for group in ("all", "B"):
        here = (outcomes["group"] == group).to_numpy() | (group == "all")
        fields = {"network": "iresnet-2", "column": "real/alone", "group": group}
        (row,) = kd_effects.picked(rows, metric="agreement", **fields)
        assert row.value == pytest.approx(alike[here].mean())
        assert row.draws.mean() == pytest.approx(row.value, abs=0.01)
        assert 0.3 < row.draws.std() / np.sqrt(row.value * (1 - row.value) / here.sum()) < 3
    shared = grid.averages(rows, kd_effects.networks(about), 20).query("metric == 'shared'")
    shared = shared[shared["group"] == "all"].set_index("column")["value"]
    assert (shared[[f"{s}/{KD}" for s in kd_labels()]].to_numpy()
            > shared[[f"{s}/alone" for s in kd_labels()]].to_numpy()).all()  # fmt: skip
    two = kd_effects.between_teachers(known)
    assert {row.column for row in two} == {"teacher-1"}
    assert kd_effects.between_teachers({"teacher-0": known["teacher-0"]}) == []


def kd_labels():
    return ["real", "mix 30%", "synthetic"]


@pytest.mark.parametrize(("seeds", "pairs"), [(1, 0), (2, 1), (3, 3)])
def test_other_seeds_are_each_students_baseline(study, measured, seeds, pairs):
    about = study[0]
    rows = kd_effects.with_other_seeds(measured[:seeds], about)
    assert len({row.network for row in rows}) == pairs
    if pairs:
        row = kd_effects.picked(rows, column="real/alone", group="all", metric="agreement")[0]
        at = measured[0].columns.index("real/alone")
        assert row.value == pytest.approx((measured[0].wrong[at] == measured[1].wrong[at]).mean())


def test_kinds_that_alternate_keep_their_other_seeds(tmp_path):
    """Runs named with the seed first: kinds come by turns."""
    found, teachers = made(tmp_path, kinds=("a", "b"), seeds=(0, 1))
    about = kd_effects.students(found)
    outcomes, _ = kd_effects.join(found, about, teachers)
    outcomes.to_parquet(tmp_path / "o.parquet")
    measured = kd_effects.read(tmp_path / "o.parquet", about, **ASKED)
    by_turns = sorted(measured, key=lambda m: m.network[::-1])
    assert [m.network for m in by_turns] == ["a-0", "b-0", "a-1", "b-1"]
    rows = kd_effects.with_other_seeds(by_turns, about)
    assert {row.network for row in rows} == {"a-0", "b-0"}


def test_teachers_are_known_apart_by_more_than_rounding():
    known = {"a": pd.Series([0.1, 0.2]), "b": pd.Series([0.5, 0.2])}
    near = pd.Series([0.5, 0.2 + compare.FP32_ROUNDING / 2])
    assert kd_effects._same(near, known, "new") == "b"
    assert kd_effects._same(near + 1, known, "new") == "new" and "new" in known
