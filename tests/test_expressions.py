"""How each data set is divided, under each protocol."""

import re
import shutil

import numpy as np
import pytest
import torch

from studylib import datasets, errors, expressions
from studylib.datasets import ckplus
from tests.fixtures.expression_trees import ckplus_tree, expression_folder_tree, rafdb_tree

SMALL = {"n_train": 160, "n_test": 64, "size": 32}


def people(faces):
    return set(faces.table["subject"])


def test_sound_keeps_everybody_apart():
    train, chosen_on, test, _ = expressions.load("simfaces", protocol="sound", seed=0, **SMALL)
    assert (len(train) + len(chosen_on), len(test)) == (160, 64)
    assert len(chosen_on.subjects) == round(expressions.VALIDATION * 20)
    assert not people(train) & people(chosen_on)
    assert not (people(train) | people(chosen_on)) & people(test)


def test_as_published_chooses_on_the_test_set():
    parts = expressions.load("simfaces", protocol="as_published", seed=0, **SMALL)
    assert parts.chosen_on is parts.test
    assert len(parts.train) == 160
    assert list(expressions.counts(parts).index) == ["train", "test"]


def test_the_seed_moves_validation_people_and_nothing_else():
    first, second = (expressions.load("simfaces", seed=seed, **SMALL) for seed in (0, 1))
    assert torch.equal(first.test.images, second.test.images)
    assert people(first.chosen_on) != people(second.chosen_on)
    assert people(first.train) | people(first.chosen_on) == people(second.train) | people(
        second.chosen_on
    )


def test_the_data_seed_moves_everybody():
    first, second = (expressions.load("simfaces", data_seed=s, **SMALL) for s in (0, 1))
    assert not people(first.test) & people(second.test)
    assert not people(first.train) & people(second.train)
    assert not people(first.test) & people(second.train)


def test_shares_are_of_the_training_people_and_the_test_stays_balanced():
    shares = {"A": 0.7, "B": 0.1, "C": 0.1, "D": 0.1}
    parts = expressions.load("simfaces", protocol="as_published", shares=shares, **SMALL)
    of = parts.train.table.drop_duplicates("subject")["group"].value_counts()
    assert of.to_dict() == {"A": 14, "B": 2, "C": 2, "D": 2}
    assert set(parts.test.table["group"].value_counts()) == {16}


def test_counts_add_up():
    parts = expressions.load("simfaces", **SMALL)
    table = expressions.counts(parts)
    assert list(table.index) == ["train", "chosen_on", "test"]
    assert (table[list(parts.test.classes)].sum(axis=1) == table["faces"]).all()


def test_pictures_without_a_face_are_counted():
    parts = expressions.load("simfaces", **SMALL)
    table = expressions.counts(parts._replace(missed=("S001/a.png", "S001/b.png")))
    assert table.loc["no face found", "faces"] == 2
    assert table.loc["no face found", list(parts.test.classes)].sum() == 0
    assert "no face found" not in expressions.counts(parts).index


@pytest.mark.parametrize("protocol", expressions.PROTOCOLS)
def test_ckplus_is_divided_by_people(tmp_path, protocol):
    root = ckplus_tree(tmp_path / "ck")
    parts = expressions.load("ckplus", root, protocol=protocol, seed=0)
    assert not (people(parts.train) & people(parts.test))
    faces, _ = datasets.load_pictures("ckplus", root, size=48)
    training, test = ckplus.split(faces, root, 0)
    assert people(parts.test) == people(test)
    assert people(parts.train) | (people(parts.chosen_on) - people(test)) == people(training)
    assert parts.test.images.shape[1:] == (1, 48, 48)


def test_rafdb_keeps_its_official_division(tmp_path):
    root = rafdb_tree(tmp_path / "raf")
    parts = expressions.load("rafdb", root, protocol="as_published", seed=0)
    assert set(parts.train.table["part"]) == {"train"}
    assert set(parts.test.table["part"]) == {"test"}
    assert parts.test.images.shape[1:] == (1, 100, 100)


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("orl", {}, "Unknown expression data set 'orl'"),
        ("simfaces", {"protocol": "lucky"}, "Unknown protocol 'lucky'"),
        ("simfaces", {"n_train": 8}, "n_train must be at least 64, got 8"),
        ("simfaces", {"n_test": 8}, "n_test must be at least 32, got 8"),
    ],
)
def test_what_cannot_be_loaded_is_said(name, asked, message):
    with pytest.raises(errors.ParameterError, match=message):
        expressions.load(name, **(SMALL | asked))


def test_a_folder_with_one_part_is_refused(tmp_path):
    root = expression_folder_tree(tmp_path / "own")
    shutil.rmtree(root / "test")
    text = errors.ONE_PART.format(root=root, name="expression_folder", part="train")
    with pytest.raises(errors.DataError, match=re.escape(text)):
        expressions.load("expression_folder", root)


def test_outcomes_hold_the_likeliest_class_and_its_probability():
    test = expressions.load("simfaces", **SMALL).test
    rows = torch.rand(len(test), len(test.classes), generator=torch.Generator().manual_seed(0))
    rows = rows / rows.sum(1, keepdim=True)
    table = expressions.outcomes(test, {"fp32": rows, "w8": rows.flip(1)})
    assert table["predicted_fp32"].tolist() == rows.argmax(1).tolist()
    assert np.allclose(table["confidence_w8"], rows.max(1).values)
    assert list(table.columns[:3]) == ["item", "subject", "label"]
    assert {"gender", "age", "group"} <= set(table)
    assert table["confidence_fp32"].dtype == np.float32
