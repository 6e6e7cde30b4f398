"""The chapter on AdaFace fed with normalised embeddings, by stock papermill."""

import re

import numpy as np
import papermill
import pytest

from studylib import errors
from studylib.metrics import thresholds
from tests.fixtures import fr_files, fr_trees
from tests.notebooks.test_chapters import charts, execute

TINY = {
    "settings": {"depth": [1, 1, 1, 1], "width": 0.0625, "embedding": 16},
    "size": 32,
    "steps": 3,
    "training_seeds": [0, 1],
    "epochs": 1,
    "batch_size": 8,
    "milestones": [],
    "resamples": 100,
    "device": "cpu",
}
PEOPLE = {"n_people": 16, "per_person": 3, "n_test_people": 80, "per_test_person": 3}
SIMULATED = TINY | PEOPLE | {"pairs_per_group": 60}
HEADS = ("as_released", "cosface", "adaface")


def prose(folder):
    return re.sub(r'",\s*"', "", (folder / "out.ipynb").read_text())


@pytest.mark.filterwarnings("ignore")  # papermill's and Jupyter's own
def test_as_released_it_is_cosface(tmp_path):
    found = execute(tmp_path, "kd_adaface", **SIMULATED)
    quality = found.table("quality").set_index("embeddings")
    assert quality.loc["normalised", ["least q", "largest q"]].abs().max() < 1e-3
    assert quality.loc["as they are", "largest q"] > 0.1
    apart = found.table("first_logits").set_index("head")["largest difference from cosface"]
    assert apart["cosface"] == 0 and apart["as released"] < 1e-4 < 1e-3 < apart["adaface"]
    steps = found.table("steps")
    assert steps["step"].tolist() == [1, 2, 3]
    assert steps["apart, as released"].max() < 1e-3 < steps["apart, adaface"].min()
    np.testing.assert_allclose(steps["loss, as released"], steps["loss, cosface"], rtol=1e-4)
    settling = found.table("settling").set_index("steps")["q"]
    # (1 - 20) 0.99 / (100 0.99 + 0.001), times 0.333: a constant until the spread is 0.001
    assert settling[1] == pytest.approx((1 - (1 + 19 * 0.99)) / (99 + 1e-3) * 0.333)
    assert abs(settling[2000]) < 1e-4 < 0.06 < abs(settling[500])

    outcomes = found.outcomes
    names = [f"seed {k}/{head}" for k in (0, 1) for head in HEADS]
    assert {c for c in outcomes if c.startswith("score_")} == {f"score_{name}" for name in names}
    group = outcomes["group"].astype("category").cat.codes.to_numpy(np.int64)
    genuine = outcomes["genuine"].to_numpy()
    accuracy = {}
    for name in names:
        scores = outcomes[f"score_{name}"].to_numpy(float)
        accepted = thresholds.decide("global_best_accuracy", scores, genuine, group).accepted
        accuracy[name] = (accepted == genuine).mean()
    changed = found.table("changed").query("metric == 'accuracy'").set_index("column")["value"]
    for head in ("cosface", "adaface"):
        each = [accuracy[f"seed {k}/{head}"] - accuracy[f"seed {k}/as_released"] for k in (0, 1)]
        assert changed[head] == pytest.approx(np.mean(each))
        assert f"- **{head}** minus as released: {100 * np.mean(each):+.2f} points" in prose(
            tmp_path
        )
    correlation = outcomes[[f"score_{name}" for name in names]].corr()
    agreement = found.table("agreement").set_index("compared")["mean"]
    two = [correlation.loc[f"score_seed 0/{h}", f"score_seed 1/{h}"] for h in HEADS]
    assert agreement["two seeds"] == pytest.approx(np.mean(two))
    assert len(found.table("history")) == 6
    assert charts(tmp_path) == 1


@pytest.mark.filterwarnings("ignore")
def test_identities_and_rfw_in_their_own_layouts(tmp_path):
    sets = {"data_set": "bupt_balancedface", "eval_set": "rfw", "training_seeds": [4]}
    sets["data_root"] = str(fr_trees.identity_tree(tmp_path / "bupt"))
    sets["eval_root"] = str(fr_trees.rfw_tree(tmp_path / "rfw"))
    found = execute(tmp_path, "kd_adaface", **TINY | sets)
    assert found.outcomes.groupby("group").size().tolist() == [60] * 4
    assert found.table("changed")["networks"].eq(1).all()
    assert "two seeds" not in set(found.table("agreement")["compared"])
    assert "another training" in prose(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_mistakes_end_in_one_clear_sentence(tmp_path):
    no_groups = {"eval_set": "lfw", "eval_root": str(fr_files.benchmark(tmp_path / "lfw.bin"))}
    one_group = errors.ONE_GROUP.format(source="lfw", group="everybody")
    none = errors.BAD_SIZE.format(what="training_seeds", least=1, value=0)
    for changes, message in ((no_groups, one_group), ({"training_seeds": []}, none)):
        with pytest.raises(papermill.PapermillExecutionError) as caught:
            execute(tmp_path, "kd_adaface", **SIMULATED | changes)
        assert caught.value.evalue == message
        assert not (tmp_path / "run" / "run.json").exists()
