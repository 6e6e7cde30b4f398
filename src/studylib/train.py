"""Training classifiers as Stoychev and Gunes (2022) did, with the whole set on the device.

Their recipe in Keras: Adam, categorical cross-entropy, faces flipped at random and rotated by up to
10 degrees, a rate that falls tenfold when the validation loss stops falling, and in the end the
weights of the epoch with the best validation accuracy. Here the faces stay on the device as bytes,
and each batch is flipped and rotated there: no worker processes, no copies.

On a CPU the same seed gives the same weights bit for bit (with one number of threads).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.lr_scheduler import ReduceLROnPlateau

from studylib import errors
from studylib.faces import Faces

SELECTIONS = ("best", "last")
HISTORY = ("epoch", "loss", "accuracy", "chosen_loss", "chosen_accuracy", "lr", "images_per_s")
EPSILON = 1e-7  # Keras's; torch's own is 1e-8
# Keras waits for `patience` epochs without progress, torch for one more: 1 here is Keras's 2.
PLATEAU = {
    "factor": 0.1,
    "patience": 1,
    "min_lr": 1e-5,
    "threshold": 1e-4,
    "threshold_mode": "abs",
}


def fit(
    model: nn.Module,
    faces: Faces,
    chosen_on: Faces,
    *,
    epochs: int,
    lr: float = 5e-4,
    batch_size: int = 32,
    flip: bool = True,
    rotation: float = 10.0,
    select: str = "best",
    seed: int,
    device="cpu",
    after_step: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Train a network in place; it is left on the device, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Takes uint8 or float faces (B, C, H, W), gives logits (B, classes). May hold
        parametrisations (pruned, clustered, quantised): what is trained is what lies beneath them.
    faces : Faces
        N labelled faces to train on. An epoch is N // batch_size batches; which faces are left over
        changes with every epoch.
    chosen_on : Faces
        Labelled faces that decide when the rate falls, and which epoch is kept. The paper took its
        test set; people who are in neither set are sound.
    epochs, batch_size : int
        Passes over the faces, and faces in an update (all of them where there are fewer).
    lr : float
        Adam's first rate. It falls tenfold, to no less than 1e-5, after two epochs in which the
        loss on `chosen_on` did not fall by more than 1e-4.
    flip : bool
        Mirror every second face or so.
    rotation : float
        Largest angle in degrees; angles are uniform on both sides of 0. Corners repeat the border.
    select : {"best", "last"}
        Keep the weights of the epoch with the best accuracy on `chosen_on` (the first of equals),
        or those of the last epoch.
    seed : int
        Of order, augmentation and dropout; they leave torch's own generator as it was.
    device : str or torch.device
        Where to train. Faces that would fill more than half of a GPU's free memory stay with the
        host, and travel batch by batch.
    after_step : callable, optional
        Called with the number of updates made so far (1, 2, ...), such as to raise the sparsity.

    Returns
    -------
    pandas.DataFrame
        One row an epoch: epoch (from 1), loss and accuracy (means over the epoch's batches, with
        dropout and augmentation, as Keras reports them), chosen_loss and chosen_accuracy (on all of
        `chosen_on`, as is), lr, images_per_s (training alone).

    Raises
    ------
    DataError
        Faces without labels, labels out of range, or two sets with different classes.
    ParameterError
        A number out of range, an unknown `select`, a network with too few outputs, or a training
        that diverges.
    """
    errors.at_least(1, epochs=epochs, chosen_on=len(chosen_on))
    errors.at_least(2, faces=len(faces), batch_size=batch_size)  # normalisation needs two
    errors.one_of("selection of an epoch", select, SELECTIONS)
    if not lr > 0:
        raise errors.ParameterError(errors.NOT_ABOVE_ZERO.format(what="lr", value=lr))
    device = torch.device(device)
    model.to(device)
    _check(model, faces, chosen_on, device)
    known, chosen = _resident(faces, device), _resident(chosen_on, device)
    optimiser = torch.optim.Adam(model.parameters(), lr, eps=EPSILON, fused=True)
    plateau = ReduceLROnPlateau(optimiser, **PLATEAU)
    log, best, kept = [], -1.0, None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the global generator
        generator = torch.Generator().manual_seed(seed)
        for epoch in range(1, epochs + 1):
            batches = _batches(len(faces), batch_size, flip, rotation, generator)
            row = {"epoch": epoch, **_epoch(model, *known, batches, optimiser, after_step, epoch)}
            if not math.isfinite(row["loss"]):
                raise errors.ParameterError(errors.DIVERGED.format(**row))
            log.append(row | _verdict(model, *chosen))
            plateau.step(log[-1]["chosen_loss"])
            if select == "best" and log[-1]["chosen_accuracy"] > best:
                best, kept = log[-1]["chosen_accuracy"], copy.deepcopy(model.state_dict())
    if kept is not None:
        model.load_state_dict(kept)
    return pd.DataFrame(log)[list(HISTORY)]


def predict(model: nn.Module, faces: Faces, *, device="cpu", batch_size: int = 256) -> torch.Tensor:
    """Class probabilities of every face.

    Parameters
    ----------
    model : torch.nn.Module
        Gives logits; moved to the device and put into evaluation mode.
    faces : Faces
        N faces, with or without labels.
    device : str or torch.device
        Where the work is done.
    batch_size : int
        Faces at a time.

    Returns
    -------
    torch.Tensor
        float32 (N, classes) on the CPU, rows sum to 1.
    """
    errors.at_least(1, batch_size=batch_size)
    device = torch.device(device)
    logits = _logits(model.to(device), faces.images, device, batch_size)
    return logits.float().softmax(1).cpu()


def augment(faces: torch.Tensor, mirrored: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Mirror some faces and rotate each about its centre.

    Parameters
    ----------
    faces : torch.Tensor
        (B, C, H, W), uint8 or float.
    mirrored : torch.Tensor
        bool (B,).
    angles : torch.Tensor
        float32 (B,), degrees counter-clockwise as seen; applied after mirroring.

    Returns
    -------
    torch.Tensor
        float32 (B, C, H, W): bilinear, and where the rotated face does not reach, the nearest pixel
        of its border, as Keras's ImageDataGenerator does.
    """
    faces = torch.where(mirrored[:, None, None, None], faces.flip(-1), faces).float()
    height, width = faces.shape[2:]
    cos, sin = (f(angles.deg2rad())[:, None, None] for f in (torch.cos, torch.sin))
    y = torch.arange(height, device=faces.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=faces.device) - (width - 1) / 2
    # From where each output pixel is taken, with the edges of the face at -1 and 1. Written out
    # because affine_grid's many small matrix products take twice as long as all the rest.
    rows = (x * cos - y * sin) * (2 / width), (x * sin + y * cos) * (2 / height)  # (B, H, W)
    grid = torch.stack(rows, -1)
    return F.grid_sample(faces, grid, padding_mode="border", align_corners=False)


def _batches(n: int, batch_size: int, flip: bool, rotation: float, generator: torch.Generator):
    """One epoch's positions, mirroring and angles, each (steps, B), from the CPU for any device.

    Draws do not depend on what is switched off, so the order of faces is the same either way.
    """
    size = min(batch_size, n)
    used = n // size * size
    order = torch.randperm(n, generator=generator)[:used]
    mirrored = (torch.rand(used, generator=generator) < 0.5) & flip
    angles = (torch.rand(used, generator=generator) * 2 - 1) * rotation
    return [part.view(-1, size) for part in (order, mirrored, angles)]


def _epoch(model, images, labels, batches, optimiser, after_step, epoch) -> dict[str, float]:
    """One pass: mean loss and accuracy over its batches, the rate, and images a second."""
    order, mirrored, angles = (part.to(labels.device) for part in batches)
    chosen = order.to(images.device)
    made = (epoch - 1) * len(order)
    total, correct = order.new_zeros((), dtype=torch.float32), order.new_zeros(())
    model.train()
    start = time.perf_counter()
    for step, wanted in enumerate(labels[order]):
        batch = augment(_moved(images[chosen[step]], labels.device), mirrored[step], angles[step])
        logits = model(batch)
        loss = F.cross_entropy(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if after_step:
            after_step(made + step + 1)
        total += loss.detach()
        correct += (logits.argmax(1) == wanted).sum()
    # Reading the sums waits for the GPU, so the clock is read after them.
    means = {"loss": total.item() / len(order), "accuracy": correct.item() / order.numel()}
    speed = order.numel() / (time.perf_counter() - start)
    return {**means, "lr": optimiser.param_groups[0]["lr"], "images_per_s": speed}


def _verdict(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    logits = _logits(model, images, labels.device)
    return {
        "chosen_loss": F.cross_entropy(logits, labels).item(),
        "chosen_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }


@torch.inference_mode()
def _logits(model: nn.Module, images: torch.Tensor, device, batch_size=256) -> torch.Tensor:
    """Logits (N, classes) on the device; leaves the network in evaluation mode."""
    model.eval()
    with parametrize.cached():
        return torch.cat([model(_moved(batch, device)) for batch in images.split(batch_size)])


def _resident(faces: Faces, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels on the device; the images stay behind if they would crowd out training."""
    images = faces.images
    if device.type != "cuda" or 2 * images.nbytes < torch.cuda.mem_get_info(device)[0]:
        images = images.to(device)
    return images, _labels(faces).to(device)


def _moved(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch on the device; from the host to a GPU through pinned memory, without waiting."""
    if device.type == "cuda" and not batch.is_cuda:
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def _labels(faces: Faces) -> torch.Tensor:
    return torch.tensor(faces.table["label"].to_numpy(np.int64))


def _check(model: nn.Module, faces: Faces, chosen_on: Faces, device: torch.device) -> None:
    """Refuse what cannot be trained on; one face through the network shows whether it fits."""
    for each in (faces, chosen_on):
        if not each.classes or "label" not in each.table:
            raise errors.DataError(errors.NO_LABELS.format(origin=each.origin))
        low, high = each.table["label"].min(), each.table["label"].max()
        if not 0 <= low <= high < len(each.classes):
            allowed = f"from 0 to {len(each.classes) - 1}"
            raise errors.DataError(
                errors.CODE_RANGE.format(what="label", allowed=allowed, low=low, high=high)
            )
    if faces.classes != chosen_on.classes:
        raise errors.DataError(
            errors.OTHER_LABELS.format(found=chosen_on.classes, wanted=faces.classes)
        )
    outputs = _logits(model, faces.images[:1], device).shape[1]
    if outputs < len(faces.classes):
        raise errors.ParameterError(
            errors.FEW_OUTPUTS.format(outputs=outputs, classes=len(faces.classes))
        )
