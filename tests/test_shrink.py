"""Names of variants, and variants really made from a small trained network."""

import re

import numpy as np
import pytest
import torch

from studylib import errors, models, shrink, train
from studylib.compress import cluster, prune, quantize
from studylib.expressions import Parts
from studylib.synthetic import simfaces


@pytest.mark.parametrize(
    ("name", "method", "base", "control", "epochs"),
    [
        ("fp32", "baseline", "", "fp32", 0),
        ("ft2", "control", "fp32", "ft2", 2),
        ("w8", "quantised", "fp32", "fp32", 0),
        ("fp16", "float16", "fp32", "fp32", 0),
        ("w8a8", "static", "fp32", "fp32", 0),
        ("s50", "pruned", "fp32", "ft2", 2),
        ("s50g", "pruned", "fp32", "ft2", 2),
        ("s2of4", "pruned_2of4", "fp32", "ft2", 2),
        ("ch50", "channels", "fp32", "ft2", 2),
        ("c16", "clustered", "fp32", "ft3", 3),
        ("s90+w8", "pruned_and_quantised", "s90", "ft2", 2),
        ("c4+w8", "clustered_and_quantised", "c4", "ft3", 3),
        ("s50+c16", "pruned_and_clustered", "s50", "ft5", 5),
        ("s50+c16+w8", "pruned_clustered_and_quantised", "s50+c16", "ft5", 5),
    ],
)
def test_a_name_says_what_is_done_and_what_to_compare_with(name, method, base, control, epochs):
    variant = shrink.parse(name)
    assert variant[:5] == (name, method, base, control, epochs)


def test_numbers_in_a_name():
    assert shrink.parse("s30+c8+w8")[5:] == (0.3, 8, "w8")
    assert shrink.parse("s2of4").sparsity == 0.5
    assert shrink.parse("fp32")[5:] == (0.0, 0, "fp32")


def test_a_control_is_trained_as_long_as_what_it_controls():
    recipe = shrink.Recipe(prune_epochs=4, cluster_epochs=1)
    assert shrink.parse("s50+c16", recipe).control == "ft5"
    assert shrink.parse("c16", recipe).control == "ft1"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x9", "there is no part 'x9'"),
        ("", "there is no part ''"),
        ("w8+s50", "parts go from pruning"),
        ("s50+s60", "parts go from pruning"),
        ("s0", "there is no part 's0'"),
        ("s050", "there is no part 's050'"),
        ("ft2+w8", "parts go from pruning"),
        ("ft2+c16", "parts go from pruning"),
        ("s50+c2", "a pruned layer needs at least 3 clusters"),
        ("s100", "sparsity goes from 1 to 99, not 100"),
        ("c1", "clusters goes from 2 to 256, not 1"),
        ("ft1000", "epochs goes from 1 to 999, not 1000"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name, problem):
    text = errors.BAD_VARIANT.format(name=name, problem=problem)
    with pytest.raises(errors.ParameterError, match=re.escape(text.split(". Join")[0])):
        shrink.parse(name)


def test_nine_bits_are_refused_as_everywhere():
    with pytest.raises(errors.ParameterError, match="w9"):
        shrink.parse("s50+w9")


def test_expanding_adds_bases_and_controls_before_their_variants():
    names = [variant.name for variant in shrink.expand(["s50+c16+w8", "w8"])]
    assert names == ["fp32", "ft2", "s50", "ft5", "s50+c16", "s50+c16+w8", "w8"]
    assert [v.name for v in shrink.expand([])] == ["fp32"]


@pytest.fixture(scope="module")
def made():
    """Every method once, from one baseline trained for one epoch on 256 simulated faces."""
    faces = simfaces.faces(32, 8, size=32, seed=0)
    chosen_on = simfaces.faces(8, 8, size=32, seed=1)
    network = models.fer_cnn(len(faces.classes), 32, 0.125, pixels="unit", seed=0)
    train.fit(network, faces, chosen_on, epochs=1, seed=0)
    names = ["s50", "s70g", "s2of4", "ch50", "c8", "s50+c8", "s50+c8+w8", "c8+w8"]
    plan = shrink.expand([*names, "w8", "w8a8", "fp16", "w4"])
    networks, histories = {"fp32": network}, {}
    for variant in plan[1:]:
        networks[variant.name], histories[variant.name] = shrink.make(
            variant, networks[variant.base], faces, chosen_on, seed=0
        )
    return plan, networks, histories, chosen_on


def weights(network):
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    return [m.weight.detach() for m in network.modules() if isinstance(m, kinds)]


def test_pruned_variants_hold_exactly_the_asked_zeros(made):
    _, networks, _, _ = made
    for weight in weights(networks["s50"]):
        assert int((weight == 0).sum()) == round(0.5 * weight.numel())
    every = torch.cat([w.flatten() for w in weights(networks["s70g"])])
    assert int((every == 0).sum()) == round(0.7 * len(every))
    assert prune.sparsity(networks["s50"])["zeros"].sum() > 0


def test_clustered_variants_hold_exactly_the_asked_values(made):
    _, networks, _, _ = made
    for name in ("c8", "s50+c8"):
        for weight in weights(networks[name]):
            assert len(weight.unique()) == min(8, weight.numel())
    for weight in weights(networks["s50+c8"]):
        assert int((weight == 0).sum()) >= round(0.5 * weight.numel())
    assert (cluster.distinct(networks["c8"])["distinct"] <= 8).all()


def test_fine_tuned_variants_have_a_history_and_others_none(made):
    plan, _, histories, _ = made
    own = {v.name: v.epochs - shrink.parse(v.base).epochs for v in plan[1:]}
    assert {name: len(table) for name, table in histories.items()} == own


def test_every_variant_predicts(made):
    _, networks, _, faces = made
    for network in networks.values():
        rows = train.predict(network, faces)
        assert rows.shape == (len(faces), len(faces.classes))
        assert torch.allclose(rows.sum(1), torch.ones(len(faces)), atol=1e-5)


def test_making_variants_leaves_their_base_alone(made):
    _, networks, _, faces = made
    before = train.predict(networks["fp32"], faces)
    shrink.make(shrink.parse("s50"), networks["fp32"], faces, faces, seed=0)
    assert torch.equal(before, train.predict(networks["fp32"], faces))


def test_the_same_seed_makes_the_same_variant(made):
    _, networks, _, faces = made
    for name in ("c8", "s50", "ft2"):
        first, second = (
            shrink.make(shrink.parse(name), networks["fp32"], faces, faces, seed=3)[0]
            for _ in range(2)
        )
        for one, other in zip(weights(first), weights(second), strict=True):
            assert torch.equal(one, other)


def test_a_growing_sparsity_ends_at_the_asked_one(made):
    _, networks, _, faces = made
    recipe = shrink.Recipe(schedule="polynomial", batch_size=8)
    network, _ = shrink.make(
        shrink.parse("s60"), networks["fp32"], faces, faces, recipe=recipe, seed=0
    )
    for weight in weights(network):
        assert int((weight == 0).sum()) == round(0.6 * weight.numel())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (shrink.Recipe(schedule="sudden"), "Unknown pruning schedule 'sudden'"),
        (shrink.Recipe(init="random"), "Unknown cluster initialisation 'random'"),
    ],
)
def test_an_unknown_recipe_is_refused_before_anything_is_trained(recipe, message):
    with pytest.raises(errors.ParameterError, match=message):
        shrink.expand(["s60"], recipe)


def test_compressing_without_training_leaves_the_other_weights(made):
    _, networks, _, faces = made
    plan = shrink.expand(["s50", "c8"], shrink.UNTRAINED)
    assert [v.control for v in plan] == ["fp32"] * 3
    made_now, histories = shrink.make_all(
        plan, networks["fp32"], Parts(faces, faces, faces), recipe=shrink.UNTRAINED
    )
    assert histories == {}
    for before, after in zip(weights(networks["fp32"]), weights(made_now["s50"]), strict=True):
        kept = after != 0
        assert torch.equal(before[kept], after[kept])


def test_faces_sorted_by_class_calibrate_with_all_classes(made, monkeypatch):
    _, networks, _, faces = made
    ordered = faces.take(np.argsort(faces.table["label"].to_numpy(), kind="stable"))
    seen = []
    monkeypatch.setattr(shrink, "CALIBRATION_FACES", 28)
    monkeypatch.setattr(quantize, "calibrate", lambda network, images: seen.append(images))
    shrink.make(shrink.parse("w8a8"), networks["fp32"], ordered, ordered, seed=0)
    found = [(ordered.images == image).flatten(1).all(1).nonzero()[0, 0] for image in seen[0]]
    assert len(found) == 28
    assert ordered.table["label"].iloc[[int(k) for k in found]].nunique() == 7


def test_the_description_counts_and_sizes(made):
    plan, networks, _, _ = made
    table = shrink.describe(plan, networks).set_index("variant")
    assert list(table.index) == [v.name for v in plan]
    assert table.loc["s50", "nonzero"] < table.loc["fp32", "nonzero"]
    assert table.loc["ch50", "parameters"] < table.loc["fp32", "parameters"]
    assert table.loc["s50", "parameters"] == table.loc["fp32", "parameters"]
    packed = table["packed_mb"]
    assert packed["s50+c8"] < packed["c8"] < packed["w8"] < packed["fp16"] < packed["fp32"]
    assert packed["s50+c8+w8"] < packed["w8"]
    assert np.isfinite(table[["nominal_mb", "packed_mb", "zip_mb"]].to_numpy()).all()
