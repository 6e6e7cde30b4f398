"""Students of a teacher network: how one is taught, in a name, a weight and a sentence."""

from __future__ import annotations

from pathlib import Path

import torch

from studylib import distill, errors, models

ALONE = "alone"
SAME_SIZE = ("embedding", "cosine")  # losses that compare dimension by dimension
PAPER_DIMENSIONS = 512  # of the embeddings to which the paper's weight belongs


def taught(
    teacher: str | Path | None,
    loss: str,
    balance: str | None,
    *,
    size: int,
    dimensions: int,
    **asked,
) -> str:
    """How a student learns, as tables name it, once it is clear that it can.

    Parameters
    ----------
    teacher : str or path, optional
        As `models.load` takes it; None: there is no teacher.
    loss, balance : str
        As `distill.Teaching` takes them.
    size : int
        Side of the student's faces in pixels.
    dimensions : int
        Of the student's embeddings.
    **asked
        `weight`, `label_weight` and `settings`, as `distill.Teaching` takes them.

    Returns
    -------
    str
        alone, or such as "kd: embedding" or "kd: embedding reweighted".

    Raises
    ------
    DataError
        No file of a network where one is named.
    ParameterError
        An unknown loss, balance, setting or network, a weight that is none, or a teacher that takes
        faces of another size or, where the loss compares dimensions, has other ones.

    Examples
    --------
    >>> taught(None, "embedding", None, size=48, dimensions=64)
    'alone'
    """
    errors.one_of("distillation loss", loss, distill.LOSSES)
    if balance is not None:
        errors.one_of("balance of the groups", balance, distill.BALANCES)
    if teacher is None:
        return ALONE
    blank = torch.eye(1, dimensions)[None]  # stands for a teacher's embeddings: (1, 1, D)
    distill.Teaching(blank, loss, groups=["any"] if balance else None, balance=balance, **asked)
    if (found := models.describe(teacher)["size"]) != size:
        text = errors.TEACHER_SIZE.format(teacher=teacher, found=found, wanted=size)
        raise errors.ParameterError(text)
    face = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    if loss in SAME_SIZE:
        with torch.inference_mode():
            distill.LOSSES[loss](blank[0], models.load(teacher)(face))
    return " ".join(["kd:", loss, *([balance] if balance else [])])


def named(loss: str, settings: dict, normalised: bool) -> str:
    """A margin loss as tables name it.

    The code released by Neto et al. (2024) gives AdaFace embeddings of length 1, and the batch's
    own statistics alone: that is CosFace under another name.

    Examples
    --------
    >>> named("adaface", {"t_alpha": 1.0}, True), named("adaface", {}, True)
    ('adaface as released', 'adaface normalised')
    """
    if not normalised:
        return loss
    released = loss == "adaface" and settings.get("t_alpha") == 1
    return f"{loss} as released" if released else f"{loss} normalised"


def weight(loss: str, dimensions: int) -> float:
    """The published weight of a loss against the teacher, kept in balance at other dimensions.

    Only `embedding` shrinks with the number of dimensions that it is a mean over: it gets the same
    weight for each unit of squared distance as in Neto et al. (2024), 10,000 / 512.

    Examples
    --------
    >>> weight("embedding", 512), weight("embedding", 128), weight("rkd", 128)
    (10000.0, 2500.0, 25.0)
    """
    published = distill.WEIGHTS[loss]
    return published * dimensions / PAPER_DIMENSIONS if loss == "embedding" else published


def lesson(teaching: distill.Teaching | None) -> str:
    """What a student is taught, in a sentence."""
    if teaching is None:
        return "This student has no teacher."
    faces, views, dimensions = teaching.shape
    seen = "as they are and mirrored" if views == 2 else "as they are"
    megabytes = teaching.wanted.nbytes / 1e6
    return (
        f"The teacher's embeddings of {faces:,} faces, {seen}, in {dimensions} dimensions "
        f"({megabytes:.1f} MB). The student learns from them by the loss *{teaching.loss}* with "
        f"the weight {teaching.weight:g}, and from labels with the weight {teaching.label_weight:g}"
        + (f"; groups are *{teaching.balance}*." if teaching.balance else ".")
    )
