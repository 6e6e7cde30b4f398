"""SFace: a MobileNet-v1-like face recognition network (Zhong et al. 2021), as a torch module.

Twenty-seven convolutions (a stem and thirteen depthwise-separable pairs), each followed by batch
normalisation and PReLU; then batch normalisation, a linear layer to 128 numbers, and a last batch
normalisation. Weights come from the OpenCV Zoo's ONNX file (see `assets.float_onnx`).
"""

from __future__ import annotations

import onnx
import onnx.numpy_helper
import torch
from torch import nn

from studylib import assets

# Output channels and stride of the thirteen depthwise-separable pairs.
PAIRS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
PAIRS += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
EMBEDDING = 128


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, PReLU: (N, C_in, H, W) -> (N, C_out, H/s, W/s)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=1e-3)
        self.act = nn.PReLU(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the three in turn."""
        return self.act(self.norm(self.conv(x)))


class SFace(nn.Module):
    """The network: uint8 or float faces (N, 3, 112, 112), RGB 0..255 -> (N, 128), unnormalised.

    Pixels are scaled to -1..1 inside, so a caller hands over what a picture holds.
    """

    def __init__(self):
        super().__init__()
        blocks, c_in = [ConvBlock(3, 32, 3)], 32
        for c_out, stride in PAIRS:
            blocks.append(ConvBlock(c_in, c_in, 3, stride, groups=c_in))
            blocks.append(ConvBlock(c_in, c_out, 1))
            c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(c_in, eps=2e-5)
        self.fc = nn.Linear(c_in * 7 * 7, EMBEDDING)
        self.fc_norm = nn.BatchNorm1d(EMBEDDING, eps=2e-5)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Embed a batch; the caller normalises."""
        x = (faces.float() - 127.5) / 128
        x = self.norm(self.blocks(x))  # (N, 1024, 7, 7)
        return self.fc_norm(self.fc(x.flatten(1)))  # (N, 128)


def load() -> SFace:
    """Build the network with its pretrained weights, in evaluation mode, channels last in memory.

    The carried file's weights are int8 blocks: the fp32 network built here is an int8-rounded
    baseline, computed in fp32.

    Raises
    ------
    AssetError
        If the weights cannot be fetched.
    """
    graph = onnx.load(assets.float_onnx("sface")).graph
    weights = {
        t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer
    }
    # The graph is a chain, and the module's children are declared in the same order.
    layers = [n for n in graph.node if n.op_type in _PARAMETERS]
    model = SFace().eval().to(memory_format=torch.channels_last)
    modules = [m for m in model.modules() if not list(m.children())]
    for node, module in zip(layers, modules, strict=True):
        if not isinstance(module, _MODULES[node.op_type]):
            raise ValueError(f"{node.op_type} in the file, {module} in the network")
        for name, given in zip(_PARAMETERS[node.op_type], node.input[1:], strict=True):
            value = getattr(module, name)
            value.data.copy_(weights[given].reshape(value.shape))
    return model


_PARAMETERS = {
    "Conv": ("weight",),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    "PRelu": ("weight",),
    "Gemm": ("weight", "bias"),
}
_MODULES = {
    "Conv": nn.Conv2d,
    "BatchNormalization": (nn.BatchNorm2d, nn.BatchNorm1d),
    "PRelu": nn.PReLU,
    "Gemm": nn.Linear,
}
