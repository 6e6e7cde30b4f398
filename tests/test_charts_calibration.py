"""The matrix of responses: what is written into its squares, and said aloud."""

import pandas as pd
import pytest

from studylib import charts, charts_calibration, errors

TABLE = pd.DataFrame(
    {
        "metric": ["agreement"] * 2 + ["accuracy"] * 2,
        "composition": ["noise", "only-A"] * 2,
        "group": "A",
        "value": [-0.05, 0.025, 0.0, -1e-12],
        "resolved": [True, False, False, False],
    }
)
HOW = {"source": "a test", "title": "Responses", "reference": "the balanced set"}


def test_the_squares_say_the_effects_in_points():
    spec = charts_calibration.response_matrix(TABLE, **HOW).to_dict()
    (rows,) = spec["datasets"].values()
    assert [row["said"] for row in rows] == ["-5.00*", "+2.50", "+0.00", "+0.00"]
    assert [row["shade"] for row in rows] == [-1.0, 0.5, 0.0, 0.0]
    assert "agreement, noise, A -5.00*; agreement, only-A, A +2.50" in spec["description"]
    assert "less the balanced set" in spec["description"]


def test_the_matrix_is_rendered():
    charts.enable()
    html = charts.render(charts_calibration.response_matrix(TABLE, **HOW).to_dict())["text/html"]
    assert "-5.00*" in html or "%2D5.00*" in html


def test_a_missing_column_is_named():
    message = errors.CHART_COLUMNS.format(chart="response_matrix", missing="resolved")
    with pytest.raises(errors.ParameterError, match=message):
        charts_calibration.response_matrix(TABLE.drop(columns="resolved"), **HOW)
