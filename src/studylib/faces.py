"""Face images with one table row each: what readers return and every experiment takes.

Two shapes of the same idea: `Photos` are pictures as their owner stored them (any size, opened
one by one), `Faces` are aligned and of one size, all in memory as bytes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

from studylib import errors

GROUP_COLUMNS = ("gender", "race", "age", "group")


@dataclass(frozen=True)
class Photos:
    """Pictures before alignment.

    Attributes
    ----------
    name : str
        The data set's name in the catalog.
    table : pandas.DataFrame
        One row a picture: `item` (unique), `subject`, `path` (or a zipfile.Path, within an
        archive), and any of `GROUP_COLUMNS`; with classes also `label`, a code 0..C-1.
    classes : tuple of str
        The names of the labels' codes; empty where pictures have no labels.
    """

    name: str
    table: pd.DataFrame
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def open(self, index: int) -> np.ndarray:
        """Read one picture: uint8 (height, width, 3), RGB; DataError names a broken file."""
        return read_image(self.table["path"].iloc[index])


@dataclass(frozen=True)
class Faces:
    """Aligned faces in memory.

    Attributes
    ----------
    images : torch.Tensor
        uint8 (N, C, H, W), RGB or one grey channel, 0..255; normalising them is the network's
        business.
    table : pandas.DataFrame
        N rows in the same order: `item` (unique), `subject`, and any of `GROUP_COLUMNS`; with
        classes also `label`, a code 0..C-1.
    origin : str
        The catalog entry they come from, or noise: it decides whether they may be shown.
    classes : tuple of str
        The names of the labels' codes, such as expressions; empty where faces have no labels.
    """

    images: torch.Tensor
    table: pd.DataFrame
    origin: str
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        if len(self.images) != len(self.table):
            raise ValueError(f"{len(self.images)} images but {len(self.table)} table rows")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def subjects(self) -> list[str]:
        """The distinct subjects, sorted."""
        return sorted(self.table["subject"].unique())

    def batch(self, index) -> torch.Tensor:
        """Images at the given positions, as packed ones give them: uint8 (n, C, H, W)."""
        return self.images[torch.as_tensor(index)]

    def take(self, index) -> Faces:
        """Faces at the given positions (integers) or where a boolean mask is true."""
        index = np.asarray(index)
        positions = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        return Faces(
            self.images[torch.from_numpy(positions)],
            self.table.iloc[positions].reset_index(drop=True),
            self.origin,
            self.classes,
        )

    def split_by_subject(self, fraction: float, seed: int) -> tuple[Faces, Faces]:
        """Split so that nobody is on both sides: `fraction` of the subjects first, the rest second.

        The subjects are sorted before they are shuffled, so the split depends on the seed alone.
        A fraction that leaves a side empty is a ParameterError.
        """
        names = np.array(self.subjects)
        n_first = round(fraction * len(names))
        if not 0 < n_first < len(names):
            raise errors.ParameterError(errors.BAD_SPARE.format(people=len(names), value=fraction))
        chosen = np.random.default_rng(seed).permutation(names)[:n_first]
        first = self.table["subject"].isin(chosen).to_numpy()
        return self.take(first), self.take(~first)

    def sample(self, n: int, seed: int) -> Faces:
        """`n` faces drawn without replacement (all of them where there are no more than n)."""
        order = np.random.default_rng(seed).permutation(len(self))[:n]
        return self.take(np.sort(order))


def read_image(path: str | Path | zipfile.Path) -> np.ndarray:
    """Read an image file as uint8 (height, width, 3), RGB, upright as its camera meant it.

    Grey is repeated over the channels.

    Raises
    ------
    DataError
        If the file is missing, cut short, not an image, or by its header of more than 179 million
        pixels (Pillow's limit, told before anything is decoded); the message names it.
    """
    try:
        with Image.open(stored(path)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{image.mode} pixels: only 8 bits a channel are understood")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise errors.DataError(
            errors.UNREADABLE_IMAGE.format(path=path, reason=problem)
        ) from problem


def stored(path: str | Path | zipfile.Path):
    """What Pillow opens: the path of a file, or the bytes of one within an archive (OSError)."""
    if not isinstance(path, zipfile.Path):
        return path
    try:
        return io.BytesIO(path.read_bytes())
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as problem:  # the last: encrypted
        raise OSError(str(problem)) from problem
