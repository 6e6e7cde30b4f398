"""Charts of trade-offs: size against accuracy, gaps by setting with intervals, widths by layer."""

from __future__ import annotations

import pandas as pd

from studylib import charts
from studylib.charts import alt

# A method keeps its colour with and without quantising; the shape tells the two apart.
COLOURS = {
    "baseline": "#000000",
    "quantised": "#000000",
    "pruned": charts.GROUP_COLOURS[0],
    "pruned, quantised": charts.GROUP_COLOURS[0],
    "clustered": charts.GROUP_COLOURS[1],
    "clustered, quantised": charts.GROUP_COLOURS[1],
    "pruned, clustered": charts.GROUP_COLOURS[4],
    "pruned, clustered, quantised": charts.GROUP_COLOURS[4],
    "control": charts.OTHER_COLOUR,
}
_SPARE = [colour for colour in charts.GROUP_COLOURS if colour not in COLOURS.values()]


def pareto_fronts(
    table: pd.DataFrame,
    *,
    source: str,
    title: str = "Size and accuracy of every setting",
    axis: str = "size (MB, one file in a ZIP)",
    notes: tuple[str, ...] = (
        "intervals (95 %) hold test set and runs; most of them overlap along the front",
    ),
) -> alt.FacetChart:
    """Draw accuracy against size in each group, with intervals; the front is joined by a line.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a setting and group: group, setting, method, size_mb (10^6 bytes), value, low and
        high (0 to 1), front (bool: nothing is as small and better). From `published.tradeoff`.
    source : str
        Data set and where the figures are from, for the subtitle.
    title, axis : str
        The chart's own title, and that of the horizontal axis.
    notes : tuple of str
        More lines for the subtitle, such as what the intervals hold.

    Raises
    ------
    ParameterError
        If a column is missing, or the table is empty or too long.
    """
    needed = ("group", "setting", "method", "size_mb", "value", "low", "high", "front")
    charts.check("pareto_fronts", table, *needed)
    table = table.assign(method=table["method"].str.replace("_and_", ", "))
    groups, methods = (list(dict.fromkeys(table[c])) for c in ("group", "method"))
    picked = alt.selection_point(fields=["method"], bind="legend")
    base = alt.Chart().encode(
        x=alt.X(
            "size_mb:Q",
            title=axis,
            scale=alt.Scale(type="log", nice=False, padding=20),
        ),
        color=_method_colour(methods, "method"),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.12)),
    )
    line = (
        alt.Chart()
        .mark_line(color=charts.OTHER_COLOUR, interpolate="step-after", aria=False)
        .encode(x="size_mb:Q", y=charts.percent("value"), order="size_mb:Q")
        .transform_filter("datum.front")
    )
    bars = base.mark_rule(strokeWidth=1.2, aria=False).encode(y=charts.percent("low"), y2="high:Q")
    points = base.mark_point(size=60, filled=True, aria=False, opacity=1).encode(
        y=charts.percent("value"),
        shape=_method_shape(methods, "method"),
        size=alt.condition("datum.front", alt.value(110), alt.value(40)),
        tooltip=[
            "group:N",
            "setting:N",
            *(alt.Tooltip(f"{c}:Q", format=".2%") for c in ("value", "low", "high")),
            alt.Tooltip("size_mb:Q", title="MB", format=".2f"),
            alt.Tooltip("front:N", title="on the front"),
        ],
    )
    panel = alt.layer(line, bars.add_params(picked), points, data=table)
    best = table[table["front"]].sort_values("size_mb", kind="stable")
    told = "; ".join(
        f"{group}: {charts.listed(part['setting'])}"
        for group, part in best.groupby("group", sort=False)
    )
    return charts.finish(
        panel.properties(width=charts.WIDTH - 120, height=170)
        .facet(row=charts.rows("group", groups), spacing=14)
        .resolve_scale(y="independent"),
        title,
        source,
        f"Accuracy in {charts.listed(groups)} against size. On the front, from small to large: "
        f"{told}. {charts.spoken(table, 'group', 'setting')}",
        ["larger marks, joined: no setting is as small and better, by the values alone", *notes],
    )


def gaps(
    table: pd.DataFrame,
    *,
    source: str,
    title: str = "The gap in every setting",
    axis: str = "percentage points",
    legend: str = "method",
    notes: tuple[str, ...] = (),
) -> alt.FacetChart:
    """Draw a difference by setting with its interval and the line of no difference.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a setting and panel: panel, setting, method, value, low, high (fractions), and
        optionally inner_low and inner_high, a second interval drawn thick inside the first.
    source : str
        Data set and where the figures are from, for the subtitle.
    title, axis, legend : str
        The chart's own title, and those of the horizontal axis and of the colours.
    notes : tuple of str
        More lines for the subtitle, such as what the two intervals assume.

    Raises
    ------
    ParameterError
        If a column is missing, or the table is empty or too long.
    """
    charts.check("gaps", table, "panel", "setting", "method", "value", "low", "high")
    table = table.assign(method=table["method"].str.replace("_and_", ", "))
    panels, methods = (list(dict.fromkeys(table[c])) for c in ("panel", "method"))
    columns = [c for c in ("value", "low", "high", "inner_low", "inner_high") if c in table]
    # rounding leaves no 1e-16 for a difference of nothing; + 0.0 no minus zero
    table = table.assign(**{column: table[column].round(9) + 0.0 for column in columns})
    shown = table.assign(**{column: 100 * table[column] for column in columns})
    base = alt.Chart().encode(
        y=alt.Y(
            "setting:N",
            title=None,
            sort=list(dict.fromkeys(table["setting"])),
            axis=alt.Axis(labelLimit=240),
        ),
        color=_method_colour(methods, legend),
    )

    def bars(low: str, high: str, width: float) -> alt.Chart:
        return base.mark_rule(strokeWidth=width, aria=False).encode(
            x=alt.X(f"{low}:Q", title=axis, axis=alt.Axis(format="+~r")), x2=f"{high}:Q"
        )

    zero = (
        alt.Chart()
        .mark_rule(color=charts.OTHER_COLOUR, strokeDash=[4, 3], aria=False)
        .encode(x=alt.datum(0))
    )
    layers = [zero, bars("low", "high", 1.2)]
    if "inner_low" in table:
        layers.append(bars("inner_low", "inner_high", 3.5))
    points = base.mark_point(size=60, filled=True, opacity=1, aria=False).encode(
        x="value:Q",
        shape=_method_shape(methods, legend),
        tooltip=["panel:N", "setting:N", *(alt.Tooltip(f"{c}:Q", format="+.1f") for c in columns)],
    )
    panel = alt.layer(*layers, points, data=shown)
    return charts.finish(
        panel.properties(width=charts.WIDTH - 140, height=alt.Step(15)).facet(
            row=charts.rows("panel", panels), spacing=16
        ),
        title,
        source,
        f"{axis[0].upper()}{axis[1:]}, with intervals: {charts.spoken(table, 'panel', 'setting')}",
        notes,
    )


def mix_curves(
    table: pd.DataFrame, *, source: str, marked: float, notes: tuple[str, ...] = ()
) -> alt.FacetChart:
    """Draw accuracy against the share of synthetic faces in training, a line a way of teaching.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a point: panel, series (coloured), share (0 to 1), value, low, high (0 to 1).
    source : str
        Data set, seed and profile, for the subtitle.
    marked : float
        The share that a dashed line marks.
    notes : tuple of str
        More lines for the subtitle.

    Raises
    ------
    ParameterError
        If a column is missing, or the table is empty or too long.
    """
    charts.check("mix_curves", table, "panel", "series", "share", "value", "low", "high")
    panels, series = (list(dict.fromkeys(table[c])) for c in ("panel", "series"))
    # bars of one share stand side by side, or the last would hide the others
    aside = table["series"].map(series.index) - (len(series) - 1) / 2
    shown = table.assign(at=table["share"] + _ASIDE * aside)
    base = alt.Chart().encode(
        x=alt.X(
            "at:Q",
            title="share of synthetic identities in the training set",
            axis=alt.Axis(format="%", values=sorted(table["share"].unique())),
            scale=alt.Scale(domain=[-0.05, 1.05], nice=False),
        ),
        color=charts.group_colour("series", series, legend=alt.Legend(title="taught")),
    )
    points = base.mark_point(filled=True, size=60, opacity=1, aria=False).encode(
        y=charts.percent("value"),
        tooltip=[
            "panel:N",
            "series:N",
            alt.Tooltip("share:Q", format=".0%"),
            *(alt.Tooltip(f"{c}:Q", format=".2%") for c in ("value", "low", "high")),
        ],
    )
    mark = (
        alt.Chart()
        .mark_rule(color=charts.OTHER_COLOUR, strokeDash=[4, 3], aria=False)
        .encode(x=alt.datum(marked))
    )
    layers = [
        mark,
        base.mark_line(strokeWidth=1.5, aria=False).encode(y=charts.percent("value")),
        base.mark_rule(strokeWidth=1.5, aria=False).encode(y=charts.percent("low"), y2="high:Q"),
        points,
    ]
    panel = alt.layer(*layers, data=shown).properties(width=charts.WIDTH - 120, height=170)
    told = shown.assign(share=shown["share"].map("{:.0%} synthetic".format))
    return charts.finish(
        panel.facet(row=charts.rows("panel", panels), spacing=14).resolve_scale(y="independent"),
        "Real and synthetic faces mixed",
        source,
        f"Accuracy against the share of synthetic identities. "
        f"{charts.spoken(told, 'panel', 'series', 'share')}",
        [f"dashed: {marked:.0%} synthetic", *notes],
    )


_ASIDE = 0.012  # between bars of one share


def layer_widths(
    table: pd.DataFrame, *, source: str, title: str = "A width for each layer"
) -> alt.LayerChart:
    """Draw how many bits each layer's weights get in each setting, written into the squares.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a layer and setting, both in the order to be drawn: layer, share (of the network's
        weights, 0 to 1), setting, bits (2 to 8).
    source : str
        Data set, seed and profile, for the subtitle.
    title : str
        The chart's own title.

    Raises
    ------
    ParameterError
        If a column is missing, or the table is empty or too long.
    """
    charts.check("layer_widths", table, "layer", "share", "setting", "bits")
    table = table.assign(label=[f"{r.layer} ({r.share:.1%})" for r in table.itertuples()])
    layers, settings = (list(dict.fromkeys(table[c])) for c in ("label", "setting"))
    widths = [b for b in charts.PRECISION_COLOURS if b <= 8]
    colours = [charts.PRECISION_COLOURS[b] for b in widths]
    base = alt.Chart(table).encode(
        x=alt.X(
            "setting:N", title=None, sort=settings, axis=alt.Axis(orient="top", labelAngle=-40)
        ),
        y=alt.Y("label:N", title=None, sort=layers, axis=alt.Axis(labelLimit=240)),
    )
    squares = base.mark_rect(aria=False).encode(
        color=alt.Color("bits:O", legend=None, scale=alt.Scale(domain=widths, range=colours)),
        tooltip=["layer:N", alt.Tooltip("share:Q", format=".2%"), "setting:N", "bits:Q"],
    )
    text = base.mark_text(fontSize=10, aria=False).encode(
        text="bits:Q",
        color=alt.condition("datum.bits > 4", alt.value("white"), alt.value("black")),
    )
    said = "; ".join(
        f"{setting}: {charts.listed(f'{r.layer} {r.bits}' for r in part.itertuples())}"
        for setting, part in table.groupby("setting", sort=False)
    )
    return charts.finish(
        alt.layer(squares, text).properties(width=alt.Step(34), height=alt.Step(16)),
        title,
        source,
        f"Bits of each layer's weights, by setting. {said}.",
        ["numbers and colours: bits a weight; in brackets: the layer's share of all weights"],
    )


def _method_colour(methods: list[str], title: str) -> alt.Color:
    spare = iter(_SPARE * len(methods))
    colours = [COLOURS.get(method) or next(spare) for method in methods]
    scale = alt.Scale(domain=methods, range=colours)
    return alt.Color("method:N", title=title, scale=scale)


def _method_shape(methods: list[str], title: str) -> alt.Shape:
    shapes = ["diamond" if "quantised" in method else "circle" for method in methods]
    scale = alt.Scale(domain=methods, range=shapes)
    return alt.Shape("method:N", title=title, scale=scale)
