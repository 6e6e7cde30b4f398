"""The one way to each set: which function reads it, by the catalog's names."""

import importlib
import re

import numpy as np
import pytest
import torch
from PIL import Image

from studylib import align, catalog, cli, datasets, embed, errors
from tests.fixtures import fr_files, fr_trees


def test_every_reader_has_what_its_kind_needs():
    needed = {"faces": "read", "pairs": "pairs", "identities": "read", "templates": "read"}
    for entry in catalog.ENTRIES.values():
        if entry.reader:
            reader = importlib.import_module(entry.reader)
            assert callable(getattr(reader, needed[entry.kind])) and reader.LAYOUT
            assert entry.kind != "faces" or reader.CROPPED in (True, False)
    published = {*datasets.PUBLISHED_PAIRS, *datasets.PUBLISHED_IDENTITIES}
    assert published | {*datasets.PUBLISHED_TEMPLATES} <= set(catalog.ENTRIES)


def test_nothing_gated_may_be_shown():
    shown = [e.name for e in catalog.ENTRIES.values() if e.showable and e.tier == "gated"]
    assert shown == []


def test_a_benchmark_file_is_a_root_and_carries_its_sets_name(tmp_path):
    path = fr_files.benchmark(tmp_path / "cplfw.bin")
    faces, pairs = datasets.load_pairs("cplfw", path)
    assert faces.origin == "cplfw" and not catalog.ENTRIES[faces.origin].showable
    assert {"a", "b", "genuine", "fold"} == set(pairs)
    table = embed.pair_table(faces, pairs)
    same = table["subject_a"].astype(str) == table["subject_b"].astype(str)
    assert (same == pairs["genuine"]).all() and pairs["genuine"].sum() > 0
    found = datasets.check("cplfw", path)
    assert found[1] == f"pairs: pairs {len(pairs)} (published 6000)"


def test_the_four_files_of_rfw_are_four_groups(tmp_path):
    faces, pairs = datasets.load_pairs("rfw_bin", fr_files.rfw_bins(tmp_path))
    assert pairs["group"].unique().tolist() == ["african", "asian", "caucasian", "indian"]
    table = embed.pair_table(faces, pairs)
    for side in "ab":
        assert (table[f"race_{side}"].astype(str) == table["group"]).all()
    assert datasets.check("rfw_bin", tmp_path)[1].startswith("pairs: african ")


def test_a_training_record_is_opened_by_its_sets_name(tmp_path):
    fr_files.records_tree(tmp_path, identities=3, pictures=4)
    source = datasets.open_identities("ms1mv2", tmp_path)
    assert source.origin == "ms1mv2" and source.labels.tolist() == np.repeat(range(3), 4).tolist()
    assert datasets.check("ms1mv2", tmp_path) == [
        "12 pictures of 3 identities, all readable; 4 to 4 an identity",
        "counts: pictures 12 (published 5822653), identities 3 (published 85742)",
    ]


def test_the_command_checks_a_verification_set(tmp_path, capsys):
    root = fr_trees.rfw_tree(tmp_path)
    assert cli.main(["data", "check", "rfw", "--root", str(root)]) == 0
    assert "folds: 10 of 6 to 6 pairs, half of each genuine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("reader", "names"),
    [
        (datasets.load_pairs, "agedb_30, calfw, cfp_fp, cplfw, lfw, rfw, rfw_bin"),
        (datasets.load_templates, "ijbb, ijbc"),
        (
            datasets.open_identities,
            "bupt_balancedface, bupt_globalface, casia_webface, identity_folder, ms1mv2",
        ),
    ],
)
def test_an_unknown_name_is_told_the_known_ones_of_that_kind(reader, names):
    message = errors.UNKNOWN_DATASET.format(name="rwf", known=names)
    with pytest.raises(errors.DataError, match=re.escape(message)):
        reader("rwf")


def test_a_set_to_bring_needs_a_root_that_is_there(tmp_path):
    for reader, name in (
        (datasets.load_pairs, "rfw"),
        (datasets.open_identities, "ms1mv2"),
        (datasets.load_templates, "ijbc"),
    ):
        with pytest.raises(errors.DataError, match="pass data_root"):
            reader(name)
        with pytest.raises(errors.DataError, match=f"no folder {tmp_path}/nowhere"):
            reader(name, tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.DataError, match=f"no folder {tmp_path}/file"):
        datasets.open_identities("bupt_globalface", tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "reader", "door"),
    [
        ("bupt_balancedface", datasets.read, "open_identities"),
        ("bupt_balancedface", datasets.load_pairs, "open_identities"),
        ("rfw", datasets.load, "load_pairs"),
        ("orl", datasets.load_pairs, "read"),
        ("ijbc", datasets.open_identities, "load_templates"),
    ],
)
def test_the_wrong_door_names_the_right_one(tmp_path, name, reader, door):
    message = errors.OTHER_DOOR.format(
        name=name, holds=dict(datasets.DOORS.values())[door], door=door
    )
    with pytest.raises(errors.DataError, match=re.escape(message)):
        reader(name, tmp_path)


def test_unlabelled_faces_are_found_at_any_depth_and_nobody_is_anybody(tmp_path):
    root = fr_trees.identity_tree(tmp_path, groups=("a", "b"), people=2, count=2)
    photos = datasets.read("unlabelled", root)
    assert photos.table["item"].tolist()[:2] == ["a/m.000/000_0.jpg", "a/m.000/001_0.jpg"]
    assert (photos.table["item"] == photos.table["subject"]).all() and len(photos) == 8
    faces, missed = datasets.load("unlabelled", root)
    assert missed == [] and faces.images.shape == (8, 3, 112, 112)
    expected = np.asarray(Image.open(root / "b/m.101/001_1.jpg").convert("RGB"))
    np.testing.assert_array_equal(faces.images[7].permute(1, 2, 0), expected)


def test_a_draw_of_a_large_set_depends_on_the_seed_alone(tmp_path):
    root = fr_trees.identity_tree(tmp_path, groups=(), people=4, count=5)
    drawn = [
        datasets.load("unlabelled", root, most=6, seed=seed)[0].table["item"].tolist()
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 6
    assert drawn[0] == sorted(drawn[0])
    assert len(datasets.load("unlabelled", root, most=50)[0]) == 20
    with pytest.raises(errors.ParameterError, match="most must be at least 1"):
        datasets.load("unlabelled", root, most=0)


def test_unlabelled_pictures_of_another_size_are_aligned_by_the_detector(tmp_path):
    photos = datasets.read("orl")
    pictures = [photos.open(k) for k in (0, 57, 290)]
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{k}.png")
    faces, missed = datasets.load("unlabelled", tmp_path)
    assert missed == []
    torch.testing.assert_close(faces.images, align.align_pictures(pictures)[0], rtol=0, atol=0)


def test_a_folder_without_pictures_and_a_damaged_picture_are_refused(tmp_path):
    with pytest.raises(errors.DataError, match="'unlabelled': it holds no picture"):
        datasets.load("unlabelled", tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(errors.DataError, match=r"Could not read the image .*a\.jpg"):
        datasets.load("unlabelled", tmp_path)
