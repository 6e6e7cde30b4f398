"""Photographs of real people against generated faces: what does a student learn from either?

A generated face shows nobody, and shows nobody twice, so no label says which faces are of one
person: a network can learn from such faces only by copying another network's embeddings. Students
are therefore taught by a teacher alone, on as many photographs, generated faces, or some of both,
and judged on people whom none of them has seen.

Two sources of chance are in every interval, as in `audit.grid`: other test people, and other seeds
of the training.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from studylib import align, errors, models, recognition, train_recognition
from studylib.audit import grid
from studylib.datasets import packed
from studylib.distill import Teaching
from studylib.faces import Faces
from studylib.metrics import testing, thresholds, uncertainty, verification
from studylib.published import Estimate
from studylib.verdicts import between, p_text, points

TEACHER, UNTRAINED = "teacher", "untrained"
SETS = ("real", "generated", "mix")
# What is asked: the first minus the second.
AMONG_SETS = (("generated", "real"), ("mix", "real"), ("mix", "generated"))
BESIDE_TEACHER = tuple((name, TEACHER) for name in SETS)
BESIDE_UNTRAINED = tuple((name, UNTRAINED) for name in SETS)
CALLED = {"real": "photographs", "generated": "generated faces", "mix": "the mix"}
EVERYBODY = "everybody"
FEWEST = 4  # of three people, every ninth resample holds a single one, and so no impostor
CEILING = 0.999  # above it next to nothing is wrong, and resamples of nothing tell nothing
ACCURACY, AUC = "accuracy, 10 folds", "AUC, all pairs"


def greyed(faces: Faces, size: int = align.SIZE) -> Faces:
    """Faces without colour, on three equal channels: uint8 (N, 3, size, size).

    Brightness has the weights of ITU-R BT.601; what is grey already keeps its values at its own
    size.
    """
    pictures = faces.images.permute(0, 2, 3, 1).numpy()  # (N, H, W, 3)
    grey = [align.resize(picture, size=size, grey=True) for picture in pictures]
    return Faces(torch.stack(grey).expand(-1, 3, -1, -1).contiguous(), faces.table, faces.origin)


def generated_in_mix(n: int, share: float) -> int:
    """How many of a mix's n faces are generated.

    Raises
    ------
    ParameterError
        A share that leaves one of the two kinds out.

    Examples
    --------
    >>> generated_in_mix(128, 0.3)
    38
    """
    found = round(share * n)
    if not 0 < found < n:
        raise errors.ParameterError(errors.BAD_SHARE.format(what="synthetic_share", value=share))
    return found


def pool(
    real: Faces, generated: Faces, share: float, seed: int
) -> tuple[Faces, dict[str, np.ndarray]]:
    """Faces to teach with, and three sets of equally many of them.

    Parameters
    ----------
    real, generated : Faces
        Of one size; N of each are drawn, as many as the smaller of the two has.
    share : float
        Of generated faces in the mix, which takes its faces from the two other sets.
    seed : int
        Of the draws.

    Returns
    -------
    faces : Faces
        The 2 N faces, photographs first, with `item`, `subject` and `domain`.
    chosen : dict of str to numpy.ndarray
        "real", "generated", "mix" -> int64 (N,), positions in `faces`.

    Raises
    ------
    ParameterError
        A share that leaves one of the two out of the mix.
    """
    n = min(len(real), len(generated))
    of_mix = generated_in_mix(n, share)
    parts = real.sample(n, seed), generated.sample(n, seed)
    tables = [
        part.table[["item", "subject"]].assign(domain=domain)
        for part, domain in zip(parts, ("real", "synthetic"), strict=True)
    ]
    images = torch.cat([part.images for part in parts])
    both = Faces(images, pd.concat(tables, ignore_index=True), real.origin)
    first, second = (np.random.default_rng([seed, k]).permutation(n) + k * n for k in (0, 1))
    mix = np.sort(np.concatenate([first[: n - of_mix], second[:of_mix]]))
    return both, {"real": np.arange(n), "generated": np.arange(n, 2 * n), "mix": mix}


def rehearse(architecture: str, settings: dict, size: int, *, weight: float, **recipe) -> None:
    """Train a student for one step on noise, which refuses what the real training would refuse.

    Parameters
    ----------
    architecture, settings, size
        Of the student (`models.build`), and the side of its faces in pixels.
    weight : float
        Of the loss.
    **recipe
        Of `train_recognition.fit`: batch_size, lr, milestones.

    Raises
    ------
    ParameterError
        Whatever of these cannot be trained with.
    """
    student = models.build(architecture, **settings | {"size": size, "embedding": 2}, seed=0)
    n = max(2, recipe["batch_size"])
    pixels = torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(0))
    table = pd.DataFrame({"item": [str(i) for i in range(n)]})
    teaching = Teaching(torch.eye(2)[torch.arange(n) % 2][:, None], weight=weight)  # (n, 1, 2)
    noise = Faces(pixels.to(torch.uint8), table.assign(subject=table["item"]), "noise")
    recipe["milestones"] = tuple(recipe["milestones"])
    train_recognition.fit(student, None, noise, teaching=teaching, epochs=1, seed=0, **recipe)


def fingerprints(sets: dict[str, Faces | None]) -> pd.DataFrame:
    """Which faces a run is about, without a picture: a row a set that is there.

    Returns
    -------
    pandas.DataFrame
        set, origin, faces (how many), sha256 (`packed.fingerprint`: of pixels and table).
    """
    rows = [
        {"set": name, "origin": one.origin, "faces": len(one), "sha256": packed.fingerprint(one)}
        for name, one in sets.items()
        if one is not None
    ]
    return pd.DataFrame(rows)


def repeated(faces: Faces) -> Faces:
    """Faces of the people who have at least two."""
    counts = faces.table.groupby("subject", observed=True)["item"].transform("size")
    return faces.take((counts > 1).to_numpy())


def pairs_of_people(faces: Faces, n: int, seed: int) -> pd.DataFrame:
    """Verification pairs in ten folds of different people, half of them genuine.

    See `recognition.pairs_within_groups`; here everybody is in one group, which is not named.
    """
    alike = Faces(faces.images, faces.table.assign(group=EVERYBODY), faces.origin)
    pairs = recognition.pairs_within_groups(alike, per_group=n, seed=seed)
    return pairs.drop(columns="group")


def closeness(rows: torch.Tensor, wanted: torch.Tensor) -> float:
    """Mean cosine of a student's embeddings and the teacher's: unit rows (N, D) of the same faces.

    Examples
    --------
    >>> closeness(torch.eye(2), torch.eye(2).flip(0))
    0.0
    """
    return float((rows * wanted).sum(1).mean())


class Judged(NamedTuple):
    """How every network does on one group of a test, in the set and in resamples of its people.

    `drawn.variants` are the networks: a set and a seed ("mix-0"), or the teacher alone.
    """

    test: str
    group: str
    metric: str
    people: int
    pairs: int
    least: float  # half the width of an interval where all networks are above `CEILING`
    drawn: uncertainty.Resampled


def folded(
    test: str, table: pd.DataFrame, networks: list[str], *, resamples: int, seed: int
) -> Judged:
    """Accuracy on pairs in ten folds, each judged by a threshold that suits the nine others.

    Thresholds are held while people are resampled.

    Parameters
    ----------
    test : str
        What the test is called.
    table : pandas.DataFrame
        Outcomes in the order of their folds: genuine, subject_a, subject_b, score_<network>.
    networks : list of str
        The networks.
    resamples, seed : int
        Resamples of people, and their seed.
    """
    genuine = table["genuine"].to_numpy(bool)
    alike = np.zeros(len(table), np.int64)
    scores = (table[f"score_{name}"].to_numpy() for name in networks)
    found = [thresholds.decide("per_group_10fold", one, genuine, alike).accepted for one in scores]
    right = np.stack([*(one == genuine for one in found), np.ones(len(table), bool)], 1)
    a, b, names = uncertainty.subject_codes(table["subject_a"], table["subject_b"])
    sums = uncertainty.cluster_sums(right, a, b, resamples=resamples, seed=seed)  # (R, S + 1)
    values = np.concatenate([right.mean(0)[None, :-1], sums[:, :-1] / sums[:, -1:]]).T
    drawn = uncertainty.Resampled(networks, [ACCURACY], values[:, None], int(genuine.sum()))
    least = float(uncertainty.wilson(0, len(table))[1])
    return Judged(test, EVERYBODY, ACCURACY, len(names), len(table), least, drawn)


def by_group(
    test: str,
    table: pd.DataFrame,
    column: str | None,
    networks: list[str],
    *,
    fewest: int,
    resamples: int,
    seed: int,
) -> list[Judged]:
    """AUC over all pairs, and over those within each group of at least `fewest` people.

    The AUC is how often a pair of one person scores above a pair of two. It needs no threshold,
    which some ten genuine pairs could not find. Above `CEILING` the least half-width is Wilson's
    bound (1927) for no event among the genuine pairs.

    Parameters
    ----------
    table : pandas.DataFrame
        Outcomes with <column>_a and <column>_b.
    column : str or None
        The group column; None: everybody alone.

    Raises
    ------
    ParameterError
        If fewest is below `FEWEST`.
    """
    errors.at_least(FEWEST, fewest=fewest)
    parts = {EVERYBODY: table}
    if column is not None:
        a, b = (table[f"{column}_{side}"].astype(str) for side in "ab")
        parts |= {name: table[(a == name) & (b == name)] for name in sorted(a.unique())}
    found = []
    for k, (group, part) in enumerate(parts.items()):
        people = len(uncertainty.subject_codes(part["subject_a"], part["subject_b"])[2])
        if part["genuine"].nunique() < 2 or (group != EVERYBODY and people < fewest):
            continue
        # a seed each: people of two groups are drawn apart
        given = {"resamples": resamples, "seed": seed + k}
        drawn = uncertainty.resample(part, networks, {AUC: verification.auc}, **given)
        full = float(uncertainty.wilson(0, drawn.n_genuine)[1])
        found.append(Judged(test, group, AUC, people, len(part), full, drawn))
    return found


def levels(tests: list[Judged], seeds: list[int]) -> pd.DataFrame:
    """How good each set's students are on average over seeds, and the teacher.

    Returns
    -------
    pandas.DataFrame
        test, group, metric, set, networks, people, pairs, value, low, high (95 %).
    """
    rows = []
    for test in tests:
        for name in (TEACHER, *SETS, UNTRAINED):
            found, networks = _average(test, name, None, seeds)
            about = {"test": test.test, "group": test.group, "metric": test.metric, "set": name}
            about |= {"networks": networks, "people": test.people, "pairs": test.pairs}
            rows.append(about | _numbers(found, 0.0, 1.0))
    return pd.DataFrame(rows)


def contrasts(tests: list[Judged], seeds: list[int]) -> pd.DataFrame:
    """What the sets differ in, from each other, the teacher and no training, by pair and seed.

    An untrained network has the first weights of the students of its seed. Holm's correction counts
    the comparisons of one family: those of a test among sets, or with the teacher, or with the
    untrained, over everybody; or over all its groups.

    Returns
    -------
    pandas.DataFrame
        test, group, metric, one, other, people, value (one minus other), low, high (95 %), p,
        family, tests (its size), p_holm.
    """
    rows = []
    kinds = {"sets": AMONG_SETS, "teacher": BESIDE_TEACHER, "untrained": BESIDE_UNTRAINED}
    for test in tests:
        for kind, asked in kinds.items():
            over = EVERYBODY if test.group == EVERYBODY else "groups"
            for one, other in asked:
                found, _ = _average(test, one, other, seeds)
                about = {"test": test.test, "group": test.group, "metric": test.metric}
                about |= {"one": one, "other": other, "people": test.people}
                family = f"{test.test}, {over}, {kind}"
                rows.append(about | _numbers(found, -1.0, 1.0) | _tested(found, family))
    return _corrected(pd.DataFrame(rows))


def between_groups(tests: list[Judged], seeds: list[int]) -> pd.DataFrame:
    """Whether a difference of two sets is another one in a group than in the largest group.

    Returns
    -------
    pandas.DataFrame
        As `contrasts`, with `beside`, the largest group; empty with fewer than two groups.
    """
    groups = [test for test in tests if test.group != EVERYBODY]
    if len(groups) < 2:
        return pd.DataFrame(columns=["group", "beside", "one", "other", "p_holm"])
    largest = max(groups, key=lambda test: test.people)
    rows = []
    for test in groups:
        for one, other in AMONG_SETS if test is not largest else ():
            found, _ = _average(test, one, other, seeds, beside=largest)
            about = {"test": test.test, "group": test.group, "metric": test.metric}
            about |= {"beside": largest.group, "one": one, "other": other, "people": test.people}
            family = f"{test.test}, between groups"
            rows.append(about | _numbers(found, -2.0, 2.0) | _tested(found, family))
    return _corrected(pd.DataFrame(rows))


def _average(
    test: Judged, one: str, other: str | None, seeds: list[int], beside: Judged | None = None
) -> tuple[Estimate, int]:
    """Average a set's value, or its difference from another's, over seeds; and of how many."""
    rows = []
    for seed in seeds if one != TEACHER else seeds[:1]:
        values = _values(test, one, other, seed)
        if beside is not None:
            values = values - _values(beside, one, other, seed)
        levels = [_values(test, name, None, seed)[0] for name in (one, other) if name]
        least = test.least if min(levels) > CEILING else 0.0
        rows.append(grid.Row(str(seed), one, other or "", "", "", values[0], values[1:], least))
    people = test.people if beside is None else min(test.people, beside.people)
    return grid.estimate(rows, np.zeros(len(rows)), people)[0], len(rows)


def _values(test: Judged, one: str, other: str | None, seed: int) -> np.ndarray:
    """A network's metric, or a difference, in the set and in resamples: (1 + R,)."""
    drawn = test.drawn
    values = drawn.values[drawn.variants.index(_network(one, seed)), 0]
    if other is None:
        return values
    return values - drawn.values[drawn.variants.index(_network(other, seed)), 0]


def _network(name: str, seed: int) -> str:
    return name if name == TEACHER else f"{name}-{seed}"


def _numbers(found: Estimate, least: float, most: float) -> dict[str, float]:
    low, high = found.interval()
    return {"value": found.value, "low": max(low, least), "high": min(high, most)}


def _tested(found: Estimate, family: str) -> dict:
    return {"p": found.p(), "family": family}


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    by = table.groupby("family")["p"]
    return table.assign(
        tests=by.transform("count").astype(int),
        p_holm=by.transform(lambda p: testing.holm(p.to_numpy(float))).astype(float),
    )


def check_stored(tables: dict[str, pd.DataFrame], folder: str) -> None:
    """Refuse stored tables (`results.read`) that hold no untrained networks, which all is told by.

    Raises
    ------
    DataError
        Another notebook stored them, or an earlier version of this one.
    """
    for name, column in (("levels", "set"), ("contrasts", "other")):
        if UNTRAINED not in set(tables.get(name, pd.DataFrame()).get(column, ())):
            raise errors.DataError(errors.OTHER_STORED.format(folder=folder, table=name))


def figure(compared: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Differences among the sets as `charts_tradeoff.gaps` draws them; `names` are the tests'."""
    among = compared[~compared["other"].isin([TEACHER, UNTRAINED])]
    return pd.DataFrame(
        {
            "panel": [f"{row.one} minus {row.other}" for row in among.itertuples()],
            "setting": [_where(row, names) for row in among.itertuples()],
            "method": among["metric"].to_numpy(),
            **{name: among[name].to_numpy() for name in ("value", "low", "high")},
        }
    )


def shown(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Levels as `charts_fairness.group_intervals` draws them, a group a set of faces."""
    panels = [f"{row.metric}; {_where(row, names)}" for row in table.itertuples()]
    return table.assign(
        series="students and teacher", metric=panels, group=table["set"], n=table["pairs"]
    )


def findings(
    level: pd.DataFrame,
    compared: pd.DataFrame,
    apart: pd.DataFrame,
    names: dict[str, str],
    margin: float,
) -> str:
    """What the tables of `levels`, `contrasts` and `between_groups` say, as Markdown.

    A gap, and what the mix gives, are told relative to photographs: only where the test resolves
    that these have taught something.

    Parameters
    ----------
    names : dict of str to str
        Test -> what it is called.
    margin : float
        A loss up to which one set counts as no worse than another, a fraction; and a gain below
        which photographs taught too little for a gap to be judged.
    """
    lines = []
    for test, called in names.items():
        every = (compared["test"] == test) & (compared["group"] == EVERYBODY)
        part = compared[every].set_index(["one", "other"])
        own = level[(level["test"] == test) & (level["group"] == EVERYBODY)].set_index("set")
        lines += [
            f"- **{called}** ({own['metric'].iloc[0]}; {own['people'].iloc[0]} people). "
            + f"Teacher {_percent(own.loc[TEACHER])}; students taught on photographs "
            + f"{_percent(own.loc['real'])}, on generated faces {_percent(own.loc['generated'])}, "
            + f"on the mix {_percent(own.loc['mix'])}; untrained {_percent(own.loc[UNTRAINED])}.",
            *_unlearnt(part),
            *_verdicts(part, margin),
        ]
        lines += _of_groups(compared[(compared["test"] == test) & ~every], apart)
    return "\n".join(lines)


def _learnt(part: pd.DataFrame) -> list[str]:
    """The sets whose students are resolved above an untrained network."""
    beside = part.loc[list(BESIDE_UNTRAINED)]
    clear = (beside["p_holm"] < testing.ALPHA) & (beside["value"] > 0)
    return [name for name, _ in beside.index[clear]]


def _unlearnt(part: pd.DataFrame) -> list[str]:
    """Warn of every set whose students are not resolved above untrained ones."""
    learnt = _learnt(part)
    lost = [
        f"{CALLED[name]} {_change(part.loc[name, UNTRAINED])}"
        for name in SETS
        if name not in learnt
    ]
    if not lost:
        return []
    return [
        "  - Not resolved to be better than an untrained network of the same shape are the "
        f"students taught on: {'; '.join(lost)}. With {part['people'].iloc[0]} people that is no "
        "proof that they learnt nothing."
    ]


def _verdicts(part: pd.DataFrame, margin: float) -> list[str]:
    """The gap and the mix; neither where it is not resolved that photographs taught anything."""
    gap, mix = part.loc[("generated", "real")], part.loc[("mix", "real")]
    if "real" in _learnt(part):
        both = part.loc[("mix", "generated")]
        sure = "resolved" if both["p_holm"] < testing.ALPHA else "not resolved"
        return [
            f"  - The synthetic gap, {_gap(gap)}",
            f"  - {_no_worse(mix, margin)}",
            f"  - The mix minus generated faces alone is {_change(both)}: {sure}.",
        ]
    why = "So this test does not judge the gap, though one with more people or seeds might."
    if part.loc[("real", UNTRAINED), "high"] < margin:
        why = (
            "So this test cannot judge the gap: its interval for what photographs taught ends "
            f"below {points(margin)} points."
        )
    return [
        f"  - {why} Generated faces minus as many photographs is {_change(gap)}, the mix minus "
        f"photographs {_change(mix)}. No verdict follows from either."
    ]


def _where(row, names: dict[str, str]) -> str:
    called = names.get(row.test, row.test)
    return called if row.group == EVERYBODY else f"{called}: {row.group}"


def _percent(row) -> str:
    return f"{points(row['value'])} % ({points(row['low'])} to {points(row['high'])})"


def _change(row) -> str:
    # Without these words an interval off zero would contradict "not resolved".
    off_zero = row["low"] * row["high"] > 0 and row["p_holm"] >= testing.ALPHA
    taken = ", off zero for this difference taken alone" if off_zero else ""
    return (
        f"{points(row['value'], sign=True)} points "
        f"({between((row['low'], row['high']))}{taken}; p = {p_text(row['p_holm'])} after Holm's "
        f"correction in a family of {row['tests']})"
    )


def _gap(row) -> str:
    said = f"generated faces minus as many photographs, is {_change(row)}: "
    if row["p_holm"] >= testing.ALPHA:
        return said + "not resolved, so it may be smaller or larger, or none."
    if row["value"] < 0:
        return said + "it is there, and the teacher's embeddings do not close it."
    return said + "here the generated faces teach more."


def _no_worse(row, margin: float) -> str:
    said = f"The mix minus photographs alone is {_change(row)}. That a mix does as well with a "
    if row["low"] > -margin:
        verdict = "supported"
    else:
        verdict = "contradicted" if row["high"] < -margin else "not resolved"
    allowed = f"allowing a loss of {points(margin)} points"
    return f"{said}teacher is **{verdict}** by these students and pictures ({allowed})."


def _of_groups(compared: pd.DataFrame, apart: pd.DataFrame) -> list[str]:
    parts = compared.groupby("group", sort=False)
    able = [name for name, own in parts if "real" in _learnt(own.set_index(["one", "other"]))]
    unable = [name for name in compared["group"].unique() if name not in able]
    gaps = compared[(compared["one"] == "generated") & (compared["other"] == "real")]
    gaps = gaps[gaps["group"].isin(able)]
    lines = []
    if unable:
        lines.append(
            "  - No gap is told where students taught on photographs are not resolved above "
            f"untrained ones: {', '.join(unable)}."
        )
    if gaps.empty:
        return lines
    said = ", ".join(
        f"{row.group} {points(row.value, sign=True)} ({between((row.low, row.high))}; "
        f"{row.people} people)"
        for row in gaps.itertuples()
    )
    lines.append(
        f"  - The gap by group, in points: {said}. Each interval is of one group taken alone; "
        f"after Holm's correction in a family of {gaps['tests'].iloc[0]} the gap is resolved in "
        f"{(gaps['p_holm'] < testing.ALPHA).sum()} of {len(gaps)} groups."
    )
    other = apart[(apart["one"] == "generated") & (apart["other"] == "real")]
    other = other[other["group"].isin(able) & other["beside"].isin(able)]
    if len(other):
        differing = other.loc[other["p_holm"] < testing.ALPHA, "group"].tolist()
        lines.append(
            f"  - It is another gap than in the largest group ({other['beside'].iloc[0]}) "
            + (f"in: {', '.join(differing)}." if differing else "in no group that can be told.")
        )
    return lines
