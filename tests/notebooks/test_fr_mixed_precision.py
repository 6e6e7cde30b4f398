"""The chapter on mixed precision, by stock papermill: simulated people, and RFW weighed on BUPT."""

import numpy as np
import pandas as pd
import pytest
from papermill.exceptions import PapermillExecutionError

from studylib import errors, models
from tests.fixtures import fr_files, fr_trees
from tests.notebooks.test_chapters import charts, execute

TINY = {"n_spare": 16, "budgets": [2.5, 3], "widths": [2, 3, 8], "resamples": 100, "device": "cpu"}
PEOPLE = {"n_test_people": 80, "per_test_person": 3, "pairs_per_group": 60}
VARIANTS = ["w2a8", "w3a8", "w8a8", "mean-2.5", "mean-3", "worst-2.5", "worst-3"]
ADDED = ["w4a4", "w4a4-channels", "w4a8"]  # w2a8 is there already


@pytest.fixture
def network(tmp_path):
    """A small network with fresh weights, as a file that a training would leave."""
    about = {"depth": [1, 1, 1, 1], "width": 0.0625, "size": 32, "embedding": 16}
    model = models.build("iresnet", **about, seed=0).eval()
    (tmp_path / "tiny").mkdir()
    path = tmp_path / "tiny" / "network.safetensors"
    models.save(model, path, {"architecture": "iresnet", "settings": about})
    return str(path)


def widths(found) -> pd.DataFrame:
    """Bits by layer and setting, with each layer's share of the weights."""
    table = found.table("widths")
    return table.pivot(index="layer", columns="setting", values="bits")


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_simulated_people(tmp_path, network):
    found = execute(tmp_path, "fr_mixed_precision", network=network, **TINY, **PEOPLE)
    bits, weighed = widths(found), found.table("sensitivities")
    mixed = [v for v in bits if "-" in v]
    assert {"w2a8", "w3a8", "w8a8"} < set(bits) <= set(VARIANTS)
    scores = [c.removeprefix("score_tiny/") for c in found.outcomes if c.startswith("score_")]
    assert set(scores) == {"fp32", *bits, *ADDED}
    assert found.outcomes["score_tiny/fp32"].between(-1.001, 1.001).all()

    # each mixed setting keeps to its budget, and predicts no more than one width of as many bits
    share = found.table("widths").drop_duplicates("layer").set_index("layer")["share"]
    added = found.table("additivity").set_index("variant")
    for variant in mixed:
        objective, budget = variant.split("-")
        assert (bits[variant] * share).sum() <= float(budget) + 1e-9
        column = {"mean": "predicted", "worst": "predicted, worst group"}[objective]
        whole = "w2a8" if float(budget) < 3 else "w3a8"
        assert added.loc[variant, column] <= added.loc[whole, column] * (1 + 1e-6)
    losses = weighed.filter(regex="^loss_")
    assert list(losses) == ["loss_A", "loss_B", "loss_C", "loss_D"]
    alone = weighed[weighed["bits"] == 2][losses.columns].sum()
    assert added.loc["w2a8", "predicted"] == pytest.approx(alone.mean())
    assert added.loc["w2a8", "predicted, worst group"] == pytest.approx(alone.max())
    assert added.loc["w8a8", "measured"] < added.loc["w2a8", "measured"]

    sizes = found.table("described").set_index("variant")
    assert sizes.loc["w2a8", "packed_mb"] < sizes.loc[mixed[0], "packed_mb"]
    assert sizes["packed_mb"].idxmax() == "fp32"
    assert sizes.loc["w8a8", "all"] < sizes.loc["w2a8", "all"] < 1
    groups = sizes.loc["w2a8", list("ABCD")].astype(float)
    assert groups.mean() == pytest.approx(sizes.loc["w2a8", "all"], rel=0.05)
    assert charts(tmp_path) == 4
    check_differences(found)


def check_differences(found):
    """Hold the differences against the tables they are of, and p-values against Holm by hand."""
    differences = found.table("differences").set_index(["column", "reference", "metric"])
    rates = found.table("rates").set_index(["variant", "metric"])["value"]
    compared = set(differences.index.droplevel("metric"))
    bits = widths(found)
    mixed = {(v, "w3a8") for v in bits if "-" in v}  # the next whole width above either budget
    channels = {("w4a4-channels", "w4a4"), ("w4a8", "w4a4"), ("w2a8", "w4a4")}
    worst = {(v, v.replace("worst", "mean")) for v in bits if v.startswith("worst")}
    assert mixed | channels <= compared <= mixed | channels | worst
    for column, reference in compared:
        for metric in ("accuracy", "worst"):
            change = rates[column, metric] - rates[reference, metric]
            assert differences.loc[(column, reference, metric), "value"] == pytest.approx(change)
        moved = found.table("described").set_index("variant")["all"].astype(float)
        apart = differences.loc[(column, reference, "distance"), "value"]
        assert apart == pytest.approx(moved[column] - moved[reference], abs=1e-6)
    # the best accuracy at one threshold, tried at every score
    scored = found.outcomes
    scores, genuine = scored["score_tiny/w4a4"].to_numpy(), scored["genuine"].to_numpy()
    best = max(((scores >= t) == genuine).mean() for t in [*scores, np.inf])
    assert rates["w4a4", "accuracy"] == pytest.approx(best)
    assert (differences["p_holm"] >= differences["p"]).all()
    smallest = differences["p"].idxmin()
    held = min(1.0, differences["p"].min() * len(differences))
    assert differences.loc[smallest, "p_holm"] == pytest.approx(held)


@pytest.mark.filterwarnings("ignore")
def test_rfw_weighed_on_bupt(tmp_path, network):
    sets = {"eval_set": "rfw", "eval_root": str(fr_trees.rfw_tree(tmp_path / "rfw"))}
    root = fr_trees.identity_tree(tmp_path / "bupt")
    sets |= {"spare_set": "bupt_balancedface", "spare_root": str(root)}
    found = execute(tmp_path, "fr_mixed_precision", network=network, **TINY, **sets)
    groups = {"african", "asian", "caucasian", "indian"}
    losses = found.table("sensitivities").filter(regex="^loss_").columns
    assert {name.removeprefix("loss_") for name in losses} == groups
    assert groups < set(found.table("described"))
    assert found.outcomes.groupby("group").size().to_dict() == dict.fromkeys(groups, 60)


@pytest.mark.filterwarnings("ignore")
def test_spare_people_without_groups_and_one_budget_of_one_width(tmp_path, network):
    """Nobody's group is known, and every layer can only have 3 bits: nothing mixed is left."""
    sets = {"spare_set": "ms1mv2", "spare_root": str(fr_files.records_tree(tmp_path / "ms1mv2"))}
    given = TINY | {"budgets": [3], "widths": [3]}
    found = execute(tmp_path, "fr_mixed_precision", network=network, **given, **PEOPLE, **sets)
    assert list(found.table("sensitivities").filter(regex="^loss_")) == ["loss_all"]
    assert list(widths(found)) == ["w3a8"]
    assert set(found.table("differences")["reference"]) == {"w4a4"}
    assert charts(tmp_path) == 2
    assert "nothing to compare" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.filterwarnings("ignore")
def test_a_budget_below_the_narrowest_width_is_refused_at_once(tmp_path):
    given = TINY | {"budgets": [3, 1.5]}
    with pytest.raises(PapermillExecutionError) as caught:
        execute(tmp_path, "fr_mixed_precision", network="no such network", **given)
    assert errors.BAD_SIZE.format(what="budget", least=2, value=1.5) in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_test_set_without_groups_is_refused(tmp_path, network):
    bench = str(fr_files.benchmark(tmp_path / "lfw.bin"))
    with pytest.raises(PapermillExecutionError) as caught:
        execute(
            tmp_path, "fr_mixed_precision", network=network, **TINY, eval_set="lfw", eval_root=bench
        )
    assert errors.ONE_GROUP.format(source="lfw", group="everybody") in str(caught.value)
