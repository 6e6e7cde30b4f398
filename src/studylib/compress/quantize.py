"""Uniform quantisation to 2..8 bits: primitives, quantisers for a network's parts, calibration.

Primitives are pure functions over one idea of granularity, the `axis` along which each slice has a
range of its own:

    tensor                shape            axis   ranges
    activations           (N, C, H, W)     None   1, per tensor
    convolution weights   (O, I, kh, kw)   0      O, per output channel
    linear weights        (O, I)           0      O, per output channel

The scheme that `prepare` applies is QuantFace's (Boutros, Damer and Kuijper 2022): affine
(asymmetric) throughout; weights per output channel with ranges taken afresh from the weights;
activations per tensor after each PReLU and each residual sum; PReLU slopes per tensor with the
activations' width; input, biases, batch normalisation and the embedding stay in floating point.
Everything is fake-quantised: values are rounded to the grid and computed with in fp32.
"""

from __future__ import annotations

import copy
import re
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from studylib import errors
from studylib.layers import Add

OBSERVERS = ("minmax", "ema", "percentile")
QUANTISED_LAYERS = (nn.Conv2d, nn.Linear)
QUANTISED_OUTPUTS = (nn.PReLU, Add)
EMA_DECAY = 0.9
PERCENTILE = 0.9999
_SAMPLED = 2**20  # activations looked at per batch when a percentile is wanted
_TINY = 1e-8  # smallest range, so that a constant tensor has a finite scale


class Precision(NamedTuple):
    """Bits of weights and activations; None stands for fp32."""

    weights: int | None
    activations: int | None


class QParams(NamedTuple):
    """An integer grid: real = (code - zero_point) * scale, codes from `low` to `high`.

    `scale` and `zero_point` are float32 tensors that broadcast over the quantised tensor;
    `zero_point` holds whole numbers.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    low: int
    high: int


def parse_precision(name: str) -> Precision:
    """Read a precision's name: fp32, w8a8 (weights and activations), w8 (weights only).

    Raises
    ------
    ParameterError
        If the name is not of that form, or a width is not from 2 to 8 bits.

    Examples
    --------
    >>> parse_precision("w6a8")
    Precision(weights=6, activations=8)
    """
    if name == "fp32":
        return Precision(None, None)
    match = re.fullmatch(r"w([2-8])(?:a([2-8]))?", name)
    if not match:
        raise errors.ParameterError(errors.BAD_PRECISION.format(value=name))
    weights, activations = match.groups()
    return Precision(int(weights), int(activations) if activations else None)


def value_range(x: torch.Tensor, axis: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest value, over everything or of each slice along `axis`.

    Returns
    -------
    low, high : torch.Tensor
        Scalars for axis None; else shaped to broadcast over x, such as (O, 1, 1, 1).
    """
    if axis is None:
        return x.amin(), x.amax()
    others = [d for d in range(x.dim()) if d != axis]
    return x.amin(others, keepdim=True), x.amax(others, keepdim=True)


def choose_qparams(
    low: torch.Tensor, high: torch.Tensor, bits: int, *, symmetric: bool = False
) -> QParams:
    """The grid that covers a range.

    Affine: 2^bits codes from -2^(bits-1), step (high - low) / (2^bits - 1), and a whole zero point,
    so zero is represented exactly if the range holds it. Symmetric: 2^bits - 1 codes around a zero
    point of 0. A range without width is first widened to hold zero.

    Parameters
    ----------
    low, high : torch.Tensor
        float, any one shape; a range each.
    bits : int
        2 to 8.
    symmetric : bool
        Whether the grid is centred on zero.

    Examples
    --------
    >>> grid = choose_qparams(torch.tensor(0.0), torch.tensor(25.5), 8)
    >>> round(grid.scale.item(), 6), grid.zero_point.item(), grid.low, grid.high
    (0.1, -128.0, -128, 127)
    """
    if bits not in range(2, 9):
        raise errors.ParameterError(errors.BAD_BITS.format(bits=bits))
    half = 2 ** (bits - 1)
    if symmetric:
        scale = torch.maximum(low.abs(), high.abs()).clamp_min(_TINY) / (half - 1)
        return QParams(scale, torch.zeros_like(scale), 1 - half, half - 1)
    wide = high > low
    low, high = torch.where(wide, low, low.clamp_max(0)), torch.where(wide, high, high.clamp_min(0))
    scale = (high - low).clamp_min(_TINY) / (2**bits - 1)
    return QParams(scale, -half - torch.round(low / scale), -half, half - 1)


def quantize(x: torch.Tensor, grid: QParams) -> torch.Tensor:
    """Round to the nearest code (ties to even), clipped to the grid: int8, shape of x."""
    return _codes(x, grid).to(torch.int8)


def dequantize(codes: torch.Tensor, grid: QParams) -> torch.Tensor:
    """The real values that codes stand for: float32, shape of codes."""
    return (codes.float() - grid.zero_point) * grid.scale


def fake_quantize(x: torch.Tensor, grid: QParams, *, clip_grad: bool = True) -> torch.Tensor:
    """Quantise and dequantise, with a straight-through gradient.

    Parameters
    ----------
    x : torch.Tensor
        float32.
    grid : QParams
        Broadcasting over x; no gradient flows into it.
    clip_grad : bool
        True: values outside the grid get no gradient, as in torch's own fake-quantise. False: they
        get it too, as in QuantFace's released code.

    Examples
    --------
    >>> grid = choose_qparams(torch.tensor(-1.0), torch.tensor(1.0), 2, symmetric=True)
    >>> fake_quantize(torch.tensor([-3.0, -0.4, 0.6]), grid)
    tensor([-1.,  0.,  1.])
    """
    return _FakeQuantize.apply(x, *grid, clip_grad)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, zero_point, low, high, clip_grad):
        grid = QParams(scale, zero_point, low, high)
        ctx.grid, ctx.clip_grad = grid, clip_grad
        if clip_grad and ctx.needs_input_grad[0]:
            ctx.save_for_backward(x)
        return _codes(x, grid).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx, grad):
        if ctx.clip_grad:
            # The mask is computed again from x: a stored one would cost more memory than it saves.
            (x,), grid = ctx.saved_tensors, ctx.grid
            code = torch.round(x * (1 / grid.scale)).add_(grid.zero_point)
            grad = grad * ((code >= grid.low) & (code <= grid.high))
        return grad, None, None, None, None, None


def _codes(x: torch.Tensor, grid: QParams) -> torch.Tensor:
    """Clipped codes as floats. Multiplying by 1 / scale, not dividing, is what torch does too."""
    codes = x * (1 / grid.scale)
    return codes.round_().add_(grid.zero_point).clamp_(grid.low, grid.high)


class WeightQuantizer(nn.Module):
    """A parametrisation that fake-quantises a weight with the range it has at that moment."""

    def __init__(self, bits: int, axis: int | None, symmetric: bool, clip_grad: bool):
        super().__init__()
        self.bits, self.axis = bits, axis
        self.symmetric, self.clip_grad = symmetric, clip_grad

    def grid(self, weight: torch.Tensor) -> QParams:
        """The grid of the weight as it is now."""
        low, high = value_range(weight.detach(), self.axis)
        return choose_qparams(low, high, self.bits, symmetric=self.symmetric)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The fake-quantised weight."""
        return fake_quantize(weight, self.grid(weight), clip_grad=self.clip_grad)


class ActivationQuantizer(nn.Module):
    """Observes a range over batches, then fake-quantises with it, per tensor.

    The range starts at zero and always holds zero. Observers: `minmax` only ever widens; `ema` is a
    moving average of each batch's extremes (decay 0.9); `percentile` is the mean over batches of
    the 0.01 and 99.99 percentiles, from at most 2^20 evenly spaced values a batch.
    """

    def __init__(self, bits: int, observer: str, symmetric: bool, clip_grad: bool):
        super().__init__()
        self.bits, self.observer = bits, observer
        self.symmetric, self.clip_grad = symmetric, clip_grad
        self.observing, self.quantising, self.name = False, True, ""
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observe and quantise, as far as each is switched on."""
        if self.observing:
            self._observe(x.detach())
        if not self.quantising:
            return x
        if self.batches == 0:
            raise errors.ParameterError(errors.NOT_CALIBRATED.format(module=self.name))
        grid = choose_qparams(self.low, self.high, self.bits, symmetric=self.symmetric)
        return fake_quantize(x, grid, clip_grad=self.clip_grad)

    def _observe(self, x: torch.Tensor) -> None:
        low, high = self._extremes(x)
        if self.observer == "minmax":
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        elif self.batches > 0:
            keep = EMA_DECAY if self.observer == "ema" else self.batches / (self.batches + 1)
            low = keep * self.low + (1 - keep) * low
            high = keep * self.high + (1 - keep) * high
        self.low.copy_(low.clamp_max(0))
        self.high.copy_(high.clamp_min(0))
        self.batches += 1

    def _extremes(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.observer != "percentile":
            return value_range(x)
        flat = x.flatten()
        flat = flat[:: -(-len(flat) // _SAMPLED)]
        # The outermost values are found without sorting the rest.
        beyond = round((1 - PERCENTILE) * len(flat)) + 1
        return -(-flat).topk(beyond).values[-1], flat.topk(beyond).values[-1]


def prepare(
    model: nn.Module,
    precision: str,
    *,
    observer: str = "minmax",
    symmetric: bool = False,
    clip_grad: bool = True,
) -> nn.Module:
    """Copy a network and put quantisers into the copy.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    precision : str
        See `parse_precision`; fp32 gives a plain copy.
    observer : {"minmax", "ema", "percentile"}
        How activation ranges are found.
    symmetric : bool
        Symmetric grids instead of affine ones.
    clip_grad : bool
        See `fake_quantize`; False is QuantFace's own choice.

    Returns
    -------
    torch.nn.Module
        With weight ranges in place; activation ranges come from `calibrate`.

    Raises
    ------
    ParameterError
        Unknown precision or observer.
    """
    weights, activations = parse_precision(precision)
    errors.one_of("observer", observer, OBSERVERS)
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if weights and isinstance(module, QUANTISED_LAYERS):
            quantizer = WeightQuantizer(weights, 0, symmetric, clip_grad)
            parametrize.register_parametrization(module, "weight", quantizer)
        if activations and isinstance(module, QUANTISED_OUTPUTS):
            if isinstance(module, nn.PReLU):
                slopes = WeightQuantizer(activations, None, symmetric, clip_grad)
                parametrize.register_parametrization(module, "weight", slopes)
            after = ActivationQuantizer(activations, observer, symmetric, clip_grad)
            after = after.to(next(model.parameters()).device)
            after.name = name
            _insert_after(model, name, after)
    return model


def _insert_after(model: nn.Module, name: str, after: ActivationQuantizer) -> None:
    """Quantise what the named module returns, without changing the module's name."""
    module = model.get_submodule(name)
    module.add_module("output_quantizer", after)
    module.register_forward_hook(_quantize_output)


def _quantize_output(module: nn.Module, inputs, output: torch.Tensor) -> torch.Tensor:
    return module.output_quantizer(output)


def activation_quantizers(model: nn.Module) -> list[ActivationQuantizer]:
    """All of a network's activation quantisers, in order of definition."""
    return [m for m in model.modules() if isinstance(m, ActivationQuantizer)]


def set_phase(model: nn.Module, *, observing: bool, quantising: bool = True) -> None:
    """Switch every activation quantiser: does it widen its range, does it round?"""
    for quantizer in activation_quantizers(model):
        quantizer.observing, quantizer.quantising = observing, quantising


@torch.no_grad()
def calibrate(model: nn.Module, faces: torch.Tensor, *, batch_size: int = 16) -> None:
    """Find the activation ranges on a calibration set, then freeze them.

    The network runs with quantised weights and unrounded activations, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        From `prepare`; changed in place.
    faces : torch.Tensor
        uint8 (N, 3, H, W), the calibration set.
    batch_size : int
        Faces at a time; `ema` and `percentile` ranges depend on it.
    """
    if not activation_quantizers(model):
        return
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    set_phase(model, observing=True, quantising=False)
    with parametrize.cached():
        for batch in faces.split(batch_size):
            model(batch.to(device))
    set_phase(model, observing=False)
    model.train(training)


def finish(model: nn.Module) -> nn.Module:
    """Copy a quantised network with its weights fixed at their rounded values, for inference."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            _fix_weight(module)
    return model


def _fix_weight(module: nn.Module) -> None:
    """Make a parametrised weight a plain one with the value it has now.

    torch's own removal deletes the property from the class, which a copy shares with its original:
    the original would lose its weight too. So the copy gets the plain class back instead.
    """
    weight = module.weight.detach().clone()
    module.__class__ = type(module).__mro__[1]
    del module.parametrizations
    module.weight = nn.Parameter(weight)
