import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from studylib import errors
from studylib.compress import mixed, quantize, size


def table(layers, widths, losses, counts):
    """Rows as `sensitivities` gives them; losses (layers, widths, groups)."""
    rows = [
        {"layer": f"l{i}", "weights": counts[i], "bits": bits}
        | {f"loss_{g}": loss for g, loss in enumerate(losses[i][j])}
        for i in range(layers)
        for j, bits in enumerate(widths)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


@pytest.fixture
def images():
    return torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@st.composite
def problems(draw):
    layers, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    widths = draw(st.lists(st.integers(2, 8), min_size=1, max_size=4, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    losses = rng.normal(0.1, 0.2, (layers, len(widths), groups)) * 10.0 ** rng.integers(-6, 3)
    counts = rng.integers(1, 5_000, layers)
    least, most = counts.sum() * min(widths), counts.sum() * max(widths)
    budget = least + draw(st.floats(0, 1)) * (most - least)
    return table(layers, widths, losses, counts), losses, counts, widths, budget


def best_by_trying_all(losses, counts, widths, budget, objective):
    """The least objective over every choice of widths within the budget."""
    found = []
    for choice in itertools.product(range(len(widths)), repeat=len(counts)):
        cost = sum(int(n) * widths[j] for n, j in zip(counts, choice, strict=True))
        total = sum(losses[i, j] for i, j in enumerate(choice))
        found += [total.max() if objective == "worst" else total.mean()] if cost <= budget else []
    return min(found)


@settings(max_examples=80)
@given(problems(), st.sampled_from(mixed.OBJECTIVES))
def test_no_choice_within_the_budget_is_better(problem, objective):
    rows, losses, counts, widths, budget = problem
    chosen = mixed.allocate(rows, budget, objective=objective)
    assert list(chosen) == [f"l{i}" for i in range(len(counts))]
    assert sum(n * chosen[f"l{i}"] for i, n in enumerate(counts)) <= budget
    total = sum(losses[i, widths.index(bits)] for i, bits in enumerate(chosen.values()))
    value = total.max() if objective == "worst" else total.mean()
    best = best_by_trying_all(losses, counts, widths, budget, objective)
    assert value == pytest.approx(best, rel=1e-6, abs=1e-6 * np.abs(losses).max())


def test_the_group_that_loses_most_is_protected():
    losses = np.array([[[0, 0], [0.0, 5.0]], [[0, 0], [6.0, 0.0]], [[0, 0], [3.5, 3.5]]])
    rows = table(3, [8, 2], losses, [10, 10, 10])
    mean = mixed.allocate(rows, 8 * 20 + 2 * 10)  # one of the three has to give way
    worst = mixed.allocate(rows, 8 * 20 + 2 * 10, objective="worst")
    assert mean == {"l0": 2, "l1": 8, "l2": 8} and worst == {"l0": 8, "l1": 8, "l2": 2}


@pytest.mark.parametrize("objective", mixed.OBJECTIVES)
def test_a_large_network_fits_its_budget_exactly(objective):
    """The sizes of an iresnet100: 10^8 bits, where a solver's tolerance could let some slip."""
    rng = np.random.default_rng(0)
    counts = [1728, *rng.choice([36_864, 147_456, 589_824, 2_359_296], 100), 12_845_056]
    losses = rng.exponential(1, (len(counts), 6, 4)) / 4.0 ** np.array(mixed.BITS)[:, None]
    rows = table(len(counts), mixed.BITS, losses, counts)
    previous = np.inf
    for bits in (2, 4.5):
        chosen = mixed.allocate(rows, bits * sum(counts), objective=objective)
        used = sum(n * b for n, b in zip(counts, chosen.values(), strict=True))
        assert 0.999 * bits * sum(counts) < used <= bits * sum(counts)
        places = [mixed.BITS.index(b) for b in chosen.values()]
        total = losses[np.arange(len(counts)), places].sum(0)
        value = total.max() if objective == "worst" else total.mean()
        uniform = losses[:, mixed.BITS.index(int(bits)), :].sum(0)
        assert value < previous
        assert value <= (uniform.max() if objective == "worst" else uniform.mean()) * (1 + 1e-9)
        previous = value


def test_too_small_a_budget():
    rows = table(2, [8, 3], np.zeros((2, 2, 1)), [1000, 10])
    with pytest.raises(errors.ParameterError) as caught:
        mixed.allocate(rows, 3029.9)
    assert str(caught.value) == errors.SMALL_BUDGET.format(budget=3029, least=3030)
    assert mixed.allocate(rows, 3030) == {"l0": 3, "l1": 3}


def test_unknown_objective():
    with pytest.raises(errors.ParameterError, match="Unknown objective 'best'"):
        mixed.allocate(table(1, [8], np.zeros((1, 1, 1)), [4]), 100, objective="best")


def test_sensitivities_round_one_layer_at_a_time(network, images):
    exact = network(images)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def evaluate(changed):
        distance = (changed(images) - exact).square().mean(1)
        return {"first": distance[:2].mean(), "rest": distance[2:].mean()}

    found = mixed.sensitivities(network, evaluate, bits=(8, 4, 2))
    assert list(found) == ["layer", "weights", "bits", "loss_first", "loss_rest"]
    assert found["layer"].tolist() == [n for n in ("0", "2", "4") for _ in range(3)]
    assert found["weights"].tolist() == [36] * 3 + [72] * 3 + [24] * 3
    for row in found.itertuples():
        alone = mixed.prepare(network, {n: row.bits for n in ("0", "2", "4")})
        for name in {"0", "2", "4"} - {row.layer}:
            alone.get_submodule(name).parametrizations.weight[0] = nn.Identity()
        assert evaluate(alone)["rest"].item() == pytest.approx(row.loss_rest, rel=1e-4)
    assert found.groupby("layer")["loss_first"].is_monotonic_increasing.all()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_losses_are_what_rounding_adds(network, images):
    def evaluate(changed):
        return changed(images).square().mean() + 7

    found = mixed.sensitivities(network, evaluate, bits=(8, 2))
    assert list(found.columns[3:]) == ["loss_all"]
    assert found["loss_all"].abs().max() < 0.5 and found["loss_all"].abs().min() > 0


@pytest.mark.parametrize("later", [{"all": np.nan}, {"men": 1.0}, {}])
def test_losses_that_cannot_be_compared(network, later):
    losses = iter([{"all": 0.0}, later])
    with pytest.raises(errors.ParameterError) as caught:
        mixed.sensitivities(network, lambda _: next(losses))
    assert str(caught.value) == errors.BAD_LOSS.format(layer="0", bits=8, value=later)


@pytest.mark.parametrize("first", [{"all": np.inf}, {}])
def test_a_full_precision_loss_that_cannot_be_compared(network, first):
    with pytest.raises(errors.ParameterError) as caught:
        mixed.sensitivities(network, lambda _: first)
    assert str(caught.value) == errors.BAD_LOSS.format(layer=mixed.WHOLE, bits=32, value=first)


def test_each_layer_has_its_own_width(network, images, tmp_path):
    bits = {"0": 8, "2": 2, "4": 3}
    ready = mixed.prepare(network, bits, activations=4, symmetric=False)
    quantize.calibrate(ready, images)
    fixed = quantize.finish(ready)
    for name, width in bits.items():
        uniform = quantize.finish(quantize.prepare(network, f"w{width}"))
        assert torch.equal(fixed.get_submodule(name).weight, uniform.get_submodule(name).weight)
    assert quantize.activation_quantizers(ready)[0].bits == 4
    path = tmp_path / "mixed.safetensors"
    size.save_packed(ready, path)
    assert torch.equal(size.load_packed(path, ready)(images), fixed(images))


def test_without_a_width_for_activations_they_stay(network):
    ready = mixed.prepare(network, dict.fromkeys(("0", "2", "4"), 4))
    assert quantize.activation_quantizers(ready) == []
    assert torch.equal(ready[1].weight, network[1].weight)


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ({"0": 8, "2": 8}, errors.NO_BITS.format(layer="4")),
        ({"0": 8, "2": 8, "4": 8, "1": 8}, errors.NO_BITS.format(layer="1")),
        ({"0": 8, "2": 9, "4": 8}, errors.BAD_BITS.format(bits=9)),
    ],
)
def test_widths_that_do_not_fit_the_network(network, bits, message):
    with pytest.raises(errors.ParameterError) as caught:
        mixed.prepare(network, bits)
    assert str(caught.value) == message
