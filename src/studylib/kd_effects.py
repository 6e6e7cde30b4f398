"""What distillation changes in students, and how much of the synthetic gap it closes.

A student is known by its kind (architecture, and what else its runs differ in), what it was trained
on, how it was taught, and its seed. In `audit.grid`'s terms a network is a kind with a seed, and
its columns are TRAINING SET/TAUGHT: all compared on the same pairs of the same resampled people,
with other trainings as the second source of chance. Trainings of one seed share their first weights
and the order of their batches, so over all sets a network counts once, with its mean (`over_sets`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet
from scipy import special

from studylib import compare, errors
from studylib.audit import grid
from studylib.audit.compare import people_sums, split
from studylib.audit.grid import ALL, Measured, Row
from studylib.metrics import uncertainty
from studylib.metrics.arrays import divide
from studylib.published import Estimate
from studylib.runs import Finished
from studylib.students import ALONE

GAP_ALONE = "the gap without a teacher"
SHARED = "mix"  # the training set whose share of synthetic identities is a parameter
FULL, TEACHER = "fp32", "teacher"


def students(found: list[Finished]) -> pd.DataFrame:
    """What each run of `kd_student` trained: a row a run.

    Parameters
    ----------
    found : list of Finished
        Runs with a table `network` (architecture, training_set, share, taught, loss,
        training_seed) and scores of fp32.

    Returns
    -------
    pandas.DataFrame
        run, network (kind and seed), architecture (the kind), set (the training set, a mix with the
        share that was asked for), share (asked for), synthetic_share (of the identities that it
        came to; `share` where a run does not tell), taught, loss, training_seed, column
        (set/taught).

    Raises
    ------
    RunError
        If two runs are of one student, one has no fp32 scores, or two of one kind had different
        recipes, so that more than teaching and training set would tell them apart.
    """
    rows = []
    for run in found:
        if f"score_{FULL}" not in run.outcomes:
            raise errors.RunError(errors.NO_REFERENCE.format(run=run.name))
        about = run.table("network").iloc[0]
        given = {column: about[column] for column in _ABOUT}
        rows.append({"run": run.name, **given, _REALISED: about.get(_REALISED, about["share"])})
    table = pd.DataFrame(rows)
    table["architecture"] = _kinds(table, [run.parameters["settings"] for run in found])
    table["network"] = table["architecture"] + "-" + table["training_seed"].astype(str)
    mixed = table["training_set"] + table["share"].map(" {:.0%}".format)
    table["set"] = table["training_set"].where(table["training_set"] != SHARED, mixed)
    table["column"] = table["set"] + "/" + table["taught"]
    for _, part in table.groupby(["network", "column"]):
        if len(part) > 1:
            said = {"first": part["run"].iloc[0], "other": part["run"].iloc[1]}
            said |= part.iloc[0][["network", "column"]].to_dict()
            raise errors.RunError(errors.SAME_STUDENT.format(**said))
    _check_recipes(table, {run.name: run.parameters for run in found})
    return table[["run", "network", "set", *_ABOUT, _REALISED, "column"]]


_ABOUT = ["architecture", "training_set", "share", "taught", "loss", "training_seed"]
_REALISED = "synthetic_share"
# What students of a kind may differ in: what makes their columns and networks, and what changes
# nothing in the student itself, such as where files lie.
_TEACHING = {"kd_loss", "kd_weight", "kd_settings", "balance", "label_weight", "mirrored"}
_FREE = {"seed", "teacher", "training_set", "share", "architecture", "settings", "loss", "cache"}
_FREE |= {"checkpoints", "packed_dir", "out_dir", "device", "profile", "compress", "resamples"}
_FREE |= {"real_root", "synthetic_root", "eval_root"}
_OF_SET = {"flip", "broken"}  # the paper mirrored real faces alone: may differ between sets
# What only the other kind of faces has a use for.
_UNUSED = {"real": {"synthetic_set", "n_synthetic", "per_synthetic"}, "synthetic": {"real_set"}}


def _check_recipes(table: pd.DataFrame, parameters: dict[str, dict]) -> None:
    """Refuse students of a kind with different recipes, or ones taught so in different ways."""
    taught = table[table["taught"] != ALONE]
    for part, by, free in (
        (table, ["architecture"], _FREE | _TEACHING | _OF_SET),
        (table, ["architecture", "set"], _FREE | _TEACHING),
        (taught, ["architecture", "taught"], _FREE | _OF_SET),
    ):
        for _, alike in part.groupby(by):
            first, *others = alike.itertuples()
            for other in others:
                unused = (_UNUSED.get(row.training_set, set()) for row in (first, other))
                _check_alike(first, other, parameters, free.union(*unused))


def _check_alike(first, other, parameters: dict[str, dict], free: set) -> None:
    """Refuse two rows of `students` that differ in a parameter that is not free."""
    first, other, kind = first.run, other.run, first.architecture
    one, two = parameters[first], parameters[other]
    for name in sorted({*one, *two} - free):
        if one.get(name) != two.get(name):
            said = {"first": first, "other": other, "kind": kind, "parameter": name}
            said |= {"given": one.get(name), "wanted": two.get(name)}
            raise errors.RunError(errors.OTHER_RECIPE.format(**said))


def recipes_of_sets(found: list[Finished], about: pd.DataFrame) -> pd.DataFrame:
    """What students on one training set had otherwise than those on another, by design.

    Returns
    -------
    pandas.DataFrame
        architecture, parameter, value, and sets (a list): a row for each value of a parameter that
        has several among students of a kind.
    """
    parameters = {run.name: run.parameters for run in found}
    rows = []
    for kind, part in about.groupby("architecture", sort=False):
        for name in sorted(_OF_SET):
            given = part["run"].map(lambda run, name=name: parameters[run].get(name))
            if given.nunique(dropna=False) > 1:
                by = part.groupby(given, dropna=False, sort=False)["set"].unique()
                rows += [(kind, name, value, list(sets)) for value, sets in by.items()]
    return pd.DataFrame(rows, columns=["architecture", "parameter", "value", "sets"])


def sizes(found: list[Finished], about: pd.DataFrame) -> pd.DataFrame:
    """How large each training set is, counted from the runs' tables `people`.

    Parameters
    ----------
    found : list of Finished
        The runs of `about`.
    about : pandas.DataFrame
        From `students`.

    Returns
    -------
    pandas.DataFrame
        set, synthetic_share, identities real, identities synthetic, pictures real, pictures
        synthetic; a row a training set, from real to synthetic. Several where kinds of students had
        sets of other sizes: then `students` names the kinds.
    """
    rows = []
    for run, row in zip(found, about.itertuples(), strict=True):
        people = run.table("people").groupby("domain", observed=True)[["identities", "pictures"]]
        of = people.sum().reindex(["real", "synthetic"], fill_value=0)
        counts = {f"{what} {domain}": of.loc[domain, what] for what in of for domain in of.index}
        told = {"set": row.set, "students": row.architecture, _REALISED: row.synthetic_share}
        rows.append(told | counts)
    table = pd.DataFrame(rows).drop_duplicates()
    own = [column for column in table if column != "students"]
    table = table.groupby(own, as_index=False)["students"].agg(", ".join)
    if not table["set"].duplicated().any():
        table = table[own]
    return table.sort_values([_REALISED, "set"], kind="stable", ignore_index=True)


def learnt(
    found: list[Finished], about: pd.DataFrame, teachers: Iterable[Finished] = ()
) -> pd.DataFrame:
    """How far trainings had come when they ended, from the runs' tables `history`.

    Parameters
    ----------
    found : list of Finished
        The runs of `about`.
    about : pandas.DataFrame
        From `students`.
    teachers : iterable of Finished
        Runs of `kd_teacher`: a row each, below the students', `set` its name and `taught` empty.

    Returns
    -------
    pandas.DataFrame
        set, taught, and means over the students: trainings (how many), epochs, accuracy (of the
        last epoch, on training faces with their margin), fall (of the loss, a fraction an epoch
        over the last two epochs at the highest rate: lowering the rate brings one more gain, and
        hardly any later; NaN where the rate was highest for a single epoch).
    """
    rows = []
    for run, row in zip(found, about.itertuples(), strict=True):
        told = {"set": row.set, "taught": row.taught, "share": row.share}
        rows.append(told | _came_to(run.table("history")))
    for run in teachers:
        told = {"set": run.name, "taught": "", "share": np.inf}
        rows.append(told | _came_to(run.table("history")))
    table = pd.DataFrame(rows).sort_values(["share", "set", "taught"], kind="stable")
    by = table.groupby(["set", "taught"], sort=False)
    means = by[["epochs", "accuracy", "fall"]].mean()
    return means.assign(trainings=by.size()).reset_index()


def _came_to(history: pd.DataFrame) -> dict:
    """Of one training, what `learnt` averages."""
    last = history.loc[history["lr"] == history["lr"].max(), "loss"].to_numpy(float)[-3:]
    fall = 1 - (last[-1] / last[0]) ** (1 / (len(last) - 1)) if len(last) > 1 else np.nan
    return {"epochs": len(history), "fall": fall, "accuracy": history["accuracy"].iloc[-1]}


def taught_or_alone(about: pd.DataFrame, taught: str) -> pd.DataFrame:
    """The students that were taught so or not at all (table of `students`).

    Networks that were trained both ways on no set have nothing to be compared with: left out.

    Raises
    ------
    RunError
        If no network was trained both ways on one training set.
    """
    kept = about[about["taught"].isin([ALONE, taught])]
    ways = kept.groupby(["network", "set"])["taught"].nunique()
    both = ways[ways == 2].index.get_level_values("network")
    if both.empty:
        raise errors.RunError(errors.NOTHING_TAUGHT.format(taught=taught))
    return kept[kept["network"].isin(both)].reset_index(drop=True)


def with_sets(about: pd.DataFrame, wanted: Iterable[str]) -> pd.DataFrame:
    """The networks that have all of these training sets, both ways (table of `taught_or_alone`).

    An average over networks of which some were trained on one set alone would weigh that set more.
    All networks, where none has all of these sets.
    """
    ways = about[about["set"].isin(set(wanted))].groupby("network")["column"].nunique()
    kept = about["network"].isin(ways.index[ways == 2 * len(set(wanted))])
    return about[kept].reset_index(drop=True) if kept.any() else about


def variants(outcomes: pd.DataFrame) -> list[str]:
    """Names of the compressed versions in a table of `join`."""
    parts = [column.split("/") for column in outcomes if column.startswith("score_")]
    return sorted({part[3] for part in parts if len(part) == 4})


def _kinds(table: pd.DataFrame, settings: list[dict]) -> pd.Series:
    """The architecture, with whatever else its runs differ in: settings, and the margin loss."""
    kind, by = table["architecture"], table["architecture"]
    keys = dict.fromkeys(key for of_run in settings for key in of_run)
    given = {key: pd.Series([str(of_run.get(key)) for of_run in settings]) for key in keys}
    told = [values.radd(f"{key} ") for key, values in given.items() if key != "size"]
    for values in (*told, table["loss"]):
        several = values.groupby(by).transform("nunique") > 1
        kind = kind.where(~several, kind + " " + values)
    return kind.str.replace("/", " ")  # a slash ends a network's name in a column


def join(
    found: list[Finished], about: pd.DataFrame, teachers: list[Finished]
) -> tuple[pd.DataFrame, pd.Series]:
    """One table of outcomes of all students and their teachers.

    Parameters
    ----------
    found : list of Finished
        The runs of `about`.
    about : pandas.DataFrame
        From `students`.
    teachers : list of Finished
        Runs of `kd_teacher` on the same pairs; may be empty.

    Returns
    -------
    outcomes : pandas.DataFrame
        The pairs' columns, score_NETWORK/SET/TAUGHT of each student, the same with /VARIANT for
        compressed ones, and score_TEACHER/fp32 of each teacher.
    teacher : pandas.Series
        The run's name to its teacher's: the run of `kd_teacher` with the same scores, or
        "teacher of RUN". Students that learnt alone are given the one that most were taught by.

    Raises
    ------
    RunError
        If runs scored different pairs, no student that was taught has its teacher's scores, or one
        network was taught by different teachers on different training sets.
    """
    joined = compare.join_outcomes([*found, *teachers])
    scores = {c.removeprefix("score_"): joined[c] for c in joined if c.startswith("score_")}
    known = {f"{t.name}": scores[f"{t.name}/{FULL}"] for t in teachers}
    columns, teacher = {}, {}
    for row in about.itertuples():
        own = f"{row.run}/"
        variants = [c.removeprefix(own) for c in scores if c.startswith(own)]
        for variant in (v for v in variants if v != TEACHER):
            tail = "" if variant == FULL else f"/{variant}"
            columns[f"score_{row.network}/{row.column}{tail}"] = scores[own + variant]
        if TEACHER in variants:
            teacher[row.run] = _same(scores[own + TEACHER], known, f"teacher of {row.run}")
    if not teacher:
        raise errors.RunError(errors.NO_TEACHER.format(runs=", ".join(about["run"])))
    columns |= {f"score_{name}/{FULL}": values for name, values in known.items()}
    table = joined[[c for c in joined if not c.startswith("score_")]]
    taught = about["run"].map(teacher)
    _check_teachers(about.assign(teacher=taught))
    commonest = taught.mode().iloc[0]
    outcomes = pd.concat([table, pd.DataFrame(columns)], axis=1)
    return outcomes, taught.fillna(commonest).set_axis(about["run"])


def _check_teachers(about: pd.DataFrame) -> None:
    """Refuse a network whose teachers differ between sets: gaps would be ones of teachers too."""
    for _, part in about.dropna(subset="teacher").groupby(["network", "taught"]):
        first, other = part.iloc[0], part[part["teacher"] != part["teacher"].iloc[0]]
        if len(other):
            said = {"network": first["network"], "taught": first["taught"]}
            for key, row in (("first", first), ("other", other.iloc[0])):
                said |= {key: row["run"], f"{key}_teacher": row["teacher"]}
            raise errors.RunError(errors.OTHER_TEACHER.format(**said))


def _same(scores: pd.Series, known: dict[str, pd.Series], name: str) -> str:
    """The known network with these scores; a new one is added to the known."""
    for other, values in known.items():
        if (values - scores).abs().max() <= compare.FP32_ROUNDING:
            return other
    known[name] = scores
    return name


def read(path: str | Path, about: pd.DataFrame, **asked) -> list[Measured]:
    """Decide all pairs for the students of `about`, a `Measured` a network (see `grid.read`)."""
    by = about.groupby("network", sort=False)["column"]
    return [grid.read(path, network, list(columns), **asked) for network, columns in by]


def gains(measured: list[Measured], taught: Iterable[str], reference: str = ALONE) -> list[Row]:
    """Students that were taught so, less those of the same training set that learnt otherwise."""
    rows = []
    for m in measured:
        for name in dict.fromkeys(column.partition("/")[0] for column in m.columns):
            wanted = [f"{name}/{how}" for how in taught]
            rows += grid.differences(m, f"{name}/{reference}", wanted)
    return rows


def other_gains(path: str | Path, about: pd.DataFrame, taught: str, **asked) -> list[Row]:
    """`gains` of every way of teaching but one, less none and less that one.

    Parameters
    ----------
    path : path-like
        The outcomes of `join`.
    about : pandas.DataFrame
        From `students`.
    taught : str
        The one.
    **asked
        rule, resamples and seed, as in `grid.read`.
    """
    rows = []
    for how in dict.fromkeys(about["taught"]):
        if how not in (ALONE, taught):
            sets = about.loc[about["taught"] == how, "set"]
            part = about[about["set"].isin(sets) & about["taught"].isin([ALONE, taught, how])]
            measured = read(path, part, **asked)
            rows += gains(measured, [how]) + gains(measured, [how], taught)
    return rows


def gaps(measured: list[Measured], real: str, taught: Iterable[str]) -> list[Row]:
    """Students of every other training set less those of the real one, taught alike."""
    rows = []
    for m in measured:
        for how in taught:
            alike = [c for c in m.columns if c.partition("/")[2] == how]
            rows += grid.differences(m, f"{real}/{how}", alike)
    return rows


def drops(path: str | Path, about: pd.DataFrame, variants: list[str], **asked) -> list[Row]:
    """Compressed students less the same students in full precision, run by run.

    Parameters
    ----------
    path : path-like
        The outcomes of `join`.
    about : pandas.DataFrame
        From `students`.
    variants : list of str
        Names of compressed versions; a run without one is left out there.
    **asked
        rule, resamples and seed, as in `grid.read`.

    Returns
    -------
    list of Row
        Columns SET/TAUGHT/VARIANT, reference SET/TAUGHT.
    """
    rows, there = [], set(pyarrow.parquet.read_schema(path).names)
    for row in about.itertuples():
        columns = [f"{row.column}/{v}" for v in variants]
        columns = [c for c in columns if f"score_{row.network}/{c}" in there]
        if columns:
            m = grid.read(path, row.network, [row.column, *columns], **asked)
            rows += grid.differences(m, row.column, columns)
    return rows


def on_sets(rows: Iterable[Row]) -> list[Row]:
    """The same rows with each network on each training set as a network of its own.

    SET goes from column and reference into the network's name: "NETWORK on SET".
    """
    found = []
    for row in rows:
        name, column, reference = _split(row)
        given = {"network": f"{row.network} on {name}", "column": column, "reference": reference}
        found.append(row._replace(**given))
    return found


def _split(row: Row) -> tuple[str, str, str]:
    """The training set, and column and reference without it."""
    name, _, column = row.column.partition("/")
    return name, column, row.reference.removeprefix(f"{name}/")


def common_sets(rows: Iterable[Row]) -> list[str]:
    """The training sets on which all networks have such rows; none where they share none."""
    sets = {}
    for row in rows:
        sets.setdefault(row.network, {})[_split(row)[0]] = True
    first, *others = sets.values() or [{}]
    return [name for name in first if all(name in other for other in others)]


def over_sets(rows: Iterable[Row]) -> list[Row]:
    """Each network's mean over the training sets that all networks have; SET goes from the names.

    Trainings of one seed on several sets are no independent ones: averaged, they count once. A set
    that some networks lack would turn a difference of sets into one of networks, so it is left out;
    where no set is common to all, each network counts with its own.
    """

    def what(row: Row) -> tuple:
        return *_split(row)[1:], row.group, row.metric

    found = []
    for key, part in groupby(sorted(rows, key=what), what):
        part = sorted(part, key=lambda row: row.network)
        common = common_sets(part)
        kept = [row for row in part if not common or _split(row)[0] in common]
        for network, own in groupby(kept, lambda row: row.network):
            own = list(own)
            value = float(np.mean([row.value for row in own]))
            draws = np.mean([row.draws for row in own], 0)
            least = float(np.mean([row.least for row in own]))
            found.append(Row(network, *key, value, draws, least))
    return found


def averages(rows: list[Row], about: pd.DataFrame, people: int) -> pd.DataFrame:
    """`grid.averages` of columns SET/...: over networks, and of each training set by itself.

    Parameters
    ----------
    rows : list of Row
        Differences within training sets, such as `gains` or `drops`.
    about : pandas.DataFrame
        From `students`.
    people : int
        People in the smallest group.

    Returns
    -------
    pandas.DataFrame
        As `grid.averages` has it. Averages over all networks and over an architecture are those of
        `over_sets`, so that a kind has as many repeats as seeds, and all have the same sets; those
        over a training set are of the networks on it.
    """
    parts = [grid.averages(over_sets(rows), networks(about), people)]
    own = grid.averages(on_sets(rows), networks_on_sets(about), people)
    return pd.concat([*parts, own[own["over"] == "training set"]], ignore_index=True)


def averages_of_kinds(rows: list[Row], about: pd.DataFrame, people: int) -> pd.DataFrame:
    """`averages` over all networks of each kind, which may have other sets than other kinds.

    Returns
    -------
    pandas.DataFrame
        As `grid.averages` has it, with the column architecture.
    """
    found = [grid.averages([], networks(about), people).assign(architecture="")]
    for _, part in about.groupby("architecture", sort=False):
        own = over_sets(row for row in rows if row.network in set(part["network"]))
        found.append(grid.averages_by("architecture", own, networks(part), people))
    return pd.concat([table for table in found if len(table)] or found, ignore_index=True)


def networks_on_sets(about: pd.DataFrame) -> pd.DataFrame:
    """The networks of `on_sets`, for averages: network, architecture, trained_on (the set)."""
    table = about.assign(network=about["network"] + " on " + about["set"])
    table = table.rename(columns={"set": "trained_on"})
    return table[["network", "architecture", "trained_on"]].drop_duplicates("network")


def networks(about: pd.DataFrame) -> pd.DataFrame:
    """The networks of `read`, for averages; each has all its training sets."""
    table = about.drop_duplicates("network")
    return table[["network", "architecture"]].assign(trained_on=EVERY_SET)


EVERY_SET = "its sets"


def against_alone(rows: list[Row], taught: str, reference: str = ALONE) -> list[Row]:
    """Second differences: rows of students taught so, less those of students that learnt alone.

    Parameters
    ----------
    rows : list of Row
        Columns SET/TAUGHT or SET/TAUGHT/VARIANT, resampled alike.
    taught : str
        How the students were taught.
    reference : str
        What to call what was subtracted.

    Returns
    -------
    list of Row
        Rows without a partner of the same network, set, variant, group and metric are left out.
        Draws are differences of draws: pair noise was mended in each of the two
        (`resampling.dyadic_draws`), not in their difference.
    """

    def key(row: Row, how: str) -> tuple:
        return row.network, row.column.replace(f"/{how}", f"/{ALONE}", 1), row.group, row.metric

    partner = {key(row, ALONE): row for row in _taught(rows, ALONE)}
    found = []
    for row in _taught(rows, taught):
        other = partner.get(key(row, taught))
        if other is not None:
            with np.errstate(invalid="ignore"):  # a ratio to no error has no difference
                value, draws = row.value - other.value, row.draws - other.draws
            given = {"value": value, "draws": draws, "least": max(row.least, other.least)}
            found.append(row._replace(reference=reference, **given))
    return found


def _taught(rows: Iterable[Row], how: str) -> list[Row]:
    return [row for row in rows if row.column.split("/")[1] == how]


class Share(NamedTuple):
    """A ratio of two averages with its interval (95 %); NaN where the gap itself is not resolved.

    `repeats` as in `grid.averages`.
    """

    value: float
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float
    networks: int
    repeats: int

    @property
    def defined(self) -> bool:
        """Whether there is a gap, so that a share of it means something."""
        return bool(np.isfinite(self.value))


def share_closed(
    gain: list[Row], gap: list[Row], about: pd.DataFrame, people: int, level: float = 0.95
) -> Share:
    """What share of a gap a gain makes up for, by Fieller's method.

    The ratio of the two averages over networks, and all ratios r for which gain - r gap is not told
    from 0: test people and trainings count as in `grid.estimate`, each with its own quantile, and
    the covariance of gain and gap within both. If the gap is not told from 0, no ratio can be ruled
    out, and none is given. Source: Fieller 1954, "Some problems in interval estimation".

    Parameters
    ----------
    gain, gap : list of Row
        A row a network each, resampled alike; only networks that have both count. The gap is
        positive where there is something to close.
    about : pandas.DataFrame
        network, architecture, trained_on.
    people : int
        People in the smallest group.
    level : float
        Of the interval.

    Returns
    -------
    Share
        Not defined either where the gap is negative: then there is nothing to close.
    """
    of_gain, of_gap = ({row.network: row for row in rows} for rows in (gain, gap))
    names = [name for name in of_gap if name in of_gain]
    both = [[of[name] for name in names] for of in (of_gain, of_gap)]
    kinds = about.set_index("network").loc[names, ["architecture", "trained_on"]]
    kinds = kinds.agg("/".join, axis=1).to_numpy()
    found = [grid.estimate(rows, kinds, people) for rows in both] if names else []
    if not found or not all(np.isfinite(one.value) for one, _ in found):
        return Share(*[np.nan] * 6, len(names), 0)
    (n, repeats), (d, _) = found
    t = special.stdtrit([d.test_df, d.runs_df], 1 - (1 - level) / 2)
    drawn = np.cov([np.mean([row.draws for row in rows], 0) for rows in both], bias=True)
    own = _within([[row.value for row in rows] for rows in both], kinds) / max(repeats, 1)
    spread = t[0] ** 2 * drawn + t[1] ** 2 * own / len(names)  # (2, 2)
    spread[[0, 1], [0, 1]] = [t[0] ** 2 * e.test + t[1] ** 2 * e.runs for e, _ in found]
    size, product = d.value**2 - spread[1, 1], n.value * d.value - spread[0, 1]
    gap_ends = d.interval(level)
    if size <= 0 or d.value <= 0:
        return Share(np.nan, np.nan, np.nan, d.value, *gap_ends, len(names), repeats)
    root = np.sqrt(max(product**2 - size * (n.value**2 - spread[0, 0]), 0.0))
    ends = (product - root) / size, (product + root) / size
    return Share(n.value / d.value, *map(float, ends), d.value, *gap_ends, len(names), repeats)


def _within(values, kinds: np.ndarray) -> np.ndarray:
    """Sums of products (K, K) of K quantities (K, N) about the means of their kinds."""
    values = np.asarray(values)
    codes = np.unique(kinds, return_inverse=True)[1]
    own = np.stack([(np.bincount(codes, v) / np.bincount(codes))[codes] for v in values])
    return (values - own) @ (values - own).T


def shares_closed(
    gain: list[Row], gap: list[Row], about: pd.DataFrame, people: int
) -> pd.DataFrame:
    """`share_closed` of each group's accuracy, that of all, and the worst group's.

    Returns
    -------
    pandas.DataFrame
        group (`ALL` for all together), metric, and the fields of `Share`.
    """

    def what(row):
        return row.group, row.metric

    partner = {key: list(part) for key, part in groupby(sorted(gain, key=what), what)}
    rows = []
    for key, part in groupby(sorted(gap, key=what), what):
        if key[1] not in grid.SPREADS and key in partner:
            found = share_closed(partner[key], list(part), about, people)
            rows.append(dict(zip(("group", "metric"), key, strict=True)) | found._asdict())
    table = pd.DataFrame(rows, columns=["group", "metric", *Share._fields])
    return table.sort_values(["metric", "group"], key=_all_first, kind="stable")


def _all_first(values: pd.Series) -> pd.Series:
    return values.replace({ALL: "", "accuracy": ""})


def negated(rows: Iterable[Row]) -> list[Row]:
    """The same differences the other way round."""
    return [row._replace(value=-row.value, draws=-row.draws) for row in rows]


def picked(rows: Iterable[Row], **fields: str) -> list[Row]:
    """The rows with these fields, such as metric="accuracy"."""
    return [row for row in rows if all(getattr(row, k) == v for k, v in fields.items())]


def average(rows: list[Row], about: pd.DataFrame, people: int) -> Estimate:
    """One quantity's average over networks, with both sources of chance (`grid.estimate`)."""
    kinds = about.set_index("network").loc[[row.network for row in rows]]
    kinds = kinds[["architecture", "trained_on"]].agg("/".join, axis=1).to_numpy()
    return grid.estimate(rows, kinds, people)[0]


# --- what a student inherits ---

INHERITED = ("agreement", "kappa", "shared", "repeated")


def agreements(m: Measured, others: dict[str, np.ndarray], reference: str = "") -> list[Row]:
    """How a student's decisions agree with another network's, each at its own threshold.

    Four quantities, of each group and of all together:

    - agreement: the share of pairs that both decide alike (and so both rightly, or both wrongly);
    - kappa: agreement beyond what the two accuracies imply, 0 if errors fall independently and 1 if
      they are the same, with the agreement to expect worked out for genuine and impostor pairs of
      each group apart (error consistency; Geirhos, Meding and Wichmann 2020);
    - shared: kappa as a share of the largest that the two accuracies allow, 1 if all errors of the
      one are among the other's: kappa itself rises when accuracies come closer;
    - repeated: the share of the other's errors that the student makes too.

    Parameters
    ----------
    m : Measured
        The student's columns.
    others : dict of str to numpy.ndarray
        Column to the errors, bool (N,), of the network that it is compared with.
    reference : str
        What stands as the rows' reference.

    Returns
    -------
    list of Row
        Draws resample people, as everywhere; noise of single pairs is not taken out of impostor
        pairs, which makes intervals a little wide. Undefined (NaN) where neither errs, or the other
        never does.
    """
    o, groups = m.outcomes, len(m.outcomes.groups)
    inside = np.flatnonzero(o.group >= 0)
    cell = o.group[inside].astype(np.int64) * 2 + o.truth[inside]
    rows = []
    for column, other in others.items():
        own = m.wrong[m.columns.index(column)]
        picks = [np.ones_like(own), own, other, own & other]
        at = [[part[pick[part]] for part in (inside[i] for i in split(cell, 2 * groups))]
              for pick in picks]  # fmt: skip
        flat = [positions for parts in at for positions in parts]
        drawn = people_sums(o, flat, m.resamples, m.seed).reshape(m.resamples, 4, groups, 2)
        seen = np.array([len(positions) for positions in flat], float).reshape(4, groups, 2)
        sets = [(ALL, slice(None)), *((name, slice(g, g + 1)) for g, name in enumerate(o.groups))]
        for group, part in sets:
            values, draws = (_agreed(x[..., part, :]) for x in (seen, drawn))
            least = float(uncertainty.wilson(0, seen[0, part].sum())[1])
            for metric, value, draw in zip(INHERITED, values, draws, strict=True):
                told = (m.network, column, reference, group, metric)
                rows.append(Row(*told, float(value), draw, least))
    return rows


def _agreed(counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Agreement, kappa, shared and repeated errors (...) from counts (..., 4, G, K).

    The four are pairs, own errors, the other's, and those of both.
    """
    n, own, other, both = np.moveaxis(counts, -3, 0)  # (..., G, K)
    chance = np.where(n > 0, divide(own * other, n), 0)  # errors of both, if they were independent
    total, apart, by_chance, repeats, of_other, most = (
        x.sum((-2, -1)) for x in (n, own + other, chance, both, other, np.minimum(own, other))
    )
    return (
        divide(total - apart + 2 * repeats, total),
        divide(2 * (repeats - by_chance), apart - 2 * by_chance),
        divide(repeats - by_chance, most - by_chance),
        divide(repeats, of_other),
    )


def teachers(path: str | Path, teacher: pd.Series, others: Iterable[str] = (), **asked) -> dict:
    """Every teacher of `join` (and others of `kd_teacher`) by name, as a `Measured`."""
    names = dict.fromkeys([*teacher, *others])
    return {name: grid.read(path, name, [FULL], **asked) for name in names}


def with_teachers(
    measured: list[Measured], about: pd.DataFrame, teacher: pd.Series, known: dict[str, Measured]
) -> list[Row]:
    """`agreements` of every student with its teacher (`teacher` of `join`, known of `teachers`)."""
    rows = []
    for m in measured:
        own = about[about["network"] == m.network]
        who = dict(zip(own["column"], own["run"].map(teacher), strict=True))
        rows += agreements(m, {column: known[who[column]].wrong[0] for column in m.columns})
    return rows


def between_teachers(known: dict[str, Measured]) -> list[Row]:
    """`agreements` of the first teacher with each other one; the column names that one."""
    (_, first), *rest = known.items()
    rows = []
    for name, other in rest:
        found = agreements(first, {FULL: other.wrong[0]})
        rows += [row._replace(column=name) for row in found]
    return rows


def with_other_seeds(measured: list[Measured], about: pd.DataFrame) -> list[Row]:
    """`agreements` of every student with the same student of the next seed: what to compare with.

    Networks occur in two rows each, so their average's interval over trainings is a rough one.
    """
    kind = networks(about).set_index("network")["architecture"]
    rows = []
    measured = sorted(measured, key=lambda m: kind[m.network])  # runs may be listed by seed
    for _, part in groupby(measured, lambda m: kind[m.network]):
        part = list(part)
        pairs = zip(part, [*part[1:], part[0]], strict=True) if len(part) > 1 else ()
        for m, other in list(pairs)[: 1 if len(part) == 2 else None]:
            both = [c for c in m.columns if c in other.columns]
            rows += agreements(m, {c: other.wrong[other.columns.index(c)] for c in both})
    return rows
