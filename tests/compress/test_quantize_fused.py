"""The compiled loops against the plain path: equal bit for bit, in value and in gradient.

In a file of its own because compiling takes most of its time. Without a C++ compiler the two paths
are one, and the tests say little; with a GPU the same tests run on its kernels too.
"""

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studylib import distill
from studylib.compress import quantize
from studylib.faces import Faces
from studylib.models.iresnet import iresnet
from tests.compress.test_quantize import normal

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FORMATS = {"plain": torch.contiguous_format, "last": torch.channels_last}
# More values than the least that is compiled for; one row, one channel, and odd ends of loops.
SHAPES = [(4, 8, 32, 32), (7, 33, 9, 11), (64, 64, 3, 3), (1, 64, 32, 32), (64, 1, 32, 32)]


def both_ways(x, grid, clip_grad, weight):
    """Values and gradients, plain and fused."""
    found = []
    for fused in (False, True):
        given = x.detach().clone().requires_grad_()
        value = quantize.fake_quantize(given, grid, clip_grad=clip_grad, fused=fused)
        [gradient] = torch.autograd.grad((value * weight).sum(), given)
        assert value.stride() == x.stride()
        found.append((value.detach(), gradient))
    return found


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(list(FORMATS)),
    st.sampled_from([None, 0, 1]),
    st.integers(2, 8),
    st.booleans(),
    st.booleans(),
)
def test_fused_equals_plain(device, shape, order, axis, bits, clip_grad, symmetric):
    x = normal(bits, *shape).to(device, memory_format=FORMATS[order])
    low, high = quantize.value_range(x / 2, axis)
    low, high = low.clamp_max(0), high.clamp_min(0)
    grid = quantize.choose_qparams(low, high, bits, symmetric=symmetric)
    weight = normal(1, *shape).to(device)  # its order in memory is not always that of x
    plain, fused = both_ways(x, grid, clip_grad, weight)
    assert torch.equal(plain[0], fused[0]) and torch.equal(plain[1], fused[1])


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 8), st.booleans())
def test_the_kernel_that_cuda_gets_equals_plain(seed, bits, away):
    """On a CPU, where torch has the same function, if a slower one."""
    x = (normal(seed, 40) + 40 * away).requires_grad_()  # away from zero, so is the zero point
    grid = quantize.choose_qparams(*quantize.value_range(x.detach() - away / 2), bits)
    found = []
    for value in (quantize._kernel(x, grid), quantize.fake_quantize(x, grid)):
        found.append((value, *torch.autograd.grad(value.square().sum(), x)))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_inference_mode_takes_the_plain_path():
    x = normal(0, 8, 16, 32, 32)
    grid = quantize.choose_qparams(*quantize.value_range(x / 2), 4)
    with torch.inference_mode():
        assert quantize._loop(quantize._rounded, x + 0, grid) is None
        assert torch.equal(
            quantize.fake_quantize(x + 0, grid, fused=True), quantize.fake_quantize(x + 0, grid)
        )


def test_a_tensor_with_gaps_is_rounded_all_the_same():
    x = normal(0, 8, 16, 32, 32)[:, ::2]
    grid = quantize.choose_qparams(*quantize.value_range(x / 2), 4)
    assert torch.equal(quantize.fake_quantize(x, grid, fused=True), quantize.fake_quantize(x, grid))


def test_loops_are_used_where_there_is_a_compiler():
    x = normal(0, 64, 64, 3, 3)
    grid = quantize.choose_qparams(*quantize.value_range(x, 0), 8)
    assert (quantize._loop(quantize._rounded, x, grid) is not None) == bool(quantize._compiled())


def test_without_a_compiler_there_are_no_loops(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    assert quantize._compiled.__wrapped__() == {}


@pytest.mark.parametrize("settings_", [distill.QUANTFACE, distill.SOUND])
def test_training_with_and_without_loops_ends_in_the_same_weights(settings_):
    images = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    names = [f"i{k}" for k in range(16)]
    faces = Faces(images.byte(), pd.DataFrame({"item": names, "subject": names}), "noise")
    teacher = iresnet((1, 1, 1, 1), width=0.25, size=32, embedding=32, dropout=0.2, seed=0).eval()
    found = []
    for fused in (False, True):
        torch.manual_seed(0)  # of dropout
        student, log = distill.quantise(
            teacher, "w4a4", faces, settings=settings_, steps=3, batch_size=8, fused=fused
        )
        found.append((student.state_dict(), log["loss"].tolist()))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(value, found[1][0][key]) for key, value in found[0][0].items())
