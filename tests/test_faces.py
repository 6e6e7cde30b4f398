import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studylib import errors
from studylib.faces import Faces, read_image


def make(subjects) -> Faces:
    n = len(subjects)
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 2, 2)
    table = pd.DataFrame({"item": [f"i{k}" for k in range(n)], "subject": subjects})
    return Faces(images, table, "noise")


@given(st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=30), st.integers(0, 99))
def test_split_keeps_every_face_once_and_nobody_on_both_sides(subjects, seed):
    faces = make(subjects)
    if len(faces.subjects) < 2:
        return
    first, second = faces.split_by_subject(0.5, seed)
    assert not set(first.subjects) & set(second.subjects)
    assert sorted([*first.table["item"], *second.table["item"]]) == sorted(faces.table["item"])
    assert len(first.subjects) == round(0.5 * len(faces.subjects))


def test_split_depends_on_the_seed_alone_not_on_row_order():
    faces = make(list("aabbccdd"))
    shuffled = faces.take([7, 2, 5, 0, 1, 6, 3, 4])
    assert (
        faces.split_by_subject(0.5, 3)[0].subjects == shuffled.split_by_subject(0.5, 3)[0].subjects
    )
    chosen = {tuple(faces.split_by_subject(0.5, seed)[0].subjects) for seed in range(20)}
    assert len(chosen) > 1


def test_take_by_mask_and_by_position_agree_and_keep_images_with_rows():
    faces = make(list("abc"))
    by_mask, by_position = faces.take(np.array([True, False, True])), faces.take([0, 2])
    assert by_mask.table["item"].tolist() == by_position.table["item"].tolist() == ["i0", "i2"]
    assert by_mask.images[:, 0, 0, 0].tolist() == [0, 2]


def test_sample_draws_without_replacement_and_repeats():
    faces = make(list("abcdefgh"))
    drawn = faces.sample(5, seed=1)
    assert drawn.table["item"].is_unique and len(drawn) == 5
    assert drawn.table["item"].tolist() == faces.sample(5, seed=1).table["item"].tolist()
    assert len(faces.sample(99, seed=1)) == 8


def test_one_person_cannot_be_split():
    with pytest.raises(errors.ParameterError, match=r"between 0 and 1 for 1 people, got 0\.5"):
        make(list("aaa")).split_by_subject(0.5, 0)


@pytest.mark.parametrize("share", [-1, 0, 0.01, 1, 1.5])
def test_a_split_must_leave_somebody_on_both_sides(share):
    with pytest.raises(errors.ParameterError, match="spare is the share of people"):
        make(list("aabbcc")).split_by_subject(share, 0)


def test_images_and_rows_must_match():
    with pytest.raises(ValueError, match="2 images but 3 table rows"):
        Faces(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), make(list("abc")).table, "noise")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_broken_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(errors.DataError, match=r"Could not read the image .*broken\.png"):
        read_image(path)


def test_image_cut_short_is_named(picture_folder):
    path = picture_folder / "ada" / "1.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(errors.DataError, match=r"ada/1\.png"):
        read_image(path)


def test_a_picture_held_sideways_is_turned_upright(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned a quarter
    Image.fromarray(pixels).save(tmp_path / "phone.png", exif=exif)
    upright = read_image(tmp_path / "phone.png")
    assert upright.shape == (8, 4, 3)
    assert (upright[:4] == 200).all() and (upright[4:] == 0).all()


def test_sixteen_bit_pictures_are_refused_rather_than_burnt_out(tmp_path):
    Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(errors.DataError, match=r"deep\.png.*only 8 bits"):
        read_image(tmp_path / "deep.png")
