"""Identities to train a recognition network on, and trials to test it by: simulated, or yours.

A trial says which faces are compared in which pairs: all of them, a protocol's fixed ones, or
templates of several pictures. `trial` makes it from any evaluation set, `scores` has a network
judge it.

Simulated training sets differ in their group shares, and the simulated test is laid out as RFW.
Three sets of shares are patterned after the kinds of training set in use: one made balanced, one
that follows a large population, one that follows who is in the press. The numbers are this study's
own, and so are the groups: simulated faces of simulated groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from studylib import align, datasets, embed, errors
from studylib.datasets import packed
from studylib.datasets.ijbc import Templates
from studylib.datasets.packed import Joined, Packed
from studylib.faces import GROUP_COLUMNS, Faces
from studylib.metrics import resampling, thresholds, uncertainty
from studylib.metrics.arrays import divide
from studylib.synthetic import simfaces

SIMULATED = "simfaces"
# Group -> share of the identities.
SHARES = {
    "balanced": {"A": 0.25, "B": 0.25, "C": 0.25, "D": 0.25},
    "global": {"A": 0.40, "B": 0.30, "C": 0.18, "D": 0.12},
    "skewed": {"A": 0.76, "B": 0.12, "C": 0.08, "D": 0.04},
}
USES = ("train", "test", "spare")  # people of one use are nobody of another
FOLDS = 10
EVERYBODY = "everybody"  # the group of sets that name none


def training_set(
    data_set: str,
    root: str | Path | None = None,
    *,
    packed_dir: str | Path | None = None,
    broken: str = "refuse",
    shares: str = "balanced",
    n_people: int = 400,
    per_person: int = 12,
    size: int = 48,
    seed: int = 0,
    device="cpu",
) -> Faces | Packed:
    """Faces by identity to train on.

    Parameters
    ----------
    data_set : str
        simfaces, or a set of identities in the catalog.
    root : path, optional
        The reader's own copy of such a set.
    packed_dir : path, optional
        Where its pictures are decoded to, once; a folder ROOT-packed-SIZE beside root by default.
    broken : {"refuse", "skip"}
        What to do about a picture that cannot be decoded: see `packed.pack`.
    shares, n_people, per_person, seed, device
        Of simulated people alone: see `people`.
    size : int
        Side of a face in pixels.

    Returns
    -------
    Faces or Packed
        With `label`, the number of the identity, from 0.

    Raises
    ------
    DataError
        As `datasets.open_identities` and `packed.pack`.
    ParameterError
        As `people`.
    """
    if data_set == SIMULATED:
        about = {"use": "train", "shares": shares, "size": size, "seed": seed, "device": device}
        return people(n_people, per_person, **about)
    pictures = datasets.open_identities(data_set, root)
    root = Path(root).expanduser().absolute()
    folder = Path(packed_dir or root.with_name(f"{root.name}-packed-{size}")).expanduser()
    return packed.pack(pictures, folder, size=size, broken=broken)


def test_set(
    data_set: str,
    root: str | Path | None = None,
    *,
    n_people: int = 240,
    per_person: int = 8,
    per_group: int = 2000,
    size: int = 48,
    seed: int = 0,
    device="cpu",
) -> tuple[Faces, pd.DataFrame]:
    """Faces to test on, and the pairs in which they are compared.

    Parameters
    ----------
    data_set : str
        simfaces, or a set of pairs in the catalog.
    root : path, optional
        The reader's own copy of such a set.
    n_people, per_person, per_group, seed, device
        Of simulated people alone: see `people` and `pairs_within_groups`.
    size : int
        Side of a face in pixels; photographs are resized.

    Returns
    -------
    faces : Faces
    pairs : pandas.DataFrame
        As `datasets.load_pairs` gives them; all pairs of a set without groups are of one.

    Raises
    ------
    DataError
        As `datasets.load_pairs`.
    ParameterError
        As `people` and `pairs_within_groups`.
    """
    if data_set == SIMULATED:
        faces = people(n_people, per_person, use="test", size=size, seed=seed, device=device)
        return faces, pairs_within_groups(faces, per_group=per_group, seed=seed)
    faces, pairs = datasets.load_pairs(data_set, root)
    if "group" not in pairs:
        pairs = pairs.assign(group=EVERYBODY)
    return align.resized(faces, size), pairs


class Trial(NamedTuple):
    """Who is compared with whom.

    Attributes
    ----------
    name : str
        The data set's.
    faces : Faces or Templates
        At the network's size; templates are read when they are embedded.
    pairs : pandas.DataFrame
        The outcomes without scores, a row a pair: see `embed.all_pairs` and `embed.pair_table`.
    fixed : pandas.DataFrame or None
        The positions `a` and `b` of a protocol's pairs; None where all pairs are compared.
    spare : Faces or None
        Faces of people who are not evaluated.
    missed : list of str
        Pictures without a detected face.
    size : int
        Side of a face in pixels.
    """

    name: str
    faces: Faces | Templates
    pairs: pd.DataFrame
    fixed: pd.DataFrame | None
    spare: Faces | None
    missed: list[str]
    size: int


def trial(
    data_set: str,
    root: str | Path | None = None,
    *,
    size: int,
    spare: float = 0.0,
    seed: int = 0,
    n_people: int = 240,
    per_person: int = 8,
    per_group: int = 2000,
    data_seed: int = 0,
    device="cpu",
) -> Trial:
    """Faces to evaluate on, whatever their protocol.

    Parameters
    ----------
    data_set : str
        simfaces, or a set of the catalog: of faces (all pairs are compared), of pairs, or of
        templates.
    root : path, optional
        The reader's own copy of such a set.
    size : int
        Side of a face that the network takes, in pixels.
    spare, seed : float, int
        Of a set of faces alone: the share of its people who are kept for calibration, and the seed
        of that split.
    n_people, per_person, per_group, data_seed, device
        Of simulated people alone: see `test_set`.

    Raises
    ------
    DataError
        As `datasets.load`, `load_pairs` and `load_templates`.
    ParameterError
        As `test_set`, and for a share that is none.
    """
    kind = "pairs" if data_set == SIMULATED else datasets.kind(data_set)
    if kind == "faces":
        faces, missed = datasets.load(data_set, root)
        kept, faces = faces.split_by_subject(spare, seed) if spare else (None, faces)
        kept, faces = (align.resized(part, size) if part else part for part in (kept, faces))
        return Trial(data_set, faces, embed.all_pairs(faces), None, kept, missed, size)
    if kind == "templates":
        templates = datasets.load_templates(data_set, root)
        pairs = embed.template_table(templates)
        return Trial(data_set, templates, pairs, templates.pairs, None, [], size)
    faces, fixed = test_set(
        data_set,
        root,
        n_people=n_people,
        per_person=per_person,
        per_group=per_group,
        size=size,
        seed=data_seed,
        device=device,
    )
    return Trial(data_set, faces, embed.pair_table(faces, fixed), fixed, None, [], size)


def scores(model: nn.Module, trial: Trial, *, device="cpu") -> np.ndarray:
    """A network's score of every pair of a trial: the cosine of the two embeddings.

    Fixed pairs and templates add the embedding of each mirrored face, as their protocols do.

    Returns
    -------
    numpy.ndarray
        float32 (P,), in the order of `trial.pairs`.
    """
    if trial.fixed is None:
        return embed.score_all_pairs(embed.embed(model, trial.faces, device=device)).numpy()
    if isinstance(trial.faces, Templates):
        rows = embed.embed_templates(model, trial.faces, device=device, size=trial.size)
    else:
        rows = embed.embed(model, trial.faces, device=device, batch_size=64, mirror=True)
    return embed.score_pairs(rows, trial.fixed).numpy()


def shown(trial: Trial) -> Faces:
    """Some faces of a trial, to look at."""
    if isinstance(trial.faces, Faces):
        return trial.faces
    first = trial.faces.batch(0, 16)
    names = trial.faces.pictures["name"][: len(first)]
    return Faces(first, pd.DataFrame({"item": names, "subject": names}), trial.name)


def counts(people: Faces | Packed) -> pd.DataFrame:
    """Identities and pictures of a training set, by group where it names any."""
    table, column = people.table, group_column(people.table)
    by = table[column] if column else pd.Series("all", index=table.index)
    found = table.groupby(by).agg(identities=("subject", "nunique"), pictures=("item", "size"))
    found.loc["all"] = found.sum() if column else found.loc["all"]
    return found


def agreement(
    pairs: pd.DataFrame,
    one: str,
    other: str,
    *,
    groups: str = "group",
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """How often two networks decide alike, each by its own threshold for everybody.

    A threshold is the one at which the network is most accurate (`thresholds.decide`,
    "global_best_accuracy"), so two networks of other scales of scores can be compared.

    Parameters
    ----------
    pairs : pandas.DataFrame
        Outcomes: `subject_a`, `subject_b`, `genuine`, the group column and the two scores.
    one, other : str
        Names of the columns of scores.
    groups : str
        Name of the group column.
    resamples, seed : int
        Of people within their group, behind the intervals; thresholds stay as they are.

    Returns
    -------
    pandas.DataFrame
        A row a group, and "all": group, n (pairs), value, low, high (95 %), as fractions.
    """
    codes, _ = pd.factorize(pairs[groups], sort=True)
    accepted = [
        thresholds.decide("global_best_accuracy", pairs[score], pairs["genuine"], codes).accepted
        for score in (one, other)
    ]
    subjects = [pairs[f"subject_{side}"].astype(str) for side in "ab"]
    alike = accepted[0] == accepted[1]
    return _means(alike, pairs[groups], *subjects, resamples=resamples, seed=seed, rates=True)


def likeness(
    rows: torch.Tensor, wanted: torch.Tensor, faces: Faces, *, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Mean cosine of two networks' embeddings of the same faces, by group.

    Parameters
    ----------
    rows, wanted : torch.Tensor
        (N, D), rows of length 1.
    faces : Faces
        N faces with `subject`.
    resamples, seed : int
        Of people within their group.

    Returns
    -------
    pandas.DataFrame
        A row a group, and "all": group, n (faces), value, low, high (95 %).
    """
    column = group_column(faces.table)
    groups = faces.table[column].astype(str) if column else pd.Series([EVERYBODY] * len(faces))
    cosines = torch.linalg.vecdot(rows, wanted).double().numpy()
    subjects = faces.table["subject"].astype(str)
    return _means(cosines, groups, subjects, resamples=resamples, seed=seed, rates=False)


def _means(values, groups, a, b=None, *, resamples: int, seed: int, rates: bool) -> pd.DataFrame:
    """Mean of a value a row by group, with an interval over people resampled within their group."""
    names = sorted(groups.unique())
    member = np.stack([*(groups == name for name in names), np.ones(len(values), bool)], axis=1)
    code_a, code_b, people_names = resampling.subject_codes(a, b)
    strata = np.zeros(len(people_names), np.int64)
    for codes in (code_b, code_a):  # some people are only ever second
        strata[codes] = pd.factorize(groups, sort=True)[0]
    columns = np.concatenate([member * values[:, None], member], axis=1)  # (N, 2 (G + 1))
    sums = resampling.cluster_sums(
        columns, code_a, code_b, strata=strata, resamples=resamples, seed=seed
    )
    sums = np.concatenate([columns.sum(0, keepdims=True), sums])
    draws = divide(*np.split(sums, 2, axis=1))  # (1 + resamples, G + 1)
    rows = []
    for name, drawn, n in zip([*names, "all"], draws.T, member.sum(0), strict=True):
        low, high = np.nanpercentile(drawn[1:], [2.5, 97.5])
        found = {"value": drawn[0], "low": low, "high": high}
        rows.append(
            {"group": name, "n": int(n)} | (uncertainty.interval(drawn, n) if rates else found)
        )
    return pd.DataFrame(rows)


def group_column(table: pd.DataFrame) -> str | None:
    """The column that holds people's groups: `group`, or else the first of `GROUP_COLUMNS`."""
    return next((column for column in ("group", *GROUP_COLUMNS) if column in table), None)


def some(people: Faces | Packed | Joined, n: int, seed: int) -> Faces:
    """`n` faces of a training set, drawn without replacement."""
    index = np.random.default_rng(seed).permutation(len(people))[:n]
    return people.take(index) if isinstance(people, Faces) else people.faces(np.sort(index))


def people(
    n_people: int,
    per_person: int,
    *,
    use: str,
    shares: str = "balanced",
    domain: str = "camera",
    size: int = 48,
    seed: int = 0,
    device="cpu",
) -> Faces:
    """Simulated faces by identity.

    Parameters
    ----------
    n_people, per_person : int
        Identities, and pictures of each.
    use : {"train", "test", "spare"}
        What they are for: whoever is used for one thing is used for no other, at any seed.
    shares : {"balanced", "global", "skewed"}
        How the identities are shared among the groups (`SHARES`).
    domain : {"camera", "generator"}
        See `simfaces.faces`.
    size : int
        Side in pixels, 32 to 128.
    seed : int
        Other seeds are other people.
    device : str or torch.device
        What draws.

    Returns
    -------
    Faces
        uint8 (n_people * per_person, 3, size, size); `label` (int64) is the identity's number, and
        expressions are one more thing that varies.

    Raises
    ------
    ParameterError
        As `simfaces.faces`, and for an unknown use or name of shares.
    """
    errors.one_of("use of identities", use, USES)
    errors.one_of("group shares", shares, SHARES)
    drawn = simfaces.faces(
        n_people,
        per_person,
        size=size,
        channels=3,
        shares=SHARES[shares],
        domain=domain,
        seed=len(USES) * seed + USES.index(use),
        device=device,
    )
    label, _ = pd.factorize(drawn.table["subject"], sort=True)
    return Faces(drawn.images, drawn.table.assign(label=label.astype(np.int64)), drawn.origin)


def pairs_within_groups(faces: Faces, *, per_group: int = 6000, seed: int = 0) -> pd.DataFrame:
    """Verification pairs laid out as RFW's: within a group, in ten folds, half of them genuine.

    Each fold has people of its own. Impostors are drawn at random from the fold; RFW chose hard
    ones, by a network that is not public.

    Parameters
    ----------
    faces : Faces
        With `subject` and `group`.
    per_group : int
        Pairs of each group, a multiple of 20; RFW has 6,000.
    seed : int
        Of the folds and of the draw.

    Returns
    -------
    pandas.DataFrame
        A row a pair, group by group, fold by fold, genuine pairs first: `a`, `b` (int64 positions
        in `faces`), `genuine` (bool), `fold` (0 to 9) and `group`. No pair comes twice.

    Raises
    ------
    ParameterError
        If some fold has too few different pairs, or `per_group` is no multiple of 20.
    """
    if per_group < 2 * FOLDS or per_group % (2 * FOLDS):
        raise errors.ParameterError(errors.BAD_PAIR_COUNT.format(value=per_group, step=2 * FOLDS))
    rng = np.random.default_rng(seed)
    parts = []
    for group, rows in faces.table.groupby("group", sort=True):
        names = rng.permutation(np.sort(rows["subject"].unique()))
        for fold, folk in enumerate(np.array_split(names, FOLDS)):
            positions = np.flatnonzero(faces.table["subject"].isin(folk))
            subjects = faces.table["subject"].to_numpy()[positions]
            for genuine in (True, False):
                first, second = _draw(subjects, genuine, per_group // (2 * FOLDS), rng, group)
                said = {"genuine": genuine, "fold": fold, "group": group}
                parts.append(pd.DataFrame({"a": positions[first], "b": positions[second], **said}))
    return pd.concat(parts, ignore_index=True)


def _draw(subjects, genuine, wanted, rng, group) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `wanted` different pairs of one person, or of two, in the order of faces."""
    first, second = np.triu_indices(len(subjects), 1)
    of_kind = np.flatnonzero((subjects[first] == subjects[second]) == genuine)
    if len(of_kind) < wanted:
        kind = "genuine" if genuine else "impostor"
        raise errors.ParameterError(
            errors.TOO_FEW_PAIRS.format(group=group, found=len(of_kind), kind=kind, wanted=wanted)
        )
    drawn = np.sort(rng.permutation(of_kind)[:wanted])
    return first[drawn], second[drawn]
