"""Charts of group rates and fairness metrics: what is drawn, and what the sliders compute."""

import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from studylib import charts, charts_fairness, errors
from studylib.metrics import fairness, intervals

SOURCE = "made up, seed 0"
LINE = re.compile(r'<line transform="translate\(([-\d.]+),([-\d.]+)\)" x2="([-\d.]+)"')


@pytest.fixture(autouse=True)
def _own_look():
    """`enable` is global: put Altair's own theme and renderer back."""
    yield
    alt.theme.enable("default")
    alt.renderers.enable("default")


def _rates():
    rows = [
        {"series": series, "group": group, "metric": metric, "value": 0.03, "n": 3000}
        for metric in ("FMR", "FNMR")
        for series in ("own", "global")
        for group in "ABCD"
    ]
    return pd.DataFrame(rows).assign(low=0.02, high=0.045)


def _panel():
    rows = [
        {"series": series, "metric": metric, "value": value, "low": value - 0.2}
        for metric in ("STD", "SER")
        for series, value in (("own", 1.0), ("global", 2.0))
    ]
    table = pd.DataFrame(rows).assign(null_low=0.5, null_median=0.9, null_high=1.5)
    return table.assign(high=table["value"] + 0.3)


def _curves():
    rows = [
        {"series": f"{n} pairs", "metric": metric, "accuracy": accuracy, "low": 0.1 * high}
        | {"median": 0.5 * high, "high": high}
        for metric in ("STD", "SER")
        for n, high in ((1000, 1.0), (6000, 0.4))
        for accuracy in (0.9, 0.95, 0.99)
    ]
    return pd.DataFrame(rows)


def _power():
    gap = np.geomspace(0.001, 0.1, 9)
    curves = (("large", np.minimum(gap * 50, 1)), ("small", np.minimum(gap * 5, 1)))
    return pd.concat(pd.DataFrame({"series": s, "gap": gap, "power": p}) for s, p in curves)


def _ranks():
    names = ("std", "gap", "ir")
    values = {frozenset(("std", "gap")): 0.98, frozenset(("std", "ir")): -0.25}
    rows = [
        (a, b, 1.0 if a == b else values.get(frozenset((a, b)), 0.3)) for a in names for b in names
    ]
    return pd.DataFrame(rows, columns=["first", "second", "correlation"])


def _covered():
    rows = [
        ("Wilson", "one rate", "holds", 0.951),
        ("pair bootstrap", "people recur", "fails by design", 0.62),
        ("people resampled", "people recur", "too wide by design", 0.99),
    ]
    table = pd.DataFrame(rows, columns=["method", "setting", "shows", "coverage"])
    return table.assign(low=table["coverage"] - 0.01, high=table["coverage"] + 0.01)


def _explorer_tables(groups="ABC"):
    worse = dict(zip("ABC", (0.10, 0.05, 0.05), strict=True))
    rates = [
        {"group": g, "threshold": t, "fmr": worse[g] * (1 - t), "fnmr": worse[g] * t}
        for t in (0.2, 0.3, 0.4)
        for g in groups
    ]
    densities = [
        {"group": g, "pairs": kind, "score": score, "density": 1.0 + score}
        for g in groups
        for kind in ("genuine", "impostor")
        for score in (0.0, 0.5, 1.0)
    ]
    return pd.DataFrame(rates), pd.DataFrame(densities)


def _explorer(rates, *, source=SOURCE, threshold=0.3, pairs=500):
    densities = _explorer_tables()[1]
    return charts_fairness.threshold_explorer(
        rates, densities, source=source, threshold=threshold, pairs=pairs
    )


def _group_intervals(table, *, source):
    return charts_fairness.group_intervals(table, source=source, metric_title="rate")


def _rank_agreement(table, *, source):
    return charts_fairness.rank_agreement(table, source=source, title="Same order?")


def _changed():
    rows = [
        (panel, setting, series, value, value - 2, value + 2, value - 1, value + 1, value > 2)
        for panel in ("STD, points", "SER")
        for setting, shift in (("w8a8", 0.0), ("w4a4", 3.0))
        for series, value in (("real", shift), ("noise", shift - 0.5))
    ]
    columns = ["panel", "setting", "series", "value", "low", "high", "inner_low", "inner_high"]
    return pd.DataFrame(rows, columns=[*columns, "resolved"])


def _changes(table, *, source):
    return charts_fairness.changes(table, source=source, title="After minus before")


CASES = [
    (_changes, _changed(), "inner_high", "changes"),
    (_group_intervals, _rates(), "low", "group_intervals"),
    (charts_fairness.panel_bands, _panel(), "null_high", "panel_bands"),
    (_explorer, _explorer_tables()[0], "fnmr", "threshold_explorer"),
    (charts_fairness.power_curves, _power(), "gap", "power_curves"),
    (charts_fairness.null_curves, _curves(), "median", "null_curves"),
    (_rank_agreement, _ranks(), "correlation", "rank_agreement"),
    (charts_fairness.coverage, _covered(), "shows", "coverage"),
]


def _svg(chart):
    return vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=charts.VEGALITE)


def _marks(svg, name):
    """The picture's part that holds the marks of one layer, such as concat_1_layer_0."""
    return re.search(rf'<g class="[^"]*\b{name}_marks"[^>]*>(.*?)</g>', svg, re.DOTALL)[1]


@pytest.mark.parametrize(("draw", "table", "column", "name"), CASES, ids=[c[3] for c in CASES])
def test_every_chart_renders_names_its_source_and_checks_its_table(draw, table, column, name):
    charts.enable()
    chart = draw(table, source=SOURCE)
    output = charts.render(chart.to_dict())
    assert SOURCE in output["text/plain"] and "%3Csvg" in output["text/html"]
    assert chart.to_dict()["title"]["subtitle"][0] == SOURCE
    with pytest.raises(errors.ParameterError) as refused:
        draw(table.drop(columns=column), source=SOURCE)
    assert str(refused.value) == errors.CHART_COLUMNS.format(chart=name, missing=column)
    for wrong in (table[:0], pd.concat([table] * 5000)):
        with pytest.raises(errors.ParameterError) as refused:
            draw(wrong, source=SOURCE)
        text = errors.CHART_ROWS.format(chart=name, rows=len(wrong), most=charts.MAX_ROWS)
        assert str(refused.value) == text


def test_group_rates_stand_side_by_side_with_intervals_and_sizes():
    chart = _group_intervals(_rates().assign(n=1234), source=SOURCE)
    svg, text = _svg(chart), chart.to_dict()["description"]
    assert svg.count(">1,234<") == 16
    assert "FMR own A: 3 % (2 to 4.5 %)" in text
    layers = chart.to_dict()["spec"]["layer"]
    assert [layer["mark"]["type"] for layer in layers] == ["rule", "rule", "point", "text"]
    assert layers[0]["encoding"]["yOffset"] == {
        "field": "group",
        "sort": list("ABCD"),
        "type": "nominal",
    }
    assert layers[0]["encoding"]["color"]["scale"]["range"] == list(charts.GROUP_COLOURS[:4])


def test_changes_are_filled_where_resolved_and_named_where_undefined():
    table = _changed()
    table.loc[0, "value"] = np.nan
    spec = _changes(table, source=SOURCE).to_dict()
    zero, *bars, points = spec["spec"]["layer"]
    assert zero["encoding"]["x"]["datum"] == 0
    assert [b["encoding"]["x"]["field"] for b in bars] == ["low", "inner_low"]
    assert [b["mark"]["strokeWidth"] for b in bars] == [1.2, 4]
    fill = points["encoding"]["fill"]
    assert fill["condition"]["test"] == "datum.resolved" and fill["value"] == "white"
    assert points["encoding"]["y"]["sort"] == ["w8a8", "w4a4"]
    assert "not defined, so not drawn: STD, points w8a8 real" in spec["title"]["subtitle"]
    assert "STD, points, w4a4, noise: +2.5 (+0.5 to +4.5)" in spec["description"]
    assert "STD, points, w8a8, real:" not in spec["description"]


def test_more_groups_than_colours_are_named_on_the_axis():
    groups = [f"group {i:02d}" for i in range(9)]
    rows = [
        {"series": series, "group": group, "metric": "FMR", "value": 0.03, "n": 3000}
        for series in ("own", "global")
        for group in groups
    ]
    chart = _group_intervals(pd.DataFrame(rows).assign(low=0.02, high=0.045), source=SOURCE)
    point = chart.to_dict()["spec"]["layer"][-2]["encoding"]
    assert (point["y"]["field"], point["y"]["sort"]) == ("group", groups)
    assert point["color"] == {"value": charts.GROUP_COLOURS[0]} and "yOffset" not in point
    svg = _svg(chart)
    assert ">FMR, own<" in svg and ">FMR, global<" in svg
    assert all(svg.count(f">{group}<") == 2 for group in groups)


def test_a_rate_without_items_is_named_not_drawn():
    rates = _rates()
    rates.loc[3, ["value", "low", "high"]] = np.nan
    chart = _group_intervals(rates, source=SOURCE)
    assert "not defined, so not drawn: FMR own D" in chart.to_dict()["title"]["subtitle"]
    assert _svg(chart).count(">3,000<") == 15


def test_rates_may_lie_over_what_equal_groups_would_show():
    chart = _group_intervals(_rates().assign(null_low=0.025, null_high=0.035), source=SOURCE)
    assert any("all equal would show" in note for note in chart.to_dict()["title"]["subtitle"])
    assert _svg(chart).count(charts_fairness.CHANCE_COLOUR) == 16


def test_the_title_of_group_rates_is_the_callers_or_made_from_the_axis():
    assert _group_intervals(_rates(), source=SOURCE).to_dict()["title"]["text"] == "Rate, by group"
    chart = charts_fairness.group_intervals(
        _rates(), source=SOURCE, metric_title="rate", title="Mine"
    )
    assert chart.to_dict()["title"]["text"] == "Mine"


@pytest.mark.parametrize(("value", "filled"), [(1.0, 0), (1.6, 1), (0.4, 1)])
def test_values_outside_their_null_band_are_filled(value, filled):
    table = _panel()[:1].assign(value=value)
    svg = _svg(charts_fairness.panel_bands(table, source=SOURCE))
    assert svg.count(f'fill="{charts_fairness.OUTSIDE_COLOUR}"') == filled
    assert svg.count(f'stroke="{charts_fairness.OUTSIDE_COLOUR}"') == 2 * filled  # rule and point


def test_a_panel_says_its_numbers_and_leaves_out_what_is_not_finite():
    table = _panel()
    table.loc[3, "value"] = np.inf
    table.loc[1, ["high", "null_high"]] = np.inf
    chart = charts_fairness.panel_bands(table, source=SOURCE)
    text = chart.to_dict()["description"]
    assert "not defined, so not drawn: SER global" in text
    assert "STD own: 1 (0.8 to 1.3), equal groups 0.5 to 1.5" in text
    # without a finite end both the interval and the band run to the panel's right edge
    width = chart.to_dict()["spec"]["width"]
    ends = [float(x) + float(x2) for x, _, x2 in LINE.findall(_svg(chart)) if float(x2) > 0]
    assert sum(abs(end - width) < 0.01 for end in ends) >= 2


def test_a_panel_has_rows_for_its_own_series_only():
    svg = _svg(charts_fairness.panel_bands(_panel()[:3], source=SOURCE))
    assert [svg.count(f">{name}</text>") for name in ("own", "global")] == [2, 1]


def test_a_panel_without_bands_or_intervals_still_draws_its_values():
    none = dict.fromkeys(charts_fairness.BOUNDS, np.nan)
    svg = _svg(charts_fairness.panel_bands(_panel().assign(**none), source=SOURCE))
    assert charts_fairness.CHANCE_COLOUR not in svg
    assert svg.count('fill="white"') >= 4


def test_a_number_without_a_band_is_hollow_and_none_is_spoken_of():
    table = _panel()
    table.loc[0, ["null_low", "null_median", "null_high"]] = np.nan
    chart = charts_fairness.panel_bands(table[:1], source=SOURCE)
    assert chart.to_dict()["description"].endswith("STD own: 1 (0.8 to 1.3).")
    assert f'fill="{charts_fairness.OUTSIDE_COLOUR}"' not in _svg(chart)


def test_the_explorer_takes_larger_tests_and_more_groups_than_colours():
    rates, densities = _explorer_tables()
    many = [rates[rates["group"] == "A"].assign(group=f"g{i}") for i in range(9)]
    chart = charts_fairness.threshold_explorer(
        pd.concat(many), densities, source=SOURCE, threshold=0.3, pairs=20_000
    )
    signals = vl_convert.vegalite_to_vega(chart.to_dict(), vl_version=charts.VEGALITE)["signals"]
    bind = next(s["bind"] for s in signals if s["name"] == "size")
    assert bind["max"] == 40_000
    assert "legend" not in str(chart.to_dict()["vconcat"][1]["layer"][0]["encoding"]["color"])


def test_the_sliders_are_part_of_the_chart():
    vega = vl_convert.vegalite_to_vega(
        _explorer(_explorer_tables()[0]).to_dict(), vl_version=charts.VEGALITE
    )
    signals = {s["name"]: s for s in vega["signals"]}
    bind = signals["at"]["bind"]
    assert (signals["at"]["value"], bind["min"], bind["max"], bind["step"]) == (0.3, 0.2, 0.4, 0.1)
    assert (signals["size"]["value"], signals["size"]["bind"]["input"]) == (500, "range")


@pytest.mark.parametrize(("threshold", "pairs"), [(0.2, 100), (0.3, 3000), (0.4, 10_000)])
def test_what_the_sliders_compute_in_the_browser_is_what_the_library_computes(threshold, pairs):
    rates = _explorer_tables()[0]
    svg = _svg(_explorer(rates, threshold=threshold, pairs=pairs))
    here = rates[rates["threshold"] == threshold]
    accuracy = 1 - (here["fmr"] + here["fnmr"]).to_numpy() / 2
    width = 380
    low, high = intervals.wilson(accuracy * 2 * pairs, 2 * pairs)
    drawn = [(float(x), float(x2)) for x, _, x2 in LINE.findall(_marks(svg, "concat_3_layer_0"))]
    wanted = [
        (width * (a - 0.7) / 0.3, width * (b - a) / 0.3) for a, b in zip(low, high, strict=True)
    ]
    np.testing.assert_allclose(drawn, wanted, atol=1e-6)
    fmr_low, fmr_high = intervals.wilson(here["fmr"].to_numpy() * pairs, pairs)
    drawn = np.array([m for m in LINE.findall(_marks(svg, "concat_1_layer_0"))], float)
    at = width * (np.log10(np.column_stack([fmr_low, fmr_high])) + 4) / 4
    np.testing.assert_allclose(
        drawn[:, [0, 2]], np.column_stack([at[:, 0], np.ptp(at, 1)]), atol=1e-6
    )
    said = f"STD {100 * fairness.std(accuracy):.2f}, SER {fairness.ser(accuracy):.2f}"
    assert f">{said}<" in svg


def test_the_grey_band_of_std_is_that_of_equal_groups():
    # simulated here, while the chart uses the chi-squared distribution
    pairs, rates = 3000, _explorer_tables()[0]
    svg = _svg(_explorer(rates, threshold=0.3, pairs=pairs))
    ((x, _, x2),) = LINE.findall(_marks(svg, "concat_4_layer_0"))
    drawn = np.array([float(x), float(x) + float(x2)])
    points = 10 * (drawn / 380) ** 2  # a square-root axis from 0 to 10
    common = 1 - (rates["fmr"] + rates["fnmr"])[rates["threshold"] == 0.3].mean() / 2
    draws = np.random.default_rng(0).binomial(2 * pairs, common, (40_000, 3)) / (2 * pairs)
    wanted = np.quantile(100 * draws.std(1), [0.025, 0.975])
    np.testing.assert_allclose(points, wanted, rtol=0.05)


def test_the_first_threshold_is_the_nearest_one_there_is():
    chart = _explorer(_explorer_tables()[0], threshold=0.29)
    assert "first shown: threshold 0.3, 500 pairs" in chart.to_dict()["title"]["subtitle"][1]
    assert "A: FMR 7 %, FNMR 3 %" in chart.to_dict()["description"]


def test_power_curves_say_from_where_a_difference_is_found():
    text = charts_fairness.power_curves(_power(), source=SOURCE).to_dict()["description"]
    assert "80 % reached: large: from 1.78 %; small: not reached." in text


def test_null_curves_are_areas_whose_legend_answers_clicks():
    chart = charts_fairness.null_curves(_curves(), source=SOURCE)
    vega = vl_convert.vegalite_to_vega(chart.to_dict(), vl_version=charts.VEGALITE)
    symbols = vega["legends"][0]["encode"]["symbols"]
    assert (symbols["name"], symbols["interactive"]) == ("series_legend_symbols", True)
    area = chart.to_dict()["spec"]["layer"][0]["encoding"]
    assert (area["y"]["field"], area["y2"]["field"]) == ("low", "high")
    assert "STD, 6000 pairs, accuracy 99 %: 0.04 to 0.4" in chart.to_dict()["description"]


def test_rank_agreement_writes_every_correlation_and_names_the_least():
    chart = _rank_agreement(_ranks(), source=SOURCE)
    svg = _svg(chart)
    assert svg.count(">0.98<") == 2 and svg.count(">−0.25<") == 2 and svg.count(">1.00<") == 3
    assert "from -0.25 (std and ir) to 0.98" in chart.to_dict()["description"]


def test_coverage_tells_failures_apart_by_colour_and_shape():
    chart = charts_fairness.coverage(_covered(), source=SOURCE)
    point = chart.to_dict()["spec"]["layer"][-1]["encoding"]
    words = ["holds", "fails by design", "too wide by design"]
    assert point["shape"]["scale"] == {"domain": words, "range": ["circle", "diamond", "square"]}
    assert point["color"]["scale"]["domain"] == words
    text = chart.to_dict()["description"]
    assert "people recur pair bootstrap fails by design: 62 % (61 to 63 %)" in text
