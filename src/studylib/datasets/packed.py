"""Face images decoded once into one file of bytes, from which training takes its batches.

A packed folder holds `pixels.u8` (uint8, N x H x W x C, row after row), `table.parquet` (one row an
image) and `manifest.json` (shape, classes, digests). Channels come last on disk: that is how a
decoder writes them, and a batch seen as (n, C, H, W) is then `channels_last` in memory, which is
what convolutions run fastest on, without a copy. Images are read through a memory map, so a set may
be larger than the memory.

A folder appears whole or not at all: the work goes on in FOLDER.part, chunk by chunk, each with its
digest, and a stopped packing is taken up where it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from studylib import errors
from studylib.faces import Faces

FORMAT, VERSION = "studylib packed faces", 1
PIXELS, TABLE, MANIFEST, PROGRESS = "pixels.u8", "table.parquet", "manifest.json", "progress.jsonl"
CHUNK, CHUNK_BYTES = 256, 2**24  # most images, and most bytes, that a thread decodes at a time
SAMPLED = 64  # images whose bytes tell one source from another, besides names and labels
BROKEN = ("refuse", "skip")
DECODED = ("JPEG", "PNG", "WEBP", "BMP", "PPM")  # no format that runs a program of its own
MAX_PIXELS = 2**24  # 50 MB decoded; no face picture is larger
READERS, AHEAD = 4, 8  # threads that read batches, and batches read before they are asked for
_TENSOR = {name: getattr(torch, name) for name in ("uint8", "int64", "float16", "float32")}


@dataclass(frozen=True)
class Packed:
    """Packed images with one table row each.

    Attributes
    ----------
    folder : pathlib.Path
        Where they lie.
    pixels : numpy.ndarray
        uint8 (N, H, W, C), RGB or one grey channel; a read-only memory map.
    table : pandas.DataFrame
        N rows: `item` (unique), `subject`, `label` (int64) and any of `faces.GROUP_COLUMNS`.
    origin : str
        The catalog entry they come from.
    classes : tuple of str
        The names of the labels' codes.
    skipped : pandas.DataFrame
        `item` and `reason` of the images that could not be decoded.
    """

    folder: Path
    pixels: np.ndarray
    table: pd.DataFrame
    origin: str
    classes: tuple[str, ...]
    skipped: pd.DataFrame

    def __len__(self) -> int:
        return len(self.pixels)

    def __reduce__(self):
        # Another process maps the file too, instead of being sent all of it.
        return open_packed, (self.folder,)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,), codes of `classes`."""
        return self.table["label"].to_numpy(np.int64)

    def batch(self, index) -> torch.Tensor:
        """Images at the given positions: uint8 (n, C, H, W), channels last in memory."""
        rows = np.take(self.pixels, np.asarray(index, np.int64), axis=0)  # (n, H, W, C)
        return torch.from_numpy(rows).permute(0, 3, 1, 2)

    def faces(self, index=None) -> Faces:
        """Faces in memory, at the given positions or where a mask is true; all by default."""
        return _in_memory(self, index, self.classes)


@dataclass(frozen=True)
class Joined:
    """Rows of several packed sets as one set; the pixels stay where they lie.

    Attributes
    ----------
    parts : tuple of Packed
        Images of one shape.
    rows : tuple of numpy.ndarray
        int64, the positions taken from each part, in the order of the joined rows.
    table : pandas.DataFrame
        N rows, part after part: `item` (unique), `subject`, `label` (int64) and what else is known.
    origin : str
        Where they come from.

    Raises
    ------
    DataError
        If shapes differ, there is no part, or the table has another number of rows.
    """

    parts: tuple[Packed, ...]
    rows: tuple[np.ndarray, ...]
    table: pd.DataFrame
    origin: str

    def __post_init__(self):
        shapes = {part.pixels.shape[1:] for part in self.parts}
        n = [len(rows) for rows in self.rows]
        if len(shapes) != 1 or sum(n) != len(self.table) or len(n) != len(self.parts):
            raise errors.DataError(
                errors.CANNOT_JOIN.format(shapes=sorted(shapes), rows=n, table=len(self.table))
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.parts[0].pixels.shape[1:]

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,)."""
        return labels_of(self)

    def fill(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the images at the positions `index` (n,) into `out`, uint8 (n, H, W, C)."""
        index, ends = np.asarray(index, np.int64), np.cumsum([len(rows) for rows in self.rows])
        of_part = np.searchsorted(ends, index, side="right")
        for k, (part, rows) in enumerate(zip(self.parts, self.rows, strict=True)):
            here = np.flatnonzero(of_part == k)
            out[here] = part.pixels[rows[index[here] - (ends[k] - len(rows))]]

    def batch(self, index) -> torch.Tensor:
        """Images at the given positions: uint8 (n, C, H, W), channels last in memory."""
        images = np.empty((len(index), *self.shape), np.uint8)
        self.fill(index, images)
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def faces(self, index=None) -> Faces:
        """Faces in memory, at the given positions or where a mask is true; all by default."""
        return _in_memory(self, index)


def _in_memory(data: Packed | Joined, index, classes: tuple[str, ...] = ()) -> Faces:
    index = np.arange(len(data)) if index is None else np.asarray(index)
    positions = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
    table = data.table.iloc[positions].reset_index(drop=True)
    return Faces(data.batch(positions).contiguous(), table, data.origin, classes)


def decode(data, size: int | None = None, channels: int = 3) -> np.ndarray:
    """Decode one picture, upright as its camera meant it.

    Parameters
    ----------
    data : bytes-like
        A JPEG, PNG, WebP, BMP or PPM file.
    size : int, optional
        Height and width wanted; another shape is stretched to this square, bilinear with
        antialiasing. None leaves the picture as it is.
    channels : {3, 1}
        RGB, or grey by the weights of ITU-R BT.601.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, channels).

    Raises
    ------
    ValueError
        If it is no such file, damaged, or of more than 2**24 pixels, which is told from its header
        before anything is decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=DECODED) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{image.mode} pixels: only 8 bits a channel are understood")
            ImageOps.exif_transpose(image, in_place=True)
            picture = image.convert("RGB" if channels == 3 else "L")
        if size is not None and picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(picture.height, picture.width, channels)
    except UnidentifiedImageError:  # its own text holds an address in memory
        raise ValueError(f"it is none of {', '.join(DECODED)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise ValueError("it has far too many pixels") from problem
    except (OSError, SyntaxError) as problem:
        raise ValueError(str(problem)) from problem


def pack(
    source,
    folder: str | Path,
    *,
    size: int = 112,
    channels: int = 3,
    workers: int | None = None,
    broken: str = "refuse",
) -> Packed:
    """Decode the images of a source into a packed folder, once; later calls only open it.

    A call that was stopped is taken up by the next one. Where two processes pack into one folder,
    the second waits for the first and opens what it made.

    Parameters
    ----------
    source
        What `records` and `identities` return: `labels` (int64 (N,)), `names` (one a class) and
        `encoded(i)` (the bytes of image i, for any thread); optionally `groups` (a table of group
        columns, one row a class), `items` (N names; numbers by default) and `origin`.
    folder : path
        Where to; new, empty, or packed from the same source before. The source is told by its
        names, labels, groups and the bytes of 64 images spread over it, not by all its bytes.
    size : int
        Height and width; images of another size are resized as `decode` does.
    channels : {3, 1}
        RGB or grey.
    workers : int, optional
        Decoding threads; as many as there are cores by default. Pillow decodes outside Python's
        lock.
    broken : {"refuse", "skip"}
        What to do with an image that cannot be decoded: stop, or leave it out and list it.

    Returns
    -------
    Packed

    Raises
    ------
    DataError
        A broken image, a source whose parts do not fit, a folder that holds something else, or a
        disk that cannot be written.
    ParameterError
        A number out of range, or an unknown policy.
    """
    errors.at_least(1, size=size, workers=1 if workers is None else workers)
    errors.one_of("policy for broken images", broken, BROKEN)
    if channels not in (1, 3):
        raise errors.ParameterError(
            errors.NOT_ONE_OF.format(what="channels", known=(1, 3), value=channels)
        )
    table = _table(source)
    origin = getattr(source, "origin", "unknown")

    def chunk(start: int, stop: int) -> tuple[np.ndarray, list]:
        block, skipped = np.empty((stop - start, size, size, channels), np.uint8), []
        for i in range(start, stop):
            try:
                block[i - start - len(skipped)] = decode(source.encoded(i), size, channels)
            except (ValueError, OSError, errors.DataError) as problem:
                if broken == "skip":
                    skipped.append([i, str(problem)])
                elif isinstance(problem, errors.DataError):
                    raise
                else:
                    raise _broken(table["item"].iloc[i], origin, problem) from problem
        return block[: len(block) - len(skipped)], skipped

    some = np.unique(np.linspace(0, len(table) - 1, min(SAMPLED, len(table))).astype(int))
    settings = [origin, size, channels, broken]
    digest = _digest(table, source.names, settings, (_sample(source, i) for i in some))
    work = _Work(table, tuple(source.names), origin, (size, size, channels), digest, chunk)
    return _packed(work, Path(folder).expanduser(), workers or os.cpu_count() or 1)


def decoded(source, index: np.ndarray, size: int) -> Faces:
    """Decode some pictures of a source into memory: no folder is packed for a few of many.

    Parameters
    ----------
    source
        As `pack` takes it.
    index : numpy.ndarray
        int64 (n,), which pictures.
    size : int
        Height and width.

    Returns
    -------
    Faces
        uint8 RGB (n, 3, size, size) with the columns that packing gives them.

    Raises
    ------
    DataError
        If one of them cannot be decoded.
    """
    table = _table(source).iloc[index].reset_index(drop=True)
    origin = getattr(source, "origin", "unknown")

    images = np.empty((len(index), 3, size, size), np.uint8)

    def fill(row: int) -> None:
        try:
            images[row] = decode(source.encoded(int(index[row])), size).transpose(2, 0, 1)
        except ValueError as problem:
            raise _broken(table["item"].iloc[row], origin, problem) from problem

    with ThreadPoolExecutor() as decoders:
        for _ in decoders.map(fill, range(len(index))):
            pass  # what is wrong with a picture is raised here
    return Faces(torch.from_numpy(images), table, origin)


def _broken(item: str, origin: str, reason: Exception) -> errors.DataError:
    text = errors.BROKEN_IMAGE.format(item=item, origin=origin, reason=reason)
    return errors.DataError(text)


def from_faces(faces: Faces, folder: str | Path) -> Packed:
    """Pack faces that are in memory, such as simulated ones, so that they train like any set.

    Parameters
    ----------
    faces : Faces
        With a column `label` (int64, from 0 on).
    folder : path
        As `pack` takes it; here every byte tells one set of faces from another.

    Raises
    ------
    DataError
        Faces without labels, or as `pack`.
    """
    labels, images = labels_of(faces), faces.images
    classes = faces.classes or tuple(str(k) for k in range(labels.max(initial=-1) + 1))

    def chunk(start: int, stop: int) -> tuple[np.ndarray, list]:
        return images[start:stop].permute(0, 2, 3, 1).contiguous().cpu().numpy(), []

    pixels = (chunk(i, i + CHUNK)[0] for i in range(0, len(faces), CHUNK))
    digest = _digest(faces.table, classes, [faces.origin, *images.shape], pixels)
    channels, *size = images.shape[1:]
    work = _Work(faces.table, classes, faces.origin, (*size, channels), digest, chunk)
    return _packed(work, Path(folder).expanduser(), workers=1)


def open_packed(folder: str | Path, *, check: bool = False) -> Packed:
    """Open a packed folder.

    Parameters
    ----------
    folder : path
        From `pack` or `from_faces`.
    check : bool
        Read every image and compare it with its digest too; else only the table, and the number of
        the images' bytes.

    Raises
    ------
    DataError
        If it is no packed folder, of another version, cut short or changed.
    """
    folder = Path(folder).expanduser()
    manifest = _manifest(folder)
    try:
        n, height, width, channels = shape = [int(each) for each in manifest["shape"]]
        chunks = [(int(images), str(digest)) for images, digest in manifest["chunks"]]
        origin, classes = str(manifest["origin"]), tuple(manifest["classes"])
        skipped = pd.DataFrame(manifest["skipped"], columns=["item", "reason"], dtype="str")
        wanted = manifest["table"]
    except (KeyError, TypeError, ValueError) as problem:
        raise _damaged(folder / MANIFEST, f"it cannot be understood ({problem})") from problem
    needed = n * height * width * channels
    found = (folder / PIXELS).stat().st_size if (folder / PIXELS).is_file() else 0
    if found != needed:
        raise _damaged(folder / PIXELS, f"{found} bytes instead of {needed}")
    raw = (folder / TABLE).read_bytes() if (folder / TABLE).is_file() else b""
    if hashlib.sha256(raw).hexdigest() != wanted:
        raise _damaged(folder / TABLE, "its content is another than the manifest says")
    pixels = np.asarray(np.memmap(folder / PIXELS, np.uint8, "r", shape=tuple(shape)))
    if check:
        _check(folder / PIXELS, pixels, chunks)
    table = pd.read_parquet(io.BytesIO(raw))
    return Packed(folder.absolute(), pixels, table, origin, classes, skipped)


def batches(
    data: Packed | Joined | Faces,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    device="cpu",
    drop_last: bool = True,
    skip: int = 0,
    labelled: bool = True,
    beside: tuple = (),
) -> Iterator[tuple[torch.Tensor, ...]]:
    """One epoch of shuffled batches, read ahead by threads.

    The order depends on seed and epoch alone: whatever the number of processes, the batches of all
    of them together are the same, and each process takes its own part of every batch.

    Parameters
    ----------
    data : Packed, Joined or Faces
        Faces need a column `label`.
    batch_size : int
        Images in a batch of all processes together.
    seed, epoch : int
        Of the order; 0 or more.
    rank, world : int
        Which of how many processes asks.
    device : str or torch.device
        Where the batches go; to a GPU they travel from pinned memory, beside its work.
    drop_last : bool
        Leave out the images that do not fill a last batch; which these are changes with the epoch.
        If they are kept, some process may get fewer of them than another, or none.
    skip : int
        Batches to leave out, unread, at the beginning: where a training goes on.
    labelled : bool
        Give the labels too; without them faces need none.
    beside : tuple
        What else belongs to the images, such as a teacher's embeddings of them: arrays of N rows,
        memory maps among them, or anything that gives rows as an array for positions (n,). Their
        rows are read by the same threads.

    Yields
    ------
    images : torch.Tensor
        uint8 (B / world, C, H, W) on the device; channels last in memory where `data` is packed.
    labels : torch.Tensor
        int64 (B / world,) on the device, if they are asked for.
    *rows : torch.Tensor
        (B / world, ...) of each thing in `beside`, in its own type, on the device.

    Raises
    ------
    DataError
        Faces without labels.
    ParameterError
        A number out of range, a batch the processes cannot share evenly, or more than there is.

    Examples
    --------
    >>> two = Faces(torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
    ...             pd.DataFrame({"item": list("abcd"), "label": [0, 0, 1, 1]}), "noise")
    >>> [tuple(images.shape) for images, _ in batches(two, batch_size=2, seed=0, epoch=0)]
    [(2, 3, 8, 8), (2, 3, 8, 8)]
    """
    errors.at_least(1, batch_size=batch_size, world=world)
    errors.at_least(0, seed=seed, epoch=epoch, skip=skip)
    if not 0 <= rank < world:
        raise errors.ParameterError(errors.BAD_RANK.format(rank=rank, world=world))
    if batch_size % world:
        raise errors.ParameterError(errors.UNEVEN_BATCH.format(batch_size=batch_size, world=world))
    if len(data) < (batch_size if drop_last else 1):
        raise errors.ParameterError(
            errors.BATCH_TOO_LARGE.format(found=len(data), batch_size=batch_size)
        )
    order = np.random.default_rng([seed, epoch]).permutation(len(data))
    used = len(order) - len(order) % batch_size if drop_last else len(order)
    mine = (
        np.array_split(order[start : min(start + batch_size, used)], world)[rank]
        for start in range(skip * batch_size, used, batch_size)
    )
    beside = (labels_of(data), *beside) if labelled else beside
    return _moved(_reader(data, beside, torch.device(device).type == "cuda"), mine, device)


def _moved(read: Callable, positions: Iterable, device) -> Iterator[tuple[torch.Tensor, ...]]:
    for parts in _ahead(read, positions, READERS, AHEAD):
        yield tuple(part.to(device, non_blocking=True) for part in parts)


def _reader(data: Packed | Joined | Faces, beside: tuple, pinned: bool) -> Callable:
    """A function from positions to images and what lies beside them.

    All it runs lets other threads go on, and it writes where a GPU can fetch it.
    """
    in_memory = isinstance(data, Faces)
    pixels = data.images.cpu().contiguous().numpy() if in_memory else None

    def room(n: int, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        return torch.empty(n, *shape, dtype=kind, pin_memory=pinned)

    def taken(source, index: np.ndarray) -> torch.Tensor:
        if not isinstance(source, np.ndarray):
            rows = torch.from_numpy(source[index])
            return rows.pin_memory() if pinned else rows
        rows = room(len(index), source.shape[1:], _TENSOR[source.dtype.name])
        # mode="clip" (nothing is out of range) is what lets NumPy write into `out` directly.
        np.take(source, index, axis=0, out=rows.numpy(), mode="clip")
        return rows

    def images(index: np.ndarray) -> torch.Tensor:
        if in_memory:
            return taken(pixels, index)
        if isinstance(data, Packed):
            return taken(data.pixels, index).permute(0, 3, 1, 2)
        rows = room(len(index), data.shape, torch.uint8)
        data.fill(index, rows.numpy())
        return rows.permute(0, 3, 1, 2)

    def read(index: np.ndarray) -> tuple[torch.Tensor, ...]:
        return images(index), *(taken(each, index) for each in beside)

    return read


def labels_of(data: Packed | Joined | Faces) -> np.ndarray:
    """Labels of faces in memory or packed: int64 (N,); DataError where they have none."""
    if "label" not in data.table:
        raise errors.DataError(errors.NO_LABELS.format(origin=data.origin))
    return data.table["label"].to_numpy(np.int64)


def fingerprint(data: Packed | Joined | Faces) -> str:
    """SHA-256 of images, labels and their order; of packed images their manifest's stands for them.

    Faces need no labels.
    """
    if isinstance(data, Packed):
        return hashlib.sha256((data.folder / MANIFEST).read_bytes()).hexdigest()
    if isinstance(data, Joined):
        digest = hashlib.sha256()
        for part, rows in zip(data.parts, data.rows, strict=True):
            digest.update(fingerprint(part).encode())
            digest.update(np.ascontiguousarray(rows, np.int64))
    else:
        digest = hashlib.sha256(str(tuple(data.images.shape)).encode())
        digest.update(data.images.contiguous().cpu().numpy())
    if "label" in data.table:
        digest.update(labels_of(data))
    return digest.hexdigest()


def _ahead(function: Callable, items: Iterable, workers: int, depth: int) -> Iterator:
    """Results in the order of the items, computed by threads up to `depth` items ahead."""
    items, pool = iter(items), ThreadPoolExecutor(workers)
    try:
        waiting = deque(pool.submit(function, item) for item in islice(items, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:  # also where nobody asks for the rest
        pool.shutdown(cancel_futures=True)


class _Work(NamedTuple):
    """What to pack; `chunk(start, stop)` gives pixels, and [position, reason] of those skipped."""

    table: pd.DataFrame
    classes: tuple[str, ...]
    origin: str
    shape: tuple[int, int, int]  # H, W, C
    digest: str
    chunk: Callable[[int, int], tuple[np.ndarray, list]]


def _table(source) -> pd.DataFrame:
    """One row an image, from a source's labels, names and groups."""
    labels, names = np.asarray(source.labels, np.int64), list(source.names)
    items = getattr(source, "items", None)
    items = np.arange(len(labels)).astype(str) if items is None else list(items)
    groups = getattr(source, "groups", None)
    groups = pd.DataFrame(index=range(len(names))) if groups is None else groups
    for wrong, problem in (
        (len(labels) == 0, "there are none"),
        (labels.min(initial=0) < 0, f"a label is {labels.min(initial=0)}"),
        (labels.max(initial=-1) >= len(names), f"{len(names)} names for more classes"),
        (len(set(names)) < len(names), "two classes share a name"),
        (len(items) != len(labels), f"{len(items)} items for {len(labels)} labels"),
        (pd.Index(items).has_duplicates, "two images share an item"),
        (len(groups) != len(names), f"groups of {len(groups)} classes for {len(names)}"),
    ):
        if wrong:
            origin = getattr(source, "origin", "unknown")
            raise errors.DataError(errors.BAD_SOURCE.format(origin=origin, problem=problem))
    columns = {"item": items, "subject": pd.Categorical.from_codes(labels, names), "label": labels}
    of_images = {c: groups[c].astype("category").array[labels] for c in groups}
    return pd.DataFrame(columns | of_images)


def _sample(source, i: int) -> bytes:
    """The bytes of an image, or why they cannot be had: `pack` says so when it comes to it."""
    try:
        return bytes(source.encoded(i))
    except (OSError, errors.DataError) as problem:
        return str(problem).encode()


def _digest(table: pd.DataFrame, names, settings: list, contents: Iterable) -> str:
    """SHA-256 of what tells one packing from another."""
    digest = hashlib.sha256(
        json.dumps([VERSION, CHUNK, CHUNK_BYTES, settings, list(names)]).encode()
    )
    for column in table:
        values = table[column]
        if isinstance(values.dtype, pd.CategoricalDtype):  # few texts, many codes
            digest.update("\n".join(map(str, values.cat.categories)).encode())
            values = values.cat.codes
        raw = values.to_numpy() if values.dtype.kind in "biuf" else "\n".join(map(str, values))
        digest.update(column.encode())
        digest.update(raw.encode() if isinstance(raw, str) else np.ascontiguousarray(raw))
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def _packed(work: _Work, folder: Path, workers: int) -> Packed:
    """Open the folder if it holds this work already, else do it."""
    if (folder / MANIFEST).exists():  # asked first, so that a disk one may only read is enough
        return _same(folder, work)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (folder / MANIFEST).exists():
                return _same(folder, work)
            part = folder.with_name(f"{folder.name}.part")
            for place, ours in ((folder, set()), (part, {PIXELS, TABLE, MANIFEST, PROGRESS})):
                if place.exists() and {path.name for path in place.iterdir()} - ours:
                    raise errors.DataError(errors.FOREIGN_FOLDER.format(folder=place))
            _write(work, folder, part, workers)
    except OSError as problem:
        raise errors.DataError(
            errors.CANNOT_PACK.format(path=folder, reason=problem.strerror or problem)
        ) from problem
    return open_packed(folder)


def _same(folder: Path, work: _Work) -> Packed:
    if _manifest(folder).get("source") != work.digest:
        raise errors.DataError(errors.OTHER_PACK.format(folder=folder))
    return open_packed(folder)


def _write(work: _Work, folder: Path, part: Path, workers: int) -> None:
    """Write all chunks that FOLDER.part does not hold yet, then table and manifest; rename it."""
    done = _resume(part, work)
    step = max(1, min(CHUNK, CHUNK_BYTES // int(np.prod(work.shape))))
    starts = range(len(done) * step, len(work.table), step)

    def chunk(start: int) -> tuple[np.ndarray, dict]:
        block, skipped = work.chunk(start, min(start + step, len(work.table)))
        digest = hashlib.sha256(block).hexdigest()
        return block, {"images": len(block), "sha256": digest, "skipped": skipped}

    with open(part / PIXELS, "ab") as pixels, open(part / PROGRESS, "ab") as progress:
        with contextlib.closing(_ahead(chunk, starts, workers, 2 * workers)) as blocks:
            for block, record in _shown(blocks, len(starts), folder):
                pixels.write(block)
                pixels.flush()  # before the line that vouches for it
                progress.write(json.dumps(record).encode() + b"\n")
                progress.flush()
                done.append(record)
        os.fsync(pixels.fileno())
    n = sum(record["images"] for record in done)
    if not n:
        raise errors.DataError(errors.NOTHING_TO_PACK.format(origin=work.origin, folder=folder))
    skipped = [pair for record in done for pair in record["skipped"]]
    kept = np.ones(len(work.table), bool)
    kept[[i for i, _ in skipped]] = False
    work.table[kept].reset_index(drop=True).to_parquet(part / TABLE)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "shape": [n, *work.shape],
        "origin": work.origin,
        "source": work.digest,
        "table": hashlib.sha256((part / TABLE).read_bytes()).hexdigest(),
        "skipped": [[str(work.table["item"].iloc[i]), reason] for i, reason in skipped],
        "chunks": [[record["images"], record["sha256"]] for record in done],
        "classes": list(work.classes),
    }
    (part / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    os.replace(part, folder)
    (folder / PROGRESS).unlink()  # last: whatever stops this, no finished chunk is done again


def _shown(blocks: Iterator, total: int, folder: Path) -> Iterable:
    """The same blocks, with a progress bar where somebody watches."""
    return track(
        blocks,
        f"Packing {folder.name}",
        total,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _resume(part: Path, work: _Work) -> list[dict]:
    """What a stopped packing of the same work left whole in `part`; anything else is removed."""
    first = json.dumps({"source": work.digest}).encode() + b"\n"
    try:
        lines = (part / PROGRESS).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        lines = []
    if lines[:1] != [first] or not (part / PIXELS).exists():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        (part / PIXELS).touch()
        (part / PROGRESS).write_bytes(first)
        return []
    done, row, length, size = [], int(np.prod(work.shape)), len(first), 0
    with open(part / PIXELS, "rb") as pixels:
        for line in lines[1:]:
            try:
                record = json.loads(line)
                block = pixels.read(record["images"] * row)
            except ValueError:  # the line was being written
                break
            if hashlib.sha256(block).hexdigest() != record["sha256"] or line[-1:] != b"\n":
                break
            done.append(record)
            length, size = length + len(line), size + len(block)
    os.truncate(part / PROGRESS, length)
    os.truncate(part / PIXELS, size)
    return done


def _manifest(folder: Path) -> dict:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["format"], manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        reason = f"there is no readable {MANIFEST}"
        raise errors.DataError(
            errors.NOT_PACKED_FACES.format(folder=folder, problem=reason)
        ) from problem
    if found != (FORMAT, VERSION):
        reason = f"it is in format {found[0]!r}, version {found[1]!r}, not version {VERSION}"
        raise errors.DataError(errors.NOT_PACKED_FACES.format(folder=folder, problem=reason))
    return manifest


def _check(path: Path, pixels: np.ndarray, chunks: list[tuple[int, str]]) -> None:
    """Compare each chunk with its digest."""
    start = 0
    for n, digest in chunks:
        if hashlib.sha256(pixels[start : start + n]).hexdigest() != digest:
            raise _damaged(path, f"the images {start} to {start + n - 1} were changed")
        start += n
    if start != len(pixels):
        raise _damaged(path, f"it has digests of {start} images instead of {len(pixels)}")


def _damaged(path: Path, problem: str) -> errors.DataError:
    return errors.DataError(errors.DAMAGED_PACK.format(path=path, problem=problem))
