"""Training recognition networks as ArcFace, ElasticFace and QuantFace did, on any devices.

Their recipe: SGD with momentum 0.9 and weight decay 5e-4 on the network and on the head (the class
centres, `models.margins`), a rate that falls tenfold at milestones, faces mirrored at random, and
the gradient of the network (not of the head) clipped to a norm of 5.

    recipe        epochs  batch  rate  milestones      source
    quantface         16    512   0.1  8, 14           Boutros, Damer and Kuijper 2022
    elasticface       26    512   0.1  8, 14, 20, 25   Boutros, Damer, Kirchbuchner and Kuijper 2022

A network may learn from a teacher too, beside labels or without any: see `distill`.

What a step draws (mirroring, dropout, margins, negative classes) depends on the seed and the step's
number alone. So a training that was stopped goes on from its checkpoint as if nothing had happened;
on a CPU with one number of threads, to the same weights bit for bit.

Several processes, one for each device:

    torchrun --nproc_per_node 2 -m studylib.train_recognition config.json

Each embeds its part of the batch. Then the embeddings of all are gathered, and every process runs
the same head over the whole batch: margins, statistics and negative classes are those of a training
in one process. Batch normalisation counts the whole batch too (`sync_norm`), so the loss is the
same up to rounding; only dropout draws otherwise. The head is not divided among the devices: at a
batch of 512 and embeddings of 512 each of them holds about 20 kB a class (weights, gradient and
momentum, and the logits several times over). That is 2 GB for the 85,742 identities of MS1MV2; a
GPU of 80 GB has room for some 3 million, and for more where `partial` thins out the logits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from studylib import distill, errors, models, teacher_cache
from studylib.compress import size
from studylib.datasets import packed
from studylib.datasets.packed import Joined, Packed
from studylib.distill import Teaching
from studylib.faces import Faces
from studylib.models import margins

RECIPES = {
    "quantface": {"epochs": 16, "batch_size": 512, "lr": 0.1, "milestones": (8, 14)},
    "elasticface": {"epochs": 26, "batch_size": 512, "lr": 0.1, "milestones": (8, 14, 20, 25)},
}
HISTORY = ("epoch", "step", "loss", "accuracy", "lr", "images_per_s", "seconds")
CHECKPOINT, METRICS, NETWORK = "checkpoint.safetensors", "metrics.parquet", "network.safetensors"
FORMAT = "studylib-training-1"
# Settings of which a checkpoint holds the SHA-256.
HASHES = {
    "network": "network and weights at the start",
    "data": "faces and labels",
    "taught": "the teacher's embeddings",
}
STATE = ("step", "loss", "correct", "taught", "seconds", "rows")
CONFIG = {
    **dict.fromkeys(("data", "folder", "network", "recipe", "device", "teacher_cache"), str),
    **dict.fromkeys(("settings", "teaching"), dict),
    "head": dict | None,
    "teacher": str | dict,
    **dict.fromkeys(("epochs", "batch_size", "seed", "every"), int),
    **dict.fromkeys(("lr", "momentum", "weight_decay"), float | int),
    "clip_norm": float | int | None,
    **dict.fromkeys(("flip", "compile", "sync_norm"), bool),
    "milestones": list,
}
TAUGHT = ("loss", "weight", "label_weight", "groups", "balance", "keep", "scale", "settings")
TAUGHT += ("mirrored",)  # not a part of `Teaching`, but of the embeddings
_KEY = "studylib"  # of a checkpoint's metadata
_MIRROR, _BACKBONE = 0, 1  # streams of random numbers; the second is that of the first process


def fit(
    backbone: nn.Module,
    head: nn.Module | None,
    data: Packed | Joined | Faces,
    *,
    teaching: Teaching | None = None,
    epochs: int,
    batch_size: int,
    lr: float = 0.1,
    milestones: tuple[int, ...] = (),
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip_norm: float | None = 5.0,
    flip: bool = True,
    seed: int,
    device="cpu",
    compile: bool = False,
    sync_norm: bool = True,
    folder: str | Path | None = None,
    every: int | None = None,
    log: Callable[[dict], None] | None = None,
) -> pd.DataFrame:
    """Train a network and its head in place; both are left on the device, in evaluation mode.

    In a process that `torch.distributed` has made one of several, all of them must make this call,
    with the same arguments but for their own device.

    Parameters
    ----------
    backbone : torch.nn.Module
        Takes uint8 faces (B, C, H, W), gives embeddings (B, D).
    head : torch.nn.Module or None
        `margins.Head`: takes float32 embeddings (B, D) and labels (B,), gives logits (B, K) and
        targets (B,). Its `weight` holds a row of D values for each class; all else that it draws or
        remembers has to follow from its buffers. None: the network learns from its teacher alone,
        and faces need no labels.
    data : Packed, Joined or Faces
        N faces with labels 0..C-1. Packed ones are read from disk batch by batch, so there may be
        more than any memory holds.
    teaching : distill.Teaching, optional
        A teacher's embeddings of the N faces, and how the network is to learn from them. What is
        minimised is `label_weight` times the cross-entropy plus `weight` times the distillation
        loss.
    epochs, batch_size : int
        Passes over the faces, and faces in an update, of all processes together; those that do not
        fill a last batch are left out, other ones in every epoch.
    lr : float
        The rate, as is: the papers take 0.1 for a batch of 512, and less in proportion.
    milestones : tuple of int
        Epochs, counted from 1, from which on the rate is a tenth of what it was.
    momentum, weight_decay : float
        Of SGD, for all parameters of the network and the head.
    clip_norm : float or None
        The longest gradient of the network; the head's is left as it is, as in the papers.
    flip : bool
        Mirror every second face or so.
    seed : int
        Of order, mirroring and dropout; torch's own generator is left as it was.
    device : str or torch.device
        Where to train. On CUDA the network (not the head) computes in bfloat16 by autocast.
    compile : bool
        Hand the network to torch.compile, which takes a minute and, on a GPU, may win it back.
    sync_norm : bool
        Whether batch normalisation takes mean and variance over all processes. The papers' own
        training did not: each GPU used its own faces, and the first one's running values were kept.
    folder : path, optional
        Where to keep checkpoint.safetensors (all state after the last epoch, and in between as
        `every` says) and metrics.parquet (the table returned). If it holds a checkpoint of the same
        training, that goes on, or is read if it was finished; more `epochs` prolong it.
    every : int, optional
        Steps between checkpoints within an epoch.
    log : callable, optional
        Called with each epoch's row, a dict, such as print.

    Returns
    -------
    pandas.DataFrame
        One row an epoch: epoch (from 1), step (updates so far), loss (cross-entropy, mean over the
        epoch), accuracy (share of faces whose own class has the largest logit although a margin is
        taken from it), lr, images_per_s and seconds (of all processes together, for this epoch).
        Taught networks have kd too, the distillation loss before its weight (mean over the epoch;
        loss is the cross-entropy before its own), and as the epoch ends, for each group G, kd_G
        (its running loss) and multiplier_G (its weight, where groups are balanced). Without a head
        loss and accuracy are NaN.

    Raises
    ------
    DataError
        Faces without labels or with labels out of range, a teacher's embeddings of other faces, or
        a damaged or foreign checkpoint.
    ParameterError
        A number out of range, a head or a teaching that does not fit, a checkpoint of another
        training, or a training that diverges.
    """
    device = torch.device(device)
    backbone.to(device, memory_format=torch.channels_last)
    numbers = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "every": every}
    found = _check(backbone, head, data, device, teaching is not None, **numbers)
    parts, beside = {"backbone": backbone, "head": head}, {}
    if head is not None:
        beside["labels"] = packed.labels_of(data)
    if teaching is not None:
        parts["term"] = _taught(teaching, data, head, found)
        beside["wanted"] = teaching.wanted
        if teaching.groups is not None:
            beside["groups"] = teaching.codes()
    both = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
    both.to(device, memory_format=torch.channels_last)
    trained = [p for p in both.parameters() if p.requires_grad]
    work = _Work(
        both,
        torch.optim.SGD(trained, lr, momentum, weight_decay=weight_decay, fused=True),
        {
            **{"batch_size": batch_size, "lr": lr, "milestones": list(milestones)},
            **{"momentum": momentum, "weight_decay": weight_decay, "clip_norm": clip_norm},
            **{"flip": flip, "seed": seed, "sync_norm": sync_norm},
            "teaching": teaching and teaching.about(),
        },
        tuple(beside),
        Path(folder).expanduser() if folder else None,
        *(len(data) // batch_size, every),
        *((dist.get_rank(), dist.get_world_size()) if _in_group() else (0, 1)),
    )
    given = partial(packed.batches, data, batch_size=batch_size, seed=seed, device=device)
    given = partial(given, rank=work.rank, world=work.world)
    given = partial(given, labelled=False, beside=tuple(beside.values()))
    if folder:
        work.settings |= {
            "head": repr(head),
            "network": _start(work),
            "data": packed.fingerprint(data),
        }
        if teaching is not None:
            work.settings["taught"] = teaching.digest()
        _resume(work, epochs)
    if work.world > 1:
        _share(work)
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        _whole_batch_norms(backbone, device, work.world > 1 and sync_norm),
        _progress(work, epochs) as shown,
    ):
        network = _distributed(backbone, device, work.world)
        network = torch.compile(network) if compile else network
        for epoch in range(work.step // work.steps + 1, epochs + 1):
            rate = lr * 0.1 ** sum(epoch >= milestone for milestone in milestones)
            work.optimiser.param_groups[0]["lr"] = rate
            batches = given(epoch=epoch, skip=work.step % work.steps)
            with contextlib.closing(batches):  # its threads end with it, whatever happens
                work.rows.append({"epoch": epoch, **_epoch(work, network, batches, shown)})
            if work.world > 1:
                _share(work)  # so that rounding cannot drive the heads apart
            _write(work)
            if log and work.rank == 0:
                log(work.rows[-1])
    both.eval()
    return _history(work)


@dataclass
class _Work:
    """A training under way: what takes part, and what a checkpoint holds of it."""

    both: nn.ModuleDict  # backbone, head and the teacher's term; the last two only if there are any
    optimiser: torch.optim.Optimizer
    settings: dict  # what tells this training from another
    beside: tuple[str, ...]  # what each batch has besides its images, in this order
    folder: Path | None
    steps: int  # in an epoch
    every: int | None
    rank: int
    world: int
    step: int = 0  # updates made
    loss: float = 0.0  # sums over the steps of the epoch at work, and seconds spent on it
    correct: int = 0
    taught: float = 0.0
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Steps to the end of the epoch at work; 0 between two epochs."""
        return -self.step % self.steps


def _epoch(work: _Work, network: nn.Module, batches, shown: Callable) -> dict:
    """What is left of one epoch; its row of the history, without the epoch's number."""
    work.both.train()
    sums = 0  # of loss, hits and the distillation loss: (3,)
    start = time.perf_counter()
    for images, *rows in batches:
        beside = dict(zip(work.beside, rows, strict=True))
        sums = sums + _step(work, network, images, beside)
        work.step += 1
        shown(work.step)
        halfway = work.every and work.step % work.every == 0 and work.left
        if halfway or not work.left:
            loss, correct, taught = sums.tolist()  # waits for the GPU; then the clock is read
            work.loss, work.correct = work.loss + loss, work.correct + int(correct)
            work.taught += taught
            work.seconds += time.perf_counter() - start
            _converging(work)
            sums = 0
            start = time.perf_counter()
        if halfway:
            _write(work)
    images, labelled = work.steps * work.settings["batch_size"], "head" in work.both
    row = {
        "step": work.step,
        "loss": work.loss / work.steps if labelled else math.nan,
        "accuracy": work.correct / images if labelled else math.nan,
        "lr": work.optimiser.param_groups[0]["lr"],
        "images_per_s": images / work.seconds,
        "seconds": work.seconds,
    }
    if "term" in work.both:
        row |= {"kd": work.taught / work.steps, **work.both["term"].report()}
    work.loss, work.correct, work.taught, work.seconds = 0.0, 0, 0.0, 0.0
    return row


def _step(
    work: _Work, network: nn.Module, images: torch.Tensor, beside: dict[str, torch.Tensor]
) -> torch.Tensor:
    """One update; the whole batch's loss, number of hits and distillation loss, float64 (3,).

    They are the same in every process.
    """
    rank, world = work.rank, work.world
    view = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    if work.settings["flip"]:
        _seed(work, _MIRROR)
        mirrored = torch.rand(work.settings["batch_size"]).chunk(world)[rank] < 0.5
        mirrored = mirrored.to(images.device, non_blocking=True)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        view = mirrored.long()
    if "wanted" in beside:
        wanted = beside["wanted"]  # (B / world, V, E)
        view = view.clamp(max=wanted.shape[1] - 1)
        rows = torch.arange(len(view), device=view.device)
        beside = {**beside, "wanted": wanted[rows, view].float()}
    _seed(work, _BACKBONE + rank)
    with torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
        embeddings = network(images.contiguous(memory_format=torch.channels_last))
    embeddings = embeddings.float()  # (B / world, D)
    if world > 1:
        embeddings = _gather(embeddings, rank, world).flatten(0, 1)  # (B, D)
        beside = {name: _gather(rows, rank, world).flatten(0, 1) for name, rows in beside.items()}
    total, told = _losses(work, embeddings, beside)
    work.optimiser.zero_grad()
    total.backward()
    if work.settings["clip_norm"] is not None:
        nn.utils.clip_grad_norm_(work.both["backbone"].parameters(), work.settings["clip_norm"])
    work.optimiser.step()
    return told


def _losses(
    work: _Work, embeddings: torch.Tensor, beside: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step minimises; and its cross-entropy, hits and distillation loss, float64 (3,)."""
    told = embeddings.new_zeros(3, dtype=torch.float64)
    total, teaching, centres = 0, work.settings["teaching"], None
    if "head" in work.both:
        centres = work.both["head"].weight
        logits, targets = work.both["head"](embeddings, beside["labels"])
        total = loss = F.cross_entropy(logits, targets)
        told[0], told[1] = loss.detach(), (logits.argmax(1) == targets).sum()
    if "term" in work.both:
        wanted, groups = beside["wanted"], beside.get("groups")
        term, told[2] = work.both["term"](embeddings, wanted, groups, centres)
        total = teaching["label_weight"] * total + teaching["weight"] * term
    return total, told


def _converging(work: _Work) -> None:
    if not math.isfinite(loss := work.loss + work.taught):
        epoch, rate = len(work.rows) + 1, work.optimiser.param_groups[0]["lr"]
        raise errors.ParameterError(errors.DIVERGED.format(loss=loss, epoch=epoch, lr=rate))


def _history(work: _Work) -> pd.DataFrame:
    """The rows so far; what only some trainings tell comes after what all do."""
    more = [name for name in (work.rows or [{}])[0] if name not in HISTORY]
    return pd.DataFrame(work.rows, columns=[*HISTORY, *more])


def _seed(work: _Work, stream: int) -> None:
    """Let torch draw what belongs to this step, whatever was drawn before it."""
    words = np.random.SeedSequence([work.settings["seed"], work.step, stream])
    torch.manual_seed(int(words.generate_state(1)[0]))


def _check(backbone, head, data, device, taught, *, epochs, batch_size, lr, every) -> int:
    """Refuse what cannot be trained; the size of the embeddings, as one face shows it."""
    errors.at_least(1, epochs=epochs, every=1 if every is None else every)
    errors.at_least(2, batch_size=batch_size)  # normalisation needs two
    if not lr > 0:
        raise errors.ParameterError(errors.NOT_ABOVE_ZERO.format(what="lr", value=lr))
    if head is None and not taught:
        raise errors.ParameterError(errors.NOTHING_TO_LEARN)
    if head is not None:
        labels, centres = packed.labels_of(data), len(head.weight)
        low, high = labels.min(initial=0), labels.max(initial=0)
        if not 0 <= low <= high < centres:
            allowed = f"from 0 to {centres - 1} (the head has {centres} classes)"
            raise errors.DataError(
                errors.CODE_RANGE.format(what="label", allowed=allowed, low=low, high=high)
            )
    face = data.images[:1] if isinstance(data, Faces) else data.batch([0])
    with torch.inference_mode():
        found = backbone.eval()(face.to(device)).shape[1]
    if len(data) < batch_size:
        text = errors.BATCH_TOO_LARGE.format(found=len(data), batch_size=batch_size)
        raise errors.ParameterError(text)
    if head is not None and found != (wanted := head.weight.shape[1]):
        raise errors.ParameterError(errors.OTHER_EMBEDDING.format(found=found, wanted=wanted))
    return found


def _taught(teaching: Teaching, data, head: nn.Module | None, dimensions: int) -> distill.Term:
    """The teacher's term, if it fits the faces, the network and the head."""
    if (rows := teaching.shape[0]) != len(data):
        raise errors.DataError(errors.TAUGHT_ROWS.format(rows=rows, faces=len(data)))
    if head is None:
        return distill.Term(teaching, dimensions)
    return distill.Term(teaching, dimensions, len(head.weight), packed.labels_of(data))


# --- several processes ---------------------------------------------------------------------------


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _distributed(backbone: nn.Module, device: torch.device, world: int) -> nn.Module:
    """The network as each of several processes calls it: gradients are averaged over them."""
    if world == 1:
        return backbone
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(backbone, devices, broadcast_buffers=False)


def _share(work: _Work) -> None:
    """Give every process the first one's network and head."""
    for tensor in work.both.state_dict().values():
        whole = tensor.contiguous()
        dist.broadcast(whole, 0)
        tensor.copy_(whole)


class _Sum(torch.autograd.Function):
    """The sum over all processes. Its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        return _Sum.apply(gradient)


def _gather(x: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """Every process's tensor, (world, *x.shape), through which gradients flow.

    Where all processes compute the same loss from it, each one's part gets `world` times its
    gradient; the mean over processes that DistributedDataParallel takes makes that right again.
    """
    everyone = x.new_zeros(world, *x.shape)
    everyone[rank] = x
    return _Sum.apply(everyone)


@contextlib.contextmanager
def _whole_batch_norms(backbone: nn.Module, device: torch.device, wanted: bool) -> Iterator[None]:
    """Let batch normalisation work on the faces of all processes while this lasts.

    The modules stay what they are and only get another `forward`: on a GPU that of SyncBatchNorm,
    which works on the same parameters and buffers; elsewhere, where it does not run, our own.
    """
    kinds = nn.modules.batchnorm._BatchNorm
    norms = [module for module in backbone.modules() if wanted and isinstance(module, kinds)]
    for norm in norms:
        norm.train()
        if device.type == "cuda":
            norm.forward = nn.SyncBatchNorm.convert_sync_batchnorm(norm).forward
        else:
            norm.forward = partial(_batch_norm, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _batch_norm(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Batch normalisation in training over all processes' equal parts, (B / world, C, ...)."""
    rank, world = dist.get_rank(), dist.get_world_size()
    of_each = [d for d in range(x.ndim) if d != 1]
    var, mean = torch.var_mean(x, of_each, correction=0)
    var, mean = _gather(torch.stack([var, mean]), rank, world).unbind(1)  # (world, C) each
    # The variance of the whole: that within the parts, and that of their means.
    var, mean = var.mean(0) + mean.var(0, correction=0), mean.mean(0)  # (C,)
    n = world * x.numel() // x.shape[1]
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * n / (n - 1), norm.momentum)
    shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
    factor = norm.weight * (var + norm.eps).rsqrt()
    return (x - mean.view(shape)) * factor.view(shape) + norm.bias.view(shape)


# --- checkpoints ---------------------------------------------------------------------------------


def _write(work: _Work) -> None:
    """Write checkpoint and metrics, each whole or not at all; only the first process does."""
    if work.folder is None or work.rank:
        return
    work.folder.mkdir(parents=True, exist_ok=True)
    momenta = {
        f"momentum.{name}": work.optimiser.state[p]["momentum_buffer"]
        for name, p in work.both.named_parameters()
        if work.optimiser.state.get(p, {}).get("momentum_buffer") is not None
    }
    tensors = work.both.state_dict() | momenta
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"settings": work.settings, "state": {name: getattr(work, name) for name in STATE}}
    content = {"format": FORMAT, "about": about, "sha256": size.digest(tensors, about)}
    size.save_tensors(tensors, work.folder / CHECKPOINT, {_KEY: json.dumps(content)})
    _replace(work.folder / METRICS, _history(work).to_parquet)


def _replace(path: Path, save: Callable[[Path], None]) -> None:
    """Put a new file in a file's place, once it is whole."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _resume(work: _Work, epochs: int) -> None:
    """Take up the folder's checkpoint, if it has one; refuse one that is not of this training.

    Every process reads it; the first one's next is written after a step that they made together.
    """
    path = work.folder / CHECKPOINT
    if not path.exists():
        return
    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if content.get("format") != FORMAT:
                raise ValueError(f"its format is {content.get('format')}, not {FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = content["about"]
        if content["sha256"] != size.digest(tensors, about):
            raise ValueError("its content does not match its checksum")
    except (OSError, ValueError, LookupError, AttributeError, SafetensorError) as problem:
        text = errors.NOT_A_CHECKPOINT.format(path=path, problem=problem)
        raise errors.DataError(text) from problem
    for name, wanted in work.settings.items():
        if (found := about["settings"].get(name)) != wanted:
            what = f"SHA-256 of {HASHES[name]}" if name in HASHES else name
            raise _other(path, f"its {what}: {found}, now: {wanted}")
    if len(about["state"]["rows"]) > epochs:
        raise _other(path, f"it has done {len(about['state']['rows'])} epochs, now: {epochs}")
    _restore(work, tensors)
    for name in STATE:
        setattr(work, name, about["state"].get(name, getattr(work, name)))


def _other(path: Path, problem: str) -> errors.ParameterError:
    return errors.ParameterError(errors.OTHER_TRAINING.format(path=path, problem=problem))


@torch.no_grad()
def _restore(work: _Work, tensors: dict[str, torch.Tensor]) -> None:
    """Put a checkpoint's tensors in their places; the same weights at the start had these too."""
    for name, tensor in work.both.state_dict().items():
        tensor.copy_(tensors[name])
    for name, p in work.both.named_parameters():
        if (momentum := tensors.get(f"momentum.{name}")) is not None:
            work.optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(momentum)


def _start(work: _Work) -> str:
    """SHA-256 of the network's modules, and of all weights."""
    weights = {name: tensor.cpu() for name, tensor in work.both.state_dict().items()}
    return size.digest(weights, {"network": repr(work.both["backbone"])})


# --- what a watcher sees, and the command --------------------------------------------------------


@contextlib.contextmanager
def _progress(work: _Work, epochs: int) -> Iterator[Callable[[int], None]]:
    """A line with a bar, images/s and the time left, in a terminal; nothing anywhere else."""
    console = Console(stderr=True)
    columns = (
        *(TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"), BarColumn()),
        *(TextColumn("{task.fields[speed]:,.0f} images/s"), TimeRemainingColumn()),
    )
    quiet = work.rank > 0 or not console.is_terminal or console.is_jupyter
    start, begun = time.perf_counter(), work.step
    with Progress(*columns, console=console, disable=quiet) as bar:
        task = bar.add_task("", total=epochs * work.steps, epoch=1, epochs=epochs, speed=0)

        def show(step: int) -> None:
            done = (step - begun) * work.settings["batch_size"]
            speed = done / (time.perf_counter() - start)
            bar.update(task, completed=step, epoch=1 + (step - 1) // work.steps, speed=speed)

        yield show


def train(config: dict) -> pd.DataFrame:
    """Train the network that a configuration describes, and write it to a file.

    Parameters
    ----------
    config : dict
        `data` (a packed folder) and `folder` (for all that is written); optionally `network`
        (iresnet50) and its `settings` (as `models.build` takes them), `head` (settings of
        `margins.Head`; ArcFace over all classes; null: none, where there is a teacher), `recipe` (a
        key of `RECIPES`; quantface), `device` (cpu, cuda, or auto, which takes what there is),
        `seed` (0), and any of `fit`'s own options, which go before those of the recipe.

        With a teacher: `teacher` (a network that `models.load` takes, or an object with one for
        each group), `teacher_cache` (the folder of its embeddings, computed by the first process
        that needs them; FOLDER/teacher_cache), and `teaching`: what `distill.Teaching` takes, where
        `groups` is a column of the packed faces, and `mirrored` (true: mirrored faces get
        embeddings of their own).

    Returns
    -------
    pandas.DataFrame
        From `fit`. In the folder there is network.safetensors too, for `models.load`.

    Raises
    ------
    DataError, ParameterError
        A key that is unknown or has a value of the wrong type, or as `fit`.
    """
    for name, value in config.items():
        errors.one_of("key of the configuration", name, CONFIG)
        if isinstance(value, bool) != (CONFIG[name] is bool) or not isinstance(value, CONFIG[name]):
            text = errors.PARAMETER_TYPE.format(name=name, value=value, annotation=CONFIG[name])
            raise errors.ParameterError(text)
    for name in ("data", "folder"):
        if name not in config:
            raise errors.ParameterError(errors.MISSING_PARAMETER.format(name=name))
    options = {"recipe": "quantface", "seed": 0, "device": "auto", "head": {}, "settings": {}}
    options |= {"network": "iresnet50", **config}
    errors.one_of("recipe", recipe := options.pop("recipe"), RECIPES)
    data, seed = packed.open_packed(options.pop("data")), options["seed"]
    about = {"architecture": options.pop("network"), "settings": options.pop("settings")}
    backbone = models.build(about["architecture"], **{"seed": seed, **about["settings"]})
    embedding = backbone.eval()(data.batch([0])).shape[1]
    head = options.pop("head")
    if head is not None:
        head = margins.Head(len(data.classes), embedding, **{"seed": seed, **head})
    options["device"] = _device(options["device"])
    options |= {"teaching": _teaching(options, data)}
    history = fit(backbone, head, data, **{**RECIPES[recipe], **options})
    if not _in_group() or dist.get_rank() == 0:
        kept = {name: value for name, value in config.items() if name not in ("data", "folder")}
        about |= {"trained": {**kept, "origin": data.origin}}
        models.save(backbone, Path(options["folder"]).expanduser() / NETWORK, about)
    return history


def _teaching(options: dict, data: Packed) -> Teaching | None:
    """The teaching that a configuration describes; its keys are taken out of the options."""
    folder = options.pop("teacher_cache", Path(options["folder"]) / "teacher_cache")
    teacher, given = options.pop("teacher", None), {**options.pop("teaching", {})}
    if teacher is None:
        if given:
            raise errors.ParameterError(errors.MISSING_PARAMETER.format(name="teacher"))
        return None
    for key in given:
        errors.one_of("key of the teaching", key, TAUGHT)
    mirrored, column = given.pop("mirrored", True), given.get("groups")
    if column is not None:
        errors.one_of("column of the faces", column, data.table)
        given["groups"] = data.table[column].to_numpy(str)

    def wanted(name: str) -> np.ndarray:
        network, device = models.load(name), options["device"]
        return teacher_cache.embeddings(network, data, folder, mirrored=mirrored, device=device)

    if isinstance(teacher, str):
        return Teaching(wanted(teacher), **given)
    if column is None:
        raise errors.ParameterError(errors.MISSING_PARAMETER.format(name="groups"))
    each = {name: wanted(network) for name, network in teacher.items()}
    return Teaching(distill.PerGroup(each, given["groups"]), **given)


def main(arguments: list[str] | None = None) -> int:
    """Train as a JSON file says; torchrun starts this in each of its processes."""
    parser = argparse.ArgumentParser(prog="python -m studylib.train_recognition")
    parser.add_argument("config", type=Path, help="a JSON file, see train()")
    path = parser.parse_args(arguments).config
    try:
        with _group():
            train(_config(path))
    except errors.StudyError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as problem:
        text = errors.BAD_CONFIG.format(path=path, problem=problem, keys=", ".join(CONFIG))
        raise errors.DataError(text) from problem
    return config


def _device(name: str) -> torch.device:
    """The device of this process: torchrun counts the processes of a machine."""
    errors.one_of("device", name, ("auto", "cpu", "cuda"))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        found = f"process {index} of this machine finds {count} GPUs"
        raise errors.ParameterError(errors.NO_CUDA.format(value=name, found=found))
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextlib.contextmanager
def _group() -> Iterator[None]:
    """Join the processes that torchrun has started, if it has."""
    if not dist.is_torchelastic_launched():
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
