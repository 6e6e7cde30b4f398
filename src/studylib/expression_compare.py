"""Several runs of one experiment on expressions, side by side on the same test pictures.

A run trains its networks with a seed of its own; all runs are judged on the same pictures of the
same people. Two kinds of chance follow, as in `studylib.published`, and outcomes of single pictures
tell more of them than published counts do. Write whether picture i is right in run r as

    mean + (picture i, with its person) + (run r) + (what this run makes of this picture).

- **test set**: other people would have been other pictures. People are resampled within their
  group, all variants and runs on the same draws. The covariance of two runs' draws holds the first
  part alone: their mean covariance is the variance that no number of runs shrinks.
- **runs**: the recipe trained again gives another network: s^2 / R over R runs, which holds the
  second and the third part. How much runs move the groups *apart* is pooled over the groups, each
  weighted by its pictures, so that four groups and three runs give 6 degrees of freedom and not 2.
  Recalls are pooled within each expression: a run that learns one of them better does so in all
  groups, and no other expression tells how much.

Both parts go into `published.Estimate`, where each keeps its own Student's t. Few runs may happen
to agree, so together they are never below the variance of the resampled mean over the runs, which
holds the first and the third part and is known well. A single run has no run part: its intervals
then speak of that one network, and the tables say `runs` 1.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from studylib import errors, published
from studylib.faces import GROUP_COLUMNS
from studylib.metrics import intervals, resampling, testing, uncertainty
from studylib.metrics.arrays import divide
from studylib.published import Estimate

ALL = "everybody"
NO_CLASS = ""  # of a cell that holds every expression
UNSURE = "unsure"  # a label for people whom nobody could put into a group: counted in no group


def resolved(p):
    """Whether a p-value, or each of an array or column of them, is at the level: p <= 5 %."""
    return p <= testing.ALPHA


class Joined(NamedTuple):
    """Runs that were judged on the same pictures, N pictures and R runs.

    Attributes
    ----------
    items : pandas.DataFrame
        One row a picture: item, subject, label (a class code), and any group columns.
    runs : list of str
        The R runs' names.
    predicted : dict of str to numpy.ndarray
        Variant -> int64 (R, N) class codes; only variants that every run made.
    confidence : dict of str to numpy.ndarray
        Variant -> float64 (R, N), 0 to 1; without the variants that have none.
    left_out : list of str
        Variants that some run did not make.
    """

    items: pd.DataFrame
    runs: list[str]
    predicted: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    left_out: list[str]

    @property
    def columns(self) -> list[str]:
        """The group columns that can be compared: two to ten groups with somebody in each."""
        return [c for c in GROUP_COLUMNS if 2 <= len(self.groups(c)) <= uncertainty.MOST_GROUPS]

    def groups(self, column: str) -> list[str]:
        """The names of a column's groups, sorted; nobody who is in none or `unsure`."""
        if column not in self.items:
            return []
        return sorted(set(self.items[column].dropna().astype(str)) - {UNSURE})

    def right(self, variant: str) -> np.ndarray:
        """Which pictures a variant gets right, bool (R, N)."""
        errors.one_of("variant", variant, self.predicted)
        return self.predicted[variant] == self.items["label"].to_numpy()


def join(tables: dict[str, pd.DataFrame]) -> Joined:
    """Put the outcomes of several runs together, picture by picture.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        Run -> outcomes: item (unique), subject, label, any of gender, race, age, group, and
        predicted_<variant> and confidence_<variant> columns. Rows may be in any order.

    Raises
    ------
    DataError
        If there is no table, a column is missing, two runs judged other pictures, or no variant was
        made by all of them.
    """
    if not tables:
        raise errors.DataError(errors.NO_TABLES)
    first_name, first = next(iter(tables.items()))
    aligned = {}
    for name, table in tables.items():
        problem = _problem(table)
        if problem:
            raise errors.DataError(errors.NOT_OUTCOMES.format(name=name, problem=problem))
        rows = table.set_index("item").reindex(first["item"])
        if len(table) != len(first) or not np.array_equal(rows["label"], first["label"]):
            raise errors.DataError(errors.OTHER_PICTURES.format(first=first_name, other=name))
        aligned[name] = rows
    every = dict.fromkeys(
        c.removeprefix("predicted_")
        for t in tables.values()
        for c in t
        if c.startswith("predicted_")
    )
    shared = [v for v in every if all(f"predicted_{v}" in t for t in tables.values())]
    if not shared:
        raise errors.DataError(errors.NO_SHARED_VARIANT.format(runs=", ".join(tables)))
    sure = [v for v in shared if all(f"confidence_{v}" in t for t in tables.values())]

    def stacked(kind: str, variants: list[str], dtype) -> dict[str, np.ndarray]:
        return {
            v: np.stack([t[f"{kind}_{v}"].to_numpy(dtype) for t in aligned.values()])
            for v in variants
        }

    kept = ["item", "subject", "label", *(c for c in GROUP_COLUMNS if c in first)]
    return Joined(
        first[kept].reset_index(drop=True),
        list(tables),
        stacked("predicted", shared, np.int64),
        stacked("confidence", sure, np.float64),
        [v for v in every if v not in shared],
    )


def _problem(table: pd.DataFrame) -> str:
    missing = [c for c in ("item", "subject", "label") if c not in table]
    if missing:
        return f"there is no column {missing[0]}"
    if not any(c.startswith("predicted_") for c in table):
        return "there is no column predicted_<variant>"
    return "an item comes twice" if table["item"].duplicated().any() else ""


class Drawn(NamedTuple):
    """Accuracies by variant, run and group, in the set itself and in resamples of its people.

    Attributes
    ----------
    column : str
        The group column, or "" for everybody together.
    cells : list of tuple of str
        G pairs: group, and class or `NO_CLASS`.
    n, people : numpy.ndarray
        (G,) pictures and people behind each accuracy.
    variants : list of str
        V names.
    values : numpy.ndarray
        float64 (V, R, G), fractions.
    draws : numpy.ndarray
        float64 (resamples, V, R, G); NaN where a resample left a group without a picture.
    """

    column: str
    cells: list[tuple[str, str]]
    n: np.ndarray
    people: np.ndarray
    variants: list[str]
    values: np.ndarray
    draws: np.ndarray

    @property
    def groups(self) -> list[str]:
        """G names for people; with classes "group, class"."""
        return [f"{group}, {one}" if one else group for group, one in self.cells]

    @property
    def classes(self) -> np.ndarray:
        """Which class each cell is of, int (G,), numbered as they come; all 0 without classes."""
        return pd.factorize(np.array([one for _, one in self.cells]))[0]

    def accuracy(self, variant: str) -> np.ndarray:
        """(G,) mean over the runs."""
        return self.values[self._at(variant)].mean(0)

    def change(self, variant: str, control: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Values (R, G) and draws (resamples, R, G) of a variant, less those of its control."""
        at = self._at(variant)
        values, draws = self.values[at], self.draws[:, at]
        if control is None:
            return values, draws
        under = self._at(control)
        return values - self.values[under], draws - self.draws[:, under]

    def least(self, variant: str) -> np.ndarray:
        """(G,) variance of the test set that no change of these accuracies is below."""
        at = self._at(variant)
        return least(self.n, self.people, self.values[at], self.draws[:, at])

    def _at(self, variant: str) -> int:
        errors.one_of("variant", variant, self.variants)
        return self.variants.index(variant)


def resample(
    joined: Joined,
    column: str | None = None,
    *,
    variants: list[str] | None = None,
    classes: list[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Drawn:
    """Accuracy of each variant in each group and run, and in resamples of the people.

    Source: the bootstrap of people (`resampling.cluster_sums`), drawn within their group; spread
    by S / (S - 1) in variance, which drawing from S people lacks (Rao and Wu 1988).

    Parameters
    ----------
    joined : Joined
        From `join`.
    column : str, optional
        A group column; without one everybody is one group.
    variants : list of str, optional
        Only these.
    classes : list of str, optional
        Names of the class codes: every group is then divided by class, and the accuracies are
        recalls.
    resamples, seed : int
        Number of resamples, and the seed that draws them.

    Raises
    ------
    ParameterError
        If the column or a variant is not there, or resamples is below 2.
    DataError
        If nobody is in a group of the column.
    """
    chosen = list(joined.predicted) if variants is None else list(variants)
    flags = {variant: joined.right(variant) for variant in chosen}
    return shares(joined, flags, column, classes=classes, resamples=resamples, seed=seed)


def shares(
    joined: Joined,
    flags: dict[str, np.ndarray],
    column: str | None = None,
    *,
    classes: list[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Drawn:
    """As `resample`, of the share of pictures that are marked instead of those that are right.

    Parameters
    ----------
    joined : Joined
        From `join`; says who is in which group.
    flags : dict of str to numpy.ndarray
        Variant -> bool (R, N), the same R for all, such as `exemplars` as one row.
    column, classes, resamples, seed
        As in `resample`, and so are the errors.
    """
    errors.at_least(2, resamples=resamples)
    of, names, person, stratum = grouped(joined, column)
    inside = of >= 0
    cells, pairs = of[inside], [(name, NO_CLASS) for name in names]
    if classes is not None:
        cells = cells * len(classes) + joined.items["label"].to_numpy()[inside]
        pairs = [(name, one) for name in names for one in classes]
    seen = np.unique(cells)
    members = [np.flatnonzero(cells == cell) for cell in seen]
    marked = np.stack([rows[:, inside] for rows in flags.values()])  # (V, R, N)
    hits = [at[row[at]] for row in marked.reshape(-1, marked.shape[-1]) for at in members]
    sums = resampling.cluster_sums(
        [*hits, *members], person, strata=stratum, resamples=resamples, seed=seed
    )
    n, people = (np.array([f(at) for at in members]) for f in (len, lambda at: _count(person[at])))
    shape = (*marked.shape[:2], len(seen))
    values = np.array([len(hit) for hit in hits]).reshape(shape) / n
    under = sums[:, None, None, len(hits) :]
    draws = sums[:, : len(hits)].reshape(-1, *shape) / np.where(under > 0, under, np.nan)
    draws = values + (draws - values) * np.sqrt(people / np.maximum(people - 1, 1))
    return Drawn(column or "", [pairs[c] for c in seen], n, people, list(flags), values, draws)


def grouped(
    joined: Joined, column: str | None
) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Who is in which group of a column, and whose pictures they are.

    Returns
    -------
    of : numpy.ndarray
        int (N,) group codes, -1 for a picture in none.
    names : list of str
        The groups' names, in the order of their codes.
    person : numpy.ndarray
        int (M,) the person of each of the M pictures in a group.
    stratum : numpy.ndarray
        int (people,) the group each person is drawn within; the first of those they are in.

    Raises
    ------
    ParameterError
        If there is no such column.
    DataError
        If nobody is in a group.
    """
    if column is None:
        of, names = np.zeros(len(joined.items), int), [ALL]
    else:
        errors.one_of("group column", column, [c for c in GROUP_COLUMNS if c in joined.items])
        names = joined.groups(column)
        if not names:
            raise errors.DataError(errors.NOBODY_LABELLED.format(column=column))
        of = pd.Index(names).get_indexer(joined.items[column].astype("string"))
    person, _, everybody = resampling.subject_codes(joined.items["subject"][of >= 0])
    stratum = np.zeros(len(everybody), int)
    stratum[person[::-1]] = of[of >= 0][::-1]  # the first is written last
    return of, names, person, stratum


def _count(codes: np.ndarray) -> int:
    return len(np.unique(codes))


def contrast(drawn: Drawn, weights, variant: str, control: str | None = None) -> Estimate:
    """A contrast of group accuracies, or its change from a control, with both kinds of chance.

    sum_g w_g a_g: weights (1, -1) give a gap of two groups, (1,) an accuracy. Variances as in the
    module's text; the part of the test set is never below `least`, since a resample in which
    nothing moves knows nothing.

    Parameters
    ----------
    drawn : Drawn
        From `resample`.
    weights : array-like
        (G,) for the groups of `drawn`.
    variant, control : str
        With a control: the variant's contrast minus the control's, paired by picture and by run.

    Returns
    -------
    published.Estimate
        With `value`, `interval()`, `p()`, `p_above`, `p_below`. Degrees of freedom: people of the
        smallest group that counts less one, and those of the runs.

    Raises
    ------
    ParameterError
        If a variant is not among those drawn.
    """
    w = np.asarray(weights, float)
    values, draws = drawn.change(variant, control)
    per_run = draws[..., w != 0] @ w[w != 0]  # (resamples, R)
    spread = np.atleast_2d(np.cov(per_run[np.isfinite(per_run).all(1)], rowvar=False))
    of_runs, df = _run_variance(values, w, drawn.n, drawn.classes)
    of_test = [spread.mean() - of_runs, w**2 @ drawn.least(variant)]
    if len(values) > 1:
        of_test.append(spread[~np.eye(len(values), dtype=bool)].mean())
    test_df = max(int(drawn.people[w != 0].min()) - 1, 1)
    return Estimate(float(values.mean(0) @ w), float(max(of_test)), of_runs, test_df, df)


def least(n, people, values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Variance that the test set leaves to a share at the least, even if nothing was seen to move.

    That of Wilson's bound for no event, in as many independent pictures as the resampled accuracies
    are worth: n over the design effect, not fewer than the people and not more than the pictures.
    Where the accuracies do not spread either, nothing tells how much a person's pictures have in
    common, and people are counted.

    Parameters
    ----------
    n, people : array-like
        (G,) pictures and people.
    values, draws : numpy.ndarray
        (R, G) accuracies of R runs, and (resamples, R, G) of resampled people.

    Returns
    -------
    numpy.ndarray
        float64 (G,).
    """
    seen = np.ma.masked_invalid(draws).var(0).filled(0).mean(0)
    alone = (values * (1 - values)).mean(0)  # the variance of n independent pictures, times n
    worth = np.clip(np.where(seen > ROUNDING, divide(alone, seen), people), people, n)
    return (intervals.wilson(0, worth)[1] / stats.norm.isf(testing.ALPHA / 2)) ** 2


ROUNDING = 1e-15  # no variance of shares: less than of one picture among ten million


def _run_variance(
    values: np.ndarray, w: np.ndarray, n: np.ndarray, classes: np.ndarray
) -> tuple[float, float]:
    """Variance of a contrast's mean over the runs (R, G), and its degrees of freedom.

    What moves all groups of a class together (weighted by their pictures n) has R - 1 degrees of
    freedom; what moves them apart is taken to vary as 1 / n and pooled within each class, with
    (R - 1) (groups - 1). Where both count it is R - 1: Satterthwaite's sum would trust a common
    part that came out small by chance, and reject too often. `classes` (G,) says which class a
    cell is of.
    """
    r = len(values)
    if r == 1:
        return 0.0, 1e9
    moved = values - values.mean(0)
    together, parts, df = np.zeros(r), [], []
    for one in np.unique(classes[w != 0]):
        at = classes == one
        shared = moved[:, at] @ n[at] / n[at].sum()  # (R,)
        together += w[at].sum() * shared
        if (g := at.sum()) > 1:
            df.append((r - 1) * (g - 1))
            pooled = (n[at] * (moved[:, at] - shared[:, None]) ** 2).sum() / df[-1]
            parts.append(pooled * (w[at] ** 2 / n[at]).sum() / r)
    if not together.any():  # a contrast within classes, of groups that runs move apart alone
        return float(sum(parts)), published.pooled_df(np.array(parts), np.array(df))
    return float(together.var(ddof=1) / r + sum(parts)), r - 1


def equality(drawn: Drawn, variant: str) -> dict:
    """Test whether a variant is equally accurate in all groups.

    The gap is the best group's accuracy minus the worst one's (of means over the runs). All pairs
    of groups are tested with Bonferroni's correction, as `testing.power` assumes; the interval of
    the gap is made of the pairs' intervals at the same level, so it holds 0 just where p is above
    5 %.

    Parameters
    ----------
    drawn : Drawn
        From `resample` with a group column.
    variant : str
        Which variant.

    Returns
    -------
    dict
        variant, gap, low, high, p, highest, lowest (names of groups), n (pictures in the smallest
        group), people (in the smallest group), runs.

    Raises
    ------
    DataError
        If there is one group only.

    Misleads: a large p does not show equality; `testing.power` says what could have been seen.
    """
    pairs = _pairs(drawn)
    found = [contrast(drawn, _difference(drawn, pair), variant) for pair in pairs]
    ends = np.array([one.interval(1 - testing.ALPHA / len(pairs)) for one in found])
    low = max(0.0, ends[:, 0].max(), -ends[:, 1].min())
    accuracy = drawn.accuracy(variant)
    return {
        "variant": variant,
        "gap": float(accuracy.max() - accuracy.min()),
        "low": float(low),
        "high": float(min(1.0, np.abs(ends).max())),
        "p": min(1.0, len(pairs) * min(one.p() for one in found)),
        "highest": drawn.groups[accuracy.argmax()],
        "lowest": drawn.groups[accuracy.argmin()],
        "n": int(drawn.n.min()),
        "people": int(drawn.people.min()),
        "runs": drawn.values.shape[1],
    }


def change_of_gap(
    drawn: Drawn, variant: str, control: str, *, reference: str | None = None
) -> pd.DataFrame:
    """Test whether the gaps between groups of a variant differ from those of its control.

    Paired: the same people, pictures and runs on both sides. A row for each pair of groups, the one
    that is ahead at the reference first, so that a positive change is a wider gap and one below
    minus the gap a reversed one. p is two-sided, p_holm corrected over the pairs.

    Parameters
    ----------
    drawn : Drawn
        From `resample` with a group column.
    variant, control : str
        What to compare with what.
    reference : str, optional
        The variant that says which group is ahead; the control if not given.

    Returns
    -------
    pandas.DataFrame
        Columns variant, control, pair ("A over B"), gap, control_gap, change, low, high (95 %, not
        adjusted), p, p_holm; fractions.

    Raises
    ------
    DataError
        If there is one group only.
    """
    rows = []
    for ahead, behind in ordered_pairs(drawn, reference or control):
        w = _difference(drawn, (ahead, behind))
        found = contrast(drawn, w, variant, control)
        low, high = found.interval()
        about = {"pair": f"{drawn.groups[ahead]} over {drawn.groups[behind]}"}
        about |= {"gap": drawn.accuracy(variant) @ w, "control_gap": drawn.accuracy(control) @ w}
        rows.append(about | {"change": found.value, "low": low, "high": high, "p": found.p()})
    table = pd.DataFrame(rows)
    table.insert(0, "variant", variant)
    table.insert(1, "control", control)
    return table.assign(p_holm=testing.holm(table["p"]))


def ordered_pairs(drawn: Drawn, reference: str) -> list[tuple[int, int]]:
    """Every pair of groups by position, the one ahead at the reference first."""
    accuracy = drawn.accuracy(reference)
    return [(a, b) if accuracy[a] >= accuracy[b] else (b, a) for a, b in _pairs(drawn)]


def _pairs(drawn: Drawn) -> list[tuple[int, int]]:
    if len(drawn.groups) < 2:
        found = {"source": drawn.column or "The table", "group": drawn.groups[0]}
        raise errors.DataError(errors.ONE_GROUP.format(**found))
    return list(combinations(range(len(drawn.groups)), 2))


def _difference(drawn: Drawn, pair: tuple[int, int]) -> np.ndarray:
    w = np.zeros(len(drawn.groups))
    w[list(pair)] = 1, -1
    return w


# --- tables, a row for each thing said ---


def accuracies(drawn: Drawn) -> pd.DataFrame:
    """Accuracy of every variant in every group, with its interval.

    Returns
    -------
    pandas.DataFrame
        Columns variant, group, value, low, high (95 %; fractions), n, people, runs, and effect: the
        design effect, variance of the test part over that of n independent pictures.
    """
    rows = []
    for variant in drawn.variants:
        for weights, group, n, people in zip(
            np.eye(len(drawn.groups)), drawn.groups, drawn.n, drawn.people, strict=True
        ):
            found = contrast(drawn, weights, variant)
            low, high = np.clip(found.interval(), 0, 1)
            alone = found.value * (1 - found.value) / n
            rows.append({"variant": variant, "group": group, "value": found.value})
            rows[-1] |= {"low": low, "high": high, "n": n, "people": people}
            rows[-1] |= {"runs": drawn.values.shape[1], "effect": divide(found.test, alone)}
    return pd.DataFrame(rows)


def changes(drawn: Drawn, controls: dict[str, str]) -> pd.DataFrame:
    """Change of accuracy from a control in every group, paired, with Holm's correction.

    Parameters
    ----------
    drawn : Drawn
        From `resample`; with classes the accuracies are recalls.
    controls : dict of str to str
        Variant -> its control. Pairs of which one was not drawn are left out.

    Returns
    -------
    pandas.DataFrame
        Columns variant, control, group, expression (`NO_CLASS` without classes), n, control_value,
        value, change, low, high, p, p_holm (corrected over the rows of a variant); empty without
        any pair.
    """
    parts = []
    for variant, control in _drawn(drawn, controls):
        rows = []
        for weights, cell, n in zip(np.eye(len(drawn.n)), drawn.cells, drawn.n, strict=True):
            found = contrast(drawn, weights, variant, control)
            low, high = np.clip(found.interval(), -1, 1)
            row = {"variant": variant, "control": control, "group": cell[0]}
            row |= {"expression": cell[1], "n": n}
            row |= {"control_value": drawn.accuracy(control) @ weights}
            row |= {"value": drawn.accuracy(variant) @ weights, "change": found.value}
            rows.append(row | {"low": low, "high": high, "p": found.p()})
        parts.append(pd.DataFrame(rows).assign(p_holm=lambda t: testing.holm(t["p"])))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=CHANGES)


CHANGES = ["variant", "control", "group", "expression", "n", "control_value", "value", "change"]
CHANGES += ["low", "high", "p", "p_holm"]


def gaps(drawn: Drawn) -> pd.DataFrame:
    """`equality` of every variant, a row each, with p_holm over the variants."""
    table = pd.DataFrame([equality(drawn, variant) for variant in drawn.variants])
    return table.assign(p_holm=testing.holm(table["p"]))


def gap_changes(drawn: Drawn, controls: dict[str, str], *, reference: str) -> pd.DataFrame:
    """`change_of_gap` of every variant against its control, with Holm's correction over all rows.

    Parameters
    ----------
    drawn, controls
        As in `changes`, with a group column.
    reference : str
        The variant that says which group is ahead, the baseline.

    Returns
    -------
    pandas.DataFrame
        As `change_of_gap`, and widest: whether the pair has the largest gap at the reference. Empty
        without any variant that has its control.
    """
    parts = [
        change_of_gap(drawn, variant, control, reference=reference)
        for variant, control in _drawn(drawn, controls)
    ]
    if not parts:
        return pd.DataFrame(columns=GAP_CHANGES)
    accuracy = drawn.accuracy(reference)
    widest = f"{drawn.groups[accuracy.argmax()]} over {drawn.groups[accuracy.argmin()]}"
    table = pd.concat(parts, ignore_index=True)
    return table.assign(p_holm=testing.holm(table["p"]), widest=table["pair"] == widest)


GAP_CHANGES = ["variant", "control", "pair", "gap", "control_gap", "change", "low", "high", "p"]
GAP_CHANGES += ["p_holm", "widest"]


def _drawn(drawn: Drawn, controls: dict[str, str]) -> list[tuple[str, str]]:
    """The pairs of a variant and another one, its control, of which both were drawn."""
    return [
        (variant, control)
        for variant, control in controls.items()
        if variant != control and {variant, control} <= set(drawn.variants)
    ]


# --- what the runs say of themselves ---


def settings(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """What every variant is, with sizes averaged over the runs; methods and sizes in order.

    Parameters
    ----------
    tables : list of pandas.DataFrame
        The runs' tables `variants`: variant, method, control, nominal_mb, packed_mb, zip_mb, and
        more that is kept from the first run.

    Returns
    -------
    pandas.DataFrame
        A row a variant, in the order of the first run; methods in words, "pruned, quantised".
    """
    together = pd.concat(tables, ignore_index=True)
    first = together.drop_duplicates("variant").set_index("variant")
    sizes = together.groupby("variant", sort=False)[SIZES].mean()
    words = first["method"].replace(_JOINED, ", ", regex=True).str.replace("_", " ")
    return first.assign(method=words, **{name: sizes[name] for name in SIZES}).reset_index()


SIZES = ["nominal_mb", "packed_mb", "zip_mb"]
_JOINED = r"_and_|(?<=pruned)_(?=clustered)"  # between two methods, not within "pruned_2of4"


def controls(described: pd.DataFrame) -> dict[str, str]:
    """Variant -> control, of every variant that has another one for its control."""
    pairs = zip(described["variant"], described["control"], strict=True)
    return {variant: control for variant, control in pairs if control and control != variant}


def strongest(described: pd.DataFrame, methods: list[str]) -> list[str]:
    """The variant of each method that has the smallest zipped file, for a closer look."""
    ordered = described.sort_values("zip_mb", kind="stable").drop_duplicates("method")
    by_method = ordered.set_index("method")["variant"]
    return [by_method[method] for method in methods if method in by_method]


def by_size(table: pd.DataFrame, described: pd.DataFrame) -> pd.DataFrame:
    """Accuracies beside sizes, for `charts_tradeoff.pareto_fronts`.

    Parameters
    ----------
    table : pandas.DataFrame
        From `accuracies`.
    described : pandas.DataFrame
        From `settings`.

    Returns
    -------
    pandas.DataFrame
        group, setting, method, runs, size_mb (zipped), value, low, high, front: whether no setting
        is as small and better, or as good and smaller, by the values alone. Controls, which
        compress nothing, are left out.
    """
    sized = table.merge(described[["variant", "method", "zip_mb"]], on="variant")
    sized = sized[sized["method"] != "control"].rename(
        columns={"variant": "setting", "zip_mb": "size_mb"}
    )
    kept = ["group", "setting", "method", "runs", "size_mb", "value", "low", "high"]
    parts = [
        part.assign(front=published.front(part["size_mb"], part["value"]))
        for _, part in sized[kept].groupby("group", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)
