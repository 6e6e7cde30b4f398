"""A teacher's embeddings, computed once into one file and read by every student.

A teacher does not change while its students learn, so what it says of a face need not be computed
twice. Each cache is a folder of its own, named by the first digits of its key's SHA-256:

    FOLDER/6a1f0c3e52b7/embeddings.npy   float16 (N, V, D), rows of length 1, for a memory map
                        manifest.json    the key, where it comes from, the SHA-256 of the other file

The key is all that decides the values: the faces (`packed.fingerprint`), the network's layers and
weights, and the transform (views, type of number). Change one of them and it is another cache; one
that is not what its name says is made again, never read. A cache appears whole or not at all: the
work goes on in NAME.part, and a stopped one, as by a full disk, is taken up where it ended.

A number in half precision is off by 2^-11 of itself at most. So a row keeps its length within
0.0005, and its cosine with the float32 row it was rounded from is above 1 - 2^-22; numbers below
6e-5, which half precision holds less well, are too small to change that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import nn

from studylib import errors
from studylib.compress import size
from studylib.datasets import packed
from studylib.datasets.packed import Joined, Packed
from studylib.faces import Faces

FORMAT = "studylib teacher embeddings 1"
EMBEDDINGS, MANIFEST, PROGRESS = "embeddings.npy", "manifest.json", "progress.txt"
DIGITS = 12  # of a key, in its cache's name
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what is written already is sound
# What `log` is told.
UNUSABLE = "The cached embeddings {name} cannot be used ({problem}) and are computed again."
UNLIKE = "These embeddings are computed now: the cached ones {name} differ in the {part} alone."


def embeddings(
    teacher: nn.Module,
    data: Packed | Joined | Faces,
    folder: str | Path,
    *,
    mirrored: bool = True,
    device="cpu",
    batch_size: int = 64,
    check: bool = False,
    log: Callable[[str], None] | None = print,
) -> np.ndarray:
    """The teacher's embedding of every face: from the cache, or computed into it.

    Of several processes that ask for the same one computes and the others wait. Faces joined from
    packed sets are put together from the caches of these whole sets, so that the teacher sees each
    picture once, however many mixtures there are.

    Parameters
    ----------
    teacher : torch.nn.Module
        Takes uint8 (B, C, H, W), gives (B, D); left in evaluation mode, and on the device if it had
        to compute.
    data : Packed, Joined or Faces
        N faces, with or without labels.
    folder : path
        Of any number of caches.
    mirrored : bool
        Whether to keep the mirrored face's embedding beside that of the face as it is. Without it
        there is what the students of Neto et al. (2024) are matched to, mirrored or not.
    device : str or torch.device
        Where the teacher computes, in float32.
    batch_size : int
        Faces at a time.
    check : bool
        Compare a cache's content with its SHA-256; one that was changed is computed again.
    log : callable, optional
        Called with a sentence where a cache cannot be used, or is like the one computed now but for
        a single part of its key: data, network or transform.

    Returns
    -------
    numpy.ndarray
        float16 (N, V, D), a read-only memory map; V is 2 if mirrored, else 1; rows of length 1.

    Raises
    ------
    DataError
        A disk that is full or cannot be written to. What a full one holds already is kept.
    ParameterError
        No faces, an empty batch, or an embedding without a direction.
    """
    errors.at_least(1, batch_size=batch_size, faces=len(data))
    key = _key(teacher.eval(), data, mirrored)
    place = Path(folder).expanduser() / size.digest({}, key)[:DIGITS]
    found, problem = _open(place, key, check)
    if found is not None:  # asked without a lock: a disk that one may only read is enough
        return found
    if log and (told := _told(place, key, problem)):
        log(told)
    if isinstance(data, Joined):
        given = {"mirrored": mirrored, "device": device, "batch_size": batch_size, "check": check}
        wholes = [embeddings(teacher, part, folder, log=log, **given) for part in data.parts]
        rows = partial(_gathered, wholes, data.rows)
    else:
        rows = partial(_computed, teacher.to(device), data, mirrored, device)
    about = {"origin": data.origin, "device": str(device), "torch": torch.__version__}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            found, _ = _open(place, key, check)  # made while this process waited
            if found is None:
                _write(place, key, about, (len(data), *rows(0, 1).shape[1:]), rows, batch_size)
    except OSError as problem:
        reason, part = problem.strerror or problem, _part(place)
        kept = problem.errno in FULL and part.exists()
        text = errors.FULL_CACHE if kept else errors.CANNOT_CACHE
        raise errors.DataError(text.format(path=place, reason=reason, part=part)) from problem
    return _open(place, key, check=False)[0]


@torch.inference_mode()
def views(teacher: nn.Module, images: torch.Tensor, mirrored: bool = True) -> torch.Tensor:
    """Embed faces, and their mirror images if wanted.

    Parameters
    ----------
    teacher : torch.nn.Module
        In evaluation mode, on the images' device.
    images : torch.Tensor
        uint8 (B, C, H, W).

    Returns
    -------
    torch.Tensor
        float32 (B, V, D) on the CPU, rows of length 1; second index 0 as is, 1 mirrored.
    """
    seen = (images, images.flip(-1)) if mirrored else (images,)
    return torch.stack([F.normalize(teacher(one).float()).cpu() for one in seen], 1)


def _key(teacher: nn.Module, data, mirrored: bool) -> dict:
    """All that decides the values, by the names that a message calls the parts."""
    weights = {name: tensor.cpu() for name, tensor in teacher.state_dict().items()}
    shown = ["as is", "mirrored"] if mirrored else ["as is"]
    return {
        "data": packed.fingerprint(data),
        "network": size.digest(weights, {"network": repr(teacher)}),
        "transform": {"format": FORMAT, "views": shown, "rows": "length 1, float16"},
    }


def _open(place: Path, key: dict, check: bool) -> tuple[np.ndarray | None, str]:
    """A cache that is whole and of this key; else nothing, and why if there is one at all."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if manifest["key"] != key:
            unlike = [part for part in key if manifest["key"].get(part) != key[part]]
            return None, f"they differ in the {' and the '.join(unlike)}"
        if check and _sha256(place / EMBEDDINGS).hexdigest() != manifest["sha256"]:
            return None, "they were changed since they were written"
        return np.load(place / EMBEDDINGS, mmap_mode="r", allow_pickle=False), ""
    except OSError as problem:
        name = Path(problem.filename or place).name
        return None, f"{name}: {problem.strerror}" if place.exists() else ""
    except (ValueError, EOFError, LookupError, TypeError, AttributeError) as problem:
        return None, f"damaged: {problem}"


def _told(place: Path, key: dict, problem: str) -> str:
    """A sentence on what is there instead of what was asked for; none if nothing is near it."""
    if problem:
        return UNUSABLE.format(name=place.name, problem=problem)
    for path in sorted(place.parent.glob(f"*/{MANIFEST}")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            other = json.loads(path.read_text(encoding="utf-8"))["key"]
            unlike = [part for part in key if other[part] != key[part]]
            if len(unlike) == 1:
                return UNLIKE.format(name=path.parent.name, part=unlike[0])
    return ""


def _computed(teacher, data, mirrored: bool, device, start: int, stop: int) -> np.ndarray:
    """Rows start to stop as the teacher gives them: float16 (B, V, D)."""
    rows = views(teacher, data.batch(range(start, stop)).to(device), mirrored)
    lost = ~((rows.norm(dim=2) - 1).abs() < 0.1).all(1)  # NaN is near nothing
    if lost.any():
        item = data.table["item"].iloc[start + int(lost.nonzero()[0])]
        raise errors.ParameterError(errors.NO_DIRECTION.format(item=item))
    return rows.half().numpy()


def _gathered(wholes: list, taken: tuple, start: int, stop: int) -> np.ndarray:
    """Rows start to stop of what is taken from several caches, one after the other."""
    firsts = np.cumsum([0, *map(len, taken)])
    bounds = ((max(start - first, 0), max(stop - first, 0)) for first in firsts)
    parts = zip(wholes, taken, bounds, strict=False)
    return np.concatenate([whole[rows[low:high]] for whole, rows, (low, high) in parts])


def _write(place: Path, key: dict, about: dict, shape: tuple, rows: Callable, step: int) -> None:
    """Write all rows that NAME.part does not hold yet, then the manifest; rename it."""
    part = _part(place)
    row = 2 * int(np.prod(shape[1:]))  # bytes
    try:
        done, digest = _resume(part, key, shape, row)
        left = row * (shape[0] - done)
        if left > shutil.disk_usage(part).free:  # said before hours are spent on it
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for {left:,} bytes")
        with open(part / EMBEDDINGS, "ab") as file, open(part / PROGRESS, "ab") as progress:
            for start in _shown(range(done, shape[0], step)):
                block = rows(start, min(start + step, shape[0]))
                file.write(block)
                file.flush()  # before the line that vouches for it
                digest.update(block)
                progress.write(f"{file.tell()} {digest.hexdigest()}\n".encode())
                progress.flush()
            os.fsync(file.fileno())
        manifest = {"key": key, "shape": shape, **about, "sha256": digest.hexdigest()}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)  # it was not what its name says
        os.replace(part, place)
        (place / PROGRESS).unlink()
    except OSError as problem:
        if problem.errno not in FULL:
            shutil.rmtree(part, ignore_errors=True)
        raise


def _part(place: Path) -> Path:
    return place.with_name(f"{place.name}.part")


def _shown(starts: range):
    """The same steps, with a progress bar where somebody watches."""
    console = Console(stderr=True)
    return track(starts, "Embedding", console=console, disable=not sys.stderr.isatty())


def _resume(part: Path, key: dict, shape: tuple, row: int) -> tuple:
    """Rows that a stopped call left whole, and the digest of the file up to there."""
    header = io.BytesIO()
    about = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    first = json.dumps(key, sort_keys=True).encode() + b"\n"
    with contextlib.suppress(FileNotFoundError):
        lines = (part / PROGRESS).read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole[:1] == [first] and whole[1:]:
            length, wanted = whole[-1].decode().split()
            os.truncate(part / EMBEDDINGS, int(length))
            digest = _sha256(part / EMBEDDINGS)
            if digest.hexdigest() == wanted:
                fresh = part / f"{PROGRESS}.new"
                fresh.write_bytes(first + whole[-1])  # a full disk must not cost the old one
                os.replace(fresh, part / PROGRESS)
                return (int(length) - header.tell()) // row, digest
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    (part / EMBEDDINGS).write_bytes(header.getvalue())
    (part / PROGRESS).write_bytes(first)
    return 0, hashlib.sha256(header.getvalue())


def _sha256(path: Path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256")
