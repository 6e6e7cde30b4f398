"""Verification: error rates of genuine and impostor scores over all thresholds.

A pair is accepted if its score is at or above the threshold. FMR is the share of impostor pairs
accepted (false matches), FNMR the share of genuine pairs refused. Sufficient statistics first: one
sort, then cumulative weights; every rate is read off them. A weight counts a pair several times
(or not at all), which is how resampling reaches every statistic here without a second sort.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from studylib import errors


class Curve(NamedTuple):
    """Error rates at every distinct threshold, from the strictest to the most lenient.

    `threshold` is float64 (T,), falling; `fmr` and `fnmr` are float64 (..., T), one curve for each
    row of weights. The first threshold is +inf, where nothing is accepted.
    """

    threshold: np.ndarray
    fmr: np.ndarray
    fnmr: np.ndarray


class Sorted(NamedTuple):
    """A score set put in order once: what any number of weighted curves needs."""

    order: np.ndarray  # (N,) positions of the pairs, highest score first
    last: np.ndarray  # (T,) position in that order of the last pair of each distinct score
    threshold: np.ndarray  # (T,) the distinct scores, falling
    genuine: np.ndarray  # (N,) bool, in that order


def sort_scores(scores, genuine) -> Sorted:
    """Order pairs by score, ties together.

    Parameters
    ----------
    scores : array-like
        (N,) finite; higher is more alike.
    genuine : array-like
        (N,) bool, true where both faces are of one person.

    Raises
    ------
    DataError
        If a score is not finite, or one of the two kinds of pair is missing.
    """
    scores, genuine = np.asarray(scores, np.float64), np.asarray(genuine, bool)
    if not np.isfinite(scores).all():
        raise errors.DataError(
            errors.NOT_FINITE.format(count=int((~np.isfinite(scores)).sum()), total=len(scores))
        )
    if genuine.all() or not genuine.any():
        raise errors.DataError(
            errors.ONE_KIND.format(genuine=int(genuine.sum()), impostor=int((~genuine).sum()))
        )
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return Sorted(order, last, ordered[last], genuine[order])


def curve(scores: Sorted, weights: np.ndarray | None = None) -> Curve:
    """FMR and FNMR at every threshold.

    Parameters
    ----------
    scores : Sorted
        From `sort_scores`.
    weights : numpy.ndarray, optional
        (..., N) how often each pair counts, in the pairs' own order; once each if not given.

    Returns
    -------
    Curve
        Rows of weights without any genuine (or any impostor) pair give NaN.

    Examples
    --------
    >>> points = curve(sort_scores([0.9, 0.2, 0.6, 0.1], [True, True, False, False]))
    >>> points.fmr.tolist(), points.fnmr.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [1.0, 0.5, 0.5, 0.0, 0.0])
    """
    weights = np.ones(len(scores.order)) if weights is None else weights[..., scores.order]
    accepted_genuine = np.cumsum(weights * scores.genuine, -1)
    accepted_impostor = np.cumsum(weights * ~scores.genuine, -1)
    with np.errstate(invalid="ignore"):
        tmr = accepted_genuine[..., scores.last] / accepted_genuine[..., -1:]
        fmr = accepted_impostor[..., scores.last] / accepted_impostor[..., -1:]
    return Curve(np.append(np.inf, scores.threshold), _from_zero(fmr), 1 - _from_zero(tmr))


def _from_zero(rates: np.ndarray) -> np.ndarray:
    """Put the rate at an infinite threshold first: 0, or NaN where there is no pair to count."""
    return np.concatenate([np.where(np.isnan(rates[..., :1]), np.nan, 0.0), rates], -1)


def eer(points: Curve) -> np.ndarray:
    """Equal error rate: the mean of FMR and FNMR where they are closest; (...,).

    Examples
    --------
    >>> eer(curve(sort_scores([0.9, 0.2, 0.6, 0.1], [True, True, False, False]))).item()
    0.5
    """
    gap = np.abs(points.fmr - points.fnmr)
    at = gap.argmin(-1, keepdims=True)
    both = np.take_along_axis(points.fmr, at, -1) + np.take_along_axis(points.fnmr, at, -1)
    return both[..., 0] / 2


def tar_at_far(points: Curve, far: float) -> np.ndarray:
    """TAR (1 - FNMR) at the most lenient threshold whose FMR is at most `far`; (...,).

    Where impostor pairs are fewer than 1 / far, that threshold accepts no impostor at all.
    """
    at = _at_fmr(points, far)
    tar = 1 - np.take_along_axis(points.fnmr, at[..., None], -1)[..., 0]
    return np.where(np.isnan(points.fmr[..., 0]), np.nan, tar)


# The study's three verification rates; each takes a Curve and gives a rate for each of its rows.
STATISTICS = {
    "EER": eer,
    "TAR@FAR=1e-2": partial(tar_at_far, far=1e-2),
    "TAR@FAR=1e-3": partial(tar_at_far, far=1e-3),
}


def threshold_at_fmr(points: Curve, fmr: float) -> float:
    """The most lenient threshold whose FMR is at most `fmr`, of a single curve."""
    return float(points.threshold[_at_fmr(points, fmr)])


def thresholds_at_fmr(table: pd.DataFrame, variants: list[str], fmr: float) -> dict[str, float]:
    """Each variant's `threshold_at_fmr` over all pairs of a table of outcomes."""
    curves = {v: curve(sort_scores(table[f"score_{v}"], table["genuine"])) for v in variants}
    return {v: threshold_at_fmr(points, fmr) for v, points in curves.items()}


def _at_fmr(points: Curve, fmr: float) -> np.ndarray:
    """Position of the last threshold with FMR <= fmr; FMR never falls along the curve."""
    return (points.fmr <= fmr).sum(-1).clip(1) - 1


def histogram(table: pd.DataFrame, variants: list[str], bins: int = 60) -> pd.DataFrame:
    """Score densities of genuine and impostor pairs, for drawing.

    Parameters
    ----------
    table : pandas.DataFrame
        Verification outcomes: genuine, and score_<variant> columns.
    variants : list of str
        The variants to look at; all share the bins.
    bins : int
        Bins from the lowest to the highest score of any variant.

    Returns
    -------
    pandas.DataFrame
        Columns variant, genuine, low, high, density (integrates to 1 for each kind of pair).
    """
    scores = table[[f"score_{v}" for v in variants]].to_numpy()
    edges = np.linspace(scores.min(), scores.max(), bins + 1)
    rows = []
    for variant, column in zip(variants, scores.T, strict=True):
        for genuine in (True, False):
            density, _ = np.histogram(column[table["genuine"] == genuine], edges, density=True)
            about = {"variant": variant, "genuine": genuine, "low": edges[:-1], "high": edges[1:]}
            rows.append(pd.DataFrame(about | {"density": density}))
    return pd.concat(rows, ignore_index=True)


def det_points(table: pd.DataFrame, variants: list[str]) -> pd.DataFrame:
    """DET curves of several variants, thinned for drawing: columns variant, fmr, fnmr."""
    curves = []
    for variant in variants:
        points = thin(curve(sort_scores(table[f"score_{variant}"], table["genuine"])))
        about = {"variant": variant, "fmr": points.fmr, "fnmr": points.fnmr}
        curves.append(pd.DataFrame(about))
    return pd.concat(curves, ignore_index=True)


def thin(points: Curve, n: int = 200) -> Curve:
    """At most about n points of a single curve, evenly spread over log FMR and log FNMR."""
    keep = {0, len(points.threshold) - 1}
    for rate in (points.fmr, points.fnmr[::-1]):
        floor = rate[rate > 0].min(initial=1.0)
        wanted = np.geomspace(floor, 1, n // 2)
        at = np.searchsorted(rate, wanted).clip(max=len(rate) - 1)
        keep.update(at if rate is points.fmr else len(rate) - 1 - at)
    at = np.array(sorted(keep))
    return Curve(*(values[at] for values in points))
