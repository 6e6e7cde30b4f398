"""The expression notebook, run by stock papermill: on simulated faces, CK+ and RAF-DB trees."""

import re
from pathlib import Path

import numpy as np
import papermill
import pytest

from studylib import runs
from tests.fixtures.expression_trees import ckplus_tree, rafdb_tree

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "fer_compression.ipynb"
QUICK = {
    "variants": ["w8", "s50+w8", "c8", "s50+c8+w8"],
    "width": 0.125,
    "epochs": 1,
    "prune_epochs": 1,
    "cluster_epochs": 1,
    "batch_size": 8,
    "device": "cpu",
}
SIMULATED = {"n_train": 160, "n_test": 64, "size": 32}
MADE = {"fp32", "w8", "ft1", "s50", "s50+w8", "c8", "ft2", "s50+c8", "s50+c8+w8"}


def execute(folder, **parameters):
    out = folder / "run"
    out.mkdir(parents=True)
    papermill.execute_notebook(
        NOTEBOOK,
        folder / "out.ipynb",
        parameters=QUICK | parameters | {"out_dir": str(out)},
        kernel_name="python3",
        progress_bar=False,
    )
    return out


def check(found, classes, test_faces):
    """Every variant has its rows, sizes and predictions."""
    variants = found.table("variants").set_index("variant")
    assert set(variants.index) == MADE
    for name in MADE:
        assert found.outcomes[f"predicted_{name}"].between(0, classes - 1).all()
        assert found.outcomes[f"confidence_{name}"].between(1 / classes - 1e-6, 1).all()
    assert len(found.outcomes) == test_faces
    assert found.outcomes["item"].is_unique
    assert len(found.table("classes")) == classes
    history = found.table("history")
    assert set(history["variant"]) == {"fp32", "ft1", "ft2", "s50", "c8", "s50+c8"}
    packed = variants["packed_mb"]
    assert packed["s50+c8"] < packed["c8"] < packed["w8"] < packed["fp32"]


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_simulated_faces_twice_give_the_same_bytes(tmp_path):
    first, second = (execute(tmp_path / str(k), **SIMULATED) for k in (0, 1))
    found = runs.read(first)
    check(found, 7, 64)
    assert {"gender", "age", "group"} <= set(found.outcomes)
    assert found.record["outcomes_sha256"] == runs.read(second).record["outcomes_sha256"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", ["as_published", "sound"])
def test_a_miniature_ckplus(tmp_path, protocol):
    root = ckplus_tree(tmp_path / "ck")
    out = execute(tmp_path, data_set="ckplus", data_root=str(root), protocol=protocol)
    found = runs.read(out)
    check(found, 8, len(found.outcomes))
    assert set(found.outcomes["gender"]) <= {"female", "male"}
    page = (tmp_path / "out.ipynb").read_text()
    assert "not shown in published pages" in re.sub(r"\s+", " ", page)


@pytest.mark.filterwarnings("ignore")
def test_a_miniature_rafdb(tmp_path):
    root = rafdb_tree(tmp_path / "raf")
    out = execute(tmp_path, data_set="rafdb", data_root=str(root))
    found = runs.read(out)
    check(found, 7, len(found.outcomes))
    assert {"gender", "race", "age"} <= set(found.outcomes)
    assert np.isfinite(found.table("history")["loss"]).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"varients": ["w8"]}, "knows no parameter 'varients'.*did you mean 'variants'"),
        ({"variants": ["s50+q8"]}, "'s50\\+q8' is no variant: there is no part 'q8'"),
        ({"protocol": "lucky"}, "Unknown protocol 'lucky'"),
        ({"prune_schedule": "sudden"}, "Unknown pruning schedule 'sudden'"),
        ({"cluster_init": "random"}, "Unknown cluster initialisation 'random'"),
        ({"data_set": "rafdb"}, "pass data_root"),
        ({"width": 0.0}, "width must be above 0, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"shares": {"A": 0.9}}, "shares"),
        ({"device": "cuda:7"}, r"cuda:7.*(finds no GPU|has \d GPUs)"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, **(SIMULATED | parameters))
    assert re.search(message, caught.value.evalue)
    assert not (tmp_path / "run" / "run.json").exists()
