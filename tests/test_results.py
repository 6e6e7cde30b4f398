import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest

from studylib import errors, results, runs

STORED = Path(__file__).parent.parent / "book" / "results"
LONDON = STORED / "fer_pretrained_london"
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
# Parameters that take names, though their comments speak of folders, or there is none.
NAMES = {"real_set", "eval_set", "run_names", "device", "variants", "precisions", "architectures"}


@pytest.fixture
def run(tmp_path):
    """A finished run with two side tables, made without a notebook."""
    folder = tmp_path / "run"
    folder.mkdir()
    record = {
        "schema": runs.SCHEMA,
        "experiment": "tiny",
        "profile": None,
        "parameters": {"data_root": "/home/somebody/faces", "network": "sface", "n": 4},
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
    assert found.record["parameters"] == {"data_root": None, "network": "sface", "n": 4}
    assert found.record["outcomes_sha256"] == "ab"
    assert results.store(run, tmp_path / "all") and list(results.read(tmp_path / "all").tables) == [
        "rates",
        "sizes",
    ]
    assert "somebody" not in (kept / "record.json").read_text()
    assert "platform" not in found.record


def kept_parameters(run, folder, **given):
    run.record["parameters"] = given
    return results.read(results.store(run, folder)).record["parameters"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_place_that_a_notebook_asks_for_is_kept(run, tmp_path, notebook):
    """Text in any parameter loses its folders; a folder loses its name too, it may be anybody's."""
    found = papermill.inspect_notebook(str(notebook)).values()
    types = {one["name"]: one["inferred_type_name"] for one in found}
    texts = [name for name in types if re.search(r"str|dict|list(?!\[)", types[name])]
    made = {"list": lambda file: [file], "dict": lambda file: {"of": {"it": file}}, "str": str}
    for file in ("/home/somebody/net.pt", "../somebody/net.pt", r"C:\Users\somebody\net.pt"):
        given = {n: next(made[k] for k in made if k in types[n])(file) for n in texts}
        assert "somebody" not in json.dumps(kept_parameters(run, tmp_path / "files", **given))
    about = {one["name"]: one["help"] for one in found}
    said = r"\b(folder|where|director|path)|^$"
    folders = {name for name in texts if re.search(said, about[name])}
    given = dict.fromkeys(folders - NAMES, "somebody")
    assert "out_dir" in given
    assert kept_parameters(run, tmp_path / "folders", **given) == dict.fromkeys(given)


def test_what_is_no_folder_is_kept(run, tmp_path):
    given = {"network": "sface", "loss": "kd: embedding", "variants": ["s50+w8"], "lr": 0.1}
    assert kept_parameters(run, tmp_path / "kept", **given) == given
    kept = kept_parameters(run, tmp_path / "kept", teacher="runs/a/net.safetensors", cache=None)
    assert kept == {"teacher": "net.safetensors", "cache": None}  # None would be: no teacher


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
    assert not [w for w in ("/home", "/tmp", "Users") if w in json.dumps(record)]
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
