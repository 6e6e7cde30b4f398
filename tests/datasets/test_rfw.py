import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import KFold

from studylib import datasets, embed, errors
from studylib.datasets import rfw
from tests.fixtures import fr_files, fr_trees

GROUPS = ["african", "asian", "caucasian", "indian"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fr_trees.rfw_tree(tmp_path_factory.mktemp("rfw"))


def lines_of(root, race):
    text = (root / "test" / "txts" / race / f"{race}_pairs.txt").read_text()
    return [line.split("\t") for line in text.splitlines()]


def test_every_line_is_a_pair_of_the_pictures_it_names(tree):
    faces, pairs = datasets.load_pairs("rfw", tree)
    assert pairs.columns.tolist() == ["a", "b", "genuine", "fold", "group"]
    assert pairs["a"].dtype == pairs["b"].dtype == pairs["fold"].dtype == np.int64
    assert pairs["genuine"].dtype == bool and len(pairs) == 4 * 60
    assert faces.origin == "rfw" and faces.table["item"].is_unique
    named = {"a": [], "b": []}
    for race in fr_trees.RACES:
        for fields in lines_of(tree, race):
            one, n = fields[:2]
            other, m = (one, fields[2]) if len(fields) == 3 else fields[2:]
            named["a"].append(f"{race}/{one}/{one}_000{n}")
            named["b"].append(f"{race}/{other}/{other}_000{m}")
    for side in "ab":
        assert faces.table["item"].iloc[pairs[side]].tolist() == named[side]
    assert set(faces.table["item"]) == {*named["a"], *named["b"]}
    same = [faces.table["subject"].iloc[pairs[side]].reset_index(drop=True) for side in "ab"]
    assert ((same[0] == same[1]) == pairs["genuine"]).all()


def test_groups_are_in_lower_case_and_pairs_lie_within_one(tree):
    faces, pairs = datasets.load_pairs("rfw", tree)
    assert faces.table["race"].unique().tolist() == pairs["group"].unique().tolist() == GROUPS
    for side in "ab":
        assert (faces.table["race"].iloc[pairs[side]].to_numpy() == pairs["group"]).all()


def test_folds_are_those_of_scikit_learn(tree):
    _, pairs = datasets.load_pairs("rfw", tree)
    for _, group in pairs.groupby("group"):
        group = group.reset_index(drop=True)
        for fold, (_, held_out) in enumerate(KFold(10).split(group)):
            assert group.index[group["fold"] == fold].tolist() == held_out.tolist()
            assert group["genuine"].iloc[held_out].tolist() == [True] * 3 + [False] * 3


def test_aligned_pictures_are_taken_as_they_are(tree):
    faces, _ = datasets.load_pairs("rfw", tree)
    for k in (0, 17, len(faces) - 1):
        path = tree / "test" / "data" / f"{faces.table['item'].iloc[k]}.jpg"
        expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(faces.images[k].numpy(), expected)


def test_loose_pictures_are_warped_by_the_sets_own_landmarks(tmp_path, tree):
    """The same people drawn loosely come out where the aligned pictures have them."""
    loose = fr_trees.rfw_tree(tmp_path, races=("Asian", "Indian"), blocks=2, aligned=False)
    faces, pairs = datasets.load_pairs("rfw", loose)
    assert faces.images.shape[1:] == (3, 112, 112) and len(pairs) == 2 * 12
    for k, item in enumerate(faces.table["item"]):
        race, name = item.split("/")[:2]
        person = 100 * fr_trees.RACES.index(race) + int(name[4:6])
        drawn = np.asarray(fr_trees.portrait(person, 1), np.float64)
        warped = faces.images[k].permute(1, 2, 0).double().numpy()
        for x, y in fr_trees.MARKS:  # the middles of the five marks
            x, y = round(x), round(y)
            np.testing.assert_allclose(
                warped[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)),
                drawn[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)),
                atol=12,
            )


def test_the_order_of_folders_does_not_matter_and_a_group_may_be_absent(tmp_path):
    root = fr_trees.rfw_tree(tmp_path, races=("Indian", "African"), blocks=2)
    faces, pairs = datasets.load_pairs("rfw", root / "test")
    assert pairs["group"].unique().tolist() == ["african", "indian"]
    assert datasets.check("rfw", root)[1] == (
        "pairs: african 12 (published 6000), asian 0 (published 6000), "
        "caucasian 0 (published 6000), indian 12 (published 6000)"
    )
    assert len(faces) == len(faces.table)


def test_check_says_what_folds_are_made_of(tree, tmp_path):
    found = datasets.check("rfw", tree)
    assert found[0].endswith("pictures of 24 subjects, all readable")
    assert found[2] == "genuine pairs: african 30, asian 30, caucasian 30, indian 30"
    assert found[3] == "folds: 10 of 6 to 6 pairs, half of each genuine, genuine pairs first"
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",))
    path = root / "test/txts/Asian/Asian_pairs.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True)[:-1])))
    found = datasets.check("rfw", root)
    assert (
        found[3] == "folds: 10 of 5 to 6 pairs, not half genuine, genuine and impostor pairs mixed"
    )


def test_somebody_in_two_groups_is_one_subject_with_two_pictures(tmp_path):
    root = fr_trees.rfw_tree(tmp_path, races=("African", "Asian"))
    for race, old in (("African", "m.0000x"), ("Asian", "m.0100x")):
        (root / "test/data" / race / old).rename(root / "test/data" / race / "m.both")
        for path in sorted((root / "test/data" / race / "m.both").iterdir()):
            path.rename(path.with_name(path.name.replace(old, "m.both")))
        path = root / "test/txts" / race / f"{race}_pairs.txt"
        path.write_text(path.read_text().replace(old, "m.both"))
    faces, _ = datasets.load_pairs("rfw", root)
    both = faces.table[faces.table["subject"] == "m.both"]
    assert set(both["race"]) == {"african", "asian"} and both["item"].is_unique
    assert len(faces.subjects) == 11


def test_outcome_rows_and_scores_follow_the_list(tree):
    faces, pairs = datasets.load_pairs("rfw", tree)
    table = embed.pair_table(faces, pairs)
    assert table.columns.tolist() == [
        *("item_a", "item_b", "subject_a", "subject_b", "genuine", "race_a", "race_b"),
        *("fold", "group"),
    ]
    vectors = torch.nn.functional.normalize(faces.images.flatten(1).float())
    scores = embed.score_pairs(vectors, pairs)
    row = table[~table["genuine"]].index[5]
    place = faces.table["item"].tolist().index
    first, second = (place(table[f"item_{side}"][row]) for side in "ab")
    assert scores[row] == pytest.approx(float(vectors[first] @ vectors[second]), abs=1e-6)


def spoil_line(number, line):
    def spoil(root):
        path = root / "test/txts/Asian/Asian_pairs.txt"
        lines = path.read_text().splitlines()
        lines[number - 1] = line
        path.write_text("\n".join(lines))

    return spoil


@pytest.mark.parametrize(
    "line",
    [
        "m.0100x\t1",
        "m.0100x\t1\t2²",
        "m.0100x\t1\t" + 3 * "9" * 3,
        "../m.0100x\t1\t2",
        "m.0100x\t1\t2\t3\t4",
        "m.0100x\tone\t2",
        "m.0100x\t1\tm.0100x\t2",
        "x" * 500,
    ],
)
def test_a_line_that_is_no_pair_is_shown(tmp_path, line):
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",), blocks=1)
    spoil_line(4, line)(root)
    shown = line if len(line) < 80 else "x" * 77 + "..."
    path = root / "test/txts/Asian/Asian_pairs.txt"
    message = errors.BAD_LINE.format(path=path, number=4, line=shown, expected=rfw.EXPECTED)
    with pytest.raises(errors.DataError, match=re.escape(message)):
        datasets.load_pairs("rfw", root)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "test/data/Asian/m.0102x/m.0102x_0002.jpg").unlink(),
            r"data/Asian/m\.0102x/m\.0102x_0002\.jpg is missing \(1 such files\)",
        ),
        (
            lambda root: (root / "test/txts/Asian/Asian_pairs.txt").unlink(),
            "txts/Asian/Asian_pairs.txt is missing",
        ),
        (
            lambda root: (root / "test/txts/Asian/Asian_pairs.txt").write_text("\n\n"),
            "txts/Asian/Asian_pairs.txt is empty",
        ),
        (
            lambda root: (root / "test/txts/Asian/Asian_pairs.txt").write_bytes(b"\xff\xfe\x00"),
            "txts/Asian/Asian_pairs.txt cannot be read",
        ),
        (spoil_line(1, "m.9\t1\t2"), "data/Asian/m.9/m.9_0001.jpg is missing"),
    ],
)
def test_broken_layouts(tmp_path, spoil, message):
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",), blocks=3)
    spoil(root)
    with pytest.raises(errors.DataError, match=f"does not look like 'rfw': .*{message}"):
        datasets.load_pairs("rfw", root)


def test_a_folder_without_lists_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for root in (tmp_path, tmp_path / "file"):
        with pytest.raises(
            errors.DataError, match="does not look like 'rfw': txts holds no folder"
        ):
            datasets.load_pairs("rfw", root)


def test_an_unknown_group_is_named(tmp_path):
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",), blocks=1)
    (root / "test/txts/Martian").mkdir()
    message = errors.UNKNOWN_RACE.format(
        folder=root / "test/txts/Martian", choices="African, Asian, Caucasian, Indian"
    )
    with pytest.raises(errors.DataError, match=re.escape(message)):
        datasets.load_pairs("rfw", root)


def test_a_picture_without_landmarks_is_named(tmp_path):
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",), blocks=1, aligned=False)
    lists = root / "test/txts/Asian/Asian_lmk.txt"
    lists.unlink()
    with pytest.raises(errors.DataError, match=r"is 200 x 200 px and .*Asian_lmk\.txt has no land"):
        datasets.load_pairs("rfw", root)


@pytest.mark.parametrize("line", ["a.jpg\t0\t1\t2\t3", "a.jpg\t0" + "\tx" * 10, "a" + "\tnan" * 11])
def test_landmarks_that_are_none_are_shown(tmp_path, line):
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",), blocks=1, aligned=False)
    path = root / "test/txts/Asian/Asian_lmk.txt"
    path.write_text(line)
    message = errors.BAD_LINE.format(path=path, number=1, line=line, expected=rfw.POINTS)
    with pytest.raises(errors.DataError, match=re.escape(message)):
        datasets.load_pairs("rfw", root)


def test_a_damaged_picture_is_named(tmp_path):
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",), blocks=1)
    path = root / "test/data/Asian/m.0100x/m.0100x_0001.jpg"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(errors.DataError, match=r"Could not read the image .*m\.0100x_0001\.jpg"):
        datasets.load_pairs("rfw", root)


def test_a_header_that_promises_far_too_many_pixels_is_refused_before_decoding(tmp_path):
    root = fr_trees.rfw_tree(tmp_path, races=("Asian",), blocks=1)
    path = root / "test/data/Asian/m.0100x/m.0100x_0001.jpg"
    path.write_bytes(fr_files.huge_jpeg())
    with pytest.raises(errors.DataError, match=r"m\.0100x_0001\.jpg.*2500000000 pixels"):
        datasets.load_pairs("rfw", root)
