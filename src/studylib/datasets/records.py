"""Training sets as MXNet's RecordIO: train.rec, train.idx and property, read without MXNet.

A record, all numbers little-endian (dmlc-core, recordio.h; MXNet, recordio.py):

    uint32 magic, uint32 part << 29 | length, `length` bytes, zeros up to a multiple of 4

`part` is 0 for a whole record. A payload in which the magic word stands at a multiple of 4 is cut
there, and the word left out: 1 first, 2 middle, 3 last part. A payload starts with its header:

    uint32 flag, float32 label, uint64 id, uint64 id2, `flag` more float32 labels, then the JPEG

InsightFace's sets put a header record first, with labels [first record that is no picture, end];
after the pictures comes a record an identity. Sets without a header record hold pictures only.

The file is mapped, not read: a length that lies cannot make a read larger than the file, and
threads and forked workers share it.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np
import pandas as pd

from studylib import errors
from studylib.datasets import tables

LAYOUT = "train.rec and, if the set has them, train.idx and property (InsightFace's RecordIO)"
MAGIC = 0xCED7230A
WORD = struct.pack("<I", MAGIC)
MOST_BYTES = 2**26  # of one record, 64 MiB; a face of 112 px takes about 5 kB
FRAME, HEADER = struct.Struct("<II"), struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)
LENGTH = 2**29 - 1  # the lower 29 bits


class Records:
    """The pictures of a RecordIO training set, by random access; `packed.pack` takes it.

    Parameters
    ----------
    folder : path
        Holds train.rec and, where the set comes with them, train.idx (else the records are looked
        for from the start) and property (identities,height,width).

    Attributes
    ----------
    labels : numpy.ndarray
        int64 (N,), codes of the identities.
    names : list of str
        K names of identities, which are their numbers: the format has no others.
    items : list of str
        N record numbers, as train.idx gives them.
    origin : str
        The catalog entry; `records` unless set.

    Raises
    ------
    DataError
        If a file is missing, empty or broken: the headers of all records are read when a set is
        opened, and the index and property held against them.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        self._path = folder / "train.rec"
        try:
            with self._path.open("rb") as file:
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise _wrong(folder, "train.rec is empty") from None
        except OSError as problem:
            reason = f"train.rec cannot be read ({problem.strerror})"
            raise _wrong(folder, reason) from None
        self._view = memoryview(self._file)
        index = folder / "train.idx"
        if index.is_file():
            keys, positions = _listed(index, len(self._view))
        else:
            positions = self._found()
            keys = np.arange(len(positions))
        pictures = self._pictures(keys, positions, index)
        self.items = [str(key) for key in keys[pictures].tolist()]
        self._at = positions[pictures]
        self.labels, self._spans = self._read_headers()
        identities = int(self.labels.max()) + 1
        self.names = [str(identity) for identity in range(identities)]
        self.origin = "records"
        _fits(folder / "property", identities)

    def __len__(self) -> int:
        return len(self._at)

    def encoded(self, i: int) -> bytes:
        """Bytes of picture i as stored, a JPEG file as a rule; nothing of it is decoded."""
        start, stop = self._spans[i]
        if stop:
            return self._file[start:stop]
        return bytes(self._record(int(self._at[i]))[1])  # its parts must be put together

    def _read_headers(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels, int64 (N,), and where pictures lie in the file, (N, 2); zeros: in parts."""
        words = np.frombuffer(self._view, "<u4", len(self._view) // 4)
        labels, spans = _whole(words, self._at)
        for i in np.flatnonzero(spans[:, 1] == 0):  # in parts; or broken, which is told here
            labels[i] = self._record(int(self._at[i]))[0][0]
        # As many identities as pictures at most: no list of names is longer than the file.
        known = (labels >= 0) & (labels < len(labels)) & (labels % 1 == 0)  # not NaN
        wrong = np.flatnonzero(~known)
        if len(wrong):
            most = f"a whole number below {len(labels)}, the number of pictures"
            problem = f"its label is {labels[wrong[0]]:g} and not {most}"
            raise self._broken(self._at[wrong[0]], problem)
        empty = np.flatnonzero((spans[:, 0] == spans[:, 1]) & (spans[:, 1] > 0))
        if len(empty):
            raise self._broken(self._at[empty[0]], "it holds no picture")
        return labels.astype(np.int64), spans

    def _record(self, at: int) -> tuple[tuple[float, ...], memoryview]:
        """Labels and content of the record at a byte: one label, or as many as its flag says."""
        payload = self._payload(at)
        if len(payload) < HEADER.size:
            raise self._broken(at, f"its {len(payload)} bytes are too few for a header")
        flag, label, _, _ = HEADER.unpack_from(payload)
        end = HEADER.size + 4 * flag
        if end > len(payload):
            raise self._broken(at, f"its flag promises {flag} labels in {len(payload)} bytes")
        labels = struct.unpack_from(f"<{flag}f", payload, HEADER.size) if flag else (label,)
        return labels, memoryview(payload)[end:]

    def _payload(self, at: int) -> memoryview | bytes:
        """What the frame at a byte holds, put together where it is in parts."""
        parts, here, total = [], at, 0
        while True:
            part, length = self._frame(here)
            if part not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
                raise self._broken(at, f"its part {len(parts) + 1} is marked {part}")
            here += FRAME.size
            total += length
            if total > MOST_BYTES or here + length > len(self._view):
                left = min(MOST_BYTES, len(self._view) - here)
                raise self._broken(at, f"it is {total} bytes long, and at most {left} can be")
            parts.append(self._view[here : here + length])
            here += length + -length % 4
            if part in (WHOLE, LAST):
                break
        # A length that lies seldom leads to the next record.
        if here < len(self._view) and self._view[here : here + 4] != WORD:
            raise self._broken(at, f"it is {total} bytes long, but no record follows it")
        return parts[0] if len(parts) == 1 else WORD.join(parts)

    def _frame(self, at: int) -> tuple[int, int]:
        """Part and length of the frame at a byte."""
        if at + FRAME.size > len(self._view):
            raise self._broken(at, "the file ends in it")
        magic, both = FRAME.unpack_from(self._view, at)
        if magic != MAGIC:
            raise self._broken(at, "it does not start with RecordIO's magic word")
        return both >> 29, both & LENGTH

    def _found(self) -> np.ndarray:
        """Where records start, from frame to frame."""
        starts, at = [], 0
        while at < len(self._view):
            part, length = self._frame(at)
            if part in (WHOLE, FIRST):
                starts.append(at)
            at += FRAME.size + length + -length % 4
        return np.array(starts, np.int64)

    def _pictures(self, keys: np.ndarray, positions: np.ndarray, index: Path) -> np.ndarray:
        """Which of the records are pictures: bool (N,)."""
        if not len(keys):
            raise self._broken(0, "no record starts there")
        labels, content = self._record(int(positions[0]))
        if len(content):
            return np.ones(len(keys), bool)
        end = labels[0]  # float32: whole numbers up to 2**24, and even ones above
        pictures = (keys > keys[0]) & (keys < end)
        if not 1 < end < np.inf or pictures.sum() != int(end) - keys[0] - 1:
            there = f"of pictures 1 to {end - 1:g}, as its first record has them, {pictures.sum()}"
            if index.is_file():
                raise _bad_index(index, f"{there} are listed")
            raise self._broken(int(positions[0]), f"{there} are there")
        return pictures

    def _broken(self, at: int, problem: str) -> errors.DataError:
        text = errors.BAD_RECORD.format(path=self._path, position=at, problem=problem)
        return errors.DataError(text)


def read(root: Path) -> Records:
    """Open a training set in a folder; DataError as `Records` raises it."""
    return Records(root)


def _listed(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read train.idx, a record number and its byte a line: both int64 (N,), by record number."""
    try:
        table = pd.read_csv(
            path, sep="\t", header=None, names=["key", "at"], dtype=np.int64, index_col=False
        )
    except (ValueError, OverflowError, pd.errors.ParserWarning) as problem:
        raise _bad_index(path, f"it cannot be read ({problem})") from problem
    table = table.sort_values("key")
    keys, at = table["key"].to_numpy(), table["at"].to_numpy()
    outside = np.flatnonzero((at < 0) | (at > size - FRAME.size) | (at % 4 != 0))
    if not len(keys):
        raise _bad_index(path, "it lists nothing")
    if len(outside):
        first = outside[0]
        there = f"record {keys[first]} is said to start at byte {at[first]} of {size}"
        raise _bad_index(path, f"{there}, where none can")
    if not (np.diff(keys).all() and np.diff(np.sort(at)).all()):
        raise _bad_index(path, "it lists a record twice")
    return keys, at


def _whole(words: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read the headers of whole records all at once, as `Records._record` does one by one.

    Parameters
    ----------
    words : numpy.ndarray
        The file as uint32.
    at : numpy.ndarray
        int64 (N,), the bytes where records start.

    Returns
    -------
    labels : numpy.ndarray
        float64 (N,).
    spans : numpy.ndarray
        int64 (N, 2), the bytes where contents start and stop; zeros for a record that is in parts
        or broken, of which the label means nothing.
    """

    def word(index: np.ndarray) -> np.ndarray:
        return words[np.minimum(index, len(words) - 1)]

    first = at // 4
    part, length = np.divmod(word(first + 1).astype(np.int64), LENGTH + 1)
    flag = word(first + 2).astype(np.int64)
    next_one = first + 2 + (length + 3) // 4
    whole = (word(first) == MAGIC) & (part == WHOLE) & (length <= MOST_BYTES)
    whole &= HEADER.size + 4 * flag <= length
    whole &= (next_one == len(words)) | (next_one < len(words)) & (word(next_one) == MAGIC)
    labels = np.where(flag > 0, word(first + 8), word(first + 3)).view(np.float32)
    starts = at + FRAME.size + HEADER.size + 4 * flag
    spans = np.stack([starts, at + FRAME.size + length], axis=1)
    return labels.astype(np.float64), spans * whole[:, None]


def _fits(path: Path, identities: int) -> None:
    """Hold property against the labels, if the set has that file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        text = file.read(100).decode("latin-1").strip()
    told = text.split(",")[0]
    if not told.isdecimal() or int(told) != identities:
        problem = f"it says {text!r}, and the labels are of {identities} identities"
        raise errors.DataError(errors.BAD_PROPERTY.format(path=path, problem=problem))


def _wrong(folder: Path, problem: str) -> errors.DataError:
    return tables.wrong_layout(folder, "records", problem, LAYOUT)


def _bad_index(path: Path, problem: str) -> errors.DataError:
    return errors.DataError(errors.BAD_INDEX.format(path=path, problem=problem))
