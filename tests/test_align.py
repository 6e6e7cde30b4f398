import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studylib import align, datasets, errors
from studylib.faces import Photos

finite = st.floats(-50, 50)


@given(st.floats(0.2, 5), st.floats(-3, 3), finite, finite)
def test_similarity_recovers_a_known_transform(scale, angle, dx, dy):
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = align.TEMPLATE @ rotation.T + (dx, dy)
    matrix = align.similarity(align.TEMPLATE, moved)
    np.testing.assert_allclose(matrix[:, :2], rotation, atol=1e-9)
    np.testing.assert_allclose(matrix[:, 2], (dx, dy), atol=1e-7)


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    target = align.TEMPLATE + rng.normal(0, 3, (5, 2))
    x, y = align.TEMPLATE.T
    one, zero = np.ones(5), np.zeros(5)
    design = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, tx, ty = np.linalg.lstsq(design, target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(align.similarity(align.TEMPLATE, target), [[a, -b, tx], [b, a, ty]])


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.0, 5.3])
def test_warp_moves_the_landmarks_onto_the_template(scale):
    """Five bright discs at scaled, shifted template points must land on the template."""
    points = align.TEMPLATE * scale + (13, 7)
    y, x = np.mgrid[: int(130 * scale) + 20, : int(130 * scale) + 30]
    picture = np.zeros((*x.shape, 3), np.uint8)
    for px, py in points:
        picture[(x - px) ** 2 + (y - py) ** 2 <= (3 * scale) ** 2] = 255
    warped = align.warp(picture, points)[0].numpy().astype(float)
    y, x = np.mgrid[: align.SIZE, : align.SIZE]
    for px, py in align.TEMPLATE:
        near = warped * ((x - px) ** 2 + (y - py) ** 2 <= 36)
        centre = (near * x).sum() / near.sum(), (near * y).sum() / near.sum()
        np.testing.assert_allclose(centre, (px, py), atol=0.35)


def test_batches_do_not_change_a_face(orl):
    photos = datasets.read("orl")
    few = Photos("orl", photos.table.iloc[:5])
    one_by_one, _ = align.align(few, batch_size=1)
    together, _ = align.align(few, batch_size=5)
    difference = one_by_one.images.int() - together.images.int()
    assert difference.abs().max() <= 1  # the detector may round differently by batch
    assert orl.images.shape == (400, 3, 112, 112)


def test_a_set_without_faces_is_refused(picture_folder):
    with pytest.raises(errors.DataError, match="No face was found in 4 of 4 pictures of 'folder'"):
        datasets.load("folder", picture_folder)


def test_a_rare_miss_is_listed_not_hidden(tmp_path):
    photos = datasets.read("orl").table.iloc[:39]
    Image.new("RGB", (92, 112)).save(tmp_path / "black.png")
    black = {"item": "black", "subject": "nobody", "path": tmp_path / "black.png"}
    table = pd.concat([photos, pd.DataFrame([black])], ignore_index=True)
    faces, missed = align.align(Photos("orl", table))
    assert missed == ["black"] and len(faces) == 39
    assert "nobody" not in faces.subjects


def test_all_faces_of_the_london_set_are_found(london_root):
    faces, missed = datasets.load("london", london_root)
    assert missed == [] and len(faces) == 204 and len(faces.subjects) == 102
