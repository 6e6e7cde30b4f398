"""Charts of expressions: how groups spread, what they lose, and how far confidence is right."""

from __future__ import annotations

import pandas as pd

from studylib import charts
from studylib.charts import alt

_FAINT = "#bbbbbb"


def class_effects(
    table: pd.DataFrame, *, source: str, title: str = "Which expressions of which group are lost"
) -> alt.FacetChart:
    """Draw the change of each expression's recall in each group, with intervals, a panel a variant.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a change: variant, expression, group, value, low, high (fractions, negative is a
        loss), n (pictures), resolved (bool: after correction).
    source : str
        Data set and runs, for the subtitle.
    title : str
        The chart's own title.

    Raises
    ------
    ParameterError
        If a column is missing, or the table is empty or too long.
    """
    needed = ("variant", "expression", "group", "value", "low", "high", "n", "resolved")
    charts.check("class_effects", table, *needed)
    variants, expressions, groups = (
        list(dict.fromkeys(table[c])) for c in ("variant", "expression", "group")
    )
    # rounding leaves no 1e-16 for a difference of nothing; + 0.0 no minus zero
    ends = ["value", "low", "high"]
    shown = table.assign(**{c: (100 * table[c]).round(7) + 0.0 for c in ends})
    base = alt.Chart().encode(
        y=alt.Y("expression:N", title=None, sort=expressions, axis=alt.Axis(minExtent=70)),
        yOffset=alt.YOffset("group:N", sort=groups),
        color=charts.group_colour("group", groups, legend=alt.Legend(title="group")),
    )
    bars = base.mark_rule(strokeWidth=1.5, aria=False).encode(
        x=alt.X("low:Q", title="change of recall, percentage points", axis=alt.Axis(format="+~r")),
        x2="high:Q",
    )
    points = base.mark_point(size=40, opacity=1, aria=False).encode(
        x="value:Q",
        fill=alt.condition(
            "datum.resolved",
            charts.group_colour("group", groups, alt.Fill),
            alt.value("white"),
        ),
        tooltip=[
            "variant:N",
            "group:N",
            "expression:N",
            *(alt.Tooltip(f"{c}:Q", format="+.1f") for c in ends),
            alt.Tooltip("n:Q", title="pictures"),
        ],
    )
    zero = (
        alt.Chart()
        .mark_rule(color=charts.OTHER_COLOUR, strokeDash=[4, 3], aria=False)
        .encode(x=alt.datum(0))
    )
    panel = alt.layer(zero, bars, points, data=shown).properties(
        width=charts.WIDTH - 120, height=alt.Step(8, **{"for": "offset"})
    )
    return charts.finish(
        panel.facet(row=charts.rows("variant", variants), spacing=14),
        title,
        source,
        "Change of the share of each expression that is recognised, in percentage points: "
        f"{charts.spoken(table.assign(**{c: shown[c] / 100 for c in ends}), *needed[:3])}",
        ["filled: resolved at 5 % after Holm's correction within the panel", "95 % intervals"],
    )


def reliability(
    table: pd.DataFrame, *, source: str, title: str = "Confidence and accuracy"
) -> alt.FacetChart:
    """Draw accuracy against confidence, bin by bin, a row a variant and a column a group.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a bin: variant, group, confidence (mean), value (accuracy), low, high (0 to 1), n.
    source : str
        Data set and runs, for the subtitle.
    title : str
        The chart's own title.

    Raises
    ------
    ParameterError
        If a column is missing, or the table is empty or too long.
    """
    charts.check(
        "reliability", table, "variant", "group", "confidence", "value", "low", "high", "n"
    )
    variants, groups = (list(dict.fromkeys(table[c])) for c in ("variant", "group"))
    # clamped, so that an interval of a rare bin does not leave its panel
    scale = alt.Scale(domain=[0, 1], clamp=True)
    axis = alt.Axis(format="%", values=[0, 0.5, 1])
    base = alt.Chart().encode(
        x=alt.X("confidence:Q", title="confidence", scale=scale, axis=axis),
        color=charts.group_colour("group", groups),
    )
    y = alt.Y("value:Q", title="accuracy", scale=scale, axis=axis)
    perfect = (
        alt.Chart()
        .mark_rule(color=_FAINT, aria=False)
        .encode(x=alt.datum(0), y=alt.datum(0), x2=alt.datum(1), y2=alt.datum(1))
    )
    bars = base.mark_rule(strokeWidth=1.5, aria=False).encode(
        y=alt.Y("low:Q", title="accuracy", scale=scale, axis=axis), y2="high:Q"
    )
    points = base.mark_point(filled=True, opacity=1, aria=False).encode(
        y=y,
        size=alt.Size("n:Q", legend=None, scale=alt.Scale(range=[8, 70])),
        tooltip=[
            "variant:N",
            "group:N",
            *(alt.Tooltip(f"{c}:Q", format=".1%") for c in ("confidence", "value", "low", "high")),
            alt.Tooltip("n:Q", title="pictures times runs"),
        ],
    )
    side = min(110, (charts.WIDTH - 40) // len(groups) - 10)
    panel = alt.layer(perfect, bars, points, data=table).properties(width=side, height=side)
    header = alt.Header(title=None, labelFontWeight="bold")
    worst = (
        table.assign(gap=(table["value"] - table["confidence"]) * table["n"])
        .groupby(["variant", "group"], sort=False)[["gap", "n"]]
        .sum()
    )
    said = "; ".join(
        f"{variant} {group}: accuracy {'above' if row.gap >= 0 else 'below'} confidence by "
        f"{100 * abs(row.gap) / row.n:.3g} points"
        for (variant, group), row in zip(worst.index, worst.itertuples(), strict=True)
    )
    return charts.finish(
        panel.facet(
            row=alt.Row("variant:N", sort=variants, title=None, header=header),
            column=alt.Column("group:N", sort=groups, title=None, header=header),
            spacing=8,
        ),
        title,
        source,
        f"Accuracy in bins of confidence, by group, with intervals. On average {said}.",
        ["grey: confidence as it should be; below it, too sure", "larger: more pictures"],
    )


def densities(table: pd.DataFrame, *, source: str, title: str) -> alt.FacetChart:
    """Draw how quantities spread in each group, a panel a quantity.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a point of a curve: quantity, group, value, density.
    source : str
        What was drawn, and how often, for the subtitle.
    title : str
        The chart's own title.

    Raises
    ------
    ParameterError
        If a column is missing, or the table is empty or too long.
    """
    charts.check("densities", table, "quantity", "group", "value", "density")
    quantities, groups = (list(dict.fromkeys(table[c])) for c in ("quantity", "group"))
    picked = alt.selection_point(fields=["group"], bind="legend")
    lines = (
        alt.Chart()
        .mark_line(strokeWidth=2, aria=False)
        .encode(
            x=alt.X("value:Q", title=None),
            y=alt.Y("density:Q", title=None, axis=None),
            color=charts.group_colour("group", groups, legend=alt.Legend()),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
            tooltip=["quantity:N", "group:N", alt.Tooltip("value:Q", format=".3~f")],
        )
        .add_params(picked)
        .properties(width=charts.WIDTH - 60, height=70)
    )
    peaks = table.loc[table.groupby(["quantity", "group"], sort=False)["density"].idxmax()]
    said = "; ".join(f"{r.quantity}, {r.group}: {r.value:.3g}" for r in peaks.itertuples())
    panels = alt.layer(lines, data=table).facet(row=charts.rows("quantity", quantities), spacing=12)
    return charts.finish(
        panels.resolve_scale(x="independent", y="independent"),
        title,
        source,
        f"Densities of {charts.listed(quantities)} in {charts.listed(groups)}. Peaks: {said}.",
    )
