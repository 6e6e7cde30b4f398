"""Better rounding after training: learned rounding and bias correction, layer by layer.

Both take a network from `quantize.prepare`, calibrated, and the full-precision network it was made
from, and change the quantised one in place so that each layer gives more nearly what it gave
before. Neither needs labels, and neither trains the network as a whole.

    learn_rounding    which of its two neighbours on the grid each weight goes to (Nagel et al.
                      2020, "Up or down? Adaptive rounding for post-training quantization")
    bias_correction   each output channel's mean shift, taken back (Nagel et al. 2019, "Data-free
                      quantization through weight equalization and bias correction", section 4.2,
                      the variant that measures)

A shift depends on how weights were rounded, so the rounding is learned first. Layers are visited in
the order in which the network uses them, and what comes into a layer is what the quantised network,
changed so far, gives it. A layer that is used more than once is judged at its first use.

`learn_rounding` differs from the paper in four ways. A layer's output is compared before its
activation. It is computed at sampled places, not everywhere. Each output channel's error counts
relative to what nearest rounding makes of it, so that one weight of the regulariser suits every
layer and width. And a channel whose learned rounding does worse than nearest keeps nearest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from studylib import errors
from studylib.compress import quantize, weights

STRETCH = (-0.1, 1.1)  # of the rectified sigmoid, whose ends can then be reached
REGULARISER = 3.0  # weight of the pull towards up or down, beside a relative error
WARM_UP = 0.2  # of the steps, without that pull
SHARPNESS = (20.0, 2.0)  # of the pull, after the warm-up and at the end
_TINY = 1e-12  # smallest error of nearest rounding that errors are taken relative to


def bias_correction(
    quantised: nn.Module, original: nn.Module, images: torch.Tensor, *, batch_size: int = 16
) -> pd.DataFrame:
    """Take back the mean shift that quantisation gives each output channel.

    The shift of a channel is its mean over images and places in the quantised network less that in
    the original. It goes off the layer's bias; without one, off the running mean of the batch
    normalisation that takes the layer's output, which comes to the same. A layer with neither is
    left, and its shift is part of what the next one corrects.

    Parameters
    ----------
    quantised : torch.nn.Module
        From `quantize.prepare`, calibrated; changed in place.
    original : torch.nn.Module
        The network it was prepared from, on the same device; left as it is.
    images : torch.Tensor
        uint8 (N, C, H, W), unlabelled.
    batch_size : int
        Images at a time. The whole set runs about L / 2 times through a network of L layers.

    Returns
    -------
    pandas.DataFrame
        A row a layer, in order of use: layer; shift, the mean over channels of its magnitude, in
        standard deviations of the original's channel; corrected (bool).

    Raises
    ------
    ParameterError
        If no weight is quantised, the networks differ, or there is no image.
    """
    names = _quantised_layers(quantised, original, images)
    norms = dict(quantize.normalised(original))
    log = []
    with _evaluating(quantised, original):
        wanted = _moments(original, names, images, batch_size)
        for name, (mean, spread) in wanted.items():
            layer = quantised.get_submodule(name)
            found, _ = _moments(quantised, [name], images, batch_size)[name]
            shift = found - mean
            corrected = True
            if layer.bias is not None:
                layer.bias.data -= shift.to(layer.bias.dtype)
            elif name in norms:
                running = quantised.get_submodule(norms[name]).running_mean
                running += shift.to(running.dtype)
            else:
                corrected = False
            relative = (shift.abs() / spread.clamp_min(_TINY)).mean().item()
            log.append({"layer": name, "shift": relative, "corrected": corrected})
    return pd.DataFrame(log)


def learn_rounding(
    quantised: nn.Module,
    original: nn.Module,
    images: torch.Tensor,
    *,
    steps: int = 300,
    lr: float = 0.1,
    rows: int = 2048,
    rows_per_step: int = 256,
    batch_size: int = 16,
    seed: int = 0,
) -> pd.DataFrame:
    """Learn for each weight whether it is rounded down or up.

    A number for each weight says how far it goes from the code below it to the code above, from 0
    to 1; Adam fits these numbers to the original's output while a regulariser, sharper and sharper,
    pushes each to one of the ends. Every weight ends on the grid that it had: those that set its
    range, and those that lie on it exactly (such as pruned zeros), keep their codes. The weights
    stay ordinary ones, which the network's own quantisers round to the learned codes.

    Parameters
    ----------
    quantised : torch.nn.Module
        From `quantize.prepare`, calibrated; its weights are changed in place.
    original : torch.nn.Module
        The network it was prepared from, on the same device; left as it is.
    images : torch.Tensor
        uint8 (N, C, H, W), unlabelled. Their number matters: a layer whose rows are fewer than its
        inputs can be fitted to them by heart, and a linear layer has one row an image.
    steps : int
        Updates for each layer.
    lr : float
        Adam's rate.
    rows : int
        Places (of all images together) at which a convolution's output is compared, at most.
    rows_per_step : int
        Of these, in each update.
    batch_size : int
        Images at a time, when inputs and outputs are collected. The whole set runs about L times
        through a network of L layers.
    seed : int
        Of the places and of the order of updates.

    Returns
    -------
    pandas.DataFrame
        A row a layer, in order of use: layer; nearest and learned, the mean squared error of its
        output at the rows, before and after, as a share of the output's mean square; moved, the
        share of weights whose code changed.

    Raises
    ------
    ParameterError
        If no weight is quantised, the networks differ, there is no image, or a number is below 1.
    """
    names = _quantised_layers(quantised, original, images)
    errors.at_least(1, steps=steps, rows=rows, rows_per_step=rows_per_step)
    places = -(-rows // len(images))
    log = []
    with _evaluating(quantised, original):
        for index, name in enumerate(_order(original, names, images)):
            layer = quantised.get_submodule(name)
            draw = (places, [seed, index])
            _, wanted = _rows(original, name, images, batch_size, *draw)
            inputs, _ = _rows(quantised, name, images, batch_size, *draw)
            rng = np.random.default_rng([seed, index, 1])
            batches = rng.integers(0, len(inputs), (steps, min(rows_per_step, len(inputs))))
            batches = torch.from_numpy(batches).to(inputs.device)
            log.append({"layer": name, **_learn(layer, inputs, wanted, batches, lr)})
    return pd.DataFrame(log)


def _learn(
    layer: nn.Module, inputs: torch.Tensor, wanted: torch.Tensor, batches: torch.Tensor, lr: float
) -> dict[str, float]:
    """Choose the codes of one layer; inputs (m, G, K), wanted (m, O), batches (steps, rows)."""
    chain = layer.parametrizations.weight
    grid, start = chain[0].grid(chain.original), chain.original.detach()
    nearest = quantize.quantize(start, grid).float()
    below, free = _choices(start, grid, chain[0].axis)

    def error(codes: torch.Tensor, chosen=slice(None)) -> torch.Tensor:
        """Mean squared error of each output channel, (O,)."""
        rounded = quantize.dequantize(codes, grid).reshape(inputs.shape[1], -1, inputs.shape[2])
        found = torch.einsum("mgk,gok->mgo", inputs[chosen], rounded).flatten(1)
        found = found if layer.bias is None else found + layer.bias.detach()
        return (found - wanted[chosen]).square().mean(0)

    worst = error(nearest)
    # A weight's share of the way up, turned into what the stretched sigmoid makes it from.
    way = (start / grid.scale + grid.zero_point - below).clamp(0, 1)
    raw = torch.logit((way - STRETCH[0]) / (STRETCH[1] - STRETCH[0])).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr)
    for step, chosen in enumerate(batches):
        up = _stretched(raw)
        codes = torch.where(free, below + up, nearest)
        loss = (error(codes, chosen) / worst.clamp_min(_TINY)).sum()
        done = (step / len(batches) - WARM_UP) / (1 - WARM_UP)
        if done >= 0:
            sharpness = SHARPNESS[1] + (SHARPNESS[0] - SHARPNESS[1]) * (1 - done)
            undecided = torch.where(free, 1 - (2 * up - 1).abs() ** sharpness, 0)
            loss = loss + REGULARISER * undecided.flatten(1).mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    learned = torch.where(free, below + (raw.detach() >= 0), nearest)
    # Each output channel depends on its own weights alone, so the better rounding can be chosen.
    better = error(learned) < worst
    learned = torch.where(better.view(-1, *[1] * (start.dim() - 1)), learned, nearest)
    _set_codes(chain, learned, nearest, grid)
    scale = wanted.square().mean().clamp_min(_TINY)
    return {
        "nearest": (worst.mean() / scale).item(),
        "learned": (error(learned).mean() / scale).item(),
        "moved": (learned != nearest).float().mean().item(),
    }


def _stretched(raw: torch.Tensor) -> torch.Tensor:
    """The paper's rectified sigmoid: from 0 to 1, both ends included."""
    low, high = STRETCH
    return (torch.sigmoid(raw) * (high - low) + low).clamp(0, 1)


def _choices(
    weight: torch.Tensor, grid: quantize.QParams, axis: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The code below each weight, and where a weight may go there or to the next one.

    The ends of a range may not move: the grid comes from them, and would move with them.
    """
    nearest = quantize.quantize(weight, grid).float()
    lowest, highest = quantize.value_range(nearest, axis)
    least, most = quantize.value_range(weight, axis)
    places = weight * (1 / grid.scale)
    below = places.floor() + grid.zero_point
    free = (weight > least) & (weight < most) & (places != places.round())
    return below, free & (below >= lowest) & (below < highest)


def _set_codes(
    chain: parametrize.ParametrizationList,
    codes: torch.Tensor,
    nearest: torch.Tensor,
    grid: quantize.QParams,
) -> None:
    """Move weights so that their quantiser, whose grid stays what it is, rounds them to codes."""
    weight = chain.original.data
    least, most = quantize.value_range(weight, chain[0].axis)
    # A code's value may lie beyond the range by less than half a step; the range's end rounds to it
    moved = quantize.dequantize(codes, grid).clamp(least, most)
    weight.copy_(torch.where(codes == nearest, weight, moved))


def _quantised_layers(quantised: nn.Module, original: nn.Module, images: torch.Tensor) -> list[str]:
    """Names of the layers with a quantised weight, after checking that the original has them."""
    errors.at_least(1, images=len(images))
    before = weights.layers(original)
    names = []
    for name, layer in weights.layers(quantised).items():
        if not parametrize.is_parametrized(layer, "weight"):
            continue
        if not isinstance(layer.parametrizations.weight[0], quantize.WeightQuantizer):
            continue
        if name not in before or before[name].weight.shape != layer.weight.shape:
            raise errors.ParameterError(errors.UNLIKE_ORIGINAL.format(layer=name))
        names.append(name)
    if not names:
        raise errors.ParameterError(errors.NOTHING_QUANTISED)
    return names


@contextlib.contextmanager
def _evaluating(*models: nn.Module):
    """Evaluation mode for a while."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


class _Reached(Exception):
    """All layers that were asked for have run; the rest of the network need not."""


@torch.no_grad()
def _watch(
    model: nn.Module, names: list[str], images: torch.Tensor, batch_size: int, see: Callable
) -> None:
    """Run images, calling see(name, layer, input, output) at the first use of each named layer."""
    seen = set()

    def hook(name: str) -> Callable:
        def call(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            if name in seen:
                return
            see(name, layer, inputs[0], output)
            seen.add(name)
            if len(seen) == len(names):
                raise _Reached

        return call

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    device = next(model.parameters()).device
    try:
        with parametrize.cached():
            for batch in images.split(batch_size):
                seen.clear()
                with contextlib.suppress(_Reached):
                    model(batch.to(device))
    finally:
        for handle in handles:
            handle.remove()


def _order(model: nn.Module, names: list[str], images: torch.Tensor) -> list[str]:
    """The layers as the network uses them; one that it never uses is left out."""
    order = []
    _watch(model, names, images[:1], 1, lambda name, *_: order.append(name))
    return order


def _moments(
    model: nn.Module, names: list[str], images: torch.Tensor, batch_size: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and standard deviation of each layer's output channels, float64 (O,), as used."""
    sums = {}

    def see(name: str, layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        values = y.flatten(2) if y.dim() > 2 else y[:, :, None]  # (n, O, places)
        share = len(y) / len(images)
        mean = values.mean((0, 2), dtype=torch.float64) * share
        square = values.square().mean((0, 2), dtype=torch.float64) * share
        before = sums.get(name, (0, 0))
        sums[name] = before[0] + mean, before[1] + square

    _watch(model, names, images, batch_size, see)
    return {n: (m, (s - m.square()).clamp_min(0).sqrt()) for n, (m, s) in sums.items()}


def _rows(
    model: nn.Module,
    name: str,
    images: torch.Tensor,
    batch_size: int,
    places: int,
    seed: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one layer sees and gives at places of each image, the same for every network.

    Returns
    -------
    inputs : torch.Tensor
        float32 (m, G, K): for each of G groups of channels, the K inputs of an output.
    outputs : torch.Tensor
        float32 (m, O).
    """
    rng = np.random.default_rng(seed)
    parts = []

    def see(name: str, layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        if isinstance(layer, nn.Linear):
            parts.append((x[:, None], y))
        else:
            parts.append(_patches(layer, x, y, places, rng))

    _watch(model, [name], images, batch_size, see)
    inputs, outputs = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(outputs)


def _patches(
    layer: nn.Conv2d, x: torch.Tensor, y: torch.Tensor, places: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A convolution's inputs and outputs at random places of each image, as `_rows` wants them."""
    n, _, height, width = y.shape
    places = min(places, height * width)
    at = [rng.choice(height * width, places, replace=False) for _ in range(n)]
    at = torch.from_numpy(np.concatenate(at)).to(y.device)  # (m,)
    image = torch.arange(n, device=y.device).repeat_interleave(places)
    top, left = at // width, at % width
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)  # as the layer itself pads
    reach = [
        start[:, None] * stride + torch.arange(kernel, device=y.device) * dilation
        for start, stride, kernel, dilation in zip(
            (top, left), layer.stride, layer.kernel_size, layer.dilation, strict=True
        )
    ]
    found = x[image[:, None, None], :, reach[0][:, :, None], reach[1][:, None, :]]
    found = found.permute(0, 3, 1, 2)  # (m, kh, kw, I) -> (m, I, kh, kw)
    return found.reshape(len(at), layer.groups, -1), y[image, :, top, left]
