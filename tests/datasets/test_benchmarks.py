"""Verification sets in .bin files, as Python 2 and 3 pickled them; wrong and hostile ones."""

import os
import pickle
import pickletools
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFile

from studylib import errors
from studylib.datasets import benchmarks, packed
from tests.fixtures import fr_files

BAD = fr_files.message(errors.BAD_BENCHMARK)


@pytest.mark.parametrize(
    "form", [{"python2": True}, {"protocol": 3}, {"protocol": 4}, {"protocol": 5}]
)
def test_what_python_pickled_is_read(tmp_path, form):
    path = fr_files.benchmark(tmp_path / "lfw.bin", pairs=40, **form)
    pictures, genuine = benchmarks.load(path)
    assert (pictures, genuine) == fr_files.verification(pairs=40)
    told = pickle.loads(path.read_bytes(), encoding="bytes")  # the file is our own
    assert (pictures, genuine) == tuple(told)


@given(
    st.lists(
        st.tuples(st.binary(max_size=300), st.binary(max_size=300), st.booleans()), min_size=1
    ),
    st.sampled_from([3, 4, 5]),
    st.booleans(),
)
def test_any_lists_come_back(rows, protocol, as_list):
    pictures = [data for one, other, _ in rows for data in (one, other)]
    genuine = [same for *_, same in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.bin")
        both = [pictures, genuine] if as_list else (pictures, genuine)
        path.write_bytes(pickle.dumps(both, protocol))
        assert benchmarks.load(path) == (pictures, genuine)


def test_faces_and_pairs_fit_the_protocol(tmp_path):
    path = fr_files.benchmark(tmp_path / "lfw.bin", pairs=40)
    faces, pairs = benchmarks.pairs(path)
    pictures, genuine = fr_files.verification(pairs=40)
    assert faces.images.dtype == torch.uint8 and faces.images.shape[1:] == (3, 112, 112)
    assert len(faces) == len(set(pictures)) < 80 and faces.table["item"].is_unique
    assert pairs.dtypes.astype(str).to_dict() == {
        "a": "int64",
        "b": "int64",
        "genuine": "bool",
        "fold": "int64",
    }
    assert pairs["genuine"].tolist() == genuine
    assert pairs["fold"].tolist() == np.repeat(range(10), 4).tolist()
    for column, data in (("a", pictures[::2]), ("b", pictures[1::2])):
        wanted = np.stack([packed.decode(one) for one in data]).transpose(0, 3, 1, 2)
        assert (faces.images.numpy()[pairs[column]] == wanted).all()


def test_subjects_are_what_genuine_pairs_connect(tmp_path):
    """Pictures A B, B C, D E are of one person each; A D and F G are not."""
    a, b, c, d, e, f, g = (fr_files.jpeg(k, 0) for k in range(7))
    rows = [(a, b, True), (b, c, True), (a, d, False), (d, e, True), (f, g, False)]
    whole = [data for *two, _ in rows for data in two], [same for *_, same in rows]
    (tmp_path / "x.bin").write_bytes(pickle.dumps(whole))
    faces, pairs = benchmarks.pairs(tmp_path / "x.bin")
    assert faces.table["item"].tolist() == [f"x/{k:05d}" for k in (0, 1, 3, 5, 7, 8, 9)]
    numbers = faces.table["subject"].str.removeprefix("x/").astype(int).tolist()
    assert numbers == [0, 0, 0, 1, 1, 2, 3]
    assert pairs[["a", "b"]].to_numpy().tolist() == [[0, 1], [1, 2], [0, 3], [3, 4], [5, 6]]


def test_the_four_files_of_rfw_are_one_set(tmp_path):
    faces, pairs = benchmarks.pairs(fr_files.rfw_bins(tmp_path))
    races = ["african", "asian", "caucasian", "indian"]
    assert pairs["group"].tolist() == np.repeat(races, 20).tolist()
    assert (faces.table["race"].to_numpy()[pairs["a"]] == pairs["group"]).all()
    assert (faces.table["race"].to_numpy()[pairs["b"]] == pairs["group"]).all()
    assert pairs.groupby("group")["fold"].value_counts().eq(2).all()
    assert faces.table["item"].is_unique
    assert faces.table.groupby("subject")["race"].nunique().eq(1).all()
    alone, listed = benchmarks.pairs(tmp_path / "Indian_test.bin")
    part = pairs[pairs["group"] == "indian"]
    assert (faces.images.numpy()[part["b"]] == alone.images.numpy()[listed["b"]]).all()


def test_some_files_of_rfw_are_enough(tmp_path):
    fr_files.rfw_bins(tmp_path)
    (tmp_path / "Asian_test.bin").unlink()
    _, pairs = benchmarks.pairs(tmp_path)
    assert pairs["group"].unique().tolist() == ["african", "caucasian", "indian"]


def test_a_folder_with_one_file_will_do_and_with_two_not(tmp_path):
    fr_files.benchmark(tmp_path / "lfw.bin")
    (tmp_path / "._lfw.bin").write_bytes(b"left by a Mac")
    assert len(benchmarks.pairs(tmp_path)[1]) == 20
    fr_files.benchmark(tmp_path / "cplfw.bin")
    with pytest.raises(errors.DataError, match=r"it holds 2 \.bin files, so name the one"):
        benchmarks.pairs(tmp_path)


def test_other_sizes_are_resized(tmp_path):
    faces, _ = benchmarks.pairs(fr_files.benchmark(tmp_path / "x.bin", size=64))
    assert faces.images.shape[1:] == (3, 112, 112)


# Wrong and hostile files.


class Calls:
    """Pickled, a call of os.system; unpickled, it makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def hostile(target: Path) -> dict[str, bytes]:
    """Pickles that call os.system when they are unpickled, each in another way."""
    run = f"touch {target}"
    pictures, genuine = fr_files.verification()
    return {
        "STACK_GLOBAL": pickle.dumps(Calls(target), 4),
        "GLOBAL": pickle.dumps(Calls(target), 2),
        "within the list": pickle.dumps(([*pictures[:-1], Calls(target)], genuine), 5),
        "in place of a boolean": pickle.dumps((pictures, [*genuine[:-1], Calls(target)]), 3),
        "after the lists": pickle.dumps((pictures, genuine), 4)[:-1]
        + b"0cposix\nsystem\n(S'"
        + run.encode()
        + b"'\ntR.",
        "INST": b"(S'" + run.encode() + b"'\niposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\nS'" + run.encode() + b"'\no.",
    }


@pytest.mark.parametrize("how", hostile(Path("x")))
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path, how):
    target, path = tmp_path / "it ran".replace(" ", "_"), tmp_path / "x.bin"
    path.write_bytes(hostile(target)[how])
    pickle.loads(path.read_bytes())  # the danger is real: a common reader runs it
    assert target.exists()
    target.unlink()
    with pytest.raises(errors.DataError, match=BAD) as caught:
        benchmarks.pairs(path)
    assert "instruction" in str(caught.value) and not target.exists()


def test_only_instructions_that_make_lists_are_known(tmp_path):
    """Each of pickle's other instructions is refused: none may build, name or call an object."""
    known = {
        *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_LIST", "APPEND", "APPENDS", "TUPLE", "TUPLE2"),
        *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "NEWTRUE", "NEWFALSE"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINSTRING", "BINSTRING"),
    }
    arguments = (b"\x01\0\0\0\0\0\0\0\0" * 2, b"0\n0\n", b"'a'\n")
    for instruction in pickletools.opcodes:
        told = []
        for argument in arguments if instruction.arg else [b""]:
            (tmp_path / "x.bin").write_bytes(instruction.code.encode("latin-1") + argument)
            with pytest.raises(errors.DataError, match=BAD) as caught:
                benchmarks.load(tmp_path / "x.bin")
            told.append(f"instruction {instruction.name} " in str(caught.value))
        assert any(told) == (instruction.name not in known), instruction.name


@pytest.mark.parametrize(
    "text",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",  # bytes of 1 TB
        b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b"abc.",  # bytes of 4 GB
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"abc.",  # a string of 2 GB
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"].",  # a frame of 4 EB
        b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".",  # a memo of 4 G entries
        b"\x80\x04\x96" + struct.pack("<Q", 2**40) + b"abc.",  # a bytearray of 1 TB
    ],
)
def test_a_length_that_lies_takes_no_memory(tmp_path, text):
    (tmp_path / "x.bin").write_bytes(text)
    tracemalloc.start()
    with pytest.raises(errors.DataError, match=BAD):
        benchmarks.load(tmp_path / "x.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


def test_limits_are_stated_and_kept(tmp_path, monkeypatch):
    limits = benchmarks.MOST_BYTES, benchmarks.MOST_PICTURES, benchmarks.MOST_STEPS
    assert limits == (2**30, 100_000, 1_000_000)
    path = tmp_path / "x.bin"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # takes no space
    with pytest.raises(errors.DataError, match=r"it has 1,073,741,825 bytes, more than"):
        benchmarks.load(path)
    fr_files.benchmark(path)
    steps = len(list(pickletools.genops(path.read_bytes())))
    monkeypatch.setattr(benchmarks, "MOST_STEPS", steps - 1)
    with pytest.raises(errors.DataError, match=f"more than {steps - 1} instructions"):
        benchmarks.load(path)
    monkeypatch.setattr(benchmarks, "MOST_STEPS", steps)
    pictures = len(benchmarks.pairs(path)[0])
    monkeypatch.setattr(benchmarks, "MOST_PICTURES", pictures - 1)
    with pytest.raises(errors.DataError, match=f"it has more than {pictures - 1} pictures"):
        benchmarks.pairs(path)


PICTURES, GENUINE = fr_files.verification()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ((PICTURES[:-1], GENUINE), "it has 39 pictures for 20 pairs"),
        ((PICTURES, GENUINE[:-1]), "it has 40 pictures for 19 pairs"),
        ((PICTURES,) * 2, "its lists hold other things"),
        ((GENUINE, PICTURES), "its lists hold other things"),
        (([], []), "its lists hold other things, or nothing"),
        ((PICTURES, GENUINE, GENUINE), "instruction TUPLE3 at byte"),
        ([], "does not hold two lists"),
        (PICTURES[0], "does not hold two lists"),
        ((PICTURES, [int(same) for same in GENUINE]), "instruction BININT1 '1' at byte"),
        (([np.frombuffer(one, np.uint8) for one in PICTURES], GENUINE), "instruction"),
        ({"pictures": PICTURES}, "instruction EMPTY_DICT at byte"),
    ],
)
def test_what_is_no_verification_set_is_told(tmp_path, content, problem):
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(content, 4))
    wanted = fr_files.message(errors.BAD_BENCHMARK, path=path)
    with pytest.raises(errors.DataError, match=wanted) as caught:
        benchmarks.pairs(path)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b".",
        b"e.",
        b"a.",
        b"\x86.",
        b"(e.",
        b"h\x05.",
        b"q\0.",
        b"\x88a.",
        b"\x88\x88a.",
        b"(.",
    ],
)
def test_instructions_that_do_not_fit_are_told(tmp_path, text):
    (tmp_path / "x.bin").write_bytes(text)
    with pytest.raises(errors.DataError, match=BAD):
        benchmarks.load(tmp_path / "x.bin")


def test_a_list_within_itself_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"\x80\x04]\x94h\0a]\x86.")
    with pytest.raises(errors.DataError, match="its lists hold other things"):
        benchmarks.load(tmp_path / "x.bin")


def test_a_truncated_file_is_told_wherever_it_ends(tmp_path):
    path = tmp_path / "x.bin"
    whole = pickle.dumps(([b"a" * 300, b"b"] * 3, [True, False, True]), 4)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(errors.DataError, match=BAD):
            benchmarks.load(path)


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3), st.sampled_from([2, 3, 4, 5]))
def test_damage_is_a_clear_error_or_does_no_harm(at, data, protocol):
    rows = ([b"a" * 300, b"b"] * 3, [True, False, True])
    whole = bytearray(fr_files._python2(*rows) if protocol == 2 else pickle.dumps(rows, protocol))
    at %= len(whole)
    whole[at : at + len(data)] = data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.bin")
        path.write_bytes(whole)
        try:
            pictures, genuine = benchmarks.load(path)
        except errors.DataError as problem:
            assert str(problem).startswith(str(path))
        else:
            assert len(pictures) == 2 * len(genuine)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(errors.DataError, match="No such file"):
        benchmarks.load(tmp_path / "x.bin")
    with pytest.raises(errors.DataError, match=r"it holds 0 \.bin files"):
        benchmarks.pairs(tmp_path)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (fr_files.huge_jpeg(), "pixels"),
        (fr_files.huge_jpeg(12_000, 10_000), "pixels"),
        (b"no picture", ""),
        (fr_files.jpeg(0, 0)[:-200], "truncated"),
    ],
)
def test_a_broken_picture_is_named(tmp_path, monkeypatch, data, problem):
    pictures = [*PICTURES[:5], data, *PICTURES[6:]]
    (tmp_path / "x.bin").write_bytes(pickle.dumps((pictures, GENUINE)))
    if problem == "pixels":
        load = ImageFile.ImageFile.load

        def small_only(image):
            assert image.width * image.height < packed.MAX_PIXELS, "decoded"
            return load(image)

        monkeypatch.setattr(ImageFile.ImageFile, "load", small_only)
    where = f"5 (from 0) of {tmp_path / 'x.bin'}"
    wanted = fr_files.message(errors.UNREADABLE_IMAGE, path=where)
    with pytest.raises(errors.DataError, match=wanted) as caught:
        benchmarks.pairs(tmp_path / "x.bin")
    assert problem in str(caught.value)
