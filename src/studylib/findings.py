"""Tables and sentences for notebooks, every number in them taken from a table of results."""

from __future__ import annotations

import pandas as pd

from studylib import charts

MAIN = "TAR@FAR=1e-3"
_NO_GROUPS = (
    "This set says nothing about the groups its people belong to: there is no group result."
)


def rates_table(rates: pd.DataFrame) -> pd.io.formats.style.Styler:
    """Show each rate with its interval in %, a row a variant (columns of `uncertainty.rates`)."""
    shown = rates.assign(text=[_with_interval(r, "value") for r in rates.to_dict("records")])
    return _wide(shown)


def differences_table(differences: pd.DataFrame) -> pd.io.formats.style.Styler:
    """Show each difference in percentage points with its interval; a star marks resolved ones."""
    texts = [
        _with_interval(row, "difference", signed=True) + (" *" if resolved(row) else "")
        for row in differences.to_dict("records")
    ]
    return _wide(differences.assign(text=texts))


def resolved(row) -> bool:
    """Tell whether an interval leaves out zero."""
    return row["low"] > 0 or row["high"] < 0


def training_table(losses: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """First and last loss of each variant's training, as means over up to five steps."""
    rows = [
        {
            "variant": variant,
            "steps": len(log),
            "loss, first 5 steps": log["loss"].head().mean(),
            "loss, last 5 steps": log["loss"].tail().mean(),
        }
        for variant, log in losses.items()
    ]
    return pd.DataFrame(rows, columns=["variant", "steps", *_LOSSES])


_LOSSES = ("loss, first 5 steps", "loss, last 5 steps")


def cliff(differences: pd.DataFrame, *, reference: str, metric: str = MAIN) -> str:
    """Say from which precision on a rate is resolvably worse than the reference's.

    Parameters
    ----------
    differences : pandas.DataFrame
        From `uncertainty.differences`; for `metric`, higher is better.
    reference : str
        What they are differences from.

    Returns
    -------
    str
        Markdown.
    """
    if differences.empty:
        return f"Only {reference} was run: there is nothing to compare."
    lines = []
    for kind, alone in (("weights and activations", False), ("weights only", True)):
        table = differences[differences["metric"] == metric].set_index("variant")
        order = [v for v in charts.sort_variants(table.index) if charts.weights_only(v) == alone]
        worse = [v for v in order if table.loc[v, "high"] < 0]
        if not order:
            continue
        if not worse:
            lines.append(
                f"- **{kind}**: down to {order[-1]}, no drop of {metric} from {reference} is "
                f"resolved; {_largest_drop(table.loc[order])}."
            )
            continue
        first = table.loc[worse[0]]
        above = order[: order.index(worse[0])]
        held = f"{above[-1]} still holds" if above else "no finer precision was tried"
        lines.append(
            f"- **{kind}**: the cliff lies at {worse[0]} ({held}): {metric} is "
            f"{_points(-first['difference'])} points lower than {reference}'s (95 % interval "
            f"{_points(-first['high'])} to {_points(-first['low'])})."
        )
    return "\n".join(["**Where is the cliff?**", "", *lines])


def _largest_drop(table: pd.DataFrame) -> str:
    lowest = table["low"].min()
    return f"a drop of more than {_points(max(-lowest, 0))} points is ruled out at every step"


def groups(rates: pd.DataFrame, *, reference: str, fmr: float) -> str:
    """Say what the within-group false match rates of the reference show, and what they cannot.

    Parameters
    ----------
    rates : pandas.DataFrame
        From `uncertainty.all_group_error_rates`; may be empty.
    reference : str
        The variant to speak of.
    fmr : float
        FMR over all pairs at the one threshold.

    Returns
    -------
    str
        Markdown.
    """
    table = rates[(rates["variant"] == reference) & (rates["metric"] == "FMR")]
    if table.empty:
        return _NO_GROUPS
    people = table.sort_values("n_subjects")
    few = ", ".join(f"{r.group} {r.n_subjects}" for r in people.head(3).itertuples())
    widest = max(table.to_dict("records"), key=lambda row: row["high"] - row["low"])
    apart = [
        f"{a.group} below {b.group}"
        for a in table.itertuples()
        for b in table.itertuples()
        if a.group.split(":")[0] == b.group.split(":")[0] and a.high < b.low
    ]
    parted = "; ".join(apart) if apart else "none"
    return (
        f"```{{warning}}\nThe smallest groups here hold {few} people. So few people cannot stand "
        f"for a population: the interval of {widest['group']} alone runs from "
        f"{widest['low']:.2%} to {widest['high']:.2%}. Read the figure as a demonstration of the "
        "method on these people, at this one threshold, and as nothing more.\n```\n\n"
        f"At the threshold where {fmr:.3%} of all impostor pairs match, the groups of one column "
        f"whose {reference} intervals part are: {parted}."
    )


def group_chart(rates: pd.DataFrame, *, target: float, source: str):
    """`charts.group_rates` of the false match rates, or a sentence where there are no groups."""
    table = rates[rates["metric"] == "FMR"]
    return charts.group_rates(table, target=target, source=source) if len(table) else _NO_GROUPS


def _wide(table: pd.DataFrame) -> pd.io.formats.style.Styler:
    wide = table.pivot(index="variant", columns="metric", values="text")
    wide = wide.loc[charts.sort_variants(wide.index), list(dict.fromkeys(table["metric"]))]
    return wide.rename_axis(columns=None).style


def _with_interval(row: dict, column: str, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value, low, high = (100 * row[key] for key in (column, "low", "high"))
    return f"{value:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def between_sources(differences: pd.DataFrame, one: str, reference: str) -> str:
    """Say at which precisions two calibration sources differ in the main rate.

    Parameters
    ----------
    differences : pandas.DataFrame
        From `compare.between`: run `one` minus run `reference`.
    one, reference : str
        What to call the two.
    """
    table = differences[differences["metric"] == MAIN]
    lines = []
    for row in table.to_dict("records"):
        if resolved(row):
            verb = "higher" if row["difference"] > 0 else "lower"
            lines.append(
                f"- {row['variant']}: {MAIN} is {_points(abs(row['difference']))} points {verb} "
                f"with {one} than with {reference} (95 % interval of the difference "
                f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f})."
            )
        else:
            lines.append(
                f"- {row['variant']}: no difference is resolved; the interval runs from "
                f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f} points."
            )
    return "\n".join([f"**{one.capitalize()} against {reference}**", "", *lines])


def recovered(table: pd.DataFrame) -> str:
    """Say how much of each loss training won back (table of `compare.recoveries`)."""
    lines = []
    for row in table[table["metric"] == MAIN].to_dict("records"):
        if pd.isna(row["share"]):
            lines.append(f"- {row['variant']}: calibration alone lost nothing that is resolved.")
        else:
            lines.append(
                f"- {row['variant']}: calibration alone lost {_points(row['lost'])} points of "
                f"{MAIN}; training won back {row['share']:.0%} of them (95 % interval "
                f"{row['low']:.0%} to {row['high']:.0%})."
            )
    return "\n".join(lines)
