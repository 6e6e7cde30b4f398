"""Time the renderer of simulated faces against itself without batches and against Pillow.

The first peer is the same renderer, one picture at a time: the ratio says what batches buy. The
second draws a far simpler face as a program with Pillow would: some ellipses and arcs at four times
the size, scaled down, blurred, with noise, through JPEG; no shading, no folds, no labels, a dozen
numbers a face. It says what drawing costs, not who draws better. Prints medians of faces a second
and the ratios ours / peer; only ratios from one run on one machine mean anything.
`python benchmarks/bench_simfaces.py [--threads N ...] [--device D] [--faces N] [--repeats N]`
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from studylib import runs
from studylib.synthetic import simfaces

FINER = 4  # Pillow does not smooth edges: drawn so much larger, then scaled down
CASES = ((32, 1), (48, 1), (100, 1), (48, 3))  # side in pixels, channels


def cartoon(rng, size, channels):
    """One face with Pillow, uint8 (size, size) or (size, size, 3)."""
    unit = size * FINER / 100
    jitter = rng.normal(0, 2, 8)
    skin, hair, back, iris = ((*rng.integers(40, 230, 3),) for _ in range(4))
    picture = Image.new("RGB", (size * FINER, size * FINER), back)
    pen = ImageDraw.Draw(picture)

    def oval(x, y, wide, high, colour):
        pen.ellipse([(x - wide) * unit, (y - high) * unit, (x + wide) * unit, (y + high) * unit],
                    fill=colour)  # fmt: skip

    oval(50, 40, 40 + jitter[0], 40, hair)
    oval(50, 55, 36, 42 + jitter[1], skin)
    for x in (32, 68):
        oval(x, 45 + jitter[2], 8, 5, "white")
        oval(x, 45 + jitter[2], 4, 4, iris)
        brow = [(x - 10) * unit, (32 + jitter[3]) * unit, (x + 10) * unit, (44 + jitter[3]) * unit]
        pen.arc(brow, 200, 340, fill=hair, width=round(2 * unit))
    oval(50, 62 + jitter[4], 6 + jitter[5] / 2, 4, "black")
    mouth = [35 * unit, (68 + jitter[6]) * unit, 65 * unit, (86 + jitter[7]) * unit]
    pen.chord(mouth, 0, 180, fill="darkred")

    picture = picture.rotate(rng.normal(0, 5)).resize((size, size), Image.Resampling.BOX)
    picture = picture.filter(ImageFilter.GaussianBlur(abs(rng.normal(0, 0.4))))
    picture = picture if channels == 3 else picture.convert("L")
    pixels = np.asarray(picture, np.float32)
    pixels = pixels + rng.standard_normal(pixels.shape, np.float32) * 3
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def single(size, channels, device, n):
    """Draw n faces by our own renderer, one picture at a time."""
    kept = simfaces._CHUNK[device.type]
    simfaces._CHUNK[device.type] = 1
    try:
        simfaces.faces(n, 1, size=size, channels=channels, seed=0, device=device)
    finally:
        simfaces._CHUNK[device.type] = kept


def simpler(size, channels, n):
    """Draw n faces with Pillow."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        cartoon(rng, size, channels)


def speeds(functions, counts, repeats):
    """Median faces a second of functions called in turn, after one call of each to warm up."""
    times = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn:
                kept.append(time.perf_counter() - start)
    return [n / statistics.median(kept) for n, kept in zip(counts, times, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--faces", type=int, default=1024, help="the peers draw an eighth of them")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    runs.keep_memory()  # as every run does
    few = args.faces // 8
    print(
        f"torch {torch.__version__}, {runs.device_name(args.device)}, {8 * few} faces, medians of "
        f"{args.repeats}; Pillow has one thread"
    )
    for threads in args.threads:
        torch.set_num_threads(threads)
        for size, channels in CASES:
            look = {"size": size, "channels": channels}
            functions = (
                partial(simfaces.faces, few, 8, seed=0, device=args.device, **look),
                partial(single, device=args.device, n=few, **look),
                partial(simpler, n=few, **look),
            )
            ours, alone, pillow = speeds(functions, (8 * few, few, few), args.repeats)
            print(
                f"{threads} threads, {size:3} px, {'grey' if channels == 1 else 'RGB':4} "
                f"{ours:6.0f} faces/s, {alone:5.0f} one at a time: ratio {ours / alone:.2f}, "
                f"{pillow:5.0f} simpler ones with Pillow: ratio {ours / pillow:.2f}"
            )


if __name__ == "__main__":
    main()
