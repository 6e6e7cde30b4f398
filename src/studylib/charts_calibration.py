"""Charts of calibration sets: what each composition does to each group."""

from __future__ import annotations

import pandas as pd

from studylib import charts
from studylib.charts import alt


def response_matrix(
    table: pd.DataFrame, *, source: str, title: str, reference: str
) -> alt.FacetChart:
    """Draw the effect of each composition (row) on each group (column), written into the squares.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an effect: metric (a panel each), composition, group, value (a fraction, drawn in
        points), resolved (bool: after correction).
    source, title : str
        Data set, seed and profile, for the subtitle, and what stands above it.
    reference : str
        What the effects are differences from.

    Raises
    ------
    ParameterError
        As `charts.check`.
    """
    charts.check("response_matrix", table, "metric", "composition", "group", "value", "resolved")
    metrics, lines, columns = (
        list(dict.fromkeys(table[c])) for c in ("metric", "composition", "group")
    )
    points = (100 * table["value"]).round(7) + 0.0  # no -0.0
    largest = points.abs().groupby(table["metric"]).transform("max")
    said = points.map("{:+.2f}".format) + table["resolved"].map({True: "*", False: ""})
    # colours reach to each panel's largest effect, since metrics differ in size
    shown = table.assign(points=points, said=said, shade=(points / largest).fillna(0.0))
    base = alt.Chart().encode(
        x=alt.X("group:N", title=None, sort=columns, axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("composition:N", title=None, sort=lines, axis=alt.Axis(minExtent=90)),
    )
    squares = base.mark_rect(aria=False).encode(
        color=alt.Color(
            "shade:Q",
            scale=alt.Scale(scheme="blueorange", domain=[-1, 1], reverse=True),
            legend=None,
        ),
        tooltip=["metric:N", "composition:N", "group:N", alt.Tooltip("points:Q", format="+.3f")],
    )
    text = base.mark_text(fontSize=11, aria=False).encode(
        text="said:N",
        color=alt.condition("abs(datum.shade) > 0.7", alt.value("white"), alt.value("black")),
    )
    panel = alt.layer(squares, text, data=shown).properties(width=alt.Step(84), height=alt.Step(24))
    cells = shown.to_dict("records")
    return charts.finish(
        panel.facet(row=charts.rows("metric", metrics), spacing=16),
        title,
        source,
        f"Effects in points, less {reference}: "
        + "; ".join(f"{r['metric']}, {r['composition']}, {r['group']} {r['said']}" for r in cells)
        + ".",
        [
            f"in points, less {reference}; blue is higher, orange lower",
            "*: resolved at 5 % after Holm's correction",
        ],
    )
