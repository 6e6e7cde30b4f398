"""A column's part of an audit as tables, a row a number: what charts and chapters take."""

from __future__ import annotations

import pandas as pd

from studylib.audit import conclude, text
from studylib.metrics import fairness

_RATES = {"accuracy": "accuracy", "fmr": "FMR", "fnmr": "FNMR"}
_BEHIND = {"fmr": "n_impostor", "fnmr": "n_genuine"}  # what a rate is a share of; else all rows


def rates(rules: dict) -> pd.DataFrame:
    """Each group's rates under each rule.

    Parameters
    ----------
    rules : dict
        A column's `rules` in the report of `audit.audit`.

    Returns
    -------
    pandas.DataFrame
        `rule`, `series` (the rule's label), `group`, `metric` (accuracy, FMR, FNMR), `value`, `low`
        and `high` (fractions) and `n`; undefined rates are left out.
    """
    rows = []
    for rule, part in rules.items():
        for group, values in part["groups"].items():
            for metric in (m for m in _RATES if values.get(m) is not None):
                low, high = (bound / 100 for bound in values["intervals"][metric])
                about = {"rule": rule, "series": part["label"], "group": group}
                found = {"value": values[metric] / 100, "low": low, "high": high}
                n = values[_BEHIND.get(metric, "n")]
                rows.append(about | {"metric": _RATES[metric]} | found | {"n": n})
    return pd.DataFrame(rows)


def panel(rules: dict) -> tuple[pd.DataFrame, list[str]]:
    """Each fairness metric under each rule, with its interval and its null band.

    Returns
    -------
    table : pandas.DataFrame
        `rule`, `series`, `key` and `metric` (its name and its title), `value`, `low`, `high`,
        `null_low`, `null_median`, `null_high`: floats, in the report's units, NaN where there is no
        band. Bands begin at the fairest value: being fairer than chance is no finding. Empty where
        there are no groups to compare.
    left_out : list of str
        Metrics that are infinite or not defined.
    """
    rows, left_out = [], []
    for rule, part in rules.items():
        for key, value in part.get("fairness", {}).items():
            if value is None:
                left_out.append(f"{text.title(key)} ({part['label']})")
                continue
            band = part["null_bands"][key]
            band = _from_fairest(key, band) if band else [None] * 3
            numbers = [value, *part["fairness_intervals"][key], *band]
            about = {"rule": rule, "series": part["label"], "key": key, "metric": text.title(key)}
            rows.append(about | dict(zip(_NUMBERS, numbers, strict=True)))
    table = pd.DataFrame(rows, columns=["rule", "series", "key", "metric", *_NUMBERS])
    return table.astype(dict.fromkeys(_NUMBERS, float)), left_out


def differences(report: dict, rule: str) -> pd.DataFrame:
    """Each column less the first one under one rule, where that could be tested.

    Returns
    -------
    pandas.DataFrame
        `score`, `reference`, `group` ("all" for all groups together), `metric`, `difference`, `low`
        and `high` (in the report's units), `p`, and `p_holm` within the report's own family.
    """
    columns = ["score", "reference", "group", "metric", "difference", "low", "high", "p", "p_holm"]
    rows = [
        row
        | dict(zip(("low", "high"), row["interval"], strict=True))
        | {"group": row["group"] or "all"}
        for row in report["differences"]
        if row["rule"] == rule and row["p"] is not None
    ]
    return pd.DataFrame(rows, columns=columns)


_NUMBERS = ("value", "low", "high", "null_low", "null_median", "null_high")


def _from_fairest(key: str, band: list) -> list:
    """Stretch a null band to the fairest end of the metric (100 where 1 is shown in per cent)."""
    metric = fairness.METRICS.get(key)
    if conclude.higher_is_fairer(key):
        return [*band[:2], 100.0 if metric.points else 1.0]
    low = 0.0 if metric is None else metric.low
    return [low, *band[1:]]
