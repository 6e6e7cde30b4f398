"""LFW by name: scikit-learn's folders, folders and archives of aligned faces, and broken ones."""

import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import fetch_lfw_people

from studylib import datasets, errors
from studylib.datasets import lfw_people
from tests.fixtures import fr_trees

PEOPLE = {"Ada_Lovelace": 3, "Bob": 1, "Emmy_Noether": 2}
ITEMS = [f"{name}/{name}_{k:04d}" for name, n in PEOPLE.items() for k in range(1, n + 1)]


def write(root, *, loose=False, suffix=".jpg"):
    """Write LFW's layout below a folder, and what may lie beside it."""
    for person, (name, n) in enumerate(PEOPLE.items()):
        (root / name).mkdir(parents=True)
        for k in range(1, n + 1):
            picture = fr_trees.portrait(person, k, loose=loose)
            picture.save(root / name / f"{name}_{k:04d}{suffix}")
        (root / name / ".DS_Store").write_bytes(b"x")
    (root / "pairs.txt").write_text("10\t300\n")
    return root


def packed(folder, path, below=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, f"{below}{file.relative_to(folder).as_posix()}")
        archive.writestr("__MACOSX/Bob/._Bob_0001.png", b"x")
        archive.writestr("README.txt", b"x")
    return path


@pytest.mark.parametrize("place", lfw_people.PLACES)
def test_every_place_is_found(tmp_path, place):
    write(tmp_path / place)
    (tmp_path / "joblib" / "sklearn").mkdir(parents=True)
    photos = datasets.read("lfw_people", tmp_path)
    assert photos.table["item"].tolist() == ITEMS and photos.name == "lfw_people"
    assert photos.table["subject"].value_counts().to_dict() == PEOPLE
    assert photos.open(0).shape == (112, 112, 3)


def test_funneled_pictures_come_first_as_in_scikit_learn(tmp_path):
    write(tmp_path / "lfw_home" / "lfw")
    write(tmp_path / "lfw_home" / "lfw_funneled", loose=True)
    assert datasets.read("lfw_people", tmp_path).open(0).shape == (200, 200, 3)


def test_what_scikit_learn_reads_is_read_alike(tmp_path):
    home = tmp_path / "lfw_home"
    for hidden in write(home / "lfw_funneled", loose=True).rglob(".DS_Store"):
        hidden.unlink()  # scikit-learn would open it
    for name in ("pairsDevTrain.txt", "pairsDevTest.txt", "pairs.txt"):
        (home / name).write_text("")
    theirs = fetch_lfw_people(
        data_home=tmp_path, download_if_missing=False, slice_=(slice(0, 200), slice(0, 200)),
        resize=None, color=True,
    )  # fmt: skip
    photos = datasets.read("lfw_people", tmp_path)
    names = [theirs.target_names[k] for k in theirs.target]
    assert sorted(names) == [s.replace("_", " ") for s in photos.table["subject"]]
    ours = np.stack([photos.open(i) for i in range(len(photos))])
    scaled = np.rint(theirs.images * 255).astype(np.uint8)  # (N, H, W, 3), 0..1
    assert sorted(a.tobytes() for a in ours) == sorted(a.tobytes() for a in scaled)


@pytest.mark.parametrize("below", ["", "lfw/", "some/where/lfw/"])
def test_an_archive_is_read_where_it_is(tmp_path, below):
    folder = write(tmp_path / "lfw", suffix=".png")
    path = packed(folder, tmp_path / "faces.zip", below)
    from_zip = datasets.read("lfw_people", path)
    from_folder = datasets.read("lfw_people", folder)
    assert from_zip.table["item"].tolist() == ITEMS
    assert from_zip.table["subject"].tolist() == from_folder.table["subject"].tolist()
    for i in range(len(ITEMS)):
        assert np.array_equal(from_zip.open(i), from_folder.open(i))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faces.zip", "lfw"]


def test_aligned_faces_are_taken_as_they_are(tmp_path):
    path = packed(write(tmp_path / "lfw", suffix=".png"), tmp_path / "faces.zip")
    faces, missed = datasets.load("lfw_people", path)
    assert missed == [] and faces.images.shape == (6, 3, 112, 112)
    wanted = np.asarray(fr_trees.portrait(1, 1))  # Bob's
    assert np.array_equal(faces.images[3].permute(1, 2, 0).numpy(), wanted)
    loose = datasets.read("lfw_people", write(tmp_path / "loose", loose=True))
    assert lfw_people.aligned(datasets.read("lfw_people", path)) and not lfw_people.aligned(loose)


@given(seed=st.integers(0, 50), per_person=st.integers(1, 4), most=st.integers(1, 8))
def test_of_nobody_more_pictures_than_asked_for(lfw_folder, seed, per_person, most):
    def drawn(**asked):
        return datasets.load("lfw_people", lfw_folder, seed=seed, **asked)[0].table

    table = drawn(per_person=per_person)
    counts = {name: min(n, per_person) for name, n in PEOPLE.items()}
    assert table["subject"].value_counts().to_dict() == counts
    assert table["item"].is_monotonic_increasing
    fewer = drawn(per_person=per_person, most=most)["item"]
    assert len(fewer) == min(most, len(table)) and set(fewer) <= set(table["item"])


@pytest.fixture(scope="module")
def lfw_folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("people"))


def test_draws_differ_and_refuse_none(lfw_folder):
    drawn = {
        tuple(datasets.load("lfw_people", lfw_folder, per_person=1, seed=s)[0].table["item"])
        for s in range(8)
    }
    assert len(drawn) > 2
    with pytest.raises(errors.ParameterError, match="per_person must be at least 1, got 0"):
        datasets.load("lfw_people", lfw_folder, per_person=0)


def test_check_holds_a_copy_against_the_whole_set(lfw_folder):
    assert datasets.check("lfw_people", lfw_folder) == [
        "6 pictures of 3 subjects, all readable",
        "counts: pictures 6 (published 13233), people 3 (published 5749)",
    ]


def test_a_damaged_member_is_named(tmp_path):
    path = packed(write(tmp_path / "lfw", suffix=".png"), tmp_path / "faces.zip")
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("Bob/Bob_0001.png").header_offset
    content = bytearray(path.read_bytes())
    content[start + 100 : start + 120] = bytes(20)  # its CRC no longer fits
    path.write_bytes(content)
    with pytest.raises(errors.DataError, match=r"faces\.zip/Bob/Bob_0001\.png: Bad CRC-32"):
        datasets.check("lfw_people", path)
    with pytest.raises(errors.DataError, match=r"Could not read the image .*Bob_0001\.png"):
        datasets.load("lfw_people", path)


def _empty_zip(path):
    zipfile.ZipFile(path / "x.zip", "w").close()
    return path / "x.zip"


def _no_zip(path):
    (path / "x.zip").write_bytes(b"PK?")
    return path / "x.zip"


def _other_names(path):
    (path / "Bob").mkdir()
    fr_trees.portrait(0, 1).save(path / "Bob" / "Robert_0001.jpg")
    return path


def _twice(path):
    write(path / "a", suffix=".png")
    path = packed(path / "a", path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b/Bob/Bob_0001.png", b"x")
    return path


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_empty_zip, "no picture in it is named after its folder"),
        (_no_zip, "it is neither a folder nor a zip file (File is not a zip file)"),
        (_other_names, "no picture in it is named after its folder"),
        (_twice, "Bob/Bob_0001 is in it twice"),
    ],
)
def test_other_layouts_are_refused(tmp_path, spoil, problem):
    root = spoil(tmp_path)
    wanted = errors.WRONG_LAYOUT.format(
        root=root, name="lfw_people", problem=problem, layout=lfw_people.LAYOUT
    )
    with pytest.raises(errors.DataError, match=re.escape(wanted)):
        datasets.read("lfw_people", root)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(errors.DataError, match=r"There is no folder .*nowhere.*lfw_funneled"):
        datasets.read("lfw_people", tmp_path / "nowhere")
    with pytest.raises(errors.DataError, match="fetch_lfw_people"):
        datasets.read("lfw_people")


def test_the_real_set(lfw_root):
    photos = datasets.read("lfw_people", lfw_root)
    people = photos.table["subject"].value_counts()
    assert people.index[0] == "George_W_Bush" and 5_500 < len(people) <= 5_749
    assert 12_000 < len(photos) <= 13_233 and photos.table["item"].is_unique
    assert photos.open(len(photos) - 1).shape[2] == 3
