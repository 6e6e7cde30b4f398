"""Numbers of an audit: every rate and fairness metric of a table, with what chance would do to it.

The result is one plain dictionary, the JSON report: the page, the terminal and the sentences are
made from it alone. Inside this file rates are fractions; in the report they are per cent.

Thresholds are chosen once, on the whole table, and held while people (or pairs) are resampled: the
intervals say how the rates of *these* thresholds would move. Differences between columns are
another matter, and `compare`'s.
"""

from __future__ import annotations

import re

import numpy as np

from studylib import errors
from studylib.audit import compare
from studylib.audit.compare import Errors, number, percent, plain
from studylib.audit.table import Outcomes
from studylib.metrics import (
    classification,
    fairness,
    resampling,
    testing,
    thresholds,
    uncertainty,
    verification,
)
from studylib.metrics.arrays import divide

SCHEMA, VERSION = "studylib.audit", 1
UNIT = (
    "Rates, their intervals and differences are per cent and percentage points, as are std, gap, "
    "worst, fmr_gap, fnmr_gap, demographic_parity and equalised_odds; the other fairness metrics "
    "and auc have no unit, p-values are fractions. null: not defined, infinite, or not computed."
)
NULL_DRAWS = 4000
CEI_RESAMPLES = 200  # its histograms are many columns, and its interval is rough anyway
UNEVEN = 0.05  # shares of a kind of row that differ by more change accuracies by themselves
# Thresholds chosen from fewer rows a group, or from uneven kinds, add noise of their own to the
# accuracies: equal groups then look unequal in up to 16 % of (simulated) tables, not in 5, and
# intervals of differences hold the truth in 86 to 92 %.
FEW_FOR_FOLDS = 5000
TRADED = ("fmr", "fnmr")  # the kinds of error of pairs, in the order of truth: impostor, genuine
OF_ACCURACY = ("accuracy", *compare.COMPARED)
OWN = "per_group_10fold"
ARGMAX = "argmax"
LABELS = {  # of every rule, wherever it is named; the one that can be deployed comes first
    "global_fmr": "one threshold, FMR {fmr:g}",
    "global_best_accuracy": "one threshold, best accuracy",
    "global_best_accuracy_minus_std": "one threshold, best accuracy minus STD",
    OWN: "own thresholds",
    ARGMAX: "predicted class",
}
_GAPS = {"fmr_gap": 0, "fnmr_gap": 1}  # kind of pair
_NUMBER = re.compile(r"-?\d[\d.,e+-]*")


def report(
    outcomes: Outcomes,
    *,
    lower_is_alike: bool = False,
    fmr: float = 1e-3,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Measure a table of outcomes.

    Parameters
    ----------
    outcomes : Outcomes
        From `table.read`.
    lower_is_alike : bool
        Scores are distances: all are negated, and thresholds are of negated scores.
    fmr : float
        False match rate of the rule "global_fmr", a fraction.
    resamples : int
        Resamples of people (where they are known) or of independent rows behind each interval.
    seed : int
        Everything drawn comes from it.

    Returns
    -------
    dict
        The report without its conclusions and warnings: see the book's page on `study audit`.

    Raises
    ------
    ParameterError
        If fmr is not between 0 and 1, resamples below 100, or the seed below 0, or if there are no
        scores to negate.
    """
    check(fmr=fmr, resamples=resamples, seed=seed)
    if lower_is_alike:
        if outcomes.kind != "pairs":
            raise errors.ParameterError(errors.ITEMS_ALIKE.format(path=outcomes.file))
        outputs = {name: 0.0 - scores for name, scores in outcomes.outputs.items()}
        outcomes = outcomes._replace(outputs=outputs)
    parts, notes = (_pairs if outcomes.kind == "pairs" else _items)(outcomes, fmr, resamples, seed)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "unit": UNIT,
        "table": _about(outcomes),
        "parameters": {
            "columns": {
                role: columns if isinstance(columns, str) else list(columns)
                for role, columns in outcomes.roles._asdict().items()
                if columns
            },
            "lower_is_alike": lower_is_alike,
            "fmr": fmr if outcomes.kind == "pairs" else None,
            "resamples": resamples,
            "seed": seed,
            "level": 0.95,
        },
        "reference": next(iter(outcomes.outputs)),
        "resampled": "rows" if outcomes.subject_a is None else "people",
        **parts,
        "notes": notes,
    }


def check(*, fmr: float, resamples: int, seed: int) -> None:
    """Refuse parameters that `report` cannot use, before a large table is read for nothing."""
    if not 0 < fmr < 1:
        raise errors.ParameterError(errors.BAD_FMR.format(value=fmr))
    errors.at_least(100, resamples=resamples)
    errors.at_least(0, seed=seed)


def _about(o: Outcomes) -> dict:
    groups = {}
    for code, name in enumerate(o.groups):
        rows = o.group == code
        about = {"rows": int(rows.sum())}
        if o.kind == "pairs":
            about["genuine"] = int((rows & o.truth).sum())
            about["impostor"] = about["rows"] - about["genuine"]
        about["subjects"] = None if o.subject_a is None else len(_people_in(o, rows))
        groups[name] = about
    return {
        "file": o.file,
        "sha256": o.sha256,
        "kind": o.kind,
        "rows": o.rows,
        "used": len(o.truth),
        "across_groups": o.across,
        "impostors": int((~o.truth).sum()) if o.kind == "pairs" else None,
        "subjects": o.n_subjects if o.subject_a is not None else None,
        "classes": o.classes or None,
        "groups": groups,
    }


def _people_in(o: Outcomes, rows: np.ndarray) -> np.ndarray:
    sides = [o.subject_a, o.subject_b] if o.subject_b is not None else [o.subject_a]
    seen = np.zeros(o.n_subjects, bool)
    for side in sides:
        seen[side[rows]] = True
    return np.flatnonzero(seen)


def _pairs(o: Outcomes, fmr: float, resamples: int, seed: int) -> tuple[dict, list[str]]:
    decided, notes = _decide_all(o, fmr)
    wrong = {
        rule: np.stack([d.accepted != o.truth for d in by_column.values()])
        for rule, by_column in decided.items()
    }
    measured = compare.resampled(o, wrong, o.truth.astype(np.int64), 2, resamples, seed)
    measured["global_fmr"] = compare.rechosen(measured["global_fmr"], o, fmr)
    scores = {name: _score(o, name, resamples, seed) for name in o.outputs}
    skipped = _problems(scores)
    found, differences = {}, []
    for rule, errors_ in measured.items():
        # thresholds of best accuracy trade FMR for FNMR, and how far is chance
        untested, unknown = (), () if rule == "global_fmr" else TRADED
        if (errors_.n == 0).any():  # accuracies of one kind of pair, beside those of both
            untested, unknown = ("accuracy",), (*unknown, *compare.COMPARED)
        if rule == OWN:
            untested = (*untested, "errors")
            if why := _noisy(errors_, list(o.outputs), o.groups):
                untested, unknown = ("errors", "accuracy"), (*TRADED, *OF_ACCURACY)
                notes.append(why)
        found[rule] = by_column(errors_, o.groups, TRADED, seed, untested=untested)
        differences += compare.differences(errors_, o, rule, TRADED, unknown, skipped)
    for s, name in enumerate(o.outputs):
        scores[name]["rules"] = {
            rule: _described(decided[rule][name], o.groups, fmr) | found[rule][s]
            for rule in decided
        }
    _correct_equality(scores)
    return {"scores": scores, "differences": differences}, notes


def _noisy(e: Errors, columns: list[str], groups: list[str]) -> str:
    """Say why accuracies at each group's own thresholds cannot be tested; nothing if they can."""
    if len(columns) == len(groups) == 1:
        return ""  # nothing to compare
    effect = np.stack([_accuracy_effect(e, s) for s in range(len(columns))]).max(0)
    rows, share = e.n.sum(-1) / effect, e.share[:, 1]
    smallest, why = int(rows.argmin()), []
    if rows[smallest] < FEW_FOR_FOLDS:
        worth = "has" if (effect == 1).all() else "is worth, with people who recur,"
        few = f"{rows[smallest]:,.0f} rows, fewer than {FEW_FOR_FOLDS:,}"
        why.append(f"the group {groups[smallest]!r} {worth} {few}")
    if share.max() - share.min() > UNEVEN:
        why.append("groups differ in their share of genuine pairs")
    if not why:
        return ""
    return (
        f"{LABELS[OWN].capitalize()}: neither equality of accuracies nor a difference between "
        f"columns is tested, since {' and '.join(why)}: chance in choosing the thresholds would "
        "pass for a difference."
    )


def _decide_all(o: Outcomes, fmr: float):
    """Apply every rule to every column: rule -> column -> Decision, and what a reader should know.

    A group too small for ten folds takes that rule out, not the whole audit.
    """
    smallest = int(np.bincount(o.group[o.group >= 0]).argmin())
    pairs = int((o.group == smallest).sum())
    rules, notes = [rule for rule in LABELS if rule in thresholds.RULES], []
    if pairs < 10:
        rules.remove(OWN)
        notes.append(
            f"There are no {LABELS[OWN]}: the group {o.groups[smallest]!r} has {pairs} "
            "pairs, and ten folds need ten."
        )
    decided = {
        rule: {
            name: thresholds.decide(rule, scores, o.truth, o.group, fmr=fmr)
            for name, scores in o.outputs.items()
        }
        for rule in rules
    }
    return decided, notes + _noted(decided, fmr)


def _noted(decided: dict, fmr: float) -> list[str]:
    """The rules' notes; one that differs between columns in nothing but numbers is said once."""
    notes = []
    for rule, by_column in decided.items():
        label = LABELS[rule].format(fmr=fmr)
        texts: dict[str, dict] = {}
        for name, decision in by_column.items():
            for text in decision.notes:
                texts.setdefault(_NUMBER.sub("#", text), {})[name] = text
        for said in texts.values():
            names = list(said)
            of = "" if len(names) == len(by_column) else ", ".join(names)
            if len({*said.values()}) > 1:
                of = f"{', '.join(names)}; numbers of {names[0]}"
            notes.append(f"{label[0].upper()}{label[1:]}{of and f' ({of})'}: {said[names[0]]}")
    return notes


def _described(decision: thresholds.Decision, groups: list[str], fmr: float) -> dict:
    own = decision.thresholds
    own = own and {groups[g]: [plain(t) for t in folds] for g, folds in own.items()}
    threshold = None if decision.threshold is None else plain(decision.threshold)
    label = LABELS[decision.rule].format(fmr=fmr)
    return {"label": label, "threshold": threshold, "thresholds": own}


def _score(o: Outcomes, name: str, resamples: int, seed: int) -> dict:
    """What needs no threshold: AUC, EER, and how far apart the groups' score distributions are."""
    points = verification.curve(verification.sort_scores(o.outputs[name], o.truth))
    auc = float(verification.auc(points))
    found = {"problem": _problem(o.outputs[name], auc)}
    found |= {"auc": plain(auc), "eer": percent(verification.eer(points))}
    if len(o.groups) == 1:
        return found
    found |= {"fairness": {}, "fairness_intervals": {}, "null_bands": {}, "equality_p": {}}
    for kind, rows in (("genuine", o.truth), ("impostor", ~o.truth)):
        key, rows = f"cei_{kind}", np.flatnonzero(rows & (o.group >= 0))
        counts = fairness.score_histogram(
            o.outputs[name][rows], o.group[rows], n_groups=len(o.groups)
        )
        value = fairness.cei_counts(counts, kind=kind)
        draws = _histogram_draws(o, name, rows, counts, min(resamples, CEI_RESAMPLES), seed)
        null = None
        if o.subject_a is None:  # people's shared noise would make a band of pairs too narrow
            shares = counts.sum(0) / max(counts.sum(), 1)
            rng = np.random.default_rng(seed)
            null = rng.multinomial(counts.sum(1), shares, (CEI_RESAMPLES, len(counts)))
            null = fairness.cei_counts(null, kind=kind)
        draws = fairness.cei_counts(draws, kind=kind)
        _add_metric(found, key, value, draws, null)
    return found


def _problem(output: np.ndarray, auc: float = 1.0) -> str | None:
    """Say why nothing can be concluded from a column, if so."""
    if output.min() == output.max():
        return "constant"
    return "reversed" if auc < 0.5 else None


def _problems(columns: dict) -> set[str]:
    return {name for name, column in columns.items() if column["problem"]}


def _histogram_draws(o: Outcomes, name: str, rows, counts, resamples: int, seed: int):
    """Resampled score histograms (resamples, G, bins)."""
    if o.subject_a is None:
        return resampling.count_draws(counts, resamples=resamples, seed=seed)
    bins = fairness.score_bins(o.outputs[name][rows], counts.shape[1])
    cells = compare.split(o.group[rows].astype(np.int64) * counts.shape[1] + bins, counts.size)
    sums = compare.people_sums(o, [rows[cell] for cell in cells], resamples, seed)
    return sums.reshape(resamples, *counts.shape)


def _items(o: Outcomes, fmr: float, resamples: int, seed: int) -> tuple[dict, list[str]]:
    wrong = {ARGMAX: np.stack([predicted != o.truth for predicted in o.outputs.values()])}
    kind = np.zeros(len(o.truth), np.int64)
    measured = compare.resampled(o, wrong, kind, 1, resamples, seed)[ARGMAX]
    confusions = [_confusions(o, name, resamples, seed) for name in o.outputs]
    found = by_column(measured, o.groups, ("error",), seed, confusions=confusions)
    predictions = {}
    for s, name in enumerate(o.outputs):
        counts, label = confusions[s][0], LABELS[ARGMAX]
        rule = {"label": label, "threshold": None, "thresholds": None} | found[s]
        if len(o.groups) > 1:
            rule["equalised_odds_class"] = o.classes[_class_apart(counts)]
        balanced, recall = classification.balanced_accuracy(counts), classification.recall(counts)
        for g, group in enumerate(o.groups):
            more = {
                "balanced_accuracy": percent(balanced[g]),
                "recall": {c: percent(r) for c, r in zip(o.classes, recall[g], strict=True)},
                "ece": _ece(o, name, o.group == g),
            }
            rule["groups"][group] |= more
        rule["confusion"] = {g: c.tolist() for g, c in zip(o.groups, counts, strict=True)}
        predictions[name] = {"problem": _problem(o.outputs[name]), "rules": {ARGMAX: rule}}
    _correct_equality(predictions)
    skipped = _problems(predictions)
    differences = compare.differences(measured, o, ARGMAX, ("error",), skipped=skipped)
    return {"predictions": predictions, "differences": differences}, []


def _class_apart(counts: np.ndarray) -> int:
    """Find the class whose odds differ most between groups, from confusions (G, C, C)."""
    total, hits = counts.sum((-2, -1)), np.diagonal(counts, axis1=-2, axis2=-1).T
    given, said = counts.sum(-1).T, counts.sum(-2).T  # (C, G)
    rest = [[total - given - said + hits, said - hits], [given - hits, hits]]
    odds = fairness.equalised_odds_difference(np.moveaxis(np.array(rest), (0, 1), (-2, -1)))
    return int(np.nan_to_num(odds, nan=-1).argmax())


def _ece(o: Outcomes, name: str, rows: np.ndarray) -> float | None:
    if name not in o.confidence:
        return None
    right = (o.outputs[name] == o.truth)[rows]
    bins = classification.calibration_bins(o.confidence[name][rows], right)
    return percent(classification.expected_calibration_error(bins))


def _confusions(o: Outcomes, name: str, resamples: int, seed: int):
    """Confusion counts (G, C, C) of a column, and their draws (resamples, G, C, C)."""
    classes, n_groups = len(o.classes), len(o.groups)
    counts = classification.confusion(
        o.truth, o.outputs[name], classes=classes, groups=o.group, n_groups=n_groups
    )
    if o.subject_a is None:
        flat = counts.reshape(n_groups, -1)
        draws = resampling.count_draws(flat, resamples=resamples, seed=seed)
        return counts, draws.reshape(resamples, *counts.shape)
    draws = np.empty((resamples, *counts.shape))
    for g in range(n_groups):  # a group at a time: people x cells in memory
        rows = np.flatnonzero(o.group == g)
        cell = o.truth[rows].astype(np.int64) * classes + o.outputs[name][rows]
        cells = compare.split(cell, classes**2)
        sums = compare.people_sums(o, [rows[cell] for cell in cells], resamples, seed)
        draws[:, g] = sums.reshape(resamples, classes, classes)
    return counts, draws


def by_column(
    e: Errors, groups: list[str], kinds, seed: int, *, confusions=None, untested=()
) -> list[dict]:
    """Rates and fairness of each column under one rule, as the report shows them.

    Metrics that need what is `untested` get no null band.
    """
    found = []
    for s in range(len(e.wrong)):
        accuracy, draws = e.accuracy(e.rate[s]), e.accuracy(e.draws[:, s])
        part = {
            "groups": _group_rates(e, s, draws, groups, kinds),
            "overall": _overall(e, s, kinds),
        }
        if len(groups) > 1:
            counts, count_draws = confusions[s] if confusions else (None, None)
            null = _null(e, s, counts, seed)
            observed = _panel(accuracy, e.rate[s], counts)
            drawn = _panel(draws, e.draws[:, s], count_draws)
            part |= {"fairness": {}, "fairness_intervals": {}, "null_bands": {}, "equality_p": {}}
            for key, value in observed.items():
                needs = "errors" if key in _GAPS else fairness.METRICS[key].needs
                band = None if needs in untested else null[key]
                _add_metric(part, key, value, drawn[key], band)
        found.append(part)
    return found


def _panel(accuracy, rates, counts) -> dict[str, np.ndarray]:
    """The fairness panel of accuracies (..., G), rates (..., G, K) and confusions."""
    if rates.shape[-1] == 1:
        return fairness.panel(accuracy=accuracy, counts=counts)
    found = fairness.panel(accuracy=accuracy, fmr=rates[..., 0], fnmr=rates[..., 1])
    return found | {key: fairness.gap(rates[..., kind]) for key, kind in _GAPS.items()}


def _null(e: Errors, s: int, counts, seed: int) -> dict[str, np.ndarray]:
    """The panel of groups that are equal: pooled rates, each group's size over its design effect.

    Confusions keep each group's labels: equal groups get the same predictions for the same label.
    """
    seeds = np.random.SeedSequence(seed).spawn(e.n.shape[1] + 1)
    pooled = divide(e.wrong[s].sum(0), e.n.sum(0))
    size = e.n / np.nan_to_num(e.effect[s], nan=1.0)  # not known where a kind has no row
    rates = [
        testing.null_draws(size[:, k], rate, draws=NULL_DRAWS, seed=seeds[k])
        if e.n[:, k].any()
        else np.full((NULL_DRAWS, len(size)), np.nan)
        for k, rate in enumerate(pooled)
    ]
    rates = np.where(e.n > 0, np.stack(rates, -1), np.nan)
    if counts is not None:
        rng, labels = np.random.default_rng(seeds[-1]), counts.sum(0)
        shares = labels / np.maximum(labels.sum(-1, keepdims=True), 1)  # (C, C) rows are labels
        shares[labels.sum(-1) == 0, 0] = 1  # nobody has this label; NumPy wants shares all the same
        items = np.rint(counts.sum(-1) / e.effect[s, :, :1]).astype(np.int64)
        counts = rng.multinomial(items, shares, (NULL_DRAWS, *items.shape))
    return _panel(_joint(e, s, e.accuracy(rates)), rates, counts)


def _joint(e: Errors, s: int, accuracy: np.ndarray) -> np.ndarray:
    """Give null accuracies (draws, G) the spread that people's errors of both kinds make together.

    Somebody whose scores are all high adds false matches and takes away false non-matches.
    """
    if (e.effect[s] == 1).all() or e.n.shape[1] == 1:
        return accuracy
    apart = e.mix(e.draws[:, s].var(0) * e.share)
    together = e.accuracy(e.draws[:, s]).var(0)
    scale = np.sqrt(np.where(apart > 0, divide(together, apart), 1.0))
    centre = accuracy.mean(0)
    return np.clip(centre + (accuracy - centre) * scale, 0, 1)


def _add_metric(part: dict, key: str, value, draws, null) -> None:
    """Write a metric, its interval, its null band and the p of equality into a report's part."""
    metric = fairness.METRICS.get(key)
    points = metric is None or metric.points
    show = percent if points else plain
    part["fairness"][key] = show(value)
    unequal = "low" if metric and metric.direction.startswith("higher") else "high"
    banded = null is not None and not np.isnan(null).all()
    if _constant(draws):  # a bootstrap of rates of 0 and 1 only: it knows of no interval
        banded = banded and not _constant(null)
        part["fairness_intervals"][key] = [None, None]
    p = testing.equality_p(value, null, unequal=unequal) if banded else np.nan
    if key not in part["fairness_intervals"]:
        low, high = _metric_interval(metric, value, draws, p, unequal)
        part["fairness_intervals"][key] = [show(low), show(high)]
    if not banded:
        part["null_bands"][key] = part["equality_p"][key] = None
        return
    # "nearest" takes draws as they are: between two infinite ones there is nothing to interpolate
    band = np.nanquantile(null, (0.025, 0.5, 0.975), method="nearest")
    part["null_bands"][key] = [show(x) for x in band]
    part["equality_p"][key] = plain(p)


def _constant(draws: np.ndarray) -> bool:
    """Tell draws that never change, leaving out those without a value."""
    known = draws[~np.isnan(draws)]
    return known.size == 0 or known.min() == known.max()


def _metric_interval(metric, value, draws, p: float, unequal: str):
    """Bounds of a fairness metric; p is NaN where equality was not tested."""
    best, least, most = (0.0, 0, 1) if metric is None else (metric.best, metric.low, metric.high)
    if np.isnan(p) or np.isinf(best):
        bounds = uncertainty.bounds(draws, value, method="envelope")
    else:  # reaches to equality unless that is rejected
        bounds = uncertainty.metric_bounds(draws, value, p, best=best, unequal=unequal)
    return np.clip(bounds, least, most)


def _correct_equality(columns: dict) -> None:
    """Add Holm's correction of each metric's equality p over all columns and rules."""
    parts = []
    for column in columns.values():
        rules = [part for part in column["rules"].values() if "equality_p" in part]
        for part in rules:
            part["equality_p_holm"] = dict.fromkeys(part["equality_p"])
        parts += [] if column["problem"] else rules  # nothing is tested where nothing is told apart
    for key in parts[0]["equality_p"] if parts else ():
        adjusted = testing.holm([number(part["equality_p"][key]) for part in parts])
        for part, p in zip(parts, adjusted, strict=True):
            part["equality_p_holm"][key] = plain(p)


def _accuracy_effect(e: Errors, s: int) -> np.ndarray:
    """Design effect (G,) of a column's accuracies, 1 for independent rows."""
    if (e.effect[s] == 1).all():
        return np.ones(len(e.n))
    draws = e.accuracy(e.draws[:, s])[:, None]
    return compare.effects(draws, e.wrong[s].sum(-1)[None, :], e.n.sum(-1))[0]


def _group_rates(e: Errors, s: int, accuracy_draws, groups: list[str], kinds) -> dict:
    wrong, n, effect = e.wrong[s].sum(-1), e.n.sum(-1), _accuracy_effect(e, s)
    low, high = uncertainty.rate_bounds(1 - accuracy_draws, wrong, n, effect=effect)
    bounds = {"accuracy": (1 - high, 1 - low)}
    effects = {"accuracy": effect}
    values = {"accuracy": e.accuracy(e.rate[s])}
    for k, kind in enumerate(kinds):
        at = (e.draws[:, s, :, k], e.wrong[s, :, k], e.n[:, k])
        bounds[kind] = uncertainty.rate_bounds(*at, effect=e.effect[s, :, k])
        values[kind], effects[kind] = e.rate[s, :, k], e.effect[s, :, k]
    named = {"fmr": ("false_matches", "n_impostor"), "fnmr": ("false_non_matches", "n_genuine")}
    found = {}
    for g, group in enumerate(groups):
        of_group = {key: percent(value[g]) for key, value in values.items()}
        for k, kind in enumerate(kinds):
            count, size = named.get(kind, ("errors", "n"))
            of_group |= {count: int(e.wrong[s, g, k]), size: int(e.n[g, k])}
        of_group["n"] = int(n[g])
        of_group["intervals"] = {
            key: [percent(low[g]), percent(high[g])] for key, (low, high) in bounds.items()
        }
        of_group["design_effect"] = {key: plain(value[g]) for key, value in effects.items()}
        found[group] = of_group
    return found


def _overall(e: Errors, s: int, kinds) -> dict:
    """Rates over the rows of all groups together."""
    rates = divide(e.wrong[s].sum(0), e.n.sum(0))
    accuracy = 1 - e.wrong[s].sum() / e.n.sum()
    return {"accuracy": percent(accuracy)} | {
        kind: percent(rate) for kind, rate in zip(kinds, rates, strict=True)
    }
