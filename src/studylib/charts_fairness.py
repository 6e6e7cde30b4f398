"""Altair figures of group rates and fairness metrics beside what chance alone would show.

As in `studylib.charts`: a chart draws what a table says, and computes nothing. The exception is
`threshold_explorer`, which works out in the reader's browser what belongs to its sliders' places;
it needs no network, and the picture that is stored shows the first places.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from studylib import charts
from studylib.charts import alt

CHANCE_COLOUR = "#d9d9d9"  # what equal groups would show
OUTSIDE_COLOUR = "#D55E00"  # a value that equal groups would hardly show
BOUNDS = ("low", "high", "null_low", "null_median", "null_high")  # interval, null band
_BAR = 12  # pixels of one row
_PANEL = charts.WIDTH - 140


def group_intervals(
    table: pd.DataFrame, *, source: str, metric_title: str, title: str | None = None
) -> alt.FacetChart:
    """Draw each group's rate with its interval, groups side by side, one panel a metric.

    More groups than there are colours get a panel for each metric and series instead, with their
    names on the axis.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a rate: `series` (say, the threshold rule or the model), `group`, `metric`, `value`,
        `low` and `high` (0 to 1), `n` (items behind the rate). With `null_low` and `null_high`,
        what groups that are all equal would show is shaded behind. Undefined rates (NaN) are left
        out and named in the subtitle.
    source : str
        Where the rates come from, for the subtitle.
    metric_title : str
        What the horizontal axes show, with its unit.
    title : str, optional
        The chart's own title; made from `metric_title` if not given.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    wanted = ("series", "group", "metric", "value", "low", "high", "n")
    charts.check("group_intervals", table, *wanted)
    drawn, notes = _defined(table, "metric", "series", "group")
    groups = sorted(drawn["group"].unique())
    named = len(groups) > len(charts.GROUP_COLOURS)
    panels = drawn["metric"] + (", " + drawn["series"] if named else "")
    base, step = _group_rows(drawn, groups, named)
    coloured = base.encode(color=_group_colour(groups, alt.Legend(title="group")))
    axis = alt.Axis(format=".3~%", tickCount=6)
    x = alt.X("value:Q", title=metric_title, scale=_FREE, axis=axis)
    layers = [
        *_spans(coloured.mark_rule(strokeWidth=2, aria=False), "low", "high", x),
        coloured.mark_point(filled=True, size=45, opacity=1, aria=False).encode(
            x=x,
            tooltip=[
                "series:N",
                "group:N",
                "metric:N",
                *(alt.Tooltip(f"{c}:Q", format=".4~%") for c in ("value", "low", "high")),
                alt.Tooltip("n:Q", format=","),
            ],
        ),
        base.mark_text(align="left", fontSize=9, color=charts.OTHER_COLOUR, aria=False).encode(
            x=alt.value(_PANEL + 6), text=alt.Text("n:Q", format=",")
        ),
    ]
    if "null_low" in drawn:
        chance = base.mark_rule(color=CHANCE_COLOUR, strokeWidth=_BAR, aria=False)
        layers = [*_spans(chance, "null_low", "null_high", x), *layers]
        notes.append("shaded: what groups that are all equal would show")
    panel = alt.layer(*layers, data=drawn.assign(panel=panels))
    panel = panel.properties(width=_PANEL, height=step)
    rows = charts.rows("panel", list(dict.fromkeys(panels)))
    return charts.finish(
        panel.facet(row=rows).resolve_scale(x="independent"),
        title or f"{metric_title[0].upper()}{metric_title[1:]}, by group",
        source,
        f"Rates of the groups {charts.listed(groups)} with intervals. "
        f"{charts.spoken(drawn, 'metric', 'series', 'group')}",
        [*notes, "right: the number of items behind each rate"],
    )


def panel_bands(
    table: pd.DataFrame, *, source: str, title: str = "Fairness metrics against chance"
) -> alt.FacetChart:
    """Draw fairness metrics with their intervals over the range that equal groups would show.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a number: `series` (say, the threshold rule), `metric`, `value`, `low`, `high` (its
        interval), `null_low`, `null_median`, `null_high` (its null band), all in the metric's own
        unit. A panel has rows for its own series only. Values that are not finite are left out and
        named in the subtitle; an interval or a band without a finite upper end runs to the panel's
        right edge. A band that begins at the fairest value marks only what is less fair than
        chance; one that is NaN is not drawn.
    source : str
        Where the numbers come from, for the subtitle.
    title : str
        What stands above the panels.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("panel_bands", table, "series", "metric", "value", *BOUNDS)
    drawn, notes = _defined(table, "metric", "series")
    metrics = list(dict.fromkeys(drawn["metric"]))
    base = alt.Chart().encode(y=_series_axis(drawn))
    # few ticks, and air between them: labels such as 0.995 and 1.000 would touch
    axis = alt.Axis(tickCount=4, labelOverlap=True, labelSeparation=12)
    x = alt.X("value:Q", title=None, scale=_FREE, axis=axis)
    below = "(isValid(datum.null_low) && datum.value < datum.null_low)"
    above = "(isValid(datum.null_high) && datum.value > datum.null_high)"
    colour = alt.condition(f"{below} || {above}", alt.value(OUTSIDE_COLOUR), alt.value("black"))
    fill = alt.condition(f"{below} || {above}", alt.value(OUTSIDE_COLOUR), alt.value("white"))
    median = base.mark_tick(color="white", thickness=2, size=_BAR, aria=False)
    interval = base.mark_rule(strokeWidth=2, aria=False).encode(color=colour)
    layers = [
        *_spans(
            base.mark_rule(color=CHANCE_COLOUR, strokeWidth=_BAR, aria=False),
            "null_low",
            "null_high",
            x,
        ),
        median.transform_filter("isValid(datum.null_median)").encode(x=_field(x, "null_median")),
        *_spans(interval, "low", "high", x),
        base.mark_point(size=55, opacity=1, aria=False).encode(
            x=x,
            stroke=colour,
            fill=fill,
            tooltip=[
                "series:N",
                "metric:N",
                *(alt.Tooltip(f"{c}:Q", format=".4~g") for c in ("value", *BOUNDS)),
            ],
        ),
    ]
    panel = alt.layer(*layers, data=drawn).properties(
        width=_PANEL, height=_step("position", _BAR + 4)
    )
    chart = panel.facet(row=charts.rows("metric", metrics), spacing=6)
    if drawn[["null_low", "null_high"]].isna().all(axis=1).any():
        notes.append("without a band: nothing to compare with, so hollow says nothing")
    said = "; ".join(
        f"{row['metric']} {row['series']}: {row['value']:.3g} ({row['low']:.3g} to "
        f"{row['high']:.3g})"
        + (
            f", equal groups {row['null_low']:.3g} to {row['null_high']:.3g}"
            if pd.notna(row["null_low"])
            else ""
        )
        for row in drawn.to_dict("records")
    )
    return charts.finish(
        chart.resolve_scale(x="independent", y="independent"),
        title,
        source,
        f"Each metric with its interval and the 95 % null band of equal groups. {said}.",
        [
            "grey: 95 % of what equal groups would show (white line: the median)",
            "filled: outside that band, hollow: inside",
            *notes,
        ],
    )


def changes(table: pd.DataFrame, *, source: str, title: str) -> alt.FacetChart:
    """Draw differences with two intervals and the line of no difference, a panel a quantity.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a difference: `panel` (the quantity with its unit), `setting` (a row of the panel),
        `series` (coloured, side by side within a row), `value`, `low`, `high`, `inner_low`,
        `inner_high` (a second interval, drawn thick inside the first; all in the panel's unit) and
        `resolved` (bool: after correction). Undefined values are left out and named.
    source : str
        Data set, seed and profile, for the subtitle.
    title : str
        The chart's own title; it says what is subtracted from what.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    ends = ("value", "low", "high", "inner_low", "inner_high")
    charts.check("changes", table, "panel", "setting", "series", *ends, "resolved")
    drawn, notes = _defined(table, "panel", "setting", "series")
    panels, settings, series = (
        list(dict.fromkeys(drawn[c])) for c in ("panel", "setting", "series")
    )
    base = alt.Chart().encode(
        y=alt.Y("setting:N", title=None, sort=settings, axis=_names_axis(settings)),
        yOffset=alt.YOffset("series:N", sort=series),
        color=charts.group_colour("series", series, legend=_below()),
    )
    x = alt.X("low:Q", title=None, axis=alt.Axis(format="+~r", tickCount=6))
    points = base.mark_point(size=50, opacity=1, aria=False).encode(
        x=_field(x, "value"),
        fill=alt.condition(
            "datum.resolved",
            charts.group_colour("series", series, alt.Fill),
            alt.value("white"),
        ),
        tooltip=[
            "panel:N",
            "setting:N",
            "series:N",
            *(alt.Tooltip(f"{c}:Q", format="+.3~g") for c in ends),
        ],
    )
    layers = [
        alt.Chart()
        .mark_rule(color=charts.OTHER_COLOUR, strokeDash=[4, 3], aria=False)
        .encode(x=alt.datum(0)),
        base.mark_rule(strokeWidth=1.2, aria=False).encode(x=x, x2="high:Q"),
        base.mark_rule(strokeWidth=4, aria=False).encode(
            x=_field(x, "inner_low"), x2="inner_high:Q"
        ),
        points,
    ]
    panel = alt.layer(*layers, data=drawn).properties(width=_PANEL, height=_step("offset", _BAR))
    said = "; ".join(
        f"{row['panel']}, {row['setting']}, {row['series']}: {row['value']:+.3g} "
        f"({row['low']:+.3g} to {row['high']:+.3g})"
        for row in drawn.to_dict("records")
    )
    chart = panel.facet(row=charts.rows("panel", panels), spacing=14)
    return charts.finish(
        chart.resolve_scale(x="independent"),
        title,
        source,
        f"Each difference with its interval. {said}.",
        [
            "thin: 95 %, test people and trainings (where known); thick: test people alone",
            "filled: resolved at 5 % after Holm's correction within its family",
            *notes,
        ],
    )


def threshold_explorer(
    rates: pd.DataFrame,
    densities: pd.DataFrame,
    *,
    source: str,
    threshold: float,
    pairs: int = 3000,
) -> alt.VConcatChart:
    """Let the reader move the threshold and the size of the test, and watch rates and STD follow.

    The sliders choose among the table's thresholds, and set how many pairs of each kind each group
    would be tested with: Wilson's intervals and the 95 % band of STD for equal groups (normal
    approximation: K STD^2 / variance is chi-squared with K - 1 degrees of freedom) are computed in
    the browser. The stored picture shows the first places given here.

    Parameters
    ----------
    rates : pandas.DataFrame
        One row a threshold and group: `group`, `threshold` (evenly spaced), `fmr`, `fnmr` (0 to 1).
    densities : pandas.DataFrame
        Score densities: `group`, `pairs` ("genuine" or "impostor"), `score`, `density`.
    source : str
        Where the scores come from, for the subtitle.
    threshold : float
        First place of the threshold's slider; the nearest threshold of the table is taken.
    pairs : int
        First place of the other slider.

    Raises
    ------
    ParameterError
        As `charts.check`, for either table.
    """
    charts.check("threshold_explorer", rates, "group", "threshold", "fmr", "fnmr")
    charts.check("threshold_explorer", densities, "group", "pairs", "score", "density")
    groups, grid = sorted(rates["group"].unique()), np.unique(rates["threshold"])
    step = float(np.round(np.diff(grid).min(initial=1.0), 6))
    threshold = float(np.round(grid[np.abs(grid - threshold).argmin()], 6))
    at, size = (
        alt.param(name=name, value=value, bind=alt.binding_range(**span, name=f"{label} "))
        for name, value, label, span in (
            ("at", threshold, "threshold", {"min": grid[0], "max": grid[-1], "step": step}),
            (
                "size",
                pairs,
                "pairs of each kind in each group",
                {"min": 100, "max": max(10_000, 2 * pairs), "step": 100},
            ),
        )
    )
    here = (
        alt.Chart(rates)
        .transform_filter(f"abs(datum.threshold - at) < {step / 2}")
        .transform_calculate(accuracy="1 - (datum.fmr + datum.fnmr) / 2")
    )
    panels = [
        _densities(densities, groups),
        *(_rate_panel(here, groups, *panel) for panel in _EXPLORED),
        _std_panel(here, len(groups)),
    ]
    shown = rates[np.isclose(rates["threshold"], threshold)].to_dict("records")
    said = "; ".join(
        f"{r['group']}: FMR {100 * r['fmr']:.3g} %, FNMR {100 * r['fnmr']:.3g} %" for r in shown
    )
    return charts.finish(
        alt.vconcat(*panels, spacing=14).resolve_scale(color="shared").add_params(at, size),
        "One threshold for all: move it, resize the test",
        source,
        "Score densities of genuine and impostor pairs by group with the threshold, the groups' "
        "FMR, FNMR and accuracy with intervals for that many pairs, and STD over the band of equal "
        f"groups. At this threshold {said}.",
        [f"first shown: threshold {threshold:g}, {pairs:,} pairs of each kind in each group"],
    )


# column, axis title, pairs behind the rate, and a scale that stays put while the sliders move
_EXPLORED = (
    ("fmr", "FMR", "size", alt.Scale(type="log", domain=[1e-4, 1], clamp=True)),
    ("fnmr", "FNMR", "size", alt.Scale(type="log", domain=[1e-4, 1], clamp=True)),
    ("accuracy", "accuracy", "(2 * size)", alt.Scale(domain=[0.7, 1], clamp=True)),
)
_Z = 1.959963984540054  # two-sided 95 % point of the normal distribution


def _densities(densities: pd.DataFrame, groups: list[str]) -> alt.LayerChart:
    """Densities of each group's scores, with the threshold as a vertical line."""
    lines = (
        alt.Chart(densities)
        .mark_line(strokeWidth=1.5, aria=False)
        .encode(
            x=alt.X("score:Q", title="score"),
            y=alt.Y("density:Q", title=None, axis=None),
            color=_group_colour(groups, alt.Legend(title="group")),
            strokeDash=alt.StrokeDash(
                "pairs:N",
                title="pairs",
                scale=alt.Scale(domain=["genuine", "impostor"], range=[[1, 0], [4, 2]]),
            ),
        )
    )
    rule = (
        alt.Chart(pd.DataFrame({"here": [0]}))
        .transform_calculate(score="at")
        .mark_rule(strokeWidth=2, aria=False)
        .encode(x="score:Q")
    )
    return alt.layer(lines, rule).properties(width=_PANEL, height=110)


def _rate_panel(
    here: alt.Chart, groups: list[str], column: str, title: str, n: str, scale: alt.Scale
) -> alt.LayerChart:
    """One rate of every group at the slider's threshold, with Wilson's interval for n pairs."""
    p, z2 = f"datum.{column}", _Z**2
    half = f"{_Z} * sqrt({p} * (1 - {p}) / {n} + {z2} / (4 * {n} * {n}))"
    base = here.transform_calculate(
        low=f"({p} + {z2} / (2 * {n}) - {half}) / (1 + {z2} / {n})",
        high=f"({p} + {z2} / (2 * {n}) + {half}) / (1 + {z2} / {n})",
    ).encode(
        y=alt.Y("group:N", title=None, sort=groups),
        color=_group_colour(groups),
    )
    ticks = [1e-4, 1e-3, 1e-2, 1e-1, 1] if column != "accuracy" else [0.7, 0.8, 0.9, 0.95, 1]
    x = alt.X(f"{column}:Q", title=title, scale=scale, axis=alt.Axis(format=".3~%", values=ticks))
    tooltip = ["group:N", *(alt.Tooltip(f"{c}:Q", format=".3~%") for c in (column, "low", "high"))]
    return alt.layer(
        base.mark_rule(strokeWidth=2, aria=False).encode(x=_field(x, "low"), x2="high:Q"),
        base.mark_point(filled=True, size=50, opacity=1, aria=False).encode(x=x, tooltip=tooltip),
    ).properties(width=_PANEL, height=alt.Step(14))


def _std_panel(here: alt.Chart, groups: int) -> alt.LayerChart:
    """STD of the accuracies over what equal groups of the slider's size would show."""
    low, high = (float(np.sqrt(q / groups)) for q in stats.chi2.ppf([0.025, 0.975], groups - 1))
    base = here.transform_aggregate(
        std="stdevp(accuracy)", mean="mean(accuracy)", least="min(accuracy)", most="max(accuracy)"
    ).transform_calculate(
        points="100 * datum.std",
        noise="100 * sqrt(datum.mean * (1 - datum.mean) / (2 * size))",
        null_low=f"datum.noise * {low}",
        null_high=f"datum.noise * {high}",
        said="'STD ' + format(datum.points, '.2f') + ', SER ' "
        "+ format((1 - datum.least) / (1 - datum.most), '.2f')",
    )
    scale = alt.Scale(type="sqrt", domain=[0, 10], clamp=True)
    x = alt.X(
        "points:Q",
        title="STD of accuracy (points); grey: 95 % of what equal groups would show",
        scale=scale,
        axis=alt.Axis(values=[0, 0.1, 0.5, 1, 2, 4, 8], format="~g"),
    )
    band = base.mark_rule(color=CHANCE_COLOUR, strokeWidth=_BAR, aria=False)
    return alt.layer(
        band.encode(x=_field(x, "null_low"), x2="null_high:Q"),
        base.mark_point(filled=True, size=60, color="black", opacity=1, aria=False).encode(x=x),
        base.mark_text(align="left", dx=8, aria=False).encode(x=x, text="said:N"),
    ).properties(width=_PANEL, height=24)


def power_curves(table: pd.DataFrame, *, source: str, wanted: float = 0.8) -> alt.LayerChart:
    """Draw how probably a test of given sizes finds a true difference between two groups.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a point: `series` (the data set and its sizes), `gap` (true difference, fraction
        above 0), `power` (0 to 1).
    source : str
        Level of the test and assumed rates, for the subtitle.
    wanted : float
        The power marked by a dashed line.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("power_curves", table, "series", "gap", "power")
    order = list(dict.fromkeys(table["series"]))
    gap = alt.Scale(type="log", nice=False)
    percent = alt.Axis(format=".3~%")
    lines = (
        alt.Chart(table)
        .mark_line(strokeWidth=2, aria=False)
        .encode(
            x=alt.X("gap:Q", title="true difference between two groups", scale=gap, axis=_ticks()),
            y=alt.Y("power:Q", title="chance to find it", axis=percent),
            color=charts.group_colour("series", order, legend=_below()),
            strokeDash=alt.StrokeDash("series:N", sort=order, legend=None),
            tooltip=[
                "series:N",
                alt.Tooltip("gap:Q", format=".3~%"),
                alt.Tooltip("power:Q", format=".3~%"),
            ],
        )
    )
    line = (
        alt.Chart()
        .mark_rule(color=charts.OTHER_COLOUR, strokeDash=[4, 3], aria=False)
        .encode(y=alt.datum(wanted))
    )
    reached = table[table["power"] >= wanted].groupby("series", sort=False)["gap"].min()
    said = "; ".join(
        f"{name}: from {100 * reached[name]:.3g} %" if name in reached else f"{name}: not reached"
        for name in order
    )
    return charts.finish(
        alt.layer(line, lines).properties(width=_PANEL + 100, height=260),
        "How large a difference can each test find?",
        source,
        f"Power against the true difference, on a log axis; {100 * wanted:g} % reached: {said}.",
        [f"dashed: found {100 * wanted:g} % of the time"],
    )


def detection(table: pd.DataFrame, *, source: str) -> alt.LayerChart:
    """Draw how often a true difference was found, beside how often it should have been.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a size of test: `n` (pictures a group, above 0), `found`, `low` and `high` (share
        of tests that found it, with its interval) and `power` (the share predicted), 0 to 1.
    source : str
        Data set, seed and profile, for the subtitle.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("detection", table, "n", "found", "low", "high", "power")
    base = alt.Chart(table).encode(
        x=alt.X(
            "n:Q",
            title="test pictures in each group",
            scale=alt.Scale(type="log", nice=False, padding=20),
            axis=alt.Axis(values=sorted(table["n"].tolist())),
        )
    )
    share = alt.Axis(format=".3~%")
    line = base.mark_line(color=charts.OTHER_COLOUR, strokeDash=[4, 3], aria=False).encode(
        y=alt.Y("power:Q", title="share of tests", axis=share, scale=alt.Scale(domain=[0, 1]))
    )
    colour = charts.GROUP_COLOURS[0]
    bars = base.mark_rule(color=colour, strokeWidth=2, aria=False).encode(y="low:Q", y2="high:Q")
    points = base.mark_point(filled=True, color=colour, size=70, opacity=1, aria=False).encode(
        y="found:Q",
        tooltip=[
            alt.Tooltip("n:Q", title="pictures a group"),
            *(alt.Tooltip(f"{c}:Q", format=".0%") for c in ("found", "low", "high", "power")),
        ],
    )
    said = "; ".join(f"{r.n} pictures: {r.found:.0%} ({r.power:.0%})" for r in table.itertuples())
    return charts.finish(
        alt.layer(line, bars, points).properties(width=_PANEL + 60, height=240),
        "How often the planted gap is found",
        source,
        f"Share of tests that found the gap, and in brackets the share predicted, against the "
        f"number of test pictures in each group: {said}.",
        ["points: found; dashed: predicted from the gap, the accuracy and the design effect"],
    )


def null_curves(table: pd.DataFrame, *, source: str) -> alt.FacetChart:
    """Draw what a metric shows when all groups are equal, against their common accuracy.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a point: `series` (size of the test), `metric`, `accuracy` (0 to 1), `low`,
        `median`, `high` (the null band in the metric's own unit).
    source : str
        Number of groups and of draws, for the subtitle.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("null_curves", table, "series", "metric", "accuracy", "low", "median", "high")
    order, metrics = list(dict.fromkeys(table["series"])), list(dict.fromkeys(table["metric"]))
    picked = alt.selection_point(fields=["series"], bind="legend")
    base = alt.Chart().encode(
        x=alt.X(
            "accuracy:Q",
            title="accuracy of every group",
            scale=alt.Scale(zero=False, nice=False),
            axis=alt.Axis(format=".3~%"),
        ),
        color=charts.group_colour("series", order, legend=_below()),
    )
    y = alt.Y("low:Q", title=None, scale=_FREE)
    layers = [
        base.mark_area(aria=False).encode(
            y=y, y2="high:Q", opacity=alt.condition(picked, alt.value(0.3), alt.value(0.04))
        ),
        base.mark_line(strokeWidth=2, aria=False).encode(
            y="median:Q", opacity=alt.condition(picked, alt.value(1), alt.value(0.1))
        ),
        base.mark_point(size=60, aria=False).encode(
            y="median:Q",
            opacity=alt.value(0),
            tooltip=[
                "series:N",
                "metric:N",
                alt.Tooltip("accuracy:Q", format=".4~%"),
                *(alt.Tooltip(f"{c}:Q", format=".3~f") for c in ("low", "median", "high")),
            ],
        ),
    ]
    panel = alt.layer(*layers, data=table).properties(width=_PANEL + 60, height=170)
    ends = table[table["accuracy"].isin([table["accuracy"].min(), table["accuracy"].max()])]
    said = "; ".join(
        f"{r['metric']}, {r['series']}, accuracy {100 * r['accuracy']:.4g} %: {r['low']:.3g} to "
        f"{r['high']:.3g}"
        for r in ends.to_dict("records")
    )
    chart = panel.facet(row=charts.rows("metric", metrics)).resolve_scale(y="independent")
    return charts.finish(
        chart.add_params(picked),
        "What equal groups show by chance",
        source,
        f"Null bands of {charts.listed(metrics)} against accuracy, by size of the test. {said}.",
        ["area: 95 % of tests of equal groups, line: the median test"],
    )


def rank_agreement(table: pd.DataFrame, *, source: str, title: str) -> alt.LayerChart:
    """Draw how alike metrics order the same systems: rank correlations, written into the squares.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a pair of metrics: `first`, `second`, `correlation` (-1 to 1; 1 means that both
        put the systems in the same order from fairest to least fair).
    source, title : str
        Which systems, for the subtitle, and what stands above it.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("rank_agreement", table, "first", "second", "correlation")
    columns, lines = (list(dict.fromkeys(table[c])) for c in ("second", "first"))
    base = alt.Chart(table).encode(
        x=alt.X("second:N", title=None, sort=columns, axis=alt.Axis(labelAngle=-40, orient="top")),
        y=alt.Y("first:N", title=None, sort=lines),
    )
    squares = base.mark_rect(aria=False).encode(
        color=alt.Color(
            "correlation:Q",
            title="rank correlation",
            scale=alt.Scale(scheme="blueorange", domain=[-1, 1], reverse=True),
            legend=alt.Legend(format=".1f"),
        ),
        tooltip=["first:N", "second:N", alt.Tooltip("correlation:Q", format=".2f")],
    )
    text = base.mark_text(fontSize=10, aria=False).encode(
        text=alt.Text("correlation:Q", format=".2f"),
        color=alt.condition("abs(datum.correlation) > 0.7", alt.value("white"), alt.value("black")),
    )
    apart = table[table["first"] != table["second"]].dropna(subset="correlation")
    low, high = apart["correlation"].min(), apart["correlation"].max()
    least = apart.loc[apart["correlation"].idxmin()]
    return charts.finish(
        alt.layer(squares, text).properties(width=alt.Step(38), height=alt.Step(26)),
        title,
        source,
        f"Heat map of rank correlations between {charts.listed(lines)}. Between different metrics "
        f"they reach from {low:.2f} ({least['first']} and {least['second']}) to {high:.2f}.",
    )


def coverage(table: pd.DataFrame, *, source: str) -> alt.FacetChart:
    """Draw how often intervals held the truth in simulated studies, against the 93 to 97 % wanted.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a method and setting: `method`, `setting`, `shows` ("holds" or another word, drawn
        in another colour), `coverage`, `low` and `high` (its interval, 0 to 1).
    source : str
        How many studies, and the seed, for the subtitle.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("coverage", table, "method", "setting", "shows", "coverage", "low", "high")
    settings, methods = (list(dict.fromkeys(table[c])) for c in ("setting", "method"))
    words = ["holds", *sorted(set(table["shows"]) - {"holds"})]
    colour = charts.group_colour("shows", words, legend=alt.Legend(title=None, orient="bottom"))
    axis = alt.Axis(format=".3~%", tickCount=6)
    x = alt.X("coverage:Q", title="share of intervals that hold the truth", scale=_FREE, axis=axis)
    base = alt.Chart().encode(
        y=alt.Y("method:N", title=None, sort=methods, axis=alt.Axis(labelLimit=300, minExtent=280)),
        color=colour,
    )
    layers = [
        alt.Chart()
        .mark_rect(color=CHANCE_COLOUR, aria=False)
        .encode(x=alt.datum(0.93), x2=alt.datum(0.97)),
        alt.Chart().mark_rule(color="white", strokeWidth=2, aria=False).encode(x=alt.datum(0.95)),
        base.mark_rule(strokeWidth=2, aria=False).encode(x=_field(x, "low"), x2="high:Q"),
        base.mark_point(filled=True, size=55, opacity=1, aria=False).encode(
            x=x,
            shape=alt.Shape(
                "shows:N", scale=alt.Scale(domain=words, range=_shapes(len(words))), legend=None
            ),
            tooltip=[
                "method:N",
                "setting:N",
                *(alt.Tooltip(f"{c}:Q", format=".3~%") for c in ("coverage", "low", "high")),
            ],
        ),
    ]
    panel = alt.layer(*layers, data=table).properties(width=_PANEL - 60, height=alt.Step(15))
    chart = panel.facet(row=charts.rows("setting", settings, anchor="end"), spacing=4)
    named = table.assign(value=table["coverage"])
    return charts.finish(
        chart.resolve_scale(y="independent"),
        "Do 95 % intervals hold the truth 95 % of the time?",
        source,
        f"Coverage with its own interval. {charts.spoken(named, 'setting', 'method', 'shows')}",
        ["grey: 93 to 97 %, white line: 95 %"],
    )


def _shapes(n: int) -> list[str]:
    """Marks that tell words apart without their colour."""
    return ["circle", "diamond", "square", "triangle-up"][:n]


def _below() -> alt.Legend:
    """A legend under the chart, for long names."""
    return alt.Legend(title=None, orient="bottom", columns=2, labelLimit=330)


def _ticks() -> alt.Axis:
    """A log axis of differences, labelled in per cent where people would look them up."""
    return alt.Axis(format=".3~%", values=[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5])


_FREE = alt.Scale(zero=False, nice=True)


def _field(x: alt.X, column: str) -> alt.X:
    """The same axis for another column."""
    x = x.copy()
    x.shorthand = f"{column}:Q"
    return x


def _spans(mark: alt.Chart, low: str, high: str, x: alt.X) -> list[alt.Chart]:
    """Spans from `low` to `high`; one without a finite upper end runs to the panel's edge."""
    start, ends = _field(x, low), f"isValid(datum.{high})"
    return [
        mark.transform_filter(f"isValid(datum.{low}) && {ends}").encode(x=start, x2=f"{high}:Q"),
        mark.transform_filter(f"isValid(datum.{low}) && !{ends}").encode(
            x=start, x2=alt.value(_PANEL)
        ),
    ]


def _defined(table: pd.DataFrame, *keys: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows whose value can be drawn, and a note that names the others."""
    table = table.replace([np.inf, -np.inf], np.nan)
    kept = table["value"].notna()
    names = [" ".join(map(str, row)) for row in table.loc[~kept, list(keys)].to_numpy()]
    notes = [f"not defined, so not drawn: {charts.listed(names)}"] if names else []
    return table[kept], notes


def _group_rows(table: pd.DataFrame, groups: list[str], named: bool) -> tuple[alt.Chart, alt.Step]:
    """Where the groups' marks stand: on rows of their own, or side by side within their series."""
    if named:
        y = alt.Y("group:N", title=None, sort=groups, axis=_names_axis(groups))
        return alt.Chart().encode(y=y), _step("position", _BAR + 2)
    base = alt.Chart().encode(y=_series_axis(table), yOffset=alt.YOffset("group:N", sort=groups))
    return base, _step("offset", _BAR)


def _group_colour(groups: list[str], legend: alt.Legend | None = None):
    """A colour a group; one for all where the palette would repeat and names must tell."""
    if len(groups) > len(charts.GROUP_COLOURS):
        return alt.value(charts.GROUP_COLOURS[0])
    return charts.group_colour("group", groups, legend=legend)


def _series_axis(table: pd.DataFrame) -> alt.Y:
    """One row a series, in the table's order, with room for long names."""
    order = list(dict.fromkeys(table["series"]))
    return alt.Y("series:N", title=None, sort=order, axis=_names_axis(order))


def _names_axis(names: list[str]) -> alt.Axis:
    """A vertical axis as wide as its longest name, since facets cut what sticks out."""
    widest = 7 * max(map(len, map(str, names)), default=0)
    return alt.Axis(labelLimit=230, minExtent=min(max(110, widest), 230))


def _step(per: str, pixels: int) -> alt.Step:
    """A panel height of so many pixels a row ("position") or a group in a row ("offset")."""
    return alt.Step(pixels, **{"for": per})
