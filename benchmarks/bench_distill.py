"""Time the cache of a teacher's embeddings against one .npy file an image, in one run.

The peer is how Neto et al. (2024) keep them: a float32 file for each image, read one by one as
a batch is put together. Both sides give the same batches of random rows as float32 tensors, from
files that the system still holds in memory, which favours the peer: on a cold disk every file of
its is a seek. Prints medians and ratios; only ratios from one run on one machine mean anything.
`python benchmarks/bench_distill.py [--threads N] [--rows N] [--dimensions D] [--batches N]`
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from studylib import embed, models, runs, teacher_cache
from studylib.faces import Faces

BATCH = 128
SIZE = 32  # px, for a teacher so fast that what the cache costs beside it shows
REPEATS = 3


def noise(n: int) -> Faces:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    names = [f"{k:07d}" for k in range(n)]
    return Faces(images, pd.DataFrame({"item": names, "subject": names}), "noise")


def small_network(dimensions: int) -> torch.nn.Module:
    return models.build(
        "iresnet", depth=[1, 1, 1, 1], width=0.0625, embedding=dimensions, size=SIZE, seed=0
    ).eval()


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians(functions, repeats) -> list[float]:
    """Seconds of functions called in turn, after one call of each to warm up."""
    times = [[seconds(function) for function in functions] for _ in range(repeats + 1)]
    return [statistics.median(each) for each in zip(*times[1:], strict=True)]


def time_making(teacher, faces: Faces, root: Path) -> np.ndarray:
    """Embed all faces with and without the cache; what it holds at the end."""
    folders = iter(range(REPEATS + 1))

    def ours():
        folder = root / f"cache{next(folders)}"
        teacher_cache.embeddings(teacher, faces, folder, mirrored=False, batch_size=64)

    made, alone = medians([ours, lambda: embed.embed(teacher, faces, batch_size=64)], REPEATS)
    print(
        f"made     {len(faces) / made:9.0f} images/s, {len(faces) / alone:9.0f} for embedding "
        f"alone: {made / alone:.2f} times as long"
    )
    return teacher_cache.embeddings(teacher, faces, root / "cache0", mirrored=False)


def time_reading(cache: np.ndarray, files: list[Path], batches: int) -> None:
    rng = np.random.default_rng(0)
    order = iter([rng.integers(0, len(files), BATCH) for _ in range(2 * (batches + 1))])

    def ours():
        return torch.from_numpy(cache[next(order), 0]).float()

    def peer():
        return torch.from_numpy(np.stack([np.load(files[k]) for k in next(order)]))

    mine, theirs = medians([ours, peer], batches)
    print(
        f"batch of {BATCH} read in {1e6 * mine:.0f} us, {1e6 * theirs:.0f} us for one .npy an "
        f"image: ratio {theirs / mine:.0f} (asked for: 50)"
    )


def compare_sizes(cache: np.ndarray, files: list[Path]) -> None:
    ours, theirs = Path(cache.filename).stat(), [path.stat() for path in files]
    by_kind = {
        "bytes": (ours.st_size, sum(each.st_size for each in theirs)),
        "on disk": (512 * ours.st_blocks, 512 * sum(each.st_blocks for each in theirs)),
    }
    for kind, (mine, peer) in by_kind.items():
        print(f"{kind:8} {mine / 1e6:9.1f} MB, {peer / 1e6:9.1f} MB: ratio {peer / mine:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--batches", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs.keep_memory()  # as every run does
    print(
        f"torch {torch.__version__}, {args.threads} threads, {args.rows} rows of "
        f"{args.dimensions}, medians of {args.batches} batches"
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        cache = time_making(small_network(args.dimensions), noise(args.rows), root)
        files = [root / "npy" / f"{k:07d}.npy" for k in range(args.rows)]
        files[0].parent.mkdir()
        for path, row in zip(files, cache[:, 0].astype(np.float32), strict=True):
            np.save(path, row)
        time_reading(cache, files, args.batches)
        compare_sizes(cache, files)


if __name__ == "__main__":
    main()
