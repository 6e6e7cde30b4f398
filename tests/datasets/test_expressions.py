"""Readers of expression sets, on miniature copies in the real layouts, whole and broken."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studylib import align, datasets, errors
from studylib.datasets import ckplus, rafdb, tables
from studylib.faces import Faces, Photos
from tests.fixtures import expression_trees


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    expression_trees.ckplus_tree(root / "ckplus", people=3, frames=6)
    expression_trees.rafdb_tree(root / "rafdb")
    expression_trees.expression_folder_tree(root / "expression_folder", count=2)
    return root


@pytest.fixture
def copy(trees, tmp_path):
    """Make a copy of a tree that a test may spoil."""

    def made(name):
        return shutil.copytree(trees / name, tmp_path / name)

    return made


# CK+: S005 shows anger and contempt, S008 disgust and fear, S011 happy and sadness; S014 nothing.


def test_ckplus_takes_the_first_frame_and_the_last_three(trees):
    photos = datasets.read("ckplus", trees / "ckplus")
    table = photos.table
    assert photos.classes[:2] == ("neutral", "anger") and len(photos.classes) == 8
    assert table["item"].tolist()[:5] == [
        "S005/001/S005_001_00000001.png",
        "S005/001/S005_001_00000004.png",
        "S005/001/S005_001_00000005.png",
        "S005/001/S005_001_00000006.png",
        "S005/002/S005_002_00000001.png",
    ]
    assert table["label"].tolist() == [k for code in range(1, 7) for k in (0, code, code, code)]
    assert table["sequence"].tolist()[::4] == [
        f"S{s}/00{n}" for s in ("005", "008", "011") for n in (1, 2)
    ]
    assert table["subject"].tolist()[::8] == ["S005", "S008", "S011"]
    assert table["gender"].tolist()[::8] == ["female", "male", "female"]
    assert table["item"].is_unique and all(path.is_file() for path in table["path"])


def test_ckplus_faces_are_found_and_cut_out(trees):
    faces, missed = datasets.load_pictures("ckplus", trees / "ckplus", size=48)
    assert missed == [] and faces.origin == "ckplus" and len(faces.classes) == 8
    assert faces.images.shape == (24, 1, 48, 48) and faces.images.dtype == torch.uint8
    assert "path" not in faces.table and faces.table["label"].max() == 6
    uncut = align.resize_all(datasets.read("ckplus", trees / "ckplus"), 48)
    skin, before = ((part.images > 140).float().mean((1, 2, 3)) for part in (faces, uncut))
    assert (skin > 1.6 * before).all()  # the face fills more of its frame


def test_ckplus_without_a_gender_table_says_so(copy):
    root = copy("ckplus")
    (root / "gender.csv").unlink()
    assert "gender" not in datasets.read("ckplus", root).table
    assert any("no gender.csv" in line for line in datasets.check("ckplus", root))


def test_a_missing_emotion_file_is_told_by_the_check(copy):
    """The set leaves most sequences unlabelled, so the reader alone cannot call it a mistake."""
    root = copy("ckplus")
    next((root / "Emotion/S005/001").iterdir()).unlink()
    assert "S005/001" not in set(datasets.read("ckplus", root).table["sequence"])
    found = datasets.check("ckplus", root)
    assert "20 pictures of 3 subjects, all readable" in found
    assert (
        "found: people in the label folder 4 (published 123), labelled sequences 5 (published "
        "327), pictures 20 (published 1308)" in found
    )


def test_the_labelled_frame_is_looked_for(copy):
    root = copy("ckplus")
    file = next((root / "Emotion/S005/001").iterdir())
    file.rename(file.with_name("S005_001_00000009_emotion.txt"))
    assert "the labelled frame is the last one in 5 of 6 sequences" in datasets.check(
        "ckplus", root
    )


def test_files_a_mac_leaves_behind_are_no_labels_or_frames(copy):
    root = copy("ckplus")
    (root / "Emotion/S005/001/._S005_001_00000006_emotion.txt").write_bytes(b"\0\5\26\7")
    (root / "cohn-kanade-images/S005/001/._S005_001_00000001.png").write_bytes(b"\0\5\26\7")
    assert "24 pictures of 3 subjects, all readable" in datasets.check("ckplus", root)


def spoil_label(text):
    def spoil(root):
        next((root / "Emotion/S008/002").iterdir()).write_text(text)

    return spoil


def cut_frames(root):
    for frame in sorted((root / "cohn-kanade-images/S008/001").glob("*.png"))[3:]:
        frame.unlink()


def cut_genders(text):
    def spoil(root):
        (root / "gender.csv").write_text(text)

    return spoil


def no_labels(root):
    for file in (root / "Emotion").rglob("*.txt"):
        file.unlink()


BAD_LABEL = re.escape(errors.BAD_LABEL.partition(":")[2].partition("{")[0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "Emotion"), "there is no folder Emotion"),
        (
            lambda root: shutil.rmtree(root / "cohn-kanade-images"),
            "there is no folder cohn-kanade-images",
        ),
        (no_labels, "no sequence has an emotion file"),
        (spoil_label("   8.0000000e+00\n"), f"S008_002_00000006_emotion.txt:{BAD_LABEL}'8.0"),
        (spoil_label("   3.5000000e+00\n"), f"{BAD_LABEL}'3.5"),
        (spoil_label("   -1.0000000e+00\n"), f"{BAD_LABEL}'-1.0"),
        (spoil_label(""), f"{BAD_LABEL}''.*from 0 to 7"),
        (spoil_label("nan"), f"{BAD_LABEL}'nan'"),
        (cut_frames, "sequence S008/001 has 3 frames, at least 4 are needed"),
        (
            lambda root: shutil.rmtree(root / "cohn-kanade-images/S008"),
            "sequence S008/001 has 0 frames",
        ),
        (
            cut_genders("subject,gender\nS005,f\nS011,m\n"),
            r"gender\.csv: subject S008 is not in it",
        ),
        (
            cut_genders("subject,gender\nS005,f\nS008,\nS011,m\n"),
            "subject S008 has no gender, not f, m or unsure",
        ),
        (
            cut_genders("subject,gender\nS005,f\nS008,fm\nS011,m\n"),
            "subject S008 has the gender 'fm', not f, m or unsure",
        ),
        (cut_genders("subject,sex\nS005,f\n"), "its columns are subject, sex"),
    ],
)
def test_broken_ckplus_copies(copy, spoil, message):
    root = copy("ckplus")
    spoil(root)
    with pytest.raises(errors.DataError, match=message):
        datasets.read("ckplus", root)


def test_an_unreadable_png_is_named(copy):
    root = copy("ckplus")
    path = root / "cohn-kanade-images/S008/001/S008_001_00000005.png"
    path.write_bytes(path.read_bytes()[:2000])
    message = errors.UNREADABLE_IMAGE.partition("{")[0] + re.escape(str(path))
    for act in (datasets.check, lambda name, root: datasets.load_pictures(name, root, size=48)):
        with pytest.raises(errors.DataError, match=message):
            act("ckplus", root)


def test_gender_may_be_written_out(copy):
    root = copy("ckplus")
    (root / "gender.csv").write_text("subject,gender\nS011, Male\nS008,UNSURE\nS005,female\n")
    table = datasets.read("ckplus", root).table
    assert table["gender"].tolist()[::8] == ["female", "unsure", "male"]


def ckplus_faces(root, people, labelled):
    """Make the label folder of `people` persons and a face of each of the first `labelled`."""
    names = [f"S{k:03d}" for k in range(people)]
    for name in names:
        (root / "Emotion" / name).mkdir(parents=True)
    table = pd.DataFrame({"item": names[:labelled], "subject": names[:labelled], "label": 0})
    return Faces(torch.zeros(labelled, 1, 8, 8, dtype=torch.uint8), table, "ckplus", ("a",))


def test_ckplus_split_draws_86_of_123_people(tmp_path):
    train, test = ckplus.split(ckplus_faces(tmp_path, 123, 123), tmp_path, seed=0)
    assert (len(train.subjects), len(test.subjects)) == (86, 37)
    assert not set(train.subjects) & set(test.subjects)
    again, _ = ckplus.split(ckplus_faces(tmp_path / "again", 123, 123), tmp_path, seed=0)
    other, _ = ckplus.split(ckplus_faces(tmp_path / "other", 123, 123), tmp_path, seed=1)
    assert again.subjects == train.subjects != other.subjects


def test_people_without_a_label_take_part_in_the_draw(tmp_path):
    """As in the paper, so a copy with its own labels divides the same people the same way."""
    whole, _ = ckplus.split(ckplus_faces(tmp_path / "whole", 123, 123), tmp_path / "whole", seed=3)
    part, _ = ckplus.split(ckplus_faces(tmp_path / "part", 123, 118), tmp_path / "part", seed=3)
    assert part.subjects == [name for name in whole.subjects if name < "S118"]


def test_a_split_needs_people_on_both_sides(tmp_path):
    faces = ckplus_faces(tmp_path, 1, 1)
    message = errors.NO_SPLIT.format(root=tmp_path, people=1)
    with pytest.raises(errors.DataError, match=re.escape(message)):
        ckplus.split(faces, tmp_path, seed=0)


def test_ckplus_counts_agree_with_a_whole_copy(trees):
    """The sums of the published table; its label folder has people we do not have here."""
    table = datasets.read("ckplus", trees / "ckplus").table
    sequences = [
        code
        for code, count in enumerate(ckplus.PUBLISHED_LABELS.values())
        if code
        for _ in range(count // 3)
    ]
    whole = pd.concat(
        [table[:4].assign(label=[0, code, code, code], sequence=f"{k}")
         for k, code in enumerate(sequences)], ignore_index=True
    )  # fmt: skip
    found = ckplus.facts(Photos("ckplus", whole, ckplus.CLASSES))
    assert found[0] == (
        "found: people in the label folder 4 (published 123), labelled sequences 327, pictures "
        "1308; the rest as published"
    )
    assert found[1] == (
        "expression (pictures): neutral 327, anger 135, contempt 54, disgust 177, fear 75, happy "
        "207, sadness 84, surprise 249; all as published"
    )


# RAF-DB


def test_rafdb_rows(trees):
    photos = datasets.read("rafdb", trees / "rafdb")
    table = photos.table.set_index("item")
    assert photos.classes[0] == "surprise" and photos.classes[6] == "neutral"
    assert table["part"].value_counts().to_dict() == {"train": 28, "test": 21}
    assert table.index[:2].tolist() == ["test_0001", "test_0002"]
    assert table.loc["train_00010", ["label", "gender", "race", "age"]].tolist() == [
        2, "male", "african-american", "40-69",
    ]  # fmt: skip
    assert table.loc["test_0003", ["label", "gender", "race", "age"]].tolist() == [
        2, "unsure", "african-american", "0-3",
    ]  # fmt: skip
    assert (photos.table["subject"] == photos.table["item"]).all()
    inner = datasets.read("rafdb", trees / "rafdb" / "basic").table
    assert inner.equals(photos.table)


def test_rafdb_pictures_are_only_resized(trees):
    faces, missed = datasets.load_pictures("rafdb", trees / "rafdb", size=100, grey=False)
    assert missed == [] and faces.images.shape == (49, 3, 100, 100)
    path = trees / "rafdb/basic/Image/aligned/test_0001_aligned.jpg"
    np.testing.assert_array_equal(faces.images[0].permute(1, 2, 0), np.asarray(Image.open(path)))
    small, _ = datasets.load_pictures("rafdb", trees / "rafdb", size=50)
    halved = np.asarray(Image.open(path).convert("L").resize((50, 50), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(small.images[0, 0], halved)


def edit_list(old, new):
    def spoil(root):
        path = root / "basic" / rafdb.LIST
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return spoil


def edit_attributes(change):
    def spoil(root):
        path = root / "basic/Annotation/manual/test_0005_manu_attri.txt"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "basic" / rafdb.LIST).unlink(), f"{rafdb.LIST} is missing"),
        (lambda root: (root / "basic" / rafdb.LIST).write_text("\n"), f"{rafdb.LIST} is empty"),
        (lambda root: (root / "basic" / rafdb.LIST).write_bytes(b"\xff\xfe"), "cannot be read"),
        (edit_list("train_00008.jpg 1", "train_00008.jpg 8"), f"line 8:{BAD_LABEL}8.*from 1 to 7"),
        (edit_list("train_00008.jpg 1", "train_00008.jpg 0"), f"line 8:{BAD_LABEL}0"),
        (edit_list("train_00008.jpg 1", "train_00008.jpg"), "line 8 of .* is 'train_00008.jpg'"),
        (edit_list("train_00008.jpg", "train_00009.jpg"), "names train_00009.jpg twice"),
        (edit_list("train_00008.jpg", "valid_00008.jpg"), "is 'valid_00008.jpg 1'"),
        (
            lambda root: (root / "basic/Image/aligned/test_0002_aligned.jpg").unlink(),
            r"Image/aligned/test_0002_aligned\.jpg is missing \(1 such files\)",
        ),
        (
            lambda root: shutil.rmtree(root / "basic/Annotation"),
            r"test_0001_manu_attri\.txt is missing \(49 such files\)",
        ),
        (
            edit_attributes(lambda lines: lines[:6]),
            r"test_0005_manu_attri\.txt has 6 lines, expect",
        ),
        (edit_attributes(lambda lines: [*lines[:5], "3", "0", "0"]), "gender is '3'.* 0 to 2"),
        (edit_attributes(lambda lines: [*lines[:5], "0", "x", "0"]), "race is 'x'.* 0 to 2"),
        (edit_attributes(lambda lines: [*lines[:5], "0", "0", "5"]), "age is '5'.* 0 to 4"),
    ],
)
def test_broken_rafdb_copies(copy, spoil, message):
    root = copy("rafdb")
    spoil(root)
    with pytest.raises(errors.DataError, match=message):
        datasets.read("rafdb", root)


def test_rafdb_check_tells_what_differs(trees):
    found = datasets.check("rafdb", trees / "rafdb")
    assert found[0] == "49 pictures, all readable; nobody is named"
    assert "gender (pictures): female 16, male 17, unsure 16" in found
    assert "pictures: train 28 (published 12271), test 21 (published 3068)" in found
    assert (
        "race (test pictures): caucasian 8 (published 2351), african-american 7 (published 234), "
        "asian 6 (published 483)" in found
    )


def test_a_whole_rafdb_is_as_published():
    test = {
        name: np.repeat(list(counts), list(counts.values()))
        for name, counts in rafdb.PUBLISHED_TEST.items()
    }
    table = pd.DataFrame(test | {"part": "test"})
    assert len(table) == 3068
    train = pd.DataFrame({"part": ["train"] * 12_271})
    photos = Photos("rafdb", pd.concat([table, train], ignore_index=True), rafdb.CLASSES)
    assert all(line.endswith("; all as published") for line in rafdb.facts(photos))
    assert len(rafdb.facts(photos)) == 4


# Folders of expressions


def test_expression_folder_rows(trees):
    photos = datasets.read("expression_folder", trees / "expression_folder")
    assert photos.classes == ("happy", "neutral", "sadness")
    assert photos.table["label"].tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert photos.table["part"].tolist() == ["train"] * 6 + ["test"] * 6
    assert photos.table["item"].iloc[6] == "test/happy/0.png"
    assert (photos.table["subject"] == photos.table["item"]).all()


def test_expression_folder_takes_groups_and_subjects_by_file(copy):
    root = copy("expression_folder")
    shutil.rmtree(root / "train")
    rows = [f"test/{name}/{k}.png,{name[0]}{k},{'Female' if k else ''}"
            for name in ("sadness", "neutral", "happy") for k in (0, 1)]  # fmt: skip
    (root / "groups.csv").write_text("\n".join(["file,subject,gender", *rows]))
    table = datasets.read("expression_folder", root).table
    assert table["subject"].tolist() == ["h0", "h1", "n0", "n1", "s0", "s1"]
    assert table["gender"].tolist() == ["unknown", "female"] * 3
    assert table["part"].tolist() == ["test"] * 6
    found = datasets.check("expression_folder", root)
    assert found[:2] == [
        "6 pictures of 6 subjects, all readable",
        "label (pictures): happy 2, neutral 2, sadness 2",
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: [shutil.rmtree(root / part) for part in ("train", "test")],
            "neither a folder train nor a folder test",
        ),
        (lambda root: shutil.rmtree(root / "test/happy"), "only one of .* has a folder happy"),
        (
            lambda root: [path.unlink() for path in (root / "test/happy").iterdir()],
            "test holds no folder with pictures, or an empty one",
        ),
        (
            lambda root: (root / "groups.csv").write_text("subject,gender\na,f\n"),
            "its columns are subject, gender. Expected a CSV with a column file",
        ),
        (
            lambda root: (root / "groups.csv").write_text("file,gender\ntest/happy/0.png,f\n"),
            r"file test/happy/1\.png is not in it \(11 such\)",
        ),
    ],
)
def test_broken_expression_folders(copy, spoil, message):
    root = copy("expression_folder")
    spoil(root)
    with pytest.raises(errors.DataError, match=message):
        datasets.read("expression_folder", root)


# Cutting out


def test_the_box_holds_the_face():
    """On real faces: all five landmarks inside, the nose near its middle, taller than wide."""
    photos = datasets.read("orl")
    boxes, points, _ = align._detect([photos.open(k) for k in range(0, 400, 10)])
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    assert ((low < points) & (points < high)).all()
    place = ((points - low) / (high - low))[:, 2]  # the nose, (0, 0) to (1, 1)
    assert (np.abs(place - (0.5, 0.6)) < 0.25).all()
    np.testing.assert_allclose(place.mean(0), (0.5, 0.6), atol=0.06)


def test_a_face_is_cut_out_wherever_it_is(tmp_path):
    """The same drawn face at three places: in each cut its eyes and mouth are where they were."""
    drawn = np.asarray(expression_trees.face("neutral", 0, person=1, shape=(160, 160)))
    rows = []
    for k, (top, left) in enumerate([(0, 0), (0, 110), (64, 32)]):
        picture = np.full((240, 280), drawn[0, 0], np.uint8)
        picture[top : top + 160, left : left + 160] = drawn
        Image.fromarray(picture).save(tmp_path / f"{k}.png")
        rows.append({"item": f"{k}", "subject": "s", "path": tmp_path / f"{k}.png", "label": 0})
    photos = Photos("folder", pd.DataFrame(rows), ("neutral",))
    faces, missed = align.crop(photos, 96, grey=False)
    assert missed == [] and faces.images.shape == (3, 3, 96, 96) and faces.classes == ("neutral",)
    points, _ = align.landmarks([image.permute(1, 2, 0).numpy() for image in faces.images])
    assert np.abs(points - points.mean(0)).max() < 3
    assert points[..., 0].min() > 24 and points[..., 0].max() < 72  # x: the middle half
    assert (points[:, :2, 1] < 48).all() and (points[:, 3:, 1] > 52).all()  # eyes above mouth


def test_batches_do_not_change_a_cut(trees):
    photos = datasets.read("ckplus", trees / "ckplus")
    few = Photos("ckplus", photos.table.iloc[:7], photos.classes)
    one, _ = align.crop(few, 48, batch_size=1)
    all_at_once, _ = align.crop(few, 48, batch_size=7)
    assert torch.equal(one.images, all_at_once.images)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(*[st.floats(-40, 90)] * 2),
    st.tuples(*[st.floats(0.1, 80)] * 2),
)
def test_the_cut_is_a_square_around_the_box_with_its_margin(shape, corner, sides):
    picture = np.arange(shape[0] * shape[1] * 3, dtype=np.uint64).astype(np.uint8)
    picture = picture.reshape(*shape, 3)
    box = np.array([*corner, *np.add(corner, sides)])
    padded, (left, top, right, bottom) = align._square(picture, box)
    assert right - left == bottom - top == max(1, round(1.2 * max(sides)))
    assert min(left, top) >= 0 and right <= padded.shape[1] and bottom <= padded.shape[0]
    out = (padded.shape[0] - shape[0]) // 2
    centre = np.array([left + right, top + bottom]) / 2 - out
    np.testing.assert_allclose(centre, np.add(corner, np.array(sides) / 2), atol=1.01)
    np.testing.assert_array_equal(padded[out : out + shape[0], out : out + shape[1]], picture)


def test_resizing_averages_fine_detail():
    fine = np.zeros((64, 64, 3), np.uint8)
    fine[:, ::2] = 255
    small = align.resize(fine, size=8, grey=True)
    assert small.shape == (1, 8, 8)
    assert (small.float() - 127.5).abs().max() < 6  # the border has one stripe more


def test_grey_uses_the_weights_of_bt_601():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    grey = align.resize(np.repeat(np.repeat(colours, 4, 0), 1, 1), size=4, grey=True)
    assert grey[0, 0].tolist() == [76, 150, 29, 90]


def test_pictures_without_a_face_are_listed_or_refused(copy):
    root = copy("ckplus")
    blank = root / "cohn-kanade-images/S008/001/S008_001_00000005.png"
    Image.new("L", (320, 245), 80).save(blank)
    faces, missed = datasets.load_pictures("ckplus", root, size=48)
    assert missed == ["S008/001/S008_001_00000005.png"] and len(faces) == 23
    Image.new("L", (320, 245), 80).save(blank.with_name("S008_001_00000006.png"))
    message = errors.NO_FACE.format(
        count=2, total=24, name="ckplus", example=missed[0], allowed=align.MOST_MISSED
    )
    with pytest.raises(errors.DataError, match=re.escape(message)):
        datasets.load_pictures("ckplus", root, size=48)


def test_a_size_below_one_is_refused(trees):
    with pytest.raises(errors.ParameterError, match="size must be at least 1, got 0"):
        datasets.load_pictures("rafdb", trees / "rafdb", size=0)


def test_loading_twice_gives_the_same_bytes(trees):
    for name in ("ckplus", "rafdb", "expression_folder"):
        first, _ = datasets.load_pictures(name, trees / name, size=48)
        second, _ = datasets.load_pictures(name, trees / name, size=48)
        assert torch.equal(first.images, second.images) and first.table.equals(second.table)


def test_aligned_faces_keep_their_classes():
    photos = datasets.read("orl")
    table = photos.table.iloc[:3].assign(label=[0, 1, 0])
    faces, _ = align.align(Photos("orl", table, ("plain", "other")))
    assert faces.classes == ("plain", "other") and faces.table["label"].tolist() == [0, 1, 0]


def test_london_faces_are_cut_out(london_root):
    faces, missed = datasets.load_pictures("london", london_root, size=64)
    assert missed == [] and faces.images.shape == (204, 1, 64, 64)
    assert faces.classes == ("neutral", "smiling")
    assert (
        faces.table["expression"] == faces.table["label"].map({0: "neutral", 1: "smiling"})
    ).all()


def test_counts_beside_the_published():
    assert tables.beside("x", {"a": 1}, {"a": 2, "b": 3}) == (
        "x: a 1 (published 2), b 0 (published 3)"
    )
