import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from studylib import datasets, errors
from studylib.datasets import identities, packed
from tests.fixtures import fr_trees

GROUPS = ["african", "asian", "caucasian", "indian"]


@pytest.fixture(scope="module")
def bupt(tmp_path_factory):
    return fr_trees.identity_tree(tmp_path_factory.mktemp("bupt"))


def test_every_picture_has_the_identity_of_its_folder(bupt):
    source = datasets.open_identities("bupt_balancedface", bupt)
    assert source.origin == "bupt_balancedface"
    assert len(source) == len(source.items) == len(source.labels) == 4 * 3 * 4
    assert source.labels.dtype == np.int64 and len(source.names) == 12
    for item, label in zip(source.items, source.labels, strict=True):
        assert item.rpartition("/")[0] == source.names[label]
    assert source.items == sorted(source.items)
    assert np.bincount(source.labels).tolist() == [4] * 12


def test_the_upper_folder_is_the_race(bupt):
    source = datasets.open_identities("bupt_globalface", bupt)
    assert source.groups.columns.tolist() == ["race"]
    assert source.groups["race"].tolist() == np.repeat(GROUPS, 3).tolist()
    assert source.names[4] == "Asian/m.101"


def test_other_upper_folders_are_groups(tmp_path):
    root = fr_trees.identity_tree(tmp_path, groups=("A", "asian"), people=1, count=2)
    source = datasets.open_identities("identity_folder", root)
    assert source.groups.to_dict("list") == {"group": ["a", "asian"]}


def test_plain_folders_have_no_groups(tmp_path):
    root = fr_trees.identity_tree(tmp_path, groups=(), people=3, count=2)
    source = identities.read(root)
    assert source.names == ["m.000", "m.001", "m.002"]
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(source.groups) == 3 and source.groups.columns.empty


def test_bytes_are_those_of_the_files_whoever_asks(bupt):
    source = identities.read(bupt)
    with ThreadPoolExecutor(8) as readers:
        found = list(readers.map(source.encoded, range(len(source))))
    assert found == [(bupt / item).read_bytes() for item in source.items]


def test_other_files_hidden_ones_and_empty_folders_are_passed_over(tmp_path):
    root = fr_trees.identity_tree(tmp_path, groups=("Asian",), people=2, count=1)
    (root / "Asian/m.nobody").mkdir()
    (root / "Asian/m.000/notes.txt").write_text("x")
    (root / "Asian/m.000/._000_0.jpg").write_text("x")
    (root / "Asian/.trash").mkdir()
    (root / "readme.md").write_text("x")
    Image.new("RGB", (8, 8)).save(root / "Asian/m.001/b.PNG")
    source = identities.read(root)
    assert source.items == ["Asian/m.000/000_0.jpg", "Asian/m.001/000_1.jpg", "Asian/m.001/b.PNG"]
    assert source.labels.tolist() == [0, 1, 1]


def test_a_packed_tree_keeps_pictures_names_and_groups(bupt, tmp_path):
    source = datasets.open_identities("bupt_balancedface", bupt)
    data = packed.pack(source, tmp_path / "packed")
    assert data.origin == "bupt_balancedface" and list(data.classes) == source.names
    assert data.labels.tolist() == source.labels.tolist()
    assert data.table["item"].tolist() == source.items
    assert data.table["race"].tolist() == np.repeat(GROUPS, 12).tolist()
    expected = np.asarray(Image.open(bupt / source.items[13]).convert("RGB"))
    np.testing.assert_array_equal(data.batch([13])[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: None, "no folder in it holds pictures"),
        (lambda root: (root / "a/b").mkdir(parents=True), "no folder in it holds pictures"),
        (
            lambda root: [picture(root / "Asian/x.jpg"), picture(root / "Asian/m.1/x.jpg")],
            "Asian holds both pictures and folders",
        ),
        (
            lambda root: [picture(root / "m.2/x.jpg"), picture(root / "Asian/m.1/x.jpg")],
            "Asian/m.1 lies in a group, m.2 does not",
        ),
    ],
)
def test_broken_layouts(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(errors.DataError, match=f"does not look like 'identities': {message}"):
        datasets.open_identities("identity_folder", tmp_path)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def test_a_picture_that_went_away_is_named(tmp_path):
    source = identities.read(fr_trees.identity_tree(tmp_path, groups=(), people=1, count=1))
    path = tmp_path / source.items[0]
    path.unlink()
    with pytest.raises(errors.DataError, match=re.escape(f"Could not read the image {path}")):
        source.encoded(0)


def test_check_counts_people_and_pictures_by_group(bupt, tmp_path):
    assert datasets.check("bupt_balancedface", bupt) == [
        "48 pictures of 12 identities, all readable; 4 to 4 an identity",
        "counts: identities 12 (published 28000)",
        "race (identities): african 3, asian 3, caucasian 3, indian 3",
        "race (pictures): african 12, asian 12, caucasian 12, indian 12",
    ]
    root = fr_trees.identity_tree(tmp_path, groups=(), people=2, count=1)
    assert datasets.check("identity_folder", root) == [
        "2 pictures of 2 identities, all readable; 1 to 1 an identity"
    ]


def test_check_names_a_damaged_picture(tmp_path):
    root = fr_trees.identity_tree(tmp_path, groups=(), people=2, count=2)
    (root / "m.001/001_1.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    with pytest.raises(errors.DataError, match=r"Could not read the image m\.001/001_1\.jpg"):
        datasets.check("identity_folder", root)
