"""The chapter on real int8, run by stock papermill on a reader's own pictures with groups."""

import re
from pathlib import Path

import papermill
import pytest

from studylib import models, runs

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "fr_int8.ipynb"
QUICK = {
    "n_calibration": 8,
    "calibration": "real",
    "spare": 0.34,
    "threads": [1],
    "batches": [1, 2],
    "rounds": 1,
    "repeats": 2,
    "resamples": 20,
}


def execute(folder, **parameters):
    papermill.execute_notebook(
        NOTEBOOK,
        folder / "out.ipynb",
        parameters=QUICK | parameters | {"out_dir": str(folder / "run")},
        kernel_name="python3",
        progress_bar=False,
    )
    return runs.read(folder / "run")


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_a_readers_own_pictures_with_groups(tmp_path, own_pictures):
    settings = {"depth": [1, 1, 1, 1], "width": 0.125, "size": 48, "embedding": 32}
    trained = tmp_path / "mine" / "network.safetensors"
    trained.parent.mkdir()
    about = {"architecture": "iresnet", "settings": settings}
    models.save(models.build("iresnet", **settings, seed=0), trained, about)
    own = {"eval_set": "folder", "data_root": str(own_pictures), "trained": str(trained)}
    found = execute(tmp_path, **own)
    assert len(found.outcomes) == 16 * 15 / 2
    both = found.table("parity")
    assert both["network"].unique().tolist() == ["sface", "mine"]
    parity = both[both["network"] == "sface"].set_index(["file", "group"])
    assert set(parity.index.get_level_values("group")) == {
        "everybody",
        "race: green",
        "race: violet",
    }
    assert parity.loc[("int8, 7-bit weights", "everybody"), "mean cosine with fp32"] > 0.98
    assert parity.loc[("w8a8, simulated", "everybody"), "mean cosine with the simulation"] > 0.9999
    by_group = parity.loc["int8"].drop("everybody")
    mean = (by_group["mean cosine with fp32"] * by_group["faces"]).sum() / by_group["faces"].sum()
    assert mean == pytest.approx(parity.loc[("int8", "everybody"), "mean cosine with fp32"])
    files = found.table("files").query("network == 'sface'").set_index("file")["MB"]
    assert files["int8"] < 0.27 * files["fp32"]
    assert files["int8"] == pytest.approx((found.folder / "sface-int8.onnx").stat().st_size / 1e6)
    times = found.table("times")
    assert set(zip(times["threads"], times["batch"], strict=True)) == {(1, 1), (1, 2)}
    assert set(times["cpu"]) == {runs.cpu_name()}
    page = (tmp_path / "out.ipynb").read_text()
    assert re.search(r"On this processor \(.*\) the sum of two products", page)
    assert "Measured on: " in page and "in the same runtime" in re.sub(r"\s+", " ", page)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"network": "nobody"}, "Unknown network 'nobody'"),
        ({"observer": "max"}, "Unknown observer 'max'"),
        ({"trained": "no-run/network.safetensors"}, "network.safetensors"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(tmp_path, own_pictures, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, eval_set="folder", data_root=str(own_pictures), **parameters)
    assert re.search(message, caught.value.evalue)
    assert not (tmp_path / "run" / "run.json").exists()
