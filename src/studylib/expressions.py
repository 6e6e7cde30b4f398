"""Labelled expressions for an experiment: which faces train, choose the checkpoint, and test.

Two protocols. `as_published` is that of Stoychev and Gunes 2022: the checkpoint is the one that is
best on the test set, so the accuracy it has there is too good. `sound` keeps a share of the
training people to choose by, and looks at the test set once.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from studylib import catalog, datasets, errors
from studylib.datasets import ckplus
from studylib.faces import GROUP_COLUMNS, Faces
from studylib.synthetic import simfaces

# What a protocol asks of `models.fer_cnn`. The paper's normalisation follows the batches so slowly
# that with few steps an epoch it lags behind the weights, and the rate falls before much is learnt.
PROTOCOLS = {
    "as_published": {"pixels": "0..255", "norm_momentum": 0.99},
    "sound": {"pixels": "unit", "norm_momentum": 0.9},
}
SIMULATED = "simfaces"
# Data set -> side in pixels; the first two are the paper's.
SIZES = {"ckplus": 48, "rafdb": 100, "expression_folder": 48, SIMULATED: 48}
VALIDATION = 0.15  # share of the training people
PER_PERSON = 8  # simulated faces of one person


class Parts(NamedTuple):
    """The faces of one experiment; nobody is in two of them, where the set names its people.

    `chosen_on` picks the checkpoint: a part of its own, or under `as_published` the test set.
    `missed` are the pictures in which no face was found, and which are in no part.
    """

    train: Faces
    chosen_on: Faces
    test: Faces
    missed: tuple[str, ...] = ()


def load(
    data_set: str,
    root: str | Path | None = None,
    *,
    protocol: str = "sound",
    seed: int = 0,
    data_seed: int = 0,
    size: int | None = None,
    n_train: int = 2400,
    n_test: int = 2000,
    shares: dict[str, float] | None = None,
    shift: float = 1.0,
    device="cpu",
) -> Parts:
    """Load or render a data set and divide it.

    Parameters
    ----------
    data_set : str
        A key of `SIZES`.
    root : path, optional
        The reader's own copy, for all but simfaces.
    protocol : {"as_published", "sound"}
        See the module.
    seed : int
        Decides who validates.
    data_seed : int
        Decides the division of CK+ and the simulated people, so that runs which differ by `seed`
        alone have the same test set.
    size : int, optional
        Side in pixels; the data set's own (`SIZES`) by default.
    n_train, n_test : int
        Faces to render (simfaces alone), in whole people of eight faces.
    shares : dict, optional
        Share of each simulated group among the training people; the test people are always
        equally many a group.
    shift : float
        How far simulated groups lie apart; 0: not at all.

    Returns
    -------
    Parts

    Raises
    ------
    ParameterError
        Unknown data set or protocol, or numbers that leave a part empty.
    DataError
        As `datasets.load_pictures`.
    """
    errors.one_of("expression data set", data_set, SIZES)
    errors.one_of("protocol", protocol, PROTOCOLS)
    if data_set == SIMULATED:
        about = {"size": size, "shares": shares, "shift": shift, "device": device}
        missed, (everyone, test) = [], _simulated(n_train, n_test, data_seed, **about)
    else:
        faces, missed = datasets.load_pictures(data_set, root, size=size or SIZES[data_set])
        everyone, test = _divided(faces, root, data_seed)
    if protocol == "as_published":
        return Parts(everyone, test, test, tuple(missed))
    chosen_on, training = everyone.split_by_subject(VALIDATION, seed)
    return Parts(training, chosen_on, test, tuple(missed))


def _simulated(
    n_train: int, n_test: int, data_seed: int, *, size, shares, shift, device
) -> tuple[Faces, Faces]:
    errors.at_least(8 * PER_PERSON, n_train=n_train)
    errors.at_least(4 * PER_PERSON, n_test=n_test)
    common = {"size": size or SIZES[SIMULATED], "shift": shift, "device": device}

    def rendered(n: int, shares, part: int) -> Faces:
        return simfaces.faces(
            n // PER_PERSON, PER_PERSON, shares=shares, seed=2 * data_seed + part, **common
        )

    return rendered(n_train, shares, 0), rendered(n_test, None, 1)


def _divided(faces: Faces, root, data_seed: int) -> tuple[Faces, Faces]:
    """The set's own division where it has one, else the paper's way of making one."""
    if faces.origin == "ckplus":
        return ckplus.split(faces, root, data_seed)
    test = (faces.table["part"] == "test").to_numpy()
    if test.all() or not test.any():
        there = "test" if test.all() else "train"
        raise errors.DataError(errors.ONE_PART.format(root=root, name=faces.origin, part=there))
    return faces.take(~test), faces.take(test)


def counts(parts: Parts) -> pd.DataFrame:
    """How many faces each part holds of each class, and of how many people."""
    own = {"train": parts.train, "chosen_on": parts.chosen_on, "test": parts.test}
    if parts.chosen_on is parts.test:
        del own["chosen_on"]
    rows = {}
    for name, faces in own.items():
        found = faces.table["label"].value_counts().reindex(range(len(faces.classes)), fill_value=0)
        rows[name] = {"people": len(faces.subjects), "faces": len(faces)}
        rows[name] |= dict(zip(faces.classes, found, strict=True))
    if parts.missed:
        rows["no face found"] = dict.fromkeys(rows["test"], 0) | {"faces": len(parts.missed)}
    return pd.DataFrame.from_dict(rows, orient="index")


def outcomes(faces: Faces, probabilities: dict[str, torch.Tensor]) -> pd.DataFrame:
    """The table of outcomes: what every variant said of every face.

    Parameters
    ----------
    faces : Faces
        N faces with labels.
    probabilities : dict
        Variant -> float32 (N, C), from `train.predict`.

    Returns
    -------
    pandas.DataFrame
        N rows: item, subject, label, the group columns, and for each variant `predicted_<variant>`
        (code) and `confidence_<variant>` (probability of that class, float32).
    """
    known = ["item", "subject", "label", *(c for c in GROUP_COLUMNS if c in faces.table)]
    columns = {column: faces.table[column] for column in known}
    for variant, rows in probabilities.items():
        confidence, predicted = rows.max(1)
        columns[f"predicted_{variant}"] = predicted.numpy()
        columns[f"confidence_{variant}"] = confidence.numpy()
    return pd.DataFrame(columns)


def assets_of(data_set: str) -> list[str]:
    """The registry wheels a data set needs, for the record of a run: the detector, for CK+."""
    return catalog.wheels("yunet") if data_set == "ckplus" else []
