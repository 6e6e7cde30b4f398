"""The tables of `expression_changes` for people: sentences (Markdown), and what charts draw."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studylib import charts, shrink, verdicts
from studylib.expression_changes import SHIPPED
from studylib.expression_compare import ALL, resolved


def rates_table(rates: pd.DataFrame) -> pd.DataFrame:
    """Everybody's rates in % with their intervals, a row a variant and a column an expression."""
    whole = rates[rates["attribute"] == ALL]
    texts = [
        f"{100 * row.value:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"
        for row in whole.itertuples()
    ]
    wide = whole.assign(text=texts).pivot(index="variant", columns="expression", values="text")
    return wide.loc[list(dict.fromkeys(whole["variant"]))].rename_axis(columns="right, %")


def by_variant(flips: pd.DataFrame) -> pd.DataFrame:
    """Everybody's changes as `charts_tradeoff.gaps` draws them, a row a variant and expression.

    Parameters
    ----------
    flips : pandas.DataFrame
        Tables of `flips`, one after the other.
    """
    whole = flips[flips["attribute"] == ALL]
    kinds = [SHIPPED if name == SHIPPED else shrink.parse(name).method for name in whole["variant"]]
    drawn = {"panel": whole["expression"], "setting": whole["variant"], "method": kinds}
    return whole.assign(value=whole["change"], **drawn)


def by_group(shifts: pd.DataFrame, variant: str) -> pd.DataFrame:
    """One variant's shifts as `charts_tradeoff.gaps` draws them, as relative changes of the odds.

    A row a group and expression; those that allow no interval are left out.
    """
    drawn = shifts[shifts["variant"] == variant].dropna(subset=["low", "high"])
    names = _labels(drawn) + ", " + drawn["people"].astype(str) + " people"
    ends = {"value": drawn["shift"], "low": drawn["low"], "high": drawn["high"]}
    columns = {"panel": drawn["expression"], "setting": names, "method": drawn["attribute"]}
    return drawn.assign(**columns, **{name: np.expm1(log) for name, log in ends.items()})


def as_rates(rates: pd.DataFrame, variants: list[str]) -> pd.DataFrame:
    """Rates of some variants as `charts_fairness.group_intervals` draws them."""
    drawn = rates[rates["variant"].isin(variants)]
    columns = {"series": drawn["variant"], "metric": drawn["expression"]}
    return drawn.assign(group=_labels(drawn), **columns)


def _labels(cells: pd.DataFrame) -> pd.Series:
    """Groups with their attribute, and everybody without."""
    whole = cells["attribute"] == ALL
    return cells["group"].where(whole, cells["attribute"] + " " + cells["group"])


def group_sizes(groups: pd.DataFrame) -> str:
    """Say how many people stand behind the groups, from the table of `without_few` (Markdown)."""
    if not len(groups):
        return "The set says nothing of groups: all results are of everybody together."

    def named(rows: pd.DataFrame) -> str:
        shown = (f"{r.attribute} {r.group} ({r.people})" for r in rows.itertuples())
        return charts.listed(shown)

    kept, left = groups[groups["kept"]], groups[~groups["kept"]]
    lines = [f"People in each group: {named(kept)}."] if len(kept) else []
    if len(left):
        lines.append(f"Too few for a result of their own: {named(left)}.")
    lines.append(
        "**So few cannot stand for a population.** An interval says how far a number could have "
        "come out otherwise with other people like these; it knows of no people unlike them."
    )
    return " ".join(lines)


def answers(table: pd.DataFrame, first: str, second: str) -> str:
    """Say in words which answers changed, from the table of `flips` (Markdown)."""
    table = table[table["variant"] == second]
    whole = table[table["attribute"] == ALL]
    changed = int(whole[["lost", "gained", "other"]].to_numpy().sum())
    lines = [
        f"On {changed} of {whole['n'].sum()} pictures the answers of {first} and {second} differ.",
        "",
    ]
    for row in whole.to_dict("records"):
        lines.append(
            f"- {row['expression']}: {row['lost']} lost and {row['gained']} gained of {row['n']}, "
            f"a change of {verdicts.points(row['change'], sign=True)} percentage points "
            f"({verdicts.between((row['low'], row['high']))}; p {verdicts.p_text(row['p'])})."
        )
    groups = table[table["attribute"] != ALL]
    if len(groups):
        lines += ["", _by_group(groups)]
    return "\n".join(lines)


def trades(flips: pd.DataFrame) -> str:
    """Name the variants that win one expression's pictures and lose another's (Markdown)."""
    whole = flips[(flips["attribute"] == ALL) & resolved(flips["p_holm"])]
    lines = []
    for variant, rows in whole.groupby("variant", sort=False):
        if rows["change"].max() > 0 > rows["change"].min():
            told = [
                f"{r.expression} {verdicts.points(r.change, sign=True)}" for r in rows.itertuples()
            ]
            lines.append(f"- {variant}: {charts.listed(told)} percentage points")
    if not lines:
        return "No variant wins on one expression and loses on another (resolved after Holm)."
    return "Resolved (after Holm) in both directions:\n\n" + "\n".join(lines)


def odds(by_group: pd.DataFrame, between: pd.DataFrame, first: str, second: str) -> str:
    """Say in words how the expected answer's odds moved (tables of `shifts`; Markdown)."""
    by_group = by_group[by_group["variant"] == second]
    lines = [f"Odds of the expected answer, from {first} to {second}:", ""]
    for row in by_group[by_group["attribute"] == ALL].to_dict("records"):
        seen = "resolved" if resolved(row["p_holm"]) else "not resolved"
        lines.append(f"- {row['expression']}: {_percent(row)}, {seen}.")
    tested = between[between["variant"] == second].dropna(subset="p")
    if len(tested):
        apart = tested[resolved(tested["p_holm"])]
        found = [_extremes(by_group, row) for row in apart.to_dict("records")]
        lines += ["", " ".join(found) if found else _no_difference(tested)]
    return "\n".join(lines)


def _percent(row: dict) -> str:
    """A shift as a relative change of the odds, with its interval."""
    value, *ends = (np.expm1(row[key]) for key in ("shift", "low", "high"))
    within = "no interval" if np.isnan(ends[0]) else verdicts.between(ends)
    return f"{verdicts.points(value, sign=True)} % ({within})"


def distances(table: pd.DataFrame, first: str, second: str) -> str:
    """Say in words how far apart groups are, and what compression did to it (table of `gaps`)."""
    if not len(table):
        return "There are no groups to compare."
    lines = []
    for row in table[resolved(table["p_holm"])].to_dict("records"):
        told = "resolved" if resolved(row["change_p_holm"]) else "not resolved"
        lines.append(
            f"- {row['attribute']}, {row['expression']}: {first} is right more often for "
            f"{_named(row, 'highest')} than for {_named(row, 'lowest')}, by "
            f"{verdicts.points(row['gap'])} points "
            f"({verdicts.points(row['low'])} to {verdicts.points(row['high'])}; p "
            f"{verdicts.p_text(row['p_holm'])} after Holm). {second} changes this gap by "
            f"{verdicts.points(row['change'], sign=True)} points "
            f"({verdicts.between((row['change_low'], row['change_high']))}; {told})."
        )
    if not lines:
        return (
            f"Groups were compared {len(table)} times; no difference between them is resolved with "
            f"{first}, and with so few people (the smallest group has {table['people'].min()}) "
            "only large ones could be."
        )
    changed = resolved(table["change_p_holm"]).sum()
    return "\n".join(
        [
            f"Of {len(table)} comparisons of groups, those that are resolved:",
            "",
            *lines,
            "",
            f"In {changed} of the {len(table)} a change of the gap between the groups furthest "
            "apart is resolved.",
        ]
    )


def _named(row: dict, end: str) -> str:
    return f"{row[end]} ({row[f'{end}_people']} people)"


def _by_group(groups: pd.DataFrame) -> str:
    seen = groups[resolved(groups["p_holm"])]
    widest = groups.assign(reach=groups[["low", "high"]].abs().max(axis=1)).nlargest(1, "reach")
    row = widest.iloc[0]
    named = [
        f"{r.attribute} {r.group} ({r.expression}, {r.people} people)" for r in seen.itertuples()
    ]
    told = (
        f"After Holm's correction over {len(groups)} groups and expressions and the rows above, a "
        f"change is resolved for {charts.listed(named)}."
        if named
        else f"In none of the {len(groups)} groups and expressions is a change resolved (smallest "
        f"corrected p {verdicts.p_text(groups['p_holm'].min())})."
    )
    return (
        f"{told} That is no proof of equal treatment: for {row['attribute']} {row['group']} "
        f"({row['people']} people, {row['expression']}) anything from "
        f"{verdicts.between((row['low'], row['high']))} points is inside the interval."
    )


def _extremes(by_group: pd.DataFrame, test: dict) -> str:
    of = (by_group["attribute"] == test["attribute"]) & (
        by_group["expression"] == test["expression"]
    )
    ordered = by_group[of].sort_values("shift")
    ends = [
        f"{row['group']} ({row['people']} people) {_percent(row)}"
        for row in ordered.iloc[[0, -1]].to_dict("records")
    ]
    return (
        f"By {test['attribute']} the changes differ on {test['expression']} "
        f"(p {verdicts.p_text(test['p_holm'])} after Holm): from {ends[0]} to {ends[1]}."
    )


def _no_difference(tested: pd.DataFrame) -> str:
    return (
        f"Whether the change is the same in all groups was tested {len(tested)} times "
        f"({charts.listed(dict.fromkeys(tested['attribute']))}); no difference is resolved "
        f"(smallest corrected p {verdicts.p_text(tested['p_holm'].min())})."
    )
