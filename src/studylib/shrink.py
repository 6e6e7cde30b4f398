"""Compressed variants of a trained classifier, by name: what is done, in which order, and to what.

A name is a chain of parts joined by +, done from left to right, each on the result of the last:

    part      what                                                       fine-tuned
    ft2       nothing: a control that is trained for 2 more epochs       2 epochs
    s50       50 % of each layer's weights pruned by magnitude           prune_epochs
    s50g      50 % of all weights pruned, whichever layers they are in   prune_epochs
    s2of4     two of every four neighbouring weights pruned              prune_epochs
    ch50      50 % of the channels removed, so the network is smaller    prune_epochs
    c16       16 distinct weights a layer                                cluster_epochs
    w8        int8 weights, as TFLite's default (dynamic range)          no
    w8a8      int8 weights and activations, on calibrated ranges         no
    fp16      weights rounded to half precision                          no
    w4, w6a6  other precisions of `quantize.parse_precision`             no

Before rounding to int8 or fewer bits, batch normalisation is folded into the layer before it.
Methods and epochs are those of Stoychev and Gunes 2022 where they have the method. Their study has
no control: a variant that was fine-tuned differs from its baseline by compression and by training,
and only its control, trained for as many epochs, tells the two apart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from studylib import errors, train
from studylib.compress import cluster, prune, quantize, size, weights
from studylib.expressions import Parts
from studylib.faces import Faces

BASELINE = "fp32"
SCHEDULES = ("constant", "polynomial")
_KINDS = {
    "control": r"ft(?P<epochs>[1-9]\d*)",
    "pruned": r"s(?P<sparsity>[1-9]\d*)(?P<scope>g?)",
    "pruned_2of4": r"s2of4",
    "channels": r"ch(?P<channels>[1-9]\d*)",
    "clustered": r"c(?P<clusters>[1-9]\d*)",
    "float16": r"fp16",
    "static": r"w\da\d",
    "quantised": r"w\d",
}
_PRUNING = ("pruned", "pruned_2of4", "channels")
_PRECISIONS = ("float16", "static", "quantised")


class Recipe(NamedTuple):
    """How variants are fine-tuned; epochs and rate are the paper's."""

    prune_epochs: int = 2
    cluster_epochs: int = 3
    lr: float = 5e-4
    batch_size: int = 32
    schedule: str = "constant"
    init: str = "linear"


PAPER = Recipe()
UNTRAINED = Recipe(prune_epochs=0, cluster_epochs=0)  # compress, and leave it at that


class Variant(NamedTuple):
    """A variant's name, taken apart.

    `method` joins the kinds of its parts; `base` is the chain without its last part ("" for the
    baseline); `control` the variant it has to be compared with; `epochs` of fine-tuning in all.
    """

    name: str
    method: str
    base: str
    control: str
    epochs: int
    sparsity: float = 0.0
    clusters: int = 0
    precision: str = BASELINE


def parse(name: str, recipe: Recipe = PAPER) -> Variant:
    """Take a variant's name apart.

    Raises
    ------
    ParameterError
        If a part is unknown, out of range, or in the wrong place.

    Examples
    --------
    >>> parse("s50+c16+w8").method, parse("s50+c16+w8").base, parse("s50+c16+w8").control
    ('pruned_clustered_and_quantised', 's50+c16', 'ft5')
    >>> parse("w8").control, parse("s90").control
    ('fp32', 'ft2')
    """
    if name == BASELINE:
        return Variant(name, "baseline", "", BASELINE, 0)
    parts = [_part(name, text) for text in name.split("+")]
    kinds = [kind for kind, _ in parts]
    places = [_place(kind) for kind in kinds]
    if places != sorted(set(places)) or ("control" in kinds and len(kinds) > 1):
        raise _unknown(name, "parts go from pruning over clustering to a precision, one of each")
    values = {key: value for _, found in parts for key, value in found.items()}
    if places[:2] == [0, 1] and values["clusters"] < 3:
        raise _unknown(name, "a pruned layer needs at least 3 clusters, one of them for the zeros")
    epochs = values.get("epochs", 0)
    epochs += recipe.prune_epochs if kinds[0] in _PRUNING else 0
    epochs += recipe.cluster_epochs if "clustered" in kinds else 0
    return Variant(
        name,
        _method(kinds),
        "+".join(name.split("+")[:-1]) or BASELINE,
        f"ft{epochs}" if epochs else BASELINE,
        epochs,
        0.5 if "pruned_2of4" in kinds else values.get("sparsity", 0) / 100,
        values.get("clusters", 0),
        name.split("+")[-1] if kinds[-1] in _PRECISIONS else BASELINE,
    )


def _part(name: str, text: str) -> tuple[str, dict[str, int]]:
    """The kind of one part and the numbers in it."""
    for kind, pattern in _KINDS.items():
        if match := re.fullmatch(pattern, text):
            numbers = {k: int(v) for k, v in match.groupdict().items() if k != "scope"}
            _check(name, numbers)
            if kind in ("static", "quantised"):
                quantize.parse_precision(text)
            return kind, numbers
    raise _unknown(name, f"there is no part {text!r}")


def _check(name: str, numbers: dict[str, int]) -> None:
    limits = {"sparsity": (1, 99), "channels": (1, 99), "clusters": (2, 256), "epochs": (1, 999)}
    for what, value in numbers.items():
        low, high = limits[what]
        if not low <= value <= high:
            raise _unknown(name, f"{what} goes from {low} to {high}, not {value}")


def _unknown(name: str, problem: str) -> errors.ParameterError:
    return errors.ParameterError(errors.BAD_VARIANT.format(name=name, problem=problem))


def _place(kind: str) -> int:
    """Where in a chain a kind belongs; a place is taken once."""
    return 0 if kind in (*_PRUNING, "control") else 2 if kind in _PRECISIONS else 1


def _method(kinds: list[str]) -> str:
    """Join kinds in words: pruned_and_quantised, pruned_clustered_and_quantised."""
    return "_and_".join(["_".join(kinds[:-1]), kinds[-1]]) if len(kinds) > 1 else kinds[0]


def expand(names: list[str], recipe: Recipe = PAPER) -> list[Variant]:
    """The asked variants with their bases and controls, each after what it is made from.

    Raises
    ------
    ParameterError
        A name that `parse` refuses, or a recipe with an unknown schedule or initialisation.
    """
    errors.one_of("pruning schedule", recipe.schedule, SCHEDULES)
    errors.one_of("cluster initialisation", recipe.init, cluster.INITS)
    found: dict[str, Variant] = {}

    def add(name: str) -> None:
        variant = parse(name, recipe)
        for needed in (variant.base, variant.control):
            if needed and needed != name and needed not in found:
                add(needed)
        found.setdefault(name, variant)

    for name in (BASELINE, *names):
        add(name)
    return list(found.values())


def make(
    variant: Variant,
    base: nn.Module,
    faces: Faces,
    chosen_on: Faces,
    *,
    recipe: Recipe = PAPER,
    seed: int = 0,
    device="cpu",
) -> tuple[nn.Module, pd.DataFrame]:
    """Make one variant from the network its name builds on.

    All variants of one seed see the same batches in the same order, so that they differ by what
    was compressed and not by the draw.

    Parameters
    ----------
    variant : Variant
        From `expand`; not the baseline.
    base : torch.nn.Module
        The network of `variant.base`; left as it is.
    faces, chosen_on : Faces
        For fine-tuning, and for the choice of its best epoch.
    recipe : Recipe
        Epochs, rate, schedule and initialisation.
    seed : int
        Of batches, augmentation and cluster initialisation.

    Returns
    -------
    network : torch.nn.Module
        In evaluation mode. Pruned and clustered ones are plain, with their zeros or repeated
        values in place; quantised ones keep their quantisers, which `size` reads.
    history : pandas.DataFrame
        From `train.fit`; empty where nothing was fine-tuned.
    """
    last = variant.name.split("+")[-1]
    kind, numbers = _part(variant.name, last)
    if kind in _PRECISIONS:
        return _quantised(kind, last, base, faces, seed), pd.DataFrame()

    def tune(network, epochs, **options):
        if not epochs:
            return pd.DataFrame()
        about = {"lr": recipe.lr, "batch_size": recipe.batch_size, "seed": seed, "device": device}
        return train.fit(network, faces, chosen_on, epochs=epochs, **about, **options)

    if kind == "control":
        network = weights.strip(base)
        return network, tune(network, numbers["epochs"])
    if kind == "channels":
        network = prune.channels(base, numbers["channels"] / 100)
        return network, tune(network, recipe.prune_epochs)
    if kind == "clustered":
        pruned = variant.sparsity > 0
        count = numbers["clusters"]
        network = cluster.prepare(base, count, init=recipe.init, seed=seed, keep_zeros=pruned)
        history = tune(network, recipe.cluster_epochs)
        return weights.strip(network), history
    return _pruned(variant, base, len(faces) // recipe.batch_size, recipe, tune)


def make_all(
    plan: list[Variant],
    baseline: nn.Module,
    parts: Parts,
    *,
    recipe: Recipe = PAPER,
    seed: int = 0,
    device="cpu",
) -> tuple[dict[str, nn.Module], dict[str, pd.DataFrame]]:
    """Make every variant of a plan from one trained baseline.

    Parameters
    ----------
    plan : list of Variant
        From `expand`.
    baseline : torch.nn.Module
        The trained network; left as it is.
    parts : expressions.Parts
        Its faces; those that chose its checkpoint also choose the fine-tuned ones'.
    recipe, seed, device
        As in `make`.

    Returns
    -------
    networks : dict
        Variant's name -> network, the baseline first.
    histories : dict
        Variant's name -> history of its fine-tuning, for those that had any.
    """
    networks, histories = {BASELINE: baseline}, {}
    for variant in plan[1:]:
        networks[variant.name], history = make(
            variant,
            networks[variant.base],
            parts.train,
            parts.chosen_on,
            recipe=recipe,
            seed=seed,
            device=device,
        )
        if len(history):
            histories[variant.name] = history
    return networks, histories


def _pruned(variant: Variant, base: nn.Module, steps: int, recipe: Recipe, tune):
    """Prune by the schedule while fine-tuning; the asked sparsity holds at the end."""
    scope = "global" if variant.name.endswith("g") else "layer"
    pattern = "2:4" if variant.method == "pruned_2of4" else "unstructured"
    network = prune.prepare(base, scope=scope, pattern=pattern)
    steps *= recipe.prune_epochs
    schedule = prune.constant(variant.sparsity)
    grows = recipe.schedule == "polynomial" and pattern == "unstructured"  # 2:4 is 50 % or nothing
    if grows:
        schedule = prune.polynomial(variant.sparsity, steps=max(1, steps // 2))

    def follow(step: int) -> None:
        if (wanted := schedule(step)) is not None:
            prune.update(network, wanted)

    follow(0)
    # An early epoch of a growing sparsity may be the best one, but is not yet what was asked for.
    select = "last" if grows else "best"
    history = tune(network, recipe.prune_epochs, after_step=follow, select=select)
    return weights.strip(network), history


def _quantised(kind: str, precision: str, base: nn.Module, faces: Faces, seed: int) -> nn.Module:
    if kind == "float16":
        return quantize.half(base)
    folded = quantize.fold_norms(base)  # converters fold before they round
    if precision == "w8":
        return quantize.dynamic_range(folded)
    network = quantize.prepare(folded, precision)
    quantize.calibrate(network, faces.sample(CALIBRATION_FACES, seed).images)
    return network


CALIBRATION_FACES = 256  # drawn from the training set, for activation ranges


def describe(variants: list[Variant], networks: dict[str, nn.Module]) -> pd.DataFrame:
    """Size and settings of every variant, for the record of a run.

    Returns
    -------
    pandas.DataFrame
        One row a variant: the fields of `Variant` (name as `variant`), `parameters` and `nonzero`
        (counts), and the sizes of `size.table`.
    """
    rows = pd.DataFrame(variants).rename(columns={"name": "variant"})
    counts = [_counts(networks[name]) for name in rows["variant"]]
    rows[["parameters", "nonzero"]] = counts
    return rows.merge(size.table(networks), on="variant")


def _counts(network: nn.Module) -> tuple[int, int]:
    values = [p.detach() for p in weights.strip(network).parameters()]
    return sum(p.numel() for p in values), sum(int(torch.count_nonzero(p)) for p in values)
