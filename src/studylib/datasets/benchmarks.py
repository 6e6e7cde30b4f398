"""Verification sets as InsightFace's .bin files: LFW, CFP-FP, AgeDB-30, CALFW, CPLFW and RFW.

Such a file is a pickle of (encoded pictures, booleans): pictures 2i and 2i + 1 are pair i, and
boolean i says whether they show one person. Unpickling runs what the file asks for, so it is not
done: the standard library's disassembler tells one instruction of the file after another, and those
that build lists of bytes and booleans are carried out here. All others are refused, among them
every one that names or calls anything.
"""

from __future__ import annotations

import mmap
import pickletools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from studylib import errors
from studylib.datasets import packed, tables
from studylib.datasets.rfw import RACES
from studylib.faces import Faces

SIZE = 112
LAYOUT = "one .bin file (ROOT may be that file), or RFW's: " + ", ".join(
    f"{race}_test.bin" for race in RACES
)
MOST_BYTES = 2**30  # of a file; CFP-FP, the largest of the sets, takes some 70 MB
MOST_PICTURES = 100_000  # of a file, 3.8 GB decoded; CFP-FP has 14,000
MOST_STEPS = 10 * MOST_PICTURES  # instructions in a file, which takes about 3 a picture


class Picture(NamedTuple):
    """An encoded picture and its place: its number in a file."""

    path: Path
    number: int
    data: bytes


def pairs(root: Path) -> tuple[Faces, pd.DataFrame]:
    """Read a verification set: a .bin file, or a folder with one, or with RFW's four.

    Pictures with the same bytes are one item. Nobody is named in such files: a subject is what
    genuine pairs connect, so one person may count as several subjects, and never two as one unless
    the set says so. Pictures of another size are resized to 112 x 112 as `packed.decode` does.

    Parameters
    ----------
    root : path
        The file or folder. Of RFW's files some may be missing.

    Returns
    -------
    faces : Faces
        uint8 (N, 3, 112, 112), RGB; an item is a picture's number in its file, the first
        where there are several; of RFW with `race`.
    pairs : pandas.DataFrame
        a, b, genuine and fold (the file order cut in ten), of RFW with `group`.

    Raises
    ------
    DataError
        If there is no such file, it holds anything but bytes and booleans, more or fewer than two
        pictures a pair, more than 2**30 bytes or 100,000 pictures, or a broken picture.
    """
    pictures, rows, protocols = [], [], []
    for path, race in _files(Path(root)).items():
        distinct, table, protocol = _one(path, race)
        protocol[["a", "b"]] += len(pictures)
        pictures += distinct
        rows.append(table)
        protocols.append(protocol)
        if len(pictures) > MOST_PICTURES:
            raise _bad(path, f"it has more than {MOST_PICTURES:,} pictures")
    faces = Faces(_decoded(pictures), pd.concat(rows, ignore_index=True), "benchmarks")
    return faces, pd.concat(protocols, ignore_index=True)


def load(path: Path) -> tuple[list[bytes], list[bool]]:
    """Read a .bin file: encoded pictures, two a pair, and whether each pair is of one person.

    Raises
    ------
    DataError
        If the file is missing or too large, or holds anything else; nothing in it is run.
    """
    try:
        # A read from a map is never larger than the file, whatever length the file gives.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            if len(whole) > MOST_BYTES:
                raise ValueError(f"it has {len(whole):,} bytes, more than {MOST_BYTES:,}")
            found = _built(whole)
    except (OSError, ValueError) as problem:
        raise _bad(path, f"it cannot be read ({problem})") from problem
    match found:
        case ([*pictures], [*genuine]):
            kinds = {type(one) for one in pictures}, {type(one) for one in genuine}
        case _:
            raise _bad(path, "it does not hold two lists")
    if kinds != ({bytes}, {bool}):
        raise _bad(path, "its lists hold other things, or nothing")
    if len(pictures) != 2 * len(genuine):
        raise _bad(path, f"it has {len(pictures)} pictures for {len(genuine)} pairs")
    return pictures, genuine


def _built(file: mmap.mmap):
    """Carry out the instructions of a pickle that build lists, tuples, bytes and booleans.

    The names are those of pickletools, which describes each. ValueError: any other instruction, or
    a file that is no whole pickle.
    """
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}

    def since_mark() -> list:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    try:
        for step, (instruction, value, at) in enumerate(pickletools.genops(file)):
            if step == MOST_STEPS:
                raise ValueError(f"more than {MOST_STEPS:,} instructions")
            match instruction.name:
                case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                    stack.append(value)
                case "SHORT_BINSTRING" | "BINSTRING":  # bytes, as Python 2 wrote them
                    stack.append(value.encode("latin-1"))
                case "NEWTRUE" | "NEWFALSE" as name:
                    stack.append(name == "NEWTRUE")
                case "EMPTY_LIST":
                    stack.append([])
                case "MARK":
                    marks.append(len(stack))
                case "APPEND":
                    item = stack.pop()
                    stack[-1].append(item)
                case "APPENDS":
                    items = since_mark()
                    stack[-1].extend(items)
                case "TUPLE2":
                    stack[-2:] = [(stack[-2], stack[-1])]
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                    memo[len(memo) if value is None else value] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[value])
                case "PROTO" | "FRAME" | "STOP":
                    pass
                case name:
                    told = name if value is None else f"{name} {str(value)[:60]!r}"
                    raise ValueError(f"instruction {told} at byte {at}")
        return stack.pop()
    except (IndexError, KeyError, AttributeError, TypeError) as problem:
        raise ValueError("its instructions do not fit together") from problem


def _files(root: Path) -> dict[Path, str | None]:
    """The .bin files to read, and the race that each is of."""
    if root.is_file():
        return {root: None}
    by_race = {root / f"{race}_test.bin": race for race in RACES}
    there = {path: race for path, race in by_race.items() if path.is_file()}
    if there:
        return there
    files = sorted(root.glob("[!.]*.bin"))
    if len(files) != 1:
        problem = f"it holds {len(files)} .bin files, so name the one to read"
        raise tables.wrong_layout(root, "benchmarks", problem, LAYOUT)
    return {files[0]: None}


def _one(path: Path, race: str | None) -> tuple[list[Picture], pd.DataFrame, pd.DataFrame]:
    """Read one file: its distinct pictures, their table, and the pairs of their positions."""
    encoded, genuine = load(path)
    positions: dict[bytes, int] = {}
    codes = np.array([positions.setdefault(data, len(positions)) for data in encoded])
    first = np.unique(codes, return_index=True)[1]  # where each picture first comes
    protocol = pd.DataFrame({"a": codes[::2], "b": codes[1::2], "genuine": genuine})
    protocol["fold"] = tables.folds(len(protocol))
    numbers = pd.DataFrame({"item": first, "subject": tables.connected(protocol, len(first))})
    table = numbers.map(lambda number: f"{path.stem}/{number:05d}")
    if race:
        protocol["group"] = table["race"] = race.lower()
    return [Picture(path, k, encoded[k]) for k in first], table, protocol


def _decoded(pictures: list[Picture]) -> torch.Tensor:
    """Decode all pictures, several at a time: uint8 (N, 3, 112, 112)."""
    images = np.empty((len(pictures), 3, SIZE, SIZE), np.uint8)

    def fill(index: int) -> None:
        path, number, data = pictures[index]
        try:
            images[index] = packed.decode(data, SIZE).transpose(2, 0, 1)
        except ValueError as problem:
            where = f"{number} (from 0) of {path}"
            raise errors.DataError(
                errors.UNREADABLE_IMAGE.format(path=where, reason=problem)
            ) from problem

    with ThreadPoolExecutor() as decoders:
        for _ in decoders.map(fill, range(len(pictures))):
            pass  # what is wrong with a picture is raised here
    return torch.from_numpy(images)


def _bad(path: Path, problem: str) -> errors.DataError:
    return errors.DataError(errors.BAD_BENCHMARK.format(path=path, problem=problem))
