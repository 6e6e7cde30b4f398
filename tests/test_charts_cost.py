"""Growth charts: points where measured, a line where computed, all of it in words."""

import pandas as pd
import pytest

from studylib import charts_cost, errors
from studylib.charts_cost import COMPUTED, MEASURED

TIMES = pd.DataFrame({"n": [10, 100], "took": [1.5, 12.0], "line": [1.0, 10.0]})


def test_each_setting_is_a_measured_and_a_computed_point():
    table = charts_cost.beside(TIMES, "epoch", "n", "took", "line")
    assert table.to_dict("list") == {
        "series": ["epoch"] * 4,
        "kind": [MEASURED] * 2 + [COMPUTED] * 2,
        "x": [10, 100, 10, 100],
        "y": [1.5, 12.0, 1.0, 10.0],
    }
    named = charts_cost.beside(TIMES, pd.Series(["a", "b"]), "n", "took", "line")
    assert named["series"].tolist() == ["a", "b", "a", "b"]


def test_growth_draws_a_line_and_points_on_log_axes():
    table = charts_cost.beside(TIMES, "epoch", "n", "took", "line")
    told = {"source": "a machine", "title": "Time", "x": "images", "y": "seconds"}
    spec = charts_cost.growth(table, **told).to_dict()
    marks = [(layer["mark"]["type"], layer["transform"][0]["filter"]) for layer in spec["layer"]]
    assert marks == [
        ("line", "datum.kind == 'computed'"),
        ("point", "datum.kind == 'measured'"),
    ]
    for layer in spec["layer"]:
        assert {layer["encoding"][axis]["scale"]["type"] for axis in "xy"} == {"log"}
    assert "epoch, measured: 12 at 100" in spec["description"]
    assert "epoch, computed: 1 at 10" in spec["description"]
    assert spec["title"]["subtitle"][0] == "a machine"


def test_a_table_without_its_columns_is_refused():
    told = {"source": "", "title": "", "x": "", "y": ""}
    with pytest.raises(errors.ParameterError) as raised:
        charts_cost.growth(TIMES.assign(x=1, y=2), **told)
    assert str(raised.value) == errors.CHART_COLUMNS.format(chart="growth", missing="series, kind")
