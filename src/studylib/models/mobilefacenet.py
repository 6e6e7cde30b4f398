"""MobileFaceNet (Chen et al. 2018): a face recognition network of a million parameters.

Bottlenecks as in MobileNetV2 (1x1 up, 3x3 of each channel by itself, 1x1 down without an
activation), PReLU throughout, and at the end, in place of an average, a convolution of each channel
over its whole map. At width 1 and 112 px:

    layer                      channels  expanded  side
    conv1 (stride 2)                 64              56
    conv2 (depthwise)                64              56
    down3, stage3 (4 residual)       64  128, 128    28
    down4, stage4 (6 residual)      128  256, 256    14
    down5, stage5 (2 residual)      128  512, 256     7
    conv6                           512               7
    conv7 (depthwise, 7x7)          512               1
    fc (no bias), fc_norm           128

    parameters    1,003,136 for an embedding of 128 numbers, 1,200,512 for 512

Every convolution is followed by batch normalisation; those that widen, conv1, conv2 and conv6 also
by PReLU. The initial values (He et al. 2015, by fan out) are those of QuantFace (Boutros, Damer and
Kuijper 2022).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from studylib.layers import Add
from studylib.models.iresnet import Pixels, generator, last_side, scaled

STEM, LAST = 64, 512  # channels of conv1 and conv2, of conv6 and conv7
# Stages 3 to 5: channels, those inside the block that halves the picture, residual blocks.
STAGES = ((64, 128, 4), (128, 256, 6), (128, 512, 2))
EXPANSION = 2  # of the channels inside a residual block


class Bottleneck(nn.Module):
    """1x1 to `inner` channels, 3x3 depthwise, 1x1 back: (N, C_in, S, S) -> (N, C_out, S/s, ...).

    With `residual` the input is added to the result; without, the result is what the last
    normalisation gives.
    """

    def __init__(self, c_in: int, c_out: int, inner: int, stride: int, *, residual: bool = False):
        super().__init__()
        self.expand = _conv(c_in, inner, 1)
        self.depthwise = _conv(inner, inner, 3, stride, groups=inner)
        self.project = _conv(inner, c_out, 1, activated=False)
        self.add = Add() if residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the three in turn."""
        y = self.project(self.depthwise(self.expand(x)))
        return y if self.add is None else self.add(x, y)


def mobilefacenet(
    *, embedding: int = 128, width: float = 1.0, size: int = 112, seed: int | None = None
) -> nn.Sequential:
    """Build the network with fresh weights.

    Parameters
    ----------
    embedding : int
        Length of the embedding: 128 in QuantFace, 512 in work on distillation since.
    width : float
        Factor on all channels, rounded; the embedding keeps its length.
    size : int
        Side of the faces in px, at least 32.
    seed : int, optional
        Of the weights; None draws from torch's own generator.

    Returns
    -------
    torch.nn.Sequential
        Takes uint8 or float faces (N, 3, size, size), RGB 0..255, and gives (N, embedding),
        unnormalised. Children are named as in the table above. In training mode, channels last in
        memory.

    Raises
    ------
    ParameterError
        Faces too small, an embedding below 1, or a width not above 0.

    Examples
    --------
    >>> model = mobilefacenet(seed=0)
    >>> sum(p.numel() for p in model.parameters())
    1003136
    """
    c_in, last = scaled((STEM, LAST), width, size, embedding)
    layers = OrderedDict(
        pixels=Pixels(size), conv1=_conv(3, c_in, 3, 2), conv2=_conv(c_in, c_in, 3, groups=c_in)
    )
    for i, (*channels, count) in enumerate(STAGES, 3):
        c_out, inner = scaled(channels, width, size, embedding)
        layers[f"down{i}"] = Bottleneck(c_in, c_out, inner, 2)
        layers[f"stage{i}"] = nn.Sequential(
            *(Bottleneck(c_out, c_out, EXPANSION * c_out, 1, residual=True) for _ in range(count))
        )
        c_in = c_out
    layers["conv6"] = _conv(c_in, last, 1)
    layers["conv7"] = _whole_map(last, last_side(size))
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(last, embedding, bias=False)
    layers["fc_norm"] = nn.BatchNorm1d(embedding)
    model = nn.Sequential(layers)
    drawn = generator(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=drawn
            )
    return model.to(memory_format=torch.channels_last)


def _conv(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, activated: bool = True
) -> nn.Sequential:
    """A convolution, batch normalisation and, if `activated`, PReLU."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out))
    if activated:
        layers["act"] = nn.PReLU(c_out)
    return nn.Sequential(layers)


def _whole_map(channels: int, side: int) -> nn.Sequential:
    """A convolution of each channel over its whole map, (N, C, side, side) -> (N, C, 1, 1)."""
    conv = nn.Conv2d(channels, channels, side, groups=channels, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(channels)))
