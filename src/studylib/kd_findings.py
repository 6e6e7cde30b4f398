"""Sentences, tables and verdicts on distillation, every number in them taken from `kd_effects`.

Verdicts follow the rules of `studylib.verdicts`, on the networks and pairs that were run: they say
what these show of a claim, and not whether its authors were right about theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from studylib import charts, claims, findings, kd_effects, verdicts
from studylib.audit import grid
from studylib.audit.grid import ALL, SPREADS, Row
from studylib.metrics import testing
from studylib.published import Estimate
from studylib.runs import Finished
from studylib.verdicts import Finding, between, points

_METRICS = ("accuracy", "worst", "std", "ser")
_EVERY = "all networks"


def trainings(about: pd.DataFrame) -> str:
    """Say how many seeds stand behind the students, and what intervals can hold.

    Parameters
    ----------
    about : pandas.DataFrame
        From `kd_effects.students`.
    """
    by = about.groupby(["architecture", "column"])["training_seed"].nunique()
    if by.max() == 1:
        return (
            "No student was trained with two seeds: intervals and verdicts hold the chance of test "
            "people alone, and what is found is so for these networks."
        )
    seeds = f"{by.min()} to {by.max()}" if by.min() < by.max() else f"{by.max()}"
    return f"Each student was trained with {seeds} seed(s), all of which count."


FALLING = 0.05  # a fall of the loss an epoch from which on a lowered rate counts as early
LEARNT = 0.95  # training accuracy, with its margin, from which on hardly anything is left to learn


def converged(learnt: pd.DataFrame) -> str:
    """Say how far trainings had come, a line a training set and way of teaching.

    Parameters
    ----------
    learnt : pandas.DataFrame
        From `kd_effects.learnt`.

    Returns
    -------
    str
        Markdown, with a warning (`cut_short`) where there is cause for one.
    """
    lines = [
        f"- {_called(row)} ({row.trainings} training(s), {row.epochs:.0f} epoch(s)): "
        f"training accuracy {row.accuracy:.1%} in the last epoch; {_fell(row.fall)}."
        for row in learnt.itertuples()
    ]
    return "\n".join([*lines, "", cut_short(learnt)]).rstrip()


def _called(row) -> str:
    return f"{row.set}, {row.taught}" if row.taught else f"the teacher {row.set}"


def _fell(fall: float) -> str:
    if np.isnan(fall):
        return "one epoch at the highest rate does not tell how the loss falls"
    return f"over the last epochs at the highest rate the loss fell by {fall:.1%} an epoch"


def cut_short(learnt: pd.DataFrame) -> str:
    """Warn of trainings that had more to learn (table as `converged`); else empty."""
    early = learnt[~(learnt["fall"] <= FALLING) & (learnt["accuracy"] < LEARNT)]
    if early.empty:
        return ""
    told = [
        f"{_called(row).replace(',', '')} "
        f"({'unknown' if np.isnan(row.fall) else f'{row.fall:.0%}'})"
        for row in early.itertuples()
    ]
    return (
        f"**Short trainings:** the loss still fell by more than {FALLING:.0%} an epoch when the "
        f"rate was first lowered (or training ended), or it is not known, for "
        f"{charts.listed(told)}, whose training accuracy did not come to {LEARNT:.0%} either. "
        "Such a recipe may favour whoever learns faster: differences between teaching and none, "
        "and between training sets, may in part be ones of speed, and longer trainings could "
        "change them."
    )


def second_hand(
    found: list[Finished], about: pd.DataFrame, teacher: pd.Series, teachers: list[Finished]
) -> str:
    """Say on whom teachers were trained, beside the real set of their students.

    Parameters
    ----------
    found : list of Finished
        The runs of `about`.
    about : pandas.DataFrame
        From `kd_effects.students`.
    teacher : pandas.Series
        From `kd_effects.join`.
    teachers : list of Finished
        Runs of `kd_teacher`.
    """
    known = {run.name: run.parameters for run in teachers}
    taught = set(about.loc[about["taught"] != kd_effects.ALONE, "run"])
    pairs = {}  # said once for all students that have the same
    for run in (run for run in found if run.name in taught):
        name = teacher[run.name]
        own = known.get(name)
        text = _unknown_people(name) if own is None else _people_of(name, own, run.parameters)
        pairs.setdefault(text, None)
    return " ".join(pairs)


def _unknown_people(name: str) -> str:
    return (
        f"On whom {name} was trained is in no record here: distillation may include more data at "
        "second hand."
    )


def _people_of(name: str, teacher: dict, student: dict) -> str:
    """A sentence or two on the training people of one teacher and of students' real set."""
    other, same = (
        "other people, so that what distillation adds includes more real people at second hand, "
        "whom students that learnt alone had no part in",
        "the same people, so that on the real set a teacher adds nobody; on sets with synthetic "
        "faces it adds what it learnt from these real people",
    )
    unsure = (
        "and whether they are the same people the records do not tell, so that distillation may "
        "include more data at second hand"
    )
    rendered = "simfaces"
    sets = [p.get("real_set") for p in (teacher, student)]
    if sets[0] != sets[1]:  # sets of photographs may share people, as all do that are of one source
        which = other if rendered in sets else unsure
    elif sets[0] == rendered:
        alike = [(p.get("n_people"), p.get("shares")) for p in (teacher, student)]
        seeds = teacher.get("people_seed"), student.get("data_seed")
        which = other if seeds[0] != seeds[1] else same if alike[0] == alike[1] else unsure
    else:
        which = same if teacher.get("real_root") == student.get("real_root") else unsure
    return (
        f"The teacher {name} was trained on {_named(teacher)}, the students' real set is "
        f"{_named(student)}: {which}."
    )


def _named(parameters: dict) -> str:
    name = parameters.get("real_set")
    if name != "simfaces":
        return f"the set {name}"
    return f"{parameters.get('n_people')} identities of {name}"


def other_recipes(table: pd.DataFrame) -> str:
    """Say what else differs between training sets (table of `kd_effects.recipes_of_sets`)."""
    lines = []
    for (kind, name), part in table.groupby(["architecture", "parameter"], sort=False):
        values = [f"{row.value} on {charts.listed(row.sets)}" for row in part.itertuples()]
        lines.append(
            f"- Between training sets of {kind} the parameter `{name}` differs as well: "
            f"{'; '.join(values)}. What lies between them may be due to that."
        )
    return "\n".join(lines)


_RECIPE = ("epochs", "batch_size", "lr")


def recipes(found: Iterable[Finished], what: str) -> str:
    """Say what kinds of networks were trained, and how; a line a kind.

    Parameters
    ----------
    found : iterable of Finished
        Runs of `kd_student` or `kd_teacher`.
    what : str
        What to call them, such as student.
    """
    lines = {}
    for run in found:
        given = run.parameters
        settings = [f"{k} {v}" for k, v in (given.get("settings") or {}).items() if k != "size"]
        loss = [f"{k} {v}" for k, v in (given.get("loss_settings") or {}).items()]
        how = [f"{name.replace('_', ' ')} {given[name]}" for name in _RECIPE if name in given]
        lines[
            f"- {what}: {charts.listed([str(given.get('architecture')), *settings])}; faces of "
            f"{given.get('size')} px; margin loss {charts.listed([str(given.get('loss')), *loss])}"
            f"{'; ' if how else ''}{charts.listed(how) if how else ''}."
        ] = None
    return "\n".join(lines)


# --- does distillation help? ---


def gains(tested: pd.DataFrame) -> str:
    """Say what distillation changed: on average, and by training set and architecture.

    Parameters
    ----------
    tested : pandas.DataFrame
        From `audit.grid.corrected`: `kd_effects.averages`.

    Returns
    -------
    str
        Markdown.
    """
    lines = []
    for (over, of), part in tested.groupby(["over", "of"], sort=False):
        rows = part.set_index("metric").loc[[m for m in _METRICS if m in set(part["metric"])]]
        texts = [findings.moved_text(row) for row in rows.reset_index().to_dict("records")]
        name = "**All students**" if over == _EVERY else f"{over} *{of}*"
        lines.append(f"- {name} ({findings.behind(part)}): {', '.join(texts)}.")
    families = tested.drop_duplicates("family")
    sizes = ", ".join(f"{row.family}: {row.tests}" for row in families.itertuples())
    return "\n".join([*lines, "", _STAR.format(families=sizes)])


_STAR = (
    "In brackets 95 % intervals; a star marks what is resolved after Holm's correction within its "
    "family (tests in each: {families})."
)


def helped(tested: pd.DataFrame, sets: Sequence[str]) -> str:
    """Say in one sentence whether distillation raised accuracy over all students.

    Parameters
    ----------
    tested : pandas.DataFrame
        As in `gains`.
    sets : list of str
        The training sets averaged over (`kd_effects.common_sets`).
    """
    row = _main(tested, "accuracy")
    worst = _main(tested, "worst")
    said = {1: "raises", -1: "lowers", 0: "does not resolvably change"}[_direction(row)]
    text = (
        f"Distillation {said} the accuracy of these students: {_points(row)} points on average "
        f"over {row['networks']} network(s) trained with and without it, each with its mean over "
        f"{charts.listed(sets) if sets else 'its own training sets (none is common to all)'}; for "
        "the worst group "
        f"{_points(worst)} points"
        f"{'' if _direction(worst) else ' (not resolved)'}."
    )
    if not _direction(row):
        text += f" The interval leaves room for {_room(row)}."
    for over in ("training set", "architecture"):
        kinds = tested[(tested["over"] == over) & (tested["metric"] == "accuracy")]
        told = [
            f"{one['of']} {_points(one)}{'' if _direction(one) else ', not resolved'}"
            for one in kinds.to_dict("records")
        ]
        text += f" By {over}: {'; '.join(told)}." if told else ""
    return text


def why_not(tested: pd.DataFrame, levels: pd.DataFrame, teacher: float) -> str:
    """Say what stands in the way where no gain is resolved: no room, or too few trainings.

    Parameters
    ----------
    tested : pandas.DataFrame
        As in `gains`.
    levels : pandas.DataFrame
        Averages over all networks of each column's own values (`audit.grid.averages`).
    teacher : float
        The teacher's accuracy.

    Returns
    -------
    str
        Empty where a gain is resolved.
    """
    row = _main(tested, "accuracy")
    way = _direction(row)
    if way > 0:
        return ""
    alone = levels[(levels["precision"] == kd_effects.ALONE) & (levels["metric"] == "accuracy")]
    alone = alone[(alone["group"] == ALL) & (alone["over"] == _EVERY)]
    room = [f"{one.source} {points(teacher - one.value, sign=True)}" for one in alone.itertuples()]
    text = (
        f"What may stand in the way: the teacher's accuracy is {teacher:.2%}. Less that of "
        f"students without it, by training set, in points: {', '.join(room)}. "
    )
    if not (alone["value"] < teacher).any():
        text += "On no set is the teacher ahead of them, so by accuracy it has nothing to give. "
    elif not (alone["value"] < teacher).all():
        text += "Where the teacher is not ahead, it has by accuracy nothing to give. "
    if way < 0:
        return (
            text + "The fall is resolved: that chance in people or trainings made it is unlikely."
        )
    if not row["repeats"]:
        return text + "Chance in trainings was not measured: that takes more seeds."
    people = row["people_high"] - row["people_low"]
    share = 1 - people / (row["high"] - row["low"]) if row["high"] > row["low"] else 0.0
    return (
        f"{text}With test people alone the interval would be {share:.0%} shorter: so much of it is "
        "chance in trainings, which more of them would make less, and more test people the rest."
    )


def by_group(found: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's correction over single groups to averages of differences.

    Parameters
    ----------
    found : pandas.DataFrame
        From `audit.grid.averages_by`.

    Returns
    -------
    pandas.DataFrame
        The groups' rows of accuracy, with `tests` and `p_holm`.
    """
    kept = found[(found["group"] != ALL) & (found["metric"] == "accuracy")].reset_index(drop=True)
    adjusted = testing.holm(kept["p"].to_numpy(float))
    return kept.assign(tests=int(kept["p"].notna().sum()), p_holm=adjusted)


def drawn(table: pd.DataFrame, *, setting: str, series: str, order: Sequence[str]) -> pd.DataFrame:
    """Rows of averages of differences as `charts_fairness.changes` draws them.

    Parameters
    ----------
    table : pandas.DataFrame
        With `p_holm`.
    setting, series : str
        Columns that name a panel's rows, and what is coloured in them.
    order : sequence of str
        Settings in the order of rows; others stand before them.
    """
    table = findings.in_units(table)
    table = table.rename(columns={"people_low": "inner_low", "people_high": "inner_high"})
    units = np.where(table["metric"] == "ser", "", ", points")
    table = table.assign(
        panel=table["metric"].map(findings.QUANTITIES) + units,
        setting=table[setting],
        series=table[series],
        resolved=table["p_holm"] <= verdicts.ALPHA,
        place=table["metric"].map(_METRICS.index),
        row=placed(order)(table[setting]),
    )
    table = table.sort_values(["place", "row"], kind="stable", na_position="first")
    return table.drop(columns=["place", "row"])


def drawn_levels(
    levels: pd.DataFrame, teachers: pd.DataFrame, sets: list[str], pairs_of: pd.Series
) -> pd.DataFrame:
    """Own accuracies of each group as `charts_fairness.group_intervals` draws them.

    Parameters
    ----------
    levels, teachers : pandas.DataFrame
        From `audit.grid.averages_by` "architecture".
    sets : list of str
        Training sets to show, in order.
    pairs_of : pandas.Series
        Group to its number of test pairs.
    """
    levels, teachers = (t.rename(columns={"metric": "quantity"}) for t in (levels, teachers))
    place = placed(sets)(levels["source"])
    shown = levels.assign(place=place, series=levels["source"] + ", " + levels["precision"])
    shown = shown[place.notna()].sort_values(["architecture", "place"], kind="stable")
    shown = shown.assign(metric=findings.counted(shown, "architecture"))
    names = pd.DataFrame({"metric": shown["metric"].unique(), "series": kd_effects.TEACHER})
    shown = pd.concat([shown, teachers.merge(names, how="cross")])
    shown = shown[shown["group"].isin(pairs_of.index) & shown["quantity"].eq("accuracy")]
    return shown.assign(n=shown["group"].map(pairs_of), **shown[["low", "high"]].clip(0, 1))


def other_losses(tested: pd.DataFrame) -> str:
    """Say how other ways of teaching do against none, and against the main one.

    Parameters
    ----------
    tested : pandas.DataFrame
        From `audit.grid.corrected`: `kd_effects.averages` of `other_gains`.
    """
    rows = tested[(tested["over"] == _EVERY) & tested["metric"].isin(["accuracy", "worst"])]
    lines = [
        f"- {column} less {reference} ({findings.behind(part)}): "
        + ", ".join(findings.moved_text(row) for row in part.to_dict("records"))
        + "."
        for (column, reference), part in rows.groupby(["column", "reference"], sort=False)
    ]
    return "\n".join(lines) or "Nothing else was taught, or nothing on a training set of both."


def other_students(tested: pd.DataFrame, about: pd.DataFrame) -> str:
    """Say what distillation changed in students that are in no average above.

    Parameters
    ----------
    tested : pandas.DataFrame
        From `audit.grid.corrected`: `kd_effects.averages_of_kinds`.
    about : pandas.DataFrame
        These students, from `kd_effects.students`.
    """
    if about.empty:
        return "There are none."
    lines = []
    for kind, part in tested.groupby("architecture", sort=False):
        sets = charts.listed(list(dict.fromkeys(about.loc[about["architecture"] == kind, "set"])))
        rows = part[part["metric"].isin(["accuracy", "worst"])].to_dict("records")
        told = ", ".join(findings.moved_text(row) for row in rows)
        lines.append(f"- {kind} on {sets} ({findings.behind(part)}): {told}.")
    return "\n".join(lines)


# --- the synthetic gap ---


def closing(
    tested: pd.DataFrame, closed: pd.DataFrame, narrowed: pd.DataFrame, synthetic: str, real: str
) -> str:
    """Say how wide the gap is, and how much of it distillation closes.

    Parameters
    ----------
    tested : pandas.DataFrame
        From `audit.grid.corrected`: rows of `kd_effects.gaps`, and their second differences.
    closed, narrowed : pandas.DataFrame
        From `kd_effects.shares_closed`: of the gap between students without a teacher, what the
        gain of synthetic students makes up, and what is gone where both are taught.
    synthetic, real : str
        The two training sets.
    """
    row, one = _of_all(closed), _of_all(narrowed)
    if row is None:
        return f"No student was trained on both {real} and {synthetic}: there is no gap to see."
    gap = f"{points(row['gap'])} points ({between((row['gap_low'], row['gap_high']))})"
    if np.isnan(row["value"]):
        return (
            f"Without a teacher, students trained on {real} differ in accuracy from those trained "
            f"on {synthetic} by {gap}, positive where {real} is better: {_no_share(row)}"
        )
    text = (
        f"Without a teacher, students trained on {synthetic} are less accurate than those trained "
        f"on {real} by {gap}. Distillation on {synthetic} makes up for {_share(row)} of that gap"
    )
    if one is None or np.isnan(one["value"]):
        return f"{text}."
    change = tested[tested["reference"] == kd_effects.GAP_ALONE]
    change = change[(change["metric"] == "accuracy") & (change["over"] == _EVERY)]
    change = change[change["column"].str.startswith(f"{synthetic}/")]
    sure = len(change) and _direction(change.iloc[0])
    return (
        f"{text}; where {real} students are distilled too, the gap is narrower by {_share(one)} "
        f"({'resolved' if sure else 'not resolved'})."
    )


def _no_share(row) -> str:
    """Why no share of a gap is given."""
    if row["gap_high"] < 0:
        return "synthetic faces train better here, so there is nothing to close."
    return "this gap is not resolved, and no share of something that may be nothing can be given."


def shares_table(closed: pd.DataFrame, narrowed: pd.DataFrame) -> pd.DataFrame:
    """The gap and the shares of it, a row a group, as texts with 95 % intervals."""
    rows = []
    both = closed.merge(narrowed, on=["group", "metric"], suffixes=("", "_narrowed"))
    for row in both.to_dict("records"):
        other = {key: row[f"{key}_narrowed"] for key in ("value", "low", "high")}
        ends = between((row["gap_low"], row["gap_high"]))
        rows.append(
            {
                "accuracy of": "worst group" if row["metric"] == "worst" else row["group"],
                "gap, points": f"{points(row['gap'])} ({ends})",
                "made up for": _share(row),
                "narrower by": _share(other),
                "networks": row["networks"],
            }
        )
    return pd.DataFrame(rows)


def _share(row) -> str:
    if np.isnan(row["value"]):
        return "not defined"
    return f"{row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%})"


def _of_all(table: pd.DataFrame):
    found = table[(table["group"] == ALL) & (table["metric"] == "accuracy")]
    return found.iloc[0] if len(found) else None


def mixes(levels: pd.DataFrame, about: pd.DataFrame) -> pd.DataFrame:
    """Own values of every share of synthetic faces, as `charts_tradeoff.mix_curves` draws them.

    Parameters
    ----------
    levels : pandas.DataFrame
        From `audit.grid.averages_by` "architecture": accuracy of all, and of the worst group.
    about : pandas.DataFrame
        From `kd_effects.students`; sets mixed by another rule (mix_equal_...) are left out.

    Returns
    -------
    pandas.DataFrame
        panel, series (how taught), share (of synthetic identities that sets came to), value, low,
        high; empty where no architecture has three shares.
    """
    equal = about["training_set"].str.startswith(f"{kd_effects.SHARED}_")
    share = about[~equal].drop_duplicates("set").set_index("set")["synthetic_share"]
    wanted = levels["metric"].isin(["accuracy", "worst"]) & (levels["group"] == ALL)
    table = levels[wanted & levels["source"].isin(share.index)]
    table = table.assign(share=table["source"].map(share))
    enough = table.groupby("architecture")["share"].transform("nunique") >= 3
    table = table[enough].sort_values(["architecture", "metric", "share"], kind="stable")
    names = table["metric"].map({"accuracy": "accuracy", "worst": "the worst group's accuracy"})
    return table.assign(
        panel=names + ", " + table["architecture"],
        series=table["precision"],
        **table[["low", "high"]].clip(0, 1),
    )


def best_mix(table: pd.DataFrame) -> str:
    """Say at which share of synthetic faces accuracy is highest (table of `mixes`)."""
    lines = []
    for (panel, series), part in table.groupby(["panel", "series"], sort=False):
        best, worst = (part.loc[part["value"].agg(f)] for f in ("idxmax", "idxmin"))
        lines.append(
            f"- {panel}, {series}: highest at {best['share']:.0%} synthetic ({_rate(best)}), "
            f"lowest at {worst['share']:.0%} ({_rate(worst)})."
        )
    return "\n".join(lines) or "No architecture was trained on three shares of synthetic faces."


def _rate(row: pd.Series) -> str:
    return f"{row['value']:.1%}, {row['low']:.1%} to {row['high']:.1%}"


def realised(about: pd.DataFrame, share: float) -> float:
    """What share of synthetic identities mixes came to that were asked for with this share.

    The share itself where there is no such mix. A mix takes shares of two sets, so the two are one
    only where both sets have as many identities.
    """
    mixed = (about["training_set"] == kd_effects.SHARED) & np.isclose(about["share"], share)
    return float(about.loc[mixed, "synthetic_share"].mean()) if mixed.any() else share


def sets_in_order(about: pd.DataFrame, share: float | None = None) -> list[str]:
    """The training sets from real to synthetic; with a share, mixes of other shares left out."""
    sets = about.drop_duplicates("set").sort_values(["share", "set"], kind="stable")
    if share is not None:
        mixed = sets["training_set"] == kd_effects.SHARED
        sets = sets[~mixed | np.isclose(sets["share"], share)]
    return list(sets["set"])


def placed(order: Sequence[str]) -> Callable[[pd.Series], pd.Series]:
    """A key that sorts a table by the place of its values in an order; others come last."""
    place = {name: k for k, name in enumerate(order)}
    return lambda values: values.map(place)


# --- what is inherited, and what compression does ---


def inherited(tested: pd.DataFrame, levels: pd.DataFrame, baseline: pd.DataFrame) -> str:
    """Say how far errors of taught students are their teacher's, against two baselines.

    Parameters
    ----------
    tested : pandas.DataFrame
        From `corrected_shares`.
    levels, baseline : pandas.DataFrame
        Averages over all networks of `kd_effects.with_teachers`, and of `with_other_seeds`.
    """
    lines = []
    own, seeds = (_values(table, "shared") for table in (levels, baseline))
    for row in tested.itertuples():
        name = row.column.partition("/")[0]
        if not np.isfinite(row.value):
            lines.append(f"- {name}: not defined, since one of the two makes hardly any errors.")
            continue
        alone = own.get(f"{name}/{kd_effects.ALONE}", np.nan)
        said = {1: "more", -1: "less", 0: "not resolvably otherwise"}[_direction(row._asdict())]
        text = (
            f"- {name}: errors are shared with the teacher {said} after distillation "
            f"({own.get(row.column, np.nan):.0%} of what could be, alone {alone:.0%}; difference "
            f"{_points(row._asdict())} points)"
        )
        if row.column in seeds:
            text += f"; with the same student of another seed: {seeds[row.column]:.0%}"
        lines.append(f"{text}.")
    return "\n".join(lines)


def corrected_shares(found: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's correction over training sets to differences of shared errors, of all groups."""
    kept = found[(found["group"] == ALL) & (found["metric"] == "shared")]
    kept = kept[kept["over"] == _EVERY].reset_index(drop=True)
    return kept.assign(p_holm=testing.holm(kept["p"].to_numpy(float)))


def _values(table: pd.DataFrame, metric: str) -> dict[str, float]:
    kept = table[(table["metric"] == metric) & (table["group"] == ALL) & (table["over"] == _EVERY)]
    return dict(zip(kept["column"], kept["value"], strict=True))


def inherited_table(levels: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What `kd_effects.agreements` has, of each comparison, a row a column, with 95 % intervals.

    Parameters
    ----------
    levels : dict of str to pandas.DataFrame
        What is compared with what, to averages over all networks.
    """
    rows = []
    for name, table in levels.items():
        kept = table[(table["group"] == ALL) & (table["over"] == _EVERY)]
        for column, part in kept.groupby("column", sort=False):
            texts = {
                row.metric: f"{row.value:.2f} ({row.low:.2f} to {min(row.high, 1):.2f})"
                if np.isfinite(row.value)
                else "not defined"
                for row in part.itertuples()
            }
            rows.append({"compared": name, "students": column} | texts)
    return pd.DataFrame(rows, columns=["compared", "students", *kd_effects.INHERITED])


def alike(tested: pd.DataFrame) -> str:
    """Say in one sentence whether errors become the teacher's (table of `corrected_shares`)."""
    ways = [_direction(row) for row in tested.to_dict("records")]
    return (
        "Beyond what their accuracies imply, distilled students share more errors with their "
        f"teacher than those that learnt alone on {ways.count(1)} of {len(ways)} training sets, "
        f"fewer on {ways.count(-1)}; not resolved: {ways.count(0)}."
    )


def least_alike(levels: pd.DataFrame) -> str:
    """Say in which group taught students follow their teacher least (averages by group)."""
    lines = []
    kept = levels[(levels["metric"] == "agreement") & (levels["over"] == _EVERY)]
    kept = kept[(kept["group"] != ALL) & (kept["precision"] != kd_effects.ALONE)]
    for column, part in kept.groupby("column", sort=False):
        low, high = (part.loc[part["value"].agg(f)] for f in ("idxmin", "idxmax"))
        lines.append(
            f"- {column}: decisions are the teacher's most often in group {high['group']} "
            f"({high['value']:.1%}, {high['low']:.1%} to {min(high['high'], 1):.1%}), least often "
            f"in group {low['group']} ({low['value']:.1%}, {low['low']:.1%} to "
            f"{min(low['high'], 1):.1%})."
        )
    return "\n".join(lines)


def protected(tested: pd.DataFrame) -> str:
    """Say whether distilled students lose less when they are compressed, a line a variant.

    Parameters
    ----------
    tested : pandas.DataFrame
        From `audit.grid.corrected`: drops of taught students less those of students that learnt
        alone; positive where the taught lose less. Averages over all networks.
    """
    if tested.empty:
        return "No student was compressed both with and without distillation."
    lines = []
    tested = tested[tested["over"] == _EVERY]
    for name in charts.sort_variants(tested["precision"]):
        rows = tested[tested["precision"] == name].set_index("metric")
        told = [f"{findings.QUANTITIES[m]} {_sided(rows.loc[m])}" for m in ("accuracy", "worst")]
        lines.append(f"- {name} ({findings.behind(rows)}): {'; '.join(told)}.")
    return "\n".join(lines)


def protection(tested: pd.DataFrame) -> str:
    """Say in one sentence in which variants the worst group is spared (table as `protected`)."""
    rows = tested[(tested["over"] == _EVERY) & (tested["metric"] == "worst")]
    if rows.empty:
        return protected(rows)
    ways = {row["precision"]: _direction(row) for row in rows.to_dict("records")}
    named = {way: [v for v in charts.sort_variants(ways) if ways[v] == way] for way in (1, -1, 0)}
    return (
        "Compressed, the worst group of distilled students loses less than that of students that "
        f"learnt alone in {charts.listed(named[1])}, more in {charts.listed(named[-1])}; not "
        f"resolved: {charts.listed(named[0])}."
    )


def _sided(row) -> str:
    said = {1: "loses less after distillation", -1: "loses more after distillation"}
    said = said.get(_direction(row), "no difference of losses is resolved")
    alone = not _direction(row) and (row["low"] > 0 or row["high"] < 0)
    return f"{said}{' after correction' if alone else ''} ({_points(row, 2)} points)"


# --- verdicts ---

PAPER, COUNTER = verdicts.PAPER, "other studies"
NETO, ATZORI, KORSHUNOV = "Neto et al. 2024", "Atzori et al. 2024", "Korshunov et al. 2025"


class Evidence(NamedTuple):
    """What claims are judged by.

    `gain`, `gap` and `drop` are rows of `kd_effects` (gains; gaps; second differences of drops),
    `about` the table of students, `panels` that of `audit.grid.panel` for all of them.
    """

    gain: list[Row]
    gap: list[Row]
    drop: list[Row]
    about: pd.DataFrame
    panels: pd.DataFrame
    people: int
    taught: str
    real: str
    synthetic: str
    share: float  # asked for in the mix that the paper singles out
    margin: float  # a loss of accuracy that counts as little
    spread_margin: float  # a fall of STD that counts as little


def judge(evidence: Evidence) -> pd.DataFrame:
    """Judge every claim on distillation and synthetic faces (`claims.evaluate`)."""
    return claims.evaluate(evidence, CLAIMS)


def _cells(rows: list[Row], e: Evidence, metrics: Iterable[str], *, groups: bool = False) -> dict:
    """(column, group, metric) -> Estimate over networks, of all together or of single groups."""
    about = kd_effects.networks(e.about)
    kept = [row for row in rows if row.metric in metrics and (row.group != ALL) == groups]
    keys = dict.fromkeys((row.column, row.group, row.metric) for row in kept)
    found = {}
    for key in keys:
        of = [row for row in kept if (row.column, row.group, row.metric) == key]
        estimate = kd_effects.average(of, about, e.people)
        if np.isfinite(estimate.value):
            found[key] = estimate
    return found


def _negative(cells: dict) -> list[Estimate]:
    return [cell._replace(value=-cell.value) for cell in cells.values()]


def _noise(e: Evidence, column: str, reference: str) -> str:
    """What a column's mean STD would have done by noise alone, and the excess over it."""
    found = grid.noise(e.panels, reference)
    row = found[(found["metric"] == "std") & (found["column"] == column)].iloc[0]
    return (
        f" Of equal groups with the same accuracies, the median of STD would have changed by "
        f"{row['null_change']:+.2f} points, by noise alone, which leaves {row['excess']:+.2f}; the "
        "verdict is on STD as it is."
    )


_NOTHING = "Nothing was run that could tell."


def _every_group(e: Evidence) -> Finding:
    cells = _cells(e.gain, e, ["accuracy"], groups=True)
    if not cells:
        return Finding(verdicts.NONE, _NOTHING, needed="students with and without distillation")
    verdict, p = verdicts.harmless_rule(_negative(cells), 0.0)
    least = min(cells, key=lambda key: cells[key].value)
    row, name = cells[least], f"{least[1]} on {least[0].partition('/')[0]}"
    up = sum(cell.value > 0 for cell in cells.values())
    text = (
        f"Accuracy is higher with distillation in {up} of {len(cells)} cells (a group of test "
        f"people, a training set). The smallest change is that of {name}, "
        f"{points(row.value, 2, sign=True)} points ({between(row.interval(), 2)}). The claim is on "
        "all cells, so it stands or falls with the weakest: supported if a fall is excluded in "
        "every one."
    )
    return _finding(verdict, text, row, p, "more trainings of each student, and more test people")


def _lower_bias(e: Evidence) -> Finding:
    cells = _cells(e.gain, e, SPREADS)
    if not cells:
        return Finding(verdicts.NONE, _NOTHING, needed="students with and without distillation")
    verdict, p = verdicts.change_rule(_negative(cells))
    std = {key: cell for key, cell in cells.items() if key[2] == "std"}
    key = max(std, key=lambda k: abs(std[k].value))
    row = std[key]
    down = {m: [c.value < 0 for k, c in cells.items() if k[2] == m] for m in SPREADS}
    text = (
        f"With distillation STD is smaller on {sum(down['std'])} of {len(down['std'])} training "
        f"sets, SER on {sum(down['ser'])} of {len(down['ser'])}. The largest change of STD, on "
        f"{key[0].partition('/')[0]}, is {points(row.value, 2, sign=True)} points "
        f"({between(row.interval(), 2)})."
    )
    text += _noise(e, key[0], f"{key[0].partition('/')[0]}/{kd_effects.ALONE}")
    return _finding(verdict, text, row, p, "more trainings, and more test people in every group")


def _narrower(e: Evidence) -> Finding:
    first, second = (f"{e.synthetic}/{how}" for how in (kd_effects.ALONE, e.taught))
    gaps = {key[0]: cell for key, cell in _cells(e.gap, e, ["accuracy"]).items()}
    alone = kd_effects.picked(e.gap, column=first)
    distilled = kd_effects.picked(e.gap, column=second)
    change, both = (  # the two gaps' difference and sum
        list(
            _cells(
                kd_effects.against_alone([*rows, *distilled], e.taught), e, ["accuracy"]
            ).values()
        )
        for rows in (alone, kd_effects.negated(alone))
    )
    if first not in gaps or not change:
        needed = f"students on {e.real} and on {e.synthetic}, with and without distillation"
        return Finding(verdicts.NONE, _NOTHING, needed=needed)
    gap, row, total = gaps[first], change[0], both[0]
    text = (
        f"Students on {e.synthetic} less those on {e.real}: "
        f"{points(gap.value, 2, sign=True)} points ({between(gap.interval(), 2)}) without a "
        f"teacher, {points(gaps[second].value, 2, sign=True)} with one. The "
        f"change is {points(row.value, 2, sign=True)} points ({between(row.interval(), 2)})."
    )
    low, high = gap.interval()
    if low > 0:
        text += f" Without a teacher {e.synthetic} is resolved to train better: nothing to narrow."
        return Finding(
            verdicts.OPEN, text, needed=f"a set on which training is worse than {e.real}"
        )
    if high >= 0:
        text += " Without a teacher no gap is resolved, so there is none to be narrowed."
        return Finding(verdicts.OPEN, text, needed="a gap, or trainings enough to see it")
    text += (
        " Narrower is a gap that is smaller either way: one that turns round counts by its size."
    )
    verdict, p = _smaller(row, total)
    return _finding(verdict, text, row, p, "more trainings of each student")


def _smaller(change: Estimate, total: Estimate) -> tuple[str, float]:
    """Whether |b| < |a| for a gap a < 0, from b - a and a + b: the verdict, and the p it hangs on.

    Smaller is what has b - a > 0 and a + b < 0, so both must be resolved; larger is what has either
    resolved the other way, and at most one of the two can lie there.
    """
    if change.value > 0 > total.value:
        p = max(change.p(), total.p())
        return (verdicts.SUPPORTED if p < verdicts.ALPHA else verdicts.OPEN), p
    p = (total if change.value > 0 else change).p()
    return (verdicts.CONTRADICTED if p < verdicts.ALPHA else verdicts.OPEN), p


def _mix_as_good(e: Evidence) -> Finding:
    name = f"{kd_effects.SHARED} {e.share:.0%}/{e.taught}"
    found = list(_cells(kd_effects.picked(e.gap, column=name), e, ["accuracy"]).values())
    if not found:
        needed = f"students on {kd_effects.SHARED} {e.share:.0%} and on {e.real}, distilled"
        return Finding(verdicts.NONE, _NOTHING, needed=needed)
    row = found[0]
    verdict, p = verdicts.harmless_rule([row._replace(value=-row.value)], e.margin)
    text = (
        f"Distilled on {name.partition('/')[0]} ({realised(e.about, e.share):.0%} of its "
        f"identities are synthetic), students are {points(row.value, 2, sign=True)} points from "
        f"those distilled on {e.real} ({between(row.interval(), 2)}); a loss of up to "
        f"{points(e.margin)} points counts as a match."
    )
    return _finding(verdict, text, row, p, "more trainings of each student")


def _fairer(says: int) -> Callable[[Evidence], Finding]:
    """Whether synthetic faces lower STD (says -1), or leave it or raise it (says 1)."""

    def judged(e: Evidence) -> Finding:
        alone = [row for row in e.gap if row.column.endswith(f"/{kd_effects.ALONE}")]
        if says > 0:  # a set without real faces has nothing added to it
            mixed = set(e.about.loc[e.about["synthetic_share"] < 1, "set"])
            alone = [row for row in alone if row.column.partition("/")[0] in mixed]
        cells = _cells(alone, e, ["std"])
        if not cells:
            which = "mixes of both" if says > 0 else "sets with synthetic faces"
            needed = f"students on {e.real} and on {which}, without a teacher"
            return Finding(verdicts.NONE, _NOTHING, needed=needed)
        if says < 0:  # there are some: one set is enough, whatever others do
            verdict, p = verdicts.some_rule(list(cells.values()), 0.0)
        else:  # a fall of STD is what would speak against it
            verdict, p = verdicts.harmless_rule(_negative(cells), e.spread_margin)
        key = min(cells, key=lambda k: cells[k].value)
        row = cells[key]
        text = (
            f"Without a teacher, STD is lower than that of students on {e.real} on "
            f"{sum(cell.value < 0 for cell in cells.values())} of {len(cells)} sets with synthetic "
            f"faces; it falls most, or rises least, on {key[0].partition('/')[0]}: "
            f"{points(row.value, 2, sign=True)} points ({between(row.interval(), 2)})."
        )
        text += _noise(e, key[0], f"{e.real}/{kd_effects.ALONE}")
        if says > 0:
            text += (
                f" A fall of up to {points(e.spread_margin, 2)} points counts as none. These mixes "
                "have synthetic people in the place of real ones, not beside them."
            )
        return _finding(verdict, text, row, p, "more trainings, and more test people")

    return judged


def _protects(e: Evidence) -> Finding:
    cells = _cells(kd_effects.over_sets(e.drop), e, ["worst"])
    if not cells:
        return Finding(verdicts.NONE, _NOTHING, needed="compressed students")
    verdict, p = verdicts.change_rule(list(cells.values()))
    key = max(cells, key=lambda k: abs(cells[k].value))
    row = cells[key]
    text = (
        "Change of the worst group's accuracy by compression, distilled less alone, over all "
        f"students, in {len(cells)} ways to compress: the largest is that of "
        f"{key[0].rpartition('/')[2]}, {points(row.value, 2, sign=True)} points "
        f"({between(row.interval(), 2)}; positive: the distilled lose less)."
    )
    return _finding(verdict, text, row, p, "more trainings of each student")


def _finding(verdict: str, text: str, row: Estimate, p: float, needed: str) -> Finding:
    needed = needed if verdict == verdicts.OPEN else verdicts.ENOUGH
    return Finding(verdict, text, row.value, *row.interval(), p, False, needed)


CLAIMS = (
    verdicts.Claim(
        "every-group", NETO, "Distillation raises accuracy in every ethnic group",
        f"{NETO}, abstract", verdicts.HARMLESS, _every_group,
    ),
    verdicts.Claim(
        "lower-bias", NETO, "Distillation lowers bias (STD, SER)",
        f"{NETO}, abstract", verdicts.CHANGE, _lower_bias,
    ),
    verdicts.Claim(
        "narrower", NETO, "Distillation narrows the gap between real and synthetic training faces",
        f"{NETO}, abstract", verdicts.CHANGE, _narrower,
    ),
    verdicts.Claim(
        "mix", NETO, "A mix with a small share of synthetic faces, distilled, matches real faces",
        f"{NETO}, abstract", verdicts.HARMLESS, _mix_as_good,
    ),
    verdicts.Claim(
        "not-fairer", ATZORI, "Adding balanced synthetic faces leaves unfairness as it is or worse",
        f"{ATZORI}, abstract", verdicts.HARMLESS, _fairer(1), COUNTER,
        ("a fall of STD above the margin on some set", "no such fall on any set"),
    ),
    verdicts.Claim(
        "fairer", KORSHUNOV, "Some balanced synthetic sets can lower unfairness",
        f"{KORSHUNOV}, abstract", verdicts.SOME, _fairer(-1), COUNTER,
        ("no fall of STD on any set", "a fall of STD on some set"),
    ),
    verdicts.Claim(
        "protects", "this study", "Distilled students' worst group loses less when compressed",
        "this chapter", verdicts.CHANGE, _protects, verdicts.QUESTION,
    ),
)  # fmt: skip


# --- rows ---


def _main(tested: pd.DataFrame, metric: str) -> dict:
    """The average over all networks."""
    kept = tested[(tested["over"] == _EVERY) & (tested["metric"] == metric)]
    return kept.iloc[0].to_dict()


def _direction(row) -> int:
    """1 or -1 where a change is resolved after correction, 0 where it is not."""
    sure = row["p_holm"] <= verdicts.ALPHA
    return int(np.sign(row["value"])) if sure else 0


def _points(row, digits: int = 1) -> str:
    ends = between((row["low"], row["high"]), digits)
    return f"{points(row['value'], digits, sign=True)} ({ends})"


def _room(row) -> str:
    low, high = (points(row[key], sign=True) for key in ("low", "high"))
    return f"anything from {low} to {high} points"
