"""Tables and sentences for notebooks, every number in them taken from a table of results."""

from __future__ import annotations

import pandas as pd

from studylib import charts

MAIN = "TAR@FAR=1e-3"
_NO_GROUPS = (
    "No group result: the set has no group column of two to ten groups (years of age are no "
    "groups; give bands)."
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


def cliff(differences: pd.DataFrame, *, reference: str, name: str = "", metric: str = MAIN) -> str:
    """Say where a rate first drops resolvably, and which step of precision costs most.

    Parameters
    ----------
    differences : pandas.DataFrame
        From `uncertainty.differences`; for `metric`, higher is better.
    reference : str
        What they are differences from.
    name : str
        What to put before each line, such as the run's name.

    Returns
    -------
    str
        Markdown, a line for weights with activations and a line for weights only.
    """
    if differences.empty:
        return f"Only {reference} was run: there is nothing to compare."
    table = differences[differences["metric"] == metric].set_index("variant")
    lines = []
    for kind, alone in (("weights and activations", False), ("weights only", True)):
        order = [v for v in charts.sort_variants(table.index) if charts.weights_only(v) == alone]
        if order:
            about = f"{name}, {kind}" if name else kind
            lines.append(f"- **{about}**: {_first_drop(table.loc[order], reference, metric)}")
    return "\n".join(lines)


def _first_drop(table: pd.DataFrame, reference: str, metric: str) -> str:
    worse = [v for v in table.index if table.loc[v, "high"] < 0]
    if not worse:
        lowest = table["low"].min()
        return (
            f"no drop of {metric} from {reference} is resolved down to {table.index[-1]}; the "
            f"intervals reach down to {_points(max(-lowest, 0))} points."
        )
    first = table.loc[worse[0]]
    steps = -table["difference"].diff().fillna(table["difference"].iloc[0])
    before = dict(zip(table.index, [reference, *table.index], strict=False))
    cliff = steps.idxmax()
    return (
        f"the first resolved drop of {metric} from {reference} is at {worse[0]}, "
        f"{_points(-first['difference'])} points (95 % interval {_points(-first['high'])} to "
        f"{_points(-first['low'])}); the cliff, the step that costs most, lies between "
        f"{before[cliff]} and {cliff}, {_points(steps[cliff])} points."
    )


def groups(rates: pd.DataFrame, *, reference: str, fmr: float) -> str:
    """Say what the within-group false match rates show, and what they cannot.

    Parameters
    ----------
    rates : pandas.DataFrame
        From `uncertainty.all_group_error_rates`; may be empty.
    reference : str
        The variant whose widest interval is quoted in the warning.
    fmr : float
        FMR over all pairs at each variant's one threshold.

    Returns
    -------
    str
        Markdown: a warning on group sizes, then the groups whose intervals part, by variant.
    """
    table = rates[rates["metric"] == "FMR"]
    if table.empty:
        return _NO_GROUPS
    first = table[table["variant"] == reference]
    people = first.sort_values("n_subjects", kind="stable")
    few = ", ".join(f"{r.group} {r.n_subjects}" for r in people.head(3).itertuples())
    widest = max(first.to_dict("records"), key=lambda row: row["high"] - row["low"])
    lines = [
        f"> **Warning.** The smallest groups here are {few} people. So few cannot stand for a "
        f"population: the {reference} interval of {widest['group']} alone runs from "
        f"{widest['low']:.2%} to {widest['high']:.2%}. Read the figure as a demonstration of the "
        "method on these people, at this one threshold, and as nothing more.",
        "",
        f"At the threshold where {fmr:.3%} of all impostor pairs match, the intervals part (not "
        "adjusted for the number of comparisons) between these groups of one column:",
        "",
    ]
    for variant in charts.sort_variants(table["variant"]):
        apart = _parted(table[table["variant"] == variant])
        lines.append(f"- {variant}: {'; '.join(apart) if apart else 'none'}.")
    return "\n".join(lines)


def _parted(table: pd.DataFrame) -> list[str]:
    """Pairs of groups of one column, the first with its whole interval below the second's."""
    return [
        f"{a.group} below {b.group}"
        for a in table.itertuples()
        for b in table.itertuples()
        if a.group.split(":")[0] == b.group.split(":")[0] and a.high < b.low
    ]


def group_chart(rates: pd.DataFrame, *, target: float, source: str):
    """`charts.group_rates` of the false match rates; None where there are no groups."""
    table = rates[rates["metric"] == "FMR"]
    return charts.group_rates(table, target=target, source=source) if len(table) else None


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


def between_runs(differences: pd.DataFrame, one: str, reference: str) -> str:
    """Say at which precisions two runs differ in the main rate.

    Parameters
    ----------
    differences : pandas.DataFrame
        From `compare.between`: run `one` minus run `reference`; may be empty.
    one, reference : str
        What to call the two.
    """
    if differences.empty:
        return f"No precision was run with both {one} and {reference}."
    lines = []
    for row in differences[differences["metric"] == MAIN].to_dict("records"):
        interval = f"95 % interval {100 * row['low']:+.2f} to {100 * row['high']:+.2f}"
        verdict = "resolved" if resolved(row) else "not resolved"
        lines.append(
            f"- {row['variant']}: {100 * row['difference']:+.2f} points of {MAIN} ({interval}), "
            f"{verdict}."
        )
    return "\n".join([f"**{one[0].upper()}{one[1:]} minus {reference}**", "", *lines])


def recovered(table: pd.DataFrame, name: str) -> str:
    """Say how much of each loss a run's training won back (table of `compare.recoveries`)."""
    if table.empty:
        return f"**{name}** has no precision that calibration alone has too."
    lines = []
    for row in table.to_dict("records"):
        if pd.notna(row["share"]):
            lost = _points(abs(row["lost"]))
            lines.append(
                f"- {row['variant']}, {row['metric']}: {row['share']:.0%} (95 % interval "
                f"{row['low']:.0%} to {row['high']:.0%}) of {lost} points lost."
            )
    lines = lines or ["- nothing resolved was lost, so there is nothing to win back."]
    return "\n".join([f"**Won back by {name}**", "", *lines])
