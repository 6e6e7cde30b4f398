"""How fast a machine trains and draws: measured by a short timing, or assumed from a data sheet.

A network's work is counted in floating point operations (an addition and a multiplication are two),
by torch's own counter on tensors without content; what is counted is convolutions and dense layers.
A training step takes three times the work of a forward pass: forward, and backward to the inputs
and to the weights. How much of a processor such work can use depends on the kind of network and on
its width far more than on its depth, so the yardstick is a shallow network of the same kind and
width. A processor is timed with one thread, however many this process may use: that is what a
notebook gets where as many run as there are cores.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from studylib import errors, models, runs
from studylib.models import margins
from studylib.synthetic import simfaces

FORWARD, TRAINING = 1, 3  # a step's work, in forward passes
HERE = "measured here"
# Peak operations a second in 16 bits with 32-bit sums, without sparsity; NVIDIA's data sheets.
GPUS = {
    "T4": 65e12,
    "L4": 121e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "A100": 312e12,
    "H100": 989e12,
}
UTILISATION = {"residual": 0.1, "depthwise": 0.02, "expression": 0.05}  # assumed, of that peak
_SIDE, _BATCH = 48, 16  # of the yardsticks on a processor
_SIDE_GPU, _BATCH_GPU = 112, 128  # which a GPU needs to be busy
_CLASSES = 7
_PATIENCE = 300  # seconds in which processes that train side by side have all begun


class Kind(NamedTuple):
    """What decides how well a network uses a machine."""

    family: str  # residual, depthwise or expression
    width: float


@dataclass(frozen=True)
class Machine:
    """A machine that computes, and how we know how fast it does.

    Attributes
    ----------
    name : str
        The processor's or the GPU's.
    basis : str
        `HERE`, or what was assumed.
    rate : callable
        From a `Kind` to floating point operations a second, in training.
    drawing : callable
        To the pixels of simulated faces drawn a second.
    device : str
        `cpu`, of which one thread is meant, or `cuda`.
    """

    name: str
    basis: str
    rate: Callable[[Kind], float]
    drawing: Callable[[], float]
    device: str = "cpu"


def here(device="cpu") -> Machine:
    """Return this processor or GPU, whose rates are measured when they are first asked for."""
    device = torch.device(device)
    name = runs.cpu_name() if device.type == "cpu" else runs.device_name(device)
    return Machine(
        name,
        HERE,
        lambda kind: training_rate(kind, str(device)),
        lambda: drawing_rate(str(device)),
        device.type,
    )


def gpus() -> list[str]:
    """The models of this machine's GPUs, in PyTorch's order."""
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def find_gpu(name: str) -> Machine | None:
    """Return the GPU that a record names: one that is here, else one of `GPUS`, else None."""
    if name in (present := gpus()):
        return here(f"cuda:{present.index(name)}")
    return next((assumed(model) for model in GPUS if is_model(name, model)), None)


def is_model(name: str, model: str) -> bool:
    """Tell whether a device's name says that it is of a model.

    Examples
    --------
    >>> is_model("NVIDIA H100 80GB HBM3", "H100"), is_model("NVIDIA L40S", "L4")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(model)}(?!\w)", name) is not None


@contextlib.contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Let torch use so many threads of the processor in a block, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assumed(gpu: str, utilisation: dict[str, float] | None = None) -> Machine:
    """A GPU that is not here: a share of its data sheet's peak. Computed, not measured.

    Parameters
    ----------
    gpu : str
        One of `GPUS`.
    utilisation : dict, optional
        Share of the peak, 0 to 1, for some families of networks; `UTILISATION` for the others.

    Raises
    ------
    ParameterError
        An unknown GPU or family, or a share out of range.
    """
    errors.one_of("gpu", gpu, GPUS)
    for family, used in (utilisation or {}).items():
        errors.one_of("family of networks", family, UTILISATION)
        errors.share(**{f"utilisation of {family} networks": used})
    shares = UTILISATION | (utilisation or {})
    told = ", ".join(f"{family} {used:.0%}" for family, used in shares.items())
    return Machine(
        gpu,
        f"computed: of {GPUS[gpu] / 1e12:g} TFLOP/s (data sheet) {told}",
        lambda kind: GPUS[gpu] * shares[kind.family],
        lambda: float("inf"),
        "cuda",
    )


def kind_of(architecture: str, settings: dict) -> Kind:
    """The kind of a recognition network by its name and settings, as `models.build` takes them.

    Examples
    --------
    >>> kind_of("iresnet50", {}), kind_of("mobilefacenet", {"width": 0.375})
    (Kind(family='residual', width=1.0), Kind(family='depthwise', width=0.375))
    """
    family = "depthwise" if architecture == "mobilefacenet" else "residual"
    return Kind(family, float(settings.get("width", 1.0)))


def count(architecture: str, settings: dict) -> tuple[float, int]:
    """Operations of a forward pass over one face, and numbers held, of a recognition network.

    The latter are what its file stores: parameters, and the running values of normalisation.
    Nothing is computed and no memory is used for weights.

    Raises
    ------
    ParameterError
        As `models.build`.

    Examples
    --------
    >>> operations, held = count("mobilefacenet", {"size": 112})
    >>> round(operations / 1e6), held
    (442, 1022720)
    """
    return _count(architecture, tuple(sorted((k, _frozen(v)) for k, v in settings.items())))


@cache
def _count(architecture: str, settings: tuple) -> tuple[float, int]:
    with torch.device("meta"):
        network = models.build(architecture, **dict(settings)).eval()
        face = torch.empty(1, 3, network.pixels.size, network.pixels.size)
    return _counted(network, face)


@cache
def count_expression(width: float, size: int) -> tuple[float, int]:
    """The same of the expression network (`models.fer_cnn`)."""
    with torch.device("meta"):
        network = models.fer_cnn(_CLASSES, size, width).eval()
        face = torch.empty(1, 1, size, size)
    return _counted(network, face)


def _counted(network: torch.nn.Module, face: torch.Tensor) -> tuple[float, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(face)
    return float(counter.get_total_flops()), models.parameter_count(network)


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


@cache
def training_rate(kind: Kind, device: str = "cpu", repeats: int = 3) -> float:
    """Floating point operations a second in training: a second or two of a yardstick's steps."""
    chosen = torch.device(device)
    side, batch = (_SIDE_GPU, _BATCH_GPU) if chosen.type == "cuda" else (_SIDE, _BATCH)
    network, operations = _yardstick(kind, side)
    taken = step_seconds(network, batch, side, device=device, repeats=repeats)
    return TRAINING * operations * batch / taken


def _yardstick(kind: Kind, side: int) -> tuple[torch.nn.Module, float]:
    """A shallow network of a kind, and its operations a face."""
    if kind.family == "expression":
        network = models.fer_cnn(_CLASSES, side, kind.width)
        return network, count_expression(kind.width, side)[0]
    settings = {"width": kind.width, "size": side}
    name = "mobilefacenet"
    if kind.family == "residual":
        name, settings["depth"] = "iresnet", (1, 1, 1, 1)
    return models.build(name, **settings, seed=0), count(name, settings)[0]


def step_seconds(
    network: torch.nn.Module,
    batch: int,
    side: int,
    *,
    device: str = "cpu",
    repeats: int = 3,
    n_threads: int = 1,
) -> float:
    """Seconds of a training step of a network: the best of `repeats`, after one to warm up.

    Parameters
    ----------
    network : torch.nn.Module
        Takes uint8 faces (batch, C, side, side). Trained in place, towards nothing.
    batch, side : int
        Faces in a step, and their side in pixels.
    device : str
        On CUDA the network computes in bfloat16, as in training.
    repeats : int
        Timed steps, at least 1.
    n_threads : int
        Of the processor, at least 1.
    """
    errors.at_least(1, batch=batch, repeats=repeats, n_threads=n_threads)
    runs.keep_memory()  # as in every run
    network = network.train().to(device, memory_format=torch.channels_last)
    channels = next(m.in_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    drawn = torch.Generator().manual_seed(0)
    faces = torch.randint(256, (batch, channels, side, side), generator=drawn, dtype=torch.uint8)
    faces = faces.to(device).contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), 1e-6, 0.9, fused=True)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=faces.is_cuda):
            loss = network(faces).float().square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if faces.is_cuda:
            torch.cuda.synchronize(faces.device)

    with using_threads(n_threads):
        return _best(step, repeats)


def head_seconds(
    classes: int, embedding: int = 128, batch: int = 64, *, device: str = "cpu", repeats: int = 3
) -> float:
    """Seconds that a margin head takes of a training step, with its update: the best of `repeats`.

    Parameters
    ----------
    classes, embedding, batch : int
        Identities, length of the embeddings, faces in a step.
    device, repeats
        As for `step_seconds`.
    """
    errors.at_least(1, batch=batch, repeats=repeats)
    head = margins.Head(classes, embedding, "cosface", seed=0).to(device)
    embeddings = torch.randn(batch, embedding, device=device, requires_grad=True)
    labels = torch.arange(batch, device=device) % classes
    optimiser = torch.optim.SGD(head.parameters(), 1e-6, 0.9, fused=True)

    def step() -> None:
        loss = F.cross_entropy(*head(embeddings, labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for a GPU

    with using_threads(1):
        return _best(step, repeats)


def _best(action: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls, after one that warms up.

    The fastest, since whatever else runs on the machine only takes time away.
    """
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times[1:])


@cache
def drawing_rate(device: str = "cpu", size: int = 48) -> float:
    """Pixels of simulated faces drawn a second: the best of two draws of 32 faces in colour."""
    with using_threads(1):
        taken = _best(lambda: simfaces.faces(8, 4, size=size, channels=3, seed=0, device=device), 2)
    return 32 * size**2 / taken


def side_by_side(
    settings: Sequence[tuple[int, int]], *, steps: int = 6, width: float = 0.25
) -> pd.DataFrame:
    """How fast several processes train at the same time, with so many threads each.

    Parameters
    ----------
    settings : sequence of (int, int)
        Processes, and threads of each; measured in this order.
    steps : int
        Timed steps of each, of 32 faces of 48 pixels.
    width : float
        Of the small residual network that they train.

    Returns
    -------
    pandas.DataFrame
        One row a setting: jobs, threads, slowest (of the processes) and together, both in faces a
        second.

    Raises
    ------
    RunError
        A process ended, or did not begin to train in time.
    """
    errors.at_least(1, steps=steps, settings=len(settings))
    for jobs, threads in settings:
        errors.at_least(1, jobs=jobs, threads=threads)
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit this process's threads
    # with a limit, for one that died before it began would be waited for without end
    together = {jobs: fresh.Barrier(jobs, timeout=_PATIENCE) for jobs, _ in settings}
    workers = ProcessPoolExecutor(
        max(together), mp_context=fresh, initializer=_join, initargs=(together,)
    )
    try:
        with workers as pool:
            rates = [
                [*pool.map(partial(_train_for, jobs, threads, steps), [width] * jobs)]
                for jobs, threads in settings
            ]
    except (threading.BrokenBarrierError, BrokenProcessPool) as problem:
        raise errors.RunError(errors.NOT_SIDE_BY_SIDE.format(seconds=_PATIENCE)) from problem
    return pd.DataFrame(
        {
            "jobs": [jobs for jobs, _ in settings],
            "threads": [threads for _, threads in settings],
            "slowest": [min(each) for each in rates],
            "together": [sum(each) for each in rates],
        }
    )


def _join(together: dict) -> None:
    global _together
    _together = together


def _train_for(jobs: int, threads: int, steps: int, width: float) -> float:
    """Train while the others do; the mean rate, in faces a second."""
    network, _ = _yardstick(Kind("residual", width), _SIDE)
    step_seconds(network, 32, _SIDE, repeats=1, n_threads=threads)
    _together[jobs].wait()
    start = time.perf_counter()
    step_seconds(network, 32, _SIDE, repeats=steps, n_threads=threads)
    return 32 * (steps + 1) / (time.perf_counter() - start)
