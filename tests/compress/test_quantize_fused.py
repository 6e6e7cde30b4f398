"""The loops in C against the plain path and torch's own: bit for bit, in value and in gradient.

Without a C compiler the two paths are one, and the tests say little; with a GPU the same tests run
on its kernels too.
"""

import os
import shutil

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studylib import qat
from studylib.compress import loops, quantize
from studylib.faces import Faces
from studylib.models.iresnet import iresnet
from tests.compress.test_quantize import normal

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FORMATS = {"plain": torch.contiguous_format, "last": torch.channels_last}
# Several blocks and threads, one row, one channel, one value, and odd ends of loops.
SHAPES = [
    (4, 8, 32, 32), (7, 33, 9, 11), (64, 64, 3, 3), (1, 64, 32, 32), (64, 1, 32, 32), (3, 5, 3, 3),
    (2, 1, 8, 8), (130, 1, 1, 1), (1, 1, 1, 1), (2, 9, 64, 65),
]  # fmt: skip
ODDITIES = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, float("inf"), -float("inf"), float("nan")]
EVERY_CODE = [(bits, symmetric) for bits in range(2, 9) for symmetric in (False, True)]


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


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Bit for bit, signs of zeros included; one NaN is as good as another."""
    lost = first.isnan()
    bits = [t.masked_fill(lost, 0).view(torch.int32) for t in (first, second)]
    return torch.equal(lost, second.isnan()) and torch.equal(*bits)


def awkward(grid: quantize.QParams) -> torch.Tensor:
    """A row for each range: every tie between codes and beyond both ends, its neighbours, oddities.

    float32 (rows, n).
    """
    scale, zero_point = (t.reshape(-1, 1) for t in grid[:2])
    steps = torch.arange(grid.low - 2, grid.high + 2.5, 0.5)
    at = (steps - zero_point) * scale  # (rows, steps)
    ends = torch.tensor(ODDITIES)
    near = [torch.nextafter(at, torch.full_like(at, far)) for far in (-torch.inf, torch.inf)]
    return torch.cat([at, *near, ends.expand(len(at), -1)], dim=1)


def ranges(low, high, bits, symmetric, like=(-1, 1)):
    low, high = (torch.tensor(ends).reshape(like) for ends in (low, high))
    return quantize.choose_qparams(low, high, bits, symmetric=symmetric)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100)
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
    assert same(plain[0], fused[0]) and same(plain[1], fused[1])


def test_known_values_and_gradients():
    x = torch.tensor([-3.0, -1.5, -1.49, -0.5, -0.4, 0.5, 0.6, 1.5, 1.51, float("nan")])
    x.requires_grad_()
    grid = ranges(-1.0, 1.0, 2, True, ())
    value = quantize.fake_quantize(x, grid, fused=True)
    [gradient] = torch.autograd.grad(value, x, torch.arange(1.0, 11))
    # Ties go to even: -1.5 to code -2, which is outside; -0.5 and 0.5 to 0.
    assert value[:9].tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, 1] and value[9].isnan()
    assert gradient.tolist() == [0, 0, 3, 4, 5, 6, 7, 0, 0, 0]


@pytest.mark.parametrize(("bits", "symmetric"), EVERY_CODE)
@pytest.mark.parametrize("clip_grad", [True, False])
def test_ties_and_oddities_equal_plain(bits, symmetric, clip_grad):
    # Ranges far from zero have zero points of up to 2^23 steps, where floats are whole numbers.
    low = [-1.0, -3.7, 0.0, 1e3, -5.0, 2.0**15, -1e-30]
    high = [1.0, 0.1, 6.3, 1e3 + 1, 1e30, 2.0**15 + 1, 1e-30]
    rows = ranges(low, high, bits, symmetric)
    x = awkward(rows)
    plain, fused = both_ways(x, rows, clip_grad, 1)
    assert same(plain[0], fused[0]) and same(plain[1], fused[1])
    for k in range(len(x)):
        one = quantize.QParams(rows.scale[k, 0], rows.zero_point[k, 0], rows.low, rows.high)
        plain, fused = both_ways(x[k], one, clip_grad, 1)
        assert same(plain[0], fused[0]) and same(plain[1], fused[1])


@pytest.mark.parametrize(("bits", "symmetric"), EVERY_CODE)
def test_ties_and_oddities_equal_torch(bits, symmetric):
    """Where torch has an answer: NaN and what no integer can count get the lowest code there.

    Here NaN stays NaN, and large values get the code of the end that they lie beyond.
    """
    rows = ranges([-1.0, -3.7, 0.0], [1.0, 0.1, 6.3], bits, symmetric)
    x = awkward(rows).requires_grad_()
    weight = torch.arange(1.0, x.numel() + 1).view_as(x)
    ends, zero_point = rows[2:], rows.zero_point.int()
    scale = rows.scale
    theirs = torch.fake_quantize_per_channel_affine(x, scale[:, 0], zero_point[:, 0], 0, *ends)
    ours = quantize.fake_quantize(x, rows, fused=True)
    count = x.abs() < 1e15  # false of NaN
    assert torch.equal(ours.isnan(), x.isnan()) and torch.equal(ours[count], theirs[count])
    top = quantize.fake_quantize(torch.full_like(rows.scale, 1e9), rows)
    assert torch.equal(ours[:, x[0] == torch.inf], top)
    assert torch.equal(*(torch.autograd.grad(v, x, weight)[0] for v in (ours, theirs)))
    for k in range(len(rows.scale)):
        part = x[k][count[k]].detach().requires_grad_()
        one = quantize.QParams(scale[k, 0], rows.zero_point[k, 0], *ends)
        theirs = torch.fake_quantize_per_tensor_affine(part, scale[k, 0], zero_point[k, 0], *ends)
        ours = quantize.fake_quantize(part, one, fused=True)
        assert torch.equal(ours, theirs)
        assert torch.equal(*(torch.autograd.grad(v.sum(), part)[0] for v in (ours, theirs)))


@pytest.mark.parametrize("odd", [float("inf"), float("nan"), -0.0])
def test_odd_gradients_are_multiplied_as_torch_multiplies_them(odd):
    """Zero times infinity is no number, outside the grid too."""
    x = torch.linspace(-2, 2, 300).requires_grad_()
    grid = ranges(-1.0, 1.0, 4, False, ())
    zero_point = grid.zero_point.int()
    theirs = torch.fake_quantize_per_tensor_affine(x, grid.scale, zero_point, *grid[2:])
    values = [quantize.fake_quantize(x, grid, fused=fused) for fused in (True, False)] + [theirs]
    fused, plain, torchs = (torch.autograd.grad(v, x, torch.full_like(x, odd))[0] for v in values)
    assert same(fused, plain) and same(fused, torchs)


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


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 100_003), (301, 333), (2, 70_001)])
def test_any_number_of_threads_finds_the_same(threads, shape):
    x = normal(0, *shape)
    axis = None if len(x) == 1 else 0
    grid = quantize.choose_qparams(*quantize.value_range(x / 2, axis), 4)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        plain, fused = both_ways(x, grid, True, normal(1, *shape))
    finally:
        torch.set_num_threads(before)
    assert same(plain[0], fused[0]) and same(plain[1], fused[1])


@pytest.mark.parametrize("shape", [(16, 8, 8, 8), (5, 77)])
def test_a_gradient_may_come_in_any_order_of_memory(shape):
    x = normal(0, *shape).requires_grad_()
    grid = quantize.choose_qparams(*quantize.value_range(x.detach() / 2), 3)
    turned = normal(1, *shape[::-1]).permute(*reversed(range(len(shape))))
    for grad in (turned, torch.ones(()).expand(shape)):
        found = [
            torch.autograd.grad(quantize.fake_quantize(x, grid, fused=fused), x, grad)[0]
            for fused in (False, True)
        ]
        assert same(*found)


def test_inference_mode_gives_the_same():
    x = normal(0, 8, 16, 32, 32)
    grid = quantize.choose_qparams(*quantize.value_range(x / 2), 4)
    with torch.inference_mode():
        assert same(
            quantize.fake_quantize(x + 0, grid, fused=True), quantize.fake_quantize(x + 0, grid)
        )


def rows_of(*shape):
    return torch.full(shape, 0.5)


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        (normal(0, 8, 16, 32, 32)[:, ::2], rows_of()),  # gaps in memory
        (normal(0, 8, 16, 4, 4).permute(1, 0, 2, 3), rows_of(16, 1, 1, 1)),  # another order
        (normal(0, 6, 6), rows_of(6)),  # ranges of the last axis, as many as rows
        (normal(0, 6, 6), rows_of(1, 6)),
        (normal(0, 8, 16).double(), rows_of()),
        (normal(0, 8, 16), rows_of().double()),
        (torch.empty(0, 3), rows_of(0, 1)),
    ],
)
def test_what_does_not_fit_is_rounded_all_the_same(x, scale):
    grid = quantize.QParams(scale * torch.arange(1, scale.numel() + 1).view_as(scale), scale * 2,
                            -4, 3)  # fmt: skip
    assert not loops.fit(x, *grid[:2])
    fused, plain = (quantize.fake_quantize(x, grid, fused=f) for f in (True, False))
    assert torch.equal(fused, plain)


def test_a_bit_is_kept_of_each_value_and_not_the_values():
    if loops._library() is None:
        pytest.skip("no C compiler")
    x = normal(0, 4, 8, 32, 32).requires_grad_()
    grid = quantize.choose_qparams(*quantize.value_range(x.detach() / 2), 4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        quantize.fake_quantize(x, grid, fused=True)
        quantize.fake_quantize(x, grid, fused=True, clip_grad=False)
    [marks] = kept
    assert marks.dtype == torch.uint8 and marks.numel() == x.numel() / 8


def compiler(monkeypatch, command):
    monkeypatch.setenv("CC", command)
    return loops._library.__wrapped__()


def test_loops_are_there_where_there_is_a_compiler():
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    assert loops.fit(torch.zeros(3), torch.ones(()), torch.zeros(()))


@pytest.mark.parametrize("command", ["no-such-compiler", "false", "true"])
def test_without_a_compiler_the_plain_path_is_taken(monkeypatch, command):
    """None, one that fails, and one that says it worked but wrote nothing."""
    library = compiler(monkeypatch, command)
    assert library is None
    monkeypatch.setattr(loops, "_library", lambda: library)
    x = normal(0, 3, 50)
    grid = quantize.choose_qparams(*quantize.value_range(x / 2), 4)
    assert not loops.fit(x, *grid[:2])
    plain, fused = both_ways(x, grid, True, 1)
    assert same(plain[0], fused[0]) and same(plain[1], fused[1])


@pytest.mark.parametrize("settings_", [qat.QUANTFACE, qat.SOUND])
def test_training_with_and_without_loops_ends_in_the_same_weights(settings_):
    images = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    names = [f"i{k}" for k in range(16)]
    faces = Faces(images.byte(), pd.DataFrame({"item": names, "subject": names}), "noise")
    teacher = iresnet((1, 1, 1, 1), width=0.25, size=32, embedding=32, dropout=0.2, seed=0).eval()
    found = []
    for fused in (False, True):
        torch.manual_seed(0)  # of dropout
        student, log = qat.quantise(
            teacher, "w4a4", faces, settings=settings_, steps=3, batch_size=8, fused=fused
        )
        found.append((student.state_dict(), log["loss"].tolist()))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(value, found[1][0][key]) for key, value in found[0][0].items())
