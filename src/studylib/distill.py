"""Knowledge distillation: what a student network learns from a teacher's embeddings, and how much.

Each loss takes embeddings of the same B faces by the student and by the teacher, float32 (B, D) and
(B, E), and gives a value a face, (B,); the loss of a batch is their mean. All work on directions,
so both are brought to length 1 first. What lies between faces (`rkd`, `similarity`) counts for the
face that it is seen from.

    loss        compares                                    source                      D and E
    embedding   embeddings, each dimension                  Neto et al. 2024            equal
    cosine      embeddings, their angle                     the same up to a factor     equal
    rkd         distances and angles among the faces        Park et al. 2019            any
    similarity  cosines among the faces                     Tung and Mori 2019          any
    logits      probabilities of the classes, softened      Hinton et al. 2015          any

`Teaching` says which of them, how much it weighs, and what becomes of groups of faces: `reweighted`
gives more weight to those that lag behind, `constrained` bounds how far any may lag behind.
`train_recognition.fit` takes it; `PerGroup` gives each group a teacher of its own.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import nn

from studylib import errors
from studylib.models import margins

_ROWS = 8192  # of a teacher's embeddings, read at a time
_TINY = 1e-12  # what a mean of losses or distances is at least, where it divides
_NEAR = 1e-6  # squared distances of unit rows that rounding cannot tell from 0


def embedding(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared differences of the embeddings, mean over the dimensions (Neto et al. 2024).

    With D dimensions this is 2 (1 - cos) / D. So the paper's weight of 10,000 is one of 39.06 on
    1 - cos at its D of 512; 20,000 / D at any other, such as 156.25 at 128.

    Examples
    --------
    >>> 10_000 * embedding(torch.eye(512)[:1], torch.eye(512)[1:2])  # a right angle
    tensor([39.0625])
    """
    _same_size(student, teacher)
    return (F.normalize(student) - F.normalize(teacher)).square().mean(1)


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - cos: `embedding` without its dependence on the number of dimensions.

    Examples
    --------
    >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.2929])
    """
    _same_size(student, teacher)
    return 1 - (F.normalize(student) * F.normalize(teacher)).sum(1)


def rkd(
    student: torch.Tensor, teacher: torch.Tensor, *, distance: float = 1.0, angle: float = 2.0
) -> torch.Tensor:
    """Distances between faces and angles among three (relational distillation, Park et al. 2019).

    A distance counts in units of the mean distance in the batch; an angle, by its cosine at the
    face that it is seen from. Differences enter by Huber's loss, and those of a face with itself
    (which are 0) count in the means, as in the authors' code; their embeddings may have any length.

    Parameters
    ----------
    student, teacher : torch.Tensor
        (B, D) and (B, E). Angles take B^3 values of memory.
    distance, angle : float
        Weights of the two, 1 : 2 as in the paper.
    """
    total = 0.0
    of_student, of_teacher = _between(student), _between(teacher)
    for weight, told in ((distance, _distances), (angle, _angles)):
        if weight:
            difference = F.smooth_l1_loss(told(*of_student), told(*of_teacher), reduction="none")
            total = total + weight * difference.flatten(1).mean(1)
    return total


def similarity(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Each face's cosines with all faces, as a row of length 1 (Tung and Mori 2019).

    Squared differences of the rows, divided by B; the mean over faces has the paper's B^2 below.
    Its activations may have any length, embeddings here have length 1.
    """
    rows = [F.normalize(F.normalize(x) @ F.normalize(x).T) for x in (student, teacher)]
    return (rows[0] - rows[1]).square().sum(1) / len(student)


def logits(
    student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 4.0
) -> torch.Tensor:
    """How far softened probabilities are from the teacher's (Hinton, Vinyals and Dean 2015).

    Kullback and Leibler's divergence, times the temperature squared, so that gradients do not
    shrink with it.

    Parameters
    ----------
    student, teacher : torch.Tensor
        Logits (B, C). In a `Teaching` they are cosines with class centres, times `scale`, and
        without a margin: the student's with those of its head; the teacher's with its own centres,
        or with the mean of its embeddings of each class where those are not known.
    temperature : float
        By which both are divided.
    """
    wanted = (teacher / temperature).log_softmax(1)
    given = (student / temperature).log_softmax(1)
    return F.kl_div(given, wanted, log_target=True, reduction="none").sum(1) * temperature**2


LOSSES = {f.__name__: f for f in (embedding, cosine, rkd, similarity, logits)}
# As published; 1 - cos has what `embedding` has at 512 dimensions.
WEIGHTS = {
    "embedding": 10_000.0,
    "cosine": 39.0625,
    "rkd": 25.0,
    "similarity": 3_000.0,
    "logits": 1.0,
}


def reweighted(levels: torch.Tensor, multipliers: torch.Tensor, *, rise: float = 1.0) -> None:
    """Weights (G,) that rise with the groups' losses and have the mean 1; the study's own rule.

    Parameters
    ----------
    levels : torch.Tensor
        (G,), the groups' running losses.
    multipliers : torch.Tensor
        (G,), where the weights are kept for whoever looks.
    rise : float
        Power of the loss: 0 weighs all alike, a large one the worst group alone.
    """
    weights = (levels / levels.max().clamp(min=_TINY)) ** rise
    multipliers.copy_(weights / weights.mean().clamp(min=_TINY))


def constrained(
    levels: torch.Tensor,
    multipliers: torch.Tensor,
    *,
    bound: float = 0.1,
    rate: float = 0.1,
    restart: bool = False,
) -> None:
    """A step of dual ascent on: no group's loss is above the groups' mean by more than `bound`.

    After Hashemizadeh et al. (2024), who bound each group's drop in accuracy against that of all.
    Each constraint has a multiplier, which rises and falls with the violation and is never below 0;
    it goes on rising where the constraint cannot hold. Theirs are violations of accuracy, seen
    through replay buffers; these are relative ones of the distillation loss, by running means.

    Parameters
    ----------
    levels : torch.Tensor
        (G,), the groups' running losses.
    multipliers : torch.Tensor
        (G,), changed in place.
    bound : float
        Of a group's loss over the mean of all groups', minus 1.
    rate : float
        Of the ascent, a step.
    restart : bool
        Put a multiplier back to 0 as soon as its constraint holds (Gallego-Posada et al. 2022):
        quicker to let go, but where a constraint stays in the way, its loss swings above the bound.
    """
    violation = levels / levels.mean().clamp(min=_TINY) - 1 - bound
    raised = (multipliers + rate * violation).clamp(min=0)
    multipliers.copy_(torch.where(violation > 0, raised, 0) if restart else raised)


BALANCES = {f.__name__: f for f in (reweighted, constrained)}


@dataclass(frozen=True, eq=False)
class Teaching:
    """What a student is taught by a teacher, beside labels or instead of them.

    Attributes
    ----------
    wanted : numpy.ndarray, torch.Tensor or PerGroup
        The teacher's embeddings: float16 or float32 (N, V, E), rows of length 1, row i for face i
        of the training data; a memory map is read batch by batch. With V = 1 a mirrored face is to
        get the embedding of the face as it is, as in the paper; with V = 2 the second is that of
        the mirrored face.
    loss : str
        One of `LOSSES`.
    weight : float
        Of the loss; None: as published (`WEIGHTS`).
    groups : array of N names, optional
        Each face's group. The history then has each group's loss.
    balance : str, optional
        One of `BALANCES`; needs groups.
    label_weight : float
        Of the cross-entropy of the labels, where the student has a head.
    keep : float
        Share of a group's running loss that a step keeps, between 0 and 1.
    centres : torch.Tensor, optional
        For `logits`: the teacher's own class centres (C, E); None: means of its embeddings.
    scale : float
        For `logits`: by which cosines are multiplied, the student's and the teacher's.
    settings : dict
        Of the loss and of the balance: what they take by name.

    Raises
    ------
    DataError
        Embeddings of another shape or type or length, or groups of another number.
    ParameterError
        An unknown name, or a number out of range.
    """

    wanted: Any
    loss: str = "embedding"
    weight: float | None = None
    groups: Any = None
    balance: str | None = None
    label_weight: float = 1.0
    keep: float = 0.9
    centres: torch.Tensor | None = None
    scale: float = margins.SCALE
    settings: dict = field(default_factory=dict)

    def __post_init__(self):
        errors.one_of("loss of a teaching", self.loss, LOSSES)
        errors.share(keep=self.keep)
        known = _named(LOSSES[self.loss])
        if self.balance is not None:
            errors.one_of("balance", self.balance, BALANCES)
            known += _named(BALANCES[self.balance])
            if self.groups is None:
                raise errors.ParameterError(errors.NO_TAUGHT_GROUPS.format(balance=self.balance))
        for setting in self.settings:
            errors.one_of(f"setting of {self.loss}", setting, known)
        if self.weight is None:
            object.__setattr__(self, "weight", WEIGHTS[self.loss])
        above = {"weight": self.weight, "scale": self.scale}
        above["temperature"] = self.settings.get("temperature", 1)
        for name, value in above.items():
            if not value > 0:
                raise errors.ParameterError(errors.NOT_ABOVE_ZERO.format(what=name, value=value))
        errors.at_least(0, label_weight=self.label_weight, **self.settings)
        if isinstance(self.wanted, torch.Tensor):
            object.__setattr__(self, "wanted", self.wanted.detach().cpu().contiguous().numpy())
        if self.centres is not None:
            object.__setattr__(self, "centres", self.centres.detach().float().cpu())
        _check_rows(self.wanted)
        if self.groups is not None and len(self.groups) != self.shape[0]:
            text = errors.TAUGHT_GROUPS.format(groups=len(self.groups), rows=self.shape[0])
            raise errors.DataError(text)
        if self.centres is not None and self.centres.shape[-1] != self.shape[2]:
            text = errors.TEACHER_CENTRES.format(
                found=tuple(self.centres.shape), wanted=self.shape[2]
            )
            raise errors.DataError(text)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Faces N, views V and dimensions E."""
        return self.wanted.shape

    @property
    def names(self) -> list[str]:
        """The groups, sorted; none where none are given."""
        return [] if self.groups is None else sorted(set(map(str, self.groups)))

    def codes(self) -> np.ndarray:
        """int64 (N,), each face's place in `names`."""
        return np.searchsorted(self.names, np.asarray(self.groups).astype(str)).astype(np.int64)

    def about(self) -> dict:
        """What tells one teaching from another, besides the embeddings; JSON can hold it."""
        own = ("loss", "weight", "balance", "label_weight", "keep", "scale", "settings")
        return {name: getattr(self, name) for name in own} | {"groups": self.names}

    def digest(self) -> str:
        """SHA-256 of the embeddings, and of each face's group."""
        content = hashlib.sha256(str(self.shape).encode())
        for rows in _blocks(self.wanted):
            content.update(f"{rows.dtype}".encode())
            content.update(np.ascontiguousarray(rows))
        for each in (None if self.groups is None else self.codes(), self.centres):
            content.update(b"" if each is None else np.ascontiguousarray(each))
        return content.hexdigest()


class Term(nn.Module):
    """The distillation term of one training; what it remembers is in its buffers.

    Parameters
    ----------
    teaching : Teaching
    dimensions : int
        D, of the student's embeddings.
    classes : int, optional
        C, of the student's head; None without one.
    labels : numpy.ndarray, optional
        int64 (N,), for class means of the teacher's embeddings.

    Raises
    ------
    ParameterError
        A loss that needs equal dimensions, or classes, where there are none.
    """

    def __init__(
        self,
        teaching: Teaching,
        dimensions: int,
        classes: int | None = None,
        labels: np.ndarray | None = None,
    ):
        super().__init__()
        given, groups = teaching.settings, len(teaching.names)
        function, own = LOSSES[teaching.loss], _named(LOSSES[teaching.loss])
        self.teaching, self.function = teaching, function
        self.options = {name: value for name, value in given.items() if name in own}
        self.dual = {name: value for name, value in given.items() if name not in own}
        if teaching.loss in ("embedding", "cosine") and dimensions != teaching.shape[2]:
            raise _other_size(dimensions, teaching.shape[2])
        if teaching.loss == "logits":
            if classes is None:
                raise errors.ParameterError(errors.NO_TAUGHT_CLASSES)
            self.register_buffer("centres", _centres(teaching, classes, labels), persistent=False)
        if groups:
            self.register_buffer("sums", torch.zeros(groups))
            self.register_buffer("seen", torch.zeros(groups))
            start = torch.ones if teaching.balance == "reweighted" else torch.zeros
            self.register_buffer("multipliers", start(groups))

    def forward(
        self,
        student: torch.Tensor,
        wanted: torch.Tensor,
        groups: torch.Tensor | None = None,
        centres: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare embeddings (B, D) with those wanted (B, E), in float32.

        Parameters
        ----------
        student, wanted : torch.Tensor
            float32.
        groups : torch.Tensor, optional
            int64 (B,).
        centres : torch.Tensor, optional
            The student's, (C, D); for `logits`.

        Returns
        -------
        term : torch.Tensor
            What is to be minimised, before its weight.
        loss : torch.Tensor
            The mean over the faces, whatever the groups; without gradient.
        """
        if self.teaching.loss == "logits":
            student = self.teaching.scale * F.linear(F.normalize(student), F.normalize(centres))
            wanted = self.teaching.scale * F.linear(F.normalize(wanted), self.centres)
        each = self.function(student, wanted, **self.options)  # (B,)
        mean = each.mean()
        if groups is None:
            return mean, mean.detach()
        member = F.one_hot(groups, len(self.sums)).to(each.dtype)  # (B, G)
        counts = member.sum(0)
        of_groups = each @ member / counts.clamp(min=1)  # (G,); 0 of those that are not here
        self._follow(of_groups.detach(), counts > 0)
        if self.teaching.balance == "reweighted":
            return (each * self.multipliers[groups]).mean(), mean.detach()
        # The Lagrangian. The mean that a group is held against is taken as a constant: its gradient
        # would bring a group into its bound by making the others worse.
        return mean + (self.multipliers * of_groups).sum(), mean.detach()

    def levels(self) -> torch.Tensor:
        """The groups' running losses, (G,); NaN of those not seen yet."""
        return self.sums / (1 - self.teaching.keep**self.seen)

    def report(self) -> dict[str, float]:
        """For the history: each group's running loss, and its weight or multiplier."""
        if not self.teaching.names:
            return {}
        columns = {"kd": self.levels()}
        if self.teaching.balance is not None:
            columns["multiplier"] = self.multipliers
        return {
            f"{what}_{name}": value
            for what, values in columns.items()
            for name, value in zip(self.teaching.names, values.tolist(), strict=True)
        }

    @torch.no_grad()
    def _follow(self, of_groups: torch.Tensor, present: torch.Tensor) -> None:
        """Bring running losses and multipliers up to date, before they are used in this step."""
        keep = self.teaching.keep
        self.sums.copy_(torch.where(present, self.sums.lerp(of_groups, 1 - keep), self.sums))
        self.seen += present
        if self.teaching.balance is not None:
            known = self.seen > 0
            levels, values = self.levels()[known], self.multipliers[known]
            BALANCES[self.teaching.balance](levels, values, **self.dual)
            self.multipliers[known] = values


@dataclass(frozen=True, eq=False)
class PerGroup:
    """Each face's embedding by the teacher of its own group, as several teachers' caches hold them.

    A simple kin of Caldeira et al. (2024), who train one teacher for each ethnicity, and a layer
    that brings what all of them say of a face into one space; their students need no groups.
    Embeddings of networks trained apart lie in spaces turned against each other. So each teacher's
    are turned (or mirrored) to lie nearest to the first one's (orthogonal Procrustes, Schoenemann
    1966), over `aligned` faces spread over the data.

    Parameters
    ----------
    teachers : dict
        Group -> embeddings of ALL faces by its teacher, (N, V, E), as for `Teaching`.
    groups : array of N names
        Each face's group.
    aligned : int
        Faces from which the rotations are found; 0: none, embeddings stay as they are.

    Raises
    ------
    DataError
        Embeddings of different shapes, or a group without a teacher.
    """

    teachers: dict
    groups: Any
    aligned: int = 4096
    turns: dict = field(init=False, repr=False)

    def __post_init__(self):
        shapes = {np.shape(each) for each in self.teachers.values()}
        groups = np.asarray(self.groups).astype(str)
        missing = sorted(set(groups) - set(self.teachers))
        if len(shapes) != 1 or missing or len(groups) != next(iter(shapes))[0]:
            text = errors.GROUP_TEACHERS.format(
                shapes=sorted(shapes), missing=", ".join(missing) or "no group", n=len(groups)
            )
            raise errors.DataError(text)
        object.__setattr__(self, "groups", groups)
        first, turns = next(iter(self.teachers)), {}
        some = _spread(len(groups), self.aligned)
        for name in [name for name in self.teachers if self.aligned and name != first]:
            pair = (self.teachers[each][some, 0].astype(np.float64) for each in (name, first))
            turns[name] = scipy.linalg.orthogonal_procrustes(*pair)[0].astype(np.float32)
        object.__setattr__(self, "turns", turns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Faces N, views V and dimensions E."""
        return np.shape(next(iter(self.teachers.values())))

    def __getitem__(self, index) -> np.ndarray:
        """float32 (n, V, E), the embeddings of the faces at positions (n,)."""
        index = np.asarray(index)
        rows = np.empty((len(index), *self.shape[1:]), np.float32)
        for name, wanted in self.teachers.items():
            here = np.flatnonzero(self.groups[index] == name)
            found = np.asarray(wanted[index[here]], np.float32)
            rows[here] = found @ self.turns[name] if name in self.turns else found
        return rows


def _named(function) -> list[str]:
    """What a function takes by name alone."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]


def _same_size(student: torch.Tensor, teacher: torch.Tensor) -> None:
    if student.shape[1] != teacher.shape[1]:
        raise _other_size(student.shape[1], teacher.shape[1])


def _other_size(student: int, teacher: int) -> errors.ParameterError:
    return errors.ParameterError(errors.OTHER_TEACHER_SIZE.format(student=student, teacher=teacher))


def _between(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products (B, B) of unit rows, and distances (B, B), 0 where rows are equal."""
    x = F.normalize(x)
    products = x @ x.T
    lengths = products.diagonal()
    squares = lengths[:, None] + lengths - 2 * products
    apart = squares > _NEAR
    return products, torch.where(apart, squares, 1).sqrt() * apart  # a root has no slope at 0


def _distances(products: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Distances (B, B) over their mean."""
    return distances / (distances.sum() / (distances > 0).sum().clamp(min=1)).clamp(min=_TINY)


def _angles(products: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Cosines of the angles at face i between faces j and k: (B, B, B)."""
    own = products.diagonal()[:, None]  # <i, i>
    aside = own - products  # <i, i> - <i, j>
    # <j - i, k - i> = <j, k> - <i, j> - <i, k> + <i, i>
    over = products - products[:, :, None] + aside[:, None]
    apart = distances > 0
    inverse = apart / torch.where(apart, distances, 1)
    return over * inverse[:, :, None] * inverse[:, None]


def _spread(n: int, most: int) -> np.ndarray:
    """Up to `most` positions, spread over 0..n-1."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def _blocks(wanted):
    """Rows of embeddings, some at a time."""
    for start in range(0, wanted.shape[0], _ROWS):
        yield wanted[np.arange(start, min(start + _ROWS, wanted.shape[0]))]


def _check_rows(wanted) -> None:
    """Refuse what are no unit rows (N, V, E); 64 of them are looked at."""
    shape = tuple(np.shape(wanted))
    if len(shape) != 3 or shape[1] not in (1, 2) or not shape[0]:
        raise errors.DataError(errors.NOT_TAUGHT_ROWS.format(problem=f"the shape {shape}"))
    some = wanted[_spread(shape[0], 64)]
    if some.dtype not in (np.float16, np.float32):
        raise errors.DataError(errors.NOT_TAUGHT_ROWS.format(problem=f"numbers of {some.dtype}"))
    lengths = np.linalg.norm(some.astype(np.float32), axis=2)
    if not (abs(lengths - 1) < 0.01).all():
        worst = lengths.flat[np.argmax(abs(np.nan_to_num(lengths) - 1))]
        problem = f"a row of length {worst:.4g}"
        raise errors.DataError(errors.NOT_TAUGHT_ROWS.format(problem=problem))


def _centres(teaching: Teaching, classes: int, labels: np.ndarray) -> torch.Tensor:
    """The teacher's class centres, unit rows (C, E): its own, or means of its embeddings."""
    if teaching.centres is not None:
        if len(teaching.centres) != classes:
            text = errors.TEACHER_CLASSES.format(found=len(teaching.centres), wanted=classes)
            raise errors.DataError(text)
        return F.normalize(teaching.centres)
    sums = torch.zeros(classes, teaching.shape[2])
    start = 0
    for rows in _blocks(teaching.wanted):
        here = torch.tensor(labels[start : start + len(rows)])  # a copy: tables are read-only
        sums.index_add_(0, here, torch.from_numpy(rows.astype(np.float32)).sum(1))
        start += len(rows)
    return F.normalize(sums)
