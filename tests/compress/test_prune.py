import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

from studylib import errors
from studylib.compress import prune, quantize, weights
from studylib.models.fer_cnn import fer_cnn, parameter_count
from tests.compress.test_quantize import Tiny, normal

seeds, shares = st.integers(0, 10_000), st.floats(0, 0.99)


def chain(seed=0):
    """A network like fer_cnn, small: 8 px, 1 channel, 5 classes."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Dropout(0.25), nn.Flatten()),
        *(nn.Linear(12 * 4, 16), nn.BatchNorm1d(16), nn.ReLU()),
        nn.Linear(16, 5),
    )
    network(normal(1, 32, 1, 8, 8))  # statistics of batch normalisation unlike those of a new one
    return network.eval()


def zeros(model):
    return prune.sparsity(model).set_index("layer")["zeros"].to_dict()


def train(model, steps, after_step, lr=0.05):
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        model(normal(step, 16, 1, 8, 8)).square().sum().backward()
        optimiser.step()
        after_step(step)


def test_constant_schedule():
    schedule = prune.constant(0.3, begin=10, every=5)
    updates = {step: schedule(step) for step in range(22) if schedule(step) is not None}
    assert updates == {10: 0.3, 15: 0.3, 20: 0.3}


def test_polynomial_schedule():
    """s_f + (s_i - s_f) (1 - t)^3 at the steps that are due, and s_f at the last one."""
    schedule = prune.polynomial(0.9, steps=110, initial=0.5, begin=10, every=40)
    updates = {step: schedule(step) for step in range(135) if schedule(step) is not None}
    assert list(updates) == [10, 50, 90, 110, 130]
    assert list(updates.values()) == pytest.approx(
        [0.5, 0.9 - 0.4 * 0.6**3, 0.9 - 0.4 * 0.2**3, 0.9, 0.9]
    )
    assert schedule(110) == 0.9
    even = prune.polynomial(0.8, steps=100, every=1, power=1)
    assert even(25) == pytest.approx(0.2)


@pytest.mark.parametrize("value", [-0.1, 1.0, 90, float("nan")])
def test_sparsity_must_be_below_one(value):
    text = errors.BAD_RATE.format(what="sparsity", value=value)
    for ask in (
        lambda: prune.constant(value),
        lambda: prune.polynomial(value, steps=10),
        lambda: prune.update(prune.prepare(chain()), value),
    ):
        with pytest.raises(errors.ParameterError) as caught:
            ask()
        assert str(caught.value) == text
    with pytest.raises(errors.ParameterError, match="share is a rate"):
        prune.channels(chain(), value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: prune.polynomial(0.5, steps=5, begin=5), "steps must be at least 6, got 5"),
        (lambda: prune.constant(0.5, every=0), "every must be at least 1, got 0"),
        (lambda: prune.constant(0.5, begin=-1), "begin must be at least 0, got -1"),
        (lambda: prune.polynomial(0.5, steps=9, initial=1.5), "initial is a rate"),
        (lambda: prune.prepare(chain(), scope="row"), "Unknown scope 'row'"),
        (lambda: prune.prepare(chain(), pattern="1:4"), "Unknown pattern '1:4'"),
    ],
)
def test_bad_parameters(make, text):
    with pytest.raises(errors.ParameterError, match=text):
        make()


@settings(max_examples=20, deadline=None)
@given(seeds, shares)
def test_every_layer_has_exactly_the_asked_zeros(seed, sparsity):
    """Also where all magnitudes are equal; and what stays is never smaller than what goes."""
    model = chain(seed)
    nn.init.constant_(model[-1].weight, -0.25)
    ready = prune.prepare(model)
    prune.update(ready, sparsity)
    counts = {"0": 72, "4": 864, "10": 768, "13": 80}
    wanted = {name: min(round(sparsity * n), n - 1) for name, n in counts.items()}
    assert zeros(ready) == {**wanted, "total": sum(wanted.values())}
    for name in counts:
        before, after = model[int(name)].weight, ready[int(name)].weight
        gone, stays = before[after == 0].abs(), before[after != 0].abs()
        assert torch.equal(after[after != 0], before[after != 0])
        assert not len(gone) or gone.max() <= stays.min()


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0, 0.95))
def test_masks_are_those_of_torch(seed, sparsity):
    ours = prune.prepare(model := chain(seed))
    prune.update(ours, sparsity)
    layers = [(model[i], "weight") for i in (0, 4, 10, 13)]
    for layer, name in layers:
        torch_prune.l1_unstructured(layer, name, round(sparsity * layer.weight.numel()))
    assert all(torch.equal(ours[i].weight, model[i].weight) for i in (0, 4, 10, 13))

    ours = prune.prepare(model := chain(seed), scope="global")
    prune.update(ours, sparsity)
    layers = [(model[i], "weight") for i in (0, 4, 10, 13)]
    method = torch_prune.L1Unstructured
    torch_prune.global_unstructured(layers, method, amount=round(sparsity * 1784))
    assert all(torch.equal(ours[i].weight, model[i].weight) for i in (0, 4, 10, 13))


def test_globally_equal_magnitudes_go_in_order():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)).requires_grad_(False)
    for layer in model:
        layer.weight.fill_(-2.0)
    ready = prune.prepare(model, scope="global")
    prune.update(ready, 0.5)
    assert ready[0].weight.tolist() == [[0, 0], [0, 0]]
    assert ready[1].weight.tolist() == [[0, -2], [-2, -2], [-2, -2]]
    assert not torch.signbit(ready[0].weight).any()


@pytest.mark.parametrize("scope", prune.SCOPES)
def test_zeros_stay_exact_while_training(scope):
    """After every step, also where a sparsity grows and momentum moves what was pruned."""
    ready = prune.prepare(chain().train(), scope=scope)
    schedule = prune.polynomial(0.8, steps=20, initial=0.2, every=4)
    total, wanted, before = 1784, [], None

    def follow(step):
        nonlocal before
        if (sparsity := schedule(step)) is not None:
            prune.update(ready, sparsity)
            wanted.append(sparsity)
        if scope == "global":
            assert zeros(ready)["total"] == round(wanted[-1] * total)
        else:
            assert zeros(ready)["4"] == round(wanted[-1] * 864)
        gone = ready[4].weight == 0
        assert before is None or gone[before].all()  # what is pruned stays pruned
        before = gone

    follow(0)
    train(ready, 24, follow)
    assert wanted[0] == 0.2 and wanted[-1] == 0.8 and len(wanted) == 7


def test_masked_weights_get_no_gradient_and_others_theirs():
    ready = prune.prepare(chain())
    prune.update(ready, 0.5)
    plain = weights.strip(ready)
    x = normal(0, 8, 1, 8, 8)
    ready(x).square().sum().backward()
    plain(x).square().sum().backward()
    got, mask = ready[4].parametrizations.weight.original.grad, ready[4].weight != 0
    assert got[~mask].eq(0).all() and torch.equal(got[mask], plain[4].weight.grad[mask])


def test_a_zero_that_was_kept_goes_after_the_pruned():
    ready = prune.prepare(nn.Sequential(nn.Linear(4, 1)).requires_grad_(False))
    original = ready[0].parametrizations.weight.original
    original.copy_(torch.tensor([[3.0, 2.0, 4.0, 1.0]]))
    prune.update(ready, 0.25)
    original.copy_(torch.tensor([[0.0, 2.0, 4.0, 9.0]]))
    prune.update(ready, 0.25)
    assert ready[0].weight.tolist() == [[0, 2, 4, 0]]
    assert ready[0].parametrizations.weight[0].mask.tolist() == [[True, True, True, False]]


def test_masks_survive_a_file(tmp_path):
    ready = prune.prepare(chain())
    prune.update(ready, 0.7)
    save_file(ready.state_dict(), tmp_path / "net.safetensors")
    other = prune.prepare(chain(1))
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    x = normal(0, 4, 1, 8, 8)
    assert torch.equal(other(x), ready(x))
    train(other.train(), 2, lambda step: None)
    assert zeros(other) == zeros(ready)
    with pytest.raises(errors.ParameterError, match=r"sparsity of 0\.5 is below"):
        prune.update(other, 0.5)


def test_a_refused_update_changes_nothing():
    ready = prune.prepare(chain(), scope="global")
    prune.update(ready, 0.6)
    before = copy.deepcopy(ready.state_dict())
    with pytest.raises(errors.ParameterError) as caught:
        prune.update(ready, 0.59)
    assert str(caught.value) == errors.SPARSITY_FELL.format(value=0.59)
    assert all(torch.equal(before[key], value) for key, value in ready.state_dict().items())


def test_preparing_and_stripping_leave_the_network_as_it_was():
    model = chain()
    before, x = copy.deepcopy(model.state_dict()), normal(0, 4, 1, 8, 8)
    ready = prune.prepare(model)
    assert torch.equal(ready(x), model(x))  # masks are open
    prune.update(ready, 0.9)
    plain = weights.strip(ready)
    assert torch.equal(plain(x), ready(x)) and not torch.equal(plain(x), model(x))
    assert set(plain.state_dict()) == set(before)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert type(plain[0]) is nn.Conv2d and "parametrizations" in str(ready)


def test_biases_norms_and_depthwise_kernels_are_not_pruned():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
    ready = prune.prepare(model)
    prune.update(ready, 0.75)
    plain = weights.strip(ready).state_dict()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, plain[k])}
    assert changed == {"1.weight"}
    assert prune.sparsity(ready)["layer"].tolist() == ["1", "total"]
    assert prune.sparsity(ready)["sparsity"].tolist() == [0.75, 0.75]
    assert prune.sparsity(nn.Sequential(nn.Linear(3, 4)))["zeros"].tolist() == [0, 0]


def test_two_of_every_four_inputs():
    model = chain()
    ready = prune.prepare(model, pattern="2:4")
    prune.update(ready, 0.5)
    prune.update(ready, 0.5)
    assert zeros(ready) == {"0": 0, "4": 432, "10": 384, "13": 40, "total": 856}  # 0: one input
    for layer, before in ((ready[4], model[4]), (ready[13], model[13])):
        after = layer.weight.detach().movedim(1, -1).reshape(-1, 4)
        whole = before.weight.detach().movedim(1, -1).reshape(-1, 4)
        assert ((after != 0).sum(1) == 2).all()
        assert torch.equal(after.abs().sum(1), whole.abs().topk(2).values.sum(1))
    with pytest.raises(errors.ParameterError) as caught:
        prune.update(ready, 0.6)
    assert str(caught.value) == errors.FIXED_SPARSITY.format(value=0.6)
    equal = nn.Sequential(nn.Linear(8, 1)).requires_grad_(False)
    equal[0].weight.fill_(1.0)
    prune.update(ready := prune.prepare(equal, pattern="2:4"), 0.5)
    assert ready[0].weight.tolist() == [[0, 0, 1, 1, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: prune.update(chain(), 0.5),
        lambda: prune.prepare(nn.Sequential(nn.ReLU())),
        lambda: prune.prepare(nn.Sequential(nn.Linear(6, 2)), pattern="2:4"),
        lambda: prune.update(quantize.prepare(chain(), "w8"), 0.5),
    ],
)
def test_nothing_to_prune(ask):
    with pytest.raises(errors.ParameterError) as caught:
        ask()
    assert str(caught.value) == errors.NO_MASKS


def test_pruned_networks_can_be_quantised_in_either_form():
    ready = prune.prepare(chain())
    prune.update(ready, 0.5)
    both = quantize.prepare(ready, "w8", symmetric=True)
    plain = quantize.prepare(weights.strip(ready), "w8", symmetric=True)
    x = normal(0, 4, 1, 8, 8)
    assert torch.equal(both(x), plain(x))
    assert all(zeros(plain)[name] >= count for name, count in zeros(ready).items())


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0, 0.99))
def test_fewer_channels(seed, share):
    """What is left computes what the whole network would with the other channels silenced."""
    model = chain(seed)
    small = prune.channels(model, share)
    kept = [n - min(round(share * n), n - 1) for n in (8, 12, 16)]
    assert [small[i].weight.shape[0] for i in (0, 4, 10, 13)] == [*kept, 5]
    assert [small[i].weight.shape[1] for i in (0, 4, 10, 13)] == [
        1,
        *kept[:1],
        4 * kept[1],
        kept[2],
    ]
    assert (small[4].in_channels, small[4].out_channels) == (kept[0], kept[1])
    assert (small[10].in_features, small[10].out_features) == (4 * kept[1], kept[2])
    assert [small[i].num_features for i in (1, 5, 11)] == kept
    silenced = copy.deepcopy(model).requires_grad_(False)
    for i in (1, 5, 11):  # a channel that batch normalisation scales to zero is not there
        norm, first = silenced[i], small[i].running_mean
        stays = torch.isin(norm.running_mean, first)
        norm.weight.mul_(stays), norm.bias.mul_(stays)
    x = normal(seed, 4, 1, 8, 8)
    assert torch.allclose(small(x), silenced(x), atol=1e-5)
    small.train()(x).sum().backward()  # and it can be fine-tuned
    assert small[4].weight.grad.shape == small[4].weight.shape


def test_half_of_a_networks_channels_is_the_network_of_half_the_width():
    small = prune.channels(fer_cnn(8, 48, 0.25), 0.5)
    assert parameter_count(small) == parameter_count(fer_cnn(8, 48, 0.125))
    faces = torch.randint(0, 256, (2, 1, 48, 48), generator=torch.Generator().manual_seed(0))
    assert small.eval()(faces.byte()).shape == (2, 8)
    assert [n for n, _ in small.named_modules()] == [n for n, _ in fer_cnn(8, 48).named_modules()]


def test_the_weakest_channels_go_and_those_that_only_they_fed():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.1], [-3.0]]))
        model[2].weight.copy_(torch.tensor([[9.0, 1.0], [0.0, -2.0]]))
    small = prune.channels(model, 0.5)
    assert small[0].weight.tolist() == [[-3.0]]
    assert small[2].weight.tolist() == [[-2.0]]  # 9 belonged to an input that is gone
    assert model[2].weight.shape == (2, 2) and all(p.requires_grad for p in small.parameters())


def test_no_share_changes_nothing():
    model = chain()
    same = prune.channels(model, 0.0).state_dict()
    assert list(same) == list(model.state_dict())
    assert all(torch.equal(same[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "name", "kind"),
    [
        (Tiny(), "act", "PReLU"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(3)), "1", "BatchNorm2d"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4)), "1", "Conv2d"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(6, 2)), "1", "Linear"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(8, 2, 3)), "1", "Conv2d"),
        (prune.prepare(chain()), "0.parametrizations.weight.0", "Mask"),
    ],
)
def test_channels_need_a_chain(model, name, kind):
    with pytest.raises(errors.ParameterError) as caught:
        prune.channels(model, 0.5)
    assert str(caught.value) == errors.NOT_A_CHAIN.format(name=name, kind=kind)
