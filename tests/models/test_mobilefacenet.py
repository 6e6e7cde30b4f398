import pytest
import torch
import torch.nn.functional as F
from torch import nn

from studylib import models
from studylib.compress import quantize
from tests.models.test_iresnet import faces, lively, normalised

COUNTS = {128: 1_003_136, 512: 1_200_512}
RESIDUAL = {"stage3": 4, "stage4": 6, "stage5": 2}


def tiny(**settings):
    return models.mobilefacenet(**{"width": 0.25, "size": 48, "seed": 0, **settings})


@pytest.mark.parametrize("embedding", COUNTS)
def test_parameters_are_the_published_ones(embedding):
    with torch.device("meta"):
        model = models.build("mobilefacenet", embedding=embedding)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[embedding]
    assert model(torch.zeros(2, 3, 112, 112, device="meta")).shape == (2, embedding)


def kernels(model):
    """(channels in, channels out, kernel, stride, groups) of every convolution, in order."""
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.groups)
        for m in model.modules()
        if isinstance(m, nn.Conv2d)
    ]


def bottleneck(c_in, inner, c_out, stride):
    depthwise = (inner, inner, 3, stride, inner)
    return [(c_in, inner, 1, 1, 1), depthwise, (inner, c_out, 1, 1, 1)]


def test_layers_are_those_of_the_table():
    with torch.device("meta"):
        model = models.mobilefacenet()
    wanted = [(3, 64, 3, 2, 1), (64, 64, 3, 1, 64), *bottleneck(64, 128, 64, 2)]
    wanted += 4 * bottleneck(64, 128, 64, 1) + bottleneck(64, 256, 128, 2)
    wanted += 6 * bottleneck(128, 256, 128, 1) + bottleneck(128, 512, 128, 2)
    wanted += 2 * bottleneck(128, 256, 128, 1) + [(128, 512, 1, 1, 1), (512, 512, 7, 1, 512)]
    assert kernels(model) == wanted
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def convolved(x, state, name, *, activated=True):
    """A convolution, its normalisation and PReLU; depthwise if the weights say so."""
    weight = state[f"{name}.conv.weight"]
    groups = x.shape[1] if weight.shape[1] == 1 and x.shape[1] > 1 else 1
    stride = 2 if name == "conv1" or (name.startswith("down") and weight.shape[2] == 3) else 1
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
    x = normalised(x, state, f"{name}.norm")
    return F.prelu(x, state[f"{name}.act.weight"]) if activated else x


def squeezed(x, state, name):
    y = convolved(convolved(x, state, f"{name}.expand"), state, f"{name}.depthwise")
    return convolved(y, state, f"{name}.project", activated=False)


def by_formula(state, x):
    """The network of the table, from its weights alone."""
    x = (x.float() / 255 - 0.5) / 0.5
    x = convolved(convolved(x, state, "conv1"), state, "conv2")
    for i, (stage, count) in enumerate(RESIDUAL.items(), 3):
        x = squeezed(x, state, f"down{i}")
        for k in range(count):
            x = x + squeezed(x, state, f"{stage}.{k}")
    x = convolved(x, state, "conv6")
    x = (x * state["conv7.conv.weight"][:, 0]).sum((2, 3), keepdim=True)  # of the whole map
    x = normalised(x, state, "conv7.norm").flatten(1)
    return normalised(F.linear(x, state["fc.weight"]), state, "fc_norm")


@pytest.mark.parametrize("size", [32, 48, 70])
def test_outputs_are_those_of_the_formula(size):
    model = lively(tiny(size=size, seed=1))
    with torch.inference_mode():
        found, wanted = model(faces(3, size)), by_formula(model.state_dict(), faces(3, size))
    assert found.shape == (3, 128) and found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_quantisers_sit_after_each_prelu_and_each_residual_sum():
    """Not after the bottlenecks without a residual, which end in a normalisation."""
    ready = quantize.prepare(tiny(), "w8a8")
    wanted = ["conv1.act", "conv2.act"]
    for i, (stage, count) in enumerate(RESIDUAL.items(), 3):
        wanted += [f"down{i}.expand.act", f"down{i}.depthwise.act"]
        for k in range(count):
            wanted += [f"{stage}.{k}.{p}" for p in ("expand.act", "depthwise.act", "add")]
    assert [q.name for q in quantize.activation_quantizers(ready)] == [*wanted, "conv6.act"]
    slopes = [m for m in ready.modules() if isinstance(m, nn.PReLU)]
    assert len({id(m) for m in slopes}) == 2 + 15 * 2 + 1
    assert all(m.parametrizations.weight[0].axis is None for m in slopes)


def test_every_normalisation_can_be_folded():
    model = lively(tiny())
    folded = quantize.fold_norms(model)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    torch.testing.assert_close(folded(faces(4, 48)), model(faces(4, 48)), rtol=1e-3, atol=1e-3)


def test_initial_values_keep_the_variance_of_gradients():
    model = models.mobilefacenet(width=0.5, size=32, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2_000:
            fan_out = module.weight[:, 0].numel()  # channels out times the kernel's area
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert model.fc.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)


def test_the_seed_alone_decides_the_weights():
    first, same = tiny(seed=4).state_dict(), tiny(seed=4).state_dict()
    other = tiny(seed=5).state_dict()
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_training_reaches_every_parameter():
    model = tiny()
    model(faces(8, 48)).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.conv6.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_it_exports_with_any_number_of_faces():
    model = tiny().eval()
    shapes = ({0: torch.export.Dim("n")},)
    exported = torch.export.export(model, (faces(2, 48),), dynamic_shapes=shapes)
    found = exported.module()(faces(5, 48))
    torch.testing.assert_close(found, model(faces(5, 48)), rtol=1e-4, atol=1e-4)
