"""Magnitude pruning: masks that grow while a network is trained, and channels removed for good.

As in the TensorFlow Model Optimization toolkit, which Stoychev and Gunes (2022) used: kernels of
convolutions and dense layers are pruned, while biases, batch normalisation and depthwise kernels
are not; magnitudes are compared within a layer; masks are made anew every 32 steps. Two things
differ. The number of zeros is exact, even where magnitudes are equal. And a pruned weight gets no
gradient and stays pruned, whereas there it may move by one step of the optimiser between two
maskings, and returns if that makes it larger than a weight that was kept.

    prepare -> update (at the start, and by a schedule while training) -> weights.strip
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn
from torch.nn.utils import parametrize

from studylib import errors
from studylib.compress import weights
from studylib.layers import Add

SCOPES = ("layer", "global")
PATTERNS = ("unstructured", "2:4")
EVERY = 32  # steps between two updates of the masks
TOTAL = "total"
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

Schedule = Callable[[int], float | None]


def constant(sparsity: float, *, begin: int = 0, every: int = EVERY) -> Schedule:
    """One sparsity, from step `begin` on.

    Parameters
    ----------
    sparsity : float
        Share of weights that are zero: from 0, below 1.
    begin, every : int
        First step with an update, and steps from one update to the next.

    Returns
    -------
    callable
        Of the number of training steps done; gives the sparsity for `update`, or None between two
        updates. Ask for step 0 before training, or the first step is taken with all weights.

    Examples
    --------
    >>> schedule = constant(0.5)
    >>> [schedule(step) for step in (0, 1, 31, 32)]
    [0.5, None, None, 0.5]
    """
    _check(begin, every, sparsity=sparsity)
    return lambda step: sparsity if step >= begin and (step - begin) % every == 0 else None


def polynomial(
    sparsity: float,
    *,
    steps: int,
    initial: float = 0.0,
    begin: int = 0,
    every: int = EVERY,
    power: float = 3,
) -> Schedule:
    """A sparsity that grows fast at first and ever more slowly (Zhu and Gupta 2018).

    Parameters
    ----------
    sparsity, initial : float
        The last and the first sparsity: from 0, below 1.
    steps : int
        Step that reaches the last sparsity, which is an update even if none is due then.
    begin, every : int
        As in `constant`.
    power : float
        3 is the authors'; 1 grows evenly.

    Returns
    -------
    callable
        As from `constant`.

    Examples
    --------
    >>> schedule = polynomial(0.8, steps=80)
    >>> schedule(0), round(schedule(32), 4), schedule(33), schedule(80)
    (0.0, 0.6272, None, 0.8)
    """
    _check(begin, every, sparsity=sparsity, initial=initial)
    errors.at_least(begin + 1, steps=steps)

    def schedule(step: int) -> float | None:
        if step < begin or ((step - begin) % every and step != steps):
            return None
        left = max(0.0, (steps - step) / (steps - begin)) ** power
        return (1 - left) * sparsity + left * initial

    return schedule


def _check(begin: int, every: int, **sparsities: float) -> None:
    errors.at_least(0, begin=begin)
    errors.at_least(1, every=every)
    _below_one(**sparsities)


def _below_one(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise errors.ParameterError(errors.BAD_RATE.format(what=name, value=value))


class Mask(nn.Module):
    """A parametrisation that shows a weight with zeros where its mask is False.

    The mask is a buffer (bool, the weight's shape), so it is saved and loaded with the network.
    """

    def __init__(self, weight: torch.Tensor, scope: str, pattern: str):
        super().__init__()
        self.scope, self.pattern = scope, pattern
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The masked weight; a product would turn negative weights into -0.0."""
        return torch.where(self.mask, weight, 0.0)


def prepare(model: nn.Module, *, scope: str = "layer", pattern: str = "unstructured") -> nn.Module:
    """Copy a network and put masks into the copy, all open as yet.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is; anything else on its weights, such as quantisers, is written out first.
    scope : {"layer", "global"}
        Whether magnitudes are compared within each layer, so that all get the same sparsity, or
        over the whole network, where small layers may lose nearly everything or nothing.
    pattern : {"unstructured", "2:4"}
        2:4: two of every four neighbouring inputs (input channels at one position, for a
        convolution) are zero, whatever the scope, which sparse matrix units of GPUs can use
        (Mishra et al. 2021). Layers whose inputs cannot be divided by four stay whole.

    Returns
    -------
    torch.nn.Module
        To be pruned by `update`; its masks are part of its state_dict.

    Raises
    ------
    ParameterError
        Unknown scope or pattern, or a network without a weight to prune.
    """
    errors.one_of("scope", scope, SCOPES)
    errors.one_of("pattern", pattern, PATTERNS)
    model = weights.strip(model)
    for module in weights.layers(model, depthwise=False).values():
        if pattern == "unstructured" or module.weight.shape[1] % 4 == 0:
            mask = Mask(module.weight, scope, pattern)
            parametrize.register_parametrization(module, "weight", mask)
    _masked(model)
    return model


def _masked(model: nn.Module) -> list[tuple[torch.Tensor, Mask]]:
    """Magnitudes of each masked weight as they are now, -1 where pruned, and its mask."""
    found = []
    for module in weights.layers(model, depthwise=False).values():
        if parametrize.is_parametrized(module, "weight"):
            chain = module.parametrizations.weight
            if isinstance(chain[0], Mask):
                # Below every magnitude, so that not even a zero that was kept goes first.
                magnitudes = torch.where(chain[0].mask, chain.original.detach().abs(), -1.0)
                found.append((magnitudes, chain[0]))
    if not found:
        raise errors.ParameterError(errors.NO_MASKS)
    return found


@torch.no_grad()
def update(model: nn.Module, sparsity: float) -> None:
    """Prune the smallest weights, as many as `sparsity` asks for.

    Per layer of n weights, round(sparsity x n) become zero, but never all of them; globally, so
    many of all weights. Among equal magnitudes the first go first. What is pruned stays pruned.

    Parameters
    ----------
    model : torch.nn.Module
        From `prepare`; changed in place.
    sparsity : float
        From 0, below 1, and not below what it is already; for the pattern 2:4 it must be 0.5.

    Raises
    ------
    ParameterError
        If the network has no masks, or `sparsity` is out of range or has fallen.
    """
    _below_one(sparsity=sparsity)
    magnitudes, masks = zip(*_masked(model), strict=True)
    if masks[0].pattern == "2:4":
        if sparsity != 0.5:
            raise errors.ParameterError(errors.FIXED_SPARSITY.format(value=sparsity))
        keeps = [_two_of_four(m) for m in magnitudes]
    elif masks[0].scope == "layer":
        keeps = [_keep(m.flatten(), sparsity).view(m.shape) for m in magnitudes]
    else:
        sizes = [m.numel() for m in magnitudes]
        flat = _keep(torch.cat([m.flatten() for m in magnitudes]), sparsity).split(sizes)
        keeps = [keep.view(m.shape) for keep, m in zip(flat, magnitudes, strict=True)]
    for mask, keep in zip(masks, keeps, strict=True):
        if (keep & ~mask.mask).any():
            raise errors.ParameterError(errors.SPARSITY_FELL.format(value=sparsity))
    for mask, keep in zip(masks, keeps, strict=True):
        mask.mask.copy_(keep)


def _keep(magnitudes: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Which of (n,) stay when the smallest go: bool (n,), one at least."""
    zeros = min(round(sparsity * len(magnitudes)), len(magnitudes) - 1)
    keep = torch.ones_like(magnitudes, dtype=torch.bool)
    keep[magnitudes.argsort(stable=True)[:zeros]] = False
    return keep


def _two_of_four(magnitudes: torch.Tensor) -> torch.Tensor:
    """Which of (O, I, ...) stay when two of four neighbours along I go: bool, the same shape."""
    inputs_last = magnitudes.movedim(1, -1)
    smallest = inputs_last.reshape(-1, 4).argsort(dim=1, stable=True)[:, :2]
    keep = torch.ones(smallest.shape[0], 4, dtype=torch.bool, device=magnitudes.device)
    return keep.scatter_(1, smallest, False).view(inputs_last.shape).movedim(-1, 1)


def sparsity(model: nn.Module) -> pd.DataFrame:
    """How much of each layer is zero.

    Parameters
    ----------
    model : torch.nn.Module
        Prepared, stripped, or any other.

    Returns
    -------
    pandas.DataFrame
        Columns layer, weights, zeros, sparsity (a fraction): one row for each layer that can be
        pruned, and a last one called "total".
    """
    rows = [
        (name, module.weight.numel(), int((module.weight == 0).sum()))
        for name, module in weights.layers(model, depthwise=False).items()
    ]
    rows.append((TOTAL, sum(row[1] for row in rows), sum(row[2] for row in rows)))
    table = pd.DataFrame(rows, columns=["layer", "weights", "zeros"])
    return table.assign(sparsity=table["zeros"] / table["weights"])


@torch.no_grad()
def channels(model: nn.Module, share: float) -> nn.Module:
    """Copy a network into a smaller one, without its weakest channels and dense units.

    Of the n outputs of every layer but the last, round(share x n) go, never all: those whose
    weights have the smallest sum of magnitudes, counting only inputs that are still there (the
    greedy way of Li et al. 2017). Nothing is masked: kernels, biases and batch normalisation are
    really smaller. Of the weights, roughly a share of 1 - (1 - share)^2 goes.

    Parameters
    ----------
    model : torch.nn.Module
        One chain of convolutions, batch normalisation, dense layers and modules without
        parameters, defined in the order in which they are run; left as it is.
    share : float
        From 0, below 1.

    Raises
    ------
    ParameterError
        If `share` is out of range, or the network is no such chain.
    """
    _below_one(share=share)
    model = copy.deepcopy(model)
    leaves = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    last = max((i for i, (_, m) in enumerate(leaves) if _is_layer(m)), default=-1)
    kept = None  # bool (outputs of the layer before,): which stay; None before the first layer
    for i, (name, module) in enumerate(leaves):
        if _is_layer(module):
            _keep_inputs(name, module, kept)
            norms = module.weight.abs().flatten(1).sum(1)
            kept = _keep(norms, share if i < last else 0.0)
            _take(module, ("weight", "bias"), kept)
            _resize(module)
        elif isinstance(module, _NORMS) and kept is not None and module.num_features == len(kept):
            _take(module, ("weight", "bias", "running_mean", "running_var"), kept)
            module.num_features = int(kept.sum())
        elif isinstance(module, Add) or any(module.state_dict()):
            raise _no_chain(name, module)
    return model


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, weights.KERNEL_LAYERS)


def _keep_inputs(name: str, module: nn.Module, kept: torch.Tensor | None) -> None:
    """Leave a layer (O, I, ...) those inputs that are still there."""
    if kept is None:
        return
    inputs = module.weight.shape[1]
    # A dense layer behind a flattened image has one input for every position of a channel.
    positions = inputs // len(kept) if isinstance(module, nn.Linear) else 1
    if inputs != positions * len(kept) or getattr(module, "groups", 1) > 1:
        raise _no_chain(name, module)
    module.weight = nn.Parameter(module.weight[:, kept.repeat_interleave(positions)])


def _take(module: nn.Module, names: tuple[str, ...], kept: torch.Tensor) -> None:
    """Leave a module's named parameters and buffers (outputs, ...) the outputs that are kept."""
    for name in names:
        if (value := getattr(module, name)) is not None:
            smaller = value[kept]
            setattr(module, name, nn.Parameter(smaller) if name in module._parameters else smaller)


def _resize(module: nn.Module) -> None:
    """Tell a layer the size that its weight has."""
    outputs, inputs = module.weight.shape[:2]
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = inputs, outputs
    else:
        module.in_channels, module.out_channels = inputs, outputs


def _no_chain(name: str, module: nn.Module) -> errors.ParameterError:
    kind = type(module).__name__
    return errors.ParameterError(errors.NOT_A_CHAIN.format(name=name, kind=kind))
