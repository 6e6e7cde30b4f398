"""The kernels of a network: which layers have one, and how a parametrised one becomes plain.

`strip` writes out masks, shared values and rounded weights and leaves the network's mode alone, so
training can go on; `quantize.finish` is the same and then puts it into evaluation mode.
"""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils import parametrize

KERNEL_LAYERS = (nn.Conv2d, nn.Linear)


def layers(model: nn.Module, *, depthwise: bool = True) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name, in order of definition.

    `depthwise` says whether convolutions of each channel by itself are among them. They have few
    weights and suffer most, so the TensorFlow toolkit neither prunes nor clusters them.
    """
    found = {n: m for n, m in model.named_modules() if isinstance(m, KERNEL_LAYERS)}
    return {n: m for n, m in found.items() if depthwise or not _is_depthwise(m)}


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels


def strip(model: nn.Module) -> nn.Module:
    """Copy a network with every parametrised tensor fixed at the value it has now.

    Parameters
    ----------
    model : torch.nn.Module
        Pruned, clustered, quantised or plain; left as it is.

    Returns
    -------
    torch.nn.Module
        Plain layers, in the same mode, with the same outputs bit for bit.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if parametrize.is_parametrized(module):
            _fix(module)
    return model


def _fix(module: nn.Module) -> None:
    """Make a module's parametrised tensors plain ones.

    torch's own removal deletes the property from the class, which a copy shares with its original:
    the original would lose its weight too. So the copy gets the plain class back instead.
    """
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    module.__class__ = type(module).__mro__[1]
    del module.parametrizations
    for name, value in values.items():
        setattr(module, name, nn.Parameter(value))
