"""Time training against torchvision's ImageFolder, DataLoader and v2 transforms, in one run.

Both feed the same network (48 px, 7 classes) with the same faces, flipped and rotated; ours keeps
them on the device as bytes, the peer reads a folder of PNG files. Prints medians of images a second
and the ratio ours / peer; only ratios from one run on one machine mean anything.
`python benchmarks/bench_train.py [--device D] [--threads N] [--widths W ...] [--repeats N]`
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

from studylib import models, runs, train
from studylib.synthetic import simfaces
from studylib.vision import torchvision

BATCH = 32
SIZE = 48


def write_folder(faces, root):
    """The faces as ROOT/<expression>/<number>.png."""
    for i, (pixels, label) in enumerate(zip(faces.images, faces.table["label"], strict=True)):
        folder = Path(root) / faces.classes[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(folder / f"{i:06d}.png")


def peer_loader(root, workers, device):
    from torchvision.transforms import v2

    steps = [
        v2.PILToTensor(),
        v2.Grayscale(),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(10, v2.InterpolationMode.BILINEAR),
    ]
    return DataLoader(
        torchvision.datasets.ImageFolder(root, v2.Compose(steps)),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def network(width, device):
    model = models.fer_cnn(7, SIZE, width, pixels="unit").to(device)
    return model, torch.optim.Adam(model.parameters(), 5e-4, fused=True)


def our_inputs(faces, device):
    """One epoch of ready batches, as `train.fit` makes them."""
    generator = torch.Generator().manual_seed(0)
    images = faces.images.to(device)

    def epoch():
        batches = train._batches(len(faces), BATCH, True, 10.0, generator)
        for order, mirrored, angles in zip(*(b.to(device) for b in batches), strict=True):
            train.augment(images[order], mirrored, angles)

    return epoch


def peer_inputs(loader, device):
    def epoch():
        for images, _ in loader:
            images.to(device, non_blocking=True)

    return epoch


def our_training(faces, chosen_on, width, device):
    model, _ = network(width, device)
    return lambda: train.fit(model, faces, chosen_on, epochs=1, seed=0, device=device)


def peer_training(loader, width, device):
    model, optimiser = network(width, device)

    def epoch():
        model.train()
        for images, labels in loader:
            images = images.to(device, non_blocking=True)
            loss = F.cross_entropy(model(images), labels.to(device, non_blocking=True))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return epoch


def speeds(functions, images, device, repeats):
    """Median images a second of functions called in turn, after one call of each to warm up."""
    times = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                kept.append(time.perf_counter() - start)
    return [images / statistics.median(kept) for kept in times]


def report(what, ours, peer):
    print(f"{what:28} {ours:9.0f} images/s, {peer:9.0f} for the peer: ratio {ours / peer:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, help="of the peer's DataLoader; default: threads")
    parser.add_argument("--people", type=int, default=200, help="with eight faces each")
    parser.add_argument("--widths", type=float, nargs="*", default=[0.125, 0.25, 0.5, 1.0])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs.keep_memory()  # as every run does
    workers = args.threads if args.workers is None else args.workers
    faces = simfaces.faces(args.people, 8, size=SIZE, seed=0)
    chosen_on = faces.take(range(2))  # fit looks at them once; two cost nothing
    images = len(faces) // BATCH * BATCH
    print(
        f"torch {torch.__version__}, {runs.device_name(args.device)}, {args.threads} threads, "
        f"{workers} workers for the peer, {images} images an epoch, medians of {args.repeats}"
    )
    with tempfile.TemporaryDirectory() as root:
        write_folder(faces, root)
        loader = peer_loader(root, workers, args.device)
        pair = [our_inputs(faces, args.device), peer_inputs(loader, args.device)]
        report("input pipeline alone", *speeds(pair, images, args.device, 3 * args.repeats))
        for width in args.widths:
            pair = [
                our_training(faces, chosen_on, width, args.device),
                peer_training(loader, width, args.device),
            ]
            speed = speeds(pair, images, args.device, args.repeats)
            report(f"training, width {width:g}", *speed)


if __name__ == "__main__":
    main()
