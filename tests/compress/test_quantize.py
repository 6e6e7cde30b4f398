import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from studylib import embed, errors
from studylib.compress import cluster, quantize, size, weights
from studylib.layers import Add
from studylib.metrics import verification
from studylib.models.fer_cnn import fer_cnn
from studylib.synthetic import generated

seeds, widths = st.integers(0, 10_000), st.integers(2, 8)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


class Tiny(nn.Module):
    """A residual block, as QuantFace's scheme finds it in a network."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.PReLU(4)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.add = Add()
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x.float() / 64)))
        return self.fc(self.add(self.again(x), x).mean((2, 3)))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture
def images():
    return torch.randint(0, 256, (8, 3, 6, 6), generator=torch.Generator().manual_seed(0)).byte()


@settings(max_examples=60)
@given(seeds, widths)
def test_per_tensor_equals_torch_in_value_and_gradient(seed, bits):
    x = normal(seed, 40).requires_grad_()
    low, high = quantize.value_range(x.detach() / 2)  # half the range, so that some is clipped
    grid = quantize.choose_qparams(low.clamp_max(0), high.clamp_min(0), bits)
    ours = quantize.fake_quantize(x, grid)
    [our_gradient] = torch.autograd.grad(ours.square().sum(), x)
    theirs = torch.fake_quantize_per_tensor_affine(
        x, grid.scale.item(), int(grid.zero_point), grid.low, grid.high
    )
    [their_gradient] = torch.autograd.grad(theirs.square().sum(), x)
    assert torch.equal(ours, theirs) and torch.equal(our_gradient, their_gradient)


@settings(max_examples=60)
@given(seeds, widths)
def test_per_channel_equals_torch_in_value_and_gradient(seed, bits):
    weight = normal(seed, 5, 2, 3, 3).requires_grad_()
    grid = quantize.choose_qparams(*quantize.value_range(weight.detach(), 0), bits, symmetric=True)
    ours = quantize.fake_quantize(weight, grid)
    [our_gradient] = torch.autograd.grad(ours.square().sum(), weight)
    theirs = torch.fake_quantize_per_channel_affine(
        weight, grid.scale.flatten(), grid.zero_point.flatten().int(), 0, grid.low, grid.high
    )
    [their_gradient] = torch.autograd.grad(theirs.square().sum(), weight)
    assert torch.equal(ours, theirs) and torch.equal(our_gradient, their_gradient)


def quantface(x, least, most, bits):
    """The formula of the paper's released code, written down independently: value and codes.

    The rounding is bridged, so that the gradient passes wherever a value lies.
    """
    scale = (2**bits - 1) / (most - least).clamp(min=1e-8)
    zero = torch.round(scale * least) + 2 ** (bits - 1)
    codes = torch.clamp(torch.round(scale * x - zero), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return x + ((codes + zero) / scale - x).detach(), codes


@settings(max_examples=60)
@given(seeds, widths, st.booleans())
def test_values_codes_and_gradients_are_quantfaces(seed, bits, channels):
    x = normal(seed, 4, 2, 3, 3).double().requires_grad_()
    flat = x.detach().flatten(1) if channels else x.detach().flatten()
    shrink = 1 if channels else 0.7  # weights have ranges of their own; activations may be clipped
    shape = (4, 1, 1, 1) if channels else ()
    least, most = (v.view(shape) * shrink for v in (flat.amin(-1), flat.amax(-1)))
    theirs, codes = quantface(x, least, most, bits)
    grid = quantize.choose_qparams(least, most, bits)
    ours = quantize.fake_quantize(x, grid, clip_grad=False)
    # Rounding x * scale before or after the whole zero point is added may differ only at a tie.
    assert torch.allclose(ours, theirs, atol=1e-9)
    assert torch.equal(quantize.quantize(x.detach(), grid).double(), codes.detach())
    [our_gradient] = torch.autograd.grad(ours.square().sum(), x)
    [their_gradient] = torch.autograd.grad(theirs.square().sum(), x)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-8)
    if not channels and bits > 4:
        outside = (x < least - grid.scale) | (x > most + grid.scale)
        assert outside.any() and (our_gradient[outside] != 0).all()


@settings(max_examples=60)
@given(seeds, widths, st.booleans(), st.sampled_from([None, 0, 1]))
def test_error_is_at_most_half_a_step_and_rounding_twice_changes_nothing(
    seed, bits, symmetric, axis
):
    x = normal(seed, 6, 7)
    low, high = quantize.value_range(x, axis)
    grid = quantize.choose_qparams(low.clamp_max(0), high.clamp_min(0), bits, symmetric=symmetric)
    once = quantize.dequantize(quantize.quantize(x, grid), grid)
    # An affine grid shifts by up to half a step to represent zero, which the ends then lack.
    slack = 0.5 if symmetric else 1.0
    assert ((once - x).abs() <= grid.scale * (slack + 1e-4)).all()
    assert torch.equal(once, quantize.fake_quantize(x, grid))
    assert torch.equal(quantize.fake_quantize(once, grid), once)
    assert (quantize.fake_quantize(torch.zeros(6, 7), grid) == 0).all()


def test_per_channel_is_finer_than_per_tensor():
    weight = normal(0, 4, 10) * torch.tensor([0.01, 0.1, 1, 10])[:, None]

    def error(axis):
        grid = quantize.choose_qparams(*quantize.value_range(weight, axis), 4)
        return (quantize.fake_quantize(weight, grid) - weight).abs()[0].max()

    assert error(0) < error(None) / 15


def test_straight_through_with_and_without_clipping():
    x = torch.tensor([-5.0, 0.3, 5.0], requires_grad=True)
    grid = quantize.choose_qparams(torch.tensor(-1.0), torch.tensor(1.0), 4)
    for clip, expected in ((True, [0.0, 1.0, 0.0]), (False, [1.0, 1.0, 1.0])):
        [gradient] = torch.autograd.grad(quantize.fake_quantize(x, grid, clip_grad=clip).sum(), x)
        assert gradient.tolist() == expected


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_constant_tensor_is_kept_exactly(value):
    constant = torch.full((4,), value)
    grid = quantize.choose_qparams(*quantize.value_range(constant), 8)
    assert torch.allclose(quantize.fake_quantize(constant, grid), constant, rtol=1e-6)


@pytest.mark.parametrize("bits", [0, 1, 9, 32])
def test_widths_out_of_range(bits):
    with pytest.raises(errors.ParameterError, match=f"{bits} bits cannot be quantised"):
        quantize.choose_qparams(torch.tensor(0.0), torch.tensor(1.0), bits)


@pytest.mark.parametrize("name", ["w9a8", "w8a1", "int8", "a8", "w8a8 ", "w16", "fp16a8", ""])
def test_unknown_precision(name):
    with pytest.raises(
        errors.ParameterError, match=f"Unknown precision '{name}'. Use fp32, fp16, w8a8"
    ):
        quantize.parse_precision(name)


def test_unknown_observer(tiny):
    with pytest.raises(errors.ParameterError, match="Unknown observer 'max'"):
        quantize.prepare(tiny, "w8a8", observer="max")


def test_what_is_quantised_is_what_the_paper_says(tiny, images):
    ready = quantize.prepare(tiny, "w4a4")
    quantize.calibrate(ready, images)
    fixed = quantize.finish(ready)
    for layer in ("conv", "again", "fc"):
        for channel in fixed.get_submodule(layer).weight:
            assert len(channel.unique()) <= 16
    assert torch.equal(fixed.conv.bias, tiny.conv.bias)
    assert torch.equal(fixed.norm.weight, tiny.norm.weight)
    seen = {}
    for name in ("conv", "norm", "act", "add", "fc"):
        fixed.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output})
        )
    fixed(images)
    levels = {name: len(output.unique()) for name, output in seen.items()}
    assert levels["act"] <= 16 and levels["add"] <= 16
    assert min(levels["conv"], levels["norm"], levels["fc"]) > 16


@pytest.mark.parametrize("precision", ["w4a8", "w2a8", "w4a4", "w4a3"])
def test_weights_and_activations_each_have_their_own_number_of_levels(tiny, images, precision):
    bits, activations = quantize.parse_precision(precision)
    tiny.act.weight.data = normal(3, 4)
    ready = quantize.prepare(tiny, precision)
    quantize.calibrate(ready, images)
    levels = max(len(channel.unique()) for channel in ready.again.weight)
    assert 2 ** (bits - 1) < levels <= 2**bits
    seen = []
    ready.act.register_forward_hook(lambda module, inputs, output: seen.append(output))
    ready(images)
    assert 2 ** (activations - 1) < len(seen[0].unique()) <= 2**activations
    # Slopes have one range together, and the activations' width.
    slopes = tiny.act.weight.detach()
    expected, _ = quantface(slopes, slopes.amin(), slopes.amax(), activations)
    assert torch.allclose(ready.act.weight, expected, atol=1e-6)


def test_fp32_and_weights_only_leave_activations_alone(tiny, images):
    assert torch.equal(quantize.prepare(tiny, "fp32")(images), tiny(images))
    weights_only = quantize.prepare(tiny, "w8")
    quantize.calibrate(weights_only, images)
    assert quantize.activation_quantizers(weights_only) == []
    assert not torch.equal(weights_only(images), tiny(images))


def test_preparing_leaves_the_network_as_it_was(tiny, images):
    before = tiny(images)
    ready = quantize.prepare(tiny, "w2a2")
    quantize.calibrate(ready, images)
    assert torch.equal(tiny(images), before)
    assert list(tiny.state_dict()) == list(Tiny().state_dict())


def test_finishing_leaves_the_network_trainable(tiny, images):
    ready = quantize.prepare(tiny, "w4a4")
    quantize.calibrate(ready, images)
    before = ready(images)
    fixed = quantize.finish(ready)
    assert torch.equal(fixed(images), before) and torch.equal(ready(images), before)
    ready(images).sum().backward()
    assert ready.conv.parametrizations.weight.original.grad.abs().sum() > 0
    assert type(fixed.conv) is nn.Conv2d and set(fixed.conv.state_dict()) == {"weight", "bias"}


def test_finer_precisions_are_closer(tiny, images):
    def error(precision):
        ready = quantize.prepare(tiny, precision)
        quantize.calibrate(ready, images)
        return (ready(images) - tiny(images)).abs().max()

    assert error("w8a8") < error("w6a6") < error("w3a3")


def test_eight_bits_from_128_synthetic_faces_cost_orl_next_to_nothing(sface, orl):
    _, evaluated = orl.split_by_subject(0.5, 0)
    ready = quantize.prepare(sface, "w8a8")
    quantize.calibrate(ready, generated.faces(128, seed=0).images)
    genuine = embed.all_pairs(evaluated)["genuine"]

    def tar(network):
        scores = embed.score_all_pairs(embed.embed(network, evaluated))
        points = verification.curve(verification.sort_scores(scores, genuine))
        return verification.tar_at_far(points, 1e-3)

    assert tar(quantize.finish(ready)) >= tar(sface) - 0.005


def test_uncalibrated_network_says_so(tiny, images):
    with pytest.raises(errors.ParameterError, match="activation quantiser act has seen no data"):
        quantize.prepare(tiny, "w8a8")(images)


def observed(observer, *batches):
    quantizer = quantize.ActivationQuantizer(8, observer, False, True)
    quantizer.observing, quantizer.quantising = True, False
    for batch in batches:
        quantizer(torch.tensor(batch))
    return quantizer.low.item(), quantizer.high.item()


def test_observers():
    batches = [[1.0, 4.0], [-2.0, 3.0]]
    assert observed("minmax", *batches) == (-2.0, 4.0)
    assert observed("minmax", [1.0, 4.0]) == (0.0, 4.0)  # the range always holds zero
    low, high = observed("ema", *batches)
    assert (low, high) == (pytest.approx(-0.2), pytest.approx(0.9 * 4 + 0.1 * 3))
    spread = torch.linspace(0, 1, 100_001).tolist()
    low, high = observed("percentile", spread, [*spread[:-1], 1e6])
    assert (low, high) == (0.0, pytest.approx(0.9999, abs=2e-5))
    low, _ = observed("percentile", (-torch.tensor(spread)).tolist())
    assert low == pytest.approx(-0.9999, abs=2e-5)


def test_ranges_are_frozen_after_calibration(tiny, images):
    ready = quantize.prepare(tiny, "w8a8")
    quantize.calibrate(ready, images[:4] // 8)
    before = [q.high.item() for q in quantize.activation_quantizers(ready)]
    ready(images)
    assert [q.high.item() for q in quantize.activation_quantizers(ready)] == before


def stretched():
    """Maps of four channels with very different ranges, one of them never negative."""
    x = normal(7, 16, 4, 5, 5) * torch.tensor([0.01, 0.1, 1, 10])[:, None, None]
    x[:, 2] = x[:, 2].abs()
    return x


@pytest.mark.parametrize("observer", quantize.OBSERVERS)
def test_ranges_per_channel_are_those_of_each_channel_by_itself(observer):
    x = stretched()
    together = quantize.ActivationQuantizer(6, observer, False, True, axis=1)
    together.observing = True
    together(x[:8])
    rounded = together(x[8:])
    assert together.low.shape == together.high.shape == (1, 4, 1, 1)
    assert together.low[0, 2] == 0
    for c in range(4):
        alone = quantize.ActivationQuantizer(6, observer, False, True)
        alone.observing = True
        alone(x[:8, c : c + 1])
        assert torch.equal(alone(x[8:, c : c + 1]), rounded[:, c : c + 1])


def test_ranges_per_channel_are_finer(tiny, images):
    tiny.norm.weight.data = torch.tensor([0.01, 0.1, 1.0, 10.0])

    def error(axis):
        ready = quantize.prepare(tiny, "w8a4", activation_axis=axis)
        quantize.calibrate(ready, images)
        seen = []
        ready.act.register_forward_hook(lambda module, inputs, output: seen.append(output))
        ready(images)
        exact = tiny.act(tiny.norm(tiny.conv(images.float() / 64)))
        return (seen[0] - exact)[:, :3].abs().max()

    assert error(1) < error(None) / 5


def test_ranges_per_channel_are_kept_with_a_network(tiny, images, tmp_path):
    ready = quantize.prepare(tiny, "w8a4", activation_axis=1)
    quantize.calibrate(ready, images)
    other = quantize.prepare(Tiny().eval(), "w8a4", activation_axis=1)
    other.load_state_dict(ready.state_dict())
    assert torch.equal(other(images), ready(images))
    size.save_packed(ready, tmp_path / "packed.safetensors")
    fresh = quantize.prepare(Tiny().eval(), "w8a4", activation_axis=1)
    assert torch.equal(
        size.load_packed(tmp_path / "packed.safetensors", fresh)(images), ready(images)
    )


@pytest.mark.parametrize("axis", [0, 2, "channel"])
def test_unknown_granularity(tiny, axis):
    with pytest.raises(errors.ParameterError) as caught:
        quantize.prepare(tiny, "w8a8", activation_axis=axis)
    known = "None (per tensor), 1 (per channel)"
    assert str(caught.value) == errors.NOT_ONE_OF.format(
        what="activation_axis", known=known, value=axis
    )


def randomise_norms(model):
    """Statistics and factors as training leaves them; some factors are negative."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data = normal(1, len(module.weight))
            module.bias.data = normal(2, len(module.bias))
            module.running_mean = normal(3, len(module.bias))
            module.running_var = normal(4, len(module.bias)).abs() + 0.1
    return model


@pytest.fixture
def expressions():
    """The expression network with 4, 8, 32, 32 channels, 16 and 32 units, on 16 px faces."""
    return randomise_norms(fer_cnn(7, 16, 1 / 16).eval())


@pytest.fixture
def grey():
    return torch.randint(0, 256, (6, 1, 16, 16), generator=torch.Generator().manual_seed(0)).byte()


def chain(shape):
    """A linear layer with a weight of this shape, alone in a network."""
    layer = nn.Linear(*reversed(shape), bias=False)
    layer.weight.data = normal(0, *shape)
    return nn.Sequential(layer)


def quantised(model):
    named = weights.layers(model).items()
    return [name for name, m in named if parametrize.is_parametrized(m, "weight")]


def test_dynamic_range_leaves_small_weights_in_floating_point(expressions):
    assert expressions.conv1.weight.numel() == 36 and expressions.conv2.weight.numel() == 800
    names = ["conv3", "conv4"]
    assert quantised(quantize.dynamic_range(expressions)) == names
    assert quantised(quantize.dynamic_range(chain((32, 32)))) == ["0"]  # exactly 1,024
    assert quantised(quantize.dynamic_range(chain((33, 31)))) == []  # 1,023
    assert quantised(quantize.dynamic_range(fer_cnn(8, 48, 0.25))) == [
        *("conv2", "conv3", "conv4", "dense5", "dense6", "dense7")
    ]


def rounded_like_tflite(weight, axis):
    """The converter's rule, written down independently: -127..127 over the largest magnitude."""
    weight = weight.detach().double().numpy()
    others = tuple(d for d in range(weight.ndim) if d != axis) if axis == 0 else None
    step = np.abs(weight).max(axis=others, keepdims=True) / 127
    codes = np.clip(np.round(weight / step), -127, 127)
    return codes, step


@settings(max_examples=30)
@given(seeds, st.booleans())
def test_dynamic_range_is_per_channel_for_convolutions_and_per_tensor_for_linear(seed, conv):
    layer = nn.Conv2d(8, 16, 3) if conv else nn.Linear(40, 30)
    layer.weight.data = normal(seed, *layer.weight.shape)
    layer.weight.data[::2] *= 0.01  # channels of very different ranges
    ready = quantize.dynamic_range(nn.Sequential(layer))[0]
    codes, step = rounded_like_tflite(layer.weight, 0 if conv else None)
    assert step.size == (16 if conv else 1)
    value = ready.weight.detach().double().numpy()
    assert np.array_equal(np.round(value / step), codes)
    assert value == pytest.approx(codes * step, rel=1e-6)
    assert (np.abs(value - layer.weight.detach().numpy()) <= step * (0.5 + 1e-4)).all()
    assert np.abs(codes).max() == 127


@settings(max_examples=60)
@given(seeds, st.sampled_from(["w8", "w4", "w2", "w6a6", "dynamic", "fp16"]), st.floats(0.1, 1))
def test_pruned_zeros_stay_zero(seed, precision, sparsity):
    layer = nn.Linear(40, 30)
    layer.weight.data = normal(seed, 30, 40) + 1  # ranges that are not centred
    zero = normal(seed + 1, 30, 40).argsort().argsort() < sparsity * 40
    layer.weight.data[zero] = 0
    model = nn.Sequential(layer)
    if precision == "dynamic":
        ready = quantize.dynamic_range(model)
    else:
        ready = quantize.prepare(model, precision)
    assert (ready[0].weight[zero] == 0).all()


@settings(max_examples=30)
@given(seeds, st.integers(2, 40))
def test_clusters_have_at_most_as_many_codes(seed, n):
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 70))
    for layer in weights.layers(model).values():
        layer.weight.data = normal(seed, *layer.weight.shape)
    ready = quantize.dynamic_range(cluster.prepare(model, n))
    assert len(ready[2].weight.unique()) <= n
    for channel in ready[0].weight:  # each has a grid of its own
        assert len(channel.unique()) <= n


def codes_of(layer):
    quantizer, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original
    return quantize.quantize(weight, quantizer.grid(weight)).int()


def test_folding_changes_the_codes_of_linear_layers_only():
    model = randomise_norms(fer_cnn(8, 48, 0.25).eval())
    assert (model.norm3.weight < 0).any()
    plain = quantize.dynamic_range(model)
    folded = quantize.dynamic_range(quantize.fold_norms(model))
    for name in ("conv2", "conv3", "conv4"):
        sign = model.get_submodule(name.replace("conv", "norm")).weight.sign().int()
        expected = codes_of(plain.get_submodule(name)) * sign[:, None, None, None]
        differ = (codes_of(folded.get_submodule(name)) - expected).abs()
        # Only where rounding error of the folding itself lies across a tie.
        assert differ.max() <= 1 and differ.float().mean() < 1e-4
    assert (codes_of(folded.dense5) != codes_of(plain.dense5)).float().mean() > 0.5
    assert torch.equal(codes_of(folded.dense7), codes_of(plain.dense7))  # no normalisation behind


def test_hybrid_kernels_round_each_samples_input_by_itself():
    layer = nn.Linear(64, 32)
    ready = quantize.dynamic_range(nn.Sequential(layer), activations=True)
    x = normal(5, 4, 64) * torch.tensor([0.01, 1.0, 100.0, 1.0])[:, None]
    x[3] += 30  # all positive: the range is widened to hold zero
    low = np.minimum(x.numpy().min(1, keepdims=True), 0)
    step = (np.maximum(x.numpy().max(1, keepdims=True), 0) - low) / 255
    zero = np.round(-low / step)
    inputs = (np.clip(np.round(x.numpy() / step) + zero, 0, 255) - zero) * step
    expected = inputs @ ready[0].weight.detach().numpy().T + layer.bias.detach().numpy()
    assert ready(x).detach().numpy() == pytest.approx(expected, rel=1e-3, abs=2e-3)
    unrounded = quantize.dynamic_range(nn.Sequential(layer))
    assert (ready(x) - unrounded(x)).abs().max() > 0.01
    alone = torch.cat([ready(row[None]) for row in x])
    assert torch.allclose(ready(x), alone, rtol=1e-4, atol=1e-5)


def test_hybrid_kernels_only_where_weights_are_quantised():
    small = chain((10, 10))
    x = normal(6, 3, 10)
    assert torch.equal(quantize.dynamic_range(small, activations=True)(x), small(x))
    stripped = quantize.finish(quantize.dynamic_range(chain((32, 32)), activations=True))
    x = normal(6, 3, 32)
    plain = nn.functional.linear(x, stripped[0].weight)
    assert not torch.equal(stripped(x), plain)  # what happens to inputs is kept when finished


def test_static_eight_bits_after_relu(expressions, grey):
    ready = quantize.prepare(expressions, "w8a8")
    names = [quantizer.name for quantizer in quantize.activation_quantizers(ready)]
    assert names == [f"relu{i}" for i in range(1, 7)]
    with pytest.raises(errors.ParameterError) as caught:
        ready(grey)
    assert str(caught.value) == errors.NOT_CALIBRATED.format(module="relu1")
    quantize.calibrate(ready, grey)
    seen = {}
    for name in ("pixels", "relu1", "relu6", "dense7"):
        ready.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output})
        )
    scores = quantize.finish(ready)(grey)
    ready(grey)
    assert torch.equal(seen["pixels"], grey.float())
    for name in ("relu1", "relu6"):
        assert 2 < len(seen[name].unique()) <= 256 and seen[name].min() == 0
    assert len(seen["dense7"].unique()) == seen["dense7"].numel()  # logits are not rounded
    exact = expressions(grey)
    assert (scores - exact).abs().max() < 0.1 * exact.std()
    assert torch.equal(scores.argmax(1), exact.argmax(1))


@settings(max_examples=60)
@given(seeds, st.integers(-12, 4))
def test_half_rounds_to_the_nearest_float16(seed, magnitude):
    model = chain((6, 5))
    model[0].weight.data = normal(seed, 6, 5) * 10.0**magnitude
    found = quantize.half(model)[0].weight.detach().numpy()
    exact = model[0].weight.detach().numpy()
    expected = np.clip(exact, -65504, 65504).astype(np.float16)
    assert np.array_equal(found, expected.astype(np.float32)) and found.dtype == np.float32


def test_half_rounds_every_parameter_and_no_statistic(expressions, grey):
    ready = quantize.half(expressions)
    fixed = quantize.finish(ready)
    assert torch.equal(fixed(grey), ready(grey))
    for name, value in fixed.named_parameters():
        original = expressions.get_parameter(name)
        assert torch.equal(value, original.half().float()), name
        assert original.count_nonzero() == 0 or not torch.equal(value, original), name
    for name, value in fixed.named_buffers():
        assert torch.equal(value, expressions.get_buffer(name)), name
    assert torch.equal(quantize.prepare(expressions, "fp16")(grey), fixed(grey))
    assert quantize.parse_precision("fp16") == (16, None)
    far = chain((2, 2))
    far[0].weight.data.fill_(-1e6)
    assert (quantize.half(far)[0].weight == -65504).all()


def test_half_can_be_trained(expressions, grey):
    ready = quantize.half(expressions)
    ready(grey).sum().backward()
    assert ready.dense7.parametrizations.weight.original.grad.abs().sum() > 0


def test_folding_keeps_the_outputs(expressions, grey):
    expressions.train()  # folding is for evaluation, whatever the network is doing now
    folded = quantize.fold_norms(expressions)
    assert expressions.training and not folded.training
    expected = expressions.eval()(grey)
    assert torch.allclose(folded(grey), expected, rtol=1e-4, atol=1e-4 * expected.std().item())
    assert not torch.equal(folded.conv1.weight, expressions.conv1.weight)
    kinds = [type(m) for m in folded.modules()]
    assert nn.BatchNorm2d not in kinds and nn.BatchNorm1d not in kinds
    assert kinds.count(nn.Identity) == 6


class Branches(nn.Module):
    """Normalisations that may and that may not be merged."""

    def __init__(self):
        super().__init__()
        self.before = nn.BatchNorm2d(3)  # of the input: nothing to merge with
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))
        self.norm = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 1)
        self.one_use = nn.BatchNorm2d(4)  # of an output that is also used without it
        self.act = nn.ReLU()
        self.after_act = nn.BatchNorm2d(4)
        self.twice, self.twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.inner(self.before(x.float() / 100)))
        x = self.shared(x)
        x = self.after_act(self.act(x + self.one_use(x)))
        return self.twice_norm(self.twice(self.twice_norm(self.twice(x))))


def test_only_normalisations_of_a_layers_own_output_are_folded(images):
    model = randomise_norms(Branches().eval())
    folded = quantize.fold_norms(model)
    assert torch.allclose(folded(images), model(images), rtol=1e-4, atol=1e-4)
    left = {name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert left == {"before", "one_use", "after_act", "twice_norm"}
    assert torch.equal(folded.shared.weight, model.shared.weight)


def test_sface_folds_too(sface, orl):
    folded = quantize.fold_norms(sface)
    left = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert left == ["norm"]  # between the last activation and the flattening
    faces = orl.images[:4]
    assert torch.allclose(folded(faces), sface(faces), atol=1e-3)


def test_what_is_compressed_already_is_written_out(expressions, grey):
    shared = cluster.prepare(expressions, 4)
    expected = weights.strip(shared)
    for compress in (quantize.half, quantize.dynamic_range, quantize.fold_norms):
        assert torch.equal(compress(shared)(grey), compress(expected)(grey))
    assert len(shared.conv4.weight.unique()) == 4 and quantised(shared) == list(
        weights.layers(shared)
    )
