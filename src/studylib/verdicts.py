"""Verdicts by a stated rule: what published figures support, contradict, or leave open.

Three kinds of claim, three rules. A *cell* is one figure that the claim speaks of, such as the
change of a gap in one setting; each has a p-value, and the level is 5 % throughout.

- **a change** ("the gap widens"). Two-sided p of every cell, Holm's correction over all of them.
  Supported if a cell is resolved in the direction said and none in the other; contradicted the
  other way round.
- **no harm** ("no setting widens the gap"). Not seeing a harm does not show that there is none, so
  a margin is needed. Supported if in every cell a harm above the margin is excluded, each by its
  own one-sided test (a claim on all cells needs no correction: it fails with the weakest of them,
  Berger 1982). Contradicted if in some cell a harm above the margin is resolved, after Holm.
- **one that does** ("small, and hardly worse"). Supported if in some cell, after Holm, a loss above
  the margin is excluded; contradicted if in every cell a loss above it is resolved.

Everything else is *not resolved*, which is a verdict on figures that were read. A claim whose
figures were not found gets none of the three: it is marked *no figures found*.

Outcomes of single images and pairs were not published, so every rule is applied twice: cautiously,
which gives the verdict, and under the most favourable relation of before and after that the
published counts allow, which says whether those outcomes could decide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from studylib import errors, published
from studylib.metrics import testing
from studylib.published import Estimate

SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not resolved"
NONE = "no figures found"
VERDICTS = (SUPPORTED, CONTRADICTED, OPEN, NONE)
PAPER, READING, QUESTION = "the paper", "our reading", "our question"  # whose a claim is
CHANGE, HARMLESS, SOME, EXACT = "a change", "no harm", "one that does", "arithmetic"
# What the p of a verdict is the p of: in general, and where the claim is contradicted.
NULLS = {
    CHANGE: ("no change in any figure",) * 2,
    HARMLESS: ("a harm above the margin in some figure", "no harm above the margin in any figure"),
    SOME: ("a loss above the margin in every setting", "none above the margin in some setting"),
}
ALPHA, POWER = testing.ALPHA, 0.8
# what a study must reach, in standard errors, to see an effect four times in five
REACH = float(stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER))
ENOUGH = "enough as it is"


class Margins(NamedTuple):
    """What counts as little: no paper says, so these are ours, and the notebook's parameters."""

    gap: float = 0.02  # a gap between groups, expressions
    accuracy: float = 0.05  # accuracy, expressions
    verification: float = 0.01  # accuracy, verification
    smaller: float = 4.0  # times smaller that counts as a significant reduction


class Tables(NamedTuple):
    """The published tables, and what the claims are judged by."""

    fer: pd.DataFrame
    quantface: pd.DataFrame
    rfw: pd.DataFrame
    stated: pd.DataFrame
    margins: Margins = Margins()
    draws: int = 10_000
    seed: int = 0


class Claim(NamedTuple):
    """One sentence (in our words), where it and its figures stand, how it is judged, and whose.

    `nulls` has what its p speaks against, as `NULLS`, where the rule's own words do not fit.
    """

    key: str
    paper: str
    said: str
    where: str
    rule: str
    judge: Callable[[Tables], Finding]
    whose: str = PAPER
    nulls: tuple[str, str] | None = None


class Finding(NamedTuple):
    """The outcome of a rule, the figures behind it, and the sentences that report them.

    `value`, `low`, `high` are the headline change with its 95 % interval (a fraction), `p` the
    p-value that the verdict hangs on; NaN where there is none. `decidable` says whether outcomes of
    single items could settle an open claim, `needed` what a study would need.
    """

    verdict: str
    evidence: str
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    decidable: bool = False
    needed: str = ENOUGH


class Cell(NamedTuple):
    """One figure a claim speaks of; positive is the direction said (a change) or harm (a loss)."""

    name: str
    cautious: Estimate
    favourable: Estimate


def read(folder, margins: Margins | None = None, *, draws: int = 10_000, seed: int = 0) -> Tables:
    """Read the published tables from their folder.

    Parameters
    ----------
    folder : path-like
        book/published, or a copy.
    margins : Margins, optional
        What counts as little.
    draws, seed : int
        For STD and SER, whose intervals are simulated; 100 draws at least.

    Raises
    ------
    ParameterError
        If a margin is no fraction between 0 and 1, `smaller` is not above 1, or draws or seed are
        too small. The message names the notebook's parameter.
    DataError
        If the folder or a table is missing, or a table is not the one that was carried along.
    """
    margins = margins or Margins()
    fractions = {f"{name}_margin": value for name, value in margins._asdict().items()}
    smaller = fractions.pop("smaller_margin")
    errors.share(**fractions)
    if not 1 < smaller < np.inf:
        raise errors.ParameterError(errors.BAD_SMALLER.format(value=smaller))
    errors.at_least(100, draws=draws)
    errors.at_least(0, seed=seed)
    tables = (published.read_fer, published.read_quantface, published.read_rfw)
    read_all = [read(folder) for read in (*tables, published.read_stated)]
    return Tables(*read_all, margins, draws, seed)


def null(rule: str, verdict: str, nulls: tuple[str, str] | None = None) -> str:
    """The hypothesis that a verdict's p speaks against: the rule's, or a claim's own `nulls`.

    Examples
    --------
    >>> null(HARMLESS, OPEN)
    'a harm above the margin in some figure'
    """
    return (nulls or NULLS[rule])[verdict == CONTRADICTED]


def change_rule(cells: list[Estimate]) -> tuple[str, float]:
    """Rule for a change: the verdict, and the smallest corrected p."""
    return by_sign([cell.value for cell in cells], [cell.p() for cell in cells])


def by_sign(values, p) -> tuple[str, float]:
    """`change_rule` on values and their two-sided p.

    Examples
    --------
    >>> by_sign([0.05, -0.01], [0.001, 0.6]), by_sign([0.05, -0.06], [0.001, 0.001])[0]
    (('supported', 0.002), 'not resolved')
    """
    adjusted = testing.holm(p)
    ways = set(np.sign(values)[adjusted < ALPHA])
    verdict = SUPPORTED if ways == {1.0} else CONTRADICTED if ways == {-1.0} else OPEN
    return verdict, float(adjusted.min())


def harmless_rule(cells: list[Estimate], margin: float) -> tuple[str, float]:
    """Rule for no harm above a margin: the verdict, and the p that it hangs on."""
    within = max(cell.p_below(margin) for cell in cells)
    beyond = float(testing.holm([cell.p_above(margin) for cell in cells]).min())
    if within < ALPHA:
        return SUPPORTED, within
    return (CONTRADICTED, beyond) if beyond < ALPHA else (OPEN, within)


def some_rule(cells: list[Estimate], margin: float) -> tuple[str, float]:
    """Rule for one cell without a loss above a margin: the verdict, and the p it hangs on."""
    some = float(testing.holm([cell.p_below(margin) for cell in cells]).min())
    none = max(cell.p_above(margin) for cell in cells)
    if some < ALPHA:
        return SUPPORTED, some
    return (CONTRADICTED, none) if none < ALPHA else (OPEN, some)


def judge(
    rule: Callable, cells: list[Cell], headline: Cell, evidence: str, size: str, *margin: float
) -> Finding:
    """Apply a rule both ways and put the finding together.

    Parameters
    ----------
    rule : callable
        `change_rule`, `harmless_rule` or `some_rule`.
    cells : list of Cell
        What the claim speaks of.
    headline : Cell
        Whose change and interval stand for the whole.
    evidence : str
        The sentences; "{p}" in them is replaced by the p that the verdict hangs on.
    size : str
        What a study would need, used where the claim stays open.
    *margin : float
        The rule's margin, if it has one.
    """
    verdict, p = rule([cell.cautious for cell in cells], *margin)
    could, _ = rule([cell.favourable for cell in cells], *margin)
    outcomes = "might decide on their own" if could != OPEN else "would not be enough"
    low, high = headline.cautious.interval()
    return Finding(
        verdict,
        evidence.replace("{p}", p_text(p)),
        headline.cautious.value,
        low,
        high,
        p,
        verdict == OPEN != could,
        f"{size}; outcomes of single items {outcomes}" if verdict == OPEN else ENOUGH,
    )


def times_larger(found: Estimate, effect: float) -> float:
    """How many times the test images would resolve an effect of this size, four times in five.

    (z_0.975 + z_0.8)^2 V / effect^2 with the test-set variance V alone, two-sided at 5 %, as
    `testing.pairs_to_resolve` has it for two groups; the run part needs more runs as well.
    """
    return float(REACH**2 * found.test / effect**2)


def points(fraction, digits: int = 1, *, sign: bool = False) -> str:
    """A fraction in percentage points, for a sentence."""
    shown = round(100 * float(fraction), digits) + 0.0  # no minus zero
    return f"{shown:{'+' if sign else ''}.{digits}f}"


def between(interval, digits: int = 1) -> str:
    """An interval of a change in percentage points, for a sentence."""
    return " to ".join(points(end, digits, sign=True) for end in interval)


def p_text(p: float) -> str:
    """A p-value, for a sentence."""
    return "below 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def rounded(value: float) -> str:
    """Two figures: enough for a size that nobody has measured.

    Examples
    --------
    >>> rounded(8.94), rounded(1834)
    ('8.9', '1,800')
    """
    if value < 10:
        return f"{value:.1f}"
    scale = 10 ** (int(np.floor(np.log10(value))) - 1)
    return f"{round(value / scale) * scale:,}"
