"""IResNet: the residual networks of ArcFace (Deng et al. 2019), at any depth, width and size.

A 3x3 stem, four stages of residual blocks that each begin by halving the picture, batch
normalisation, dropout, a dense layer to the embedding, and a last batch normalisation whose factors
stay at 1. A block (Han et al. 2017) is

    batch norm - conv 3x3 - batch norm - PReLU - conv 3x3 (stride) - batch norm, plus the shortcut

where the shortcut is a 1x1 convolution and batch normalisation in a stage's first block, and
nothing elsewhere. At width 1 and 112 px (blocks, and parameters with those that stay fixed):

    stage     channels  side    R18     R34     R50    R100
    stem            64   112
    stage1          64    56      2       3       3       3
    stage2         128    28      2       4       4      13
    stage3         256    14      2       6      14      30
    stage4         512     7      2       3       3       3
    fc             512
    parameters           24,025,600  34,139,328  43,590,848  65,156,160

Blocks, dropout and the initial values (normal, 0.1, for convolutions; torch's own for the dense
layer) are those of QuantFace (Boutros, Damer and Kuijper 2022).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from studylib import errors
from studylib.layers import Add, Every

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
DROPOUT = {BLOCKS[18]: 0.4, BLOCKS[50]: 0.4}  # none in the others
CHANNELS = (64, 128, 256, 512)  # of the four stages; the stem has as many as the first
SMALLEST = 32  # px, so that 2 x 2 values a channel are left after four halvings
_MOST_BLOCKS = 200
# The gradient of a strided 1 x 1 convolution of fewer channels, last in memory, writes beyond its
# workspace (oneDNN's issue 6035, torch 2.13): narrow networks pick the pixels first instead.
_SAFE = 16
_SPREAD = 0.1  # standard deviation of a fresh convolution's weights


class Pixels(nn.Module):
    """A recognition network's door: uint8 or float 0..255 (N, 3, size, size) -> float32, -1..1.

    Faces of another shape are a DataError here, rather than a riddle about matrix shapes later.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Check and scale a batch: (x / 255 - 0.5) / 0.5."""
        wanted = (3, self.size, self.size)
        if faces.shape[1:] != wanted:
            found = tuple(faces.shape[1:])
            raise errors.DataError(errors.OTHER_FACES.format(found=found, wanted=wanted))
        return faces.float() / 127.5 - 1

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"size={self.size}"


class Block(nn.Module):
    """A residual block: (N, C_in, S, S) -> (N, C_out, ceil(S / stride), ...)."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.act = nn.PReLU(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, stride, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Identity() if stride == 1 else _shortcut(c_in, c_out, stride)
        self.add = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the two branches."""
        y = self.act(self.norm2(self.conv1(self.norm1(x))))
        return self.add(self.norm3(self.conv2(y)), self.shortcut(x))


def iresnet(
    depth: int | tuple[int, ...] = 50,
    *,
    width: float = 1.0,
    size: int = 112,
    embedding: int = 512,
    dropout: float | None = None,
    seed: int | None = None,
) -> nn.Sequential:
    """Build the network with fresh weights.

    Parameters
    ----------
    depth : int or tuple
        18, 34, 50 or 100; or the numbers of blocks of four stages of one's own, such as
        (1, 1, 1, 1) for a small machine.
    width : float
        Factor on the channels of the stem and the stages, rounded; the embedding keeps its length.
    size : int
        Side of the faces in px, at least 32.
    embedding : int
        Length of the embedding.
    dropout : float, optional
        Share of the last maps that training drops; None: QuantFace's, 0.4 for 18 and 50, else 0.
    seed : int, optional
        Of the weights; None draws from torch's own generator.

    Returns
    -------
    torch.nn.Sequential
        Takes uint8 or float faces (N, 3, size, size), RGB 0..255, and gives (N, embedding),
        unnormalised. Children: pixels, stem, stage1 to stage4, norm, drop, flatten, fc, fc_norm. In
        training mode, channels last in memory.

    Raises
    ------
    ParameterError
        An unknown depth, faces too small, an embedding below 1, a width not above 0, a dropout
        outside 0..1.

    Examples
    --------
    >>> tiny = iresnet((1, 1, 1, 1), width=0.125, size=32, embedding=64, seed=0).eval()
    >>> tiny(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 64])
    >>> tiny.stage2[0].conv2
    Conv2d(16, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
    """
    blocks = _blocks(depth)
    dropout = DROPOUT.get(blocks, 0.0) if dropout is None else dropout
    errors.fraction(dropout=dropout)
    stem, *stages = scaled((CHANNELS[0], *CHANNELS), width, size, embedding)
    layers = OrderedDict(pixels=Pixels(size), stem=_stem(stem))
    c_in = stem
    for i, (c_out, count) in enumerate(zip(stages, blocks, strict=True), 1):
        stage = [Block(c_in, c_out, 2), *(Block(c_out, c_out, 1) for _ in range(count - 1))]
        layers[f"stage{i}"] = nn.Sequential(*stage)
        c_in = c_out
    layers["norm"] = nn.BatchNorm2d(c_in)
    layers["drop"] = nn.Dropout(dropout)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(c_in * last_side(size) ** 2, embedding)
    layers["fc_norm"] = nn.BatchNorm1d(embedding)
    layers["fc_norm"].weight.requires_grad_(False)
    model = nn.Sequential(layers)
    _initialise(model, seed)
    return model.to(memory_format=torch.channels_last)


def scaled(channels: tuple[int, ...], width: float, size: int, embedding: int) -> tuple[int, ...]:
    """Channels times width, each at least 1, after checking what every network here checks."""
    errors.at_least(SMALLEST, size=size)
    errors.at_least(1, embedding=embedding)
    if not 0 < width < float("inf"):
        raise errors.ParameterError(errors.NOT_ABOVE_ZERO.format(what="width", value=width))
    return tuple(max(1, round(c * width)) for c in channels)


def last_side(size: int) -> int:
    """Side of the last maps, after four halvings that each round up: 7 for 112 px."""
    return -(-size // 16)


def generator(seed: int | None) -> torch.Generator | None:
    """A seeded generator; None stands for torch's own."""
    return None if seed is None else torch.Generator().manual_seed(seed)


def _blocks(depth: int | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(depth, list | tuple):
        if len(depth) == 4 and all(n in range(1, _MOST_BLOCKS + 1) for n in depth):
            return tuple(depth)
    elif depth in BLOCKS:
        return BLOCKS[depth]
    raise errors.ParameterError(errors.BAD_DEPTH.format(value=depth, most=_MOST_BLOCKS))


def _stem(c_out: int) -> nn.Sequential:
    conv = nn.Conv2d(3, c_out, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out), act=nn.PReLU(c_out)))


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    if c_in >= _SAFE:
        conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out)))
    conv = nn.Conv2d(c_in, c_out, 1, bias=False)
    return nn.Sequential(OrderedDict(pick=Every(stride), conv=conv, norm=nn.BatchNorm2d(c_out)))


def _initialise(model: nn.Module, seed: int | None) -> None:
    drawn = generator(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, _SPREAD, generator=drawn)
    bound = model.fc.in_features**-0.5  # torch's own bound for a dense layer
    nn.init.uniform_(model.fc.weight, -bound, bound, generator=drawn)
    nn.init.uniform_(model.fc.bias, -bound, bound, generator=drawn)
