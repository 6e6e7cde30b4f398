"""Synthetic faces, aligned like real ones and kept in one packed file with its recipe."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
from filelock import FileLock
from safetensors.torch import save_file

from studylib import align, assets
from studylib.faces import Faces
from studylib.synthetic import stylegan

WHEEL = "random-face"
PICTURE_SIZE = 512  # px; large enough that warping to 112 px only ever shrinks
SAVE_EVERY = 64  # faces between two writes, so that a stopped generation goes on from there


def faces(
    n: int,
    *,
    seed: int = 0,
    psi: float = 0.7,
    device="cpu",
    progress: Callable[[int], None] | None = None,
) -> Faces:
    """The first `n` aligned faces of a seed, generated where the cache does not hold them yet.

    One file serves every n: a latent depends on the seed and its number alone, so a longer set
    starts with the shorter one. Faces made on a GPU are kept apart from those made on a CPU, since
    rounding differs.

    Parameters
    ----------
    n : int
        Faces wanted; pictures in which the detector finds no face are passed over.
    seed : int
        Of the latents.
    psi : float
        Truncation: 1 is the full variety, 0 the mean face.
    device : str or torch.device
        Where to generate.
    progress : callable, optional
        Told the number of faces at hand after each write.

    Returns
    -------
    Faces
        uint8 (n, 3, 112, 112); items and subjects are numbered, since each face shows nobody.

    Raises
    ------
    AssetError
        If the generator cannot be fetched, or the cache cannot be written.
    """
    recipe = {
        "generator": assets.WHEELS[WHEEL].sha256,
        "seed": seed,
        "psi": psi,
        "picture": PICTURE_SIZE,
        "aligned": align.SIZE,
        "device": torch.device(device).type,
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    path = assets.cache_dir() / "generated" / f"mobilestylegan-{digest}.safetensors"
    with assets.written(path.parent), FileLock(f"{path}.lock"):
        images, used = _read(path)
        stream = _aligned(used, seed, psi, device)
        while len(images) < n:
            new = list(islice(stream, min(SAVE_EVERY, n - len(images))))
            images = torch.cat([images, *(face for face, _ in new)])
            used = new[-1][1]
            _write(path, images, used, recipe)
            if progress:
                progress(len(images))
    names = [f"generated-{seed}-{i:06d}" for i in range(n)]
    return Faces(images[:n], pd.DataFrame({"item": names, "subject": names}), "mobilestylegan")


def _aligned(start: int, seed: int, psi: float, device) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield aligned faces (1, 3, 112, 112) from latent `start` on, each with the latents used."""
    generator = stylegan.load(assets.fetch(WHEEL) / "random_face" / "data", device)
    for index, z in enumerate(stylegan.latents_from(start, seed), start):
        picture = stylegan.photograph(generator, z, psi, PICTURE_SIZE)
        face, found = align.align_pictures([np.moveaxis(picture, 0, -1)])
        if found[0]:
            yield face, index + 1


def _read(path: Path) -> tuple[torch.Tensor, int]:
    """The faces kept so far and how many latents they took; none if there is no sound file."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.get_tensor("images"), int(file.metadata()["latents"])
    except (OSError, safetensors.SafetensorError):
        return torch.empty(0, 3, align.SIZE, align.SIZE, dtype=torch.uint8), 0


def _write(path: Path, images: torch.Tensor, used: int, recipe: dict) -> None:
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        about = {"latents": str(used), "recipe": json.dumps(recipe, sort_keys=True)}
        save_file({"images": images.contiguous()}, scratch, about)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
