"""What others have published: exact counts, reported accuracies, and how sure one can be of them.

The tables are facts from the authors' own logs and scripts (book/published/README.md says which).
Nothing here needs their data sets, and nothing here can know more than their tables: how many test
images each network got right, not which ones. Two sources of chance are kept apart throughout:

- **test set**: other images would have given other counts. A network's accuracy on n images has the
  variance p(1 - p)/n, times a design effect where images come in clusters.
- **runs**: the same recipe run again gives another network. Over R runs the variance of their mean
  is s^2/R, s being their sample standard deviation (R - 1 degrees of freedom).

Three runs tell little about s, which the interval must show: see `Estimate`.

The runs of one setting are judged on the same images, so averaging them does not average the test
set away: the variance of a mean over runs is their sum, test set + s^2/R. (The test-set part is an
upper bound: an image that some runs get right and some wrong counts in both parts.)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from studylib import errors

FER_RUNS = "fer_compression_runs.csv"
QUANTFACE = "quantface_verification.csv"
RFW = "rfw_reported.csv"
STATED = "fer_stated_ratios.csv"

BASELINE = "fp32"
METHODS = (
    *("baseline", "quantised", "pruned", "pruned_and_quantised"),
    *("clustered", "clustered_and_quantised"),
)
GROUPS = {
    "gender": ["gender=female", "gender=male"],
    "race": ["race=caucasian", "race=african_american", "race=asian"],
    "age": ["age=0-3", "age=4-19", "age=20-39", "age=40-69", "age=70+"],
}
# Pairs of each verification benchmark, half of them genuine (InsightFace's .bin files).
PAIRS = {"lfw": 6000, "cfp_fp": 7000, "agedb_30": 6000, "calfw": 6000, "cplfw": 6000}
RACES = ["caucasian", "indian", "asian", "african"]
RFW_PAIRS = 6000

# CK+: each labelled sequence gives its first frame and its last three, and these are all but the
# same picture. If the last three are always right or wrong together, 4 images vary as 1 + 3^2 = 10
# would: 2.5 times the variance of independent ones.
CK_IMAGES, CK_PEOPLE = 384, 37
FRAMES = (1 + 3**2) / 4
PERSON = 0.1  # how much a person's other images correlate, if they do: a guess, to see what it does
ASSUMPTIONS = {
    "ckplus": {
        "independent images": 1.0,
        "frames of a sequence agree": FRAMES,
        "and a person's images correlate": FRAMES + PERSON * (CK_IMAGES / CK_PEOPLE - FRAMES),
    },
    "rafdb": {"independent images": 1.0},
}
# What verdicts rest on; the others are shown beside it.
CAUTIOUS = {"ckplus": "frames of a sequence agree", "rafdb": "independent images"}


def design_effect(dataset: str) -> float:
    """How many times the variance of independent images a data set's images are taken to have."""
    return ASSUMPTIONS[dataset][CAUTIOUS[dataset]]


def read_fer(folder) -> pd.DataFrame:
    """Counts of every logged run of the study on expressions (Stoychev and Gunes 2022).

    Returns
    -------
    pandas.DataFrame
        One row a run and group: dataset, method, sparsity_percent, clusters, run, size_bytes_zip,
        group, n_test, n_correct, and `name`, the setting in this book's names (s50+w8).

    Raises
    ------
    DataError
        If the file is missing or is not the table that was carried along.
    """
    columns = ["dataset", "method", "sparsity_percent", "clusters", "run", "size_bytes_zip"]
    file, table = _read(folder, FER_RUNS, [*columns, "group", "n_test", "n_correct"])
    if not set(table["method"]) <= set(METHODS):
        raise _wrong(file, "it names a method that the study does not have")
    if not ((table["n_correct"] >= 0) & (table["n_correct"] <= table["n_test"])).all():
        raise _wrong(file, "a row has more correct answers than images, or fewer than none")
    if (table.groupby(["dataset", "group"])["n_test"].nunique() != 1).any():
        raise _wrong(file, "a group changes its size from run to run")
    table["name"] = [_name(row) for row in table.itertuples()]
    if table.duplicated(["dataset", "name", "run", "group"]).any():
        raise _wrong(file, "a run's group is counted twice")
    return table


def _name(row) -> str:
    """The setting in this book's names: s50 for 50 % sparsity, c16 for 16 clusters, +w8 quantised.

    Quantised means 8-bit weights, rounded after training: TFLite's default without a data set.
    """
    parts = [f"s{row.sparsity_percent:.0f}"] if row.sparsity_percent > 0 else []
    parts += [f"c{row.clusters:.0f}"] if row.clusters > 0 else []
    parts += ["w8"] if "quantised" in row.method else []
    return "+".join(parts) or BASELINE


def read_quantface(folder) -> pd.DataFrame:
    """QuantFace's verification accuracies (Boutros et al. 2022), a row a network and precision.

    Returns
    -------
    pandas.DataFrame
        model, precision, size_mb, and accuracies and TARs as fractions.

    Raises
    ------
    DataError
        If the file is missing or is not the table that was carried along.
    """
    tars = ["ijb_b_tar_far1e-4", "ijb_c_tar_far1e-4"]
    file, table = _read(folder, QUANTFACE, ["model", "precision", "size_mb", *PAIRS, *tars])
    return _fractions(file, table, [*PAIRS, *tars])


# QuantFace's networks as this project calls them.
ARCHITECTURES = {
    "resnet100": "iresnet100",
    "resnet50": "iresnet50",
    "resnet18": "iresnet18",
    "mobilefacenet": "mobilefacenet",
}


def quantface_drops(table: pd.DataFrame) -> pd.DataFrame:
    """What quantising cost QuantFace's networks, as means over the five benchmarks.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_quantface`.

    Returns
    -------
    pandas.DataFrame
        A row a network and precision but the baseline: architecture, precision, value (mean
        change of accuracy, a fraction), least and most (the smallest and largest of the five).
    """
    by = table.assign(architecture=table["model"].map(ARCHITECTURES))
    by = by.set_index(["architecture", "precision"])[[*PAIRS]]
    change = by - by.xs(BASELINE, level="precision").reindex(by.index, level="architecture")
    change = change.drop(BASELINE, level="precision")
    found = change.agg(["mean", "max", "min"], axis=1).set_axis(["value", "least", "most"], axis=1)
    return found.reset_index()


def benchmarks_beside(table: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """QuantFace's verification accuracies, and below each row what was measured here.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_quantface`.
    ours : pandas.DataFrame
        A row an accuracy: network, architecture, source, precision, benchmark, accuracy (0 to 1).

    Returns
    -------
    pandas.DataFrame
        architecture, precision, figures ("published", or whose they are), and each benchmark's
        accuracy in per cent as text; "not run" where nothing was measured.
    """
    keys = ["architecture", "precision", "figures"]
    calibrated = np.where(ours["precision"] == BASELINE, "", " (" + ours["source"] + ")")
    mine = ours.assign(figures="ours, " + ours["network"] + calibrated)
    mine = mine.pivot_table("accuracy", keys, "benchmark", "first").reset_index()
    theirs = table.assign(architecture=table["model"].map(ARCHITECTURES), figures="published")
    run = pd.MultiIndex.from_frame(theirs[keys[:2]]).isin(pd.MultiIndex.from_frame(mine[keys[:2]]))
    theirs.loc[~run, "figures"] += " (ours: not run)"
    shown = pd.concat([theirs, mine], ignore_index=True).reindex(columns=[*keys, *PAIRS])
    order = {name: place for place, name in enumerate(shown["architecture"].unique())}
    bits = shown["precision"].str.extract(r"(\d+)", expand=False).astype(int)
    shown = shown.assign(order=shown["architecture"].map(order), bits=-bits)
    shown = shown.sort_values(["order", "bits"], kind="stable").drop(columns=["order", "bits"])
    texts = {c: shown[c].map(lambda x: f"{100 * x:.2f}", na_action="ignore") for c in PAIRS}
    return shown.assign(**texts).fillna("not run").reset_index(drop=True)


def read_rfw(folder) -> pd.DataFrame:
    """Reported accuracies within the four groups of RFW, a row a network and threshold rule.

    Returns
    -------
    pandas.DataFrame
        source, model, precision, threshold_rule, an accuracy (a fraction) for each group, and
        `figures`: "published", "published, quoted" (by a third party) or "ours" (worked out from
        published scores).

    Raises
    ------
    DataError
        If the file is missing or is not the table that was carried along.
    """
    file, table = _read(folder, RFW, ["source", "model", "precision", "threshold_rule", *RACES])
    ours = table["source"].str.startswith("open") & (table["threshold_rule"] == "per-group 10-fold")
    table["figures"] = "published"
    table.loc[table["source"].str.contains("quoted"), "figures"] += ", quoted"
    table.loc[ours, "figures"] = "ours"
    return _fractions(file, table, RACES)


def read_stated(folder) -> pd.DataFrame:
    """Size ratios as the notebooks of Stoychev and Gunes print them.

    Returns
    -------
    pandas.DataFrame
        dataset, what, times (smaller) and saved_percent; NaN where a notebook gives only the other.

    Raises
    ------
    DataError
        If the file is missing or is not the table that was carried along.
    """
    return _read(folder, STATED, ["dataset", "what", "times", "saved_percent"])[1]


def _read(folder, name: str, columns: list[str]) -> tuple[Path, pd.DataFrame]:
    file = Path(folder).absolute() / name
    if not file.parent.is_dir():
        raise errors.DataError(errors.NO_PUBLISHED.format(folder=file.parent))
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise _wrong(file, f"it cannot be read ({type(error).__name__})") from error
    missing = [column for column in columns if column not in table]
    if missing or table.empty:
        raise _wrong(file, f"it lacks {', '.join(missing) or 'rows'}")
    return file, table


def _fractions(file: Path, table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    if not table[columns].stack().between(0, 100).all():
        raise _wrong(file, "a value is not a percentage")
    return table.assign(**{column: table[column] / 100 for column in columns})


def _wrong(file: Path, problem: str) -> errors.DataError:
    return errors.DataError(errors.PUBLISHED_TABLE.format(file=file, problem=problem))


class Setting(NamedTuple):
    """One compression setting on one data set: its runs' counts, group by group."""

    name: str
    method: str
    size_mb: float  # mean over the runs, 10^6 bytes, one file in a ZIP
    n: np.ndarray  # (G,) test images
    correct: np.ndarray  # (R, G) right answers of each run

    @property
    def accuracy(self) -> np.ndarray:
        """(G,) mean over the runs, a fraction."""
        return (self.correct / self.n).mean(0)

    @property
    def random(self) -> bool:
        """Whether another run would differ: fine-tuning does, rounding the weights does not."""
        return self.method not in ("baseline", "quantised")

    @property
    def judged(self) -> bool:
        """Whether its run-to-run variation is known: it has several runs, or none is needed."""
        return len(self.correct) > 1 or not self.random


def settings(runs: pd.DataFrame, dataset: str, groups: list[str]) -> list[Setting]:
    """The settings of one data set with their counts, the baseline first.

    Parameters
    ----------
    runs : pandas.DataFrame
        From `read_fer`.
    dataset : {"ckplus", "rafdb"}
        Which of the two.
    groups : list of str
        Names in column `group`, in the order wanted: "overall", "gender=male", ...
    """
    part = runs[runs["dataset"] == dataset]
    missing = [group for group in groups if group not in set(part["group"])]
    if missing:
        known = ", ".join(sorted(part["group"].unique())) or "none"
        raise errors.ParameterError(
            errors.UNKNOWN_NAME.format(what="group", value=missing[0], choices=known)
        )
    order = part.assign(kind=part["method"].map(METHODS.index))
    order = order.sort_values(["kind", "sparsity_percent", "clusters", "run"], kind="stable")
    n = part.drop_duplicates("group").set_index("group").loc[groups, "n_test"].to_numpy()
    counts = part.pivot(index=["name", "run"], columns="group", values="n_correct")[groups]
    per_run = order.drop_duplicates(["name", "run"])
    sizes = per_run.groupby("name")["size_bytes_zip"].mean() / 1e6
    return [
        Setting(row.name, row.method, sizes[row.name], n, counts.loc[row.name].to_numpy())
        for row in per_run[["name", "method"]].drop_duplicates().itertuples(index=False)
    ]


def fer_table(runs: pd.DataFrame, dataset: str, groups: list[str]) -> pd.DataFrame:
    """The published table: mean and population standard deviation over the runs, in per cent.

    Returns
    -------
    pandas.DataFrame
        A row a setting: setting, method, runs, size_mb, and for each group <group> and
        <group> std (NaN for a single run).
    """
    rows = []
    for one in settings(runs, dataset, groups):
        row = {"setting": one.name, "method": one.method, "runs": len(one.correct)}
        row["size_mb"] = one.size_mb
        percent = 100 * one.correct / one.n
        for group, values in zip(groups, percent.T, strict=True):
            row[group] = values.mean()
            row[f"{group} std"] = values.std() if len(values) > 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """`fer_table` as it is printed: 65.71 ±0.96, sizes in MB with three digits."""
    shown = {"setting": table["setting"], "runs": table["runs"]}
    shown["size MB"] = [f"{size:.3f}" for size in table["size_mb"]]
    for group in [c for c in table if f"{c} std" in table]:
        shown[group.partition("=")[2] or group] = [
            f"{mean:.2f}" + ("" if np.isnan(std) else f" ±{std:.2f}")
            for mean, std in zip(table[group], table[f"{group} std"], strict=True)
        ]
    return pd.DataFrame(shown)


def captioned(table: pd.DataFrame, caption: str, digits: int | None = None):
    """A table as a page shows it (a pandas Styler): with a caption, without its index."""
    return table.style.hide(axis="index").set_caption(caption).format(precision=digits)


class Estimate(NamedTuple):
    """A contrast of accuracies with its variance from the test set and from the runs.

    Each source keeps its own quantile: the half-width of an interval is
    sqrt(t1^2 V_test + t2^2 V_runs), with t1 and t2 of Student's distribution with the degrees of
    freedom of each (variances recovered from the single intervals; Howe 1974, Zou and Donner 2008).
    Welch's pooled degrees of freedom would be shorter, but three runs give two of them, and in the
    far tails, where Holm's correction looks, they then reject a true hypothesis several times too
    often. p-values are the levels at which the interval just touches the bound.
    """

    value: float
    test: float  # variance from the test set
    runs: float  # variance from the runs
    test_df: float
    runs_df: float = 1e9

    @property
    def se(self) -> float:
        """Standard error, both sources together."""
        return float(np.sqrt(self.test + self.runs))

    def interval(self, level: float = 0.95, *, two_sided: bool = True) -> tuple[float, float]:
        """The interval at a level; one-sided ones put the whole error on either end in turn."""
        half = self._half((1 - level) / (2 if two_sided else 1))
        return self.value - half, self.value + half

    def p_above(self, bound: float = 0.0) -> float:
        """One-sided p-value against "the true value is at most `bound`".

        Examples
        --------
        >>> round(Estimate(0.06, 0.03**2, 0.0, 1e6).p_above(), 4)
        0.0228
        >>> round(Estimate(0.06, 0.0, 0.03**2, 1e6, 2).p_above(), 4)
        0.0918
        """
        away = self.value - bound
        if away == 0:
            return 0.5
        if self.se == 0:  # known exactly, under the assumption that made it so
            return float(away < 0)
        # bisection over the logarithm of the tail, from 1e-300 to a half
        low, high = np.log(1e-300), np.log(0.5)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self._half(np.exp(middle)) > abs(away) else (low, middle)
        tail = float(np.exp(high))
        return tail if away > 0 else 1 - tail

    def p_below(self, bound: float = 0.0) -> float:
        """One-sided p-value against "the true value is at least `bound`"."""
        return self._replace(value=-self.value).p_above(-bound)

    def p(self) -> float:
        """Two-sided p-value against "the true value is 0"."""
        return min(1.0, 2 * min(self.p_above(), self.p_below()))

    def _half(self, tail: float) -> float:
        t1, t2 = special.stdtrit([self.test_df, self.runs_df], tail)
        return float(np.sqrt(t1**2 * self.test + t2**2 * self.runs))


def estimate(
    chosen: list[Setting],
    weights,
    *,
    base: Setting | None = None,
    design_effect: float = 1.0,
    favourable: bool = False,
) -> Estimate:
    """A contrast of group accuracies, or its change from a baseline, with both kinds of chance.

    The contrast is sum_g w_g a_g: weights (1, -1) give a gap, (1,) an accuracy. Several settings
    are averaged; they share the test images, so only the run part shrinks. The baseline is taken as
    the network it is: how much another baseline would differ was not measured by anybody.

    Parameters
    ----------
    chosen : list of Setting
        One setting, or several to average.
    weights : array-like
        (G,) for the settings' groups.
    base : Setting, optional
        The network that the change is counted from; it was judged on the same images.
    design_effect : float
        Variance of these images over that of independent ones.
    favourable : bool
        How the same images' outcomes before and after are related was not published. False: not at
        all, the variances add (cautious: both networks tend to fail on the same images, which
        could only lower the variance). True: as closely as the counts allow, the least variance
        that the change of an image's mean outcome can have (a bound that no data go below).

    Returns
    -------
    Estimate

    Notes
    -----
    With change d of a group's accuracy over R runs, an image's change is a multiple of 1/R with
    mean d; its variance is least on the two multiples next to d: f(1 - f)/R^2, f the fraction of
    R|d|. A single run of a setting that fine-tunes has no run variance to give: it is 0 here, and
    too small.

    Examples
    --------
    >>> one = Setting("s50", "pruned", 1.0, np.array([100]), np.array([[70], [80], [75]]))
    >>> low, high = estimate([one], [1.0]).interval()
    >>> round(low, 3), round(high, 3)
    (0.599, 0.901)
    """
    w, n = np.asarray(weights, float), chosen[0].n
    after = np.mean([one.accuracy for one in chosen], 0)
    before = base.accuracy if base else np.zeros(len(n))
    images = after * (1 - after) + before * (1 - before)
    if favourable:
        count = sum(len(one.correct) for one in chosen)
        part = (np.abs(after - before) * count) % 1
        images = part * (1 - part) / count**2
    of_test = w**2 * design_effect * images / n
    repeated = [one for one in chosen if one.random and len(one.correct) > 1]
    of_runs = [np.var((one.correct / n) @ w, ddof=1) / len(one.correct) for one in repeated]
    of_runs = np.array(of_runs) / len(chosen) ** 2
    return Estimate(
        float(w @ (after - before)),
        float(of_test.sum()),
        float(of_runs.sum()),
        pooled_df(of_test, n / design_effect - 1),
        pooled_df(of_runs, np.array([len(one.correct) - 1 for one in repeated])),
    )


def sources(one: Setting, weights, dataset: str) -> pd.DataFrame:
    """One contrast's interval from each kind of chance alone, and from both.

    Returns
    -------
    pandas.DataFrame
        A row a source: source, assumption, standard_error, low, high (fractions).
    """
    rows = []
    for assumption, effect in ASSUMPTIONS[dataset].items():
        both = estimate([one], weights, design_effect=effect)
        if not rows and both.runs > 0:
            rows.append(("runs alone", "", both._replace(test=0.0)))
        rows.append(("test set alone", assumption, both._replace(runs=0.0)))
        rows.append(("both", assumption, both))
    rows.sort(key=lambda row: row[0] == "both")
    return pd.DataFrame(
        [(source, said, found.se, *found.interval()) for source, said, found in rows],
        columns=["source", "assumption", "standard_error", "low", "high"],
    )


def minus(first: Estimate, second: Estimate) -> Estimate:
    """Difference of two estimates that share nothing: other images, other runs."""
    pooled = (
        pooled_df(np.array(variances), np.array(df))
        for variances, df in (
            ((first.test, second.test), (first.test_df, second.test_df)),
            ((first.runs, second.runs), (first.runs_df, second.runs_df)),
        )
    )
    value = first.value - second.value
    return Estimate(value, first.test + second.test, first.runs + second.runs, *pooled)


def pooled_df(variances: np.ndarray, df: np.ndarray) -> float:
    """Degrees of freedom of a sum of variances of one kind (Satterthwaite 1946)."""
    squares = (variances**2 / df).sum()
    # as good as infinite, and a number that the quantile function takes
    return float(variances.sum() ** 2 / squares) if squares > 0 else 1e9


def tradeoff(runs: pd.DataFrame, dataset: str, groups: list[str]) -> pd.DataFrame:
    """Size and accuracy of every setting in every group, with intervals and the Pareto front.

    Returns
    -------
    pandas.DataFrame
        group, setting, method, runs, size_mb, value, low, high (test set and runs; fractions),
        front: whether no setting is smaller and at least as accurate, or more accurate and no
        larger, by the values alone.
    """
    found = settings(runs, dataset, groups)
    rows = []
    for weights, group in zip(np.eye(len(groups)), groups, strict=True):
        of_group = []
        for one in found:
            seen = estimate([one], weights, design_effect=design_effect(dataset))
            row = {"group": group.partition("=")[2] or group, "setting": one.name}
            row |= {"method": one.method, "runs": len(one.correct), "size_mb": one.size_mb}
            low, high = np.clip(seen.interval(), 0, 1)
            of_group.append(row | {"value": seen.value, "low": low, "high": high})
        best = front([row["size_mb"] for row in of_group], [row["value"] for row in of_group])
        rows += [row | {"front": bool(on)} for row, on in zip(of_group, best, strict=True)]
    return pd.DataFrame(rows)


def front(size, value) -> np.ndarray:
    """Mark what nothing beats: no other is as small and better, or as good and smaller.

    Examples
    --------
    >>> front([1.0, 2.0, 3.0, 3.0], [0.5, 0.7, 0.7, 0.9]).tolist()
    [True, True, False, True]
    """
    size, value = np.asarray(size)[:, None], np.asarray(value)[:, None]
    as_good = (size >= size.T) & (value <= value.T)  # (N, N): the second is as good as the first
    return ~(as_good & ((size > size.T) | (value < value.T))).any(1)


def gaps(runs: pd.DataFrame, dataset: str, pair: tuple[str, str]) -> pd.DataFrame:
    """A gap, first group minus second, in every setting, and its change from the baseline.

    Returns
    -------
    pandas.DataFrame
        panel ("the gap" or "its change"), setting, method, runs, value, low, high (cautious:
        clustered images, outcomes before and after unrelated), inner_low, inner_high (images taken
        as independent); fractions.
    """
    base, *others = settings(runs, dataset, list(pair))
    rows = []
    for one in [base, *others]:
        for panel, start in (("the gap", None), ("its change", base)):
            if panel == "its change" and one is base:
                continue
            row = {"panel": panel, "setting": one.name, "method": one.method}
            row["runs"] = len(one.correct)
            outer = estimate([one], [1, -1], base=start, design_effect=design_effect(dataset))
            inner = estimate([one], [1, -1], base=start)
            row |= dict(zip(("low", "high"), outer.interval(), strict=True))
            row |= dict(zip(("inner_low", "inner_high"), inner.interval(), strict=True))
            rows.append(row | {"value": outer.value})
    return pd.DataFrame(rows)
