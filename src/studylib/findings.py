"""Tables and sentences for notebooks, every number in them taken from a table of results."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studylib import charts, claims, published, verdicts

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


QUANTITIES = {"std": "STD", "ser": "SER", "worst": "worst group", "accuracy": "accuracy"}
_SPREADS = ("std", "ser")


def trainings(networks: pd.DataFrame) -> str:
    """Say how many networks there are, of how many kinds, and what their intervals can hold.

    Parameters
    ----------
    networks : pandas.DataFrame
        From `compare.networks`.
    """
    one = networks.drop_duplicates("network")
    kinds = one.groupby(["architecture", "trained_on"], sort=False).size()
    most = ", ".join(f"{name} on {on}: {n}" for (name, on), n in kinds.items())
    said = f"{len(one)} network{'s' * (len(one) > 1)} (trainings of {most})."
    if kinds.max() > 1:
        return (
            f"{said} Networks that differ by their seed alone tell how much chance in training "
            "does; where a kind was trained once, its chance is taken to be as large as that of "
            "the others in the same average. Where an average has no kind that was trained twice, "
            "its interval holds test people alone, and it is marked so."
        )
    return (
        f"{said} No network was trained again with another seed, so intervals hold the chance of "
        "the test people alone: every difference below is one of two networks, and need not be "
        "one of two ways to quantise."
    )


def bias_changes(table: pd.DataFrame, called: str) -> str:
    """Say how often STD and SER moved resolvably, then what moved, a line a precision and source.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of `audit.grid.corrected`, averages over all networks; may be empty.
    called : str
        What the differences are, such as "quantised minus fp32".

    Returns
    -------
    str
        Markdown.
    """
    if table.empty:
        return f"Nothing to compare: no network has both columns of *{called}*."
    spreads = table[table["metric"].isin(_SPREADS)]
    moved = spreads[spreads["p_holm"] <= verdicts.ALPHA]
    up, known = int((moved["value"] > 0).sum()), spreads["p"].notna().sum()
    tests = int(spreads["tests"].max())
    lines = [
        f"**{called[0].upper()}{called[1:]}**, averages over the networks that have both: of "
        f"{known} changes of STD and SER {up} are resolved rises and {len(moved) - up} resolved "
        f"falls (Holm's correction over the {tests} of their family). "
        f"{_unresolved(spreads) if moved.empty else ''}".strip(),
        "",
    ]
    ordered = by_precision(_spread_first(table)).groupby(["precision", "source"], sort=False)
    for (precision, source), part in ordered:
        texts = [moved_text(row) for row in part.to_dict("records") if row["metric"] != "accuracy"]
        lines.append(f"- {precision}, {source} ({behind(part)}): {', '.join(texts)}.")
    last = "A star marks what is resolved; in brackets 95 % intervals."
    if any(_ALONE in line for line in lines):
        last += (
            f" *{_ALONE.capitalize()}*: no kind of these networks was trained twice, so what is "
            "resolved is so for them, and need not be after another training."
        )
    return "\n".join([*lines, "", last])


_ALONE = "test people alone"


def counted(table: pd.DataFrame, column: str) -> pd.Series:
    """Add to the names in a column how many networks the means in their rows are of.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows with `networks` and `value`; names are marked whose intervals hold test people alone
        (`repeats` 0, where the table has it).
    column : str
        The column of names.

    Returns
    -------
    pandas.Series
        The new names; of a range ("2 to 4 networks") where a name's rows differ.
    """
    told = {name: f"{name} ({behind(part)})" for name, part in table.groupby(column)}
    return table[column].map(told)


def behind(part: pd.DataFrame) -> str:
    """How many networks stand behind these rows, and whether their trainings are accounted for."""
    least, most = part["networks"].min(), part["networks"].max()
    said = f"{least} to {most} networks" if least < most else f"{most} networks"
    said = "1 network" if most == 1 else said
    if "repeats" not in part:
        return said
    alone = part.loc[part["value"].notna(), "repeats"] == 0  # undefined ones have no interval
    if not alone.any():
        return said
    return f"{said}, {_ALONE if alone.all() else f'in part {_ALONE}'}"


def by_precision(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows from fine to coarse `precision`, then by `source`; equal ones stay in order."""
    order = {name: place for place, name in enumerate(charts.sort_variants(table["precision"]))}
    table = table.assign(place=table["precision"].map(order))
    return table.sort_values(["place", "source"], kind="stable").drop(columns="place")


def _spread_first(table: pd.DataFrame) -> pd.DataFrame:
    """Sort metrics in the order of their names."""
    return table.sort_values("metric", key=lambda m: m.map([*QUANTITIES].index), kind="stable")


_ENDS = ("value", "low", "high", "people_low", "people_high")


def in_units(table: pd.DataFrame) -> pd.DataFrame:
    """Values and intervals in points, those of SER as they are."""
    scale = np.where(table["metric"] == "ser", 1.0, 100.0)
    return table.assign(**{column: table[column] * scale for column in _ENDS})


def drawn_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `audit.grid.corrected` but accuracy, as `charts_fairness.changes` draws them."""
    table = in_units(by_precision(_spread_first(table[table["metric"] != "accuracy"])))
    table = table.rename(columns={"people_low": "inner_low", "people_high": "inner_high"})
    units = np.where(table["metric"] == "ser", "", ", points")
    return table.assign(
        panel=table["metric"].map(QUANTITIES) + units,
        setting=table["precision"],
        series=counted(table, "source"),
        resolved=table["p_holm"] <= verdicts.ALPHA,
    )


def some_networks(table: pd.DataFrame, most: int = 6) -> tuple[pd.DataFrame, str]:
    """Changes of STD and SER over some of the networks: the resolved ones, or those of smallest p.

    Those without a p, of networks that were all trained once, are counted and not shown.

    Parameters
    ----------
    table : pandas.DataFrame
        From `audit.grid.corrected`.
    most : int
        Rows to show where none is resolved.

    Returns
    -------
    shown : pandas.DataFrame
        of, column, reference, metric, networks, repeats, value, low, high (STD in points), p_holm.
    said : str
        How many were resolved.
    """
    some = table[(table["over"] != "all networks") & table["metric"].isin(_SPREADS)]
    columns = ["of", "column", "reference", "metric", "networks", "repeats", *_ENDS[:3], "p_holm"]
    known = some[some["p"].notna()]
    resolved_ones = some[some["p_holm"] <= verdicts.ALPHA]
    shown = in_units(resolved_ones if len(resolved_ones) else known.sort_values("p").head(most))
    shown = shown.assign(metric=shown["metric"].map({"std": "STD, points", "ser": "SER"}))[columns]
    if some.empty:
        return shown, "All networks are of one architecture and one training set."
    once = int((some["repeats"].eq(0) & some["value"].notna()).sum())
    said = "No such change of STD and SER could be tested."
    if len(known):
        said = (
            f"{len(resolved_ones)} of {len(known)} such changes of STD and SER are resolved after "
            f"Holm's correction over the {int(known['tests'].max())} of their family; the table "
            f"shows {'them' if len(resolved_ones) else 'those of smallest p'}."
        )
    return shown, (
        f"{said} {once} more are of networks whose kinds were trained once each: their intervals "
        "hold test people alone, and they are not tested. All are in the run's table `tested`."
    )


def moved_text(row: dict) -> str:
    """A change with its interval: SER without a unit, all else in points."""
    name, scale = QUANTITIES[row["metric"]], 1 if row["metric"] == "ser" else 100
    if not np.isfinite(row["value"]):
        return f"{name} not defined"
    value, low, high = (scale * row[key] for key in ("value", "low", "high"))
    unit = "" if scale == 1 else " points"
    star = " \\*" if row["p_holm"] <= verdicts.ALPHA else ""
    return f"{name} {value:+.2f}{unit} ({low:+.2f} to {high:+.2f}){star}"


def _unresolved(spreads: pd.DataFrame) -> str:
    """What an answer of nothing resolved leaves open."""
    std = spreads[(spreads["metric"] == "std") & spreads["value"].notna()]
    if std.empty:
        return ""
    return (
        "That is no proof of no change: the intervals of STD reach from "
        f"{verdicts.points(std['low'].min(), 2, sign=True)} to "
        f"{verdicts.points(std['high'].max(), 2, sign=True)} points."
    )


def scenarios(each: pd.DataFrame, called: str, *, even: bool) -> str:
    """Count the scenarios (network, source, precision) in which STD and SER are higher or lower.

    Parameters
    ----------
    each : pandas.DataFrame
        Differences of single networks (`audit.grid.by_network`); may be empty.
    called : str
        What the differences are, such as "synthetic minus real".
    even : bool
        Whether about half would be lower without an effect on bias. Not so of quantised minus full
        precision: accuracy falls, and STD rises with it even of equal groups.
    """
    texts = []
    for metric in _SPREADS:
        part = each[(each["metric"] == metric) & each["value"].notna()]
        lower, higher = int((part["value"] < 0).sum()), int((part["value"] > 0).sum())
        texts.append(f"{QUANTITIES[metric]} is lower in {lower} and higher in {higher}")
    count = len(each[["network", "column"]].drop_duplicates())
    return (
        f"Counted as in the paper, {called}, in {count} scenarios (a network, a source and a "
        f"precision): {'; '.join(texts)}. {_EVEN if even else _UNEVEN} The scenarios share test "
        "people and networks, so such a count is no test."
    )


_EVEN = "Without any effect about half would be lower."
_UNEVEN = "Where accuracy falls STD rises by itself, so half is not what equal groups would show."


def bias_width(table: pd.DataFrame) -> str:
    """Say at which width STD first rises resolvably, a line a source (rows as `bias_changes`)."""
    lines = []
    for source, part in table[table["metric"] == "std"].groupby("source", sort=True):
        part = part.set_index("precision").loc[charts.sort_variants(part["precision"])]
        rises = part[(part["p_holm"] <= verdicts.ALPHA) & (part["value"] > 0)]
        largest = part["value"].idxmax()
        row = part.loc[largest]
        first = f"no rise of STD is resolved down to {part.index[-1]}"
        if len(rises):
            first = f"the first resolved rise is at {rises.index[0]}"
        lines.append(
            f"- {source} ({behind(part)}): {first}; STD rises most (or falls least) at {largest}, "
            f"{verdicts.points(row['value'], 2, sign=True)} points (95 % interval "
            f"{verdicts.between((row['low'], row['high']), 2)})."
        )
    return "\n".join(lines) or "Nothing was quantised."


def bias_noise(table: pd.DataFrame, reference: str = "fp32") -> str:
    """Say how much of STD and SER equal groups would show too (table of `audit.grid.noise`)."""
    lines = []
    for metric, part in table.groupby("metric", sort=False):
        name, unit = QUANTITIES[metric], " points" if metric == "std" else ""
        inside, total = int(part["within"].sum()), int(part["networks"].sum())
        lines.append(
            f"- {name}: {inside} of {total} values lie within the band of equal groups. The median "
            f"of equal groups is {part['share'].min():.0%} to {part['share'].max():.0%} of the "
            f"mean {name}, from the fairest value on."
        )
        later = part[(part["column"] != reference) & part["change"].notna()]
        if len(later):
            row = later.loc[later["change"].abs().idxmax()]
            lines.append(
                f"  The largest mean change, {row['column']} ({behind(later.loc[[row.name]])}): "
                f"{row['change']:+.2f}{unit}. Of equal groups with the same mean accuracies the "
                f"median would change by {row['null_change']:+.2f}{unit}, which leaves "
                f"{row['excess']:+.2f}{unit}."
            )
    return "\n".join(lines)


def two_rules(levels: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """STD (points) and SER of every column under each rule, side by side.

    Rows may be means over other networks, so only what stands in one row can be compared.

    Parameters
    ----------
    levels : dict of str to pandas.DataFrame
        The rule's name to averages over all networks (`audit.grid.averages`).
    """
    parts = {}
    for name, table in levels.items():
        wide = table.pivot_table("value", "column", "metric")
        parts[name] = pd.DataFrame({"STD, points": 100 * wide["std"], "SER": wide["ser"]})
    both = pd.concat(parts, axis=1).rename_axis(index=None)
    both.insert(0, ("", "networks"), table.groupby("column")["networks"].first())
    return both.loc[charts.sort_variants(both.index)]


def rfw_beside(tables: verdicts.Tables, ours: pd.DataFrame, moved: pd.DataFrame) -> pd.DataFrame:
    """The published STD and SER of a quantised network on RFW, and ours under the same rule.

    Parameters
    ----------
    tables : verdicts.Tables
        From `verdicts.read`.
    ours : pandas.DataFrame
        Averages over all networks of STD and SER: column, metric, value, networks (`audit.grid`).
    moved : pandas.DataFrame
        Likewise of their differences from fp32, each of the networks that have the column.

    Returns
    -------
    pandas.DataFrame
        network, precision, calibrated on, STD (points), SER, and their change from fp32 as text,
        of the published rows with an interval from their counts.
    """
    rows = claims.rfw_table(tables).query("source.str.startswith('quantised')")
    accuracy = rows.set_index("precision")[published.RACES] / 100
    told = []
    for row in rows.to_dict("records"):
        about = {"network": f"{row['model']}, {row['figures']}", "precision": row["precision"]}
        shown = {name: f"{row[name]:.2f} (equal: {row[f'{name} if equal']})" for name in _NAMES}
        changes = dict.fromkeys(_CHANGES, "")
        if row["precision"] != published.BASELINE:
            pair = (accuracy.loc[published.BASELINE], accuracy.loc[row["precision"]])
            for name, scale in zip(_NAMES, (100, 1), strict=True):
                asked = {"draws": tables.draws, "seed": tables.seed}
                found = claims.spread_change(name.lower(), *pair, **asked)
                changes[f"change of {name}"] = _scaled(found, scale)
        told.append(about | {"calibrated on": "not said"} | shown | changes)
    wide, change = (t.set_index(["column", "metric"])["value"].unstack() for t in (ours, moved))
    for column in charts.sort_variants(ours["column"]):
        source, _, precision = column.rpartition("/")
        count = ours.loc[ours["column"] == column, "networks"].iloc[0]
        about = {"network": f"ours, mean of {count}", "precision": precision}
        shown = {"STD": f"{100 * wide.loc[column, 'std']:.2f}"}
        shown |= {"SER": f"{wide.loc[column, 'ser']:.2f}"}
        shown |= dict.fromkeys(_CHANGES, "")
        if column in change.index:
            shown["change of STD"] = f"{100 * change.loc[column, 'std']:+.3f}"
            shown["change of SER"] = f"{change.loc[column, 'ser']:+.2f}"
        told.append(about | {"calibrated on": source} | shown)
    return pd.DataFrame(told)


_NAMES = ("STD", "SER")
_CHANGES = ("change of STD", "change of SER")


def _scaled(found: claims.Spread, scale: float) -> str:
    value, low, high = (scale * x for x in (found.value, found.low, found.high))
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def drops_beside(drops: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """QuantFace's losses of accuracy beside ours, a row an architecture and precision.

    Parameters
    ----------
    drops : pandas.DataFrame
        From `published.quantface_drops`.
    ours : pandas.DataFrame
        From `audit.grid.averages_by` architecture: changes of accuracy of all groups from fp32.

    Returns
    -------
    pandas.DataFrame
        Texts in points: "published" (the mean of five benchmarks, and their range) and a column a
        source, with 95 % intervals; "not found" and "not run" where there is none.
    """
    keys = ["architecture", "precision"]
    theirs = drops.set_index(keys).apply(
        lambda row: (
            f"{100 * row['value']:+.2f} ({100 * row['most']:+.2f} to {100 * row['least']:+.2f})"
        ),
        axis=1,
    )
    mine = ours[(ours["group"] == "all") & (ours["metric"] == "accuracy")]
    texts = mine.assign(
        text=[_with_interval(row, "value", signed=True) for row in mine.to_dict("records")]
    )
    mine = texts.pivot(index=keys, columns="source", values="text")
    table = pd.concat([theirs.rename("published"), mine], axis=1)
    table["published"] = table["published"].fillna("not found")
    return table.fillna("not run").sort_index(ascending=[True, False]).reset_index()
