"""How large a network is: nominal bits, and bits really packed into a file.

Nominal is what the papers print: every parameter times its bits, whatever a file would hold.
Packed is a real safetensors file: codes of quantised weights at their own width, their scales and
zero points, and everything else in fp32.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

from studylib.compress import quantize

_FORMAT = "studylib-packed-1"


def nominal_bytes(model: nn.Module, precision: str) -> float:
    """Parameters times weight bits, in bytes: the size the papers report.

    Batch-normalisation statistics are left out, and biases and scales count as if quantised too,
    so a real file is larger; compare `save_packed`.
    """
    bits = quantize.parse_precision(precision).weights or 32
    return sum(p.numel() for p in model.parameters()) * bits / 8


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack whole numbers 0..2^bits-1 without gaps: uint8 (ceil(n * bits / 8),), last byte padded.

    Examples
    --------
    >>> pack_bits(torch.tensor([1, 2, 3, 0]), 2)
    tensor([108], dtype=torch.uint8)
    """
    values = codes.flatten().to(torch.uint8).numpy()
    planes = values[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8) & 1  # (n, bits)
    return torch.from_numpy(np.packbits(planes))


def unpack_bits(packed: torch.Tensor, bits: int, n: int) -> torch.Tensor:
    """Undo `pack_bits` for n codes: uint8 (n,)."""
    planes = np.unpackbits(packed.numpy(), count=n * bits).reshape(n, bits)
    weights = 1 << np.arange(bits - 1, -1, -1)
    return torch.from_numpy((planes @ weights).astype(np.uint8))


def save_packed(model: nn.Module, path: str | Path) -> int:
    """Write a quantised (or plain) network to a safetensors file with its weights packed.

    Parameters
    ----------
    model : torch.nn.Module
        From `quantize.prepare`, calibrated or trained.
    path : path
        Replaced only when the new file is whole.

    Returns
    -------
    int
        The file's size in bytes.
    """
    path = Path(path)
    tensors, layout = {}, {}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            key = f"{name}.weight"
            codes, grid, bits = _weight_codes(module)
            layout[key] = {"shape": list(codes.shape), "bits": bits, "low": grid.low}
            tensors[f"{key}.codes"] = pack_bits(codes.int() - grid.low, bits)
            tensors[f"{key}.scale"] = grid.scale.cpu()
            tensors[f"{key}.zero_point"] = grid.zero_point.cpu()
    for key, value in model.state_dict().items():
        if "parametrizations" not in key:
            tensors[key] = value.cpu().contiguous()
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, scratch, {"format": _FORMAT, "layout": json.dumps(layout)})
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return path.stat().st_size


def table(variants: dict[str, nn.Module]) -> pd.DataFrame:
    """Nominal and really packed size of each variant.

    Parameters
    ----------
    variants : dict
        Precision -> network from `quantize.prepare`.

    Returns
    -------
    pandas.DataFrame
        Columns variant, nominal_mb, packed_mb (10^6 bytes).
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for precision, model in variants.items():
            packed = save_packed(model, Path(folder) / "packed.safetensors")
            nominal = nominal_bytes(model, precision)
            rows.append(
                {"variant": precision, "nominal_mb": nominal / 1e6, "packed_mb": packed / 1e6}
            )
    return pd.DataFrame(rows)


def _weight_codes(module: nn.Module) -> tuple[torch.Tensor, quantize.QParams, int]:
    weight = module.parametrizations.weight
    quantizer, original = weight[0], weight.original.detach()
    grid = quantizer.grid(original)
    return quantize.quantize(original, grid).cpu(), grid, quantizer.bits


def load_packed(path: str | Path, model: nn.Module) -> nn.Module:
    """Fill a network of the same architecture and precision from a packed file.

    Parameters
    ----------
    path : path
        From `save_packed`.
    model : torch.nn.Module
        From `quantize.prepare` with the same precision; left as it is.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, with the stored weights at their dequantised values; its outputs equal
        those of the network that was saved, bit for bit.
    """
    model = quantize.finish(model)
    with safetensors.safe_open(path, "pt") as file:
        layout = json.loads(file.metadata()["layout"])
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key, about in layout.items():
        n = int(np.prod(about["shape"]))
        codes = unpack_bits(state.pop(f"{key}.codes"), about["bits"], n).float() + about["low"]
        scale, zero_point = state.pop(f"{key}.scale"), state.pop(f"{key}.zero_point")
        state[key] = (codes.view(about["shape"]) - zero_point) * scale
    model.load_state_dict(state)
    return model
