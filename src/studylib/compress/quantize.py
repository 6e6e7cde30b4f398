"""Uniform quantisation to 2..8 bits: primitives, quantisers for a network's parts, calibration.

Primitives are pure functions over one idea of granularity, the `axis` along which each slice has a
range of its own:

    tensor                shape            axis   ranges
    activations           (N, C, H, W)     None   1, per tensor
    activations           (N, C, H, W)     1      C, per channel (an upper bound: see `prepare`)
    convolution weights   (O, I, kh, kw)   0      O, per output channel
    linear weights        (O, I)           0      O, per output channel

The scheme that `prepare` applies is QuantFace's (Boutros, Damer and Kuijper 2022): affine
(asymmetric) throughout; weights per output channel with ranges taken afresh from the weights;
activations per tensor after each PReLU, ReLU and residual sum; PReLU slopes per tensor with the
activations' width; biases, batch normalisation and the network's output (embedding, logits) stay in
floating point, and so does its input, which is uint8 to begin with. `dynamic_range` is what TFLite
makes of a network by default, `half` its float16 mode. Everything is fake-quantised: values are
rounded to the grid and computed with in fp32.

What the scheme leaves open is an argument: how ranges are found (`observer`), whether the gradient
passes through clipping (`clip_grad`), and the granularity of activations. `qat.QUANTFACE` names
the choices of QuantFace's released code, `qat.SOUND` the usual ones beside them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from studylib import errors
from studylib.compress import loops, weights
from studylib.layers import Add

OBSERVERS = ("minmax", "ema", "percentile")
QUANTISED_OUTPUTS = (nn.PReLU, nn.ReLU, Add)
SMALLEST = 1024  # elements of a weight below which TFLite leaves it in floating point
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
    """Read a precision's name: fp32, fp16, w8a8 (weights and activations), w8 (weights only).

    Raises
    ------
    ParameterError
        If the name is not of that form, or a width is not from 2 to 8 bits.

    Examples
    --------
    >>> parse_precision("w6a8")
    Precision(weights=6, activations=8)
    """
    if name in ("fp32", "fp16"):
        return Precision(16 if name == "fp16" else None, None)
    match = re.fullmatch(r"w([2-8])(?:a([2-8]))?", name)
    if not match:
        raise errors.ParameterError(errors.BAD_PRECISION.format(value=name))
    bits, activations = match.groups()
    return Precision(int(bits), int(activations) if activations else None)


def value_range(x: torch.Tensor, axis: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest value, over everything or of each slice along `axis`.

    Returns
    -------
    low, high : torch.Tensor
        Scalars for axis None; else shaped to broadcast over x, such as (O, 1, 1, 1).
    """
    if axis is None:
        return torch.aminmax(x)
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
    return _codes(x, *grid).to(torch.int8)


def dequantize(codes: torch.Tensor, grid: QParams) -> torch.Tensor:
    """The real values that codes stand for: float32, shape of codes."""
    return (codes.float() - grid.zero_point) * grid.scale


def fake_quantize(
    x: torch.Tensor, grid: QParams, *, clip_grad: bool = True, fused: bool = False
) -> torch.Tensor:
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
    fused : bool
        Compute in one pass each way, with the same results bit for bit: on a CPU by `loops`, which
        are compiled when they are first wanted (about a second), on CUDA by torch's own kernel for
        grids per tensor. What cannot be had so (no C compiler, ranges along another axis than 0, a
        tensor with gaps in memory) is computed as usual.

    Examples
    --------
    >>> grid = choose_qparams(torch.tensor(-1.0), torch.tensor(1.0), 2, symmetric=True)
    >>> fake_quantize(torch.tensor([-3.0, -0.4, 0.6]), grid)
    tensor([-1.,  0.,  1.])
    """
    if fused and clip_grad and _has_kernel(x, grid):
        return _kernel(x, grid)
    return _FakeQuantize.apply(x, grid, clip_grad, fused)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, grid, clip_grad, fused):
        ctx.clipped = clip_grad and ctx.needs_input_grad[0]
        ctx.grid, ctx.stride = grid, None
        if fused and _has_kernel(x, grid):
            return _kernel(x, grid)
        if fused and loops.fit(x, grid.scale, grid.zero_point):
            value, marks = loops.rounded(x, *grid, marked=ctx.clipped)
            if ctx.clipped:
                ctx.stride = x.stride()
                ctx.save_for_backward(marks)
            return value
        if ctx.clipped:
            ctx.save_for_backward(x)
        return _codes(x, *grid).sub_(grid.zero_point).mul_(grid.scale)

    @staticmethod
    def backward(ctx, grad):
        if ctx.clipped:
            [saved] = ctx.saved_tensors
            if ctx.stride is None:
                grad = _clipped(saved, grad, *ctx.grid)
            else:
                grad = loops.masked(grad, saved, ctx.stride)
        return grad, None, None, None


def _codes(x, scale, zero_point, low, high) -> torch.Tensor:
    """Clipped codes as floats. Multiplying by 1 / scale, not dividing, is what torch does too."""
    return (x * (1 / scale)).round_().add_(zero_point).clamp_(low, high)


def _clipped(x, grad, scale, zero_point, low, high) -> torch.Tensor:
    code = (x * (1 / scale)).round_().add_(zero_point)
    return grad * ((code >= low) & (code <= high))


def _has_kernel(x: torch.Tensor, grid: QParams) -> bool:
    """Whether torch has a fused kernel: its per-channel one refuses zero points off the grid."""
    return x.is_cuda and grid.scale.dim() == 0


def _kernel(x: torch.Tensor, grid: QParams) -> torch.Tensor:
    zero_point = grid.zero_point.to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, grid.scale, zero_point, grid.low, grid.high)


class WeightQuantizer(nn.Module):
    """A parametrisation that fake-quantises a weight with the range it has at that moment."""

    def __init__(
        self, bits: int, axis: int | None, symmetric: bool, clip_grad: bool, fused: bool = False
    ):
        super().__init__()
        self.bits, self.axis = bits, axis
        self.symmetric, self.clip_grad, self.fused = symmetric, clip_grad, fused

    def grid(self, weight: torch.Tensor) -> QParams:
        """The grid of the weight as it is now."""
        low, high = value_range(weight.detach(), self.axis)
        return choose_qparams(low, high, self.bits, symmetric=self.symmetric)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The fake-quantised weight."""
        grid = self.grid(weight)
        return fake_quantize(weight, grid, clip_grad=self.clip_grad, fused=self.fused)


class ActivationQuantizer(nn.Module):
    """Observes a range over batches, then fake-quantises with it, per tensor or per channel.

    The range starts at zero and always holds zero. Observers: `minmax` only ever widens, as in
    QuantFace; `ema` is a moving average of each batch's extremes (decay 0.9); `percentile` is the
    mean over batches of the 0.01 and 99.99 percentiles, from at most 2^20 evenly spaced values of a
    range and batch.
    """

    def __init__(
        self,
        bits: int,
        observer: str,
        symmetric: bool,
        clip_grad: bool,
        axis: int | None = None,
        fused: bool = False,
    ):
        super().__init__()
        self.bits, self.observer, self.axis = bits, observer, axis
        self.symmetric, self.clip_grad, self.fused = symmetric, clip_grad, fused
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
        return fake_quantize(x, grid, clip_grad=self.clip_grad, fused=self.fused)

    def _observe(self, x: torch.Tensor) -> None:
        low, high = self._extremes(x)
        if self.observer == "minmax":
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        elif self.batches > 0:
            keep = EMA_DECAY if self.observer == "ema" else self.batches / (self.batches + 1)
            low = keep * self.low + (1 - keep) * low
            high = keep * self.high + (1 - keep) * high
        # Assigned, not copied into: ranges per channel bring their shape with them.
        self.low, self.high = low.clamp_max(0).to(self.low), high.clamp_min(0).to(self.high)
        self.batches += 1

    def _extremes(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = value_range(x, self.axis)
        if self.observer != "percentile":
            return low, high
        rows = x.reshape(1, -1) if self.axis is None else x.movedim(self.axis, 0).flatten(1)
        rows = rows[:, :: -(-rows.shape[1] // _SAMPLED)]
        # The outermost values are found without sorting the rest.
        beyond = round((1 - PERCENTILE) * rows.shape[1]) + 1
        low, high = (v.topk(beyond).values[:, -1].view(low.shape) for v in (-rows, rows))
        return -low, high

    def _load_from_state_dict(self, state_dict, prefix, *others):
        if self.axis is not None:  # the data decide how many ranges there are
            for end in ("low", "high"):
                if (found := state_dict.get(prefix + end)) is not None:
                    setattr(self, end, getattr(self, end).new_zeros(found.shape))
        super()._load_from_state_dict(state_dict, prefix, *others)


def prepare(
    model: nn.Module,
    precision: str,
    *,
    observer: str = "minmax",
    symmetric: bool = False,
    clip_grad: bool = True,
    activation_axis: int | None = None,
    fused: bool = False,
) -> nn.Module:
    """Copy a network and put quantisers into the copy.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    precision : str
        See `parse_precision`; fp32 gives a plain copy, fp16 the same as `half`.
    observer : {"minmax", "ema", "percentile"}
        How activation ranges are found.
    symmetric : bool
        Symmetric grids instead of affine ones.
    clip_grad : bool
        See `fake_quantize`; False is QuantFace's own choice.
    activation_axis : {None, 1}
        None: one range for each activation tensor, as in QuantFace. 1: one for each of its
        channels. Integer kernels cannot sum over channels of different scales, so this is no way to
        run a network: it is what finer activation ranges could give at best.
    fused : bool
        See `fake_quantize`: worth it for training.

    Returns
    -------
    torch.nn.Module
        With weight ranges in place; activation ranges come from `calibrate`, or from the first
        steps of `qat.match_embeddings`.

    Raises
    ------
    ParameterError
        Unknown precision, observer or axis.
    """
    bits, activations = parse_precision(precision)
    errors.one_of("observer", observer, OBSERVERS)
    if activation_axis not in (None, 1):
        known, value = "None (per tensor), 1 (per channel)", activation_axis
        raise errors.ParameterError(
            errors.NOT_ONE_OF.format(what="activation_axis", known=known, value=value)
        )
    if precision == "fp16":
        return half(model)
    model = weights.strip(model)
    for name, module in list(model.named_modules()):
        if bits and isinstance(module, weights.KERNEL_LAYERS):
            quantizer = WeightQuantizer(bits, 0, symmetric, clip_grad, fused)
            parametrize.register_parametrization(module, "weight", quantizer)
        if activations and isinstance(module, QUANTISED_OUTPUTS):
            if isinstance(module, nn.PReLU):
                slopes = WeightQuantizer(activations, None, symmetric, clip_grad)
                parametrize.register_parametrization(module, "weight", slopes)
            after = ActivationQuantizer(
                activations, observer, symmetric, clip_grad, activation_axis, fused
            )
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


def dynamic_range(model: nn.Module, *, activations: bool = False) -> nn.Module:
    """Copy a network with int8 weights as TFLite's converter makes them by default.

    Symmetric codes -127..127 with zero point 0 and step max|w| / 127: per output channel for
    convolutions, one for the whole tensor for linear layers. Weights of fewer than 1,024 elements,
    biases and normalisation stay in floating point. No calibration data is needed.

    The converter folds normalisation into convolutions before it rounds. That makes no difference
    here: folding multiplies an output channel by one number, its symmetric grid is multiplied by
    the same number, and the codes stay as they are. A linear layer has one grid for all of its
    outputs, so there it does: apply `fold_norms` first to have what the converter would make.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is; masks or shared values in it are written out first.
    activations : bool
        Whether to imitate the runtime's hybrid kernels too, which round what comes into a quantised
        layer to int8 for each sample by itself, on an affine grid over its range and zero.

    Returns
    -------
    torch.nn.Module
        With a `WeightQuantizer` on each quantised weight.
    """
    model = weights.strip(model)
    for module in weights.layers(model).values():
        if module.weight.numel() < SMALLEST:
            continue
        axis = None if isinstance(module, nn.Linear) else 0
        quantizer = WeightQuantizer(8, axis, symmetric=True, clip_grad=True)
        parametrize.register_parametrization(module, "weight", quantizer)
        if activations:
            module.register_forward_pre_hook(_quantize_input)
    return model


def _quantize_input(module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """Round a layer's input to int8, each sample on the range that it has itself."""
    low, high = value_range(inputs[0].detach(), 0)
    return fake_quantize(inputs[0], choose_qparams(low.clamp_max(0), high.clamp_min(0), 8))


def fold_norms(model: nn.Module) -> nn.Module:
    """Copy a network with each batch normalisation merged into the layer whose output it takes.

    In evaluation mode a normalisation multiplies each channel by one number and adds another; the
    convolution or linear layer before it can do that with other weights and another bias. A
    normalisation that follows anything else stays, and so does one that is used more than once.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is; masks or shared values in it are written out first.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, with the same outputs up to rounding; a merged normalisation leaves an
        `nn.Identity` in its place.
    """
    model = weights.strip(model).eval()
    for layer, norm in normalised(model):
        before, after = model.get_submodule(layer), model.get_submodule(norm)
        fuse = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
        model.set_submodule(layer, fuse(before, after))
        model.set_submodule(norm, nn.Identity())
    return model


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        """Look only inside modules that have layers to merge: others may branch on their input."""
        kinds = (*weights.KERNEL_LAYERS, nn.modules.batchnorm._BatchNorm)
        return not any(isinstance(m, kinds) for m in module.modules() if m is not module)


def normalised(model: nn.Module) -> list[tuple[str, str]]:
    """Names of layers and of the normalisations that alone take their output, each used once."""
    calls = [node for node in _Tracer().trace(model).nodes if node.op == "call_module"]
    uses = Counter(node.target for node in calls)
    pairs = []
    for node in calls:
        before = node.args[0]
        if (
            isinstance(model.get_submodule(node.target), nn.modules.batchnorm._BatchNorm)
            and before in calls
            and isinstance(model.get_submodule(before.target), weights.KERNEL_LAYERS)
            and len(before.users) == uses[before.target] == uses[node.target] == 1
        ):
            pairs.append((before.target, node.target))
    return pairs


class Half(nn.Module):
    """A parametrisation that rounds to float16; what lies beyond its range goes to its ends."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Rounded values, again in the type they had."""
        end = torch.finfo(torch.float16).max
        return weight.clamp(-end, end).half().to(weight.dtype)


def half(model: nn.Module) -> nn.Module:
    """Copy a network with its parameters rounded to float16, as TFLite's float16 mode stores them.

    Computed with in fp32, as TFLite does on a CPU. Running statistics of normalisation keep fp32.

    Returns
    -------
    torch.nn.Module
        With a `Half` on each parameter; `finish` writes the rounded values out.
    """
    model = weights.strip(model)
    for module in list(model.modules()):
        for name, _ in list(module.named_parameters(recurse=False)):
            parametrize.register_parametrization(module, name, Half())
    return model


def finish(model: nn.Module) -> nn.Module:
    """Copy a quantised network with its weights fixed at their rounded values, for inference."""
    return weights.strip(model).eval()
