import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors, models
from studylib.compress import quantize

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 14, 3], 100: [3, 13, 30, 3]}
COUNTS = {18: 24_025_600, 34: 34_139_328, 50: 43_590_848, 100: 65_156_160}
TINY = {"depth": (1, 2, 1, 1), "width": 0.125, "size": 32, "embedding": 16}


def tiny(**settings):
    return models.iresnet(**{**TINY, "seed": 0, **settings})


def faces(n=4, size=32, seed=0):
    pixels = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=pixels, dtype=torch.uint8)


def lively(model, seed=0):
    """The network with normalisations and slopes that are no longer the ones of its birth."""
    drawn = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=drawn)
            for value in (module.running_var, module.weight.data, module.bias.data):
                value.uniform_(0.5, 1.5, generator=drawn)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(0, 0.5, generator=drawn)
    return model.eval()


def normalised(x, state, name):
    values = [state[f"{name}.{v}"] for v in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *values)


def by_formula(state, x):
    """The network of the table, from its weights alone."""
    x = (x.float() / 255 - 0.5) / 0.5
    x = F.conv2d(x, state["stem.conv.weight"], padding=1)
    x = F.prelu(normalised(x, state, "stem.norm"), state["stem.act.weight"])
    blocks = sorted({".".join(k.split(".")[:2]) for k in state if k.startswith("stage")})
    for name in blocks:
        first = name.endswith(".0")
        stride = 2 if first else 1
        y = normalised(x, state, f"{name}.norm1")
        y = normalised(
            F.conv2d(y, state[f"{name}.conv1.weight"], padding=1), state, f"{name}.norm2"
        )
        y = F.prelu(y, state[f"{name}.act.weight"])
        y = F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)
        y = normalised(y, state, f"{name}.norm3")
        if first:
            x = F.conv2d(x, state[f"{name}.shortcut.conv.weight"], stride=2)
            x = normalised(x, state, f"{name}.shortcut.norm")
        x = x + y
    x = normalised(x, state, "norm").flatten(1)
    return normalised(F.linear(x, state["fc.weight"], state["fc.bias"]), state, "fc_norm")


@pytest.mark.parametrize("depth", BLOCKS)
def test_parameters_and_blocks_are_the_published_ones(depth):
    with torch.device("meta"):
        model = models.build(f"iresnet{depth}")
    assert sum(p.numel() for p in model.parameters()) == COUNTS[depth]
    assert [len(model.get_submodule(f"stage{i}")) for i in (1, 2, 3, 4)] == BLOCKS[depth]
    wide = [model.get_submodule(f"stage{i}")[-1].conv2.out_channels for i in (1, 2, 3, 4)]
    assert [model.stem.conv.out_channels, *wide] == [64, 64, 128, 256, 512]
    assert model.fc.in_features == 512 * 7 * 7 and model.fc.out_features == 512
    assert model.drop.p == {18: 0.4, 34: 0, 50: 0.4, 100: 0}[depth]
    assert len(model(torch.zeros(2, 3, 112, 112, device="meta"))) == 2


def test_a_count_with_statistics_is_larger():
    """As Keras counts: two more numbers for each channel that is normalised."""
    with torch.device("meta"):
        model = models.build("iresnet18")
    channels = sum(
        m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)
    )
    assert models.parameter_count(model) == COUNTS[18] + 2 * channels


@pytest.mark.parametrize("size", [32, 50, 112])
def test_outputs_are_those_of_the_formula(size):
    model = lively(tiny(size=size, seed=3))
    with torch.inference_mode():
        wanted = by_formula(model.state_dict(), faces(3, size))
        found = model(faces(3, size))
    assert found.shape == (3, 16) and found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(faces(3, size).float()), model(faces(3, size)))


def test_pixels_go_to_minus_one_and_one():
    ends = torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    door = tiny().pixels
    assert door(ends.byte()).unique().tolist() == [-1.0, 1.0]
    assert door(torch.full((1, 3, 32, 32), 127.5)).abs().max() == 0


def test_quantisers_sit_after_each_prelu_and_each_sum():
    ready = quantize.prepare(tiny(), "w8a8")
    places = [q.name for q in quantize.activation_quantizers(ready)]
    blocks = ["stage1.0", "stage2.0", "stage2.1", "stage3.0", "stage4.0"]
    assert places == ["stem.act", *(f"{b}.{part}" for b in blocks for part in ("act", "add"))]
    quantize.calibrate(ready, faces(8))
    # the output is the last normalisation's, so it is not on any grid of 256 values
    assert len(ready(faces(64)).detach().unique()) > 256
    axes = [
        m.parametrizations.weight[0].axis
        for m in ready.modules()
        if hasattr(m, "parametrizations") and isinstance(m, nn.Conv2d | nn.Linear)
    ]
    assert axes == [0] * (1 + 2 * len(blocks) + 4 + 1)  # stem, blocks, shortcuts, fc


def test_folding_leaves_the_normalisations_that_no_layer_precedes():
    model = lively(tiny())
    folded = quantize.fold_norms(model)
    left = [n for n, m in folded.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    firsts = ["stage1.0", "stage2.0", "stage2.1", "stage3.0", "stage4.0"]
    assert left == [*(f"{b}.norm1" for b in firsts), "norm"]
    torch.testing.assert_close(folded(faces()), model(faces()), rtol=1e-4, atol=1e-4)


def test_initial_values():
    model = models.iresnet((1, 1, 1, 1), width=0.5, size=32, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            assert module.weight.std().item() == pytest.approx(0.1, rel=0.1)
        if isinstance(module, nn.PReLU):
            assert (module.weight == 0.25).all()
    bound = 1 / math.sqrt(model.fc.in_features)
    assert 0.99 * bound < model.fc.weight.abs().max() <= bound
    assert model.fc.bias.abs().max() <= bound


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(5)
    first = tiny(seed=1).state_dict()
    torch.manual_seed(6)
    same, other = tiny(seed=1).state_dict(), tiny(seed=2).state_dict()
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])
    torch.manual_seed(7)
    drawn = tiny(seed=None).state_dict()
    torch.manual_seed(7)
    again = tiny(seed=None).state_dict()
    assert all(torch.equal(drawn[key], again[key]) for key in drawn)


def test_training_reaches_all_but_the_last_factors():
    model = tiny(dropout=0.5)
    model(faces(8)).square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == ["fc_norm.weight"] and (model.fc_norm.weight == 1).all()
    assert model.training and model.drop.p == 0.5
    assert not torch.equal(model(faces(8)), model(faces(8)))  # drawn anew each time


def test_own_blocks_dropout_and_memory():
    assert tiny(depth=[2, 2, 2, 2]).drop.p == 0.4  # R18's own, whichever way it is named
    assert tiny().drop.p == 0
    model = tiny()
    assert model.stage2[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    maps = model.stage1(model.stem(model.pixels(faces())))
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert models.iresnet((1, 1, 1, 1), width=1e-9, size=32).stem.conv.out_channels == 1


def test_it_exports_with_any_number_of_faces():
    model = tiny().eval()
    exported = torch.export.export(model, (faces(2),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(exported.module()(faces(5)), model(faces(5)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 33), (3, 112, 112)])
def test_other_faces_are_refused_at_the_door(shape):
    with pytest.raises(errors.DataError) as caught:
        tiny()(torch.zeros(2, *shape))
    assert str(caught.value) == errors.OTHER_FACES.format(found=shape, wanted=(3, 32, 32))


@pytest.mark.parametrize(
    "depth", [20, "18", (1, 1, 1), (1, 0, 1, 1), (1, 1, 1, 201), (1, 1, 1, "2")]
)
def test_unknown_depths(depth):
    with pytest.raises(errors.ParameterError) as caught:
        models.iresnet(depth)
    assert str(caught.value) == errors.BAD_DEPTH.format(value=depth, most=200)


@pytest.mark.parametrize("make", [tiny, models.mobilefacenet])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 31}, errors.BAD_SIZE.format(what="size", least=32, value=31)),
        ({"embedding": 0}, errors.BAD_SIZE.format(what="embedding", least=1, value=0)),
        ({"width": 0.0}, errors.NOT_ABOVE_ZERO.format(what="width", value=0.0)),
        ({"width": math.nan}, errors.NOT_ABOVE_ZERO.format(what="width", value=math.nan)),
    ],
)
def test_bad_parameters(make, given, message):
    with pytest.raises(errors.ParameterError) as caught:
        make(**given)
    assert str(caught.value) == message


def test_a_dropout_is_a_fraction():
    with pytest.raises(errors.ParameterError) as caught:
        tiny(dropout=1.5)
    assert str(caught.value) == errors.NOT_A_FRACTION.format(what="dropout", value=1.5)


def test_a_narrow_network_picks_pixels_before_its_strided_shortcut_and_computes_the_same():
    narrow = tiny(size=48).eval()
    shortcut = narrow.stage1[0].shortcut
    assert [name for name, _ in shortcut.named_children()] == ["pick", "conv", "norm"]
    x = torch.randn(2, 8, 47, 47, generator=torch.Generator().manual_seed(0))
    strided = F.conv2d(x, shortcut.conv.weight, stride=2)
    torch.testing.assert_close(shortcut.conv(shortcut.pick(x)), strided)


def test_a_narrow_network_trains_channels_last():
    # in a process of its own: the strided convolution crashes here
    code = (
        "import torch; from studylib import models\n"
        "net = models.iresnet((1, 1, 1, 1), width=0.125, size=48, embedding=16, seed=0).train()\n"
        "x = torch.randint(0, 256, (16, 3, 48, 48), dtype=torch.uint8)\n"
        "x = x.contiguous(memory_format=torch.channels_last)\n"
        "for _ in range(20): net(x).square().mean().backward()\n"
        "print('trained')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "trained\n", done.stderr
