"""Altair figures that need no network, and the few looks they share.

A chart is stored in its notebook as a static SVG picture with an alternative text, beside its
Vega-Lite specification. The book's page script puts a live chart in the picture's place; without
JavaScript, or in any other notebook viewer, the picture stays. Charts draw what a table says and
compute nothing: rates, curves and intervals come from `studylib.metrics`.
"""

from __future__ import annotations

import html
import json
import math
import re
import urllib.parse

import numpy as np
import pandas as pd
import vl_convert

from studylib import errors, light

alt = light.load("altair")

# Okabe and Ito's colours (2008), told apart with any common colour vision; their yellow is left
# out, too pale for a point on white, and a grey is added.
GROUP_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
    "#999999",
)
# One ramp for precisions, by bits per weight: darker is finer, and lightness alone keeps the order.
PRECISION_COLOURS = {
    32: "#0d0887", 8: "#5302a3", 7: "#7201a8", 6: "#9c179e", 5: "#cc4778", 4: "#ed7953",
    3: "#f79b3d", 2: "#fdc328",
}  # fmt: skip
OTHER_COLOUR = "#6b6b6b"
PAIR_COLOURS = {"genuine": "#0072B2", "impostor": "#D55E00"}

WIDTH = 520
AXES = {"size": "packed size", "precision": "precision"}
MAX_ROWS = 5000
VEGALITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def enable() -> None:
    """Make every chart of this process look alike and be stored with its own static picture."""
    alt.theme.register("study", enable=True)(_theme)
    alt.renderers.register("study", render)
    alt.renderers.enable("study")


def render(spec: dict) -> dict[str, str]:
    """Turn a Vega-Lite specification into a notebook output that works without a network.

    Parameters
    ----------
    spec : dict
        A whole specification (data included) whose `description` is the alternative text.

    Returns
    -------
    dict of str to str
        `text/html` (the SVG picture and the specification) and `text/plain` (the alternative text).

    Raises
    ------
    ParameterError
        If the chart has no description.
    """
    alt_text = spec.get("description")
    if not alt_text:
        raise errors.ParameterError(errors.NO_ALT_TEXT)
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGALITE)
    # percent-encoded rather than base64: a quarter smaller, and readable in the notebook's file
    picture = urllib.parse.quote(svg, safe=" !$'()*+,-./:;=?@[]^_`{|}~")
    # "</" would end the script element early wherever a label happens to hold a tag.
    source = json.dumps(spec, separators=(",", ":")).replace("</", "<\\/")
    return {
        "text/html": (
            f'<div class="altair-chart"><img alt="{html.escape(alt_text)}" '
            f'src="data:image/svg+xml,{picture}">'
            f'<script type="application/vnd.vegalite+json">{source}</script></div>'
        ),
        "text/plain": alt_text,
    }


def score_distributions(histogram: pd.DataFrame, *, source: str) -> alt.FacetChart:
    """Draw how the scores of genuine and impostor pairs spread, one row a variant.

    Parameters
    ----------
    histogram : pandas.DataFrame
        One row a bin: `variant`, `genuine` (bool), `low` and `high` (cosine), `density`.
    source : str
        Data set, seed and profile, for the subtitle.
    """
    check("score_distributions", histogram, "variant", "genuine", "low", "high", "density")
    table = histogram.assign(pairs=np.where(histogram["genuine"], *PAIR_COLOURS))
    order = sort_variants(table["variant"])
    picked = alt.selection_point(fields=["pairs"], bind="legend")
    bars = (
        alt.Chart()
        .mark_bar(aria=False)
        .encode(
            x=alt.X("low:Q", title="cosine similarity", bin="binned", axis=alt.Axis(tickCount=8)),
            x2="high:Q",
            y=alt.Y("density:Q", title=None, stack=None, axis=None),
            color=alt.Color(
                "pairs:N",
                title="pairs",
                scale=alt.Scale(domain=[*PAIR_COLOURS], range=[*PAIR_COLOURS.values()]),
            ),
            opacity=alt.condition(picked, alt.value(0.6), alt.value(0.08)),
            tooltip=[
                "variant:N",
                "pairs:N",
                alt.Tooltip("low:Q", format=".3f"),
                alt.Tooltip("high:Q", format=".3f"),
                alt.Tooltip("density:Q", format=".3f"),
            ],
        )
        .properties(width=WIDTH, height=60)
    )
    chart = alt.layer(bars, data=table).facet(row=rows("variant", order), spacing=8)
    return finish(
        chart.add_params(picked),
        "Scores of genuine and impostor pairs",
        source,
        f"Density of the cosine similarity of genuine and of impostor pairs, one row each for "
        f"{listed(order)}.",
    )


def det_curves(curve: pd.DataFrame, *, source: str) -> alt.LayerChart:
    """Draw the two error rates against each other as the threshold moves (DET), on log axes.

    Points where either rate is zero have no place on a log axis and are left out.

    Parameters
    ----------
    curve : pandas.DataFrame
        One row a threshold: `variant`, `fmr` and `fnmr` (0 to 1), and optionally `series`.
    source : str
        Data set, seed and profile, for the subtitle.
    """
    check("det_curves", curve, "variant", "fmr", "fnmr")
    order = sort_variants(curve["variant"])
    table = curve[(curve["fmr"] > 0) & (curve["fnmr"] > 0)]
    shown = sort_variants(table["variant"])
    low = decade_below(np.concatenate([table["fmr"], table["fnmr"]]))
    scale = alt.Scale(type="log", domain=[low, 1], clamp=True)
    axis = alt.Axis(format=".3~%", values=[10.0**k for k in range(round(math.log10(low)), 1)])
    picked = alt.selection_point(fields=["variant"], bind="legend")
    tooltip = [
        "variant:N",
        alt.Tooltip("fmr:Q", title="FMR", format=".3~%"),
        alt.Tooltip("fnmr:Q", title="FNMR", format=".3~%"),
    ]
    base = alt.Chart(table).encode(
        x=alt.X("fmr:Q", title="false match rate (FMR)", scale=scale, axis=axis),
        y=alt.Y("fnmr:Q", title="false non-match rate (FNMR)", scale=scale, axis=axis),
        color=_variant_colour(order),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.08)),
    )
    lines = base.mark_line(interpolate="step-after", strokeWidth=2, aria=False)
    if "series" in table:
        lines = lines.encode(strokeDash=alt.StrokeDash("series:N", title="series"))
        tooltip.insert(1, "series:N")
    else:
        lines = lines.encode(strokeDash=_weights_only_dash(order))
    equal = (
        alt.Chart(pd.DataFrame({"fmr": [low, 1.0], "fnmr": [low, 1.0]}))
        .mark_line(color=OTHER_COLOUR, strokeDash=[2, 3], strokeWidth=1, aria=False)
        .encode(x="fmr:Q", y="fnmr:Q")
    )
    points = base.mark_point(size=60, opacity=0, filled=True, aria=False).encode(
        tooltip=tooltip, opacity=alt.value(0)
    )
    hidden = [v for v in order if v not in shown]
    notes = [f"never wrong in both ways at once, so not drawn: {listed(hidden)}"] if hidden else []
    return finish(
        alt.layer(equal, lines.add_params(picked), points).properties(
            width=WIDTH - 100, height=360
        ),
        "DET curves: lower and further left is better",
        source,
        f"False non-match rate against false match rate, both on log axes, for {listed(shown)}; "
        "on the dotted line the two rates are equal.",
        notes,
    )


def rate_intervals(
    rates: pd.DataFrame, *, source: str, against: str = "size", title: str = "Rates and intervals"
) -> alt.FacetChart:
    """Draw rates with their intervals against packed size or against precision, one row a metric.

    Parameters
    ----------
    rates : pandas.DataFrame
        One row a rate: `variant`, `metric`, `value`, `low` and `high` (0 to 1), `size_mb` (10^6
        bytes), and optionally `series` (say, the calibration source), which is then coloured.
    source : str
        Data set, seed and profile, for the subtitle.
    against : {"size", "precision"}
        What the horizontal axis shows.
    title : str
        The chart's own title.

    Raises
    ------
    ParameterError
        If a column is missing, the table is empty or too long, or `against` is neither of the two.
    """
    if against not in AXES:
        raise errors.ParameterError(
            errors.UNKNOWN_NAME.format(what="horizontal axis", value=against, choices=listed(AXES))
        )
    check("rate_intervals", rates, "variant", "metric", "value", "low", "high", "size_mb")
    order = sort_variants(rates["variant"])
    metrics = list(dict.fromkeys(rates["metric"]))
    series = sorted(rates["series"].unique()) if "series" in rates else []
    picked = alt.selection_point(fields=["series" if series else "variant"], bind="legend")
    base = alt.Chart().encode(
        x=(
            alt.X(
                "size_mb:Q",
                title="packed size (MB)",
                scale=alt.Scale(type="log", nice=False, padding=20),
            )
            if against == "size"
            else alt.X("variant:N", title=AXES[against], sort=order, axis=alt.Axis(labelAngle=0))
        ),
        color=(
            group_colour("series", series, legend=alt.Legend())
            if series
            else _variant_colour(order)
        ),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.1)),
    )
    if series and against == "precision":
        base = base.encode(xOffset=alt.XOffset("series:N", sort=series))
    bars = base.mark_rule(strokeWidth=2, aria=False).encode(y=percent("low"), y2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1, aria=False).encode(
        y=percent("value"),
        tooltip=[
            *(["series:N"] if series else []),
            "variant:N",
            "metric:N",
            *(alt.Tooltip(f"{c}:Q", format=".3~%") for c in ("value", "low", "high")),
            alt.Tooltip("size_mb:Q", title="packed MB", format=".3~f"),
        ],
    )
    points = points.encode(shape=_weights_only_shape(order, legend=not series))
    # a legend answers clicks only if the first layer that has it holds the selection
    panel = alt.layer(bars.add_params(picked), points, data=rates)
    chart = panel.properties(width=WIDTH - 60, height=150).facet(
        row=rows("metric", metrics), spacing=14
    )
    return finish(
        chart.resolve_scale(y="independent"),
        title,
        source,
        f"{listed(metrics)} with intervals against {AXES[against]}"
        f", for {listed(order)}. {spoken(rates, 'metric', 'series', 'variant')}",
    )


def group_rates(rates: pd.DataFrame, *, source: str, target: float | None = None) -> alt.FacetChart:
    """Draw each group's false match rate with its interval on a log axis, one row a variant.

    A rate of zero has no place on a log axis: it is drawn hollow on the left edge.

    Parameters
    ----------
    rates : pandas.DataFrame
        One row a group and variant: `group`, `variant`, `value`, `low` and `high` (0 to 1),
        `n_subjects` (people) and `n_pairs` (impostor pairs).
    source : str
        Data set, seed and profile, for the subtitle.
    target : float, optional
        The rate of all pairs together at the global threshold, drawn as a dashed line.
    """
    check("group_rates", rates, "group", "variant", "value", "low", "high", "n_subjects", "n_pairs")
    order, groups = sort_variants(rates["variant"]), sorted(rates["group"].unique())
    labels = [
        f"{group} ({people} people, {pairs} pairs)"
        for group, people, pairs in zip(
            rates["group"], rates["n_subjects"], rates["n_pairs"], strict=True
        )
    ]
    known = np.append(rates["value"], [] if target is None else [target])
    low = decade_below(known if (known > 0).any() else rates["high"])
    high = 10.0 ** math.ceil(math.log10(max(rates["high"].max(), target or 0, low * 10)))
    # clamp puts what is below the axis, zero included, on its left edge
    scale = alt.Scale(type="log", domain=[low, high], clamp=True)
    axis = alt.Axis(format=".3~%")
    base = alt.Chart().encode(
        y=alt.Y("label:N", title=None, axis=alt.Axis(labelLimit=280, minExtent=200))
    )
    bars = base.mark_rule(strokeWidth=2, aria=False).encode(
        x=alt.X("low:Q", title="false match rate within the group", scale=scale, axis=axis),
        x2="high:Q",
        color=group_colour("group", groups),
    )
    points = base.mark_point(size=70, aria=False).encode(
        x=alt.X("value:Q", scale=scale, axis=axis),
        stroke=group_colour("group", groups, alt.Stroke),
        fill=group_colour("group", groups, alt.Fill),
        fillOpacity=alt.condition("datum.value > 0", alt.value(1), alt.value(0)),
        tooltip=[
            "group:N",
            "variant:N",
            *(alt.Tooltip(f"{c}:Q", format=".3~%") for c in ("value", "low", "high")),
            alt.Tooltip("n_subjects:Q", title="people"),
            alt.Tooltip("n_pairs:Q", title="impostor pairs"),
        ],
    )
    layers = [bars, points]
    if target is not None:
        layers.insert(
            0,
            alt.Chart()
            .mark_rule(color=OTHER_COLOUR, strokeDash=[4, 3], aria=False)
            .encode(x=alt.datum(target)),
        )
    table = rates.assign(label=labels)
    panel = alt.layer(*layers, data=table).properties(width=WIDTH - 180, height=alt.Step(20))
    zero = (rates["value"] == 0).any()
    return finish(
        panel.facet(row=rows("variant", order)),
        "False match rate by group at one global threshold",
        source,
        "False match rate within each group, with intervals, on a log axis. "
        f"{spoken(table, 'variant', 'label')}",
        ["a rate of zero is drawn hollow on the left edge"] if zero else [],
    )


def sort_variants(variants) -> list[str]:
    """List the distinct variants from fine to coarse: bits per weight, weights-only first."""
    return sorted(set(variants), key=lambda v: (-_bits(v), not weights_only(v), v))


def _bits(variant: str) -> int:
    """Bits per weight by the variant's name (w8a8, w6, fp32); 0 where the name has none."""
    found = re.search(r"\bw(\d+)", variant)
    return int(found[1]) if found else 32 if variant.startswith("fp32") else 0


def weights_only(variant: str) -> bool:
    """Tell whether a precision's name has bits for weights alone (w6), not w6a6 or fp32."""
    return re.search(r"\bw\d+(?!\d*a\d)", variant) is not None


def _variant_colour(order: list[str]) -> alt.Color:
    colours = [PRECISION_COLOURS.get(_bits(v), OTHER_COLOUR) for v in order]
    scale = alt.Scale(domain=order, range=colours)
    return alt.Color("variant:N", title="precision", sort=order, scale=scale)


def _weights_only_dash(order: list[str]) -> alt.StrokeDash:
    dashes = [[5, 3] if weights_only(v) else [1, 0] for v in order]
    scale = alt.Scale(domain=order, range=dashes)
    return alt.StrokeDash("variant:N", title="precision", sort=order, scale=scale)


def _weights_only_shape(order: list[str], legend: bool) -> alt.Shape:
    shapes = ["diamond" if weights_only(v) else "circle" for v in order]
    scale = alt.Scale(domain=order, range=shapes)
    shape = alt.Shape("variant:N", title="precision", sort=order, scale=scale)
    return shape if legend else shape.legend(None)


def group_colour(column: str, names: list[str], channel=alt.Color, legend=None):
    """One colour a group, by its place in the sorted names; the palette repeats after eight."""
    colours = [GROUP_COLOURS[i % len(GROUP_COLOURS)] for i in range(len(names))]
    return channel(f"{column}:N", legend=legend, scale=alt.Scale(domain=names, range=colours))


def percent(column: str) -> alt.Y:
    """A vertical axis of rates, labelled in per cent."""
    axis = alt.Axis(format=".3~%", tickCount=5)
    return alt.Y(f"{column}:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=axis)


def rows(column: str, order: list[str], anchor: str = "start") -> alt.Row:
    """One panel a value of a column, below each other, in the given order.

    With the anchor "end", long headings reach over the axis' labels instead of past the panel.
    """
    header = alt.Header(
        labelOrient="top", labelAnchor=anchor, labelFontWeight="bold", labelPadding=2, title=None
    )
    return alt.Row(f"{column}:N", sort=order, title=None, header=header)


def decade_below(rates) -> float:
    """The power of ten at or below the smallest rate above zero; 1e-4 where there is none."""
    positive = np.asarray(rates, float)
    positive = positive[positive > 0]
    return min(10.0 ** math.floor(math.log10(positive.min())), 0.1) if len(positive) else 1e-4


def listed(names) -> str:
    """Names with commas between them, for a sentence."""
    return ", ".join(map(str, names)) or "nothing"


def spoken(rates: pd.DataFrame, *keys: str) -> str:
    """Say each rate and its interval in words, for the alternative text."""
    keys = [key for key in keys if key in rates]
    return (
        "; ".join(
            f"{' '.join(str(row[k]) for k in keys)}: {100 * row['value']:.3g} % "
            f"({100 * row['low']:.3g} to {100 * row['high']:.3g} %)"
            for row in rates.to_dict("records")
        )
        + "."
    )


def check(chart: str, table: pd.DataFrame, *columns: str) -> None:
    """Refuse a table without the columns a chart draws, or too long to draw (ParameterError)."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise errors.ParameterError(
            errors.CHART_COLUMNS.format(chart=chart, missing=", ".join(missing))
        )
    if not 0 < len(table) <= MAX_ROWS:
        raise errors.ParameterError(
            errors.CHART_ROWS.format(chart=chart, rows=len(table), most=MAX_ROWS)
        )


def finish(chart, title: str, source: str, description: str, notes=()):
    """Add what every chart has: a title, where its data come from, and an alternative text."""
    subtitle = [source, *notes]
    return chart.properties(
        title=alt.TitleParams(title, subtitle=subtitle),
        description=" ".join(f"{text}." for text in [title, *subtitle]) + f" {description}",
    )


def _theme() -> dict:
    grid = {"gridColor": "#e6e6e6", "domainColor": "#888888", "tickColor": "#888888"}
    return {
        "config": {
            "background": "white",
            # room for viewers whose font is wider than the one the picture was laid out with
            "padding": {"left": 5, "top": 5, "bottom": 5, "right": 20},
            "font": "Arial, Helvetica, sans-serif",
            "view": {"stroke": None},
            "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", **grid},
            "legend": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
            "header": {"labelFontSize": 12},
            "title": {
                "anchor": "start", "fontSize": 14, "subtitleFontSize": 11, "offset": 12,
                "subtitleColor": "#555555",
            },
        }
    }  # fmt: skip
