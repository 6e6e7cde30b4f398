"""The claims of the papers this study starts from, each judged on its published figures.

What was said is in our own words; verdicts, figures and sentences are computed. The rules and what
they can know are in `studylib.verdicts`, the two kinds of chance in `studylib.published`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from studylib import published, verdicts
from studylib.metrics import fairness, intervals, testing
from studylib.published import Estimate, Setting
from studylib.verdicts import (
    ALPHA,
    CHANGE,
    EXACT,
    HARMLESS,
    QUESTION,
    REACH,
    READING,
    SOME,
    Cell,
    Claim,
    Finding,
    Tables,
)
from studylib.verdicts import between as _between
from studylib.verdicts import points as _points
from studylib.verdicts import rounded as _round

OWN = ("pruned", "clustered")  # methods that fine-tune; their quantised copies are the same runs


def evaluate(tables: Tables, claims: Iterable[Claim] | None = None) -> pd.DataFrame:
    """Judge every claim.

    Parameters
    ----------
    tables : Tables
        What claims are judged by: what their `judge` takes.
    claims : iterable of Claim, optional
        None: those of this module.

    Returns
    -------
    pandas.DataFrame
        One row a claim: the fields of `verdicts.Claim` (without the function and `nulls`) and of
        `verdicts.Finding`, and p_of: the hypothesis that p speaks against.
    """
    rows = []
    for claim in CLAIMS if claims is None else claims:
        about = claim._asdict()
        found, nulls = about.pop("judge")(tables), about.pop("nulls")
        p_of = "" if np.isnan(found.p) else verdicts.null(claim.rule, found.verdict, nulls)
        rows.append(about | found._asdict() | {"p_of": p_of})
    return pd.DataFrame(rows)


def overview(judged: pd.DataFrame) -> pd.DataFrame:
    """Every claim and its verdict, for the top of a page (table of `evaluate`)."""
    shown = judged[["paper", "said", "whose", "where", "rule", "verdict"]]
    return shown.rename(columns={"said": "claim", "where": "source"})


def tally(judged: pd.DataFrame) -> str:
    """How many claims have which verdict, the papers' own apart from ours, as a Markdown list."""
    lines = []
    for whose, part in judged.groupby("whose", sort=False):
        counts = part["verdict"].value_counts()
        told = [f"{counts[name]} {name}" for name in verdicts.VERDICTS if name in counts]
        lines.append(f"- **{whose}** ({len(part)}): {', '.join(told)}.")
    return "\n".join(lines)


def told(judged: pd.DataFrame, *keys: str) -> str:
    """Claims with their verdict, evidence and what would decide them, as Markdown."""
    rows, asking = judged.set_index("key").loc[list(keys)], (verdicts.OPEN, verdicts.NONE)
    return "\n\n".join(
        f"**{row.said}** ({row.whose}; {row.where}): **{row.verdict}**"
        + (f" (p of {row.p_of}: {verdicts.p_text(row.p)})" if row.p_of else "")
        + f". {row.evidence}"
        + (f" *What would decide:* {row.needed}." if row.verdict in asking else "")
        for row in rows.itertuples()
    )


# --- expressions: Stoychev and Gunes 2022 ---


def changes(
    tables: Tables,
    dataset: str,
    groups: list[str],
    weights,
    *,
    names: list[str] | None = None,
    design_effect: float | None = None,
) -> tuple[Setting, list[Cell]]:
    """Change of a contrast in every setting, and on average over those that prune or cluster.

    Quantised copies of pruned and clustered networks are the same runs again: they are tested, but
    are not in the average. Settings that were fine-tuned only once have no run-to-run variation to
    judge by and are left out.

    Parameters
    ----------
    tables : Tables
        The published tables.
    dataset : {"ckplus", "rafdb"}
        Which data set.
    groups, weights : list
        The contrast, as in `published.estimate`.
    names : list of str, optional
        Keep to these settings.
    design_effect : float, optional
        Other than the one verdicts rest on.

    Returns
    -------
    base : Setting
        The baseline.
    cells : list of Cell
        One for each setting; then the average, if any of them prunes or clusters.
    """
    base, *others = published.settings(tables.fer, dataset, groups)
    kept = [one for one in others if one.judged and (names is None or one.name in names)]
    chosen = {one.name: [one] for one in kept}
    own = [one for one in kept if one.method in OWN]
    if own:
        chosen["their average"] = own
    effect = design_effect or published.design_effect(dataset)
    cells = [
        Cell(
            name,
            published.estimate(part, weights, base=base, design_effect=effect),
            published.estimate(part, weights, base=base, favourable=True),
        )
        for name, part in chosen.items()
    ]
    return base, cells


def gap_changes(tables: Tables, dataset: str, pair: tuple[str, str]) -> list[Cell]:
    """`changes` of the gap of two groups, in its direction at the baseline: positive is wider.

    The cells' names start with the two groups, the one that is ahead at the baseline first.
    """
    base = published.settings(tables.fer, dataset, list(pair))[0]
    if base.accuracy[0] < base.accuracy[1]:
        pair = pair[::-1]
    called = " over ".join(_short(group) for group in pair)
    _, cells = changes(tables, dataset, list(pair), [1, -1])
    return [cell._replace(name=f"{called}, {cell.name}") for cell in cells]


def _gap_widens(tables: Tables) -> Finding:
    groups = ["gender=male", "gender=female"]
    base, cells = changes(tables, "ckplus", groups, [1, -1])
    average, single = cells[-1].cautious, [cell.cautious for cell in cells[:-1]]
    _, apart = changes(tables, "ckplus", groups, [1, -1], design_effect=1.0)
    (men, women), times = base.n, verdicts.times_larger(average, average.value)
    repeats = [s for s in published.settings(tables.fer, "ckplus", groups) if s.method in OWN]
    spread = np.mean([np.var((one.correct / one.n) @ [1, -1], ddof=1) for one in repeats])
    text = (
        f"The gap, men minus women, is {_points(base.accuracy @ [1, -1], sign=True)} points at the "
        f"baseline. It is wider in {sum(one.value > 0 for one in single)} of {len(single)} "
        f"settings; over those that prune or cluster it grows by {_points(average.value)} points "
        f"on average. That average has a standard error of {_points(np.sqrt(average.runs))} points "
        f"from run to run and of {_points(np.sqrt(average.test))} from the {men} pictures of men "
        f"and {women} of women, so its 95 % interval is {_between(average.interval())}. The "
        f"smallest p of {len(cells)} is {{p}} after Holm, and "
        f"{_p_of(apart)} even if all pictures counted as "
        "independent. That many settings agree is no more evidence: all start from one network "
        "and are judged on the same pictures. That network was trained once, while single runs of "
        f"a pruned or clustered setting differ in their gap by {_points(np.sqrt(spread))} points "
        "(standard deviation)."
    )
    size = (
        f"about {_round(times)} times the test set ({_round(times * men)} pictures of men, "
        f"clustered as here) for a change of {_points(average.value)} points"
    )
    return verdicts.judge(verdicts.change_rule, cells, cells[-1], text, size)


def _gap_stays(attribute: str) -> Callable[[Tables], Finding]:
    def judge(tables: Tables) -> Finding:
        margin = tables.margins.gap
        pairs = list(combinations(published.GROUPS[attribute], 2))
        cells = [cell for pair in pairs for cell in gap_changes(tables, "rafdb", pair)]
        top, weakest = _reach(cells)
        wider = np.array([cell.cautious.value for cell in cells]) > 0
        resolved = testing.holm([cell.cautious.p() for cell in cells]) < ALPHA
        text = (
            f"{len(cells)} cells: {len(pairs)} pair{'s' * (len(pairs) > 1)} of groups, each "
            f"setting and their average. {wider.sum()} gaps are wider than at the baseline, "
            f"{(resolved & wider).sum()} of them resolved (Holm). A widening above "
            f"{_points(margin)} points is excluded in {(top < margin).sum()} of the cells; in "
            f"all of them at once, only one above {_points(top.max())} points. Weakest is "
            f"{weakest.name}: {_points(weakest.cautious.value, sign=True)} points, 95 % interval "
            f"{_between(weakest.cautious.interval())}."
        )
        size = f"{_times(cells, margin)} the test set, and more runs, to exclude "
        size += f"{_points(margin)} points in every cell, if nothing widened"
        return verdicts.judge(verdicts.harmless_rule, cells, weakest, text, size, margin)

    return judge


def _reach(cells: list[Cell]) -> tuple[np.ndarray, Cell]:
    """Upper ends of one-sided 95 % intervals, and the cell with the highest."""
    top = np.array([cell.cautious.interval(two_sided=False)[1] for cell in cells])
    return top, cells[int(top.argmax())]


def _times(cells: list[Cell], effect: float) -> str:
    most = max(verdicts.times_larger(cell.cautious, effect) for cell in cells)
    return f"about {_round(most)} times"


def _small_and_good(dataset: str) -> Callable[[Tables], Finding]:
    def judge(tables: Tables) -> Finding:
        margin, least = tables.margins.accuracy, tables.margins.smaller
        sizes = {s.name: s.size_mb for s in published.settings(tables.fer, dataset, ["overall"])}
        times = {name: sizes[published.BASELINE] / size for name, size in sizes.items()}
        _, cells = changes(tables, dataset, ["overall"], [-1])
        small = [cell for cell in cells[:-1] if times[cell.name] >= least]
        if not small:
            most = max(times[cell.name] for cell in cells[:-1])
            text = (
                f"No setting is {least:g} times smaller: by its file, {most:.2f} times is the most."
            )
            return Finding(verdicts.CONTRADICTED, text)
        good = sum(cell.cautious.value < margin for cell in small)
        best = min(small, key=lambda cell: cell.cautious.p_below(margin))
        text = (
            f"{len(small)} settings are at least {least:g} times smaller, which is a fact of their "
            f"files; on these pictures {good} of them lose less than {_points(margin)} points. "
            f"Clearest is {best.name}, {times[best.name]:.2f} times smaller: it loses "
            f"{_points(best.cautious.value)} points, 95 % interval "
            f"{_between(best.cautious.interval())} with the outcomes before and after taken as "
            "unrelated."
        )
        size = f"{_times([best], margin)} the test set to exclude {_points(margin)} points"
        return verdicts.judge(verdicts.some_rule, small, best, text, size, margin)

    return judge


def _p_of(cells: list[Cell]) -> str:
    return verdicts.p_text(verdicts.change_rule([cell.cautious for cell in cells])[1])


def _more_robust(tables: Tables) -> Finding:
    cells, apart = (_loss_differences(tables, effect) for effect in (None, 1.0))
    clearest = min(cells, key=lambda cell: cell.cautious.p())
    average = cells[-1].cautious
    text = (
        f"Of {len(cells) - 1} settings made on both sets, "
        f"{sum(cell.cautious.value > 0 for cell in cells[:-1])} lose more accuracy on CK+; over "
        f"those that prune or cluster the loss there is {_points(average.value)} points larger on "
        f"average, 95 % interval {_between(average.interval())}. Clearest is {clearest.name}: "
        f"{_points(clearest.cautious.value)} points, {_between(clearest.cautious.interval())} from "
        f"its runs, p {verdicts.p_text(clearest.cautious.p())} alone and {{p}} after Holm over "
        f"{len(cells)} ({_p_of(apart)} with independent pictures). Why would be another "
        "question: CK+ is fine-tuned on far fewer pictures in far fewer steps, has another number "
        "of classes and smaller pictures, and nobody fine-tuned without compressing."
    )
    size = f"{_times([cells[-1]], average.value)} both test sets for the average"
    return verdicts.judge(verdicts.change_rule, cells, cells[-1], text, size)


def _loss_differences(tables: Tables, effect: float | None) -> list[Cell]:
    """Loss of accuracy on CK+ minus that on RAF-DB, in the settings that both were made with."""
    first = changes(tables, "ckplus", ["overall"], [-1], design_effect=effect)[1]
    second = changes(tables, "rafdb", ["overall"], [-1], names=_names(tables, "ckplus"))[1]
    return [
        Cell(
            a.name,
            published.minus(a.cautious, b.cautious),
            published.minus(a.favourable, b.favourable),
        )
        for a in first
        for b in second
        if a.name == b.name
    ]


def _names(tables: Tables, dataset: str) -> list[str]:
    return [one.name for one in published.settings(tables.fer, dataset, ["overall"])]


def _quantised_same(tables: Tables) -> Finding:
    margin, cells, moved = tables.margins.accuracy, [], []
    for dataset, attributes in (("ckplus", ["gender"]), ("rafdb", list(published.GROUPS))):
        for group in ["overall", *(g for a in attributes for g in published.GROUPS[a])]:
            base, (cell,) = changes(tables, dataset, [group], [-1], names=["w8"])
            moved.append(abs(cell.cautious.value) * base.n[0])
            cells.append(cell._replace(name=f"{dataset} {_short(group)}"))
    top, weakest = _reach(cells)
    text = (
        f"In {len(cells)} groups of both sets, the whole included, the number of right answers "
        f"changes by {max(moved):.0f} at most. How many pictures changed sides while the number "
        "stayed was not published. Were outcomes before and after unrelated, a loss above "
        f"{_points(margin)} points would be excluded in {(top < margin).sum()} groups, and the "
        f"widest interval ({weakest.name}) would reach {_points(top.max())}."
    )
    size = f"{_times(cells, margin)} the test sets to exclude {_points(margin)} points everywhere"
    return verdicts.judge(verdicts.harmless_rule, cells, weakest, text, size, margin)


def size_ratios(tables: Tables) -> pd.DataFrame:
    """The size ratios that the authors' notebooks print, beside the same from the file sizes.

    Returns
    -------
    pandas.DataFrame
        dataset, what, and times and saved_percent, each as stated and recomputed. Where `what`
        names several settings (pruned, clustered), quantising is compared with not quantising: the
        mean over settings of the ratio, and of the share saved.
    """
    rows = []
    for stated in tables.stated.itertuples():
        found = published.settings(tables.fer, stated.dataset, ["overall"])
        size = {one.name: one.size_mb for one in found}
        if stated.what in size:
            ratios = np.array([size[published.BASELINE] / size[stated.what]])
        else:
            plain = [one.name for one in found if one.method == stated.what and one.judged]
            ratios = np.array([size[name] / size[f"{name}+w8"] for name in plain])
        rows.append((ratios.mean(), 100 * (1 - (1 / ratios).mean())))
    times, saved = zip(*rows, strict=True)
    return tables.stated.assign(times_recomputed=times, saved_recomputed=saved)


def _ratios_agree(tables: Tables) -> Finding:
    table = size_ratios(tables)
    apart = [100 * (table["times"] - table["times_recomputed"]).abs()]
    apart.append(10 * (table["saved_percent"] - table["saved_recomputed"]).abs())
    given = int(table[["times", "saved_percent"]].notna().sum().sum())
    agree = sum(int((units <= 0.5).sum()) for units in apart)  # within half of the last digit
    return Finding(
        verdicts.SUPPORTED if agree == given else verdicts.CONTRADICTED,
        f"{agree} of {given} printed figures come out of the file sizes to the last digit. Chance "
        "has no part in the size of a file. The choice of file format has: unquantised networks "
        "are HDF5, quantised ones TFLite, both zipped.",
    )


# --- verification: Boutros et al. 2022 ---


def verification_changes(table: pd.DataFrame, precision: str) -> list[Cell]:
    """Loss of accuracy against fp32 of each network on each benchmark; positive is a loss.

    Parameters
    ----------
    table : pandas.DataFrame
        From `published.read_quantface`.
    precision : {"w8a8", "w6a6"}
        What to compare with fp32.

    Notes
    -----
    Pairs are taken as independent, though people recur in them: intervals are optimistic there.
    """
    by = table.set_index(["model", "precision"])
    cells = []
    for model in dict.fromkeys(table["model"]):
        for benchmark, n in published.PAIRS.items():
            before, after = (by.loc[(model, p), benchmark] for p in ("fp32", precision))
            loss = before - after
            apart = (before * (1 - before) + after * (1 - after)) / n
            # the least that a change of this size varies: all pairs that flip, flip one way
            least = abs(loss) * (1 - abs(loss)) / n
            both = (Estimate(loss, variance, 0.0, n - 1) for variance in (apart, least))
            cells.append(Cell(f"{model} on {benchmark}", *both))
    return cells


def verification_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every change of accuracy from fp32 with its cautious interval, for `charts_tradeoff.gaps`.

    Columns panel (the precision), setting (the benchmark), method (the network), value, low, high;
    negative is a loss.
    """
    rows = []
    for precision in ("w8a8", "w6a6"):
        for cell in verification_changes(table, precision):
            model, _, benchmark = cell.name.partition(" on ")
            low, high = cell.cautious.interval()
            row = {"panel": precision, "setting": f"{model}, {benchmark}", "method": model}
            rows.append(row | {"value": -cell.cautious.value, "low": -high, "high": -low})
    return pd.DataFrame(rows)


def _keeps_verification(precision: str) -> Callable[[Tables], Finding]:
    def judge(tables: Tables) -> Finding:
        margin = tables.margins.verification
        cells = verification_changes(tables.quantface, precision)
        sizes = tables.quantface.pivot(index="model", columns="precision", values="size_mb")
        times = sizes["fp32"] / sizes[precision]
        top, _ = _reach(cells)
        moved = testing.holm([cell.cautious.p() for cell in cells]) < ALPHA
        lost = moved & (np.array([cell.cautious.value for cell in cells]) > 0)
        beyond = testing.holm([cell.cautious.p_above(margin) for cell in cells]) < ALPHA
        worst = max(cells, key=lambda cell: cell.cautious.value)
        most = {
            model: max(c.cautious.value for c in cells if c.name.startswith(f"{model} "))
            for model in dict.fromkeys(tables.quantface["model"])
        }
        text = (
            f"{times.min():.2f} to {times.max():.2f} times smaller by the nominal sizes given. Of "
            f"{len(cells)} cells, {len(sizes)} networks on {len(published.PAIRS)} benchmarks, a "
            f"loss above {_points(margin)} point is excluded in {(top < margin).sum()} and "
            f"resolved in {beyond.sum()} (Holm); any loss at all is resolved in {lost.sum()}. "
            f"Largest is {worst.name}, {_points(worst.cautious.value)} points, 95 % interval "
            f"{_between(worst.cautious.interval())}. The largest of each network: "
            f"{', '.join(f'{model} {_points(loss)}' for model, loss in most.items())}. All cells "
            f"at once exclude only a loss above {_points(top.max())} points."
        )
        size = (
            f"{_times(cells, margin)} the pairs to exclude {_points(margin)} point in every cell, "
        )
        size += "if nothing were lost"
        return verdicts.judge(verdicts.harmless_rule, cells, worst, text, size, margin)

    return judge


# --- race and quantisation: Neto et al. 2023, 2024 ---


class Spread(NamedTuple):
    """Change of STD or SER from one network to another: interval, p and standard error."""

    value: float
    low: float
    high: float
    p: float
    se: float


def spread_change(
    metric: str, first, second, *, draws: int, seed: int, favourable: bool = False
) -> Spread:
    """Second minus first, of STD or SER of two networks judged on the same 6,000 pairs a group.

    Parameters
    ----------
    metric : str
        A key of `fairness.METRICS` that needs accuracies.
    first, second : array-like
        (G,) accuracies, fractions.
    draws, seed : int
        Imagined repetitions, each with other pairs.
    favourable : bool
        False: the two networks' outcomes are drawn apart. True: within a group all pairs that
        change sides change the same way, the least that these accuracies allow.

    Returns
    -------
    Spread
        A fraction for STD; recentred interval, since both are biased upwards by chance.
    """
    n, compute = published.RFW_PAIRS, fairness.METRICS[metric].compute
    first, second = np.asarray(first, float), np.asarray(second, float)
    rng = np.random.default_rng(seed)
    if favourable:
        change = second - first
        both = np.minimum(first, second)
        shares = np.stack([both, np.abs(change), 1 - both - np.abs(change)], -1)
        kept, flipped, _ = np.moveaxis(rng.multinomial(n, shares, (draws, len(first))), -1, 0)
        before, after = kept + flipped * (change < 0), kept + flipped * (change > 0)
    else:
        before, after = (rng.binomial(n, p, (draws, len(p))) for p in (first, second))
    moved = compute(after / n) - compute(before / n)
    value = float(compute(second) - compute(first))
    low, high = intervals.bounds(moved, value, method="recentred")
    p = testing.bootstrap_p(moved, value)
    return Spread(value, float(low), float(high), float(p), float(moved.std()))


def _raises_bias(tables: Tables) -> Finding:
    rows = tables.rfw[tables.rfw["source"].str.startswith("quantised")].set_index("precision")
    first, second = (rows.loc[p, published.RACES].to_numpy(float) for p in ("fp32", "w8a8"))
    asked = {"draws": tables.draws, "seed": tables.seed}
    std, ser = (spread_change(m, first, second, **asked) for m in ("std", "ser"))
    best = [spread_change(m, first, second, favourable=True, **asked) for m in ("std", "ser")]
    verdict, p = verdicts.by_sign([std.value, ser.value], [std.p, ser.p])
    could, _ = verdicts.by_sign([one.value for one in best], [one.p for one in best])
    sizes = [published.RFW_PAIRS] * len(published.RACES)
    band = testing.null_band(sizes, first.mean(), fairness.std, **asked)
    pairs = published.RFW_PAIRS * (REACH * std.se / std.value) ** 2
    text = (
        f"Two rows of one network, as a third party quotes them: STD goes from "
        f"{_points(fairness.std(first), 3)} to {_points(fairness.std(second), 3)} points, by "
        f"{_points(std.value, 3, sign=True)} (95 % interval {_between((std.low, std.high), 3)}), "
        f"and SER by {_ratio(ser)}; the smaller p is {verdicts.p_text(p)} after Holm. If within "
        "each group all pairs that changed sides had changed the same way, the intervals would be "
        f"{_between((best[0].low, best[0].high), 3)} for STD and {_ratio(best[1])} for SER. That "
        f"the groups differ is another matter: four equal groups would show an STD of "
        f"{_points(band.low, 2)} to {_points(band.high, 2)}."
    )
    decidable = verdict == verdicts.OPEN != could
    outcomes = "might decide on their own" if decidable else "would not be enough"
    needed = (
        f"about {_round(pairs)} pairs a group for a change of STD as small as this, if pairs are "
        "independent and their outcomes before and after unrelated (fewer, if they are related); "
        f"the outcomes of these single pairs {outcomes}"
    )
    return Finding(verdict, text, std.value, std.low, std.high, p, decidable, needed)


def _ratio(ser: Spread) -> str:
    return f"{ser.value:+.2f} ({ser.low:+.2f} to {ser.high:+.2f})"


def rfw_table(tables: Tables) -> pd.DataFrame:
    """Reported RFW accuracies with STD and SER, and what four equal groups would show.

    Columns source, model, precision, threshold_rule, an accuracy (per cent) for each group, figures
    (published or ours), STD (points), its null band, SER, its null band. The null groups have 6,000
    independent pairs each and the network's mean accuracy.
    """
    sizes = [published.RFW_PAIRS] * len(published.RACES)
    accuracy = tables.rfw[published.RACES].to_numpy(float)
    shown = tables.rfw.assign(**{race: 100 * tables.rfw[race] for race in published.RACES})
    for name, unit in (("std", 100), ("ser", 1)):
        metric = fairness.METRICS[name].compute
        bands = [
            testing.null_band(sizes, mean, metric, draws=tables.draws, seed=tables.seed)
            for mean in accuracy.mean(1)
        ]
        shown[name.upper()] = unit * metric(accuracy)
        shown[f"{name.upper()} if equal"] = [
            f"{unit * band.low:.2f} to {unit * band.high:.2f}" for band in bands
        ]
    return shown


def training_sets(tables: Tables) -> pd.DataFrame:
    """STD and SER of networks trained on Balancedface and on Globalface, by threshold rule.

    Returns
    -------
    pandas.DataFrame
        One row a network, threshold_rule and metric: balanced, global, value (global minus
        balanced), low, high, p, se, p_holm (over all rows); STD is a fraction.
    """
    by = tables.rfw.set_index(["model", "threshold_rule"])[published.RACES]
    rows = []
    for network in ("resnet34", "resnet50"):
        for rule in ("one global threshold", "per-group 10-fold"):
            pair = {
                kind: by.loc[(f"{network}-{kind}", rule)].to_numpy(float)
                for kind in ("balanced", "global")
            }
            for metric in ("std", "ser"):
                found = spread_change(metric, *pair.values(), draws=tables.draws, seed=tables.seed)
                compute = fairness.METRICS[metric].compute
                row = {"network": network, "threshold_rule": rule, "metric": metric}
                row |= {kind: float(compute(values)) for kind, values in pair.items()}
                rows.append(row | found._asdict())
    table = pd.DataFrame(rows)
    return table.assign(p_holm=testing.holm(table["p"]))


def _which_set(tables: Tables) -> Finding:
    table = training_sets(tables)
    verdict, p = verdicts.by_sign(-table["value"], table["p"])  # fairer is smaller
    counts = [
        f"{(part['value'] < 0).sum()} of {len(part)} comparisons ({rule})"
        for rule, part in table.groupby("threshold_rule", sort=False)
    ]
    clearest = table.loc[table["p"].idxmin()]
    text = (
        f"Training on Globalface goes with the smaller STD or SER in {' and in '.join(counts)}. "
        f"The smallest p is {verdicts.p_text(clearest['p'])} ({clearest['network']}, "
        f"{clearest['metric'].upper()}, {clearest['threshold_rule']}), {verdicts.p_text(p)} after "
        f"Holm over {len(table)}, with the outcomes of two networks taken as unrelated. The one "
        "threshold was chosen on these very pairs to make STD small. Each network was trained "
        "once, so no number of pairs could tell the training set from the luck of one training."
    )
    return Finding(
        verdict,
        text,
        *clearest[["value", "low", "high"]].astype(float),
        p,
        False,
        "several trainings of each network, compared pair by pair on the public scores",
    )


def _no_figures(tables: Tables) -> Finding:
    accuracy = tables.rfw[published.RACES].to_numpy(float)
    ends = accuracy.min(), accuracy.max()
    seen = [REACH * np.sqrt(2 * a * (1 - a) / published.RFW_PAIRS) for a in ends]
    text = (
        "Only the abstract could be read, no table of results, so nothing can be said for or "
        f"against it. What RFW could show: with {published.RFW_PAIRS:,} pairs a group, two "
        f"networks near {ends[0]:.0%} are told apart, four times in five, if they differ by "
        f"{_points(seen[0])} points, near {ends[1]:.0%} by {_points(seen[1])}, their outcomes "
        "taken as unrelated; compared pair by pair, by less."
    )
    return Finding(verdicts.NONE, text, needed="its tables, or better its scores pair by pair")


def _short(group: str) -> str:
    return group.partition("=")[2] or group


FER, QUANTFACE = "Stoychev and Gunes 2022", "Boutros et al. 2022"
BIAS, DISTIL = "Neto et al. 2023", "Neto et al. 2024"
UNSEEN = "abstract; no figures found"
PLOTTED = (
    "abstract, taken to mean every network; figures from the authors' plotting script, probably "
    "its synthetic variant"
)

CLAIMS = (
    Claim(
        "ratios", FER, "The stated size ratios of pruning, clustering and quantising",
        "the authors' notebooks", EXACT, _ratios_agree,
    ),
    Claim(
        "small-ckplus", FER, "CK+: much smaller, with little effect on overall accuracy",
        "abstract", SOME, _small_and_good("ckplus"),
    ),
    Claim(
        "small-rafdb", FER, "RAF-DB: much smaller, with little effect on overall accuracy",
        "abstract", SOME, _small_and_good("rafdb"),
    ),
    Claim(
        "robust", FER, "RAF-DB keeps its accuracy better than CK+ does",
        "abstract", CHANGE, _more_robust,
    ),
    Claim(
        "gender-ckplus", FER, "CK+: compression makes the gender gap wider",
        "abstract", CHANGE, _gap_widens,
    ),
    *(
        Claim(
            f"{attribute}-rafdb", FER, f"RAF-DB: compression widens no gap of {attribute}",
            "abstract", HARMLESS, _gap_stays(attribute),
        )
        for attribute in published.GROUPS
    ),
    Claim(
        "quantised-same", FER, "8-bit weights alone leave every group's accuracy as it was",
        "the authors' logs", HARMLESS, _quantised_same, READING,
    ),
    Claim(
        "w8a8", QUANTFACE, "8 bits: much smaller at largely the same accuracy, in every network",
        PLOTTED, HARMLESS, _keeps_verification("w8a8"),
    ),
    Claim(
        "w6a6", QUANTFACE, "6 bits: 5 times smaller at largely the same accuracy, in every network",
        PLOTTED, HARMLESS, _keeps_verification("w6a6"),
    ),
    Claim(
        "raises-bias", BIAS, "Quantising a network tends to raise its racial bias",
        "abstract; figures quoted by a third party", CHANGE, _raises_bias,
    ),
    Claim(
        "synthetic-bias", BIAS, "Quantising with synthetic faces lowers bias in most scenarios",
        UNSEEN, "", _no_figures,
    ),
    Claim(
        "training-set", "open RFW score release",
        "A network trained on Globalface is fairer than one trained on Balancedface",
        "the release's table, and our 10-fold accuracies from its scores", CHANGE, _which_set,
        QUESTION,
    ),
    Claim(
        "distilling", DISTIL, "Distillation raises accuracy in every ethnic group and lowers bias",
        UNSEEN, "", _no_figures,
    ),
)  # fmt: skip
