"""What each group gets from whose faces calibrated the network, with both kinds of chance.

Calibration sets of one size differ in their composition: balanced, one group alone, or no
photograph at all. Each composition is drawn several times, from people of each draw's own (`deal`).
A response is a mean over the items of a group (faces, pairs of faces); an effect is a weighted sum
of responses (`contrasts`), such as a composition's less the balanced one's. Two sources of chance
are kept apart (`estimates`):

- **people**: other test people would have given other means. All networks are tested on the same
  people, so averaging draws does not average this part away.
- **draws**: other faces of the same composition would have given other ranges. Over R draws the
  variance of their mean is s^2/R, s being their sample standard deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import special

from studylib import calibration, charts, errors
from studylib.compress import quantize
from studylib.faces import Faces
from studylib.metrics import resampling, testing, uncertainty
from studylib.published import Estimate

BALANCED = "balanced"
EVERY = "mean of groups"
# The kinds of effect: see `contrasts`.
LEVEL, LESS, APART, OWN = "level", "less balanced", "less the mean change", "own group"
FP32 = "fp32"  # in the place of a composition: nothing was calibrated
ONLY = "only-"  # before the name of the one group of a composition
_TWO_SIDED = 0.975


def compositions(
    pool: Faces, n: int, draws: int, *, column: str, seed: int
) -> dict[str, list[Faces]]:
    """Calibration sets of one size: balanced, and of each group alone, every one drawn anew.

    Parameters
    ----------
    pool : Faces
        Faces with groups, of people who are not tested.
    n : int
        Faces of a set.
    draws : int
        Sets of each composition.
    column : str
        The group column.
    seed : int
        Of all draws.

    Returns
    -------
    dict of str to list of Faces
        balanced, only-<group>, ...: `draws` sets each. Nobody is in two draws. Within a draw the
        sets share faces (a group's faces of the balanced set are in the group's own), so their
        differences are paired.

    Raises
    ------
    ParameterError
        As `calibration.composed`, when a draw's people have too few faces of a group; and for
        fewer than two draws, or than two groups.
    """
    errors.at_least(2, draws=draws)
    parts = deal(pool, draws, column=column, seed=seed)
    groups = sorted(pool.table[column].dropna().unique())
    if len(groups) < 2:
        found = groups[0] if groups else None
        raise errors.ParameterError(errors.ONE_GROUP.format(source=pool.origin, group=found))
    shares = {BALANCED: dict.fromkeys(groups, 1 / len(groups))}
    shares |= {f"{ONLY}{group}": {group: 1.0} for group in groups}
    return {
        name: [calibration.composed(part, n, of, seed=seed, column=column) for part in parts]
        for name, of in shares.items()
    }


def deal(pool: Faces, draws: int, *, column: str, seed: int) -> list[Faces]:
    """Deal the people of each group out to the draws, so that nobody is in two of them.

    Raises
    ------
    ParameterError
        If the faces have no such column, or fewer draws than one are wanted.
    """
    errors.at_least(1, draws=draws)
    errors.one_of("group column", column, set(pool.table))
    people = pool.table[["subject", column]].drop_duplicates("subject").sort_values("subject")
    people = people.sample(frac=1, random_state=seed)
    draw = people.groupby(column, observed=True).cumcount() % draws  # none where nobody's group is
    of_person = pd.Series(draw.to_numpy(), index=people["subject"].to_numpy())
    of_face = pool.table["subject"].map(of_person).to_numpy()
    return [pool.take(of_face == k) for k in range(draws)]


@torch.no_grad()
def width(model: torch.nn.Module) -> float:
    """How wide the activation ranges of a calibrated network are: their geometric mean."""
    found = quantize.activation_quantizers(model)
    widths = torch.stack([(one.high - one.low).mean() for one in found])
    return float(widths.clamp_min(1e-8).log().mean().exp())


class Items(NamedTuple):
    """What is judged, and to whom it belongs: faces of one person, or pairs of two.

    `group` is int64 (N,), codes of `groups`, negative for an item that does not count;
    `subject_a` and `subject_b` are int64 (N,), codes of people. `kind` is bool (N,), genuine or
    impostor, whose shares are the test's and not chance; None for faces.
    """

    groups: list[str]
    group: np.ndarray
    subject_a: np.ndarray
    subject_b: np.ndarray | None = None
    kind: np.ndarray | None = None

    def of_kind(self, genuine: bool) -> Items:
        """The same items, of which only genuine or only impostor pairs count."""
        return self._replace(group=np.where(self.kind == genuine, self.group, -1))


def items(faces: Faces, pairs: pd.DataFrame) -> tuple[Items, Items]:
    """Describe a test's faces and its pairs.

    Parameters
    ----------
    faces : Faces
        N faces.
    pairs : pandas.DataFrame
        P pairs: `a`, `b` (positions in faces), `genuine` and `group`, as `recognition.test_set`
        gives them.

    Returns
    -------
    of_faces, of_pairs : Items
        A face's group is that of the pairs it is in; a face in no pair does not count.

    Raises
    ------
    DataError
        If a group lacks genuine or impostor pairs.
    """
    codes, groups = pd.factorize(pairs["group"], sort=True)
    counts = pd.crosstab(pairs["group"], pairs["genuine"]).reindex(columns=[True, False])
    for group, (genuine, impostor) in counts.fillna(0).astype(int).iterrows():
        if not (genuine and impostor):
            found = {"group": group, "genuine": genuine, "impostor": impostor}
            raise errors.DataError(errors.ONE_KIND_OF_GROUP.format(**found))
    person = pd.factorize(faces.table["subject"], sort=True)[0].astype(np.int64)
    of_face = np.full(len(faces), -1, np.int64)
    for side in "ab":
        of_face[pairs[side].to_numpy()] = codes
    genuine = pairs["genuine"].to_numpy(bool)
    a, b = (person[pairs[side].to_numpy()] for side in "ab")
    return Items([*groups], of_face, person), Items([*groups], codes, a, b, genuine)


def contrasts(names: list[str], groups: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Effects as weights of responses.

    Parameters
    ----------
    names : list of str
        C compositions, among them balanced; others, such as fp32 or noise, have any name.
    groups : list of str
        G groups of the test.

    Returns
    -------
    about : pandas.DataFrame
        K rows: effect, composition, group.

        - "level" is a response itself.
        - "less balanced" is a composition's response less balanced's; also its mean over groups.
        - "less the mean change" is a group's such difference less that mean: whether the
          composition moves groups apart. What a draw does to everybody cancels from it.
        - "own group" is a group's response to its own faces alone, less the mean of its responses
          to every other group's; also its mean over groups. What a composition does to everybody
          is in the effect of a single group, and cancels from the mean.
    weights : numpy.ndarray
        float64 (K, C, G).

    Examples
    --------
    >>> about, weights = contrasts(["balanced", "only-A", "only-B"], ["A", "B"])
    >>> about.iloc[-1].tolist(), weights[-1].tolist()
    (['own group', 'only-', 'mean of groups'], [[0.0, 0.0], [0.5, -0.5], [-0.5, 0.5]])
    """
    unit = np.eye(len(names) * len(groups)).reshape(len(names), len(groups), len(names), -1)
    at = {(n, g): unit[i, j] for i, n in enumerate(names) for j, g in enumerate(groups)}
    rows = [(LEVEL, *cell, weights) for cell, weights in at.items()]
    for name in (name for name in names if name not in (BALANCED, FP32)):
        less = [at[name, group] - at[BALANCED, group] for group in groups]
        rows += [
            (LESS, name, group, of_group) for group, of_group in zip(groups, less, strict=True)
        ]
        if len(groups) > 1:
            mean = np.mean(less, 0)
            rows.append((LESS, name, EVERY, mean))
            rows += [(APART, name, g, of_g - mean) for g, of_g in zip(groups, less, strict=True)]
    both = [group for group in groups if f"{ONLY}{group}" in names]
    own = []
    for group in both if len(both) > 1 else []:
        others = [at[f"{ONLY}{other}", group] for other in both if other != group]
        own.append(at[f"{ONLY}{group}", group] - np.mean(others, 0))
        rows.append((OWN, f"{ONLY}{group}", group, own[-1]))
    if own:
        rows.append((OWN, ONLY, EVERY, np.mean(own, 0)))
    about = pd.DataFrame([row[:3] for row in rows], columns=["effect", "composition", "group"])
    return about, np.stack([row[3] for row in rows])


def estimates(
    values: np.ndarray, of: Items, weights: np.ndarray, *, resamples: int, seed: int
) -> list[Estimate]:
    """Effects with their variance from the test people (`test`) and from the draws (`runs`).

    People are resampled within their group, the same ones for all networks. A group's mean moves by
    the sum over its items of their distance from it (first order, so that one pass serves every
    effect); thresholds are held. Noise of impostor pairs, which products of weights count three
    times, is taken out by `resampling.dyadic_draws`. For pairs the variance is at least that of no
    pair changing sides among so many (Wilson 1927): no draw of an event that was not seen shows it.

    Parameters
    ----------
    values : numpy.ndarray
        (C, R, N) what each item showed under composition c in draw r; bool or float.
    of : Items
        N items.
    weights : numpy.ndarray
        float64 (K, C, G), from `contrasts`.
    resamples, seed : int
        Resamples of people, and their seed.

    Returns
    -------
    list of Estimate
        K effects; degrees of freedom are people less groups, and R - 1.
    """
    draws = values.shape[1]
    cell = of.group * 2 + (0 if of.kind is None else of.kind)
    size = np.bincount(of.group[of.group >= 0], minlength=len(of.groups))
    means = np.zeros((*values.shape[:2], len(of.groups)))  # (C, R, G)
    shares = np.zeros((len(weights), len(of.group)))  # (K, N) how far an item moves an effect
    for code in np.unique(cell[of.group >= 0]):
        at, g = np.flatnonzero(cell == code), code // 2
        part = values[..., at].mean(1)  # (C, n)
        means[..., g] += values[..., at].sum(-1) / size[g]
        shares[:, at] = weights[..., g] @ (part - part.mean(-1, keepdims=True)) / size[g]
    by_draw = np.einsum("kcg,crg->kr", weights, means)
    test = _people_draws(shares, of, resamples, seed).var(0)
    used = (weights != 0).any(1)  # (K, G)
    people = np.array([len(np.unique(_people_of(of, g))) for g in range(len(of.groups))])
    df = np.maximum(used @ (people - 1), 1)
    if of.subject_b is not None:
        least = uncertainty.wilson(0, used @ size)[1] / special.stdtrit(df, _TWO_SIDED)
        test = np.maximum(test, least**2)
    runs = by_draw.var(1, ddof=1) / draws
    columns = (by_draw.mean(1), test, runs, df)
    return [Estimate(*map(float, row), draws - 1) for row in zip(*columns, strict=True)]


def _people_draws(shares: np.ndarray, of: Items, resamples: int, seed: int) -> np.ndarray:
    """How far each effect moves when people are resampled within their group: (resamples, K)."""
    b = of.subject_a if of.subject_b is None else of.subject_b
    stratum = np.full(max(of.subject_a.max(), b.max()) + 1, -1)
    for g in range(len(of.groups)):
        stratum[_people_of(of, g)] = g
    own = of.subject_a == b
    moved = []
    for part in (own, ~own):  # pairs of two people apart: their noise is counted too often
        given = (shares.T * part[:, None], of.subject_a, b)
        moved.append(
            resampling.cluster_sums(*given, strata=stratum, resamples=resamples, seed=seed)
        )
    noise = (shares[:, ~own] ** 2).sum(1)
    return moved[0] + resampling.dyadic_draws(moved[1], noise)


def _people_of(of: Items, g: int) -> np.ndarray:
    """Codes of the people in a group, once an item."""
    sides = [of.subject_a] + ([] if of.subject_b is None else [of.subject_b])
    return np.concatenate([side[of.group == g] for side in sides])


def responses(
    names: list[str],
    measured: dict[str, tuple[np.ndarray, Items]],
    tested: tuple[str, ...],
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """All effects of all metrics, with intervals and, of the tested ones, corrected p-values.

    Parameters
    ----------
    names : list of str
        C compositions.
    measured : dict
        Metric -> values (C, R, N) and their `Items`.
    tested : tuple of str
        The metrics whose effects (not levels) make up the family of Holm's correction.
    resamples, seed : int
        Resamples of people, and their seed.

    Returns
    -------
    pandas.DataFrame
        metric, effect, composition, group (`contrasts`); value; low and high (95 %, both sources),
        people_low and people_high (test people alone); se_people and se_draws; p and p_holm (NaN
        where nothing was tested), family (how many were).
    """
    parts = []
    for metric, (values, of) in measured.items():
        about, weights = contrasts(names, of.groups)
        rows = []
        for found in estimates(values, of, weights, resamples=resamples, seed=seed):
            low, high = found.interval()
            people_low, people_high = found._replace(runs=0.0).interval()
            row = {"value": found.value, "low": low, "high": high}
            row |= {"people_low": people_low, "people_high": people_high}
            row |= {"se_people": found.test**0.5, "se_draws": found.runs**0.5}
            rows.append(row | {"p": found.p()})
        parts.append(pd.concat([about, pd.DataFrame(rows)], axis=1).assign(metric=metric))
    table = pd.concat(parts, ignore_index=True)
    level = table["effect"] == LEVEL
    least = table["metric"].map(
        {m: -1.0 if of.kind is None else 0.0 for m, (_, of) in measured.items()}
    )
    for end in ("low", "high", "people_low", "people_high"):
        table[end] = table[end].where(~level, table[end].clip(least, 1.0))
    in_family = table["metric"].isin(tested) & ~level
    table["p"] = table["p"].where(in_family)
    table["p_holm"] = testing.holm(table["p"].to_numpy())
    return table.assign(family=int(in_family.sum()))


def resolved(table: pd.DataFrame) -> pd.Series:
    """Mark the effects that hold after Holm's correction."""
    return table["p_holm"] <= testing.ALPHA


def sentences(table: pd.DataFrame) -> list[str]:
    """Say in words what a table of `responses` shows, whatever that is.

    Returns
    -------
    list of str
        For each metric a line each on compositions, on groups moved apart, and on own groups.
    """
    said = []
    for metric, tested in table[table["p"].notna()].groupby("metric", sort=False):
        less, apart, own = (tested[tested["effect"] == kind] for kind in (LESS, APART, OWN))
        said.append(
            f"**{metric}**: {_counted(less)} differences from the balanced set are resolved"
            f"{_moves(less[resolved(less)])}. {_worst(less)} Of the variance of a difference, "
            f"{_draw_share(less):.0%} is of the draw of faces (median), the rest of the people "
            "tested."
        )
        if len(apart):
            reach = 100 * apart[["low", "high"]].abs().to_numpy().max()
            said.append(
                f"**{metric}, between groups**: {_counted(apart)} of the groups' changes are "
                "resolved from the mean change of all groups"
                f"{_moves(apart[resolved(apart)])}. {_worst(apart)} No interval (95 %, each by "
                f"itself) reaches further than {reach:.2f} points."
            )
        if len(own):
            said.append(_own(metric, own.set_index("group")))
    if not (table["effect"] == OWN).any():
        said.append(
            "The calibration sets and the test share fewer than two groups, so whether a group "
            "gains from its own faces cannot be told."
        )
    return said


def _counted(part: pd.DataFrame) -> str:
    return f"{int(resolved(part).sum())} of {len(part)}"


def _moves(less: pd.DataFrame) -> str:
    """Name the compositions with resolved differences, and the groups in which these are."""
    words = []
    for (name, up), part in less.groupby(["composition", less["value"] > 0], sort=False):
        words.append(f"{name} {'higher' if up else 'lower'}: {charts.listed(part['group'])}")
    return f" ({'; '.join(words)})" if words else ""


def _worst(less: pd.DataFrame) -> str:
    """Say where the largest difference is, in either direction."""
    row = less.loc[less["value"].abs().idxmax()]
    return f"The largest is that of {row['composition']}, {row['group']}: {_span(row)}."


def _draw_share(less: pd.DataFrame) -> float:
    """Take the median share of variance that is of the draws, where there is any variance."""
    total = less["se_people"] ** 2 + less["se_draws"] ** 2
    return float((less["se_draws"] ** 2 / total.where(total > 0)).fillna(0.0).median())


def _own(metric: str, own: pd.DataFrame) -> str:
    """Say whether groups gain from being the calibration set."""
    mean, groups = own.loc[EVERY], own.drop(EVERY)
    verdict = "not resolved"
    if mean["p_holm"] <= testing.ALPHA:
        verdict = "resolved: a group " + ("gains" if mean["value"] > 0 else "loses")
    single = groups[resolved(groups)]
    some = "; ".join(f"{group} {_span(row)}" for group, row in single.iterrows())
    return (
        f"**{metric}, own group**: calibrated on its own faces and not on another group's, a "
        f"group's response changes on average by {_span(mean)}, which is {verdict}. Single groups: "
        f"{some or 'none is resolved'}."
    )


def _span(row) -> str:
    return f"{100 * row['value']:+.2f} points ({100 * row['low']:+.2f} to {100 * row['high']:+.2f})"
