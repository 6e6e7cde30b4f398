"""Sentences and verdicts on distillation: planted effects are found, missing runs are said."""

import numpy as np
import pandas as pd
import pytest

from studylib import (
    charts,
    charts_tradeoff,
    claims,
    errors,
    kd_effects,
    kd_findings,
    runs,
    verdicts,
)
from studylib.audit import grid
from studylib.published import Estimate
from tests.fixtures import kd_runs
from tests.fixtures.kd_runs import KD

ASKED = {"rule": "global_best_accuracy", "resamples": 200, "seed": 1}


class Study:
    """Everything that findings take, from made-up runs."""

    def __init__(self, folder, **given):
        kd_runs.write_runs(folder, **({"people": 40, "per_group": 400} | given))
        found, teachers = (
            runs.finished(folder, name, "quick") for name in ("kd_student", "kd_teacher")
        )
        self.found, self.teachers = found, teachers
        self.about = kd_effects.students(found)
        outcomes, self.teacher = kd_effects.join(found, self.about, teachers)
        path = folder / "outcomes.parquet"
        outcomes.to_parquet(path)
        self.measured = kd_effects.read(path, self.about, **ASKED)
        self.people = min(m.people for m in self.measured)
        self.networks = kd_effects.networks(self.about)
        self.on_sets = kd_effects.networks_on_sets(self.about)
        self.levels = [row for m in self.measured for row in grid.levels(m)]
        self.gain = kd_effects.gains(self.measured, [KD])
        self.gap = kd_effects.gaps(self.measured, "real", ["alone", KD])
        self.narrower = kd_effects.against_alone(self.gap, KD, kd_effects.GAP_ALONE)
        drop = kd_effects.drops(path, self.about, ["w8a8", "w4a4"], **ASKED)
        self.saved = kd_effects.against_alone(drop, KD)
        known = kd_effects.teachers(path, self.teacher, **ASKED)
        self.likeness = kd_effects.with_teachers(self.measured, self.about, self.teacher, known)
        self.outcomes = outcomes
        self.panels = pd.concat([grid.panel(m) for m in self.measured], ignore_index=True)

    def averages(self, rows):
        return grid.averages(rows, self.networks, self.people)

    def corrected(self, rows):
        return grid.corrected(kd_effects.averages(rows, self.about, self.people))

    def shares(self, rows):
        gap = kd_effects.negated(kd_effects.picked(self.gap, column="synthetic/alone"))
        gain = kd_effects.picked(rows, column=f"synthetic/{KD}")
        return kd_effects.shares_closed(gain, gap, self.networks, self.people)

    def evidence(self, **changed):
        given = {"gain": self.gain, "gap": self.gap, "drop": self.saved, "about": self.about}
        given |= {
            "panels": self.panels,
            "people": self.people,
            "taught": KD,
            "real": "real",
            "synthetic": "synthetic",
        }
        given |= {"share": 0.3, "margin": 0.01, "spread_margin": 0.0025}
        return kd_findings.Evidence(**(given | changed))


@pytest.fixture(scope="module")
def helpful(tmp_path_factory):
    """Distillation helps much, and most where students learn from synthetic faces."""
    folder = tmp_path_factory.mktemp("helpful")
    return Study(folder, gain=0.25, damage=0.2, kinds=("iresnet", "mobilefacenet"))


@pytest.fixture(scope="module")
def useless(tmp_path_factory):
    """The same as without a teacher, but for what students see as their teacher does."""
    return Study(tmp_path_factory.mktemp("useless"), gain=0.02, seeds=(0, 1))


def test_how_many_seeds_stand_behind_it_is_said(helpful):
    about = helpful.about
    assert kd_findings.trainings(about).startswith("Each student was trained with 3 seed(s)")
    some = about[(about["set"] != "real") | (about["training_seed"] == 0)]
    assert "with 1 to 3 seed(s)" in kd_findings.trainings(some)
    once = kd_findings.trainings(about[about["training_seed"] == 1])
    assert "test people alone" in once


def test_a_planted_gain_is_said(helpful):
    tested = helpful.corrected(helpful.gain)
    said = kd_findings.helped(tested, ["real", "synthetic"])
    assert said.startswith("Distillation raises the accuracy of these students: +")
    assert "each with its mean over real, synthetic; for the worst group +" in said
    assert "its own training sets (none is common to all);" in kd_findings.helped(tested, [])
    assert (
        "over 6 network(s) trained with and without it" in said
        and "By training set: mix 30% +" in said
        and "By architecture: iresnet +" in said
    )
    assert "not resolved" not in said
    listed = kd_findings.gains(tested)
    assert "- **All students** (6 networks): accuracy +" in listed
    assert "- training set *synthetic* (6 networks): accuracy +" in listed
    assert "all networks, accuracies: 2, some networks, accuracies: 10" in listed
    levels = helpful.averages(helpful.levels)
    assert kd_findings.why_not(tested, levels, 0.99) == ""


def test_no_gain_is_said_with_what_it_leaves_open_and_why(useless):
    tested = useless.corrected(useless.gain)
    row = tested[(tested["over"] == "all networks") & (tested["metric"] == "accuracy")].iloc[0]
    assert row["p_holm"] > 0.05
    said = kd_findings.helped(tested, ["real"])
    assert "does not resolvably change the accuracy" in said and "By architecture" not in said
    assert ", not resolved; synthetic" in said.partition("By training set: ")[2]
    low, high = (verdicts.points(row[key], sign=True) for key in ("low", "high"))
    assert f"leaves room for anything from {low} to {high} points" in said
    levels = useless.averages(useless.levels)
    rows = levels[levels["column"].str.endswith("/alone") & (levels["group"] == "all")]
    alone = rows[rows["metric"] == "accuracy"].set_index("source")["value"]
    why = kd_findings.why_not(tested, levels, 0.99)
    room = [f"{n} {verdicts.points(0.99 - v, sign=True)}" for n, v in alone.items()]
    assert len(room) == 3 and f"is 99.00%. Less that of students without it, by training set, in "\
        f"points: {', '.join(room)}. With test people alone" in why  # fmt: skip
    assert "nothing to give" not in why
    once = kd_findings.why_not(tested.assign(repeats=0), levels, 0.99)
    assert once.endswith("Chance in trainings was not measured: that takes more seeds.")
    between = (alone.min() + alone.max()) / 2
    assert "Where the teacher is not ahead" in kd_findings.why_not(tested, levels, between)
    assert "On no set is the teacher ahead" in kd_findings.why_not(tested, levels, 0.1)


def test_a_fall_of_accuracy_is_no_lack_of_trainings(useless):
    tested = useless.corrected(useless.gain)
    fell = tested.assign(value=-0.05, low=-0.06, high=-0.04, p_holm=0.001)
    why = kd_findings.why_not(fell, useless.averages(useless.levels), 0.99)
    assert "The fall is resolved" in why and "shorter" not in why
    assert "lowers the accuracy" in kd_findings.helped(fell, ["real"])


def test_groups_are_a_family_of_their_own(helpful):
    found = grid.averages_by(
        "trained_on", kd_effects.on_sets(helpful.gain), helpful.on_sets, helpful.people
    )
    kept = kd_findings.by_group(found)
    assert len(kept) == 12 and (kept["tests"] == 12).all()
    assert (kept["p_holm"] >= kept["p"]).all() and (kept["p_holm"] < 0.05).any()


def test_figures_have_rows_in_the_order_of_sets(helpful):
    tested = helpful.corrected(helpful.gain)
    sets = kd_findings.sets_in_order(helpful.about, 0.3)
    assert sets == ["real", "mix 30%", "synthetic"]
    drawn = kd_findings.drawn(tested, setting="of", series="over", order=sets)
    first = drawn[drawn["panel"] == "accuracy, points"]
    assert list(first["setting"])[-3:] == sets and first["setting"].iloc[0] == "all"
    value = tested.loc[(tested["of"] == "real") & (tested["metric"] == "worst"), "value"].iloc[0]
    worst = drawn[(drawn["panel"] == "worst group, points") & (drawn["setting"] == "real")]
    assert worst["value"].iloc[0] == pytest.approx(100 * value)
    assert list(dict.fromkeys(drawn["panel"])) == [
        "accuracy, points", "worst group, points", "STD, points", "SER",
    ]  # fmt: skip


def test_teachers_stand_in_every_panel_of_levels(helpful):
    by_kind = grid.averages_by("architecture", helpful.levels, helpful.networks, helpful.people)
    teacher = by_kind[by_kind["column"] == "real/alone"].head(6).assign(architecture="teacher")
    pairs_of = helpful.outcomes.groupby("group").size()
    shown = kd_findings.drawn_levels(by_kind, teacher, ["synthetic", "real"], pairs_of)
    panels = shown.groupby("metric")["series"].agg(lambda s: list(dict.fromkeys(s)))
    columns = [f"{name}, {how}" for name in ("synthetic", "real") for how in ("alone", KD)]
    assert set(panels.index) == {"iresnet (3 networks)", "mobilefacenet (3 networks)"}
    assert all(names == [*columns, "teacher"] for names in panels)
    assert set(shown["group"]) == set("ABCD") and (shown["n"] == 400).all()
    assert shown["high"].max() <= 1


def test_a_gap_that_is_closed_is_said_with_its_share(helpful):
    closed, narrowed = helpful.shares(helpful.gain), helpful.shares(helpful.narrower)
    tested = grid.corrected(helpful.averages([*helpful.gap, *helpful.narrower]))
    said = kd_findings.closing(tested, closed, narrowed, "synthetic", "real")
    row = closed.iloc[0]
    assert f"makes up for {row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%})" in said
    one = narrowed.iloc[0]
    assert f"narrower by {one['value']:.0%}" in said
    table = kd_findings.shares_table(closed, narrowed)
    assert list(table["accuracy of"]) == ["all", *"ABCD", "worst group"]
    assert (table["networks"] == 6).all()


def test_trainings_that_ended_early_are_warned_of(helpful):
    learnt = kd_effects.learnt(helpful.found, helpful.about)
    assert learnt["set"].tolist() == ["real"] * 2 + ["mix 30%"] * 2 + ["synthetic"] * 2
    assert (learnt["trainings"] == 6).all() and (learnt["epochs"] == 4).all()
    rows = learnt.set_index(["set", "taught"])
    fall = rows.loc[("real", "alone"), "fall"]
    assert fall == pytest.approx(1 - np.sqrt(0.5 * 0.9))
    assert rows.loc[("real", KD), "fall"] == pytest.approx(1 - np.sqrt(0.96 * 0.98))
    said = kd_findings.converged(learnt)
    assert f"- real, {KD} (6 training(s), 4 epoch(s)): training accuracy 75.0%" in said
    assert "over the last epochs at the highest rate the loss fell by 3.0% an epoch." in said
    early = [f"{name} alone (33%)" for name in ("real", "mix 30%", "synthetic")]
    warned = f"or it is not known, for {charts.listed(early)}, whose training"
    assert warned in kd_findings.cut_short(learnt) and warned in said
    flat = learnt.assign(fall=kd_findings.FALLING)
    assert kd_findings.cut_short(flat) == ""
    assert "Short trainings" not in kd_findings.converged(flat)
    once = kd_findings.converged(learnt.assign(fall=np.nan))
    assert "one epoch at the highest rate does not tell" in once and "real alone (unknown)" in once
    done = learnt.assign(accuracy=np.where(learnt["set"] == "real", 0.2, kd_findings.LEARNT))
    assert "not known, for real alone (33%), whose" in kd_findings.cut_short(done)


def test_teachers_are_told_as_far_as_they_came(useless):
    learnt = kd_effects.learnt(useless.found, useless.about, useless.teachers)
    assert len(learnt) == 7 and learnt["set"].iloc[-1] == "teacher-0"
    said = kd_findings.converged(learnt)
    assert "- the teacher teacher-0 (1 training(s), 4 epoch(s)): training accuracy 25.0%" in said
    assert "synthetic alone (33%), the teacher teacher-0 (33%), whose training" in said


def test_what_was_trained_is_said_once_for_each_kind(useless):
    said = kd_findings.recipes(useless.found, "student").split("\n")
    assert said == [
        "- student: iresnet, depth [1, 1, 1, 1], width 0.25; faces of 48 px; margin loss cosface, "
        "margin 0.2; epochs 4."
    ]
    bare = runs.Finished(useless.found[0].folder, useless.found[0].record | {"parameters": {}})
    assert kd_findings.recipes([bare], "teacher").endswith("margin loss None.")


@pytest.mark.parametrize(
    ("teacher", "student", "said"),
    [
        ({}, {}, "640 identities of simfaces, the students' real set is 100 identities of simfaces:"
         " other people"),
        ({"people_seed": 0}, {}, "whether they are the same people the records do not tell"),
        ({"people_seed": 0, "n_people": 100}, {}, "the same people, so that on the real set"),
        ({"real_set": "bupt_balanced"}, {}, "was trained on the set bupt_balanced, the students' "
         "real set is 100 identities of simfaces: other people"),
        ({"real_set": "ms1mv2"}, {"real_set": "bupt_balanced"}, "do not tell"),  # of one source
        ({"real_set": "x", "real_root": "a"}, {"real_set": "x", "real_root": "a"}, "the same"),
        ({"real_set": "x", "real_root": "a"}, {"real_set": "x", "real_root": "b"}, "do not tell"),
    ],
)  # fmt: skip
def test_more_data_at_second_hand_is_said_from_the_records(useless, teacher, student, said):
    def changed(run, changes):
        record = run.record | {"parameters": run.parameters | changes}
        return runs.Finished(run.folder, record)

    found = [changed(run, student) for run in useless.found]
    teachers = [changed(run, teacher) for run in useless.teachers]
    text = kd_findings.second_hand(found, useless.about, useless.teacher, teachers)
    assert said in text and text.count("The teacher teacher-0 was trained on") == 1
    unknown = kd_findings.second_hand(found, useless.about, useless.teacher, [])
    assert unknown.startswith("On whom teacher-0 was trained is in no record here")


def _share(**changed):
    row = {"group": "all", "metric": "accuracy", "value": np.nan, "low": np.nan, "high": np.nan}
    row |= {"gap": 0.01, "gap_low": -0.01, "gap_high": 0.03, "networks": 3, "repeats": 2}
    return pd.DataFrame([row | changed])


def test_a_gap_that_is_not_there_has_no_share():
    said = kd_findings.closing(None, _share(), _share(), "synthetic", "real")
    assert "no share of something that may be nothing" in said and "by 1.0 points" in said
    better = _share(gap=-0.02, gap_low=-0.03, gap_high=-0.01)
    said = kd_findings.closing(None, better, better, "synthetic", "real")
    assert "synthetic faces train better here" in said
    table = kd_findings.shares_table(_share(), _share())
    assert table.loc[0, ["made up for", "narrower by"]].tolist() == ["not defined"] * 2
    none = _share().iloc[:0]
    said = kd_findings.closing(None, none, none, "synthetic", "real")
    assert said == "No student was trained on both real and synthetic: there is no gap to see."
    known = _share(value=0.4, low=0.1, high=0.8)
    said = kd_findings.closing(None, known, none, "synthetic", "real")
    assert said.endswith("makes up for 40% (10% to 80%) of that gap.")


def test_a_sweep_needs_three_shares_of_equally_large_sets(tmp_path):
    sets = kd_runs.SETS | {"mix half": (0.5, 0.0), "mix_equal_ids": (0.3, 0.0)}
    study = Study(tmp_path, sets=sets, seeds=(0,), people=20, per_group=200)
    by_kind = grid.averages_by("architecture", study.levels, study.networks, study.people)
    mixed = kd_findings.mixes(by_kind, study.about)
    part = mixed[(mixed["panel"] == "accuracy, iresnet") & (mixed["series"] == "alone")]
    assert part["share"].tolist() == [0.0, 0.3, 0.5, 1.0]
    halved = study.about.assign(synthetic_share=study.about["share"] / 2)
    shares = kd_findings.mixes(by_kind, halved)["share"].unique().tolist()
    assert shares == [0.0, 0.15, 0.25, 0.5]  # the axis has what sets came to, names what was asked
    assert kd_findings.realised(halved, 0.3) == 0.15 and kd_findings.realised(halved, 0.7) == 0.7
    best = part.loc[part["value"].idxmax()]
    said = kd_findings.best_mix(mixed)
    assert f"- accuracy, iresnet, alone: highest at {best['share']:.0%} synthetic" in said
    assert kd_findings.sets_in_order(study.about, 0.5) == [
        "real", "mix_equal_ids", "mix 50%", "synthetic",
    ]  # fmt: skip
    every = kd_findings.sets_in_order(study.about)
    assert every == ["real", "mix 30%", "mix_equal_ids", "mix 50%", "synthetic"]
    two = study.about[study.about["set"].isin(["real", "synthetic"])]
    few = kd_findings.mixes(by_kind[by_kind["source"].isin(two["set"])], two)
    assert few.empty and "No architecture" in kd_findings.best_mix(few)
    chart = charts_tradeoff.mix_curves(mixed, source="made up", marked=0.3).to_dict()
    assert "dashed: 30% synthetic" in chart["description"]
    assert (
        f"accuracy, iresnet alone 50% synthetic: {100 * part['value'].iloc[2]:.3g} %"
        in (chart["description"])
    )
    bars = pd.DataFrame(next(iter(chart["datasets"].values())))
    here = bars[(bars["panel"] == "accuracy, iresnet") & (bars["share"] == 0.3)]
    assert here["at"].mean() == pytest.approx(0.3) and here["at"].nunique() == 2
    with pytest.raises(errors.ParameterError) as caught:
        charts_tradeoff.mix_curves(mixed.drop(columns="share"), source="", marked=0.3)
    assert str(caught.value) == errors.CHART_COLUMNS.format(chart="mix_curves", missing="share")


def test_what_is_inherited_is_said_against_its_baselines(helpful):
    shared = kd_findings.corrected_shares(
        helpful.averages(kd_effects.against_alone(helpful.likeness, KD))
    )
    assert len(shared) == 3 and (shared["p_holm"] >= shared["p"]).all()
    own = helpful.averages(helpful.likeness)
    seeds = helpful.averages(kd_effects.with_other_seeds(helpful.measured, helpful.about))
    order = shared["column"].str.partition("/")[0].tolist()
    sure = shared.assign(p_holm=[0.001, 0.001, 0.9], value=[0.1, -0.1, 0.1], low=-0.2, high=0.2)
    said = kd_findings.inherited(sure, own, seeds).split("\n")
    for line, name, way in zip(said, order, ("more", "less", "not resolvably"), strict=True):
        value, alone, other = (
            table.query("over == 'all networks' and group == 'all' and metric == 'shared'")
            .set_index("column")
            .loc[f"{name}/{how}", "value"]
            for table, how in ((own, KD), (own, "alone"), (seeds, KD))
        )
        assert line.startswith(f"- {name}: errors are shared with the teacher {way}")
        assert f"({value:.0%} of what could be, alone {alone:.0%};" in line
        assert line.endswith(f"with the same student of another seed: {other:.0%}.")
    unknown = kd_findings.inherited(sure.assign(value=np.nan), own, seeds)
    assert unknown.count("not defined, since one of the two makes hardly any errors") == 3
    assert "alone on 1 of 3 training sets, fewer on 1; not resolved: 1." in kd_findings.alike(sure)
    table = kd_findings.inherited_table({"teacher": own, "seed": seeds})
    assert len(table) == 12 and set(table["compared"]) == {"teacher", "seed"}
    assert kd_findings.least_alike(own).count("least often in group") == 3


def test_what_differs_between_training_sets_is_said():
    rows = [("a", "flip", True, ["real", "mix 30%"]), ("a", "flip", False, ["synthetic"])]
    table = pd.DataFrame(rows, columns=["architecture", "parameter", "value", "sets"])
    assert kd_findings.other_recipes(table).startswith(
        "- Between training sets of a the parameter `flip` differs as well: True on real, mix 30%; "
        "False on synthetic."
    )
    assert kd_findings.other_recipes(table.iloc[:0]) == ""


def test_students_with_other_sets_are_listed_apart(helpful):
    about = helpful.about[helpful.about["set"] == "real"]
    rows = kd_effects.picked(helpful.gain, column=f"real/{KD}")
    tested = grid.corrected(kd_effects.averages_of_kinds(rows, about, helpful.people))
    said = kd_findings.other_students(tested, about).split("\n")
    assert said[0].startswith("- iresnet on real (3 networks): accuracy +") and len(said) == 2
    assert "worst group +" in said[1] and "STD" not in said[1]
    assert kd_findings.other_students(tested, about.iloc[:0]) == "There are none."


def test_a_difference_that_falls_to_the_correction_says_so(helpful):
    tested = helpful.corrected(helpful.saved)
    close = tested.assign(value=0.01, low=0.001, high=0.019, p_holm=0.2)
    said = "no difference of losses is resolved after correction (+1.00 (+0.10 to +1.90) points)"
    assert said in kd_findings.protected(close)
    assert "after correction" not in kd_findings.protected(close.assign(low=-0.001))


def test_what_protects_the_worst_group_is_said(helpful, useless):
    tested = helpful.corrected(helpful.saved)
    said = kd_findings.protected(tested)
    assert "w4a4 (6 networks): " in said and "worst group loses less after distillation" in said
    assert kd_findings.protection(tested) == (
        "Compressed, the worst group of distilled students loses less than that of students that "
        "learnt alone in w4a4, more in nothing; not resolved: w8a8."
    )
    none = useless.corrected([])
    assert kd_findings.protection(none) == kd_findings.protected(none)
    assert "No student was compressed" in kd_findings.protected(none)


def test_other_losses_are_listed_with_what_they_are_compared_with(helpful):
    tested = helpful.corrected(helpful.gain)
    said = kd_findings.other_losses(tested)
    assert said.startswith(f"- {KD} less alone (6 networks): accuracy +")
    assert "STD" not in said
    assert "Nothing else was taught" in kd_findings.other_losses(tested.iloc[:0])


# --- verdicts ---


def test_planted_effects_get_their_verdicts(helpful):
    judged = kd_findings.judge(helpful.evidence()).set_index("key")
    assert judged.loc["every-group", "verdict"] == verdicts.SUPPORTED
    assert "in 12 of 12 cells" in judged.loc["every-group", "evidence"]
    assert judged.loc["mix", "verdict"] == verdicts.OPEN
    assert judged.loc["protects", "verdict"] == verdicts.SUPPORTED
    assert (
        "in 2 ways to compress: the largest is that of w4a4" in judged.loc["protects", "evidence"]
    )
    assert judged.loc["narrower", "p_of"] == "no change in any figure"
    assert judged.loc["fairer", "p_of"] == "no fall of STD on any set"
    assert judged.loc["not-fairer", "p_of"] == "a fall of STD above the margin on some set"
    assert "on 1 of 1 sets" in judged.loc["not-fairer", "evidence"] or (
        "on 0 of 1 sets" in judged.loc["not-fairer", "evidence"]
    )  # the mix: nothing is added to a set of synthetic faces alone
    assert "of 2 sets with synthetic faces" in judged.loc["fairer", "evidence"]
    assert "mix 30% (30% of its identities are synthetic)" in judged.loc["mix", "evidence"]
    assert (judged["evidence"].str.len() > 50).all()
    told = claims.told(judged.reset_index(), *judged.index)
    assert "(other studies; Atzori et al. 2024, abstract)" in told and "nan" not in told
    assert claims.tally(judged.reset_index()).startswith("- **the paper** (4): ")


def test_a_spread_is_told_with_what_noise_alone_would_do(helpful):
    judged = kd_findings.judge(helpful.evidence()).set_index("key")["evidence"]
    for key, references in (
        ("lower-bias", ("real", "mix 30%", "synthetic")),
        ("fairer", ("real",)),
    ):
        told = []
        for name in references:
            found = grid.noise(helpful.panels, f"{name}/alone").query("metric == 'std'")
            told += [f"changed by {row.null_change:+.2f} points, by noise alone, which leaves "
                     f"{row.excess:+.2f};" for row in found.itertuples()]  # fmt: skip
        assert sum(text in judged[key] for text in told) == 1


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.05, -0.05), verdicts.SUPPORTED),  # one falls: there are some that do
        ((0.001, -0.05), verdicts.SUPPORTED),
        ((0.05, 0.001), verdicts.OPEN),  # one rises, the other may fall
        ((0.05, 0.04), verdicts.CONTRADICTED),
    ],
)
def test_some_sets_are_fairer_if_one_is(monkeypatch, helpful, values, verdict):
    names = ("mix 30%/alone", "synthetic/alone")
    cells = {
        (name, "all", "std"): Estimate(value, 0.005**2, 0.0, 1e6)
        for name, value in zip(names, values, strict=True)
    }
    monkeypatch.setattr(kd_findings, "_cells", lambda *args, **asked: cells)
    assert kd_findings._fairer(-1)(helpful.evidence()).verdict == verdict


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (0.08, verdicts.CONTRADICTED),  # as wide as 8 points, the other way round
        (0.005, verdicts.SUPPORTED),
        (0.05, verdicts.OPEN),  # as wide as before, turned round
        (-0.02, verdicts.SUPPORTED),
        (-0.051, verdicts.OPEN),
        (-0.08, verdicts.CONTRADICTED),
    ],
)
def test_a_gap_is_narrower_by_its_size(after, verdict):
    before = -0.05
    change, total = (Estimate(v, 0.002**2, 0.0, 1e6) for v in (after - before, after + before))
    assert kd_findings._smaller(change, total)[0] == verdict


def test_gaps_that_turn_round_are_told_so(useless):
    """The sum of the two gaps that `narrower` hangs on is the sum of the gaps' rows."""
    row = kd_findings.judge(useless.evidence()).set_index("key").loc["narrower"]
    alone, distilled = (
        np.mean([r.value for r in kd_effects.picked(
            useless.gap, column=f"synthetic/{how}", group="all", metric="accuracy")])
        for how in ("alone", KD)
    )  # fmt: skip
    change, total = (Estimate(v, 1e-12, 0.0, 1e6) for v in (distilled - alone, distilled + alone))
    assert row["value"] == pytest.approx(change.value)
    seen = []

    def smaller(*cells):
        seen.extend(cell.value for cell in cells)
        return verdicts.OPEN, 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kd_findings, "_smaller", smaller)
        kd_findings._narrower(useless.evidence())
    assert seen == pytest.approx([change.value, total.value])


def test_claims_without_runs_are_marked_so(helpful):
    bare = helpful.evidence(gain=[], gap=[], drop=[])
    judged = kd_findings.judge(bare)
    assert set(judged["verdict"]) == {verdicts.NONE}
    assert (judged["p_of"] == "").all() and (judged["needed"].str.len() > 10).all()
    other = kd_findings.judge(helpful.evidence(share=0.5)).set_index("key")
    assert other.loc["mix", "verdict"] == verdicts.NONE
    assert other.loc["mix", "needed"] == "students on mix 50% and on real, distilled"


def test_the_rules_of_the_verdicts(monkeypatch, helpful):
    """Each claim under estimates known beforehand: sure, sure the other way, and not sure."""

    def cells(value, se):
        def made(rows, e, metrics, **asked):
            metric = "std" if "std" in metrics else next(iter(metrics))
            of = Estimate(value, se**2, 0.0, 1e6)
            names = [f"synthetic/{KD}", "synthetic/alone"]
            return {(name, "all", metric): of for name in names}

        return made

    verdict, told = {}, {}
    for name, value, se in (("up", 0.05, 0.001), ("down", -0.05, 0.001), ("open", 0.001, 0.02)):
        monkeypatch.setattr(kd_findings, "_cells", cells(value, se))
        judged = kd_findings.judge(helpful.evidence())
        verdict[name] = judged.set_index("key")["verdict"]
        told[name] = judged.set_index("key").loc["narrower", "evidence"]
    up, down = verdict["up"], verdict["down"]
    assert set(verdict["open"]) == {verdicts.OPEN}
    for key in ("every-group", "mix", "protects", "not-fairer"):
        assert (up[key], down[key]) == (verdicts.SUPPORTED, verdicts.CONTRADICTED)
    for key in ("lower-bias", "fairer"):  # STD that rises speaks against them
        assert (up[key], down[key]) == (verdicts.CONTRADICTED, verdicts.SUPPORTED)
    assert up["narrower"] == verdicts.OPEN  # synthetic faces train better: nothing to narrow
    assert "is resolved to train better" in told["up"]
    assert "no gap is resolved" in told["open"]
    assert down["narrower"] == verdicts.CONTRADICTED  # a gap, and wider with a teacher


def test_variants_are_named_from_fine_to_coarse(helpful):
    names = [line.split(" ")[1] for line in
             kd_findings.protected(helpful.corrected(helpful.saved)).split("\n")]  # fmt: skip
    assert names == charts.sort_variants(["w4a4", "w8a8"])
