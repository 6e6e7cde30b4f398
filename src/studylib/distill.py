"""Teaching a network by another's embeddings, without labels.

Quantisation-aware training as in QuantFace (Boutros, Damer and Kuijper 2022): the quantised network
starts from the full-precision one's weights and is trained to give the same normalised embedding
for every face, by SGD with Nesterov momentum. Unlike in the paper's code, activation ranges come
from a calibration set and are frozen unless `range_steps` lets them widen in the first steps; and
batch normalisation can be told to keep its statistics (`train_norm`), which small batches need.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from studylib import embed
from studylib.compress import quantize
from studylib.faces import Faces

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
MAX_GRADIENT_NORM = 5.0
LAST_PART = 10 / 11  # of the steps, after which the rate falls tenfold, as in QuantFace's 11 epochs


def targets(teacher: nn.Module, faces: Faces, *, device="cpu") -> torch.Tensor:
    """The embeddings a student has to reach: each face and its mirror image, seen once.

    Parameters
    ----------
    teacher : torch.nn.Module
        Full precision, in evaluation mode.
    faces : Faces
        N unlabelled faces.

    Returns
    -------
    torch.Tensor
        float32 (N, 2, D) on the CPU, rows of length 1; second index 0 as is, 1 mirrored.
    """
    mirrored = dataclasses.replace(faces, images=faces.images.flip(-1))
    both = [embed.embed(teacher, f, device=device) for f in (faces, mirrored)]
    return torch.stack(both, 1)


def match_embeddings(
    student: nn.Module,
    faces: Faces,
    wanted: torch.Tensor,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 0.1,
    range_steps: int = 0,
    train_norm: bool = True,
    seed: int = 0,
    device="cpu",
) -> pd.DataFrame:
    """Train a quantised network to reproduce its teacher's normalised embeddings.

    Parameters
    ----------
    student : torch.nn.Module
        From `quantize.prepare`, with its activation ranges calibrated; trained in place and left
        in evaluation mode.
    faces : Faces
        N unlabelled faces. Each step draws a batch; epochs pass over all of them.
    wanted : torch.Tensor
        (N, 2, D), the teacher's `targets` for them.
    steps, batch_size : int
        Number of updates, and faces in each.
    lr : float
        SGD's rate; divided by 10 for the last eleventh of the steps.
    range_steps : int
        Steps during which activation ranges still widen; they are frozen afterwards.
    train_norm : bool
        Whether batch normalisation keeps updating its statistics, as in QuantFace.
    seed : int
        Of the order of faces and of the mirroring.

    Returns
    -------
    pandas.DataFrame
        One row a step: step, loss (mean squared difference over batch and dimensions), lr.
    """
    student.to(device).train()
    if not train_norm:
        for module in student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    optimiser = torch.optim.SGD(
        student.parameters(), lr, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    log = []
    for step, (chosen, mirrored) in enumerate(_draws(len(faces), batch_size, steps, seed)):
        quantize.set_phase(student, observing=step < range_steps)
        rate = lr if step < LAST_PART * steps else lr / 10
        optimiser.param_groups[0]["lr"] = rate
        batch = faces.images[chosen]
        batch = torch.where(mirrored[:, None, None, None] > 0, batch.flip(-1), batch)
        loss = _step(student, batch.to(device), wanted[chosen, mirrored].to(device), optimiser)
        log.append({"step": step, "loss": loss, "lr": rate})
    quantize.set_phase(student, observing=False)
    student.eval()
    return pd.DataFrame(log)


def _step(student: nn.Module, batch: torch.Tensor, wanted: torch.Tensor, optimiser) -> float:
    loss = F.mse_loss(F.normalize(student(batch)), wanted)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), MAX_GRADIENT_NORM)
    optimiser.step()
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
        yield torch.from_numpy(chosen), torch.from_numpy(rng.integers(0, 2, batch_size))
