"""Small torch modules that networks and compression both need to know."""

from __future__ import annotations

import torch
from torch import nn


class Add(nn.Module):
    """A residual sum as a module of its own, so that its result can be observed and quantised."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sum of two tensors of one shape."""
        return x + y


class Every(nn.Module):
    """Every n-th row and column of a map: (B, C, H, W) -> (B, C, ceil(H / n), ceil(W / n))."""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pick them; a 1 x 1 convolution of the result is one with the stride n."""
        return x[:, :, :: self.n, :: self.n]

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return str(self.n)
