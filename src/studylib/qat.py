"""Quantisation-aware training: a quantised network learns its own full-precision embeddings.

As in QuantFace (Boutros, Damer and Kuijper 2022), the network starts from the full-precision one's
weights and is trained to give the same normalised embedding for every face, without labels, by SGD
with Nesterov momentum. `quantise` does all of it; its `Settings` name what the paper's code does
out of the ordinary, each beside the usual choice:

    setting       QUANTFACE                           SOUND
    observer      minmax: ranges only ever widen      ema: a moving average
    clip_grad     False: clipped values get gradient  True: they get none
    range_steps   299: found while training           0: from a calibration set, then frozen
    train_norm    True: statistics keep moving        False: the teacher's stay
    dropout       True: active in the student only    False: off, as in the teacher
    weight_decay  5e-4, on every parameter            0: the student starts where it shall end

The last matters most where batch normalisation keeps its statistics: a mean squared difference over
all dimensions has a small gradient, weight decay shrinks the weights faster than it can repair, and
frozen statistics do not follow.

`match_embeddings` is the training alone. Its `SCHEDULES` are the paper's two: one pass over the
teacher's own training set at a constant rate, or eleven over a tenth as many generated faces, the
last at a tenth of the rate. Both come to as many steps. Packed faces and a memory map of targets
(`teacher_cache.embeddings`) are read batch by batch, so all of such a set can be trained on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors, teacher_cache
from studylib.compress import quantize
from studylib.datasets.packed import Joined, Packed
from studylib.faces import Faces

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
MAX_GRADIENT_NORM = 5.0
LR, BATCH = 0.1, 512  # the paper's rate, and the batch (4 GPUs, 128 faces each) that it is for


class Schedule(NamedTuple):
    """Passes over the faces, and how many of them, at the end, have a tenth of the rate."""

    epochs: int
    slow: int


SCHEDULES = {"real": Schedule(1, 0), "synthetic": Schedule(11, 1)}


class Settings(NamedTuple):
    """Choices of quantisation-aware training; `_replace` changes one and keeps the rest.

    Attributes
    ----------
    observer, clip_grad
        Of `quantize.prepare`.
    range_steps, train_norm, dropout, weight_decay
        Of `match_embeddings`. With range_steps 0, ranges come from a calibration set beforehand.
    """

    observer: str
    clip_grad: bool
    range_steps: int
    train_norm: bool
    dropout: bool
    weight_decay: float


QUANTFACE = Settings(
    "minmax",
    clip_grad=False,
    range_steps=299,
    train_norm=True,
    dropout=True,
    weight_decay=WEIGHT_DECAY,
)
SOUND = Settings(
    "ema", clip_grad=True, range_steps=0, train_norm=False, dropout=False, weight_decay=0.0
)


def quantise(
    teacher: nn.Module,
    precision: str,
    faces: Faces | Packed | Joined,
    *,
    settings: Settings = QUANTFACE,
    schedule: str = "synthetic",
    steps: int | None = None,
    batch_size: int = BATCH,
    lr: float | None = None,
    wanted: torch.Tensor | np.ndarray | None = None,
    calibration: Faces | None = None,
    activation_axis: int | None = None,
    fused: bool = False,
    seed: int = 0,
    device="cpu",
) -> tuple[nn.Module, pd.DataFrame]:
    """Quantise a network and train it to match itself, as QuantFace does.

    Parameters
    ----------
    teacher : torch.nn.Module
        Full precision, in evaluation mode, on `device`; left as it is.
    precision : str
        See `quantize.parse_precision`.
    faces : Faces, Packed or Joined
        N faces; labels are not needed.
    settings : Settings
        `QUANTFACE`, `SOUND` or your own.
    schedule, steps, batch_size, seed, device
        See `match_embeddings`.
    lr : float, optional
        SGD's rate; None is the paper's 0.1 for a batch of 512, in proportion to the batch.
    wanted : torch.Tensor or numpy.ndarray, optional
        As `match_embeddings` takes it; None: the teacher's `targets`, held in memory.
    calibration : Faces, optional
        Where settings that need a calibration set take ranges from; None: all faces, unless they
        are packed.
    activation_axis, fused
        Of `quantize.prepare`.

    Returns
    -------
    student : torch.nn.Module
        In evaluation mode, still with its quantisers (`quantize.finish` fixes them).
    log : pandas.DataFrame
        As `match_embeddings` gives it.

    Raises
    ------
    ParameterError
        A name that is not known, a number below 1, or packed faces without a calibration set where
        the settings need one.
    """
    calibrates = settings.range_steps == 0
    if calibrates and calibration is None and not isinstance(faces, Faces):
        raise errors.ParameterError(errors.NEEDS_CALIBRATION)
    student = quantize.prepare(
        teacher,
        precision,
        observer=settings.observer,
        clip_grad=settings.clip_grad,
        activation_axis=activation_axis,
        fused=fused,
    )
    if calibrates:
        quantize.calibrate(student, (calibration or faces).images)
    log = match_embeddings(
        student,
        faces,
        targets(teacher, faces, device=device) if wanted is None else wanted,
        steps=steps,
        batch_size=batch_size,
        lr=LR * min(batch_size, len(faces)) / BATCH if lr is None else lr,
        range_steps=settings.range_steps,
        train_norm=settings.train_norm,
        dropout=settings.dropout,
        weight_decay=settings.weight_decay,
        schedule=schedule,
        seed=seed,
        device=device,
    )
    return student, log


def targets(
    teacher: nn.Module, faces: Faces | Packed | Joined, *, device="cpu", batch_size: int = 16
) -> torch.Tensor:
    """The embeddings a student has to reach: each face and its mirror image, seen once.

    Parameters
    ----------
    teacher : torch.nn.Module
        Full precision, in evaluation mode, on `device`.
    faces : Faces, Packed or Joined
        N faces; labels are not needed.
    batch_size : int
        Faces at a time.

    Returns
    -------
    torch.Tensor
        float32 (N, 2, D) on the CPU, rows of length 1; second index 0 as is, 1 mirrored. More than
        memory holds: `teacher_cache.embeddings`.
    """
    parts = (range(i, min(i + batch_size, len(faces))) for i in range(0, len(faces), batch_size))
    return torch.cat([teacher_cache.views(teacher, faces.batch(p).to(device)) for p in parts])


def match_embeddings(
    student: nn.Module,
    faces: Faces | Packed | Joined,
    wanted: torch.Tensor | np.ndarray,
    *,
    steps: int | None,
    batch_size: int = 32,
    lr: float = LR,
    range_steps: int = 0,
    train_norm: bool = True,
    dropout: bool = True,
    weight_decay: float = WEIGHT_DECAY,
    schedule: str = "synthetic",
    seed: int = 0,
    device="cpu",
) -> pd.DataFrame:
    """Train a quantised network to reproduce its teacher's normalised embeddings.

    Parameters
    ----------
    student : torch.nn.Module
        From `quantize.prepare`, with its activation ranges calibrated unless `range_steps` finds
        them; trained in place and left in evaluation mode.
    faces : Faces, Packed or Joined
        N faces; labels are not needed. Each step draws a batch; epochs pass over all of them.
    wanted : torch.Tensor or numpy.ndarray
        (N, 2, D), the teacher's `targets` for them, or what `teacher_cache.embeddings` keeps.
    steps : int or None
        Number of updates; None stands for the schedule's passes over the faces.
    batch_size : int
        Faces in an update (all of them where there are fewer).
    lr : float
        SGD's first rate.
    range_steps : int
        Steps during which activation ranges are still observed; they are frozen afterwards. In
        QuantFace, whose ranges start with training, 299.
    train_norm : bool
        Whether batch normalisation uses the batch's statistics and keeps updating its own, as in
        QuantFace; else it uses those it has.
    dropout : bool
        Whether the student's dropout is active, as in QuantFace.
    weight_decay : float
        SGD's, on every parameter; in QuantFace 5e-4.
    schedule : {"synthetic", "real"}
        synthetic: the rate falls tenfold for the last eleventh of the steps; real: it is constant.
    seed : int
        Of the order of faces and of the mirroring.
    device : str or torch.device
        Where the student is trained; it is moved there.

    Returns
    -------
    pandas.DataFrame
        One row a step: step, loss (mean squared difference over batch and dimensions), lr.

    Raises
    ------
    ParameterError
        Unknown schedule, no steps, an empty batch, embeddings of another shape, or activation
        ranges that nothing has found.
    """
    if steps is None:
        steps = schedule_steps(len(faces), batch_size, schedule)
    errors.at_least(1, steps=steps, batch_size=batch_size)
    errors.one_of("schedule", schedule, SCHEDULES)
    if tuple(wanted.shape[:2]) != (len(faces), 2):
        text = errors.WANTED_SHAPE.format(found=tuple(wanted.shape), faces=len(faces))
        raise errors.ParameterError(text)
    epochs, slow = SCHEDULES[schedule]
    student.to(device).train()
    still = () if train_norm else (nn.modules.batchnorm._BatchNorm,)
    still += () if dropout else (nn.modules.dropout._DropoutNd,)
    for module in student.modules():
        if isinstance(module, still):
            module.eval()
    sgd = optimiser(student, lr, weight_decay)
    log = []
    for step, (chosen, mirrored) in enumerate(_draws(len(faces), batch_size, steps, seed)):
        quantize.set_phase(student, observing=step < range_steps)
        rate = lr if step < (epochs - slow) / epochs * steps else lr / 10
        sgd.param_groups[0]["lr"] = rate
        batch, flipped = faces.batch(chosen), torch.from_numpy(mirrored)[:, None, None, None] > 0
        batch = torch.where(flipped, batch.flip(-1), batch)
        rows = torch.as_tensor(wanted[chosen, mirrored]).float()  # (B, D)
        loss = update(student, batch.to(device), rows.to(device), sgd)
        log.append({"step": step, "loss": loss, "lr": rate})
    quantize.set_phase(student, observing=False)
    student.eval()
    return pd.DataFrame(log)


def schedule_steps(n: int, batch_size: int, schedule: str) -> int:
    """Updates that a schedule's passes over n faces come to; what is left of a pass is dropped.

    Examples
    --------
    >>> schedule_steps(5_822_653, 512, "real"), schedule_steps(528_227, 512, "synthetic")
    (11372, 11341)
    """
    errors.at_least(1, n=n, batch_size=batch_size)
    errors.one_of("schedule", schedule, SCHEDULES)
    return SCHEDULES[schedule].epochs * (n // min(batch_size, n))


def optimiser(student: nn.Module, lr: float, weight_decay: float = WEIGHT_DECAY) -> torch.optim.SGD:
    """QuantFace's: Nesterov momentum 0.9, weight decay on every parameter."""
    return torch.optim.SGD(
        student.parameters(), lr, momentum=MOMENTUM, nesterov=True, weight_decay=weight_decay
    )


def update(student: nn.Module, batch: torch.Tensor, wanted: torch.Tensor, sgd) -> float:
    """One step: faces uint8 (B, 3, H, W), wanted unit embeddings (B, D) -> the loss before it."""
    loss = F.mse_loss(F.normalize(student(batch)), wanted)
    sgd.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), MAX_GRADIENT_NORM)
    sgd.step()
    return loss.item()


def _draws(n: int, batch_size: int, steps: int, seed: int):
    """Positions and mirroring (0 or 1) of full batches, from shuffled passes over n faces."""
    rng = np.random.default_rng(seed)
    batch_size = min(batch_size, n)
    queue = np.empty(0, np.int64)
    for _ in range(steps):
        if len(queue) < batch_size:
            queue = rng.permutation(n)  # what is left of a pass is dropped
        chosen, queue = queue[:batch_size], queue[batch_size:]
        yield chosen, rng.integers(0, 2, batch_size)
