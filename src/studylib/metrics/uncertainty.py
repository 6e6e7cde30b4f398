"""Intervals for error rates: how much a number would move with other people.

Pairs share people, so they are not independent observations. The interval here resamples people
(the subset bootstrap of Bolle, Ratha and Pankanti 2004): a resample counts person a as often as it
was drawn, w_a; a genuine pair of a counts w_a times, an impostor pair of a and b w_a * w_b times.
Near 0 and 1 a bootstrap is too sure of itself (no error seen, none resampled), so its interval is
widened to hold Wilson's (1927) for as many independent pairs. The result is conservative where
pairs are nearly independent, and still optimistic about people unlike those in the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd

from studylib.faces import GROUP_COLUMNS
from studylib.metrics import verification

GROUP_RATES = ["group", "metric", "n_pairs", "n_subjects", "variant", "value", "low", "high"]
MOST_GROUPS = 10  # a column with more values, such as age in years, is no grouping
_Z = 1.959963984540054  # two-sided 95 % point of the normal distribution
_TAILS = (2.5, 97.5)  # percentiles that bound 95 %
_CHUNK = 10**6  # pair weights in memory at a time (a few arrays of 8 MB each)


def wilson(successes, n) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval of a proportion from independent trials.

    Parameters
    ----------
    successes, n : array-like
        Counts; `successes` may be fractional (a rate times n).

    Returns
    -------
    low, high : numpy.ndarray
        In [0, 1]; NaN where n is 0.

    Examples
    --------
    >>> low, high = wilson(0, 10)
    >>> round(float(low), 4), round(float(high), 4)
    (0.0, 0.2775)
    """
    n = np.asarray(n, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.asarray(successes, float) / n
        centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def subject_weights(table: pd.DataFrame, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Pair weights of people resampled with replacement, a chunk of resamples at a time.

    Parameters
    ----------
    table : pandas.DataFrame
        Pairs with subject_a and subject_b.
    resamples, seed : int
        All draws come from one generator, so chunking does not change them.

    Yields
    ------
    numpy.ndarray
        float64 (chunk, pairs).
    """
    a, b, n = _subject_codes(table)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    same = a == b
    chunk = max(1, _CHUNK // len(table))
    for start in range(0, resamples, chunk):
        w = counts[start : start + chunk].astype(float)
        yield np.where(same, w[:, a], w[:, a] * w[:, b])


def _subject_codes(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    both = pd.concat([table["subject_a"].astype(str), table["subject_b"].astype(str)])
    codes, names = pd.factorize(both)
    return codes[: len(table)], codes[len(table) :], len(names)


class Resampled(NamedTuple):
    """Statistics of variants, in the set itself and in each resample of its people.

    `values` is float64 (variants, metrics, 1 + resamples); entry 0 of the last axis is the set
    itself. Every variant saw the same people in a resample, so differences are paired.
    """

    variants: list[str]
    metrics: list[str]
    values: np.ndarray
    n_genuine: int

    def take(self, variants: list[str]) -> Resampled:
        """The same resamples for some of the variants."""
        rows = [self.variants.index(variant) for variant in variants]
        return self._replace(variants=variants, values=self.values[rows])


def resample(
    table: pd.DataFrame,
    variants: list[str],
    statistics: dict[str, Callable[[verification.Curve], np.ndarray]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Compute statistics of each variant in the set and in resamples of its people.

    Parameters
    ----------
    table : pandas.DataFrame
        Verification outcomes: subject_a, subject_b, genuine, and score_<variant> columns.
    variants : list of str
        The variants to look at.
    statistics : dict
        Metric name -> function of a `verification.Curve`; thresholds are chosen anew in each
        resample, since they depend on who is in it.
    resamples, seed : int
        Number of resamples, and the seed that draws them.

    Raises
    ------
    DataError
        If scores are not finite, or one kind of pair is missing.
    """
    ordered = [verification.sort_scores(table[f"score_{v}"], table["genuine"]) for v in variants]
    chunks = []
    for weights in chain([np.ones((1, len(table)))], subject_weights(table, resamples, seed)):
        curves = [verification.curve(scores, weights) for scores in ordered]
        chunks.append([[compute(points) for compute in statistics.values()] for points in curves])
    values = np.concatenate([np.array(chunk) for chunk in chunks], -1)
    return Resampled(variants, list(statistics), values, int(table["genuine"].sum()))


def rates(resampled: Resampled) -> pd.DataFrame:
    """Every rate with its 95 % interval.

    Returns
    -------
    pandas.DataFrame
        Columns variant, metric, value, low, high; fractions.
    """
    rows = [
        {"variant": variant, "metric": metric, **interval(draws, resampled.n_genuine)}
        for variant, of_variant in zip(resampled.variants, resampled.values, strict=True)
        for metric, draws in zip(resampled.metrics, of_variant, strict=True)
    ]
    return pd.DataFrame(rows)


def interval(draws: np.ndarray, n: int) -> dict[str, float]:
    """A rate and its 95 % interval: resampled percentiles, widened to hold Wilson's.

    Parameters
    ----------
    draws : numpy.ndarray
        (1 + resamples,), the observed rate first.
    n : int
        Pairs behind the rate.
    """
    value = float(draws[0])
    low, high = np.nanpercentile(draws[1:], _TAILS)
    least, most = wilson(value * n, n)
    return {"value": value, "low": float(min(low, least)), "high": float(max(high, most))}


def differences(resampled: Resampled, reference: str) -> pd.DataFrame:
    """Every variant's rate minus the reference's, with a paired 95 % interval.

    Where hardly a pair changes sides a bootstrap would report a difference known exactly; the
    half-width is therefore at least Wilson's upper bound for no event among the genuine pairs.

    Returns
    -------
    pandas.DataFrame
        Columns variant, metric, difference, low, high; fractions.
    """
    base = resampled.values[resampled.variants.index(reference)]
    rows = []
    for variant, of_variant in zip(resampled.variants, resampled.values, strict=True):
        if variant == reference:
            continue
        for metric, draws in zip(resampled.metrics, of_variant - base, strict=True):
            row = {"variant": variant, "metric": metric, "difference": float(draws[0])}
            rows.append(row | _bounds(draws, resampled.n_genuine))
    return pd.DataFrame(rows, columns=["variant", "metric", "difference", "low", "high"])


def _bounds(draws: np.ndarray, n_genuine: int) -> dict[str, float]:
    """Interval of a paired difference, the observed one first; never narrower than for no event."""
    value, least = float(draws[0]), float(wilson(0, n_genuine)[1])
    low, high = np.nanpercentile(draws[1:], _TAILS)
    return {
        "low": float(max(min(low, value - least), -1.0)),
        "high": float(min(max(high, value + least), 1.0)),
    }


def recovery(resampled: Resampled, damaged: str, repaired: str, reference: str) -> pd.DataFrame:
    """Share of what `damaged` lost that `repaired` won back, with a paired 95 % interval.

    The share is (repaired - damaged) / (reference - damaged): 0 is nothing, 1 is everything. It
    means something only where a loss is beyond doubt: where the interval of the loss holds zero,
    the share is left out.

    Returns
    -------
    pandas.DataFrame
        One row a metric: metric, lost (reference - damaged), share, low, high.
    """
    was, now, full = (
        resampled.values[resampled.variants.index(v)] for v in (damaged, repaired, reference)
    )
    rows = []
    for metric, before, after, best in zip(resampled.metrics, was, now, full, strict=True):
        loss = best - before
        bounds = _bounds(loss, resampled.n_genuine)
        row = {"metric": metric, "lost": float(loss[0]), "share": np.nan}
        row |= {"low": np.nan, "high": np.nan}
        if bounds["low"] > 0 or bounds["high"] < 0:
            shares = (after - before) / np.where(loss == 0, np.nan, loss)
            low, high = np.nanpercentile(shares[1:], _TAILS)
            row |= {"share": float(shares[0]), "low": float(low), "high": float(high)}
        rows.append(row)
    return pd.DataFrame(rows)


def group_error_rates(
    table: pd.DataFrame,
    column: str,
    thresholds: dict[str, float],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """FMR and FNMR within each group at given thresholds, with intervals and group sizes.

    Only pairs within a group count; people are resampled within their group.

    Parameters
    ----------
    table : pandas.DataFrame
        Verification outcomes with <column>_a and <column>_b.
    column : str
        The group column.
    thresholds : dict
        Variant -> the one threshold applied to every group.

    Returns
    -------
    pandas.DataFrame
        Columns group, variant, metric (FMR, FNMR), value, low, high, n_subjects, n_pairs; groups
        too small to have a pair of a kind are left out of that metric.
    """
    of_a, of_b = table[f"{column}_a"].astype(str), table[f"{column}_b"].astype(str)
    rows = []
    for group in sorted(of_a.unique()):
        for metric, genuine in (("FMR", False), ("FNMR", True)):
            pairs = table[(of_a == group) & (of_b == group) & (table["genuine"] == genuine)]
            if pairs.empty:
                continue
            weights = np.concatenate(
                [np.ones((1, len(pairs))), *subject_weights(pairs, resamples, seed)]
            )
            about = {"group": group, "metric": metric, "n_pairs": len(pairs)}
            about["n_subjects"] = _subject_codes(pairs)[2]
            for variant, threshold in thresholds.items():
                wrong = (pairs[f"score_{variant}"].to_numpy() >= threshold) != genuine
                with np.errstate(invalid="ignore"):
                    draws = (weights * wrong).sum(1) / weights.sum(1)
                rows.append(about | {"variant": variant} | interval(draws, len(pairs)))
    return pd.DataFrame(rows)


def all_group_error_rates(
    table: pd.DataFrame, thresholds: dict[str, float], *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """`group_error_rates` for every group column with at most ten groups, named "column: group"."""
    columns = [c for c in GROUP_COLUMNS if f"{c}_a" in table]
    few = [c for c in columns if table[f"{c}_a"].nunique() <= MOST_GROUPS]
    parts = []
    for column in few:
        part = group_error_rates(table, column, thresholds, resamples=resamples, seed=seed)
        parts.append(part.assign(group=f"{column}: " + part["group"]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=GROUP_RATES)
