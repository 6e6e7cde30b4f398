"""Fake-quantisation in one pass over memory each way: two loops in C, compiled when first wanted.

Rounding an activation is bound by memory, so what counts is how often it is read and written.
Operation by operation that is a dozen times; here the way forward reads the values once and writes
them once, like a copy, and the way back does the same with the gradient. Which values lay inside
the grid is kept as one bit each, a 32nd of the activation, which itself need not be kept.

Why C and not torch.compile: its loops are as quick, but they pack no bits well, and after an
activation has swept the caches a call into a compiled function takes some 0.2 ms, as long as
copying 2 MB.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

_LANES = 16  # floats that are worked on side by side, the widest vector there is
_BLOCK = 8 * _LANES  # values whose bits fill one byte of each lane

# Lane j of a block takes values j, j + LANES, ...; bit k of its byte belongs to the k-th of them.
# The last block of a row may be short, and only there is the inner loop's length not known ahead.
_SOURCE = r"""
#include <math.h>
#include <stdint.h>

#define BLOCK (8 * LANES)
#define CHUNK (64 * BLOCK)  /* what a thread takes at a time; four are worth several threads */
#define MIN(a, b) ((a) < (b) ? (a) : (b))

static inline void round_block(const float *restrict x, float *restrict out, uint8_t *inside,
                               int64_t n, float scale, float inverse, float zero, float low,
                               float high)
{
    int bits[LANES] = {0};
    for (int64_t start = 0, k = 0; start < n; start += LANES, k++) {
        const int lanes = MIN(LANES, n - start);
        for (int j = 0; j < lanes; j++) {
            const float code = rintf(x[start + j] * inverse) + zero;
            const float kept = code < low ? low : code > high ? high : code;  /* NaN stays NaN */
            out[start + j] = (kept - zero) * scale;
            bits[j] |= (code == kept) << k;
        }
    }
    if (inside)
        for (int j = 0; j < LANES; j++)
            inside[j] = bits[j];
}

static inline void mask_block(const float *restrict grad, const uint8_t *inside,
                              float *restrict out, int64_t n)
{
    int bits[LANES];
    for (int j = 0; j < LANES; j++)
        bits[j] = inside[j];
    for (int64_t start = 0, k = 0; start < n; start += LANES, k++) {
        const int lanes = MIN(LANES, n - start);
        for (int j = 0; j < lanes; j++)
            out[start + j] = grad[start + j] * (bits[j] >> k & 1);
    }
}

/* x, out: (rows, n); scales, zeros: (rows,); inside: (rows, blocks, LANES), or NULL. */
void rounded(const float *x, float *out, uint8_t *inside, const float *scales, const float *zeros,
             float low, float high, int64_t rows, int64_t n, int threads)
{
    const int64_t bytes = (n + BLOCK - 1) / BLOCK * LANES;
    #pragma omp parallel for collapse(2) num_threads(threads) if (rows * n >= 4 * CHUNK)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t chunk = 0; chunk < n; chunk += CHUNK) {
            const float scale = scales[row], inverse = 1 / scale, zero = zeros[row];
            const int64_t end = MIN(chunk + CHUNK, n), first = row * n;
            for (int64_t i = chunk; i < end; i += BLOCK) {
                uint8_t *bits = inside ? inside + row * bytes + i / 8 : 0;
                const int64_t at = first + i;
                if (i + BLOCK <= end)
                    round_block(x + at, out + at, bits, BLOCK, scale, inverse, zero, low, high);
                else
                    round_block(x + at, out + at, bits, end - i, scale, inverse, zero, low, high);
            }
        }
}

/* grad, out: (rows, n); inside: (rows, blocks, LANES). */
void masked(const float *grad, const uint8_t *inside, float *out, int64_t rows, int64_t n,
            int threads)
{
    const int64_t bytes = (n + BLOCK - 1) / BLOCK * LANES;
    #pragma omp parallel for collapse(2) num_threads(threads) if (rows * n >= 4 * CHUNK)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t chunk = 0; chunk < n; chunk += CHUNK) {
            const int64_t end = MIN(chunk + CHUNK, n);
            for (int64_t i = chunk; i < end; i += BLOCK) {
                const uint8_t *bits = inside + row * bytes + i / 8;
                const int64_t at = row * n + i;
                if (i + BLOCK <= end)
                    mask_block(grad + at, bits, out + at, BLOCK);
                else
                    mask_block(grad + at, bits, out + at, end - i);
            }
        }
}
"""
# No contraction: a fused multiply-add rounds once where torch's own operations round twice.
_FLAGS = (
    "-O3 -march=native -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp -shared -fPIC"
)
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "rounded": [_POINTER] * 5 + [ctypes.c_float] * 2 + [_SIZE, _SIZE, ctypes.c_int],
    "masked": [_POINTER] * 3 + [_SIZE, _SIZE, ctypes.c_int],
}


def fit(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> bool:
    """Whether the loops can round x: float32 on a CPU, without gaps, a grid in all or one a row."""
    rows = scale.numel()
    return (
        x.numel() > 0
        and (x.is_cpu and scale.is_cpu and zero_point.is_cpu)
        and x.dtype == scale.dtype == zero_point.dtype == torch.float32
        and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
        and (rows == 1 or (scale.dim() == x.dim() and len(scale) == rows))
        and scale.shape == zero_point.shape
        and _library() is not None
    )


def rounded(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    low: int,
    high: int,
    *,
    marked: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Round to a grid and clip to its ends: the values, and marks of those that were inside.

    Parameters
    ----------
    x, scale, zero_point : torch.Tensor
        float32, such that they `fit`.
    low, high : int
        Ends of the grid.
    marked : bool
        Whether the marks are wanted.

    Returns
    -------
    values : torch.Tensor
        float32, in shape and memory as x.
    marks : torch.Tensor or None
        uint8 (rows, bytes), for `masked` alone to read.
    """
    rows, values = scale.numel(), torch.empty_like(x)
    n = x.numel() // rows
    marks = torch.empty(rows, -(-n // _BLOCK) * _LANES, dtype=torch.uint8) if marked else None
    scale, zero_point = scale.contiguous(), zero_point.contiguous()
    _library().rounded(
        x.data_ptr(), values.data_ptr(), marks.data_ptr() if marked else None,
        scale.data_ptr(), zero_point.data_ptr(), low, high, rows, n, torch.get_num_threads(),
    )  # fmt: skip
    return values, marks


def masked(grad: torch.Tensor, marks: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """The gradient of the values that were inside, zero times the gradient of the others.

    Parameters
    ----------
    grad : torch.Tensor
        float32, in the shape of the tensor that was rounded.
    marks : torch.Tensor
        From `rounded`.
    stride : tuple of int
        Strides of the tensor that was rounded, since the marks follow its order in memory.
    """
    if grad.stride() != stride:
        grad = torch.empty_strided(grad.shape, stride).copy_(grad)
    kept = torch.empty_like(grad)
    rows, threads = len(marks), torch.get_num_threads()
    places = grad.data_ptr(), marks.data_ptr(), kept.data_ptr()
    _library().masked(*places, rows, grad.numel() // rows, threads)
    return kept


@cache
def _library() -> ctypes.CDLL | None:
    """The loops for this processor; none without a C compiler ($CC, else cc) that has OpenMP."""
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "loops.c"), Path(folder, "loops.so")
        source.write_text(_SOURCE)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        command = [*compiler, *_FLAGS.split(), f"-DLANES={_LANES}", source, "-o", built, "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True)
            library = ctypes.CDLL(str(built))
        except (OSError, subprocess.CalledProcessError):
            return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library
