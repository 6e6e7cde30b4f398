"""Training sets of real and synthetic faces, mixed by identity and alike in every group.

Neto et al. (2024) train on real faces, on synthetic ones, and on mixtures of the two, merged within
each ethnicity. A mixture here takes people of the synthetic set by one share in every group, and
leaves as large a share of every group's real people out. With `mix` that is a share of each set, so
of a small synthetic set it takes few: `realised` says which part of the people is synthetic, and
only between sets of one size is it the share. In the other two, real people are replaced, and the
groups stand to each other as those of the real set. Draws are
nested: whoever is in the synthetic part at one share is in it at every larger one, and so for the
real part at smaller shares; two mixtures differ by as few people as they can.

    set                 identities of the real set      identities of the synthetic set
    real                all                             none
    synthetic           none                            all
    mix                 1 - share of them               share of them
    mix_equal_ids       together as many as the real set has, share of them synthetic
    mix_equal_images    together as many pictures as the real set has, share of them synthetic

Which identities the paper's mixtures hold is not published; its share, 30 % synthetic, is `SHARE`.
Where nothing is at hand, simulated faces as a camera sees them stand for real ones, and those of
other simulated people as a generator would draw them for synthetic ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from studylib import errors, recognition
from studylib.datasets.packed import Joined, Packed
from studylib.faces import Faces

REAL, SYNTHETIC = DOMAINS = ("real", "synthetic")
MIXTURES = ("mix", "mix_equal_ids", "mix_equal_images")
SETS = (*DOMAINS, *MIXTURES)
SHARE = 0.3  # synthetic, in the mixture that the paper sets against real data alone
UNKNOWN = "unknown"  # the group of people in a set that names none
GENERATED = 2**20  # added to the seed of generated people, who are nobody's twins


def training_set(
    name: str,
    share: float = SHARE,
    *,
    real_set: str = recognition.SIMULATED,
    real_root: str | Path | None = None,
    synthetic_set: str = recognition.SIMULATED,
    synthetic_root: str | Path | None = None,
    packed_dir: str | Path | None = None,
    broken: str = "refuse",
    shares: str = "balanced",
    n_people: int = 400,
    per_person: int = 12,
    n_synthetic: int | None = None,
    per_synthetic: int | None = None,
    size: int = 48,
    seed: int = 0,
    device="cpu",
) -> Faces | Joined:
    """Faces by identity to train on.

    Parameters
    ----------
    name : str
        One of `SETS`.
    share : float
        Of synthetic identities (or pictures) in a mixture, 0 to 1.
    real_set, synthetic_set : str
        simfaces, or a set of identities in the catalog; for a mixture, both of one kind.
    real_root, synthetic_root : path, optional
        The reader's own copies of such sets.
    packed_dir : path, optional
        Where their pictures are decoded to, once, in a folder each; beside the roots by default.
    broken : {"refuse", "skip"}
        What to do about a picture that cannot be decoded: see `packed.pack`.
    shares, n_people, per_person, device
        Of simulated people alone: see `recognition.people`.
    n_synthetic, per_synthetic : int, optional
        Simulated people whom a generator draws, and pictures of each; None: as real ones.
    size : int
        Side of a face in pixels.
    seed : int
        Of simulated people, and of the draw.

    Returns
    -------
    Faces or Joined
        With `label`, the number of the identity, from 0, and `domain`, real or synthetic.

    Raises
    ------
    DataError
        As `recognition.training_set` and `draw`.
    ParameterError
        As `recognition.training_set` and `draw`; simulated faces to be mixed with others.
    """
    _check(name, share)
    sets = {REAL: real_set, SYNTHETIC: synthetic_set}
    roots = {REAL: real_root, SYNTHETIC: synthetic_root}
    n_synthetic = n_people if n_synthetic is None else n_synthetic
    per_synthetic = per_person if per_synthetic is None else per_synthetic
    if name in MIXTURES and len({one == recognition.SIMULATED for one in sets.values()}) > 1:
        raise errors.ParameterError(errors.MIXED_KINDS.format(**sets))

    def load(domain: str) -> Faces | Packed:
        if sets[domain] != recognition.SIMULATED:
            folder = Path(packed_dir) / domain if packed_dir else None
            given = {"packed_dir": folder, "broken": broken, "size": size}
            return recognition.training_set(sets[domain], roots[domain], **given)
        about = {"use": "train", "shares": shares, "size": size, "device": device}
        if domain == REAL:
            return recognition.people(n_people, per_person, seed=seed, **about)
        about |= {"domain": "generator", "seed": seed + GENERATED}
        return recognition.people(n_synthetic, per_synthetic, **about)

    return joined(name, share, load, seed=seed)


def synthetic_share(name: str, share: float = SHARE) -> float:
    """The share of synthetic people (of pictures, in `mix_equal_images`) in a training set.

    Examples
    --------
    >>> [synthetic_share(name, 0.3) for name in ("real", "mix", "synthetic")]
    [0.0, 0.3, 1.0]
    """
    _check(name, share)
    return {REAL: 0.0, SYNTHETIC: 1.0}.get(name, share)


def joined(
    name: str, share: float, load: Callable[[str], Faces | Packed], *, seed: int = 0
) -> Faces | Joined:
    """A training set out of two, which are loaded only where they are needed.

    Parameters
    ----------
    name, share, seed
        As `training_set` and `draw` take them.
    load : callable
        Of "real" or "synthetic"; gives that set, with `subject` in its table: both Faces, or both
        Packed.

    Returns
    -------
    Faces or Joined
        Faces in memory where faces were given, else rows of the packed sets, which are read when
        they are asked for. The table has `item` and `subject`, as DOMAIN/NAME, `label` (numbered
        anew), `domain`, and `group` (`UNKNOWN` where a set names none).

    Raises
    ------
    DataError, ParameterError
        As `draw`.
    """
    _check(name, share)
    loaded = {domain: load(domain) for domain in DOMAINS if name in (domain, *MIXTURES)}
    if name in MIXTURES:
        rows = draw(name, share, *(data.table for data in loaded.values()), seed=seed)
        rows = dict(zip(DOMAINS, rows, strict=True))
    else:
        rows = {name: np.arange(len(loaded[name]))}
    rows = {domain: index for domain, index in rows.items() if len(index)}
    table = _table({domain: loaded[domain].table.iloc[index] for domain, index in rows.items()})
    origin = " and ".join(dict.fromkeys(loaded[domain].origin for domain in rows))
    if all(isinstance(data, Packed) for data in loaded.values()):
        return Joined(tuple(loaded[d] for d in rows), tuple(rows.values()), table, origin)
    images = torch.cat([loaded[d].images[torch.from_numpy(index)] for d, index in rows.items()])
    return Faces(images, table, origin)


def draw(
    name: str, share: float, real: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the rows of a real and of a synthetic set that make up a mixture.

    People come with all their pictures. Numbers of people are rounded within each group, numbers
    of pictures are met as nearly as whole people can.

    Parameters
    ----------
    name : str
        One of `MIXTURES`.
    share : float
        Of synthetic identities (of pictures, in `mix_equal_images`), 0 to 1.
    real, synthetic : pandas.DataFrame
        A row a picture, with `subject`, and a group column where identities have groups. If the
        synthetic set has none, its part is drawn at large, and the real part by group.
    seed : int
        Of the order in which people are taken; 0 or more.

    Returns
    -------
    tuple of numpy.ndarray
        int64, the rows of the real and of the synthetic set, ascending.

    Raises
    ------
    DataError
        The two sets name different groups.
    ParameterError
        Unknown name, a share out of range, or fewer synthetic people than the mixture takes.

    Examples
    --------
    >>> real = pd.DataFrame({"subject": list("aabbccdd"), "group": list("AAAABBBB")})
    >>> fake = pd.DataFrame({"subject": list("ppqqrrss"), "group": list("AAAABBBB")})
    >>> ours, theirs = draw("mix", 0.5, real, fake)
    >>> real["group"][ours].tolist(), fake["group"][theirs].tolist()
    (['A', 'A', 'B', 'B'], ['A', 'A', 'B', 'B'])
    """
    errors.one_of("mixture", name, MIXTURES)
    _check(name, share)
    errors.at_least(0, seed=seed)
    ours, theirs = _people(real), _people(synthetic)
    named, found = set(ours["group"]), set(theirs["group"])
    if found not in (named, {UNKNOWN}):
        text = errors.OTHER_GROUPS_MIXED.format(real=sorted(named), synthetic=sorted(found))
        raise errors.DataError(text)
    unit = "pictures" if name == "mix_equal_images" else "identities"
    of_real = ours.groupby("group")[unit].sum().to_dict()
    replaced = {group: _round(share * total) for group, total in of_real.items()}
    if name == "mix":
        wanted = {group: _round(share * len(part)) for group, part in theirs.groupby("group")}
    else:
        wanted = replaced if found == named else {UNKNOWN: sum(replaced.values())}
    left = {group: total - replaced[group] for group, total in of_real.items()}
    kept = _first(ours, left, unit, seed, REAL)
    added = _first(theirs, wanted, unit, seed, SYNTHETIC)
    return tuple(
        np.flatnonzero(table["subject"].astype(str).isin(names))
        for table, names in ((real, kept), (synthetic, added))
    )


def _first(people: pd.DataFrame, wanted: dict[str, int], unit: str, seed: int, domain: str):
    """The first people of each group, in random order, so many that their units come nearest."""
    chosen = []
    for group, part in people.groupby("group"):
        rng = np.random.default_rng([seed, DOMAINS.index(domain), *group.encode()])
        part = part.iloc[rng.permutation(len(part))]
        reached = np.concatenate([[0], part[unit].cumsum()])
        if wanted[group] - reached[-1] > part[unit].max() / 2:
            said = {"found": reached[-1], "wanted": wanted[group], "unit": unit}
            raise errors.ParameterError(errors.FEW_SYNTHETIC.format(group=group, **said))
        chosen += part.index[: np.abs(reached - wanted[group]).argmin()].tolist()
    return chosen


def _people(table: pd.DataFrame) -> pd.DataFrame:
    """A row a subject, sorted: group, pictures, and 1 in `identities`, to count by either."""
    column = recognition.group_column(table)
    named = {"subject": table["subject"].astype(str)}
    named["group"] = table[column].astype(str) if column else UNKNOWN
    found = (
        pd.DataFrame(named)
        .groupby("subject")
        .agg(group=("group", "first"), pictures=("group", "size"))
    )
    return found.assign(identities=1)


def _round(value: float) -> int:
    """The nearest whole number, halves up: it never falls as the value rises."""
    return int(np.floor(value + 0.5 + 1e-9))


def _table(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The joined rows: names that tell the domains apart, and labels 0..K-1 over both."""
    found = []
    for domain, part in parts.items():
        column = recognition.group_column(part)
        named = {name: f"{domain}/" + part[name].astype(str) for name in ("item", "subject")}
        group = part[column].astype(str) if column else UNKNOWN
        found.append(pd.DataFrame(named).assign(domain=domain, group=group))
    table = pd.concat(found, ignore_index=True)
    codes, _ = pd.factorize(table["subject"], sort=True)
    table["label"] = codes.astype(np.int64)
    return table.astype(dict.fromkeys(("subject", "domain", "group"), "category"))


def counts(people: Faces | Joined) -> pd.DataFrame:
    """Identities and pictures of a training set, a row a domain and group.

    Returns
    -------
    pandas.DataFrame
        domain, group, identities, pictures.
    """
    by = people.table.groupby(["domain", "group"], observed=True)
    return by.agg(identities=("subject", "nunique"), pictures=("item", "size")).reset_index()


def realised(people: Faces | Joined) -> float:
    """The part of a training set's identities that is synthetic."""
    found = counts(people).groupby("domain")["identities"].sum()
    return float(found.get(SYNTHETIC, 0) / found.sum())


def some(people: Faces | Joined, domain: str, n: int, seed: int) -> Faces:
    """`n` faces of one domain, to look at, under the name of the set that they come from."""
    rows = np.flatnonzero(people.table["domain"] == domain)
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:n])
    if isinstance(people, Faces):
        return people.take(rows)
    part = people.parts[list(people.table["domain"].unique()).index(domain)]
    return dataclasses.replace(people.faces(rows), origin=part.origin)


def _check(name: str, share: float) -> None:
    errors.one_of("training set", name, SETS)
    errors.fraction(share=share)
