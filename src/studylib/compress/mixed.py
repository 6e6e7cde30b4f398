"""Mixed precision: each layer's weights at a width of their own, under a budget of bits.

    sensitivities  round one layer at a time and see what that costs, each group by itself
    allocate       the widths that cost least in all, within a budget of bits
    prepare        the network with these widths, to be calibrated like any other

Costs of single layers are added up as if each layer's rounding did harm by itself (as Dong et al.
2019, "HAWQ", add up theirs), which is an approximation: measure the mixed network that comes out.
With that, the choice of widths is an integer linear programme, which SciPy solves exactly, both for
the mean of the groups and for the group that loses most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from studylib import errors
from studylib.compress import quantize, weights

BITS = (8, 6, 5, 4, 3, 2)
OBJECTIVES = ("mean", "worst")
ALL = "all"  # the group's name where there are no groups
WHOLE = "(the whole network)"  # in messages about its loss in full precision


@torch.no_grad()
def sensitivities(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float | Mapping[str, float]],
    *,
    bits: tuple[int, ...] = BITS,
) -> pd.DataFrame:
    """What it costs to round each layer's weights alone, at each width.

    Parameters
    ----------
    model : torch.nn.Module
        Full precision; left as it is.
    evaluate : callable
        Takes a network, which it must not keep, and gives its loss, lower is better: a number, or
        one for each group. Such as the mean distance to the original's embeddings in each group.
    bits : tuple of int
        Widths to try, each from 2 to 8.

    Returns
    -------
    pandas.DataFrame
        A row a layer and width, layers in order of definition: layer; weights (how many); bits; and
        for each group loss_<group>, the loss less that of the full-precision network. Without
        groups there is one such column, loss_all.

    Raises
    ------
    ParameterError
        If a width is not from 2 to 8 bits, or a loss is not finite or is of other groups than
        before.
    """
    model = weights.strip(model).eval()
    plain = _losses(evaluate(model), WHOLE, 32)
    rows = []
    for name, layer in weights.layers(model).items():
        exact = layer.weight.data
        for width in bits:
            grid = quantize.choose_qparams(*quantize.value_range(exact, 0), width)
            layer.weight.data = quantize.fake_quantize(exact, grid)
            losses = _losses(evaluate(model), name, width, known=plain)
            increase = {f"loss_{group}": losses[group] - plain[group] for group in plain}
            rows.append({"layer": name, "weights": exact.numel(), "bits": width, **increase})
        layer.weight.data = exact
    return pd.DataFrame(rows)


def _losses(
    found: float | Mapping[str, float], layer: str, bits: int, known: Mapping | None = None
) -> dict[str, float]:
    """Losses by group as plain numbers, after checking that they are usable."""
    losses = dict(found) if isinstance(found, Mapping | pd.Series) else {ALL: found}
    losses = {str(group): float(loss) for group, loss in losses.items()}
    same = losses and losses.keys() == (known or losses).keys()
    if not same or not all(np.isfinite(list(losses.values()))):
        raise errors.ParameterError(errors.BAD_LOSS.format(layer=layer, bits=bits, value=losses))
    return losses


def allocate(table: pd.DataFrame, budget: float, *, objective: str = "mean") -> dict[str, int]:
    """The widths with the least summed loss whose weights fit into a budget.

    Parameters
    ----------
    table : pandas.DataFrame
        From `sensitivities`.
    budget : float
        Bits for all weights together, such as 4.5 times their number.
    objective : {"mean", "worst"}
        What the summed losses of the groups are judged by: their mean, or the largest of them.

    Returns
    -------
    dict
        Layer -> bits, in the table's order.

    Raises
    ------
    ParameterError
        Unknown objective, or a budget below that of the narrowest widths.

    Examples
    --------
    >>> table = pd.DataFrame({"layer": ["a", "a", "b", "b"], "weights": 10, "bits": [8, 2, 8, 2],
    ...                       "loss_all": [0.0, 0.3, 0.0, 0.1]})
    >>> allocate(table, budget=100)
    {'a': 8, 'b': 2}
    """
    errors.one_of("objective", objective, OBJECTIVES)
    cost = table["weights"].to_numpy(np.int64) * table["bits"].to_numpy(np.int64)
    least = int(pd.Series(cost).groupby(table["layer"].to_numpy()).min().sum())
    if budget < least:
        raise errors.ParameterError(errors.SMALL_BUDGET.format(budget=int(budget), least=least))
    losses = table.filter(regex="^loss_").to_numpy(float)  # (rows, groups)
    losses = losses / max(np.abs(losses).max(), np.finfo(float).tiny)
    if objective == "mean":
        losses = losses.mean(1, keepdims=True)
    chosen = _solve(table["layer"].to_numpy(), cost, losses, budget)
    return dict(zip(table["layer"][chosen], table["bits"][chosen].astype(int), strict=True))


def _solve(layers: np.ndarray, cost: np.ndarray, losses: np.ndarray, budget: float) -> np.ndarray:
    """Which rows to take, one a layer, so that the largest sum of a loss column is smallest.

    The unknowns are a 0 or 1 for each row and, last, the largest sum itself.
    """
    count = len(layers)
    one_each = layers == pd.unique(layers)[:, None]  # (layers, rows)
    # In whole units, and with half of one to spare, so that rounding cannot decide what fits.
    unit = np.gcd.reduce(cost)
    fits = LinearConstraint(np.append(cost / unit, 0), ub=budget // unit + 0.5)
    once = LinearConstraint(np.pad(one_each.astype(float), ((0, 0), (0, 1))), 1, 1)
    below = LinearConstraint(np.column_stack([losses.T, -np.ones(losses.shape[1])]), ub=0)
    solution = milp(
        np.append(np.zeros(count), 1),
        integrality=np.append(np.ones(count), 0),
        bounds=Bounds(np.append(np.zeros(count), -np.inf), np.append(np.ones(count), np.inf)),
        constraints=[fits, once, below],
        options={"mip_rel_gap": 0},
    )
    return solution.x[:count] > 0.5


def prepare(
    model: nn.Module, bits: Mapping[str, int], activations: int | None = None, **settings
) -> nn.Module:
    """Copy a network and put quantisers into the copy, each layer's weights at their own width.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    bits : mapping
        Layer -> width of its weights, 2 to 8, for every convolution and linear layer.
    activations : int or None
        Width of all activations; None leaves them in floating point.
    **settings
        As `quantize.prepare` takes them.

    Raises
    ------
    ParameterError
        If a layer is missing or unknown, or a width is not from 2 to 8 bits.
    """
    names = weights.layers(model).keys()
    for name in names ^ bits.keys():
        raise errors.ParameterError(errors.NO_BITS.format(layer=name))
    for width in bits.values():
        if width not in range(2, 9):
            raise errors.ParameterError(errors.BAD_BITS.format(bits=width))
    precision = "w8" if activations is None else f"w8a{activations}"
    model = quantize.prepare(model, precision, **settings)
    for name, width in bits.items():
        model.get_submodule(name).parametrizations.weight[0].bits = width
    return model
