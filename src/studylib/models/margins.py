"""Margin losses: softmax over cosines in which the right class is made harder to reach.

Each function takes cosines between embeddings and class centres, float32 (N, C), and labels, int64
(N,), and gives logits (N, C) for a cross entropy. With theta the angle to the right class's centre,
m the margin and s the scale, the right class's logit is

    arcface          s cos(theta + m)                                  Deng et al. 2019
    cosface          s (cos(theta) - m)                                Wang et al. 2018
    elastic_arcface, elastic_cosface   with m drawn anew for each face  Boutros et al. 2022
    adaface          s (cos(theta - m q) - m - m q), q from the norm   Kim, Jain and Liu 2022
    curricularface   as arcface, and other classes' logits above it    Huang et al. 2020
                     are raised, more so as training succeeds

and a wrong class's is s times its cosine, unless said otherwise. `Head` has the class centres.
"""

from __future__ import annotations

import functools
import inspect
import math

import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors

SCALE = 64.0
_EDGE = 1e-7  # cosines stay this far from -1 and 1, where the slope of the angle is infinite
_ADAFACE_EDGE = 1e-3  # AdaFace's own, for cosines, angles and the spread of norms alike
_NORMS = (1e-3, 100.0)  # between which AdaFace holds norms


def arcface(
    cosines: torch.Tensor, labels: torch.Tensor, *, scale: float = SCALE, margin: float = 0.5
) -> torch.Tensor:
    """Add the margin, in radians, to the angle.

    Beyond an angle of pi - m the logit rises again, as it does in the code of ArcFace's and
    ElasticFace's authors that the study follows.

    Examples
    --------
    >>> cosines = torch.tensor([[0.5, 0.0]])  # 60 degrees
    >>> arcface(cosines, torch.tensor([0]), scale=1, margin=math.pi / 3)
    tensor([[-0.5000,  0.0000]])
    """
    return scale * _with_target(cosines, labels, _turned(_target(cosines, labels), margin))


def cosface(
    cosines: torch.Tensor, labels: torch.Tensor, *, scale: float = SCALE, margin: float = 0.35
) -> torch.Tensor:
    """Take the margin off the cosine.

    Examples
    --------
    >>> cosface(torch.tensor([[0.5, 0.0]]), torch.tensor([0]), scale=2, margin=0.25)
    tensor([[0.5000, 0.0000]])
    """
    return scale * _with_target(cosines, labels, _target(cosines, labels) - margin)


def elastic_arcface(
    cosines: torch.Tensor,
    labels: torch.Tensor,
    *,
    scale: float = SCALE,
    margin: float = 0.5,
    std: float = 0.05,
    ranked: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """ArcFace with a margin for each face, from a normal distribution.

    Parameters
    ----------
    cosines, labels : torch.Tensor
        (N, C) and (N,).
    scale, margin, std : float
        Mean and standard deviation of the margin in radians.
    ranked : bool
        Give larger margins to faces further from their centre (ElasticFace+, which has a `std` of
        0.0175 here and 0.02 for `elastic_cosface`). So the paper says; its released code takes the
        sorting permutation for its inverse, so that there a face's margin is hardly related to its
        difficulty.
    generator : torch.Generator, optional
        On the CPU; None: torch's own.
    """
    target = _target(cosines, labels)
    margins = _drawn(target, margin, std, ranked, generator)
    return scale * _with_target(cosines, labels, _turned(target, margins))


def elastic_cosface(
    cosines: torch.Tensor,
    labels: torch.Tensor,
    *,
    scale: float = SCALE,
    margin: float = 0.35,
    std: float = 0.05,
    ranked: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """CosFace with a margin for each face; the parameters are those of `elastic_arcface`."""
    target = _target(cosines, labels)
    margins = _drawn(target, margin, std, ranked, generator)
    return scale * _with_target(cosines, labels, target - margins)


def adaface(
    cosines: torch.Tensor,
    labels: torch.Tensor,
    norms: torch.Tensor,
    state: torch.Tensor,
    *,
    scale: float = SCALE,
    margin: float = 0.4,
    h: float = 0.333,
    t_alpha: float = 0.01,
) -> torch.Tensor:
    """A margin that depends on the embedding's norm, which stands for the picture's quality.

    The norm's distance from the mean, in standard deviations times h and held within -1..1, is q;
    the angle loses m q and the cosine m + m q. So a good picture far from its centre is pulled
    more, a bad one less. Embeddings that were normalised before have q = 0, and this is CosFace: at
    once with t_alpha 1, else as soon as the running statistics have settled.

    Parameters
    ----------
    cosines, labels : torch.Tensor
        (N, C) and (N,).
    norms : torch.Tensor
        float32 (N,), of the embeddings before they were normalised; no gradient flows into them.
    state : torch.Tensor
        float32 (2,): running mean and standard deviation of the norms, from 20 and 100 at first;
        changed in place, unless there is a single face.
    scale, margin, h : float
        See above.
    t_alpha : float
        Share of this batch's in the running statistics; 1 takes the batch's own alone.
    """
    norms = norms.detach().clamp(*_NORMS)
    if len(norms) > 1:
        state.lerp_(torch.stack([norms.mean(), norms.std()]), t_alpha)
    mean, std = state.clone()
    quality = ((norms - mean) / (std + _ADAFACE_EDGE) * h).clamp(-1, 1)
    cosines = cosines.clamp(_ADAFACE_EDGE - 1, 1 - _ADAFACE_EDGE)
    angle = torch.acos(_target(cosines, labels)) - margin * quality
    angle = angle.clamp(_ADAFACE_EDGE, math.pi - _ADAFACE_EDGE)
    return scale * _with_target(cosines, labels, torch.cos(angle) - margin * (1 + quality))


def curricularface(
    cosines: torch.Tensor,
    labels: torch.Tensor,
    state: torch.Tensor,
    *,
    scale: float = SCALE,
    margin: float = 0.5,
    keep: float = 0.99,
) -> torch.Tensor:
    """ArcFace in which wrong classes that are too near weigh more as training goes on.

    A wrong class's cosine c above cos(theta + m) becomes c (t + c), where t is the running mean of
    the right classes' cosines. Beyond an angle of pi - m the right class's cosine loses m sin(m)
    instead of turning, so that its logit goes on falling.

    Parameters
    ----------
    cosines, labels : torch.Tensor
        (N, C) and (N,).
    state : torch.Tensor
        float32 (1,): t, from 0 at first; changed in place.
    scale, margin : float
        As for `arcface`.
    keep : float
        Share of t that a step keeps.
    """
    target = _target(cosines, labels)
    state.lerp_(target.detach().mean(), 1 - keep)
    turned = _turned(target, margin)
    bar = turned.detach()[:, None]
    cosines = torch.where(cosines > bar, cosines * (state.clone() + cosines), cosines)
    beyond = target <= -math.cos(margin)
    turned = torch.where(beyond, target - margin * math.sin(margin), turned)
    return scale * _with_target(cosines, labels, turned)


LOSSES = {
    "arcface": arcface,
    "cosface": cosface,
    "elastic_arcface": elastic_arcface,
    "elastic_arcface_plus": functools.partial(elastic_arcface, std=0.0175, ranked=True),
    "elastic_cosface": elastic_cosface,
    "elastic_cosface_plus": functools.partial(elastic_cosface, std=0.02, ranked=True),
    "adaface": adaface,
    "curricularface": curricularface,
}
_STATES = {"adaface": (20.0, 100.0), "curricularface": (0.0,)}  # before the first batch


class Head(nn.Module):
    """The class centres and a margin loss, used only while a network is trained.

    Partial sampling follows An et al. (2021): each step compares with the classes of its own faces
    and as many others, drawn at random, as make up the share `partial` of all. The others' centres
    get no gradient from that step; weight decay and momentum of an optimiser move them still.

    All that changes is in the state dict: the centres `weight` (C, D), the count of steps `step`,
    from which the random numbers of each step are derived, and the `state` of AdaFace and
    CurricularFace. A head that is loaded goes on exactly as the one that was saved. Several
    processes draw the same random numbers, each for its own faces.

    Parameters
    ----------
    num_classes, embedding : int
        At least 2 classes C, and the length D of the embeddings.
    loss : str
        One of `LOSSES`.
    partial : float
        Share of the classes in each step; 1.0: all.
    seed : int
        Of the centres (normal, 0.01) and of what is drawn.
    normalised : bool
        Whether embeddings are brought to length 1 before the loss sees them, as in the code of Neto
        et al. (2024). Only AdaFace can tell: all its norms are then 1, no picture is better than
        another, and with the `t_alpha` of 1 used there it is CosFace with a margin of 0.4.
    **settings
        Of the loss: scale, margin, ...

    Raises
    ------
    ParameterError
        An unknown loss or setting, too few classes, or a share outside 0..1.
    """

    def __init__(
        self,
        num_classes: int,
        embedding: int,
        loss: str = "arcface",
        *,
        partial: float = 1.0,
        seed: int = 0,
        normalised: bool = False,
        **settings,
    ):
        super().__init__()
        errors.at_least(2, num_classes=num_classes)
        errors.at_least(1, embedding=embedding)
        errors.one_of("loss", loss, LOSSES)
        errors.fraction(partial=partial)
        parameters = inspect.signature(LOSSES[loss]).parameters
        known = [p.name for p in parameters.values() if p.kind == p.KEYWORD_ONLY]
        for setting in settings:
            errors.one_of(f"setting of {loss}", setting, [k for k in known if k != "generator"])
        self.loss, self.partial, self.seed, self.settings = loss, partial, seed, settings
        self.draws, self.normalised = "generator" in parameters, normalised
        self.weight = nn.Parameter(torch.empty(num_classes, embedding))
        nn.init.normal_(self.weight, 0, 0.01, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        if loss in _STATES:
            self.register_buffer("state", torch.tensor(_STATES[loss]))

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare embeddings (N, D) with the centres, in float32 even under autocast.

        Returns
        -------
        logits : torch.Tensor
            float32 (N, K), of the K classes of this step.
        targets : torch.Tensor
            int64 (N,): the labels' places among them; the labels themselves if K is C.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings, centres, given = embeddings.float(), self.weight, {**self.settings}
            if self.partial < 1 or self.draws:
                # Reading the count waits for the device, so it is done only where it is needed.
                drawn = torch.Generator().manual_seed((self.seed << 32) + int(self.step))
            self.step += 1
            if self.partial < 1:
                rows, labels = self._sample(labels, drawn)
                centres = centres[rows]
            if self.draws:
                given["generator"] = drawn
            if self.loss == "adaface":
                norms = embeddings.norm(dim=1)
                given["norms"] = torch.ones_like(norms) if self.normalised else norms
            if self.loss in _STATES:
                given["state"] = self.state
            cosines = F.linear(F.normalize(embeddings), F.normalize(centres))
            return LOSSES[self.loss](cosines, labels, **given), labels

    def extra_repr(self) -> str:
        """What print(head) shows; a training's checkpoint tells heads apart by it."""
        own = {"loss": self.loss, "partial": self.partial, "seed": self.seed}
        own |= {"normalised": True} if self.normalised else {}  # silent where it is as it ever was
        own |= self.settings
        values = ", ".join(f"{name}={value}" for name, value in own.items())
        return f"{', '.join(map(str, self.weight.shape))}, {values}"

    def _sample(
        self, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes of this step, ascending, and where in them the labels are."""
        present = labels.unique()
        count = max(len(present), round(self.partial * len(self.weight)))
        chance = torch.rand(len(self.weight), generator=generator).to(labels.device)
        chance[present] = 2.0  # above all others
        rows = chance.topk(count).indices.sort().values
        return rows, torch.searchsorted(rows, labels)


def _target(cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each row's cosine with its own class: (N,)."""
    return cosines.gather(1, labels[:, None])[:, 0]


def _with_target(cosines: torch.Tensor, labels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The cosines with another value for each row's own class."""
    return cosines.scatter(1, labels[:, None], target[:, None])


def _turned(cosine: torch.Tensor, margin: float | torch.Tensor) -> torch.Tensor:
    """cos(theta + margin) for a cos(theta)."""
    return torch.cos(torch.acos(cosine.clamp(_EDGE - 1, 1 - _EDGE)) + margin)


def _drawn(
    target: torch.Tensor,
    mean: float,
    std: float,
    ranked: bool,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """A margin for each face: (N,); `ranked`: the lower its cosine, the larger."""
    margins = torch.empty(len(target)).normal_(mean, std, generator=generator).to(target.device)
    if not ranked:
        return margins
    hardest_last = target.detach().argsort(descending=True)
    return torch.empty_like(margins).scatter(0, hardest_last, margins.sort().values)
