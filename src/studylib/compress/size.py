"""How large a network is, counted in three ways; and files that are as small as they can be.

    nominal  what papers print: parameters times bits, whatever a file would hold
    zip      what Stoychev and Gunes (2022) measured: a plain file of the network, deflated
    packed   a file that holds each tensor in the smallest of the encodings below, and gives it
             back exactly, bit for bit

A packed tensor has two parts. Its words are float32, or float16 where that loses nothing, or the
codes of a quantiser at their own width:

    encoding         what is stored                                       pays for
    plain            every word
    sparse           a bit a weight, and the words that are not zero      pruned weights
    codebook         the distinct words, and for each weight which it is  clustered weights
    sparse codebook  a bit a weight, and a codebook of the others         both

A codebook of codes may also be one for each output channel: codes of clustered weights on grids per
channel are few in every channel, but many in all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import safetensors
import torch
from safetensors.torch import save, save_file
from torch import nn
from torch.nn.utils import parametrize

from studylib import errors
from studylib.compress import quantize, weights

_FORMAT = "studylib-packed-2"
_KEY = "studylib"  # of the file's metadata
_ENTRY = 100  # bytes that one more tensor costs in a file's header, roughly
_MOST = 256  # values in a codebook
_FLOATS = {np.uint32: np.float32, np.uint16: np.float16}  # floats are compared by their bits


def nominal_bytes(model: nn.Module, name: str) -> float:
    """Parameters times bits, in bytes: the size that papers report.

    The bits are those of the precision that the name ends with: fp32 if it has none, so 32. What
    was clustered counts as many bits as tell its values apart (c16: 4), if those are fewer. Of what
    was pruned (s50) only the values that are not zero count, as they are after rounding.

    Batch-normalisation statistics, and what it takes to know where the zeros are or what a code
    stands for, are left out, and biases count as if compressed too: a real file is larger.

    Parameters
    ----------
    model : torch.nn.Module
        In any form.
    name : str
        A precision (w8) or parts joined by +, of which ft2, s50, s50g, s2of4, ch50 and c16 are
        known beside precisions.

    Raises
    ------
    ParameterError
        Another name.

    Examples
    --------
    >>> network = nn.Linear(9, 10)
    >>> [nominal_bytes(network, name) for name in ("fp32", "w4", "c16+w8", "ft2")]
    [400.0, 50.0, 50.0, 400.0]
    """
    bits, pruned = 32, False
    for part in name.split("+"):
        if re.fullmatch(r"s(\d+g?|2of4)", part):
            pruned = True
        elif clusters := re.fullmatch(r"c(\d+)", part):
            bits = min(bits, _index_bits(int(clusters[1])))
        elif not re.fullmatch(r"(ft|ch)\d+", part):
            bits = min(bits, quantize.parse_precision(part).weights or 32)
    values = weights.strip(model).parameters()
    count = sum(int(torch.count_nonzero(p)) if pruned else p.numel() for p in values)
    return count * bits / 8


def zip_bytes(model: nn.Module) -> int:
    """Size of the network's file in a ZIP archive, as in the study of expression recognition.

    The file is what a framework would save: every value in fp32, zeros and repeated values
    included; int8 codes and their grids where a quantiser is, whatever its width; fp16 for
    `quantize.half`. It is a safetensors file where the study had HDF5 and TFLite files. The network
    is written as it is given: normalisation is in the file unless `quantize.fold_norms` merged it
    into the layers, as it does before `shrink` rounds (TFLite's converter folds too). Deflate is
    zlib's, at its usual level.

    Parameters
    ----------
    model : torch.nn.Module
        Plain, or with its quantisers.
    """
    tensors = {}
    for key, value in _contents(model).items():
        if isinstance(value, _Codes):
            tensors[key] = value.codes
            tensors[f"{key}.scale"] = value.scale
            tensors[f"{key}.zero_point"] = value.zero_point
        else:
            tensors[key] = value
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.safetensors", save(tensors))
    return len(archive.getbuffer())


def table(variants: dict[str, nn.Module]) -> pd.DataFrame:
    """Nominal, packed and zipped size of each variant.

    Parameters
    ----------
    variants : dict
        Name -> network, still with its quantisers. The name tells the nominal size.

    Returns
    -------
    pandas.DataFrame
        Columns variant, nominal_mb, packed_mb, zip_mb (10^6 bytes); nominal is NaN where
        `nominal_bytes` does not know the name.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in variants.items():
            packed = save_packed(model, Path(folder) / "packed.safetensors")
            rows.append((name, _nominal_or_nan(model, name), packed, zip_bytes(model)))
    sizes = pd.DataFrame(rows, columns=["variant", "nominal_mb", "packed_mb", "zip_mb"])
    return sizes.assign(**(sizes.drop(columns="variant") / 1e6))


def _nominal_or_nan(model: nn.Module, name: str) -> float:
    try:
        return nominal_bytes(model, name)
    except errors.ParameterError:
        return float("nan")


class _Codes(NamedTuple):
    """A quantised tensor: int8 codes of its shape, and its grid, which broadcasts over them."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    bits: int
    low: int


def _contents(model: nn.Module) -> dict[str, torch.Tensor | _Codes]:
    """What a file has to hold, by the plain network's keys: codes, float16, or values as such."""
    contents = {
        key: value.detach().cpu().contiguous()
        for key, value in weights.strip(model).state_dict().items()
    }
    for name, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for tensor, chain in module.parametrizations.items():
            key = f"{name}.{tensor}" if name else tensor
            if isinstance(chain[0], quantize.WeightQuantizer):
                contents[key] = _codes(chain[0], chain.original.detach())
            elif isinstance(chain[0], quantize.Half):
                contents[key] = contents[key].half()
    return contents


def _codes(quantizer: quantize.WeightQuantizer, original: torch.Tensor) -> _Codes:
    grid = quantizer.grid(original)
    codes = quantize.quantize(original, grid).cpu().contiguous()
    return _Codes(codes, grid.scale.cpu(), grid.zero_point.cpu(), quantizer.bits, grid.low)


def save_packed(model: nn.Module, path: str | Path) -> int:
    """Write a network to a safetensors file, each tensor in its smallest exact encoding.

    Parameters
    ----------
    model : torch.nn.Module
        Pruned, clustered, quantised, halved or plain.
    path : path
        Replaced only when the new file is whole.

    Returns
    -------
    int
        The file's size in bytes.
    """
    path = Path(path)
    tensors, layout = {}, {}
    for key, value in _contents(model).items():
        if isinstance(value, _Codes):
            layout[key] = {"shape": list(value.codes.shape), "bits": value.bits, "low": value.low}
            words = _rows(value.codes.numpy().astype(np.int16) - value.low).astype(np.uint8)
            arrays = _smallest(words, value.bits, _zero_words(value.zero_point, value.low))
            tensors |= {f"{key}.scale": value.scale, f"{key}.zero_point": value.zero_point}
        else:
            words = _float_words(value)
            arrays = {} if words is None else _smallest(words, 8 * words.itemsize, np.array(0))
            if list(arrays) in ([], ["words"]):  # plain, so it needs no place in the layout
                tensors[key] = value if words is None else _tensor(words).view(value.shape)
                continue
            layout[key] = {"shape": list(value.shape)}
        tensors |= {f"{key}.{part}": _tensor(array) for part, array in arrays.items()}
    about = {"format": _FORMAT, "layout": layout, "sha256": digest(tensors, layout)}
    # One entry: several would be written in another order each time.
    save_tensors(tensors, path, {_KEY: json.dumps(about)})
    return path.stat().st_size


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file, which takes the place of an older one only when it is whole."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, scratch, metadata)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def load_packed(path: str | Path, model: nn.Module) -> nn.Module:
    """Fill a network of the same architecture from a packed file.

    Parameters
    ----------
    path : path
        From `save_packed`.
    model : torch.nn.Module
        Prepared like the one that was saved if that had activation quantisers; else plain will do,
        with as many channels. Left as it is.

    Returns
    -------
    torch.nn.Module
        Plain and in evaluation mode, with the stored weights; its outputs equal those of the
        network that was saved, bit for bit.

    Raises
    ------
    DataError
        If there is no whole packed file.
    ParameterError
        If it holds another network.
    """
    model = quantize.finish(model)
    state, layout = _read(Path(path))
    for key, about in layout.items():
        arrays = {
            part: _array(state.pop(f"{key}.{part}"))
            for part in ("mask", "table", "words")
            if f"{key}.{part}" in state
        }
        if "bits" not in about:
            words = _unpack(arrays, about["shape"], None, np.array(0))
            state[key] = _tensor(words).view(about["shape"])
            continue
        scale, zero_point = state.pop(f"{key}.scale"), state.pop(f"{key}.zero_point")
        empty = _zero_words(zero_point, about["low"])
        words = torch.from_numpy(_unpack(arrays, about["shape"], about["bits"], empty))
        state[key] = (words.view(about["shape"]).float() + about["low"] - zero_point) * scale
    try:
        model.load_state_dict(state)
    except RuntimeError as mismatch:
        problem = str(mismatch).splitlines()[1].strip()
        message = errors.OTHER_NETWORK.format(path=path, problem=problem)
        raise errors.ParameterError(message) from None
    return model


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and the layout of a packed file, after checking that it is whole."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError) as problem:
        raise errors.DataError(errors.NOT_PACKED.format(path=path, problem=problem)) from None
    if about.get("format") != _FORMAT:
        problem = f"its format is {about.get('format')}, not {_FORMAT}"
    elif about.get("sha256") != digest(state, about.get("layout")):
        problem = "its content does not match its checksum"
    else:
        return state, about["layout"]
    raise errors.DataError(errors.NOT_PACKED.format(path=path, problem=problem))


def digest(tensors: dict[str, torch.Tensor], layout: dict | None) -> str:
    """SHA-256 of everything a file holds."""
    content = hashlib.sha256(json.dumps(layout, sort_keys=True).encode())
    for key in sorted(tensors):
        content.update(f"{key} {tensors[key].dtype} {list(tensors[key].shape)}".encode())
        content.update(tensors[key].contiguous().numpy())
    return content.hexdigest()


def _rows(values: np.ndarray) -> np.ndarray:
    """Weights (O, ...) as (O, rest); a vector as one row."""
    return values.reshape(values.shape[0], -1) if values.ndim > 1 else values.reshape(1, -1)


def _zero_words(zero_point: torch.Tensor, low: int) -> np.ndarray:
    """The word that stands for zero, for all rows or each: int (1,) or (O, 1)."""
    return zero_point.numpy().astype(np.int64).reshape(-1, 1) - low


def _float_words(value: torch.Tensor) -> np.ndarray | None:
    """Bits of floating-point values as rows: uint16 where float16 is exact, else uint32.

    None for any other type of tensor, and for single numbers.
    """
    if value.dim() == 0 or value.dtype not in (torch.float32, torch.float16):
        return None
    half = value.half()
    same = torch.equal(half.float().view(torch.int32), value.float().view(torch.int32))
    rows = _rows((half if same else value).numpy())
    return rows.view(np.uint16 if same else np.uint32)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """An array to be stored; bits of floats as floats, so that readers of the file see numbers."""
    return torch.from_numpy(array.view(_FLOATS.get(array.dtype.type, array.dtype)))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Undo `_tensor`."""
    array = tensor.numpy()
    bits = {floats: words for words, floats in _FLOATS.items()}
    return array.view(bits.get(array.dtype.type, array.dtype))


def _smallest(words: np.ndarray, bits: int, empty: np.ndarray) -> dict[str, np.ndarray]:
    """Encode words (O, rest) in as few bytes as possible.

    Parameters
    ----------
    words : numpy.ndarray
        Unsigned.
    bits : int
        Bits that a word needs: up to 8 for codes, else those of its type.
    empty : numpy.ndarray
        The word that stands for zero, broadcasting over `words`.

    Returns
    -------
    dict
        Arrays: `mask`, if sparse, has a bit for each word, 0 for an empty one; `table`, if there is
        a codebook, has one row, or O padded with 0 (codes only); `words` holds words or, with a
        table, where in their row of the table they are.
    """
    filled = words != empty
    ways = [({}, words.ravel(), np.full(len(words), words.shape[1]))]
    if not filled.all():
        ways.append(({"mask": np.packbits(filled)}, words[filled], filled.sum(1)))
    options = []
    for start, values, lengths in ways:
        options.append({**start, "words": _packed(values, bits)})
        whole = np.array([len(values)])
        for parts in (whole, lengths) if bits <= 8 else (whole,):
            if coded := _codebook(values, parts, bits):
                options.append({**start, **coded})
    return min(options, key=lambda arrays: sum(a.nbytes + _ENTRY for a in arrays.values()))


def _codebook(values: np.ndarray, lengths: np.ndarray, bits: int) -> dict[str, np.ndarray] | None:
    """Tables of the distinct values of consecutive stretches, if that can save anything."""
    most = min(_MOST, 2 ** (bits - 1))
    if bits > 8:
        # Most tensors with too many values show it at once, without sorting millions of them.
        if len(np.unique(values[: 4 * most])) > most:
            return None
        found, values = np.unique(values, return_inverse=True)
    else:
        found = np.arange(_MOST, dtype=np.uint8)
    stretch = np.repeat(np.arange(len(lengths)), lengths)
    present = np.zeros((len(lengths), len(found)), bool)
    present[stretch, values] = True
    longest = present.sum(1).max()
    if longest > most:
        return None
    place = present.cumsum(1) - 1  # (stretches, values): where in its table a value is
    table = np.zeros((len(lengths), longest), found.dtype)
    at, value = present.nonzero()
    table[at, place[at, value]] = found[value]
    index = place[stretch, values].astype(np.uint8)
    return {"table": table, "words": _packed(index, _index_bits(longest))}


def _index_bits(values: int) -> int:
    """Bits that tell so many values apart: at least 1."""
    return max(1, int(values - 1).bit_length())


def _packed(words: np.ndarray, bits: int) -> np.ndarray:
    return pack_bits(torch.from_numpy(words), bits).numpy() if bits < 8 else words


def _unpack(
    arrays: dict[str, np.ndarray], shape: list[int], bits: int | None, empty: np.ndarray
) -> np.ndarray:
    """Undo `_smallest`: words (O, rest). `bits` is None for floats, which are never packed."""
    rows, size = (shape[0] if len(shape) > 1 else 1), int(np.prod(shape))
    filled = np.ones((rows, size // rows), bool)
    if "mask" in arrays:
        filled = np.unpackbits(arrays["mask"], count=size).astype(bool).reshape(filled.shape)
    words, found = arrays["words"], np.count_nonzero(filled)
    if "table" in arrays:
        tables = arrays["table"]
        lengths = [found] if len(tables) == 1 else filled.sum(1)
        index = unpack_bits(torch.from_numpy(words), _index_bits(tables.shape[1]), found).numpy()
        words = tables[np.repeat(np.arange(len(tables)), lengths), index]
    elif bits is not None:
        words = unpack_bits(torch.from_numpy(words), bits, found).numpy()
    whole = np.broadcast_to(empty, filled.shape).astype(words.dtype)
    whole[filled] = words
    return whole


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
