"""MobileStyleGAN: synthetic photographs of faces that belong to nobody.

The network is MobileStyleGAN (Belousov, 2021, arXiv:2104.04767), distilled from StyleGAN2 (Karras
et al., 2020, arXiv:1912.04958) and trained on FFHQ. It is rebuilt here from the OpenVINO graph in
which its author published it: an MLP maps a latent z to a style w; from a learned 4 x 4 constant,
seven blocks double the resolution by an inverse Haar wavelet and convolve with depthwise-separable
filters, each of whose input channels the style scales; the last block writes the twelve wavelet
bands of a 1024 x 1024 picture. Demodulation is part of the published filters, and the noise of
StyleGAN2 is a fixed plane per convolution, so a picture depends on its latent alone.
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors

WIDTH = 512  # of a latent and of a style
SIZES = (64, 128, 256, 512, 1024)

# (input, output) channels of each block; the wavelet in between leaves a quarter of the inputs
_BLOCKS = ((512, 512), (512, 512), (512, 512), (512, 512), (512, 256), (256, 128), (128, 64))
_SLOPE = 0.2
_MEAN_DRAWS, _MEAN_SEED = 4096, 0
_FLOATS = {"f32": "<f4", "f16": "<f2"}
_INTEGERS = {"i32", "i64"}
# Every operation of the two graphs: any other would be one that the module does not perform.
_OPERATIONS = {
    "Parameter",
    "Const",
    "Result",
    "Add",
    "Multiply",
    "Power",
    "ReduceMean",
    "MatMul",
    "PReLU",
    "Convolution",
    "GroupConvolution",
    "GroupConvolutionBackpropData",
    "VariadicSplit",
    "Broadcast",
    "Tile",
    "Concat",
    "Gather",
    "Reshape",
    "ShapeOf",
    "Squeeze",
    "Unsqueeze",
}


class MobileStyleGAN(nn.Module):
    """The generator: latent z -> style w -> picture. Inference only, in float32.

    Use `load` to get one with its weights. Activations are kept channels-last and are changed in
    place, which is what makes it fast on a CPU. On a GPU the caller decides, for the whole process,
    whether cuDNN may round to TF32.

    Attributes
    ----------
    w_mean : Tensor
        The style of the mean face (512,), the centre of truncation.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(8))
        self.start = nn.Parameter(torch.empty(1, 512, 4, 4))
        self.first = _StyledConv(512, 4, nn.Conv2d(512, 512, 3, padding=1))
        self.blocks = nn.ModuleList(
            _Block(inputs, outputs, 8 * 2**level) for level, (inputs, outputs) in enumerate(_BLOCKS)
        )
        self.picture = _Picture(64)
        self.register_buffer("w_mean", torch.zeros(WIDTH))

    @torch.no_grad()
    def mapping(self, z: torch.Tensor) -> torch.Tensor:
        """Map latents z (N, 512), standard normal, to styles w (N, 512)."""
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            w = math.sqrt(2) * F.leaky_relu(layer(w), _SLOPE)
        return w

    def truncate(self, w: torch.Tensor, psi: float) -> torch.Tensor:
        """Draw styles w (N, 512) towards the mean face: 1 leaves them, 0 makes all the same."""
        return self.w_mean + psi * (w - self.w_mean)

    @torch.no_grad()
    def synthesis(self, w: torch.Tensor, size: int = 1024) -> torch.Tensor:
        """Draw the pictures of the styles w.

        Parameters
        ----------
        w : Tensor
            Styles, float32 (N, 512).
        size : int
            Edge in pixels, one of `SIZES`. A smaller picture is the mean over squares of the full
            one. Half of it is the low band of the last wavelet, so the full one need not be made.

        Returns
        -------
        Tensor
            RGB pictures, float32 (N, 3, size, size), nominally in [-1, 1] but not clipped.

        Raises
        ------
        ParameterError
            If the size is not one of `SIZES`.
        """
        _check_size(size)
        x = self.first(self.start.repeat(len(w), 1, 1, 1), w)
        for block in self.blocks:
            x = block(x, w)
        if size == 1024:
            return self.picture(x, w)
        return F.avg_pool2d(self.picture.low_band(x, w), 512 // size)

    def forward(self, z: torch.Tensor, psi: float = 0.7, size: int = 1024) -> torch.Tensor:
        """Draw the pictures of the latents z (N, 512): `mapping`, `truncate`, `synthesis`."""
        return self.synthesis(self.truncate(self.mapping(z), psi), size)


class _Style(nn.Linear):
    """One factor for each channel of an activation, from w; it scales the activation in place."""

    def __init__(self, channels, scale=1.0):
        super().__init__(WIDTH, channels)
        self.scale = scale

    def forward(self, x, w):
        return x.mul_(super().forward(w).mul_(self.scale)[:, :, None, None])


class _StyledConv(nn.Module):
    """Style, convolution and bias, fixed noise, leaky rectifier."""

    def __init__(self, inputs, size, conv):
        super().__init__()
        self.style = _Style(inputs, (9 * inputs) ** -0.5)
        self.conv = conv
        self.noise = nn.Parameter(torch.empty(1, 1, size, size))

    def forward(self, x, w):
        return F.leaky_relu_(self.conv(self.style(x, w)).add_(self.noise), _SLOPE)


class _Block(nn.Module):
    """Double the resolution, then convolve twice."""

    def __init__(self, inputs, outputs, size):
        super().__init__()
        middle = inputs // 4
        self.up = _Style(inputs)
        self.conv1 = _StyledConv(middle, size, _separable(middle, outputs))
        self.conv2 = _StyledConv(outputs, size, _separable(outputs, outputs))

    def forward(self, x, w):
        x = _inverse_haar(self.up(x, w))
        return self.conv2(self.conv1(x, w), w)


class _Picture(nn.Module):
    """The four wavelet bands of an RGB picture, or its low band alone."""

    def __init__(self, inputs):
        super().__init__()
        self.style = _Style(inputs, inputs**-0.5)
        self.conv = nn.Conv2d(inputs, 12, 1)

    def forward(self, x, w):
        return _inverse_haar(self.conv(self.style(x, w)))

    def low_band(self, x, w):
        # The low band is twice the mean of each 2 x 2 square, so the other nine planes are spared.
        weight, bias = self.conv.weight[:3], self.conv.bias[:3]
        return F.conv2d(self.style(x, w), weight, bias).mul_(0.5)


def _separable(inputs, outputs):
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1))


def _inverse_haar(x):
    """(N, 4C, H, W) -> (N, C, 2H, 2W): C low bands, then three detail bands for each of the C."""
    n, channels, height, width = x.shape
    c = channels // 4
    low, rows, columns, both = x[:, :c], x[:, c::3], x[:, c + 1 :: 3], x[:, c + 2 :: 3]
    shape = (n, c, 2 * height, 2 * width)
    out = torch.empty(shape, device=x.device, memory_format=torch.channels_last)
    for row, sign in enumerate((1, -1)):
        even = torch.add(low, rows, alpha=sign).mul_(0.5)
        odd = torch.add(columns, both, alpha=sign).mul_(0.5)
        torch.add(even, odd, out=out[:, :, row::2, 0::2])
        torch.sub(even, odd, out=out[:, :, row::2, 1::2])
    return out


def load(folder: str | Path, device: str | torch.device = "cpu") -> MobileStyleGAN:
    """Build the generator and fill it with the published weights.

    Parameters
    ----------
    folder : path
        Holds MappingNetwork and SynthesisNetwork, each an .xml and a .bin (OpenVINO IR), as in the
        folder random_face/data of the asset "random-face".
    device : str or torch.device
        Where the generator will run.

    Returns
    -------
    MobileStyleGAN
        In evaluation mode, without gradients. Its mean style is the mean over 4096 seeded latents.

    Raises
    ------
    AssetError
        If a file is missing or cut short, or the graph is not that of MobileStyleGAN.
    """
    folder = Path(folder)
    generator = MobileStyleGAN().eval().requires_grad_(False)
    weights = _weights(folder)
    for name, parameter in generator.named_parameters():
        found, expected = weights[name].size, parameter.numel()
        if found != expected:
            raise _wrong_graph(folder, f"{name} has {found} values instead of {expected}")
        parameter.copy_(torch.from_numpy(weights[name]).view_as(parameter))
    generator.w_mean.copy_(generator.mapping(latents(_MEAN_DRAWS, _MEAN_SEED)).mean(0))
    return generator.to(device, memory_format=torch.channels_last)


def latents(n: int, seed: int) -> torch.Tensor:
    """Draw n latents, float32 (n, 512), standard normal.

    They are drawn on the CPU, one after another: latent i depends on the seed and on i alone, so a
    longer draw begins with the shorter one.
    """
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def latents_from(start: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield the latents (512,) of a seed without end, from number `start` on; see `latents`."""
    generator = torch.Generator().manual_seed(seed)
    blocks = (torch.randn(64, WIDTH, generator=generator) for _ in count())
    return islice(chain.from_iterable(blocks), start, None)


@torch.inference_mode()
def photographs(
    generator: MobileStyleGAN, z: torch.Tensor, psi: float = 0.7, size: int = 512
) -> np.ndarray:
    """Draw the photographs of a batch of latents.

    Parameters
    ----------
    generator : MobileStyleGAN
        From `load`; its device does the work.
    z : torch.Tensor
        float32 (N, 512), from `latents` or `latents_from`. One at a time is fastest on a CPU, and
        takes the least memory; a GPU wants more. Other batches (threads, devices) round
        differently: one value in ten thousand may change by one level.
    psi : float
        Truncation: nearer 0 the faces are cleaner and more alike, at 1 they vary as learned.
    size : int
        Edge in pixels, one of `SIZES`; smaller than 1024 is the mean over squares (area filter).

    Returns
    -------
    numpy.ndarray
        RGB, uint8 (N, 3, size, size).

    Raises
    ------
    ParameterError
        If the size is not one of `SIZES`.
    """
    pictures = generator(z.to(generator.w_mean.device), psi, size)
    levels = pictures.add_(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).contiguous().cpu().numpy()


def _check_size(size):
    if size not in SIZES:
        choices = ", ".join(map(str, SIZES))
        text = errors.UNKNOWN_NAME.format(what="picture size", value=size, choices=choices)
        raise errors.ParameterError(text)


def _weights(folder):
    """Read both graphs and give each weight the name it has in the module."""
    found = {}
    for graph, names in (("Mapping", _mapping_names()), ("Synthesis", _synthesis_names())):
        path = folder / f"{graph}Network.xml"
        constants = _constants(path)
        order = {name: place for place, name in enumerate(constants)}
        arrays = list(constants.values())
        for ours, theirs, before in names:
            if theirs not in constants:
                raise _wrong_graph(path, f"it holds no constant named {theirs}")
            found[ours] = arrays[order[theirs] - before]
    return found


def _mapping_names():
    """Yield rows as `_synthesis_names`: here the published names are numbers."""
    weights = (173, 177, 181, 185, 189, 193, 197, 201)
    for layer, number in enumerate(weights):
        yield f"layers.{layer}.weight", f"{number}", 0
        yield f"layers.{layer}.bias", f"{number + 1}", 0


def _synthesis_names():
    """Yield (our name, published name, how many places before that one the constant stands).

    A demodulated filter, its noise and its bias follow one another; only the bias kept its name.
    """
    yield "start", "m.input.input", 0
    last = len(_BLOCKS) - 1
    styles = {"first.style": "m.conv1.conv", "picture.style": f"m.layers.{last}.to_img.conv"}
    convs = {"first": ("m.conv1", "conv")}
    for i in range(len(_BLOCKS)):
        styles[f"blocks.{i}.up"] = f"m.layers.{i}.up"
        for conv in ("conv1", "conv2"):
            ours, theirs = f"blocks.{i}.{conv}", f"m.layers.{i}.{conv}"
            styles[f"{ours}.style"] = f"{theirs}.conv"
            convs[ours] = (theirs, "conv.1")
            yield f"{ours}.conv.0.weight", f"{theirs}.conv.weight_dw", 0
    for ours, theirs in styles.items():
        yield f"{ours}.weight", f"{theirs}.modulation.weight", 0
        yield f"{ours}.bias", f"{theirs}.modulation.bias", 0
    for ours, (theirs, conv) in convs.items():
        yield f"{ours}.{conv}.weight", f"{theirs}.bias", 2
        yield f"{ours}.noise", f"{theirs}.bias", 1
        yield f"{ours}.{conv}.bias", f"{theirs}.bias", 0
    yield "picture.conv.weight", f"m.layers.{last}.to_img.conv.weight", 0
    yield "picture.conv.bias", f"m.layers.{last}.to_img.bias", 0


def _constants(path):
    """Read the floating-point constants of an OpenVINO IR as float32, by name, in graph order."""
    try:
        layers = ElementTree.parse(path).getroot().findall("layers/layer")
        data = path.with_suffix(".bin").read_bytes()
    except (OSError, ElementTree.ParseError) as error:
        raise _wrong_graph(path, error) from error
    found = {}
    for layer in layers:
        name, kind = layer.get("name"), layer.get("type")
        if kind not in _OPERATIONS:
            raise _wrong_graph(path, f"layer {name} has the unexpected type {kind}")
        fields = layer.find("data").attrib if kind == "Const" else {"element_type": "i64"}
        if fields["element_type"] in _INTEGERS:
            continue
        if fields["element_type"] not in _FLOATS:
            raise _wrong_graph(path, f"layer {name} has the type {fields['element_type']}")
        offset, size = int(fields["offset"]), int(fields["size"])
        if offset + size > len(data):
            raise errors.AssetError(
                errors.SHORT_WEIGHTS.format(
                    path=path.with_suffix(".bin"), found=len(data), needed=offset + size
                )
            )
        dtype = np.dtype(_FLOATS[fields["element_type"]])
        found[name] = np.frombuffer(data, dtype, size // dtype.itemsize, offset).astype(np.float32)
    return found


def _wrong_graph(path, problem):
    return errors.AssetError(errors.WRONG_GRAPH.format(path=path, problem=problem))
