"""The cache of a teacher's embeddings: what it holds, when it is made again, what stops it."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from studylib import errors, teacher_cache
from studylib.datasets import packed
from studylib.faces import Faces

ROOT = Path(__file__).parent.parent
PAUSE, SEEN = "TEST_TEACHER_PAUSE", "TEST_TEACHER_SEEN"  # of a teacher in another process


class Teacher(nn.Module):
    """Embeds faces of 8 x 8 px in 6 dimensions, counts them, and can be slow."""

    def __init__(self, seed=0):
        super().__init__()
        self.fc = nn.Linear(192, 6)
        generator = torch.Generator().manual_seed(seed)
        self.fc.weight.data.normal_(generator=generator)
        self.fc.bias.data.normal_(generator=generator)
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        time.sleep(float(os.environ.get(PAUSE, 0)))
        if SEEN in os.environ:
            with open(os.environ[SEEN], "a") as file:
                file.write(f"{os.getpid()} {len(images)}\n")
        return self.fc(images.flatten(1) / 255)


def faces(n=20, seed=0, labels=True):
    images = torch.randint(
        256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    names = [f"{seed}-{k:03d}" for k in range(n)]
    table = pd.DataFrame({"item": names, "subject": names})
    return Faces(images, table.assign(label=np.arange(n)) if labels else table, "noise")


def expected(teacher, images, mirrored=True):
    with torch.no_grad():
        seen = [images, images.flip(-1)] if mirrored else [images]
        return torch.stack([F.normalize(teacher.fc(x.flatten(1) / 255)) for x in seen], 1).numpy()


def names(folder):
    return sorted(path.parent.name for path in folder.glob("*/manifest.json"))


def test_rows_are_the_teachers_as_is_and_mirrored(tmp_path):
    teacher, data = Teacher().train(), faces(labels=False)
    found = teacher_cache.embeddings(teacher, data, tmp_path, batch_size=7)
    assert found.shape == (20, 2, 6) and found.dtype == np.float16
    assert isinstance(found, np.memmap) and not found.flags.writeable
    np.testing.assert_array_equal(found, expected(teacher, data.images).astype(np.float16))
    assert not teacher.training
    alone = teacher_cache.embeddings(teacher, data, tmp_path, mirrored=False, log=None)
    np.testing.assert_array_equal(alone, found[:, :1])


@given(st.integers(0, 10_000), st.sampled_from([2, 16, 128, 512]), st.floats(0, 3))
def test_half_precision_costs_as_little_as_the_module_says(seed, dimensions, spread):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(8, dimensions)) * np.exp(spread * rng.normal(size=(8, dimensions)))
    rows = F.normalize(torch.from_numpy(rows).float())
    kept = rows.half().double()
    lengths = kept.norm(dim=1)
    assert (lengths - 1).abs().max() < 0.0005
    assert ((kept * rows.double()).sum(1) / lengths / rows.double().norm(dim=1)).min() > 1 - 2**-22


def test_the_second_call_computes_nothing(tmp_path):
    teacher = Teacher()
    first = teacher_cache.embeddings(teacher, faces(), tmp_path, batch_size=8)
    assert teacher.seen == 2 * (20 + 1)  # one face more, for the size of its embedding
    again = teacher_cache.embeddings(teacher, faces(), tmp_path, batch_size=3, check=True)
    assert teacher.seen == 42
    np.testing.assert_array_equal(again, first)
    assert sorted(path.name for path in (tmp_path / names(tmp_path)[0]).iterdir()) == [
        "embeddings.npy",
        "manifest.json",
    ]


def test_a_cache_on_a_disk_one_may_only_read(tmp_path, monkeypatch):
    teacher_cache.embeddings(Teacher(), faces(), tmp_path)
    for path in tmp_path.glob("*.lock"):
        path.unlink()
    monkeypatch.setattr(teacher_cache, "FileLock", None)  # it would write
    assert len(teacher_cache.embeddings(Teacher(), faces(), tmp_path)) == 20


def test_the_manifest_says_what_it_is_of(tmp_path):
    found = teacher_cache.embeddings(Teacher(), faces(), tmp_path)
    manifest = json.loads((Path(found.filename).parent / "manifest.json").read_text())
    assert manifest["shape"] == [20, 2, 6]
    assert manifest["origin"] == "noise" and manifest["device"] == "cpu"
    assert manifest["key"]["data"] == packed.fingerprint(faces())
    assert manifest["key"]["transform"]["views"] == ["as is", "mirrored"]


def test_packed_faces_and_joined_ones(tmp_path):
    teacher, folder = Teacher(), tmp_path / "cache"
    parts = tuple(packed.from_faces(faces(20, seed), tmp_path / f"p{seed}") for seed in (1, 2))
    rows = (np.array([3, 1, 19]), np.array([0, 7]))
    table = pd.concat([part.table.iloc[r] for part, r in zip(parts, rows, strict=True)])
    joined = packed.Joined(parts, rows, table.assign(label=range(5)), "both")
    found = teacher_cache.embeddings(teacher, joined, folder, batch_size=2, log=None)
    wanted = expected(teacher, joined.batch(range(5))).astype(np.float16)
    np.testing.assert_array_equal(found, wanted)
    assert len(names(folder)) == 3  # its own, and each part's
    seen = teacher.seen
    other = packed.Joined(parts, rows[::-1], table.assign(label=range(5)), "both")
    teacher_cache.embeddings(teacher, other, folder, log=None)
    alone = teacher_cache.embeddings(teacher, parts[0], folder, log=None)
    assert teacher.seen == seen  # another mixture of pictures that it has seen
    np.testing.assert_array_equal(alone[rows[0]], found[:3])


@pytest.mark.parametrize("part", ["data", "network", "transform"])
def test_what_is_stale_is_named_and_made_again(tmp_path, part):
    told = []
    first = teacher_cache.embeddings(Teacher(), faces(), tmp_path, log=told.append)
    assert told == []
    teacher = Teacher(seed=1 if part == "network" else 0)
    data, mirrored = faces(seed=1 if part == "data" else 0), part != "transform"
    found = teacher_cache.embeddings(teacher, data, tmp_path, mirrored=mirrored, log=told.append)
    name = Path(first.filename).parent.name
    assert told == [teacher_cache.UNLIKE.format(name=name, part=part)]
    np.testing.assert_array_equal(
        found, expected(teacher, data.images, mirrored).astype(np.float16)
    )
    assert len(names(tmp_path)) == 2


def test_what_counts_as_other_data(tmp_path):
    """Pixels, labels and order do; so do other rows of the same packed sets."""
    one = faces()
    relabelled = Faces(one.images, one.table.assign(label=0), "noise")
    kinds = [one, faces(labels=False), relabelled, one.take(range(19, -1, -1)), one.take(range(5))]
    pack = packed.from_faces(one, tmp_path / "pack")
    for rows in ([0, 1], [1, 0]):
        table = one.table.iloc[rows].assign(label=0)
        kinds.append(packed.Joined((pack,), (np.array(rows),), table, "noise"))
    prints = [packed.fingerprint(kind) for kind in [*kinds, pack]]
    assert len({*prints}) == len(prints) == 8
    assert prints == [packed.fingerprint(kind) for kind in [*kinds, pack]]


def test_a_set_packed_anew_in_its_place_is_other_data(tmp_path, capsys):
    folder = tmp_path / "pack"
    for seed in (0, 1):
        shutil.rmtree(folder, ignore_errors=True)
        pack = packed.from_faces(faces(seed=seed), folder)
        found = teacher_cache.embeddings(Teacher(), pack, tmp_path / "cache")
        wanted = expected(Teacher(), faces(seed=seed).images).astype(np.float16)
        np.testing.assert_array_equal(found, wanted)
    assert "differ in the data alone" in capsys.readouterr().out


def changed(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda cache: (cache / "manifest.json").unlink(), "manifest.json: No such file"),
        (lambda cache: (cache / "manifest.json").write_text('{"key": '), "damaged: Expecting"),
        (lambda cache: (cache / "manifest.json").write_text("[1]"), "damaged: list indices"),
        (lambda cache: (cache / "embeddings.npy").unlink(), "embeddings.npy: No such file"),
        (lambda cache: os.truncate(cache / "embeddings.npy", 0), "damaged: No data left"),
        (lambda cache: os.truncate(cache / "embeddings.npy", 200), "damaged: mmap length"),
        (lambda cache: changed(cache / "embeddings.npy"), "were changed since"),
    ],
)
def test_what_is_damaged_is_made_again(tmp_path, harm, problem):
    told, good = [], np.array(teacher_cache.embeddings(Teacher(), faces(), tmp_path))
    (name,) = names(tmp_path)
    harm(tmp_path / name)
    check = problem.startswith("were")  # the others are found without it
    again = teacher_cache.embeddings(Teacher(), faces(), tmp_path, check=check, log=told.append)
    np.testing.assert_array_equal(again, good)
    assert len(told) == 1 and told[0].startswith(f"The cached embeddings {name} cannot be used")
    assert problem in told[0]
    assert names(tmp_path) == [name]
    teacher_cache.embeddings(Teacher(), faces(), tmp_path, check=True, log=told.append)
    assert len(told) == 1


def test_changed_bytes_are_found_on_demand_alone(tmp_path):
    good = np.array(teacher_cache.embeddings(Teacher(), faces(), tmp_path))
    changed(tmp_path / names(tmp_path)[0] / "embeddings.npy")
    assert not np.array_equal(teacher_cache.embeddings(Teacher(), faces(), tmp_path), good)


def test_a_cache_under_another_ones_name(tmp_path):
    told = []
    for seed in (0, 1):
        teacher_cache.embeddings(Teacher(seed), faces(), tmp_path, log=None)
    one, two = names(tmp_path)
    shutil.rmtree(tmp_path / one)
    shutil.copytree(tmp_path / two, tmp_path / one)
    for seed in (0, 1):
        found = teacher_cache.embeddings(Teacher(seed), faces(), tmp_path, log=told.append)
        wanted = expected(Teacher(seed), faces().images).astype(np.float16)
        np.testing.assert_array_equal(found, wanted)
    assert told == [teacher_cache.UNUSABLE.format(name=one, problem="they differ in the network")]


# --- stopped, and several at once ----------------------------------------------------------------

SCRIPT = """
from tests.test_teacher_cache import Teacher, faces, teacher_cache
teacher_cache.embeddings(Teacher(), faces(), {folder!r}, batch_size=2)
"""


def start(folder, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(folder=str(folder))],
        cwd=ROOT,
        env=os.environ | environment,
    )


def stopped(folder):
    """Compute two rows at a time in a process that is killed after at least three times."""
    process = start(folder, **{PAUSE: "0.1"})
    try:
        while sum(len(p.read_bytes().splitlines()) for p in folder.glob("*/progress.txt")) < 4:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (part,) = folder.glob("*.part")
    assert list(folder.glob("*/manifest.json")) == []
    return part


def test_a_killed_process_leaves_nothing_to_read_and_much_to_go_on_from(tmp_path):
    part = stopped(tmp_path)
    harmed = tmp_path.with_name(f"{tmp_path.name}-harmed")
    shutil.copytree(tmp_path, harmed)
    done = len((part / "progress.txt").read_bytes().splitlines()) - 1
    with open(part / "embeddings.npy", "ab") as file, open(part / "progress.txt", "ab") as lines:
        file.write(b"torn")
        lines.write(b"torn")
    teacher = Teacher()
    found = teacher_cache.embeddings(teacher, faces(), tmp_path, batch_size=2, check=True)
    np.testing.assert_array_equal(found, expected(teacher, faces().images).astype(np.float16))
    assert teacher.seen == 2 * (1 + 20 - 2 * done) < 2 * 20
    assert list(tmp_path.glob("*.part")) == []
    whole = np.load(found.filename)
    fresh = teacher_cache.embeddings(Teacher(), faces(), tmp_path / "fresh", batch_size=2)
    np.testing.assert_array_equal(whole, fresh)
    assert Path(found.filename).read_bytes() == Path(fresh.filename).read_bytes()

    changed(harmed / part.name / "embeddings.npy")  # on the disk, but not what was written
    teacher = Teacher()
    again = teacher_cache.embeddings(teacher, faces(), harmed, batch_size=2, check=True)
    np.testing.assert_array_equal(again, fresh)
    assert teacher.seen == 2 * (1 + 20)


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path):
    seen, folder = tmp_path / "seen", tmp_path / "cache"
    processes = [start(folder, **{PAUSE: "0.05", SEEN: str(seen)}) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    counts = pd.read_csv(seen, sep=" ", header=None, names=["process", "images"])
    assert counts["process"].nunique() == 1
    assert counts["images"].sum() == 2 * 21
    assert len(names(folder)) == 1


# --- a full disk, and other mistakes -------------------------------------------------------------


def full_cache(folder, reason):
    """The message of a full disk, on the only cache of a folder."""
    (part,) = folder.glob("*.part")
    return errors.FULL_CACHE.format(path=part.with_suffix(""), reason=reason, part=part)


def test_too_little_room_is_said_before_the_teacher_starts(tmp_path, monkeypatch):
    teacher = Teacher()
    usage = shutil.disk_usage(tmp_path)._replace(free=20 * 2 * 6 * 2 - 1)
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(errors.DataError) as caught:
        teacher_cache.embeddings(teacher, faces(), tmp_path / "c")
    reason = "No space left on device for 480 bytes"
    assert str(caught.value) == full_cache(tmp_path / "c", reason)
    assert teacher.seen == 2
    monkeypatch.undo()
    assert len(teacher_cache.embeddings(teacher, faces(), tmp_path / "c")) == 20


@contextlib.contextmanager
def files_of_at_most(size):
    """Let every write beyond so many bytes fail, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_keeps_what_was_computed(tmp_path):
    data = faces(400)  # 9,600 bytes
    for _ in range(2):  # a second attempt on the full disk loses nothing either
        teacher = Teacher()
        with files_of_at_most(6000), pytest.raises(errors.DataError) as caught:
            teacher_cache.embeddings(teacher, data, tmp_path, batch_size=10)
        assert str(caught.value) == full_cache(tmp_path, "File too large")
        assert names(tmp_path) == []  # nothing to read yet
    assert teacher.seen == 2 * (1 + 10)
    done = (6000 - 128) // (10 * 24) * 10  # faces in whole batches, after the header
    teacher = Teacher()
    found = teacher_cache.embeddings(teacher, data, tmp_path, batch_size=10, check=True)
    assert teacher.seen == 2 * (1 + 400 - done)
    np.testing.assert_array_equal(found, expected(teacher, data.images).astype(np.float16))
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(("number", "kept"), [("ENOSPC", 1), ("EDQUOT", 1), ("EIO", 0)])
def test_only_a_full_disk_keeps_the_part(tmp_path, monkeypatch, number, kept):
    def fail(file):
        raise OSError(getattr(errno, number), number)

    monkeypatch.setattr(teacher_cache.os, "fsync", fail)
    with pytest.raises(errors.DataError, match=number):
        teacher_cache.embeddings(Teacher(), faces(), tmp_path)
    assert len(list(tmp_path.glob("*.part"))) == kept
    monkeypatch.undo()
    teacher = Teacher()
    found = teacher_cache.embeddings(teacher, faces(), tmp_path, check=True)
    np.testing.assert_array_equal(found, expected(teacher, faces().images).astype(np.float16))
    assert teacher.seen == (2 if kept else 42)


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT"])
def test_a_disk_that_is_full_from_the_start_keeps_nothing(tmp_path, monkeypatch, number):
    def fail(path):
        raise OSError(getattr(errno, number), number)

    monkeypatch.setattr(teacher_cache, "FileLock", fail)
    with pytest.raises(errors.DataError) as caught:
        teacher_cache.embeddings(Teacher(), faces(), tmp_path)
    (path,) = re.findall(r"embeddings to (\S+):", str(caught.value))
    assert str(caught.value) == errors.CANNOT_CACHE.format(path=path, reason=number)


def test_a_full_disk_does_not_cost_the_old_progress(tmp_path, monkeypatch):
    part = stopped(tmp_path)
    before = (part / "progress.txt").read_bytes()

    def fail(*places):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(teacher_cache.os, "replace", fail)
        with pytest.raises(errors.DataError, match="full"):
            teacher_cache.embeddings(Teacher(), faces(), tmp_path, batch_size=2)
    assert (part / "progress.txt").read_bytes() == before


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.DataError, match=r"File exists\. Free some space"):
        teacher_cache.embeddings(Teacher(), faces(), tmp_path / "file")


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_an_embedding_without_a_direction(tmp_path, value):
    class Lost(Teacher):
        def forward(self, images):
            rows = super().forward(images)
            return torch.where(images[:, 0, 0, 0].eq(7)[:, None], value, rows)

    data = faces()
    data.images[:, 0, 0, 0] = 0
    data.images[13, 0, 0, 0] = 7
    with pytest.raises(errors.ParameterError) as caught:
        teacher_cache.embeddings(Lost(), data, tmp_path, mirrored=False, batch_size=4)
    assert str(caught.value) == errors.NO_DIRECTION.format(item="0-013")
    assert names(tmp_path) == []


def test_numbers_out_of_range(tmp_path):
    for name, data, options in (
        ("faces", faces(0), {}),
        ("batch_size", faces(), {"batch_size": 0}),
    ):
        with pytest.raises(errors.ParameterError) as caught:
            teacher_cache.embeddings(Teacher(), data, tmp_path, **options)
        assert str(caught.value) == errors.BAD_SIZE.format(what=name, least=1, value=0)
