"""Time packed batches against torchvision's ImageFolder and DataLoader, and the reading of records.

Both sides give shuffled uint8 batches of the same JPEG faces of 112 px, made here; the folder is
decoded anew in every epoch, the pack was decoded once. Prints medians of images a second and the
ratio ours / peer; only ratios from one run on one machine mean anything. Then it times opening a
RecordIO file and reading the raw records in random order.
`python benchmarks/bench_data.py [--threads N] [--images N] [--records N] [--repeats N]`
"""

from __future__ import annotations

import argparse
import statistics
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from studylib.datasets import identities, packed, records
from studylib.synthetic import simfaces
from studylib.vision import torchvision

BATCH = 128
PER_PERSON = 10
JPEG_BYTES = 5000  # of a face in MS1MV2, about


def write_folder(images: int, root: Path) -> None:
    """Simulated faces as ROOT/<person>/<item>.jpg."""
    faces = simfaces.faces(images // PER_PERSON, PER_PERSON, size=112, channels=3, seed=0)
    for pixels, person, item in zip(
        faces.images, faces.table["subject"], faces.table["item"], strict=True
    ):
        (root / person).mkdir(exist_ok=True)
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        picture.save(root / person / f"{item}.jpg", quality=95)


def write_records(n: int, folder: Path) -> None:
    """`n` records of 5 kB, ten a person, with index; their content is noise, nobody decodes it."""
    content = np.random.default_rng(0).bytes(JPEG_BYTES)
    with open(folder / "train.rec", "wb") as file, open(folder / "train.idx", "w") as index:
        for i in range(n + 1):
            if i:
                payload = struct.pack("<IfQQ", 0, (i - 1) // PER_PERSON, i, 0) + content
            else:  # the header: pictures end before record n + 1
                payload = struct.pack("<IfQQ2f", 2, 0, 0, 0, n + 1, n + 1)
            index.write(f"{i}\t{file.tell()}\n")
            file.write(struct.pack("<II", records.MAGIC, len(payload)) + payload)
            file.write(bytes(-len(payload) % 4))


def our_epoch(pack):
    def epoch():
        for _ in packed.batches(pack, batch_size=BATCH, seed=0, epoch=0):
            pass

    return epoch


def peer_epoch(root, workers):
    listing = torchvision.datasets.ImageFolder(root, torchvision.transforms.PILToTensor())
    loader = DataLoader(
        listing, BATCH, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip

    def epoch():
        for _ in loader:
            pass

    return epoch


def rates(functions, images, repeats):
    """Median images a second of functions called in turn, after one call of each to warm up."""
    times = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn:
                kept.append(time.perf_counter() - start)
    return [images / statistics.median(kept) for kept in times]


def time_batches(args) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "jpeg")
        root.mkdir()
        write_folder(args.images, root)
        start = time.perf_counter()
        pack = packed.pack(identities.read(root), Path(scratch, "pack"))
        seconds = time.perf_counter() - start
        print(f"packed {len(pack)} JPEG faces once: {len(pack) / seconds:.0f} images/s")
        peers = {workers: peer_epoch(root, workers) for workers in args.workers}
        used = len(pack) // BATCH * BATCH
        ours, *theirs = rates([our_epoch(pack), *peers.values()], used, args.repeats)
        for workers, peer in zip(peers, theirs, strict=True):
            print(
                f"packed batches {ours:9.0f} images/s, {peer:7.0f} for ImageFolder + DataLoader "
                f"with {workers} workers: ratio {ours / peer:.1f} (asked for: 4)"
            )


def time_records(args) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_records(args.records, folder)
        order = np.random.default_rng(0).permutation(args.records).tolist()
        for named in ("with train.idx", "without it"):
            start = time.perf_counter()
            found = records.read(folder)
            opened = time.perf_counter() - start
            start = time.perf_counter()
            size = sum(len(found.encoded(i)) for i in order)
            read = time.perf_counter() - start
            assert size == JPEG_BYTES * args.records
            print(
                f"{args.records} records {named}: open {opened:.2f} s (asked for: 1 s for 100000), "
                f"raw read {args.records / read:.0f}/s, open and read "
                f"{args.records / (opened + read):.0f}/s (asked for: 100000/s)"
            )
            (folder / "train.idx").unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="of the peer")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, medians of {args.repeats}")
    time_batches(args)
    time_records(args)


if __name__ == "__main__":
    main()
