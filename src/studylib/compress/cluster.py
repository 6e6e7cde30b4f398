"""Weight clustering: every layer keeps only n distinct weights, which all its connections share.

After Han, Mao and Dally (2016): a layer's weights are grouped by value, each group is replaced by
one shared value, and training moves the shared values, each by the sum of its weights' gradients,
while who belongs to which group stays fixed. Where the shared values start is the choice of `init`:

    linear      evenly spaced from the smallest to the largest weight, as Stoychev and Gunes (2022)
    density     each value amid an equal share of the weights, by their cumulative distribution
    kmeans++    least squared error: k-means++ seeds (Arthur and Vassilvitskii 2007), then Lloyd's
                iterations

What the TensorFlow toolkit that the study used does differently: it keeps the original weights,
trains them as well, and groups them anew at each step; and it lets groups run empty, so that
"n clusters" there means at most n. Here a layer has exactly n distinct weights, always: groups are
stretches of the sorted weights, and one that would be empty takes over a single weight from its
neighbour, at that weight's own value.

Clustered are the kernels of convolutions and linear layers, each layer for itself; biases,
normalisation and depthwise kernels stay as they are, as in that toolkit.
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import kmeans_plusplus
from torch import nn
from torch.nn.utils import parametrize

from studylib import errors
from studylib.compress import weights

INITS = ("linear", "density", "kmeans++")
_ITERATIONS = 100  # of Lloyd's algorithm, at most
_SEEDED_FROM = 2**16  # weights that k-means++ chooses its seeds among


class Codebook(nn.Module):
    """A parametrisation: n trainable values and, for each weight, which of them it is.

    State: the values, float32 (n,), are the parametrised tensor's `original`; `index` is int32
    (weights,); `pinned` is bool (n,), True for the one value that is fixed at zero, if any.
    """

    def __init__(self, values: np.ndarray, index: np.ndarray, shape: torch.Size, pinned: bool):
        super().__init__()
        self.shape = shape
        self.register_buffer("start", torch.from_numpy(values), persistent=False)
        self.register_buffer("index", torch.from_numpy(index.astype(np.int32)))
        self.register_buffer("pinned", torch.arange(len(values)) < int(pinned))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The weight: values (n,) -> the layer's shape."""
        return _Lookup.apply(values, self.index, self.pinned).view(self.shape)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """The starting values, which take the weight's place among the parameters."""
        return self.start.to(weight)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, index, pinned):
        ctx.save_for_backward(index, pinned)
        return _apart(values.masked_fill(pinned, 0)).index_select(0, index)

    @staticmethod
    def backward(ctx, grad):
        # The sum runs over up to millions of weights: in float64, so that none is lost.
        index, pinned = ctx.saved_tensors
        total = torch.bincount(index, grad.flatten().double(), minlength=len(pinned))
        return total.to(grad.dtype).masked_fill(pinned, 0), None, None


def _apart(values: torch.Tensor) -> torch.Tensor:
    """Make equal values differ: a later one moves up to the next float that is still free."""
    if len(values.unique()) == len(values):
        return values
    taken, apart = set(), []
    for value in values.cpu().numpy():
        while value in taken:
            value = np.nextafter(value, np.float32(np.inf))
        taken.add(value)
        apart.append(value)
    return torch.tensor(np.array(apart)).to(values)


def prepare(
    model: nn.Module, n: int, *, init: str = "linear", seed: int = 0, keep_zeros: bool = False
) -> nn.Module:
    """Copy a network and make the weights of each layer share n values, ready for fine-tuning.

    Parameters
    ----------
    model : torch.nn.Module
        Plain (a pruned one stripped); left as it is.
    n : int
        Distinct weights a layer, at least 2, or 3 with `keep_zeros`. A layer with fewer weights
        than that keeps one value for each.
    init : {"linear", "density", "kmeans++"}
        Where the values start; see the top of this module.
    seed : int
        Of k-means++; the other two draw nothing.
    keep_zeros : bool
        For pruned networks: weights that are zero stay exactly zero, now and while training, no
        other weight becomes zero, and zero counts as one of the n values. Negative and positive
        weights then get groups of their own, in proportion to their number, since pruning leaves a
        gap between them.

    Returns
    -------
    torch.nn.Module
        The values are its parameters in place of the kernels; its `state_dict` holds them and the
        groups, so that a saved one can be loaded into the same preparation of any network of the
        same architecture. `weights.strip` makes it plain.

    Raises
    ------
    ParameterError
        Too few clusters, an unknown `init`, a weight that is parametrised already or is not
        finite.

    Examples
    --------
    >>> model = prepare(nn.Sequential(nn.Linear(10, 10)), 4)
    >>> len(model[0].weight.unique()), len(model[0].bias.unique())
    (4, 10)
    """
    errors.at_least(3 if keep_zeros else 2, n=n)
    errors.one_of("init", init, INITS)
    model = copy.deepcopy(model)
    rng = np.random.default_rng(seed)
    for name, module in weights.layers(model, depthwise=False).items():
        if parametrize.is_parametrized(module, "weight"):
            raise errors.ParameterError(errors.NOT_PLAIN.format(layer=name))
        if not module.weight.isfinite().all():
            raise errors.ParameterError(errors.WEIGHTS_NOT_FINITE.format(layer=name))
        codebook = _cluster(module.weight.detach(), n, init, keep_zeros, rng)
        codebook.to(module.weight.device)
        parametrize.register_parametrization(module, "weight", codebook)
    return model


def distinct(model: nn.Module) -> pd.DataFrame:
    """Count the distinct weights of each layer.

    Parameters
    ----------
    model : torch.nn.Module
        Clustered, stripped, or any other.

    Returns
    -------
    pandas.DataFrame
        One row a convolution or linear layer: layer, weights, distinct.

    Examples
    --------
    >>> distinct(prepare(nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 1)), 16))
      layer  weights  distinct
    0     0      100        16
    1     1       10        10
    """
    rows = [
        (name, module.weight.numel(), len(module.weight.detach().unique()))
        for name, module in weights.layers(model, depthwise=False).items()
    ]
    return pd.DataFrame(rows, columns=["layer", "weights", "distinct"])


def _cluster(
    weight: torch.Tensor, n: int, init: str, keep_zeros: bool, rng: np.random.Generator
) -> Codebook:
    """Group one layer's weights."""
    flat = weight.flatten().double().cpu().numpy()
    n = min(n, len(flat))
    index = np.zeros(len(flat), np.int64)
    nonzero = np.flatnonzero(flat) if keep_zeros else np.arange(len(flat))
    pinned = len(nonzero) < len(flat)  # then code 0 is zero
    k = min(n - pinned, len(nonzero))
    values = np.zeros(n, np.float32)
    if k:
        order = nonzero[np.argsort(flat[nonzero], kind="stable")]
        group = _group_signs if pinned else _group
        centres, cuts = group(flat[order], k, init, rng)
        values[pinned : pinned + k] = centres
        index[order] = np.repeat(np.arange(k), np.diff(cuts)) + pinned
    values = _apart(torch.from_numpy(values)).numpy()
    return Codebook(values, index, weight.shape, pinned)


def _group_signs(
    ordered: np.ndarray, k: int, init: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`_group` negative and positive weights apart, if there are both and k allows it."""
    below = int(np.searchsorted(ordered, 0))
    above = len(ordered) - below
    if k < 2 or not (below and above):
        return _group(ordered, k, init, rng)
    left = int(np.clip(round(k * below / len(ordered)), max(1, k - above), min(below, k - 1)))
    negative, cuts = _group(ordered[:below], left, init, rng)
    positive, further = _group(ordered[below:], k - left, init, rng)
    return np.append(negative, positive), np.append(cuts, below + further[1:])


def _group(
    ordered: np.ndarray, k: int, init: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (k,) of ascending weights, and cuts (k + 1,): group i is ordered[cuts[i]:cuts[i+1]].

    A layer that has k different weights or fewer keeps them: only their number has to be made up.
    """
    found = np.unique(ordered)
    if len(found) <= k:
        centres = np.append(found, np.repeat(found[-1], k - len(found)))
    elif init == "linear" and k > 1:  # a single value has no two ends: it becomes the mean
        centres = np.linspace(ordered[0], ordered[-1], k)
    elif init == "density":
        centres = np.quantile(ordered, (np.arange(k) + 0.5) / k)
    else:
        centres = _lloyd(ordered, _seeds(found, k, rng))
    return _assign(ordered, centres)


def _assign(ordered: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut halfway between neighbouring centres, but leave at least one weight in each group.

    Cuts are moved only as far as that needs, so a group either keeps some of the weights that are
    nearest to its centre and gets no others, or it becomes a single weight: that is its centre now.
    """
    k, places = len(centres), np.arange(1, len(centres))
    nearest = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
    cuts = np.maximum.accumulate(np.maximum(nearest, 1) - places) + places
    cuts = np.minimum(cuts, len(ordered) - k + places)
    nearest, cuts = (np.concatenate([[0], c, [len(ordered)]]) for c in (nearest, cuts))
    kept = np.minimum(nearest[1:], cuts[1:]) > np.maximum(nearest[:-1], cuts[:-1])
    return np.where(kept, centres, ordered[cuts[:-1]]), cuts


def _seeds(found: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Ascending k-means++ seeds (k,) among the different weights, thinned evenly if many."""
    step = max(1, len(found) // max(_SEEDED_FROM, k))
    sample = found[step // 2 :: step, None]
    seeds, _ = kmeans_plusplus(sample, k, random_state=int(rng.integers(2**31)))
    return np.sort(seeds[:, 0])


def _lloyd(ordered: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Lloyd's algorithm on sorted weights: means of groups are differences of running sums."""
    sums = np.concatenate([[0], np.cumsum(ordered)])
    last = None
    for _ in range(_ITERATIONS):
        _, cuts = _assign(ordered, centres)
        if np.array_equal(last, cuts):
            break
        last, centres = cuts, np.diff(sums[cuts]) / np.diff(cuts)
    return centres
