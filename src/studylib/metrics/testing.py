"""Tests and power: is a difference more than chance would make, and how much data would tell.

Three questions, three tools. Two models on the same items: `mcnemar`, or `bootstrap_p` from paired
draws where items share people. Groups that should be equal: the null band of any fairness metric
(`null_draws`, `null_band`), or a permutation of the group labels (`permutation_null`), with
`equality_p`. Before the study: `power` and the sizes that resolve a difference. Many tests at once
go through `holm`. p-values are two-sided unless said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from studylib import errors as texts
from studylib.metrics.arrays import divide, host, to_numpy
from studylib.metrics.intervals import quantiles, tail
from studylib.metrics.resampling import check_counts, moments

ALPHA = 0.05  # the study's level: a p-value up to it is called resolved
_SAME = 1e-12  # values closer than this are ties: sums in another order differ by less


def mcnemar(lost, gained) -> np.ndarray:
    """Exact test that two models are right equally often on the same items.

    Of the items on which just one is right, either model should have half: a two-sided binomial
    test, p = min(1, 2 P(X <= min(lost, gained))) with X ~ Binomial(lost + gained, 1/2). Source:
    McNemar 1947, in the exact form instead of chi-squared.

    Parameters
    ----------
    lost, gained : array-like
        (...) items only the first model has right, and only the second.

    Returns
    -------
    numpy.ndarray
        p in (0, 1]; 1 where no item differs.

    Raises
    ------
    DataError
        If a count is negative.

    Misleads: items must be independent. Pairs that share people are not: use `bootstrap_p`. It
    sees only the balance: 500 lost and 500 gained give p = 1, though every tenth answer changed.

    Examples
    --------
    >>> mcnemar([10, 0, 500], [1, 0, 500]).round(4).tolist()
    [0.0117, 1.0, 1.0]
    """
    lost, gained = np.broadcast_arrays(host(lost), host(gained))
    check_counts(lost, lost + gained)  # holds only if neither is negative
    return np.minimum(2 * stats.binom.cdf(np.minimum(lost, gained), lost + gained, 0.5), 1.0)


def holm(p) -> np.ndarray:
    """Holm's step-down correction for testing many things at once.

    The k-th smallest of m p-values is multiplied by m - k + 1, and never falls below the one
    before: the chance of even one false alarm stays below the level, however the tests depend.
    Source: Holm 1979.

    Parameters
    ----------
    p : array-like
        Of any shape; NaN (a test that could not be done) stays NaN and is not counted.

    Returns
    -------
    numpy.ndarray
        Adjusted p, shaped as `p`, at most 1.

    Misleads: the family is what was passed in. Tests tried and left out do not count themselves.

    Examples
    --------
    >>> holm([0.01, 0.04, float("nan"), 0.03]).round(2).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    p = to_numpy(p)
    adjusted = np.full(p.size, np.nan)
    known = np.flatnonzero(~np.isnan(p.ravel()))
    order = known[np.argsort(p.ravel()[known], kind="stable")]
    steps = p.ravel()[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.reshape(p.shape)


def bootstrap_p(draws: np.ndarray, observed, *, tail_from: str = "count") -> np.ndarray:
    """Two-sided p that a difference is 0, from its resampled values.

    Draws moved to mean 0 show the noise: p is the share of them as far from 0 as the observed
    difference, plus one in both counts so that it is never 0. Source: Davison and Hinkley 1997,
    4.4.

    Parameters
    ----------
    draws : numpy.ndarray
        (resamples, ...) differences of the same resamples (people or items); NaN are left out.
    observed : array-like
        (...) the difference in the set itself.
    tail_from : str
        "count" as above: at least 1 / (resamples + 1), so that 1,000 resamples cannot survive
        Holm over 50 tests. "normal" reads the tail off a normal curve with the draws' variance.

    Returns
    -------
    numpy.ndarray
        (...) in (0, 1]; NaN where no draw has a value.

    Raises
    ------
    ParameterError
        If `tail_from` is neither.

    Misleads: where no draw moves (no item changed sides), p is 1: nothing was seen, which is not
    the same as being equal. "normal" is wrong for statistics with a kink, such as the largest gap.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(0.02, 0.01, 1999)
    >>> float(bootstrap_p(draws, 0.0)), round(float(bootstrap_p(draws, 0.02)), 2)
    (1.0, 0.04)
    """
    texts.one_of("tail_from", tail_from, ("count", "normal"))
    draws, observed = to_numpy(draws), to_numpy(observed)
    known = np.isfinite(draws)
    n = known.sum(0)
    mean, variance = moments(draws)
    if tail_from == "normal":
        p = 2 * stats.norm.sf(divide(np.abs(observed), np.sqrt(variance)))
    else:
        noise = np.abs(np.where(known, draws, np.nan) - mean)
        p = (1 + (noise >= np.abs(observed) - _SAME).sum(0)) / (1 + n)
    p = np.where(variance > 0, p, 1.0)
    return np.where((n > 0) & ~np.isnan(observed), p, np.nan)


class Band(NamedTuple):
    """What chance alone makes of a metric: the middle `level` of its null draws, and its median."""

    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


def null_draws(n, rate: float, *, draws: int, seed: int) -> np.ndarray:
    """Rates of groups that are truly equal: only chance tells them apart.

    Binomial(n_g, rate) / n_g. Source: definition.

    Parameters
    ----------
    n : array-like
        (G,) items a group; an effective number (n / design effect) may be fractional and is
        rounded, to at least 1 if there is any.
    rate : float
        The rate they share, such as the pooled one.
    draws, seed : int
        Number of imagined studies, and the seed.

    Returns
    -------
    numpy.ndarray
        float64 (draws, G); NaN where a group has no item.

    Raises
    ------
    ParameterError
        If `rate` is not in [0, 1].
    DataError
        If a number of items is negative.

    Misleads: the true common rate is not known, and near 0 or 1 the band depends on it.

    Examples
    --------
    >>> rates = null_draws([6000] * 4, 0.95, draws=5000, seed=0)
    >>> round(100 * float(np.median(rates.std(1))), 2)  # STD of four equal groups, points
    0.22
    """
    texts.fraction(rate=rate)
    n = to_numpy(n)
    check_counts(np.zeros_like(n), n)
    items = np.where(n > 0, np.maximum(np.rint(n), 1), 0).astype(np.int64)
    return divide(np.random.default_rng(seed).binomial(items, rate, (draws, *n.shape)), items)


def null_band(
    n,
    rate,
    metric: Callable[..., np.ndarray],
    *,
    draws: int = 10_000,
    seed: int,
    level: float = 0.95,
) -> Band:
    """The null band of a metric: what truly equal groups of these sizes would show.

    Quantiles of the metric over `null_draws`. Source: definition; a parametric bootstrap (Efron
    1979) of studies in which nothing differs.

    Parameters
    ----------
    n, rate : array-like and float, or tuples of two
        As in `null_draws`; tuples (of impostor and genuine pairs, FMR and FNMR) for a metric of
        two rates.
    metric : callable
        Function of (draws, G) rates, or of two such arrays, giving (draws,) or (draws, ...).
    draws, seed, level
        Number of imagined studies, the seed, and the share of them inside the band.

    Returns
    -------
    Band
        low, median, high; undefined (NaN) draws are left out.

    Misleads: a value inside the band does not show that groups are equal, only that these numbers
    of items cannot tell. Groups taken from one set of people need an effective n.

    Examples
    --------
    >>> band = null_band([6000] * 4, 0.95, lambda rates: rates.std(-1), seed=0)
    >>> [round(100 * float(x), 2) for x in band]  # points
    [0.07, 0.21, 0.43]
    """
    if isinstance(rate, tuple):
        each = zip(n, rate, np.random.SeedSequence(seed).spawn(2), strict=True)
        values = metric(*(null_draws(m, p, draws=draws, seed=s) for m, p, s in each))
    else:
        values = metric(null_draws(n, rate, draws=draws, seed=seed))
    beyond = tail(level)
    return Band(*quantiles(values, beyond, 0.5, 1 - beyond))


def permutation_null(errors, n, *, draws: int, seed: int) -> np.ndarray:
    """Rates when group labels are shuffled: the errors land where chance puts them.

    A multivariate hypergeometric draw of the errors, which is what shuffling labels does to counts.
    Unlike `null_draws` it needs no common rate. Source: Fisher's exact test, for many groups.

    Parameters
    ----------
    errors, n : array-like
        (G,) whole numbers: errors and items a group.
    draws, seed : int
        Number of shuffles, and the seed.

    Returns
    -------
    numpy.ndarray
        float64 (draws, G); NaN where a group has no item.

    Raises
    ------
    DataError
        If a count is negative or above its total.

    Misleads: it shuffles items; where they share people, people should be shuffled, and the p from
    this is too small. Use `null_draws` with an effective n.

    Examples
    --------
    >>> rates = permutation_null([30, 10], [200, 200], draws=2000, seed=0)
    >>> float(rates.mean().round(2)), (rates @ [200, 200])[:3].round().tolist()
    (0.1, [40.0, 40.0, 40.0])
    """
    errors, n = np.asarray(host(errors)), np.asarray(host(n))
    check_counts(errors, n)
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(n, int(errors.sum()), draws, method="marginals")
    return divide(drawn, n)


def equality_p(observed, null: np.ndarray, *, unequal: str = "high") -> np.ndarray:
    """One-sided p of a fairness metric against its null draws: the share at least as unequal.

    (1 + draws as unequal as observed) / (1 + draws). Source: Davison and Hinkley 1997, chapter 4.

    Parameters
    ----------
    observed : array-like
        (...) the metric in the set itself.
    null : numpy.ndarray
        (draws, ...) the metric of equal groups; NaN are left out.
    unequal : str
        "high" for metrics that grow with inequality (STD, SER, gap), "low" for those that fall
        (ratio, FDR, worst group).

    Returns
    -------
    numpy.ndarray
        (...) in (0, 1], one added to both counts; NaN where there is nothing to compare.

    Raises
    ------
    ParameterError
        If `unequal` is neither.

    Misleads: a large p does not show equality; look at `power` for what could have been seen.

    Examples
    --------
    >>> null = null_draws([3000] * 4, 0.05, draws=1999, seed=0).std(1)
    >>> float(equality_p(0.02, null)), bool(equality_p(0.001, null) > 0.9)
    (0.0005, True)
    """
    texts.one_of("unequal", unequal, ("high", "low"))
    sign = 1 if unequal == "high" else -1
    observed, null = sign * to_numpy(observed), sign * to_numpy(null)
    known = ~np.isnan(null)
    p = (1 + (null >= observed - _SAME).sum(0)) / (1 + known.sum(0))
    return np.where(np.isnan(observed) | ~known.any(0), np.nan, p)


def power(gap, n, rate, *, level: float = 0.95, groups: int = 2, design_effect=1.0) -> np.ndarray:
    """Chance that a study of n items a group shows a true gap between two of its groups.

    The two-sided test of two proportions in normal approximation: with p and q the two rates and m
    their mean, Phi((gap sqrt(n) - z sqrt(2 m (1-m))) / sqrt(p(1-p) + q(1-q))). Source: Fleiss 1981.

    Parameters
    ----------
    gap : array-like
        (...) true difference of the two rates, a fraction above 0.
    n : array-like
        (...) items in each group.
    rate : array-like
        (...) the lower of the two rates (of errors, or 1 - accuracy of the better group).
    level : float
        1 - the chance of a false alarm.
    groups : int
        Groups in the study; all pairs of groups are tested, with Bonferroni's correction.
    design_effect : array-like
        (...) by how much people who recur shrink n (`uncertainty.design_effect`).

    Returns
    -------
    numpy.ndarray
        (...) in [0, 1].

    Raises
    ------
    ParameterError
        If the rates leave [0, 1] or the gap is not above 0.

    Misleads: normal approximation; with fewer than some 5 errors a group it promises too much.

    Examples
    --------
    >>> power(0.01, [1000, 6000], 0.05).round(2).tolist()  # 1 point at 95 % accuracy
    [0.16, 0.67]
    """
    gap, low, high, z = _two_rates(gap, rate, level, groups)
    n = to_numpy(n) / to_numpy(design_effect)
    pooled, apart = _spreads(low, high)
    return stats.norm.cdf((gap * np.sqrt(n) - z * pooled) / apart)


def pairs_to_resolve(
    gap,
    rate,
    *,
    power: float = 0.8,
    level: float = 0.95,
    groups: int = 2,
    design_effect=1.0,
) -> np.ndarray | int:
    """Items (pairs, images) each group needs so that a true gap shows with the given power.

    `power` solved for n, times the design effect. Source: Fleiss 1981.

    Parameters
    ----------
    gap, rate, level, groups, design_effect
        As in `power`.
    power : float
        Chance that the study shows the gap.

    Returns
    -------
    int or numpy.ndarray
        A whole number, or int64 (...) where a parameter is an array.

    Raises
    ------
    ParameterError
        If the rates leave [0, 1], the gap is not above 0, or power is no share.

    Misleads: items of the size of the design effect assumed; double it and twice as many are
    needed. A gap that is not there needs no number of items: absence cannot be shown this way.

    Examples
    --------
    >>> pairs_to_resolve(0.005, 0.05)  # half a point at 95 % accuracy
    31234
    """
    gap, low, high, z = _two_rates(gap, rate, level, groups)
    pooled, apart = _spreads(low, high)
    n = ((z * pooled + _z_of(power) * apart) / gap) ** 2
    return _whole(n * to_numpy(design_effect))


def subjects_to_resolve(
    gap, rate, *, pairs_per_subject: float, design_effect, power: float = 0.8, level: float = 0.95
) -> np.ndarray | int:
    """People each group needs so that a true gap shows: `pairs_to_resolve` in people.

    Items needed / items a person. Source: Fleiss 1981 for the items, Kish 1965 for the design
    effect.

    Parameters
    ----------
    gap, rate, power, level
        As in `pairs_to_resolve`.
    pairs_per_subject : float
        Items that each person brings (for impostor pairs, half the pairs a person is in).
    design_effect : array-like
        (...) of such items, measured on a set with as many items a person
        (`uncertainty.design_effect`): it grows with them, so more items of the same people soon
        add little.

    Returns
    -------
    int or numpy.ndarray
        People a group.

    Raises
    ------
    ParameterError
        As `pairs_to_resolve`, or if pairs_per_subject is not above 0.

    Misleads: it stands or falls with the design effect, which a small pilot hardly knows; and with
    few people the normal approximation promises too much, whatever the number of their items.

    Examples
    --------
    >>> subjects_to_resolve(0.01, 0.05, pairs_per_subject=6, design_effect=2.5)
    3400
    """
    _above_zero("pairs_per_subject", pairs_per_subject)
    n = pairs_to_resolve(gap, rate, power=power, level=level, design_effect=design_effect)
    return _whole(n / to_numpy(pairs_per_subject))


def paired_items_to_resolve(
    difference, discordant, *, power: float = 0.8, level: float = 0.95, design_effect=1.0
) -> np.ndarray | int:
    """Items on which two models must be compared so that `mcnemar` shows their true difference.

    n = (z sqrt(s) + z' sqrt(s - d^2))^2 / d^2 with d the difference and s the share of items on
    which just one model is right, plus 1 / d for the exact test's steps (half an item on either
    side, as in Fleiss's correction for two proportions). Source: Connor 1987, but for the 1 / d.

    Parameters
    ----------
    difference : array-like
        (...) true difference of the two accuracies, a fraction above 0.
    discordant : array-like
        (...) share of items on which just one of them is right; at least the difference.
    power, level, design_effect
        As in `pairs_to_resolve`.

    Returns
    -------
    int or numpy.ndarray
        A whole number, or int64 (...) where a parameter is an array.

    Raises
    ------
    ParameterError
        If `discordant` is below the difference or above 1, or a share is none.

    Misleads: everything hangs on `discordant`, which a pilot must tell: two models of one training
    differ on far fewer items than two strangers.

    Examples
    --------
    >>> paired_items_to_resolve(0.005, 0.02)  # half a point, one item in fifty changes sides
    6477
    """
    d, s = to_numpy(difference), to_numpy(discordant)
    _above_zero("difference", d)
    if (s < d).any() or (s > 1).any():
        raise texts.ParameterError(texts.BAD_DISCORDANT.format(value=discordant, least=difference))
    z = stats.norm.isf(tail(level))
    n = ((z * np.sqrt(s) + _z_of(power) * np.sqrt(s - d**2)) / d) ** 2 + 1 / d
    return _whole(n * to_numpy(design_effect))


def _two_rates(gap, rate, level: float, groups: int):
    """The gap, both rates, and the critical z of one of the groups' pairwise tests."""
    gap, low = to_numpy(gap), to_numpy(rate)
    _above_zero("gap", gap)
    texts.at_least(2, groups=groups)
    high = low + gap
    for what, value in (("rate", low), ("rate + gap", high)):
        if not ((value >= 0) & (value <= 1)).all():
            raise texts.ParameterError(texts.NOT_A_FRACTION.format(what=what, value=value))
    return gap, low, high, stats.norm.isf(tail(level) / (groups * (groups - 1) / 2))


def _spreads(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spread of a difference of one item a group: if the rates were equal, and as they are."""
    middle = (low + high) / 2
    return np.sqrt(2 * middle * (1 - middle)), np.sqrt(low * (1 - low) + high * (1 - high))


def _z_of(power: float) -> float:
    texts.share(power=power)
    return stats.norm.ppf(power)


def _above_zero(what: str, value) -> None:
    if not (to_numpy(value) > 0).all():
        raise texts.ParameterError(texts.NOT_ABOVE_ZERO.format(what=what, value=value))


def _whole(n: np.ndarray) -> np.ndarray | int:
    n = np.ceil(n - 1e-9).astype(np.int64)
    return int(n) if n.ndim == 0 else n
