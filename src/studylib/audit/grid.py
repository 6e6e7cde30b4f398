"""Many networks, each with its columns of scores: what changes from column to column, on average?

A network's columns are the full-precision one and those of its quantised versions. An effect is a
difference of two columns of one network on the same pairs, under one threshold rule; an average is
over networks. Two sources of chance are kept apart, as in `published.Estimate`:

- **test people**: others would have given other differences. All networks and columns see the same
  resampled people, so the variance is that of the average's own draws.
- **trainings**: the same recipe with another seed gives another network. Networks of one kind (of
  one architecture and training set) differ by that alone; their differences' variance s^2, pooled
  over kinds, counts as s^2 / N in the average of N networks. Kinds of one network are taken to vary
  as the others do. Where no kind has two, nothing is known, and the average holds for its networks;
  over some of the networks it is then shown and not tested, since their trainings do vary.

Noise of a pair that is one network's alone is in both parts, so their sum is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet

from studylib import errors, published
from studylib.audit import compare, frames, measure, table
from studylib.audit.compare import Errors
from studylib.compare import source_of
from studylib.metrics import fairness, testing, thresholds, uncertainty
from studylib.metrics.arrays import divide
from studylib.published import Estimate
from studylib.runs import Finished

# At a stated FMR a resample's own threshold would have to be followed (`compare.rechosen`).
COMMON = ("global_best_accuracy", "global_best_accuracy_minus_std")  # one threshold for everybody
RULES = (*COMMON, measure.OWN)  # chance in choosing own thresholds is in no interval
REFERENCE = published.BASELINE  # the full-precision column
ALL = "all"  # all groups together, all networks together
SPREADS = ("std", "ser")
_Z = 1.959963984540054  # two-sided 95 % point of the normal distribution


class Measured(NamedTuple):
    """One network's columns on the same pairs, decided under one rule."""

    network: str
    outcomes: table.Outcomes
    wrong: np.ndarray  # bool (S, N)
    rule: str
    resamples: int
    seed: int

    @property
    def columns(self) -> list[str]:
        """The columns' names without the network's, the full-precision one first."""
        return [name.removeprefix(f"score_{self.network}/") for name in self.outcomes.outputs]

    @property
    def people(self) -> int:
        """People in the smallest group."""
        o = self.outcomes
        sides = [side for side in (o.subject_a, o.subject_b) if side is not None]
        return min(
            len(np.unique(np.concatenate([side[o.group == g] for side in sides])))
            for g in range(len(o.groups))
        )

    def errors(self, *columns: str) -> Errors:
        """Count and resample these columns; differences are from the first."""
        rows = self.wrong[[self.columns.index(name) for name in columns]]
        kind = self.outcomes.truth.astype(np.int64)
        given = (2, self.resamples, self.seed)
        return compare.resampled(self.outcomes, {self.rule: rows}, kind, *given)[self.rule]


class Row(NamedTuple):
    """A quantity of a column, or its difference from a reference, in the set and in resamples."""

    network: str
    column: str
    reference: str  # "" for the column's own value
    group: str  # ALL for all groups together
    metric: str
    value: float  # a fraction; SER has no unit
    draws: np.ndarray  # (resamples,)
    least: float  # half the width that an interval has even if no row changed sides


def read(
    path: str | Path, network: str, columns: list[str], *, rule: str, resamples: int, seed: int
) -> Measured:
    """Read one network's columns and decide all pairs under a rule, each column by itself.

    Parameters
    ----------
    path : path-like
        A table of pairs with score_NETWORK/COLUMN columns, as `compare.join_networks` makes them.
    network : str
        The network's name.
    columns : list of str
        The columns to read, the full-precision one first.
    rule : str
        One of `RULES`.
    resamples, seed : int
        Resamples of people within their groups (of pairs, where people are not known), and their
        seed: with the same pairs and the same seed all networks see the same people.

    Raises
    ------
    DataError
        If the table does not fit, or names fewer than two groups.
    ParameterError
        If the rule is unknown or there are fewer than 100 resamples.
    """
    errors.one_of("threshold rule", rule, RULES)
    errors.at_least(100, resamples=resamples)
    errors.at_least(0, seed=seed)
    roles = table.Roles(score=[f"score_{network}/{column}" for column in columns])
    o = table.read(path, roles)
    if len(o.groups) < 2:
        raise errors.DataError(errors.ONE_GROUP.format(source=path, group=o.groups[0]))
    if o.subject_a is None:  # a person a pair, so that networks see the same resampled pairs
        o = o._replace(subject_a=np.arange(len(o.truth)), n_subjects=len(o.truth))
    wrong = [
        thresholds.decide(rule, scores, o.truth, o.group).accepted != o.truth
        for scores in o.outputs.values()
    ]
    return Measured(network, o, np.stack(wrong), rule, resamples, seed)


def read_all(path: str | Path, *, rule: str, resamples: int, seed: int) -> list[Measured]:
    """Read every network of a table of `compare.join_networks`, as `read` does."""
    columns: dict[str, list[str]] = {}
    for name in pyarrow.parquet.read_schema(path).names:
        if name.startswith("score_"):
            network, _, column = name.removeprefix("score_").partition("/")
            columns.setdefault(network, []).append(column)
    given = {"rule": rule, "resamples": resamples, "seed": seed}
    return [read(path, network, of, **given) for network, of in columns.items()]


def levels(m: Measured) -> list[Row]:
    """Every column's accuracy (of all, of each group), worst group, STD and SER.

    Returns
    -------
    list of Row
        With an empty `reference`.
    """
    found = m.errors(*m.columns)
    accuracy = found.accuracy(found.rate)  # (S, G)
    drawn = found.accuracy(found.draws)  # (R, S, G)
    return [
        Row(m.network, column, "", *row)
        for s, column in enumerate(m.columns)
        for row in _quantities(m, found.n.sum(-1), accuracy[s], drawn[:, s])
    ]


def differences(m: Measured, reference: str, columns: Iterable[str]) -> list[Row]:
    """Columns minus a reference column, in the quantities of `levels`.

    Draws are of the reference and of the paired moves, as an audit's differences have them.

    Returns
    -------
    list of Row
        Empty if the network lacks the reference; columns that it lacks are left out.
    """
    others = [c for c in columns if c in m.columns and c != reference]
    if reference not in m.columns or not others:
        return []
    found = m.errors(reference, *others)
    n, first = found.n.sum(-1), found.draws[:, 0]
    before = list(_quantities(m, n, found.accuracy(found.rate[0]), found.accuracy(first)))
    rows = []
    for s, column in enumerate(others, 1):
        moved = found.accuracy(first + found.moves[:, s])
        after = _quantities(m, n, found.accuracy(found.rate[s]), moved)
        for (group, metric, value, drawn, least), old in zip(after, before, strict=True):
            with np.errstate(invalid="ignore"):  # a ratio to no error has no difference
                change = (value - old[2], drawn - old[3], max(least, old[4]))
            rows.append(Row(m.network, column, reference, group, metric, *change))
    return rows


def between_sources(m: Measured, real: str) -> list[Row]:
    """Every other source minus one source, by the same method at each precision both have."""
    told = {c: _told(c) for c in m.columns if "/" in c}
    rows = []
    for reference, (faces, how) in told.items():
        if faces == real:
            rows += differences(m, reference, [c for c, other in told.items() if other[1] == how])
    return rows


def _told(column: str) -> tuple[str, str]:
    """The faces of a column SOURCE/PRECISION, and how they were used: METHOD/PRECISION."""
    faces, _, how = column.partition("/")[0].partition(" ")
    return faces, f"{how}/{column.partition('/')[2]}"


def _quantities(m: Measured, n: np.ndarray, accuracy: np.ndarray, drawn: np.ndarray):
    """Yield group, metric, value, draws and least of accuracies (G,) with draws (R, G)."""
    groups, smallest = m.outcomes.groups, uncertainty.wilson(0, n.min())[1]
    weight = n / n.sum()
    yield ALL, "accuracy", accuracy @ weight, drawn @ weight, uncertainty.wilson(0, n.sum())[1]
    error = 1 - accuracy.max()
    least = {  # one group's accuracy moves by `smallest`
        "worst": smallest,
        "std": smallest * np.sqrt(len(n) - 1) / len(n),
        "ser": float(divide(fairness.ser(accuracy) * smallest, error)),
    }
    for metric, size in least.items():
        compute = fairness.METRICS[metric].compute
        # a reference's draw and a move of its own may add up to more than all, which has no ratio
        seen = np.clip(drawn, 0, 1) if metric == "ser" else drawn
        yield ALL, metric, float(compute(accuracy)), compute(seen), size
    for g, group in enumerate(groups):
        yield group, "accuracy", accuracy[g], drawn[:, g], uncertainty.wilson(0, n[g])[1]


def panel(m: Measured) -> pd.DataFrame:
    """STD and SER of every column with interval and null band, as an audit has them.

    Returns
    -------
    pandas.DataFrame
        `network`, `column`, `metric` (std or ser), `value`, `low`, `high`, and `null_low`,
        `null_median`, `null_high`, what equal groups of these sizes would show (95 %); STD in
        percentage points. Undefined values are left out.
    """
    found = measure.by_column(m.errors(*m.columns), m.outcomes.groups, measure.TRADED, m.seed)
    rules = {c: part | {"label": c} for c, part in zip(m.columns, found, strict=True)}
    shown = frames.panel(rules)[0]
    shown = shown[shown["key"].isin(SPREADS)].drop(columns=["series", "metric"])
    shown = shown.rename(columns={"rule": "column", "key": "metric"}).reset_index(drop=True)
    return shown.assign(network=m.network)


def by_network(rows: list[Row]) -> pd.DataFrame:
    """Each network's own quantities with the intervals (95 %) of an audit's differences.

    Returns
    -------
    pandas.DataFrame
        network, column, reference, group, metric, value, low, high; recentred draws, and never
        narrower than for no row changing sides.
    """
    told = []
    for row in rows:
        low, high = uncertainty.bounds(row.draws, row.value, method="recentred")
        low, high = min(low, row.value - row.least), max(high, row.value + row.least)
        told.append((*row[:6], low, high))
    names = ["network", "column", "reference", "group", "metric", "value", "low", "high"]
    return pd.DataFrame(told, columns=names)


def averages(rows: list[Row], networks: pd.DataFrame, people: int) -> pd.DataFrame:
    """Average quantities over networks: all of them, those of an architecture, of a training set.

    Parameters
    ----------
    rows : list of Row
        From `levels` or `differences`, of several networks.
    networks : pandas.DataFrame
        A row a network: network, architecture, trained_on.
    people : int
        People in the smallest group, behind the degrees of freedom of the test people's part.

    Returns
    -------
    pandas.DataFrame
        `over` ("all networks", "architecture" or "training set"), `of` (which), column, reference,
        group, metric, `networks` (how many), `repeats` (how many of them repeat a kind with another
        seed: degrees of freedom; 0: the intervals hold test people alone), value, low, high,
        people_low, people_high (95 %, of test people alone), p (two-sided, that a difference is 0;
        NaN for a column's own value, and over some of the networks if `repeats` is 0). Undefined
        where a network's value is.
    """
    about = networks.drop_duplicates("network").set_index("network")
    rows = sorted(rows, key=_what)
    found = []
    for what, part in groupby(rows, _what):
        part = list(part)
        for over, of, chosen in _sets(part, about):
            kinds = about.loc[[row.network for row in chosen], ["architecture", "trained_on"]]
            both, repeats = estimate(chosen, kinds.agg("/".join, axis=1).to_numpy(), people)
            alone = both._replace(runs=0.0).interval()
            numbers = (both.value, *both.interval(), *alone)
            tested = what[1] and np.isfinite(both.value) and (repeats or over == _EVERY)
            p = both.p() if tested else np.nan
            found.append((over, of, *what, len(chosen), repeats, *numbers, p))
    found = pd.DataFrame(found, columns=AVERAGES)
    found[_NUMBERS] = found[_NUMBERS].round(12) + 0.0  # sums leave 1e-17 where nothing changed
    return split(found)


_NUMBERS = ["value", "low", "high", "people_low", "people_high"]
AVERAGES = ["over", "of", "column", "reference", "group", "metric", "networks", "repeats"]
AVERAGES += [*_NUMBERS, "p"]
_EVERY = "all networks"
_OVER = {"architecture": "architecture", "trained_on": "training set"}


def split(found: pd.DataFrame) -> pd.DataFrame:
    """Split `column` (SOURCE/PRECISION, or a precision) into `source` and `precision`."""
    parts = found["column"].str.rpartition("/").reindex(columns=range(3))  # none, of no rows
    return found.assign(source=parts[0], precision=parts[2])


def _what(row: Row) -> tuple[str, str, str, str]:
    return row.column, row.reference, row.group, row.metric


def _sets(rows: list[Row], about: pd.DataFrame):
    """Yield what is averaged over, which, and its rows; a set that is all networks comes once."""
    yield _EVERY, ALL, rows
    for column, over in _OVER.items():
        names = [about.loc[row.network, column] for row in rows]
        for name in dict.fromkeys(names) if len({*names}) > 1 else ():
            yield over, name, [row for row, own in zip(rows, names, strict=True) if own == name]


def estimate(rows: list[Row], kinds: np.ndarray, people: int) -> tuple[Estimate, int]:
    """Average one quantity over networks, with the variance of both sources of chance.

    Parameters
    ----------
    rows : list of Row
        One a network, of the same quantity; resampled alike.
    kinds : numpy.ndarray
        (N,) each network's kind: what does not change when it is trained again.
    people : int
        People in the smallest group.

    Returns
    -------
    estimate : published.Estimate
        Not a number where a value is not finite, or more than one draw in twenty is not.
    repeats : int
        Degrees of freedom of the trainings' part; 0 if nothing is known of it.
    """
    values = np.array([row.value for row in rows])
    drawn = np.mean([row.draws for row in rows], 0)  # (R,)
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(values).all() or len(known) < 0.95 * len(drawn):
        return Estimate(np.nan, np.nan, np.nan, 1.0), 0
    least = np.mean([row.least for row in rows]) / _Z
    codes = np.unique(kinds, return_inverse=True)[1]
    own = (np.bincount(codes, values) / np.bincount(codes))[codes]  # (N,) the mean of its kind
    repeats = len(values) - len(np.unique(codes))
    of_runs = ((values - own) ** 2).sum() / max(repeats, 1) / len(values)
    of_test = float(max(known.var(), least**2))
    df = (max(people - 1, 1), repeats or 1e9)
    return Estimate(float(values.mean()), of_test, float(of_runs), *df), repeats


def averages_by(column: str, rows: list[Row], networks: pd.DataFrame, people: int) -> pd.DataFrame:
    """`averages` over all networks of each value of a column of `networks`, which is added.

    Unlike the sets of `averages` they are there for a single value as well.
    """
    parts = []
    for name, part in networks.groupby(column, sort=False):
        own = [row for row in rows if row.network in set(part["network"])]
        found = averages(own, networks, people)
        parts.append(found[found["over"] == _EVERY].assign(**{column: name}))
    return pd.concat(parts, ignore_index=True)


def corrected(found: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's correction to averages of differences, within four families.

    Averages over all networks (that have the column) are what was asked; those over some networks
    say where it is found.
    Either has the family of the spreads (STD, SER) and that of the accuracies (of all, worst
    group). Single groups are shown, and not tested; nor is what has no p.

    Returns
    -------
    pandas.DataFrame
        The rows of all groups together, with `family` (its name), `tests` (its size), `p_holm`.
    """
    kept = found[found["group"] == ALL].reset_index(drop=True)
    over = np.where(kept["over"] == _EVERY, _EVERY, "some networks")
    what = np.where(kept["metric"].isin(SPREADS), "STD and SER", "accuracies")
    kept["family"] = [f"{a}, {b}" for a, b in zip(over, what, strict=True)]
    by = kept.groupby("family")["p"]
    return kept.assign(
        tests=by.transform("count").astype(int),
        p_holm=by.transform(lambda p: testing.holm(p.to_numpy(float))).astype(float),
    )


def mean_panels(panels: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Average `panel`s over the networks of each training set that have the column.

    Ends of intervals and bands are averaged as values are, as if chance had moved all networks
    alike: it may move them apart, and the average less.

    Returns
    -------
    pandas.DataFrame
        trained_on, column, source, precision, metric, the columns of `panel`, and `networks`.
    """
    about = networks.drop_duplicates("network")[["network", "trained_on"]]
    by = panels.merge(about, on="network").groupby(["trained_on", "column", "metric"], sort=False)
    numbers = ["value", "low", "high", "null_low", "null_median", "null_high"]
    found = by[numbers].mean().assign(networks=by["network"].nunique()).reset_index()
    return split(found)


def noise(panels: pd.DataFrame, reference: str) -> pd.DataFrame:
    """How much of STD and SER is noise: values against what equal groups would show.

    Parameters
    ----------
    panels : pandas.DataFrame
        From `panel`, of several networks.
    reference : str
        The full-precision column.

    Returns
    -------
    pandas.DataFrame
        A row a column and metric: networks, `within` (networks whose value is within its null
        band), value and null_median (means), `share` (what the null median is of the value, from
        the metric's fairest on), `change` and `null_change` (of both, from the reference's, over
        the networks that have both), and `excess`, their difference. Noise adds in squares, so
        where groups truly differ it explains less of a change than null_change.
    """
    inside = panels["value"] <= panels["null_high"]
    fairest = panels["metric"].map({name: fairness.METRICS[name].best for name in SPREADS})
    given = panels.assign(within=inside, above=panels["value"] - fairest)
    given["chance"] = given["null_median"] - fairest
    first = given[given["column"] == reference].set_index(["network", "metric"])
    at = pd.MultiIndex.from_frame(given[["network", "metric"]])
    for name, of in (("change", "value"), ("null_change", "null_median")):
        given[name] = given[of].to_numpy() - first[of].reindex(at).to_numpy()
    found = given.groupby(["metric", "column"], sort=False).agg(
        networks=("network", "nunique"),
        within=("within", "sum"),
        **{name: (name, "mean") for name in ("value", "null_median", "above", "chance")},
        **{name: (name, "mean") for name in ("change", "null_change")},
    )
    found["share"] = divide(found["chance"].to_numpy(), found["above"].to_numpy())
    found["excess"] = found["change"] - found["null_change"]
    return split(found.drop(columns=["above", "chance"]).reset_index())


def benchmarks(runs: list[Finished]) -> pd.DataFrame:
    """Accuracies of runs on the verification benchmarks, by their ten-fold protocol.

    Parameters
    ----------
    runs : list of Finished
        Runs of `fr_quantization`; those on other sets (parameter eval_set) are left out.

    Returns
    -------
    pandas.DataFrame
        network, architecture, source, precision, benchmark, accuracy; all pairs are one group.
    """
    rows = []
    for run in (run for run in runs if run.parameters["eval_set"] in published.PAIRS):
        about = run.table("network").iloc[0][["network", "architecture"]].to_dict()
        about |= {"source": source_of(run)}
        genuine = run.outcomes["genuine"].to_numpy(bool)
        group = np.zeros(len(genuine), np.int64)
        for column in (c for c in run.outcomes if c.startswith("score_")):
            scores = run.outcomes[column].to_numpy(float)
            right = thresholds.decide("per_group_10fold", scores, genuine, group).accepted
            told = {"precision": column.removeprefix("score_")}
            told |= {"benchmark": run.parameters["eval_set"]}
            rows.append(about | told | {"accuracy": float((right == genuine).mean())})
    names = ["network", "architecture", "source", "precision", "benchmark", "accuracy"]
    return pd.DataFrame(rows, columns=names)
