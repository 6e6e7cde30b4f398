"""The composition of calibration sets, by stock papermill: simulated people, and RFW with BUPT."""

import re

import nbformat
import numpy as np
import pytest
import torch

from studylib import calibration_response as response
from studylib import errors, models, runs
from studylib.audit import table
from tests.fixtures import fr_files, fr_trees
from tests.notebooks.test_chapters import PROJECT, charts, execute

SETTINGS = {"depth": [1, 1, 1, 1], "width": 0.0625, "embedding": 16, "size": 32}
QUICK = {
    "n_calibration": 4,
    "draws": 2,
    "others": ["generator", "noise"],
    "resamples": 100,
    "device": "cpu",
}
SIMULATED = {"n_pool": 32, "n_test_people": 80, "per_test_person": 3, "pairs_per_group": 60}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network nobody trained, whose normalisation has seen something."""
    model = models.build("iresnet", **SETTINGS, seed=0)
    with torch.no_grad():
        model(torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8))
    path = tmp_path_factory.mktemp("fresh") / "network.safetensors"
    models.save(model, path, {"architecture": "iresnet", "settings": SETTINGS})
    return str(path)


def prose(folder) -> str:
    return re.sub(r"\s+", " ", (folder / "out.ipynb").read_text())


@pytest.fixture(scope="module")
def simulated(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    return execute(folder, "fr_calibration_sets", network=network, **QUICK, **SIMULATED), folder


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_simulated_people(simulated):
    found, folder = simulated
    names = ["balanced", *(f"only-{g}" for g in "ABCD"), "generator", "noise"]
    made = found.table("sets")
    assert made["composition"].unique().tolist() == names
    assert made["faces"].eq(4).all() and made["width"].gt(0).all() and len(made) == 14
    scores = [f"score_{name}-{k}" for name in names for k in range(2)]
    assert [c for c in found.outcomes if c.startswith("score_")] == ["score_fp32", *scores]
    assert found.outcomes[scores].abs().le(1.0001).all(axis=None)

    shown = found.table("responses")
    agreement = shown.query("metric == 'agreement' and effect == 'level'")
    cosines = found.table("cosines")
    mean = cosines[cosines["group"] == 2][["noise-0", "noise-1"]].to_numpy().mean()
    got = agreement.set_index(["composition", "group"])["value"]
    assert got["noise", "C"] == pytest.approx(mean, rel=1e-6)
    assert got["fp32"].eq(1).all() and got.drop("fp32").lt(0.9999).all()
    less = shown.query("metric == 'agreement' and effect == 'less balanced'")
    less = less.set_index(["composition", "group"])["value"]
    assert less["noise", "C"] == pytest.approx(got["noise", "C"] - got["balanced", "C"])

    roles = table.Roles(score=["score_fp32"])
    outcomes = table.read(found.folder / "outcomes.parquet", roles)  # the audit reads it as it is
    assert outcomes.groups == list("ABCD") and len(outcomes.truth) == 240
    rates = shown.query("effect == 'level' and composition == 'fp32'").pivot(
        index="metric", columns="group", values="value"
    )
    halves = 1 - (rates.loc["FMR"] + rates.loc["FNMR"]) / 2
    assert rates.loc["accuracy"].tolist() == pytest.approx(halves.tolist())
    assert shown["family"].iloc[0] == 2 * (6 * 5 + 6 * 4 + 5) == shown["p"].notna().sum()

    assert charts(folder) == 3
    page = prose(folder)
    for line in response.sentences(shown):
        assert re.sub(r"\s+", " ", line) in page
    assert "Family of Holm's correction: 118 differences." in page


@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_gives_the_same_bytes(tmp_path, network, simulated):
    again = execute(tmp_path, "fr_calibration_sets", network=network, **QUICK, **SIMULATED)
    assert again.record["outcomes_sha256"] == simulated[0].record["outcomes_sha256"]
    assert again.table("responses").equals(simulated[0].table("responses"))


@pytest.mark.filterwarnings("ignore")
def test_bupt_calibrates_and_rfw_tests(tmp_path, network):
    pool = fr_trees.identity_tree(tmp_path / "bupt", people=4, count=4)
    test = fr_trees.rfw_tree(tmp_path / "rfw")
    sets = {"calibration_set": "bupt_balancedface", "calibration_root": str(pool), "n_pool": 64}
    sets |= {"eval_set": "rfw", "eval_root": str(test), "group_column": "race"}
    given = QUICK | sets | {"others": ["noise"], "precision": "w8a4", "network": network}
    found = execute(tmp_path, "fr_calibration_sets", **given)
    races = ["african", "asian", "caucasian", "indian"]
    own = found.table("responses").query("effect == 'own group' and metric == 'agreement'")
    assert own["group"].tolist() == [*races, "mean of groups"]
    assert found.table("sets")["composition"].unique().tolist() == [
        "balanced",
        *(f"only-{race}" for race in races),
        "noise",
    ]
    assert np.isfinite(own[["value", "low", "high", "p_holm"]]).all(axis=None)
    assert charts(tmp_path) == 3


def code_cells() -> list[str]:
    """The notebook's code, to be run here: a kernel takes longer to start than this to run."""
    notebook = nbformat.read(PROJECT / "notebooks" / "fr_calibration_sets.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def start(folder, parameters: dict) -> dict:
    page = {}
    exec(code_cells()[0], page)
    return page | parameters | {"out_dir": str(folder / "run"), "device": "cpu"}


@pytest.mark.filterwarnings("ignore")
def test_a_bin_that_names_no_groups(tmp_path, network):
    test = fr_files.benchmark(tmp_path / "lfw.bin")
    sets = {"eval_set": "lfw", "eval_root": str(test), "others": ["noise"], "n_pool": 32}
    page = start(tmp_path, QUICK | sets | {"network": network})
    for cell in code_cells()[1:]:
        exec(cell, page)
    shown = runs.read(tmp_path / "run").table("responses")
    assert set(shown["group"]) == {"everybody"}
    assert set(shown["effect"]) == {"level", "less balanced"}
    assert not page["between"] and "names no groups" in page["one_group"].data
    assert "share fewer than two groups" in page["said"][-2]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"precision": "w4"}, errors.NOTHING_TO_CALIBRATE.format(value="w4")),
        ({"precision": "w9a9"}, errors.BAD_PRECISION.format(value="w9a9")),
        ({"observer": "max"}, "Unknown observer 'max'"),
        ({"others": ["real"]}, "Unknown calibration source 'real'"),
        ({"draws": 1}, "draws must be at least 2, got 1"),
        ({"n_calibration": 0}, "n_calibration must be at least 1, got 0"),
        ({"resamples": 10}, "resamples must be at least 100, got 10"),
    ],
)
def test_mistakes_end_at_once_in_one_clear_sentence(tmp_path, parameters, message):
    page = start(tmp_path, parameters)
    with pytest.raises(errors.ParameterError, match=re.escape(message)):
        exec(code_cells()[1], page)
