"""The expression network of Stoychev and Gunes (2022), at any width.

Four convolutions and two dense layers, each followed by batch normalisation, ReLU and dropout, then
a dense layer to the classes; the convolutions also halve the picture. At width 1:

    layer              channels  kernel    side at 48 px   at 100 px
    conv1 (same)             64   3 x 3               24          50
    conv2                   128   5 x 5               12          25
    conv3                   512   3 x 3                6          12
    conv4                   512   3 x 3                3           6
    flatten                                        4,608      18,432
    dense5                  256
    dense6                  512
    dense7             classes

    parameters, as Keras counts                4,479,240   8,017,671
                                             (8 classes) (7 classes)

The study trained in Keras, whose defaults differ from torch's and are kept here: Glorot-uniform
weights and zero biases; batch normalisation with epsilon 1e-3 and a long memory.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from studylib import errors

CONVOLUTIONS = ((64, 3), (128, 5), (512, 3), (512, 3))  # output channels, kernel
DENSE = (256, 512)
DROPOUT = 0.25
NORM_EPSILON = 1e-3
PIXELS = {"0..255": 1.0, "unit": 255.0}  # what pixels are divided by
_SMALLEST = 2 ** len(CONVOLUTIONS)  # px, so that one value a channel is left to flatten


class Pixels(nn.Module):
    """The network's door: uint8 or float pixels 0..255 -> float32, divided by `divisor`.

    Faces of another size or number of channels than the network's are a DataError here, rather than
    a riddle about matrix shapes seven layers further on.
    """

    def __init__(self, size: int, divisor: float):
        super().__init__()
        self.size, self.divisor = size, divisor

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Check and scale a batch (N, 1, size, size)."""
        wanted = (1, self.size, self.size)
        if faces.shape[1:] != wanted:
            raise errors.DataError(
                errors.OTHER_FACES.format(found=tuple(faces.shape[1:]), wanted=wanted)
            )
        return faces.float() / self.divisor

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"size={self.size}, divisor={self.divisor:g}"


def fer_cnn(
    num_classes: int,
    in_size: int,
    width: float = 1.0,
    *,
    pixels: str = "0..255",
    norm_momentum: float = 0.99,
    seed: int = 0,
) -> nn.Sequential:
    """Build the network with fresh weights.

    Parameters
    ----------
    num_classes : int
        At least 2; the study's sets have 8 (CK+) and 7 (RAF-DB).
    in_size : int
        Side of the faces in px, at least 16; the study used 48 (CK+) and 100 (RAF-DB).
    width : float
        Factor on every number of channels but the last, rounded; 1.0 is the study's network.
    pixels : {"0..255", "unit"}
        Scaling before the first convolution: none, as in the study, or to 0..1.
    norm_momentum : float
        Share of its running statistics that batch normalisation keeps at each step, as Keras counts
        (torch's momentum is one minus this). Keras's 0.99 needs some 500 steps to forget the
        statistics it began with; until then a network in evaluation mode is not the one that was
        trained, which on a set as small as CK+ (28 steps an epoch) lasts most of the training.
    seed : int
        Of the weights.

    Returns
    -------
    torch.nn.Sequential
        Takes uint8 or float faces (N, 1, in_size, in_size), 0..255, and gives float32 logits
        (N, num_classes): the softmax is left to the loss. Children are named as in the table above
        (`conv1`, `norm1`, `relu1`, `pool1`, `drop1`, ...). In training mode, channels last in
        memory.

    Raises
    ------
    ParameterError
        Too few classes, too small faces, a width not above 0, a momentum not between 0 and 1, or an
        unknown `pixels`.

    Examples
    --------
    >>> model = fer_cnn(8, 48)
    >>> parameter_count(model)
    4479240
    >>> model.conv2
    Conv2d(64, 128, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
    """
    errors.at_least(2, num_classes=num_classes)
    errors.at_least(_SMALLEST, in_size=in_size)
    errors.one_of("scaling of pixels", pixels, PIXELS)
    if not width > 0:
        raise errors.ParameterError(errors.NOT_ABOVE_ZERO.format(what="width", value=width))
    errors.share(norm_momentum=norm_momentum)
    statistics = {"eps": NORM_EPSILON, "momentum": 1 - norm_momentum}
    layers = OrderedDict(pixels=Pixels(in_size, PIXELS[pixels]))
    c_in = 1
    for i, (channels, kernel) in enumerate(CONVOLUTIONS, 1):
        c_out = _scaled(channels, width)
        layers[f"conv{i}"] = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
        layers |= _normalised(i, nn.BatchNorm2d(c_out, **statistics), pooled=True)
        c_in = c_out
    layers["flatten"] = nn.Flatten()
    c_in *= (in_size // _SMALLEST) ** 2  # four halvings, each rounded down
    for i, channels in enumerate(DENSE, len(CONVOLUTIONS) + 1):
        c_out = _scaled(channels, width)
        layers[f"dense{i}"] = nn.Linear(c_in, c_out)
        layers |= _normalised(i, nn.BatchNorm1d(c_out, **statistics), pooled=False)
        c_in = c_out
    layers[f"dense{i + 1}"] = nn.Linear(c_in, num_classes)
    model = nn.Sequential(layers)
    _initialise(model, seed)
    return model.to(memory_format=torch.channels_last)


def parameter_count(model: nn.Module) -> int:
    """Parameters of a plain network as Keras counts them: with normalisation's running statistics.

    The count of steps that torch keeps beside those statistics is a whole number, and left out.
    """
    return sum(v.numel() for v in model.state_dict().values() if v.is_floating_point())


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _normalised(i: int, norm: nn.Module, *, pooled: bool) -> dict[str, nn.Module]:
    """What follows the i-th layer."""
    pool = {f"pool{i}": nn.MaxPool2d(2)} if pooled else {}
    return {f"norm{i}": norm, f"relu{i}": nn.ReLU(), **pool, f"drop{i}": nn.Dropout(DROPOUT)}


def _initialise(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
