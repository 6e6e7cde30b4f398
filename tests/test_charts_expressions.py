"""Charts of expressions: what is drawn is what the table says, with its intervals."""

import json

import altair as alt
import pandas as pd
import pytest

from studylib import charts, charts_expressions, errors


@pytest.fixture(autouse=True)
def _own_look():
    """`enable` is global: put Altair's own theme and renderer back."""
    yield
    alt.theme.enable("default")
    alt.renderers.enable("default")


def _effects() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "variant": ["s50"] * 4,
            "expression": ["happy", "happy", "anger", "anger"],
            "group": ["A", "B"] * 2,
            "value": [-0.2, -0.01, 0.02, -1e-18],
            "low": [-0.3, -0.1, -0.05, -0.1],
            "high": [-0.1, 0.08, 0.09, 0.1],
            "n": [40] * 4,
            "resolved": [True, False, False, False],
        }
    )


def _bins() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "variant": ["fp32", "fp32", "s50"],
            "group": ["A", "B", "A"],
            "confidence": [0.95, 0.95, 0.85],
            "value": [0.8, 0.97, 0.7],
            "low": [0.7, 0.9, 0.5],
            "high": [0.9, 0.99, 0.8],
            "n": [300, 300, 20],
        }
    )


def test_class_effects_draws_every_change_with_its_interval():
    spec = charts_expressions.class_effects(_effects(), source="made up").to_dict()
    zero, bars, points = spec["spec"]["layer"]
    assert zero["encoding"]["x"] == {"datum": 0}
    assert (bars["encoding"]["x"]["field"], bars["encoding"]["x2"]["field"]) == ("low", "high")
    assert points["encoding"]["fill"]["condition"]["test"] == "datum.resolved"
    assert points["encoding"]["y"]["sort"] == ["happy", "anger"]
    (rows,) = spec["datasets"].values()
    assert [row["value"] for row in rows] == [-20, -1, 2, 0]  # points, without rounding's dust
    assert "s50 happy A: -20 % (-30 to -10 %)" in spec["description"]
    assert "s50 anger B: 0 %" in spec["description"]


def test_reliability_draws_bins_and_says_who_is_too_sure():
    spec = charts_expressions.reliability(_bins(), source="made up").to_dict()
    perfect, bars, points = spec["spec"]["layer"]
    assert [perfect["encoding"][end]["datum"] for end in ("x", "y", "x2", "y2")] == [0, 0, 1, 1]
    assert (bars["encoding"]["y"]["field"], bars["encoding"]["y2"]["field"]) == ("low", "high")
    assert points["encoding"]["x"]["field"] == "confidence"
    assert spec["facet"]["row"]["sort"] == ["fp32", "s50"]
    assert spec["facet"]["column"]["sort"] == ["A", "B"]
    assert "fp32 A: accuracy below confidence by 15 points" in spec["description"]
    assert "fp32 B: accuracy above confidence by 2 points" in spec["description"]


BOTH = {charts_expressions.class_effects: _effects, charts_expressions.reliability: _bins}


@pytest.mark.parametrize(("chart", "table"), BOTH.items())
def test_tables_that_cannot_be_drawn_are_refused(chart, table):
    with pytest.raises(errors.ParameterError) as caught:
        chart(table().drop(columns="low"), source="made up")
    assert str(caught.value) == errors.CHART_COLUMNS.format(chart=chart.__name__, missing="low")
    with pytest.raises(errors.ParameterError):
        chart(table().head(0), source="made up")


@pytest.mark.parametrize(("chart", "table"), BOTH.items())
def test_charts_render_without_a_network(chart, table):
    charts.enable()
    drawn = chart(table(), source="made up")
    stored = charts.render(json.loads(drawn.to_json()))
    assert stored["text/html"].count("<img") == 1
    assert "made up" in stored["text/plain"]


def test_densities_have_a_panel_a_quantity_and_say_their_peaks():
    table = pd.DataFrame(
        {
            "quantity": ["brow"] * 4 + ["jaw"] * 4,
            "group": ["A", "A", "B", "B"] * 2,
            "value": [0.1, 0.2] * 4,
            "density": [1.0, 2.0, 4.0, 3.0, 1.0, 2.0, 2.0, 5.0],
        }
    )
    spec = charts_expressions.densities(table, source="made up", title="Spread").to_dict()
    assert spec["facet"]["row"]["sort"] == ["brow", "jaw"]
    assert spec["title"]["subtitle"] == ["made up"]
    line = spec["spec"]["layer"][0]["encoding"]
    assert line["color"]["scale"]["domain"] == ["A", "B"] and line["y"]["field"] == "density"
    assert "brow, A: 0.2; brow, B: 0.1; jaw, A: 0.2; jaw, B: 0.2." in spec["description"]
    with pytest.raises(errors.ParameterError, match="density"):
        charts_expressions.densities(table.drop(columns="density"), source="", title="")
