"""Calibration sets: the unlabelled faces from which a quantised network takes its ranges.

`faces` draws them from a source, `composed` with given shares of the groups: sets of one size and
several compositions show what the composition does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from studylib import align, catalog, datasets, errors, recognition
from studylib.faces import GROUP_COLUMNS, Faces
from studylib.synthetic import generated, simcapture

SOURCES = ("real", "camera", "generator", "synthetic", "noise")


def sources() -> list[str]:
    """All sources that `faces` knows: `SOURCES`, and the catalog's sets of faces and identities."""
    sets = [e.name for e in catalog.ENTRIES.values() if e.kind in ("faces", "identities")]
    return [*SOURCES, *(name for name in sets if catalog.ENTRIES[name].reader)]


def chosen(source: str, eval_set: str) -> str:
    """The source that is meant, once it is clear that it can be had: before anything is read.

    Where simulated people are evaluated, their "real" faces are those that the camera sees.

    Parameters
    ----------
    source : str
        As `faces` takes it.
    eval_set : str
        What is evaluated: simfaces, or a set of the catalog.

    Raises
    ------
    ParameterError
        An unknown source, or real faces of a set whose people all take part in its protocol.
    DataError
        An unknown set.
    """
    errors.one_of("calibration source", source, sources())
    if eval_set == recognition.SIMULATED:
        return "camera" if source == "real" else source
    if datasets.kind(eval_set) != "faces" and source == "real":
        raise errors.ParameterError(errors.NOBODY_SPARE)
    return source


def faces(
    source: str,
    n: int,
    *,
    real: Faces | None,
    seed: int,
    size: int = align.SIZE,
    device="cpu",
    root: str | Path | None = None,
) -> Faces:
    """A calibration set of `n` faces, or of all there are.

    Parameters
    ----------
    source : str
        real: real faces of people who are not evaluated; camera: simulated faces, each of somebody
        else, who is neither trained on nor tested; generator: the same people as a generator would
        draw them; synthetic: generated photographs of nobody; noise: independent uniform pixels; or
        the name of a set of faces or of identities in the catalog.
    n : int
        Faces wanted.
    real : Faces or None
        The real faces to draw from; None if nobody was set aside.
    seed : int
        Of the draw, the generator or the noise.
    size : int
        Edge of the faces in pixels; generated photographs and sets of the catalog are resized to
        it, `real` faces keep theirs.
    device : str or torch.device
        Where faces are generated.
    root : path, optional
        The reader's own copy of a set of the catalog.

    Raises
    ------
    ParameterError
        Unknown source, n below 1, or real faces wanted where there are none.
    DataError
        As `datasets.draw`.
    """
    errors.one_of("calibration source", source, sources())
    errors.at_least(1, n_calibration=n, size=size)
    if source == "real":
        if real is None:
            raise errors.ParameterError(errors.NOBODY_SPARE)
        return real.sample(n, seed)
    if source in simcapture.DOMAINS:
        given = {"domain": source, "size": size, "seed": seed, "device": device}
        return recognition.people(n, 1, use="spare", **given)
    if source == "synthetic":
        return align.resized(generated.faces(n, seed=seed, device=device), size)
    if source == "noise":
        return _noise(n, seed, size)
    return align.resized(datasets.draw(source, root, n=n, seed=seed), size)


def composed(
    source: Faces, n: int, shares: dict[str, float], *, seed: int, column: str = "group"
) -> Faces:
    """Draw a calibration set in which each group has a given share.

    Parameters
    ----------
    source : Faces
        Faces to draw from, each at most once.
    n : int
        Faces wanted. Shares that do not divide it are rounded by their largest remainders.
    shares : dict
        Group -> share, 0 to 1, summing to 1; groups that are not named are left out.
    seed : int
        Of the draw. A group's faces depend on its name, count and the seed, not on other groups.
    column : str
        The group column that holds the names.

    Returns
    -------
    Faces
        n faces in random order, so that no group comes last in a moving average of ranges.

    Raises
    ------
    ParameterError
        A column or group that the faces do not have, shares that are none, fewer faces of a group
        than its share asks for.

    Examples
    --------
    >>> from studylib.synthetic import simfaces
    >>> source = simfaces.faces(24, 2, seed=0)
    >>> composed(source, 8, {"A": 0.75, "B": 0.25}, seed=0).table["group"].value_counts().to_dict()
    {'A': 6, 'B': 2}
    """
    errors.at_least(1, n_calibration=n)
    errors.one_of("group column", column, set(source.table) & set(GROUP_COLUMNS))
    errors.fraction(**shares)
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise errors.ParameterError(errors.BAD_SHARES.format(total=sum(shares.values())))
    names = source.table[column]
    chosen = []
    for group, count in _counts(n, shares).items():
        errors.one_of(column, group, set(names.dropna()))
        members = np.flatnonzero(names == group)
        if len(members) < count:
            raise errors.ParameterError(
                errors.FEW_OF_GROUP.format(group=group, found=len(members), wanted=count, n=n)
            )
        rng = np.random.default_rng([seed, *group.encode()])
        chosen.append(rng.permutation(members)[:count])
    return source.take(np.random.default_rng(seed).permutation(np.concatenate(chosen)))


def _counts(n: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers that sum to n, nearest to the shares by largest remainder."""
    exact = {group: round(n * share, 6) for group, share in shares.items()}
    counts = {group: int(value) for group, value in exact.items()}
    by_remainder = sorted(exact, key=lambda group: counts[group] - exact[group])
    for group in by_remainder[: n - sum(counts.values())]:
        counts[group] += 1
    return counts


def _noise(n: int, seed: int, size: int) -> Faces:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), np.uint8)
    names = [f"noise-{seed}-{i:06d}" for i in range(n)]
    return Faces(torch.from_numpy(pixels), pd.DataFrame({"item": names, "subject": names}), "noise")
