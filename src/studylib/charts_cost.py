"""Charts of what a study costs: how something grows, measured beside computed."""

from __future__ import annotations

import pandas as pd

from studylib import charts
from studylib.charts import alt

MEASURED, COMPUTED = "measured", "computed"


def growth(
    table: pd.DataFrame,
    *,
    source: str,
    title: str,
    x: str,
    y: str,
    notes: tuple[str, ...] = ("points: measured; lines: computed",),
) -> alt.LayerChart:
    """Draw how a cost grows, on two log axes: points where it was measured, a line where computed.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a point: series, kind (`MEASURED` or `COMPUTED`), x and y (both above 0).
    source : str
        Machine and setting, for the subtitle.
    title, x, y : str
        The chart's own title, and those of its axes.
    notes : tuple of str
        More lines for the subtitle.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("growth", table, "series", "kind", "x", "y")
    order = list(dict.fromkeys(table["series"]))
    log = alt.Scale(type="log", nice=False, padding=15)
    ticks = alt.Axis(format="~s", tickCount=6)
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=x, scale=log, axis=ticks),
        y=alt.Y("y:Q", title=y, scale=log, axis=ticks),
        color=charts.group_colour("series", order, legend=alt.Legend(title=None, orient="bottom")),
    )
    line = base.mark_line(strokeWidth=1.5, aria=False).transform_filter(
        f"datum.kind == '{COMPUTED}'"
    )
    points = (
        base.mark_point(size=60, filled=True, opacity=1, aria=False)
        .encode(
            shape=alt.Shape("series:N", sort=order, legend=None),
            tooltip=[
                "series:N",
                alt.Tooltip("x:Q", format=".3~s"),
                alt.Tooltip("y:Q", format=".3~s"),
            ],
        )
        .transform_filter(f"datum.kind == '{MEASURED}'")
    )
    said = "; ".join(
        f"{row.series}, {row.kind}: {row.y:.3g} at {row.x:.3g}" for row in table.itertuples()
    )
    return charts.finish(
        alt.layer(line, points, data=table).properties(width=charts.WIDTH - 100, height=260),
        title,
        source,
        f"{y[0].upper()}{y[1:]} against {x}, on log axes: {said}.",
        notes,
    )


def beside(table: pd.DataFrame, series, x: str, measured: str, computed: str) -> pd.DataFrame:
    """Lay out a table for `growth`: each row as a measured point and as a computed one.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a setting.
    series : str or pandas.Series
        The name of the series, or one for each row.
    x, measured, computed : str
        Its columns.
    """
    kinds = {MEASURED: measured, COMPUTED: computed}
    parts = [table.assign(series=series, kind=k, x=table[x], y=table[y]) for k, y in kinds.items()]
    return pd.concat(parts, ignore_index=True)[["series", "kind", "x", "y"]]
