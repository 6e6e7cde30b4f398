"""Charts of trade-offs: what is drawn is what the table says, with its intervals."""

import json

import altair as alt
import pandas as pd
import pytest

from studylib import charts, charts_tradeoff, errors


@pytest.fixture(autouse=True)
def _own_look():
    """`enable` is global: put Altair's own theme and renderer back."""
    yield
    alt.theme.enable("default")
    alt.renderers.enable("default")


def _sizes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "group": ["female"] * 3 + ["male"] * 3,
            "setting": ["fp32", "s50", "c4+w8"] * 2,
            "method": ["baseline", "pruned", "clustered_and_quantised"] * 2,
            "size_mb": [16.0, 10.0, 1.0] * 2,
            "value": [0.7, 0.6, 0.4, 0.7, 0.72, 0.5],
            "low": [0.6, 0.5, 0.3, 0.6, 0.6, 0.4],
            "high": [0.8, 0.7, 0.5, 0.8, 0.8, 0.6],
            "front": [True, True, True, False, True, True],
        }
    )


def _gaps() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "panel": ["the gap", "the gap", "its change"],
            "setting": ["fp32", "s50", "s50"],
            "method": ["baseline", "pruned", "pruned"],
            "value": [0.024, 0.11, 0.09],
            "low": [-0.1, 0.0, -0.13],
            "high": [0.15, 0.2, 0.31],
            "inner_low": [-0.05, 0.02, -0.05],
            "inner_high": [0.1, 0.18, 0.23],
        }
    )


def _widths() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "layer": ["stem", "fc"] * 2,
            "share": [0.125, 0.875] * 2,
            "setting": ["mean 3", "mean 3", "worst 3", "worst 3"],
            "bits": [8, 2, 6, 3],
        }
    )


def _marks(spec: dict) -> list[str]:
    return [layer["mark"]["type"] for layer in spec["spec"]["layer"]]


def test_pareto_fronts_draws_every_setting_with_its_interval():
    spec = charts_tradeoff.pareto_fronts(_sizes(), source="made up").to_dict()
    assert _marks(spec) == ["line", "rule", "point"]
    line, bars, points = spec["spec"]["layer"]
    assert line["transform"] == [{"filter": "datum.front"}]
    assert (bars["encoding"]["y"]["field"], bars["encoding"]["y2"]["field"]) == ("low", "high")
    assert points["encoding"]["y"]["field"] == "value"
    (rows,) = spec["datasets"].values()
    assert len(rows) == 6
    assert {row["method"] for row in rows} == {"baseline", "pruned", "clustered, quantised"}


def test_pareto_fronts_says_the_front_and_every_value():
    text = charts_tradeoff.pareto_fronts(_sizes(), source="made up").to_dict()["description"]
    assert "female: c4+w8, s50, fp32; male: c4+w8, s50." in text
    assert "male s50: 72 % (60 to 80 %)" in text


def test_pareto_fronts_names_another_size_and_what_the_intervals_hold():
    said = {"axis": "packed (MB)", "notes": ("people only",)}
    spec = charts_tradeoff.pareto_fronts(_sizes(), source="made up", **said).to_dict()
    _, bars, points = spec["spec"]["layer"]
    assert bars["encoding"]["x"]["title"] == points["encoding"]["x"]["title"] == "packed (MB)"
    assert spec["title"]["subtitle"][2:] == ["people only"]


def test_layer_widths_writes_each_width_into_its_square():
    spec = charts_tradeoff.layer_widths(_widths(), source="made up").to_dict()
    squares, text = spec["layer"]
    assert (squares["mark"]["type"], text["mark"]["type"]) == ("rect", "text")
    assert squares["encoding"]["y"]["sort"] == ["stem (12.5%)", "fc (87.5%)"]  # not by name
    assert squares["encoding"]["x"]["sort"] == ["mean 3", "worst 3"]
    assert text["encoding"]["text"]["field"] == "bits"
    scale = squares["encoding"]["color"]["scale"]
    colours = dict(zip(scale["domain"], scale["range"], strict=True))
    assert colours == {b: charts.PRECISION_COLOURS[b] for b in (8, 7, 6, 5, 4, 3, 2)}
    (rows,) = spec["datasets"].values()
    assert [row["bits"] for row in rows] == [8, 2, 6, 3]
    assert "mean 3: stem 8, fc 2; worst 3: stem 6, fc 3." in spec["description"]


def test_gaps_has_the_line_of_no_difference_and_both_intervals():
    spec = charts_tradeoff.gaps(_gaps(), source="made up", notes=("thin: cautious",)).to_dict()
    assert _marks(spec) == ["rule", "rule", "rule", "point"]
    zero, outer, inner, _ = spec["spec"]["layer"]
    assert zero["encoding"]["x"] == {"datum": 0}
    assert (outer["encoding"]["x"]["field"], inner["encoding"]["x"]["field"]) == (
        "low",
        "inner_low",
    )
    (rows,) = spec["datasets"].values()
    assert rows[0]["value"] == pytest.approx(2.4)  # points
    assert "thin: cautious" in spec["title"]["subtitle"]
    assert "the gap s50: 11 % (0 to 20 %)" in spec["description"]


def test_gaps_reads_out_no_rounding_error():
    spec = charts_tradeoff.gaps(_gaps().assign(value=-1e-16), source="made up").to_dict()
    assert "its change s50: 0 %" in spec["description"]


def test_gaps_without_a_second_interval():
    table = _gaps().drop(columns=["inner_low", "inner_high"])
    assert _marks(charts_tradeoff.gaps(table, source="made up").to_dict()) == ["rule"] * 2 + [
        "point"
    ]


def test_methods_keep_their_colour_and_others_get_a_spare_one():
    table = _gaps().assign(method=["resnet100", "pruned", "pruned"])
    spec = charts_tradeoff.gaps(table, source="made up", legend="network").to_dict()
    colour = spec["spec"]["layer"][-1]["encoding"]["color"]
    assert colour["scale"]["domain"] == ["resnet100", "pruned"]
    assert colour["scale"]["range"] == [charts.GROUP_COLOURS[2], charts.GROUP_COLOURS[0]]
    assert colour["title"] == "network"


@pytest.mark.parametrize(
    ("chart", "table", "column"),
    [
        (charts_tradeoff.pareto_fronts, _sizes(), "low"),
        (charts_tradeoff.gaps, _gaps(), "low"),
        (charts_tradeoff.layer_widths, _widths(), "share"),
    ],
)
def test_tables_that_cannot_be_drawn_are_refused(chart, table, column):
    with pytest.raises(errors.ParameterError) as caught:
        chart(table.drop(columns=column), source="made up")
    said = errors.CHART_COLUMNS.format(chart=chart.__name__, missing=column)
    assert str(caught.value) == said
    with pytest.raises(errors.ParameterError):
        chart(table.head(0), source="made up")


@pytest.mark.parametrize(
    "chart",
    [
        charts_tradeoff.pareto_fronts(_sizes(), source="made up"),
        charts_tradeoff.gaps(_gaps(), source="made up"),
        charts_tradeoff.layer_widths(_widths(), source="made up"),
    ],
)
def test_charts_render_without_a_network(chart):
    charts.enable()
    stored = charts.render(json.loads(chart.to_json()))
    assert stored["text/html"].count("<img") == 1
