import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans
from torch import nn
from torch.nn.utils import parametrize

from studylib import errors
from studylib.compress import cluster, weights

seeds, inits = st.integers(0, 10_000), st.sampled_from(cluster.INITS)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(seed=0):
    """A convolution, its normalisation, and linear layers, the last with only 6 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 2)),
    )


def train(model, steps=5, lr=0.01):
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr)
    x, labels = normal(1, 16, 1, 4, 4), torch.arange(16) % 2
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return model.eval()


def linear(values):
    """A layer with just these weights."""
    layer = nn.Linear(len(values), 1, bias=False)
    layer.weight.data = torch.as_tensor(values, dtype=torch.float32)[None]
    return nn.Sequential(layer)


def clustered(values, n, **options):
    return cluster.prepare(linear(values), n, **options)[0].weight.detach().flatten()


@settings(max_examples=20)
@given(seeds, st.integers(2, 40), inits)
def test_exactly_n_values_at_once_trained_and_loaded(tmp_path_factory, seed, n, init):
    model = cluster.prepare(network(seed), n, init=init, seed=seed)
    expected = [min(n, 36), min(n, 192), min(n, 6)]
    assert cluster.distinct(model)["distinct"].tolist() == expected
    train(model)
    assert cluster.distinct(model)["distinct"].tolist() == expected
    plain = weights.strip(model)
    assert cluster.distinct(plain)["distinct"].tolist() == expected
    path = tmp_path_factory.mktemp("clustered") / "net.safetensors"
    save_file(model.state_dict(), path)
    other = cluster.prepare(network(seed + 1).eval(), n)
    other.load_state_dict(load_file(path))
    x = normal(2, 5, 1, 4, 4)
    assert torch.equal(other(x), model(x)) and torch.equal(plain(x), model(x))
    for name, layer in weights.layers(other).items():
        assert torch.equal(layer.weight, plain.get_submodule(name).weight)


awkward = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, 1e-30, -3.0, 7.5, 3e38, -3e38]), min_size=1, max_size=30
)


@settings(max_examples=200)
@given(awkward, st.integers(3, 12), inits, st.booleans())
def test_repeated_and_extreme_weights_are_grouped_too(values, n, init, keep_zeros):
    found = clustered(values, n, init=init, keep_zeros=keep_zeros)
    original = torch.tensor(values)
    nonzero = int(original.count_nonzero())
    expected = min(n, len(values))
    if keep_zeros and nonzero < len(values):
        expected = min(n - 1, nonzero) + 1
        assert torch.equal(found == 0, original == 0)
    assert len(found.unique()) == expected and found.isfinite().all()
    if len(original.unique()) <= n - keep_zeros:
        assert torch.allclose(found, original, atol=1e-37)  # nothing had to be merged


@settings(max_examples=20)
@given(seeds, st.integers(3, 20), st.floats(0.1, 0.9), inits)
def test_pruned_weights_stay_zero_and_nothing_else_becomes_zero(seed, n, sparsity, init):
    pruned = network(seed)
    for layer in weights.layers(pruned).values():
        layer.weight.data *= torch.rand(layer.weight.shape) >= sparsity
    masks = {name: layer.weight == 0 for name, layer in weights.layers(pruned).items()}
    model = cluster.prepare(pruned, n, init=init, keep_zeros=True)
    for _ in range(2):
        for name, layer in weights.layers(model).items():
            zero = masks[name]
            assert torch.equal(layer.weight == 0, zero)
            most = n - bool(zero.any())
            distinct = min(most, int((~zero).sum())) + bool(zero.any())
            assert len(layer.weight.unique()) == distinct
        train(model, lr=0.5)  # steps as large as the weights, so that values cross zero


def test_zeros_move_unless_they_are_kept():
    values = [0.0] * 5 + [0.1, 0.2, -0.9, 1.0]
    assert clustered(values, 3).count_nonzero() == 9
    kept = clustered(values, 3, keep_zeros=True)
    assert torch.equal(kept[:5], torch.zeros(5))
    # One of the other values for each sign: the mean.
    assert kept[5:].tolist() == pytest.approx([1.3 / 3, 1.3 / 3, -0.9, 1.3 / 3])


def test_signs_share_the_values_in_proportion_and_none_is_lost_to_the_gap_between_them():
    values = torch.cat([torch.linspace(-2, -1, 30), torch.zeros(40), torch.linspace(1, 2, 90)])
    found = clustered(values, 9, keep_zeros=True)
    expected = [-2.0, -1.0, 0.0, *np.linspace(1, 2, 6)]
    assert found.unique().tolist() == pytest.approx(expected)
    assert torch.equal(found.sign(), values.sign())


def test_kept_zeros_survive_loading_into_a_network_that_was_not_pruned(tmp_path):
    pruned = network()
    pruned[4].weight.data[:, :40] = 0
    model = train(cluster.prepare(pruned, 8, keep_zeros=True))
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    other = cluster.prepare(network(1), 8)
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    train(other)
    assert int((other[4].weight == 0).sum()) == 120
    assert len(other[4].weight.unique()) == 8


def test_linear_starts_evenly_spaced_and_takes_the_nearest():
    values = [-1.0, -0.8, -0.4, 0.1, 0.2, 0.6, 1.0]
    # Centres -1, -1/3, 1/3, 1; cuts at -2/3, 0, 2/3.
    third = 1 / 3
    expected = [-1, -1, -third, third, third, third, 1]
    assert clustered(values, 4).tolist() == pytest.approx(expected)


def test_density_gives_every_value_an_equal_share():
    values = normal(0, 1000) ** 3  # heavy tails: evenly spaced values would be mostly unused
    found = clustered(values, 10, init="density")
    _, counts = found.unique(return_counts=True)
    assert counts.min() > 70 and counts.max() < 150
    expected = np.quantile(values.numpy(), np.linspace(0.05, 0.95, 10))
    assert found.unique().tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert clustered(values, 10).unique(return_counts=True)[1].max() > 500


def squared_error(values, n, **options):
    return (clustered(values, n, **options) - values).double().square().sum().item()


@settings(max_examples=30)
@given(seeds)
def test_kmeans_ends_at_means_of_the_nearest(seed):
    values = normal(seed, 500)
    found = clustered(values, 7, init="kmeans++", seed=seed)
    centres = found.unique()
    nearest = centres[(values[:, None] - centres).abs().argmin(1)]
    assert torch.equal(found, nearest)
    for centre in centres:
        assert values[found == centre].mean().item() == pytest.approx(centre.item(), abs=1e-6)
    assert squared_error(values, 7, init="kmeans++") < squared_error(values, 7)


def test_kmeans_equals_scikit_learns_from_the_same_start():
    """Lloyd's algorithm on sorted numbers against the general one."""
    values = normal(3, 2000).double().numpy()
    start = np.linspace(-2, 2, 12)
    theirs = KMeans(12, init=start[:, None], n_init=1, tol=0, max_iter=100).fit(values[:, None])
    ours = cluster._lloyd(np.sort(values), start)
    assert np.sort(theirs.cluster_centers_[:, 0]) == pytest.approx(ours, abs=1e-9)


def test_kmeans_finds_the_best_grouping_of_separate_lumps():
    lumps = torch.cat([normal(k, 8) * 0.01 + centre for k, centre in enumerate((-5, 0, 1, 9))])
    order = lumps.sort().values
    best = min(
        sum(part.var(correction=0).item() * len(part) for part in order.tensor_split(cuts))
        for cuts in itertools.combinations(range(1, 32), 3)
    )
    assert squared_error(lumps, 4, init="kmeans++") == pytest.approx(best, rel=1e-4)


def test_empty_groups_take_single_weights_at_their_own_value():
    values = torch.cat([torch.linspace(-0.1, 0.1, 50), torch.tensor([10.0])])
    found = clustered(values, 6)
    # Evenly spaced, -0.1 takes all but the outlier, and 1.92, 3.94, 5.96, 7.98 nothing.
    assert found[:46].tolist() == pytest.approx([-0.1] * 46)
    assert torch.equal(found[46:], values[46:])


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=25),
    st.lists(st.floats(-5, 45), min_size=1, max_size=25),
)
def test_a_group_holds_weights_nearest_to_it_or_a_single_one(ordered, centres):
    ordered, centres = np.sort(ordered).astype(float), np.sort(centres)[: len(ordered)]
    settled, cuts = cluster._assign(ordered, centres)
    assert cuts[0] == 0 and cuts[-1] == len(ordered) and (np.diff(cuts) > 0).all()
    for i, (start, end) in enumerate(itertools.pairwise(cuts)):
        group = ordered[start:end]
        nearest = np.abs(group[:, None] - centres).min(1)
        if not np.allclose(np.abs(group - settled[i]), nearest):
            assert len(group) == 1 and settled[i] == group[0]


def test_a_value_moves_by_the_sum_of_its_weights_gradients():
    plain = network()
    model = cluster.prepare(plain, 5)
    written = weights.strip(model)
    x = normal(4, 8, 1, 4, 4)
    for net in (model, written):
        net(x).square().sum().backward()
    for name, layer in weights.layers(model).items():
        shared = layer.parametrizations.weight
        gradient = written.get_submodule(name).weight.grad.flatten()
        expected = [gradient[shared[0].index == i].sum().item() for i in range(5)]
        assert shared.original.grad.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_pinned_zero_gets_no_gradient():
    model = cluster.prepare(linear([0.0, 0.0, 1.0, 2.0]), 3, keep_zeros=True)
    model(torch.ones(1, 4)).sum().backward()
    assert model[0].parametrizations.weight.original.grad.tolist() == [0, 1, 1]


def test_values_that_meet_are_told_apart_by_the_smallest_step():
    model = cluster.prepare(linear([1.0, 2.0, 3.0, 4.0, 5.0]), 4)
    with torch.no_grad():
        model[0].parametrizations.weight.original.fill_(2.0)
    found = model[0].weight.detach().unique()
    step = torch.finfo(torch.float32).eps * 2
    assert found.tolist() == [2.0, 2.0 + step, 2.0 + 2 * step, 2.0 + 3 * step]
    assert torch.equal(weights.strip(model)[0].weight, model[0].weight)


def test_a_pinned_zero_is_zero_whatever_is_done_to_its_value():
    model = cluster.prepare(linear([0.0, 0.0, 1.0, 2.0]), 3, keep_zeros=True)
    with torch.no_grad():
        model[0].parametrizations.weight.original.fill_(0.5)
    step = torch.finfo(torch.float32).eps / 2
    assert model[0].weight.tolist() == [[0.0, 0.0, 0.5, 0.5 + step]]


def test_groups_stay_and_other_parameters_train():
    model = cluster.prepare(network(), 5)
    before = [layer.parametrizations.weight[0].index.clone() for layer in layers(model)]
    start = [layer.parametrizations.weight.original.detach().clone() for layer in layers(model)]
    bias, norm = model[0].bias.detach().clone(), model[1].weight.detach().clone()
    train(model)
    for layer, index, values in zip(layers(model), before, start, strict=True):
        assert torch.equal(layer.parametrizations.weight[0].index, index)
        assert not torch.equal(layer.parametrizations.weight.original, values)
    assert not torch.equal(model[0].bias, bias) and not torch.equal(model[1].weight, norm)
    shapes = {tuple(p.shape) for p in model.parameters()}
    assert shapes == {(5,), (4,), (3,), (2,)}  # no kernel is left among the parameters


def layers(model):
    return list(weights.layers(model).values())


def test_the_original_is_left_alone_and_stripping_leaves_the_clustered():
    model = network()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    prepared = cluster.prepare(model, 4)
    plain = weights.strip(prepared)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert type(plain[0]) is nn.Conv2d and set(plain.state_dict()) == set(state)
    assert torch.equal(plain[1].weight, model[1].weight)
    assert parametrize.is_parametrized(prepared[0], "weight")
    train(prepared)
    assert plain.training and not prepared.training


def test_depthwise_kernels_are_left_alone():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1, groups=2))
    ready = cluster.prepare(model, 4)
    assert torch.equal(ready[0].weight, model[0].weight)
    assert cluster.distinct(ready).values.tolist() == [["1", 16, 4]]


def test_the_same_seed_repeats_bit_for_bit():
    def values(seed):
        model = train(cluster.prepare(network(), 6, init="kmeans++", seed=seed))
        return model[4].weight.detach()

    assert torch.equal(values(1), values(1))
    assert not torch.equal(values(1), values(2))


def test_what_cannot_be_clustered():
    with pytest.raises(errors.ParameterError, match="n must be at least 2, got 1"):
        cluster.prepare(network(), 1)
    with pytest.raises(errors.ParameterError, match="n must be at least 3, got 2"):
        cluster.prepare(network(), 2, keep_zeros=True)
    with pytest.raises(errors.ParameterError, match=r"Unknown init 'random'\. Choose one of: dens"):
        cluster.prepare(network(), 4, init="random")
    twice = errors.NOT_PLAIN.format(layer="0")
    with pytest.raises(errors.ParameterError) as caught:
        cluster.prepare(cluster.prepare(network(), 4), 4)
    assert str(caught.value) == twice
    broken = network()
    broken[4].weight.data[0, 0] = float("nan")
    with pytest.raises(errors.ParameterError) as caught:
        cluster.prepare(broken, 4)
    assert str(caught.value) == errors.WEIGHTS_NOT_FINITE.format(layer="4")
