import math

import pytest
import torch
from torch import nn

from studylib import errors, models

# What papers.md notes of the study's network: layers, then parameters as Keras counts them.
CONVOLUTIONS = [(64, 3), (128, 5), (512, 3), (512, 3)]
DENSE = [256, 512]


def expected_layers(flat, classes, factor=1.0):
    """(name, kind, numbers) of every child, written out from the study's table."""
    layers, c_in = [("pixels", "Pixels", None)], 1
    for i, (channels, kernel) in enumerate(CONVOLUTIONS, 1):
        c_out = int(channels * factor)
        layers += [
            (f"conv{i}", "Conv2d", (c_in, c_out, kernel, kernel // 2)),
            (f"norm{i}", "BatchNorm2d", c_out),
            (f"relu{i}", "ReLU", None),
            (f"pool{i}", "MaxPool2d", 2),
            (f"drop{i}", "Dropout", 0.25),
        ]
        c_in = c_out
    layers.append(("flatten", "Flatten", None))
    c_in = flat
    for i, channels in enumerate(DENSE, 5):
        c_out = int(channels * factor)
        layers += [
            (f"dense{i}", "Linear", (c_in, c_out)),
            (f"norm{i}", "BatchNorm1d", c_out),
            (f"relu{i}", "ReLU", None),
            (f"drop{i}", "Dropout", 0.25),
        ]
        c_in = c_out
    return [*layers, ("dense7", "Linear", (c_in, classes))]


def numbers(module):
    if isinstance(module, nn.Conv2d):
        assert module.stride == (1, 1) and module.bias is not None
        return module.in_channels, module.out_channels, module.kernel_size[0], module.padding[0]
    if isinstance(module, nn.Linear):
        assert module.bias is not None
        return module.in_features, module.out_features
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return module.num_features
    return {nn.MaxPool2d: lambda m: m.kernel_size, nn.Dropout: lambda m: m.p}.get(
        type(module), lambda m: None
    )(module)


@pytest.mark.parametrize(
    ("classes", "size", "width", "flat"),
    [(8, 48, 1.0, 4_608), (7, 100, 1.0, 18_432), (7, 48, 0.25, 1_152)],
)
def test_layers_are_those_of_the_table(classes, size, width, flat):
    model = models.fer_cnn(classes, size, width)
    found = [(name, type(m).__name__, numbers(m)) for name, m in model.named_children()]
    assert found == expected_layers(flat, classes, width)


@pytest.mark.parametrize(
    ("classes", "size", "count", "trained"),
    [(8, 48, 4_479_240, 4_475_272), (7, 100, 8_017_671, 8_013_703)],
)
def test_parameters_are_those_of_the_study(classes, size, count, trained):
    """Keras counts mean and variance of 64 + 128 + 512 + 512 + 256 + 512 channels as well."""
    model = models.fer_cnn(classes, size)
    assert models.parameter_count(model) == count
    assert sum(p.numel() for p in model.parameters()) == trained == count - 2 * 1_984


def test_initial_values_are_those_of_keras():
    model = models.fer_cnn(8, 48)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            patch = math.prod(module.weight.shape[2:])
            limit = math.sqrt(6 / (sum(module.weight.shape[:2]) * patch))
            weight = module.weight.detach()
            assert weight.abs().max() <= limit
            assert weight.std() == pytest.approx(limit / math.sqrt(3), rel=0.05)  # uniform
            assert weight.abs().max() > 0.99 * limit or weight.numel() < 1_000
            assert not module.bias.any()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.eps == 1e-3
            assert module.momentum == pytest.approx(0.01)
            assert (module.weight == 1).all() and not module.bias.any()


def test_memory_of_the_running_statistics():
    model = models.fer_cnn(2, 16, 0.1, norm_momentum=0.9)
    faces = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8)
    model(faces)
    batch = model.conv1(model.pixels(faces)).detach()
    torch.testing.assert_close(model.norm1.running_mean, 0.1 * batch.mean((0, 2, 3)))


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(5)
    first = models.fer_cnn(7, 16, 0.1, seed=1)
    torch.manual_seed(6)
    same, other = models.fer_cnn(7, 16, 0.1, seed=1), models.fer_cnn(7, 16, 0.1, seed=2)
    for a, b, c in zip(first.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() == 1 or not torch.equal(a, c)


@pytest.mark.parametrize(("pixels", "divisor"), [("0..255", 1), ("unit", 255)])
def test_pixels_are_scaled_inside(pixels, divisor):
    model = models.fer_cnn(7, 32, 0.1, pixels=pixels).eval()
    faces = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        logits = model(faces)
        assert logits.shape == (5, 7) and logits.dtype == torch.float32
        assert torch.equal(model(faces.float()), logits)
        torch.testing.assert_close(model[1:](faces.float() / divisor), logits)


def test_weights_lie_channels_last():
    model = models.fer_cnn(7, 48, 0.25)
    assert model.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert model[:6](torch.zeros(2, 1, 48, 48)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(3, 48, 48), (1, 100, 100), (1, 48, 50)])
def test_other_faces_are_refused_at_the_door(shape):
    message = errors.OTHER_FACES.format(found=shape, wanted=(1, 48, 48))
    with pytest.raises(errors.DataError) as caught:
        models.fer_cnn(7, 48, 0.1)(torch.zeros(2, *shape))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_classes": 1}, errors.BAD_SIZE.format(what="num_classes", least=2, value=1)),
        ({"in_size": 15}, errors.BAD_SIZE.format(what="in_size", least=16, value=15)),
        ({"width": 0.0}, errors.NOT_ABOVE_ZERO.format(what="width", value=0.0)),
        ({"width": math.nan}, errors.NOT_ABOVE_ZERO.format(what="width", value=math.nan)),
        ({"norm_momentum": 1.0}, errors.BAD_SHARE.format(what="norm_momentum", value=1.0)),
        (
            {"pixels": "zscore"},
            errors.UNKNOWN_NAME.format(
                what="scaling of pixels", value="zscore", choices="0..255, unit"
            ),
        ),
    ],
)
def test_bad_parameters(given, message):
    with pytest.raises(errors.ParameterError) as caught:
        models.fer_cnn(**{"num_classes": 7, "in_size": 48, **given})
    assert str(caught.value) == message


def test_a_tiny_width_keeps_one_channel():
    model = models.fer_cnn(7, 48, 0.001)
    assert model.conv1.out_channels == 1
    assert model.eval()(torch.zeros(1, 1, 48, 48)).shape == (1, 7)
