"""Charts: what is stored in a notebook, and that every rate is drawn with its interval."""

import itertools
import json
import re
import urllib.parse

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from studylib import charts, errors

SOURCE = "made up, seed 0, profile smoke"
EMBEDDED = re.compile(
    r'<div class="altair-chart"><img alt="([^"]+)" src="data:image/svg\+xml,([^"]+)">'
    r'<script type="application/vnd\.vegalite\+json">(.+)</script></div>',
    re.DOTALL,
)


@pytest.fixture(autouse=True)
def _own_look():
    """`enable` is global: put Altair's own theme and renderer back."""
    yield
    alt.theme.enable("default")
    alt.renderers.enable("default")


def _histogram():
    edges = np.linspace(-0.2, 1.0, 7)
    rows = [
        {"variant": v, "genuine": g, "low": a, "high": b, "density": 0.5 + g}
        for v in ("w4a4", "fp32")
        for g in (True, False)
        for a, b in itertools.pairwise(edges)
    ]
    return pd.DataFrame(rows)


def _curve():
    fmr = [0.0, 0.001, 0.01, 0.1, 1.0]
    fp32 = pd.DataFrame({"variant": "fp32", "fmr": fmr, "fnmr": [0.5, 0.2, 0.1, 0.05, 0.0]})
    perfect = pd.DataFrame({"variant": "w8a8", "fmr": fmr, "fnmr": 0.0})
    return pd.concat([fp32, perfect])


def _rates():
    return pd.DataFrame(
        {
            "variant": ["w4", "fp32", "w8a8", "w8"],
            "metric": "EER",
            "value": [0.2, 0.01, 0.02, 0.015],
            "low": [0.1, 0.005, 0.01, 0.01],
            "high": [0.3, 0.02, 0.03, 0.025],
            "size_mb": [5.0, 38.7, 9.8, 9.8],
        }
    )


def _groups():
    return pd.DataFrame(
        {
            "group": ["black", "white"],
            "variant": "fp32",
            "value": [0.0, 0.013],
            "low": [0.0, 0.005],
            "high": [0.01, 0.02],
            "n_subjects": [13, 69],
            "n_pairs": [312, 9384],
        }
    )


def _stored(chart):
    """The alternative text, the SVG and the specification out of a chart's output."""
    alt_text, svg, spec = EMBEDDED.fullmatch(charts.render(chart.to_dict())["text/html"]).groups()
    return alt_text, urllib.parse.unquote(svg), json.loads(spec)


def _layers(spec):
    return {layer["mark"]["type"]: layer for layer in spec["spec"]["layer"]}


def test_a_stored_chart_has_a_picture_a_specification_and_an_alternative_text():
    charts.enable()
    chart = alt.Chart(pd.DataFrame({"x": ["</script>"]})).mark_point().encode(x="x:N")
    output = chart.properties(description='dots & "quotes"')._repr_mimebundle_()
    assert sorted(output) == ["text/html", "text/plain"]
    assert output["text/plain"] == 'dots & "quotes"'
    assert 'alt="dots &amp; &quot;quotes&quot;"' in output["text/html"]
    _, svg, spec = EMBEDDED.fullmatch(output["text/html"]).groups()
    assert output["text/html"].count("</script>") == 1
    svg = urllib.parse.unquote(svg)
    assert svg.startswith("<svg") and svg.endswith("</svg>")
    spec = json.loads(spec)
    assert spec["description"] == 'dots & "quotes"'
    assert spec["config"]["font"].startswith("Arial")


def test_a_chart_without_alternative_text_is_refused():
    chart = alt.Chart(pd.DataFrame({"x": [1]})).mark_point()
    with pytest.raises(errors.ParameterError) as refused:
        charts.render(chart.to_dict())
    assert str(refused.value) == errors.NO_ALT_TEXT


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (charts.score_distributions, _histogram()),
        (charts.det_curves, _curve()),
        (charts.rate_intervals, _rates()),
        (charts.group_rates, _groups()),
    ],
)
def test_every_chart_renders_names_its_source_and_checks_its_table(draw, table):
    alt_text, svg, spec = _stored(draw(table, source=SOURCE))
    assert SOURCE in alt_text and SOURCE in svg
    assert spec["title"]["subtitle"][0] == SOURCE
    assert svg.count("<path") > 5
    with pytest.raises(errors.ParameterError, match=f"{draw.__name__}.*missing: variant"):
        draw(table.drop(columns="variant"), source=SOURCE)
    for wrong in (table[:0], pd.concat([table] * 5000)):
        with pytest.raises(errors.ParameterError, match="between 1 and 5000 rows"):
            draw(wrong, source=SOURCE)


@pytest.mark.parametrize(
    ("chart", "column"),
    [
        (charts.score_distributions(_histogram(), source=SOURCE), "pairs"),
        (charts.det_curves(_curve(), source=SOURCE), "variant"),
        (charts.rate_intervals(_rates(), source=SOURCE), "variant"),
        (charts.rate_intervals(_rates().assign(series="real"), source=SOURCE), "series"),
    ],
)
def test_legends_answer_clicks(chart, column):
    vega = vl_convert.vegalite_to_vega(chart.to_dict(), vl_version=charts.VEGALITE)
    symbols = vega["legends"][0]["encode"]["symbols"]
    assert (symbols["name"], symbols["interactive"]) == (f"{column}_legend_symbols", True)


def test_variants_are_ordered_from_fine_to_coarse():
    given = ["w4a4", "s50", "w6a6", "fp32", "s50+w8", "w8a8", "w8"]
    wanted = ["fp32", "s50+w8", "w8", "w8a8", "w6a6", "w4a4", "s50"]
    assert charts.sort_variants(given) == wanted


def test_colours_belong_to_precisions_not_to_places():
    few = charts.rate_intervals(_rates(), source=SOURCE).to_dict()
    colour = _layers(few)["rule"]["encoding"]["color"]
    assert colour["scale"]["domain"] == ["fp32", "w8", "w8a8", "w4"]
    eight = charts.PRECISION_COLOURS[8]
    assert colour["scale"]["range"] == ["#0d0887", eight, eight, "#ed7953"]
    shapes = _layers(few)["point"]["encoding"]["shape"]["scale"]["range"]
    assert shapes == ["circle", "diamond", "circle", "diamond"]


def test_distributions_keep_the_order_of_variants():
    spec = charts.score_distributions(_histogram(), source=SOURCE).to_dict()
    assert spec["facet"]["row"]["sort"] == ["fp32", "w4a4"]
    assert spec["spec"]["layer"][0]["encoding"]["x2"] == {"field": "high"}


def test_det_curves_leave_out_what_log_axes_cannot_show_and_say_so():
    alt_text, _, spec = _stored(charts.det_curves(_curve(), source=SOURCE))
    assert spec["title"]["subtitle"][1].endswith("not drawn: w8a8")
    assert "not drawn: w8a8" in alt_text
    line = spec["layer"][1]
    assert line["encoding"]["x"]["scale"] == {"type": "log", "domain": [0.001, 1], "clamp": True}
    drawn = spec["datasets"][line.get("data", spec.get("data"))["name"]]
    assert [row["fmr"] for row in drawn] == [0.001, 0.01, 0.1]


def test_det_curves_of_faultless_variants_only():
    curve = _curve().query("variant == 'w8a8'")
    alt_text, _, _ = _stored(charts.det_curves(curve, source=SOURCE))
    assert "for nothing;" in alt_text


@pytest.mark.parametrize("against", ["size", "precision"])
def test_rates_are_drawn_with_their_intervals(against):
    alt_text, _, spec = _stored(charts.rate_intervals(_rates(), source=SOURCE, against=against))
    bar = _layers(spec)["rule"]["encoding"]
    assert (bar["y"]["field"], bar["y2"]["field"]) == ("low", "high")
    assert bar["x"]["field"] == {"size": "size_mb", "precision": "variant"}[against]
    assert _layers(spec)["point"]["encoding"]["y"]["field"] == "value"
    assert "EER w8a8: 2 % (1 to 3 %)" in alt_text


def test_rates_of_several_series_stand_side_by_side():
    rates = pd.concat([_rates().assign(series=s) for s in ("real", "noise")])
    chart = charts.rate_intervals(rates, source=SOURCE, against="precision")
    alt_text, _, spec = _stored(chart)
    bar = _layers(spec)["rule"]["encoding"]
    assert bar["xOffset"]["field"] == bar["color"]["field"] == "series"
    assert bar["color"]["scale"]["range"] == list(charts.GROUP_COLOURS[:2])
    assert "EER noise w8a8: 2 % (1 to 3 %)" in alt_text


def test_an_unknown_axis_is_refused():
    with pytest.raises(errors.ParameterError, match=r"'speed'\. Choose one of: size, precision"):
        charts.rate_intervals(_rates(), source=SOURCE, against="speed")


def test_group_rates_show_sizes_intervals_and_zeros():
    alt_text, svg, spec = _stored(charts.group_rates(_groups(), source=SOURCE, target=0.001))
    assert "black (13 people, 312 pairs)" in svg
    target, bars, points = spec["spec"]["layer"]
    assert target["encoding"]["x"]["datum"] == 0.001
    assert (bars["encoding"]["x"]["field"], bars["encoding"]["x2"]["field"]) == ("low", "high")
    domain = {"type": "log", "domain": [0.001, 0.1], "clamp": True}
    assert bars["encoding"]["x"]["scale"] == points["encoding"]["x"]["scale"] == domain
    assert "hollow" in spec["title"]["subtitle"][1]
    assert "fp32 black (13 people, 312 pairs): 0 % (0 to 1 %)" in alt_text


def test_group_rates_without_any_error():
    rates = _groups().assign(value=0.0, low=0.0)
    _, _, spec = _stored(charts.group_rates(rates, source=SOURCE))
    assert spec["spec"]["layer"][0]["encoding"]["x"]["scale"]["domain"] == [0.01, 0.1]
