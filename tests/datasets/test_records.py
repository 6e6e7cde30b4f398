"""RecordIO training sets, written by independent code: whole, in parts, damaged and hostile."""

import multiprocessing
import re
import struct
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFile

from studylib import errors
from studylib.datasets import packed, records
from tests.fixtures import fr_files


@pytest.fixture
def tree(tmp_path):
    return fr_files.records_tree(tmp_path / "set")


def spoil(path: Path, at: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)


def start_of(folder: Path, key: int) -> int:
    return int((folder / "train.idx").read_text().split("\n")[key].split("\t")[1])


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("arrays", [True, False])
@pytest.mark.parametrize("header", [True, False])
def test_every_form_of_the_set_is_read(tmp_path, header, arrays, index):
    fr_files.records_tree(tmp_path, header=header, arrays=arrays, index=index)
    found = records.read(tmp_path)
    assert len(found) == 12 and found.names == ["0", "1", "2"]
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.items == [str(k) for k in range(header, 12 + header)]
    drawn = [fr_files.jpeg(p, k) for p in range(3) for k in range(4)]
    assert [found.encoded(i) for i in range(12)] == drawn


def test_a_file_written_byte_by_byte_is_read(tmp_path):
    """Two records as the format describes them: label 1 in the header, label 0 in an array."""
    (tmp_path / "train.rec").write_bytes(
        bytes.fromhex(
            "0a23d7ce 1b000000 00000000 0000803f 0500000000000000 0000000000000000 616263 00"
            "0a23d7ce 21000000 02000000 00000000 0600000000000000 0000000000000000"
            "00000000 00004040 64 000000"
        )
    )
    found = records.read(tmp_path)
    assert found.labels.tolist() == [1, 0]
    assert [found.encoded(0), found.encoded(1)] == [b"abc", b"d"]


def test_an_index_in_any_order_names_the_records(tree):
    index = tree / "train.idx"
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[::-1]) + "\n")
    found = records.read(tree)
    assert found.items[:2] == ["1", "2"] and found.encoded(5) == fr_files.jpeg(1, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([fr_files.MAGIC, b"", b"a", b"abcd"]), max_size=8).map(
            lambda parts: b"".join(parts) or b"x"
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_contents_with_the_magic_word_come_back(contents, index):
    contents = [b"first", *contents]
    body = [fr_files.payload(k, k, data) for k, data in enumerate(contents)]
    with tempfile.TemporaryDirectory() as folder:
        fr_files.write_records(Path(folder), body, index=index, ids=len(body))
        found = records.read(Path(folder))
        assert [found.encoded(i) for i in range(len(found))] == contents
        assert found.labels.tolist() == list(range(len(contents)))


def test_a_record_in_parts_is_put_together(tmp_path):
    """Cut within its header too: the picture's number may be the magic word."""
    content = b"abcd" + fr_files.MAGIC + b"efgh" + fr_files.MAGIC
    body = [fr_files.payload(0, 0, b"x"), fr_files.payload([1, 7], 0xCED7230A, content)]
    fr_files.write_records(tmp_path, body)
    whole = (tmp_path / "train.rec").read_bytes()
    assert whole.count(fr_files.MAGIC) == 1 + 4  # one that starts the first record, four parts
    found = records.read(tmp_path)
    assert found.labels.tolist() == [0, 1] and found.encoded(1) == content


def test_threads_and_forked_workers_read_the_same(tree):
    found = records.read(tree)
    wanted = [found.encoded(i) for i in range(12)]
    order = np.random.default_rng(0).integers(0, 12, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(found.encoded, order)) == [wanted[i] for i in order]
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(2)]
    workers = [
        context.Process(target=lambda end=end: end.send([found.encoded(i) for i in range(12)]))
        for _, end in ends
    ]
    for worker in workers:
        worker.start()
    assert all(end.poll(15) and end.recv() == wanted for end, _ in ends)
    for worker in workers:
        worker.join()


def test_a_set_is_packed_from_its_records(tree, tmp_path):
    whole = packed.pack(records.read(tree), tmp_path / "packed", size=32)
    assert whole.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert whole.classes == ("0", "1", "2") and whole.table["item"].tolist()[:2] == ["1", "2"]
    assert (whole.pixels[5] == packed.decode(fr_files.jpeg(1, 1), 32)).all()


# Broken and hostile files.


def test_a_missing_or_empty_file_is_told(tmp_path):
    with pytest.raises(errors.DataError, match="No such file"):
        records.read(tmp_path)
    (tmp_path / "train.rec").touch()
    with pytest.raises(errors.DataError, match=re.escape(records.LAYOUT)) as caught:
        records.read(tmp_path)
    assert "train.rec is empty" in str(caught.value)


@pytest.mark.parametrize("index", [True, False])
def test_a_truncated_set_is_refused_wherever_it_ends(tmp_path, index):
    """Without an index, a cut between records leaves a smaller set, which nothing can tell."""
    body = [fr_files.payload(k % 2, k, b"abcdefg") for k in range(4)]
    fr_files.write_records(tmp_path, body, index=index)
    whole = (tmp_path / "train.rec").read_bytes()
    step = len(whole) // 4
    for cut in range(1, len(whole) - 1):  # the last byte is padding
        (tmp_path / "train.rec").write_bytes(whole[:cut])
        if not index and cut % step in (0, step - 1):
            assert len(records.read(tmp_path)) == round(cut / step)
            continue
        with pytest.raises(errors.DataError, match=r"train\.(rec|idx)"):
            records.read(tmp_path)


@pytest.mark.parametrize(
    ("offset", "data", "problem"),
    [
        (4, struct.pack("<I", 2**29 - 1), "bytes long, and at most"),
        (4, struct.pack("<I", 40), "no record follows it"),
        (4, struct.pack("<I", 8), "no record follows it"),
        (4, struct.pack("<I", 3 << 29 | 40), "its part 1 is marked 3"),
        (8, struct.pack("<I", 2**32 - 1), "its flag promises 4294967295 labels"),
        (12, struct.pack("<f", np.nan), "its label is nan"),
        (12, struct.pack("<f", -1), "its label is -1"),
        (12, struct.pack("<f", 0.5), "its label is 0.5"),
        (12, struct.pack("<f", 2e9), "its label is 2e+09 and not a whole number below 12"),
    ],
)
def test_a_record_that_lies_is_told_with_its_place(tree, offset, data, problem):
    at = start_of(tree, 3)
    spoil(tree / "train.rec", at + offset, data)
    tracemalloc.start()
    with pytest.raises(errors.DataError) as caught:
        records.read(tree)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pattern = fr_files.message(errors.BAD_RECORD, path=tree / "train.rec", position=at)
    assert re.fullmatch(pattern, str(caught.value)) and problem in str(caught.value)
    assert peak < 2e6


@pytest.mark.parametrize("index", [True, False])
def test_what_is_no_record_is_told(tree, index):
    """Where one does not start, the one before it does not end; with an index that one is told."""
    at = start_of(tree, 3)
    spoil(tree / "train.rec", at, b"abcd")
    if not index:
        (tree / "train.idx").unlink()
    told = (
        f"at byte {start_of(tree, 2)} .* no record follows it" if index else f"at byte {at} .* mag"
    )
    with pytest.raises(errors.DataError, match=told):
        records.read(tree)


def test_another_file_is_no_set(tmp_path):
    (tmp_path / "train.rec").write_bytes(fr_files.jpeg(0, 0))
    with pytest.raises(errors.DataError, match="does not start with RecordIO's magic word"):
        records.read(tmp_path)


def test_a_record_too_short_for_a_header_is_told(tmp_path):
    fr_files.write_records(tmp_path, [fr_files.payload(0, 0, b"a"), b"short"])
    with pytest.raises(errors.DataError, match="its 5 bytes are too few for a header"):
        records.read(tmp_path)


def test_a_record_without_its_last_part_is_told(tmp_path):
    body = [fr_files.payload(0, 0, b"abcd" + fr_files.MAGIC + b"efgh"), fr_files.payload(0, 1, b"")]
    fr_files.write_records(tmp_path, body)
    spoil(tmp_path / "train.rec", 36 + 4, struct.pack("<I", 2 << 29 | 4))
    with pytest.raises(errors.DataError, match="its part 3 is marked 0"):
        records.read(tmp_path)


def test_no_record_may_be_larger_than_the_limit(tree, monkeypatch):
    assert records.MOST_BYTES == 64 * 2**20
    longest = max(len(fr_files.jpeg(p, k)) for p in range(3) for k in range(4)) + 24
    monkeypatch.setattr(records, "MOST_BYTES", longest)
    assert len(records.read(tree)) == 12
    monkeypatch.setattr(records, "MOST_BYTES", longest - 1)
    with pytest.raises(errors.DataError, match=f"at most {longest - 1} can be"):
        records.read(tree)


def past_the_end(lines):
    return [*lines[:-1], "12\t99999999"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (past_the_end, "record 12 is said to start at byte 99999999 of"),
        (lambda lines: [*lines[:-1], "12\t-4"], "record 12 is said to start at byte -4"),
        (lambda lines: [*lines[:-1], "12\t2"], "record 12 is said to start at byte 2"),
        (lambda lines: [*lines, lines[-1]], "lists a record twice"),
        (lambda lines: [*lines[:-1], "12\t" + lines[0].split("\t")[1]], "lists a record twice"),
        (lambda lines: [*lines[:-1], "12"], "cannot be read"),
        (lambda lines: ["key\tat", *lines], "cannot be read"),
        (lambda lines: [*lines, f"16\t{10**30}"], "cannot be read"),
        (lambda lines: [], "lists nothing"),
        (
            lambda lines: lines[:7],
            "of pictures 1 to 12, as its first record has them, 6 are listed",
        ),
    ],
)
def test_a_wrong_index_is_told(tree, change, problem):
    index = tree / "train.idx"
    lines = index.read_text().splitlines()[:13]  # the header record and the pictures
    index.write_text("".join(f"{line}\n" for line in change(lines)))
    with pytest.raises(
        errors.DataError, match=fr_files.message(errors.BAD_INDEX, path=index)
    ) as caught:
        records.read(tree)
    assert problem in str(caught.value)


def test_an_index_that_is_no_text_is_told(tree):
    (tree / "train.idx").write_bytes(b"\x80\x04\xff\xfe\0")
    with pytest.raises(errors.DataError, match=fr_files.message(errors.BAD_INDEX)):
        records.read(tree)


def test_an_index_of_another_file_is_told(tree, tmp_path):
    other = fr_files.records_tree(tmp_path / "other", pictures=5)
    (tree / "train.idx").write_bytes((other / "train.idx").read_bytes())
    with pytest.raises(errors.DataError, match=fr_files.message(errors.BAD_INDEX)):
        records.read(tree)


@pytest.mark.parametrize("end", [0.0, 1.0, 14.0, 5e9, np.inf, np.nan])
def test_a_header_record_that_lies_is_told(tree, end):
    start = start_of(tree, 13)
    spoil(tree / "train.rec", 32, struct.pack("<f", end))
    (tree / "train.idx").unlink()
    # One more: the record of an identity counts as a picture then.
    at = start if end == 14 else 0
    with pytest.raises(errors.DataError, match=fr_files.message(errors.BAD_RECORD, position=at)):
        records.read(tree)


@pytest.mark.parametrize("text", [b"85742,112,112\n", b"2,112,112", b"", b"\xff\xfe\0", b"3.0,1,1"])
def test_a_wrong_property_file_is_told(tree, text):
    (tree / "property").write_bytes(text)
    with pytest.raises(errors.DataError, match=fr_files.message(errors.BAD_PROPERTY)) as caught:
        records.read(tree)
    assert "the labels are of 3 identities" in str(caught.value)


def test_a_set_without_a_property_file_is_read(tree):
    (tree / "property").unlink()
    assert records.read(tree).names == ["0", "1", "2"]


def test_a_picture_of_50000_by_50000_pixels_is_never_decoded(tmp_path, monkeypatch):
    data = fr_files.huge_jpeg()
    assert len(data) < 1000
    fr_files.write_records(tmp_path / "set", [fr_files.payload(0, 0, data)])

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(errors.DataError, match="pixels"):
        packed.pack(records.read(tmp_path / "set"), tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["train.rec", "train.idx", "property"]),
    st.integers(0, 10**6),
    st.binary(min_size=1, max_size=4),
)
def test_damage_is_a_clear_error_or_does_no_harm(name, at, data):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        body = [fr_files.payload([5, 7], 0, b"")]
        body += [fr_files.payload(k // 2, k + 1, b"abcdefghi") for k in range(4)]
        body += [fr_files.payload([1 + 2 * k, 3 + 2 * k], 5 + k, b"") for k in range(2)]
        fr_files.write_records(root, body, ids=2)
        spoil(root / name, at % (root / name).stat().st_size, data)
        try:
            found = records.read(root)
        except errors.DataError as problem:
            assert "train." in str(problem) or "property" in str(problem)
        else:
            assert all(len(found.encoded(i)) <= 200 for i in range(len(found)))
