import re

import numpy as np
import pytest
import torch
from sklearn.preprocessing import normalize

from studylib import datasets, embed, errors
from tests.fixtures import fr_trees

PAIRS = "meta/ijbc_template_pair_label.txt"
MEDIA = "meta/ijbc_face_tid_mid.txt"
POINTS = "meta/ijbc_name_5pts_score.txt"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fr_trees.ijbc_tree(tmp_path_factory.mktemp("ijbc"))


class Pixels(torch.nn.Module):
    """Stands for a network whose embeddings differ in length: some rows of the picture."""

    def forward(self, faces):
        return faces[:, :, 50:60, 30:60].flatten(1).float() - 100


def test_lists_become_codes(tree):
    found = datasets.load_templates("ijbc", tree)
    assert found.ids.tolist() == [3, 7, 11, 25, 30]
    assert found.pictures["template"].tolist() == [1, 1, 1, 2, 0, 0, 0, 0, 3, 4]
    assert found.pictures["media"].tolist() == [5, 5, 2, 9, 5, 8, 8, 8, 1, 4]
    np.testing.assert_allclose(found.pictures["score"], 0.5 + 0.05 * np.arange(10))
    assert found.pairs.to_dict("list") == {
        "a": [1, 1, 0, 2, 4],
        "b": [2, 0, 3, 3, 1],
        "genuine": [True, False, True, False, False],
    }
    np.testing.assert_allclose(found.points[3], fr_trees.loose_marks(), atol=1e-3)


def test_pictures_are_aligned_by_their_landmarks(tree):
    found = datasets.load_templates("ijbc", tree)
    images = found.batch(2, 50)
    assert images.shape == (8, 3, 112, 112) and images.dtype == torch.uint8
    drawn = np.asarray(fr_trees.portrait(1, 0), np.float64)
    for x, y in fr_trees.MARKS:
        x, y = round(x), round(y)
        part = (slice(y - 2, y + 3), slice(x - 2, x + 3))
        warped = images[3].permute(1, 2, 0).double().numpy()
        np.testing.assert_allclose(warped[part].mean((0, 1)), drawn[part].mean((0, 1)), atol=12)


def test_embeddings_of_templates_are_those_of_the_published_steps(tree):
    """Written out template by template, as the steps are told: papers' script for IJB-C."""
    found = datasets.load_templates("ijbc", tree)
    images = found.batch(0, 10)
    raw = (Pixels()(images) + Pixels()(images.flip(-1))).numpy().astype(np.float64)
    raw *= (0.5 + 0.05 * np.arange(10))[:, None]
    expected = np.stack(
        [
            raw[[5, 6, 7]].mean(0) + raw[4],
            raw[[0, 1]].mean(0) + raw[2],
            raw[3],
            raw[8],
            raw[9],
        ]
    )
    vectors = embed.embed_templates(Pixels(), found, batch_size=3)
    np.testing.assert_allclose(vectors, normalize(expected), atol=2e-6)
    scores = embed.score_pairs(vectors, found.pairs)
    cosines = normalize(expected) @ normalize(expected).T
    np.testing.assert_allclose(scores, cosines[[1, 1, 0, 2, 4], [2, 0, 3, 3, 1]], atol=5e-6)
    plain = embed.embed_templates(Pixels(), found, mirror=False)
    raw = Pixels()(images[3:4]).numpy()
    np.testing.assert_allclose(plain[2:3], normalize(raw), atol=2e-6)


def test_a_long_video_counts_as_much_as_one_photograph():
    photo, frame = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    vectors = torch.cat([photo, frame.expand(50, 2)])
    pooled = embed.pool_templates(vectors, np.zeros(51, int), np.array([1] + [2] * 50))
    torch.testing.assert_close(pooled, torch.full((1, 2), 0.5**0.5))


def test_media_of_one_number_in_two_templates_are_two():
    vectors = torch.eye(3)
    pooled = embed.pool_templates(vectors, np.array([0, 1, 1]), np.array([7, 7, 7]))
    torch.testing.assert_close(pooled, torch.tensor([[1, 0, 0], [0, 0.5**0.5, 0.5**0.5]]))


def test_ijbb_is_read_alike(tmp_path):
    found = datasets.load_templates("ijbb", fr_trees.ijbc_tree(tmp_path, prefix="ijbb"))
    assert len(found) == 10 and len(found.pairs) == 5


def test_check_counts_pictures_media_and_pairs(tree):
    assert datasets.check("ijbc", tree) == [
        "10 pictures in 7 media of 5 templates, all readable",
        "pairs: genuine 2 (published 19557), impostor 3 (published 15638932)",
    ]


def test_check_names_a_damaged_picture(tmp_path):
    root = fr_trees.ijbc_tree(tmp_path)
    (root / "loose_crop/4.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(errors.DataError, match=r"loose_crop/4\.jpg"):
        datasets.check("ijbc", root)
    with pytest.raises(errors.DataError, match=r"loose_crop/4\.jpg"):
        embed.embed_templates(Pixels(), datasets.load_templates("ijbc", root))


def spoil_line(file, number, line):
    def spoil(root):
        lines = (root / file).read_text().splitlines()
        lines[number - 1] = line
        (root / file).write_text("\n".join(lines) + "\n")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / PAIRS).unlink(), "meta holds 0 files ijbb_template_pair_label.txt"),
        (
            lambda root: (root / "meta/ijbb_face_tid_mid.txt").write_text("x"),
            "meta holds 2 files ijbb_face_tid_mid.txt",
        ),
        (
            lambda root: (root / "loose_crop/9.jpg").unlink(),
            r"loose_crop/9\.jpg is missing \(1 such files\)",
        ),
        (lambda root: (root / MEDIA).write_text(""), "face_tid_mid.txt cannot be read"),
        (spoil_line(MEDIA, 3, "3.jpg 7"), "face_tid_mid.txt cannot be read .*[Rr]ow #3"),
        (spoil_line(MEDIA, 3, "3.jpg seven 2"), "face_tid_mid.txt cannot be read .*seven"),
        (spoil_line(POINTS, 3, "3.jpg" + " 1" * 10), "5pts_score.txt cannot be read .*[Rr]ow #3"),
        (spoil_line(PAIRS, 2, "7 3 0 1"), "pair_label.txt cannot be read .*[Rr]ow #2"),
        (spoil_line(PAIRS, 2, "7  0"), "pair_label.txt cannot be read"),
        (
            lambda root: (root / POINTS).write_text((root / POINTS).read_text() * 2),
            r"ijbc_face_tid_mid\.txt has 10 lines and ijbc_name_5pts_score\.txt 20",
        ),
    ],
)
def test_broken_layouts(tmp_path, spoil, message):
    root = fr_trees.ijbc_tree(tmp_path)
    spoil(root)
    with pytest.raises(errors.DataError, match=f"(?s)does not look like 'ijbc': .*{message}"):
        datasets.load_templates("ijbc", root)


def test_lists_in_different_orders_are_told(tmp_path):
    root = fr_trees.ijbc_tree(tmp_path)
    lines = (root / POINTS).read_text().splitlines(keepends=True)
    (root / POINTS).write_text("".join([*lines[:5], *reversed(lines[5:])]))
    message = errors.OTHER_ORDER.format(
        number=6,
        path=root / POINTS,
        found="10.jpg",
        media="ijbc_face_tid_mid.txt",
        expected="6.jpg",
    )
    with pytest.raises(errors.DataError, match=re.escape(message)):
        datasets.load_templates("ijbc", root)


@pytest.mark.parametrize("number", [4, 99])
def test_a_template_without_media_is_told(tmp_path, number):
    root = fr_trees.ijbc_tree(tmp_path)
    spoil_line(PAIRS, 3, f"3 {number} 1")(root)
    message = errors.NO_TEMPLATE.format(
        path=root / PAIRS, number=3, template=number, media="ijbc_face_tid_mid.txt"
    )
    with pytest.raises(errors.DataError, match=re.escape(message)):
        datasets.load_templates("ijbc", root)


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        (PAIRS, "7 3 2", "two templates and 0 or 1"),
        (POINTS, "2.jpg" + " 1.0" * 10 + " nan", "finite numbers"),
    ],
)
def test_a_line_that_makes_no_sense_is_shown(tmp_path, file, line, expected):
    root = fr_trees.ijbc_tree(tmp_path)
    spoil_line(file, 2, line)(root)
    message = errors.BAD_LINE.format(path=root / file, number=2, line=line, expected=expected)
    with pytest.raises(errors.DataError, match=re.escape(message)):
        datasets.load_templates("ijbc", root)


def test_a_quote_in_a_name_is_a_name(tmp_path):
    root = fr_trees.ijbc_tree(tmp_path)
    (root / "loose_crop/1.jpg").rename(root / 'loose_crop/".jpg')
    for file in (MEDIA, POINTS):
        path = root / file
        path.write_text(path.read_text().replace("1.jpg", '".jpg', 1))
    found = datasets.load_templates("ijbc", root)
    assert found.pictures["name"][0] == '".jpg' and len(found.batch(0, 1)) == 1
