import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors
from studylib.compress import quantize, reconstruct, size, weights
from studylib.layers import Add

EVERYWHERE = 10**6  # rows: more than there are places


class Tiny(nn.Module):
    """Layers with and without bias and normalisation, of several shapes, and a residual sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.stem_norm, self.act = nn.BatchNorm2d(8), nn.PReLU(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 8, 3, padding="same", dilation=2)
        self.add = Add()
        self.loose = nn.Conv2d(8, 4, 1, bias=False)
        self.fc = nn.Linear(4 * 36, 5)

    def forward(self, x):
        x = self.act(self.stem_norm(self.stem((x.float() - 127.5) / 128)))
        x = self.add(self.wide(self.depthwise_norm(self.depthwise(x))), x)
        return self.fc(self.loose(x).flatten(1))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    model = Tiny().eval()
    for norm in (model.stem_norm, model.depthwise_norm):
        norm.weight.data = torch.rand(8) + 0.5
        norm.bias.data, norm.running_mean = torch.randn(8) / 2, torch.randn(8) / 4
        norm.running_var = torch.rand(8) / 4 + 0.1
    return model


def pictures(n, seed=0):
    """Smooth ones: neighbouring pixels of noise would tell a layer nothing about each other."""
    noise = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(noise, (12, 12), mode="bilinear") * 255).byte()


@pytest.fixture
def images():
    return pictures(24)


def ready(model, precision, images, **options):
    model = quantize.prepare(model, precision, **options)
    quantize.calibrate(model, images)
    return model


def learned(model, precision, images, *, seed=0, steps=60, **options):
    found = ready(model, precision, images, **options)
    log = reconstruct.learn_rounding(
        found, model, images, steps=steps, rows=EVERYWHERE, rows_per_step=128, seed=seed
    )
    return found, log.set_index("layer")


def outputs(model, images):
    """What each layer and normalisation gives."""
    seen, kinds = {}, (*weights.KERNEL_LAYERS, nn.BatchNorm2d)
    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


def grids(model):
    return {
        name: layer.parametrizations.weight[0].grid(layer.parametrizations.weight.original)
        for name, layer in weights.layers(model).items()
    }


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("precision", ["w8", "w3a8", "w2"])
def test_weights_move_by_less_than_a_step_on_the_same_grid(tiny, images, precision, symmetric):
    before = grids(quantize.prepare(tiny, precision, symmetric=symmetric))
    after, log = learned(tiny, precision, images, steps=10, symmetric=symmetric)
    for name, grid in grids(after).items():
        assert torch.equal(grid.scale, before[name].scale)
        assert torch.equal(grid.zero_point, before[name].zero_point)
        value, exact = after.get_submodule(name).weight, tiny.get_submodule(name).weight
        codes = quantize.quantize(value, grid)
        assert torch.equal(quantize.dequantize(codes, grid), value)
        # Nearest rounding may itself leave the ends of an affine range for half a step.
        assert ((value - exact).abs() <= grid.scale * (1 + 1e-4)).all()
        moved = (codes != quantize.quantize(exact, grid)).float().mean().item()
        assert moved == pytest.approx(log["moved"][name])
    assert (log["moved"] > 0).any()


@pytest.mark.parametrize("precision", ["w4", "w2a4"])
def test_no_output_channel_is_further_off_than_with_nearest_rounding(tiny, images, precision):
    after, log = learned(tiny, precision, images)
    nearest = weights.strip(quantize.prepare(tiny, precision))
    wanted, found = outputs(tiny, images), outputs(after, images)
    assert list(log.index) == ["stem", "depthwise", "wide", "loose", "fc"]
    for name in log.index:
        inputs, output = found[name]
        others = [d for d in range(output.dim()) if d != 1]
        target = wanted[name][1]
        with torch.no_grad():
            plain = nearest.get_submodule(name)(inputs)
        errors_now, errors_then = ((o - target).square().mean(others) for o in (output, plain))
        assert (errors_now <= errors_then * (1 + 1e-4)).all()
        power = target.square().mean()
        assert log["nearest"][name] == pytest.approx((errors_then.mean() / power).item(), rel=1e-3)
        assert log["learned"][name] == pytest.approx((errors_now.mean() / power).item(), rel=1e-3)
    assert (log["learned"] < 0.9 * log["nearest"]).sum() >= 4


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), groups=2),
        nn.Conv2d(4, 6, (5, 3), padding="same", dilation=(1, 2), bias=False),
        nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"),
        nn.Conv2d(4, 4, 5, stride=3, padding="valid", groups=4),
    ],
    ids=str,
)
def test_every_kind_of_convolution_is_computed_at_its_places(layer):
    model = nn.Sequential(layer)
    x = torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    _, log = learned(model, "w3", x, steps=1)
    with torch.no_grad():
        exact, nearest = model(x), quantize.prepare(model, "w3")(x)
    error = (nearest - exact).square().mean() / exact.square().mean()
    assert log["nearest"]["0"] == pytest.approx(error.item(), rel=1e-4)


def test_learning_comes_near_the_best_of_all_roundings():
    """40 outputs of 10 weights each: 2^10 roundings of each can be tried."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40)).requires_grad_(False)
    # Inputs that go together, which is what nearest rounding does not know about.
    x = torch.randn(100, 2) @ torch.randn(2, 10) + 0.3 * torch.randn(100, 10)
    after, _ = learned(model, "w3", x, steps=300)
    nearest, exact = quantize.prepare(model, "w3")[0].weight, model[0].weight
    grid = grids(quantize.prepare(model, "w3"))["0"]
    low, high = (r.expand_as(exact) for r in quantize.value_range(exact, 0))
    ways = torch.tensor(list(itertools.product([0, 1], repeat=10)))[:, None]  # (1024, 1, 10)
    codes = (exact / grid.scale).floor() + grid.zero_point + ways
    codes = codes.maximum(quantize.quantize(low, grid)).minimum(quantize.quantize(high, grid))
    ends = (exact == low) | (exact == high)  # which set the range, so stay
    every = torch.where(ends, nearest, quantize.dequantize(codes, grid))  # (1024, 40, 10)

    def error(weight):
        return ((weight - exact) @ x.T).square().mean(-1)

    best, start, found = error(every).amin(0), error(nearest), error(after[0].weight)
    assert (found >= best * (1 - 1e-4)).all() and (found <= start * (1 + 1e-4)).all()
    assert (start - found).sum() > 0.7 * (start - best).sum() > 0


def test_learning_helps_on_other_pictures(tiny):
    """And so does bias correction alone."""
    images, others = pictures(64, 0), pictures(64, 1)
    wanted = tiny(others)
    nearest, corrected = (ready(tiny, "w3a8", images) for _ in range(2))
    after, _ = learned(tiny, "w3a8", images)
    reconstruct.bias_correction(corrected, tiny, images)
    far, learnt, shifted = (
        (m(others) - wanted).square().mean().item() for m in (nearest, after, corrected)
    )
    assert learnt < 0.6 * far and shifted < 0.8 * far


def test_the_same_seed_gives_the_same_weights(tiny, images):
    first, again, other = (learned(tiny, "w3", images, seed=s, steps=10)[0] for s in (0, 0, 1))
    pairs = [(m.state_dict(), first.state_dict()) for m in (again, other)]
    same, different = ([torch.equal(a[k], b[k]) for k in b] for a, b in pairs)
    assert all(same) and not all(different)


def test_everything_else_stays_as_it_was(tiny, images):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    tiny.train()
    found = ready(tiny, "w4a8", images).train()
    rest = {n: v.clone() for n, v in found.state_dict().items() if "original" not in n}
    reconstruct.learn_rounding(found, tiny, images, steps=5)
    assert tiny.training and found.training and found.stem_norm.training
    assert all(torch.equal(tiny.state_dict()[n], v) for n, v in before.items())
    assert all(torch.equal(found.state_dict()[n], v) for n, v in rest.items())
    assert not any(m._forward_hooks for m in weights.layers(found).values())
    assert found.stem.parametrizations.weight.original.grad is None


def test_packed_files_hold_the_learned_codes(tiny, images, tmp_path):
    after, _ = learned(tiny, "w4a8", images)
    reconstruct.bias_correction(after, tiny, images)
    path = tmp_path / "net.safetensors"
    size.save_packed(after, path)
    loaded = size.load_packed(path, ready(tiny, "w4a8", images))
    assert torch.equal(loaded(images), after.eval()(images))
    plain, _ = learned(tiny, "w4", images)
    size.save_packed(plain, path)
    assert torch.equal(size.load_packed(path, tiny)(images), plain(images))


def test_pruned_zeros_stay_zero(tiny, images):
    zero = torch.rand(tiny.wide.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    tiny.wide.weight.data[zero] = 0
    after, log = learned(tiny, "w3", images)
    assert (after.wide.weight[zero] == 0).all() and log["moved"]["wide"] > 0


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_weights_have_nothing_to_learn(value):
    model = nn.Sequential(nn.Linear(6, 3))
    model[0].weight.data.fill_(value)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    after, log = learned(model, "w4", x, steps=3)
    assert log["moved"]["0"] == 0 and torch.allclose(after[0].weight, model[0].weight)


class Twice(nn.Module):
    """One layer used two times, and one that is never used."""

    def __init__(self):
        super().__init__()
        self.unused, self.layer = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x.float()))


def test_a_layer_is_judged_at_its_first_use():
    torch.manual_seed(0)
    model, x = Twice(), torch.randn(16, 4)
    after, log = learned(model, "w3", x)
    assert list(log.index) == ["layer"]
    exact, error = model.layer(x), after.layer(x) - model.layer(x)
    share = (error.square().mean() / exact.square().mean()).item()
    assert log["learned"]["layer"] == pytest.approx(share, rel=1e-4)
    reconstruct.bias_correction(after, model, x)
    assert (after.layer(x) - exact).mean(0).abs().max() < 1e-6


@pytest.mark.parametrize("precision", ["w3", "w4a4"])
def test_bias_correction_leaves_no_mean_shift(tiny, images, precision):
    """Each layer is measured behind the ones before it, so all of them are right at the end."""
    after = ready(tiny, precision, images)
    before = {n: o for n, (_, o) in outputs(after, images).items()}
    log = reconstruct.bias_correction(after, tiny, images, batch_size=7).set_index("layer")
    wanted, found = outputs(tiny, images), outputs(after, images)
    assert list(log.index) == ["stem", "depthwise", "wide", "loose", "fc"]
    assert log["corrected"].tolist() == [True, True, True, False, True]
    for name in ("stem_norm", "depthwise_norm", "wide", "fc"):
        others = [d for d in range(before[name].dim()) if d != 1]
        target = wanted[name][1].mean(others)
        assert (found[name][1].mean(others) - target).abs().max() < 2e-6
        assert (before[name].mean(others) - target).abs().max() > 1e-3
    # What was found at the first layer, whose input nobody changed.
    target, start = wanted["stem"][1].transpose(0, 1).flatten(1), before["stem"].mean((0, 2, 3))
    shift = (start - target.mean(1)).abs() / target.std(1, correction=0)
    assert log["shift"]["stem"] == pytest.approx(shift.mean().item(), rel=1e-3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            (after.get_submodule(n).parametrizations.weight.original for n in log.index),
            (tiny.get_submodule(n).weight for n in log.index),
            strict=True,
        )
    )


def test_folded_networks_are_corrected_in_their_biases(tiny, images):
    folded = quantize.fold_norms(tiny)
    after = ready(folded, "w3", images)
    assert reconstruct.bias_correction(after, folded, images)["corrected"].sum() == 4
    assert (after(images) - tiny(images)).mean(0).abs().max() < 1e-5


@pytest.mark.parametrize("improve", [reconstruct.bias_correction, reconstruct.learn_rounding])
def test_networks_and_images_that_do_not_fit(tiny, images, improve):
    for precision in ("fp32", "fp16"):
        with pytest.raises(errors.ParameterError) as caught:
            improve(quantize.prepare(tiny, precision), tiny, images)
        assert str(caught.value) == errors.NOTHING_QUANTISED
    other = Tiny()
    other.loose = nn.Conv2d(8, 5, 1)
    with pytest.raises(errors.ParameterError) as caught:
        improve(quantize.prepare(tiny, "w4"), other, images)
    assert str(caught.value) == errors.UNLIKE_ORIGINAL.format(layer="loose")
    with pytest.raises(errors.ParameterError) as caught:
        improve(quantize.prepare(tiny, "w4"), tiny, images[:0])
    assert str(caught.value) == errors.BAD_SIZE.format(what="images", least=1, value=0)
    uncalibrated = quantize.prepare(tiny, "w4a4")
    with pytest.raises(errors.ParameterError) as caught:
        improve(uncalibrated, tiny, images)
    assert str(caught.value) == errors.NOT_CALIBRATED.format(module="act")
    assert not any(m._forward_hooks for m in weights.layers(uncalibrated).values())


@pytest.mark.parametrize("name", ["steps", "rows", "rows_per_step"])
def test_numbers_below_one(tiny, images, name):
    with pytest.raises(errors.ParameterError) as caught:
        reconstruct.learn_rounding(quantize.prepare(tiny, "w4"), tiny, images, **{name: 0})
    assert str(caught.value) == errors.BAD_SIZE.format(what=name, least=1, value=0)
