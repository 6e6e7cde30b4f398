"""An audit as one HTML page: no network, no script, every value escaped.

Charts, of the first `MOST_DRAWN` columns, are static pictures with a text in their place for those
who cannot see them; the tables hold every column's numbers, intervals and null bands included.
"""

from __future__ import annotations

import html
from pathlib import Path

from studylib import __version__, charts, charts_fairness
from studylib.audit import conclude, frames, text
from studylib.metrics import fairness

MOST_DRAWN = 4  # columns with charts; more make a page too long, and their tables are there
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 Arial, Helvetica, sans-serif; color: #222; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; font-size: .85rem; margin: .5rem 0 1.5rem; }
caption { text-align: left; font-weight: bold; padding: .3rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right;
  vertical-align: top; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #888; }
.scroll, .altair-chart { overflow-x: auto; } .altair-chart img { max-width: 100%; height: auto; }
.warnings { border-left: 4px solid #D55E00; padding-left: 1rem; }
.conclusions { border-left: 4px solid #0072B2; padding-left: 1rem; }
.conclusions ul, .warnings ul { padding-left: 1.2rem; }
dt { font-weight: bold; margin-top: .5rem; } dd { margin-left: 1.5rem; }
footer { margin-top: 3rem; color: #555; font-size: .85rem; overflow-wrap: anywhere; }
"""


def render(report: dict) -> str:
    """Turn a report into a whole page.

    Parameters
    ----------
    report : dict
        From `studylib.audit.audit`.

    Returns
    -------
    str
        HTML.
    """
    charts.enable()
    drawn = list(conclude.columns(report))[:MOST_DRAWN]
    title = text.headline(report)
    body = [
        f"<h1>{_safe(title)}</h1>",
        _list("conclusions", "Conclusions", report["conclusions"]),
        _list("warnings", "Before you believe it", report["warnings"]),
        _groups(report),
    ]
    for name, column in conclude.columns(report).items():
        body += _column(report, name, column, draw=name in drawn)
    if report["differences"]:
        note = (
            "Later columns minus the first, on the same rows. An interval is of one difference; p "
            "(Holm) is corrected for the tests of its rule, of rates or of STD and gap. Not "
            "tested: thresholds trade FMR for FNMR there, and another table would move them."
        )
        body += [f"<h2>{_safe(text.differences(report).title)}</h2>", f"<p>{note}</p>"]
        body += [_table(text.differences(report))]
    body += [_definitions(report), _footer(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _safe(value) -> str:
    return html.escape(str(value))


def _list(name: str, title: str, sentences: list[str]) -> str:
    items = "\n".join(f"<li>{_safe(sentence)}</li>" for sentence in sentences)
    return f'<section class="{name}">\n<h2>{title}</h2>\n<ul>\n{items}\n</ul>\n</section>'


def _table(grid: text.Grid) -> str:
    head = "".join(f'<th scope="col">{_safe(cell)}</th>' for cell in grid.header)
    rows = "\n".join(
        f'<tr><th scope="row">{_safe(row[0])}</th>'
        + "".join(f"<td>{_safe(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in grid.rows
    )
    return (
        f'<div class="scroll"><table>\n<caption>{_safe(grid.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _groups(report: dict) -> str:
    groups = report["table"]["groups"]
    header = ["group", *next(iter(groups.values()))]
    rows = [
        [name, *("-" if value is None else f"{value:,}" for value in about.values())]
        for name, about in groups.items()
    ]
    return "<h2>The table</h2>" + _table(text.Grid("Rows by group", header, rows))


def _column(report: dict, name: str, column: dict, *, draw: bool) -> list[str]:
    rules = column["rules"]
    parts = [f"<h2>{_safe(text.about_column(name, column))}</h2>"]
    has_panel = "fairness" in next(iter(rules.values()))
    if draw:
        file, seed = Path(report["table"]["file"]).name, report["parameters"]["seed"]
        source = f"{file}, {name}, seed {seed}"
        parts.append(_picture(_rates_chart(rules, source)))
        if has_panel:
            parts += _panel_chart(rules, source)
    parts += [_table(text.rates(part)) for part in rules.values()]
    parts += [_table(text.recalls(part)) for part in rules.values() if "confusion" in part]
    if has_panel:
        parts.append(_table(text.panel(column)))
        parts += [_table(text.score_panel(column))] if "fairness" in column else []
        parts.append(f"<p>{_safe(text.BAND_NOTE)}</p>")
        named = [part["equalised_odds_class"] for part in rules.values() if "confusion" in part]
        parts += [f"<p>Equalised odds: largest for the class {_safe(c)}.</p>" for c in named]
    return parts


def _picture(chart) -> str:
    picture = charts.render(chart.to_dict())["text/html"]
    # without the specification beside it: a static page needs none, and names in it are not ours
    return picture[: picture.index("<script")] + "</div>"


def _rates_chart(rules: dict, source: str):
    return charts_fairness.group_intervals(
        frames.rates(rules), source=source, metric_title="rate", title="Rates by group"
    )


def _panel_chart(rules: dict, source: str) -> list[str]:
    table, left_out = frames.panel(rules)
    if table.empty:
        return []
    parts = [_picture(charts_fairness.panel_bands(table, source=source))]
    parts.append("<p>Bands begin at the fairest value: being fairer than chance is no finding.</p>")
    if left_out:
        listed = _safe(", ".join(left_out))
        parts.append(f"<p>Not drawn, since infinite or not defined: {listed}.</p>")
    return parts


def _definitions(report: dict) -> str:
    """Say what every rule and metric in the report means, and what it cannot see."""
    rules = "".join(
        f"<dt>{_safe(conclude.labels(report)[rule])} ({_safe(rule)})</dt><dd>{_safe(meaning)}</dd>"
        for rule, meaning in conclude.rules_used(report).items()
    )
    parts = ["<h2>How to read it</h2>", f"<h3>Threshold rules</h3><dl>{rules}</dl>"]
    column = next(iter(conclude.columns(report).values()))
    keys = next(iter(column["rules"].values())).get("fairness", {}) | column.get("fairness", {})
    rows = [
        [m.title, f"{m.direction}", m.source, m.blind]
        for m in (fairness.METRICS[key] for key in keys if key in fairness.METRICS)
    ]
    if rows:
        header = ["metric", "direction", "source", "cannot see"]
        parts.append(_table(text.Grid("Fairness metrics", header, rows)))
    held = (
        "Thresholds are chosen once, on the whole table, and held while "
        f"{report['resampled']} are resampled {report['parameters']['resamples']:,} times; "
        "intervals are for 95 %, of one number each. They say how much these numbers would move "
        "with other people or pictures of the same kind, and nothing about anyone unlike them. "
        "A value inside its null band does not show that groups are equal."
    )
    return "\n".join([*parts, f"<p>{_safe(held)}</p>", f"<p>{_safe(report['unit'])}</p>"])


def _footer(report: dict) -> str:
    about, how = report["table"], report["parameters"]
    columns = ", ".join(
        f"{role} {value if isinstance(value, str) else ', '.join(value)}"
        for role, value in how["columns"].items()
    )
    fmr = "" if how["fmr"] is None else f", FMR {how['fmr']:g}"
    return (
        f"<footer><p>{_safe(about['file'])}, SHA-256 {about['sha256']}. Columns: {_safe(columns)}"
        f"{fmr}; {how['resamples']} resamples, seed {how['seed']}. studylib {__version__}.</p>"
        "</footer>"
    )
