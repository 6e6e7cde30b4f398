import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studylib import errors, results, runs

STORED = Path(__file__).parent.parent / "book" / "results"
LONDON = STORED / "fer_pretrained_london"


@pytest.fixture
def run(tmp_path):
    """A finished run with two side tables, made without a notebook."""
    folder = tmp_path / "run"
    folder.mkdir()
    record = {
        "schema": runs.SCHEMA,
        "experiment": "tiny",
        "profile": None,
        "parameters": dict.fromkeys(results.PLACES, "/home/somebody/faces") | {"n": 4},
        "platform": "Linux-5.15-some-host",
        "outcomes_sha256": "ab",
        "versions": {"python": "3.11"},
    }
    (folder / "run.json").write_text(json.dumps(record))
    rates = pd.DataFrame({"group": ["b", "18-29"], "value": [1 / 3, np.nan], "kept": [True, False]})
    rates.to_parquet(folder / "rates.parquet")
    rates.head(1).to_parquet(folder / "sizes.parquet")
    return runs.read(folder)


def test_tables_come_back_exactly(run, tmp_path):
    kept = results.store(run, tmp_path / "kept", ["rates", "sizes"])
    found = results.read(kept)
    assert list(found.tables) == ["rates", "sizes"]
    pd.testing.assert_frame_equal(found.tables["rates"], run.table("rates"), check_exact=True)
    assert found.record["parameters"] == dict.fromkeys(results.PLACES) | {"n": 4}
    assert {"real_root", "synthetic_root", "eval_root", "cache"} <= set(results.PLACES)
    assert found.record["outcomes_sha256"] == "ab"
    assert results.store(run, tmp_path / "all") and list(results.read(tmp_path / "all").tables) == [
        "rates",
        "sizes",
    ]
    assert "somebody" not in (kept / "record.json").read_text()
    assert "platform" not in found.record


def test_rows_about_few_people_are_not_kept(run, tmp_path):
    groups = pd.DataFrame({"group": ["a", "b", "c"], "people": [5, 1, 40]})
    groups.to_parquet(run.folder / "groups.parquet")
    run.record["parameters"]["fewest"] = 5
    kept = results.read(results.store(run, tmp_path / "kept", ["groups", "rates"])).tables
    assert kept["groups"]["group"].tolist() == ["a", "c"]
    assert len(kept["rates"]) == 2  # counts no people


def test_storing_again_leaves_nothing_of_the_last(run, tmp_path):
    kept = results.store(run, tmp_path / "kept", ["rates", "sizes"])
    first = (kept / "rates.csv").read_bytes()
    results.store(run, kept, ["rates"])
    assert sorted(p.name for p in kept.iterdir()) == ["rates.csv", "record.json"]
    assert (kept / "rates.csv").read_bytes() == first


def test_line_endings_may_change(run, tmp_path):
    kept = results.store(run, tmp_path / "kept", ["rates"])
    path = kept / "rates.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(results.read(kept).tables["rates"]) == 2


@pytest.mark.parametrize("tables", [[], ["outcomes"], ["rates", "outcomes"]])
def test_rows_of_single_pictures_are_not_kept(run, tmp_path, tables):
    with pytest.raises(errors.ParameterError) as caught:
        results.store(run, tmp_path / "kept", tables)
    assert str(caught.value) == errors.ONLY_AGGREGATED
    assert not (tmp_path / "kept").exists()


def test_a_table_that_the_run_lacks(run, tmp_path):
    with pytest.raises(errors.RunError, match=r"flips\.parquet"):
        results.store(run, tmp_path / "kept", ["rates", "flips"])
    assert not (tmp_path / "kept").exists()


def test_nothing_stored(tmp_path):
    with pytest.raises(errors.DataError) as caught:
        results.read(tmp_path)
    assert str(caught.value) == errors.NO_STORED.format(folder=tmp_path, file="record.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tables": 3}'])
def test_no_record(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(errors.DataError) as caught:
        results.read(tmp_path)
    file = tmp_path / "record.json"
    assert str(caught.value) == errors.STORED_TABLE.format(
        file=file, problem="it is no record of a run"
    )


def test_a_changed_or_missing_table_is_named(run, tmp_path):
    kept = results.store(run, tmp_path / "kept", ["rates"])
    path = kept / "rates.csv"
    path.write_text(path.read_text().replace("0.3333", "0.4333"))
    with pytest.raises(errors.DataError) as caught:
        results.read(kept)
    problem = "its content is another than the record says"
    assert str(caught.value) == errors.STORED_TABLE.format(file=path, problem=problem)
    path.unlink()
    with pytest.raises(errors.DataError) as caught:
        results.read(kept)
    assert str(caught.value) == errors.STORED_TABLE.format(file=path, problem="it cannot be read")


def test_the_stored_london_tables_agree_with_each_other():
    tables, record = results.read(LONDON)
    assert (
        record["parameters"]["eval_set"] == "london" and record["parameters"]["data_root"] is None
    )
    assert not [w for w in ("/home", "/tmp", "/work", "Users") if w in json.dumps(record)]
    rates, flips = tables["rates"], tables["flips"]
    np.testing.assert_allclose(rates["right"] / rates["n"], rates["value"], atol=1e-12)
    np.testing.assert_allclose((flips["gained"] - flips["lost"]) / flips["n"], flips["change"],
                               atol=1e-12)  # fmt: skip
    cell = ["attribute", "group", "expression", "variant"]
    wide = rates.set_index(cell)["right"].unstack("variant")
    for row in flips.itertuples():
        right = wide.loc[(row.attribute, row.group, row.expression)]
        assert right[row.variant] - right["fp32"] == row.gained - row.lost
    assert record["parameters"]["fewest"] == 5
    for name in tables.keys() - {"sizes"}:
        assert tables[name]["people"].min() >= 5, name
    assert set(tables["groups"]["attribute"]) == {"gender", "race", "age"}


def test_the_stored_london_answers_are_those_of_this_code(london_root):
    from studylib import datasets, train
    from studylib import expression_changes as changes
    from studylib.models import mini_xception

    flips = results.read(LONDON).tables["flips"]
    faces, missed = datasets.load_pictures("london", london_root, size=mini_xception.SIZE)
    assert not missed
    faces = changes.with_labels_of(faces, list(mini_xception.CLASSES))
    network = mini_xception.load()
    made = changes.compress(network, ["fp32", "shipped"], faces)
    said = {name: train.predict(net, faces).argmax(1).numpy() for name, net in made.items()}
    label = faces.table["label"].to_numpy()
    for code, expression in ((3, "happy"), (6, "neutral")):
        right = {name: (answer == label)[label == code] for name, answer in said.items()}
        [row] = flips[
            (flips["attribute"] == "everybody")
            & (flips["expression"] == expression)
            & (flips["variant"] == "shipped")
        ].to_dict("records")
        assert row["lost"] == (right["fp32"] & ~right["shipped"]).sum()
        assert row["gained"] == (~right["fp32"] & right["shipped"]).sum()
        assert row["n"] == 102
