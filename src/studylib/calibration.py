"""Calibration sets: the unlabelled faces from which a quantised network takes its ranges."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from studylib import align, errors
from studylib.faces import Faces
from studylib.synthetic import generated

SOURCES = ("real", "synthetic", "noise")


def faces(
    source: str,
    n: int,
    *,
    real: Faces | None,
    seed: int,
    device="cpu",
) -> Faces:
    """A calibration set of `n` faces, or of all there are.

    Parameters
    ----------
    source : {"real", "synthetic", "noise"}
        Real faces of people who are not evaluated; generated faces; independent uniform pixels.
    n : int
        Faces wanted.
    real : Faces or None
        The real faces to draw from; None if nobody was set aside.
    seed : int
        Of the draw, the generator or the noise.
    device : str or torch.device
        Where faces are generated.

    Raises
    ------
    ParameterError
        Unknown source, n below 1, or real faces wanted where there are none.
    """
    errors.one_of("calibration source", source, SOURCES)
    errors.at_least(1, n_calibration=n)
    if source == "real" and real is None:
        raise errors.ParameterError(errors.NOBODY_SPARE)
    if source == "real":
        return real.sample(n, seed)
    if source == "synthetic":
        return generated.faces(n, seed=seed, device=device)
    return _noise(n, seed)


def _noise(n: int, seed: int) -> Faces:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, align.SIZE, align.SIZE), np.uint8)
    names = [f"noise-{seed}-{i:06d}" for i in range(n)]
    return Faces(torch.from_numpy(pixels), pd.DataFrame({"item": names, "subject": names}), "noise")
