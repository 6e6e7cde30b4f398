"""What runs on expressions say together: sentences, and the paper's findings judged on our data.

Every number comes from a table of `studylib.expression_compare`. Verdicts follow the rules of
`studylib.verdicts`. There, only counts were published; here the outcomes of single pictures are
known, before and after, so that one estimate takes the place of a cautious and a favourable one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from studylib import charts, expression_compare, expressions, verdicts
from studylib.expression_compare import Drawn, Joined, resolved
from studylib.expression_details import Resampled, TwoSizes
from studylib.metrics import testing
from studylib.published import BASELINE, Estimate
from studylib.verdicts import (
    CHANGE,
    HARMLESS,
    PAPER,
    QUESTION,
    SOME,
    Finding,
    Margins,
    between,
    p_text,
    points,
    rounded,
)

STUDY = "Stoychev and Gunes 2022"
COMPRESSES_NOTHING = ("baseline", "control")
FEW_RUNS = 3


def about(joined: Joined, *, simulated: bool) -> str:
    """Say what was judged, how often, and what that cannot tell (Markdown)."""
    people, runs = joined.items["subject"].nunique(), len(joined.runs)
    lines = [
        f"{len(joined.items):,} test pictures of {people:,} people, {len(joined.predicted)} "
        f"variants, {runs} run{'s' * (runs > 1)}. Intervals (95 %) hold the chance of who was "
        "tested (people are resampled within their group) and, given several runs, that of the "
        "seed of training."
    ]
    if simulated:
        lines.append(
            "> **Simulated faces of simulated groups**, drawn by a program. What is found holds "
            "for them; it is a trial of the method, and no statement about people."
        )
    if runs == 1:
        lines.append(
            "> **One run.** How much another seed of training would differ is unknown and in no "
            "interval: what follows speaks of these very networks, not of the recipe."
        )
    elif runs < FEW_RUNS:
        lines.append(
            f"> **{runs} runs** know little of how much runs differ: intervals are wide for it."
        )
    if people == len(joined.items):
        lines.append(
            "Every picture counts as a person of its own: the set does not say who is in it, so "
            "intervals are optimistic if people recur."
        )
    sizes = [_sizes(joined, column) for column in joined.columns]
    lines.append(
        f"Groups: {'; '.join(sizes)}."
        if sizes
        else "The set has no column of two to ten groups: nothing can be said by group."
    )
    if joined.left_out:
        lines.append(f"Not made by every run, and so left out: {charts.listed(joined.left_out)}.")
    return "\n\n".join(lines)


def _sizes(joined: Joined, column: str) -> str:
    found = joined.items[column].astype("string").value_counts()
    names = joined.groups(column)
    counts = ", ".join(f"{name} {found[name]:,}" for name in names)
    nowhere = len(joined.items) - int(found[names].sum())
    return f"{column} ({counts}{f'; in none {nowhere:,}' if nowhere else ''})"


def losses(table: pd.DataFrame, described: pd.DataFrame) -> str:
    """Say how far each method can go before a loss of accuracy against its control is resolved.

    Parameters
    ----------
    table : pandas.DataFrame
        From `expression_compare.changes` of everybody.
    described : pandas.DataFrame
        From `expression_compare.settings`.

    Returns
    -------
    str
        Markdown, a line a method, its variants from the largest to the smallest file.
    """
    if table.empty:
        return "No variant was made together with its control: there is nothing to compare."
    sized = table.assign(p_holm=testing.holm(table["p"])).merge(
        described[["variant", "method", "zip_mb"]], on="variant"
    )
    sized = sized[sized["method"] != "control"].sort_values(
        "zip_mb", ascending=False, kind="stable"
    )
    lines = [
        f"- **{method}**: {_first_loss(sized[sized['method'] == method])}"
        for method in dict.fromkeys(described["method"])
        if (sized["method"] == method).any()
    ]
    return "\n".join(lines)


def training_on(table: pd.DataFrame) -> str:
    """Say what fine-tuning alone changes (`expression_compare.changes`, controls less baseline)."""
    adjusted = testing.holm(table["p"])
    lines = [
        f"- {row['variant']}: {_change(row)}, {'resolved' if resolved(p) else 'not resolved'}."
        for row, p in zip(table.to_dict("records"), adjusted, strict=True)
    ]
    return "\n".join(lines) or "No control was made."


def _first_loss(table: pd.DataFrame) -> str:
    """The first variant of a method, from the largest file down, that loses resolvably."""
    lost = table[resolved(table["p_holm"]) & (table["change"] < 0)]
    last = table.iloc[-1]
    if lost.empty:
        return (
            f"no loss is resolved down to {last['variant']}, which differs from "
            f"{last['control']} by {points(last['change'], sign=True)} points "
            f"({between((last['low'], last['high']))})."
        )
    first = lost.iloc[0]
    text = f"the first resolved loss is that of {first['variant']}, {_change(first)}"
    if first["variant"] != last["variant"]:
        text += f"; the smallest file, {last['variant']}, {_change(last)}"
    return f"{text}."


def _change(row) -> str:
    ends = between((row["low"], row["high"]))
    return f"{points(row['change'], sign=True)} points from {row['control']} ({ends})"


def gap_now(table: pd.DataFrame, baseline: str) -> str:
    """Say how far the groups lie apart at the baseline (table of `expression_compare.gaps`)."""
    row = table.set_index("variant").loc[baseline]
    verdict = "resolved" if resolved(row["p"]) else "not resolved"
    named = f"the best group is {row['highest']}, the worst {row['lowest']}"
    if row["highest"] == row["lowest"]:  # a tie of all groups
        named = "no group is better than another"
    return (
        f"At {baseline} {named}: "
        f"{points(row['gap'])} points apart (95 % interval {points(row['low'])} to "
        f"{points(row['high'])}, p {p_text(row['p'])} over all pairs of groups): {verdict}. The "
        f"smallest group has {row['n']:,} pictures of {row['people']:,} people."
    )


def gap_changes(table: pd.DataFrame, margin: float) -> str:
    """Say which gaps changed against their controls, and what the intervals exclude.

    Parameters
    ----------
    table : pandas.DataFrame
        From `expression_compare.gap_changes`.
    margin : float
        A widening that counts as little.
    """
    if table.empty:
        return "No variant was made together with its control: no gap can be compared."
    found = table[resolved(table["p_holm"])]
    wider, narrower = found[found["change"] > 0], found[found["change"] < 0]
    widest = table.loc[table["high"].idxmax()]
    text = (
        f"{len(table)} comparisons of a gap with the same gap of the control: {len(wider)} wider "
        f"and {len(narrower)} narrower ones are resolved after Holm's correction. A widening of "
        f"more than {points(margin)} points lies outside {(table['high'] < margin).sum()} of the "
        f"intervals; the one that reaches furthest ({widest['variant']}, {widest['pair']}) goes up "
        f"to {points(widest['high'])} points."
    )
    lines = [
        f"- {row['variant']}, {row['pair']}: {_change(row)}."
        for row in found.sort_values("p_holm").head(8).to_dict("records")
    ]
    return "\n".join([text, "", *lines]) if lines else text


def by_class(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Changes of recalls in the form of `charts_expressions.class_effects`.

    Parameters
    ----------
    table : pandas.DataFrame
        From `expression_compare.changes` of accuracies by group and class.
    classes : list of str
        The class names.

    Returns
    -------
    pandas.DataFrame
        With group, expression, value (the change) and resolved, in the order of the classes.
    """
    shown = table.assign(value=table["change"], resolved=resolved(table["p_holm"]))
    place = shown["expression"].map({name: at for at, name in enumerate(classes)})
    order = shown["variant"].map({v: i for i, v in enumerate(dict.fromkeys(table["variant"]))})
    return (
        shown.assign(_v=order, _e=place)
        .sort_values(["_v", "_e", "group"])
        .drop(columns=["_v", "_e"])
    )


def class_losses(table: pd.DataFrame, described: pd.DataFrame) -> str:
    """Say which expressions of which group are lost first, from the largest file down.

    Parameters
    ----------
    table : pandas.DataFrame
        From `by_class`, all variants.
    described : pandas.DataFrame
        From `expression_compare.settings`.
    """
    if table.empty:
        return "No variant was made together with its control: no expression can be compared."
    order = described.sort_values("zip_mb", ascending=False)["variant"]
    lost = table[table["resolved"] & (table["value"] < 0)]
    first = next((v for v in order if v in set(lost["variant"])), None)
    cells = table.groupby("variant").size().max()
    if first is None:
        worst = table.loc[table["value"].idxmin()]
        return (
            f"In none of {table['variant'].nunique()} variants is the loss of any of {cells} cells "
            "(an expression in a group) resolved after Holm's correction. The largest seen is "
            f"{_cell(worst)} in {worst['variant']}, on {worst['n']} pictures."
        )
    part = lost[lost["variant"] == first].sort_values("value")
    lines = [
        f"From the largest file down, the first variant in which a loss is resolved (Holm over its "
        f"{cells} cells) is **{first}**: {'; '.join(_cell(r) for _, r in part.head(5).iterrows())}."
    ]
    counted = lost.groupby(["group", "expression"]).size().sort_values(ascending=False)
    often = ", ".join(f"{g} {e} ({k})" for (g, e), k in counted.head(5).items())
    lines.append(f"Resolved in most variants: {often}.")
    return "\n\n".join(lines)


def _cell(row) -> str:
    ends = between((row["low"], row["high"]))
    return (
        f"{row['expression']} of {row['group']} {points(row['value'], sign=True)} points ({ends})"
    )


def exemplars(table: pd.DataFrame, compared: dict[str, str]) -> str:
    """Say on how many pictures most runs of a variant answer otherwise than its control.

    Parameters
    ----------
    table : pandas.DataFrame
        From `expression_compare.accuracies` of shares of everybody.
    compared : dict of str to str
        Variant -> what it was compared with.
    """
    lines = []
    for row in table.to_dict("records"):
        lines.append(
            f"- {row['variant']} against {compared[row['variant']]}: {row['value']:.1%} of the "
            f"pictures ({row['low']:.1%} to {row['high']:.1%})."
        )
    runs = "The commonest answer of a few runs is itself chance, and training on changes answers "
    runs += "as well: compare with the controls against the baseline."
    return "\n".join([*lines, "", runs]) if lines else "No variant was made with its control."


def calibration(table: pd.DataFrame, baseline: str) -> str:
    """Say how the calibration error of each group differs from the baseline's (no test)."""
    if table.empty:
        return "The runs kept no confidences: calibration cannot be judged."
    wide = table.pivot(index="variant", columns="group", values="value")
    lines = []
    for variant in dict.fromkeys(table["variant"]):
        part = table[table["variant"] == variant].to_dict("records")
        shown = ", ".join(
            f"{r['group']} {points(r['value'])} ({points(r['low'])} to {points(r['high'])})"
            for r in part
        )
        lines.append(f"- {variant}: {shown}.")
    others = wide.drop(index=baseline, errors="ignore")
    apart = wide.max(axis=1) - wide.min(axis=1)
    text = "Mean distance between confidence and accuracy, percentage points:\n\n" + "\n".join(
        lines
    )
    if baseline in wide.index and len(others) and wide.shape[1] > 1:
        text += (
            f"\n\nThe groups' errors lie {points(apart[baseline])} points apart at {baseline}, and "
            f"{points(apart[others.index].min())} to {points(apart[others.index].max())} in the "
            "other variants shown; small groups look worse calibrated by chance alone."
        )
    return text


def protocols(table: pd.DataFrame, first: str, second: str) -> str:
    """Say how two protocols differ in accuracy, and how far the best epoch leads the last one.

    Parameters
    ----------
    table : pandas.DataFrame
        From `expression_details.protocols`.
    first, second : str
        The protocols (`expressions.PROTOCOLS`), the one that chooses on the test set first.
    """
    base, trained = table.iloc[0], table.dropna(subset=[f"{first} gain"])
    pixels, memory = (
        " against ".join(str(expressions.PROTOCOLS[name][key]) for name in (first, second))
        for key in ("pixels", "norm_momentum")
    )
    lines = [
        f"{base['variant']}: {base[first]:.1%} under {first}, {base[second]:.1%} under {second}, a "
        f"difference of {points(base['difference'], sign=True)} points "
        f"({between((base['low'], base['high']))}). Of {len(table)} variants the difference is "
        f"resolved in {resolved(table['p_holm']).sum()} (Holm). It is not that of the choice of "
        f"the epoch: {first} and {second} also differ in the scale of the pixels ({pixels}), in "
        f"the memory of batch normalisation ({memory}) and in the number of training faces, since "
        f"{second} keeps {expressions.VALIDATION:.0%} of the training people for choosing."
    ]
    if len(trained):
        one, gain = trained.iloc[0], trained[f"{first} gain"]
        ends = [one[f"{first} gain {end}"] for end in ("low", "high")]
        told = f"95 % interval {between(ends)} over the runs"
        told = "a single run, so without an interval" if np.isnan(ends).any() else told
        lines.append(
            f"Within {first} the best epoch of {one['variant']} stands "
            f"{points(one[f'{first} gain'])} points above its last one on the test pictures "
            f"({told}); over {len(trained)} trained variants the lead is {points(gain.mean())} "
            f"points on average and {points(gain.max())} at most. The last epoch is one of those "
            "chosen from, so a lead is never below 0; it holds both what looking at the answers "
            "bought and what later epochs truly lost."
        )
    return "\n\n".join(lines)


# --- verdicts ---


def judge(
    found: Resampled,
    margins: Margins,
    *,
    where: str,
    robust: dict[str, Estimate] | None = None,
    sets: TwoSizes | None = None,
) -> pd.DataFrame:
    """Judge the paper's findings on these runs.

    Parameters
    ----------
    found : Resampled
        From `expression_details.resampled`: the study's accuracies, of everybody and by group.
    margins : Margins
        `gap`, `accuracy` and `smaller` say what counts as little, and as much smaller.
    where : str
        Which data and runs.
    robust : dict of str to published.Estimate, optional
        From `expression_details.loss_differences`: loss on the smaller set minus loss on the
        larger one. Without it that finding has no figures.
    sets : TwoSizes, optional
        These two sets, from `expression_details.of_two_sizes`.

    Returns
    -------
    pandas.DataFrame
        As `claims.evaluate`: one row a claim, for `claims.overview` and `claims.told`. Keys:
        "small", "own_small", "robust", and "stays_<column>", "widens_<column>", "own_<column>".
    """
    everybody, by_group, described = found
    tested = [v for v in compressed(described) if v in everybody.variants]
    pairs = expression_compare.controls(described)
    baseline = dict.fromkeys(tested, BASELINE)
    own = {v: pairs[v] for v in tested if v in pairs}
    rows = [
        _row(
            "small",
            "Compression makes the network much smaller and hardly less accurate (against the "
            "baseline, as in the paper).",
            (SOME, PAPER),
            _small(everybody, described, baseline, margins),
        ),
        _row(
            "own_small",
            "Compression itself makes the network much smaller and hardly less accurate (against "
            "a network fine-tuned for as long).",
            (SOME, QUESTION),
            _small(everybody, described, own, margins),
        ),
        _row("robust", _robust_said(sets), (CHANGE, PAPER), _robust(robust, sets)),
    ]
    for drawn in by_group:
        column = drawn.column
        cells = gap_cells(drawn, baseline)
        margin, n = margins.gap, int(drawn.n.min())
        rows += [
            _row(
                f"stays_{column}",
                f"Compression widens no gap by {column} (against the baseline, as in the paper).",
                (HARMLESS, PAPER),
                _stays(cells, margin, n),
            ),
            _row(
                f"widens_{column}",
                f"Compression widens the gap by {column} (against the baseline, as in the paper).",
                (CHANGE, PAPER),
                _widens(cells, n),
            ),
            _row(
                f"own_{column}",
                f"Compression itself widens no gap by {column} (against a network fine-tuned for "
                "as long).",
                (HARMLESS, QUESTION),
                _stays(gap_cells(drawn, own), margin, n),
            ),
        ]
    table = pd.DataFrame(rows)
    return table.assign(paper=STUDY, where=where)


def compressed(described: pd.DataFrame) -> list[str]:
    """The variants in which something was compressed."""
    return described.loc[~described["method"].isin(COMPRESSES_NOTHING), "variant"].tolist()


def gap_cells(drawn: Drawn, pairs: dict[str, str]) -> dict[str, Estimate]:
    """Change of every gap against another variant, positive where wider: "A over B, s50" -> it.

    The group that is ahead at the baseline comes first.
    """
    cells = {}
    for variant, control in pairs.items():
        if not {variant, control} <= set(drawn.variants):
            continue
        for ahead, behind in expression_compare.ordered_pairs(drawn, BASELINE):
            w = np.zeros(len(drawn.groups))
            w[[ahead, behind]] = 1, -1
            name = f"{drawn.groups[ahead]} over {drawn.groups[behind]}, {variant}"
            cells[name] = expression_compare.contrast(drawn, w, variant, control)
    return cells


def _row(key: str, said: str, kind: tuple[str, str], found: Finding) -> dict:
    rule, whose = kind
    p_of = "" if np.isnan(found.p) else verdicts.null(rule, found.verdict)
    about = {"key": key, "said": said, "rule": rule, "whose": whose}
    return about | found._asdict() | {"p_of": p_of}


def _finding(ruled: tuple[str, float], headline: Estimate, evidence: str, needed: str) -> Finding:
    verdict, p = ruled
    low, high = headline.interval()
    needed = needed if verdict == verdicts.OPEN else verdicts.ENOUGH
    return Finding(verdict, evidence, headline.value, low, high, p, False, needed)


def _small(
    drawn: Drawn, described: pd.DataFrame, pairs: dict[str, str], margins: Margins
) -> Finding:
    """Judge losses against the other one of each pair, among variants of much smaller files."""
    sizes = described.set_index("variant")["zip_mb"]
    tested = [v for v, other in pairs.items() if {v, other, BASELINE} <= set(drawn.variants)]
    if not tested:
        text = "There is no compressed variant beside what it is judged by."
        return Finding(verdicts.NONE, text)
    times = sizes[BASELINE] / sizes[tested]
    small = [v for v in tested if times[v] >= margins.smaller]
    if not small:
        text = f"No variant is {margins.smaller:g} times smaller: {times.max():.2f} times is most."
        return Finding(verdicts.CONTRADICTED, text)
    found = {v: expression_compare.contrast(drawn, [-1], v, pairs[v]) for v in small}
    ruled = verdicts.some_rule(list(found.values()), margins.accuracy)
    good = sum(one.value < margins.accuracy for one in found.values())
    best = min(small, key=lambda v: found[v].p_below(margins.accuracy))
    text = (
        f"{len(small)} of {len(tested)} variants are at least {margins.smaller:g} times smaller "
        f"than {BASELINE} (zipped files); here {good} of them lose less than "
        f"{points(margins.accuracy)} points. Clearest is {best}, {times[best]:.2f} times smaller: "
        f"from {pairs[best]} it loses {points(found[best].value)} points, 95 % interval "
        f"{between(found[best].interval())}."
    )
    if set(pairs.values()) == {BASELINE}:
        text += _undertrained(drawn, described)
    return _finding(ruled, found[best], text, _more(found[best], margins.accuracy))


def _undertrained(drawn: Drawn, described: pd.DataFrame) -> str:
    """Warn where training on alone made the baseline better, so that losses look too small."""
    trained = described.loc[described["method"] == "control", "variant"]
    table = expression_compare.changes(drawn, dict.fromkeys(trained, BASELINE))
    table = table.assign(p_holm=testing.holm(table["p"]))
    gained = table[resolved(table["p_holm"]) & (table["change"] > 0)]
    if gained.empty:
        return ""
    each = "; ".join(
        f"{row['variant']} {points(row['change'], sign=True)} points "
        f"({between((row['low'], row['high']))})"
        for row in gained.to_dict("records")
    )
    return f" The baseline was not trained to the end: training on alone gains {each}."


def _robust_said(sets: TwoSizes | None) -> str:
    """The paper's claim, of sets of which one program drew both, or of the paper's own."""
    if sets is None or sets.simulated:
        return "A network with more faces to train on is more robust: it loses less accuracy."
    return "The larger, more varied set is more robust: less accuracy is lost there."


def _robust(found: dict[str, Estimate] | None, sets: TwoSizes | None) -> Finding:
    if not found or sets is None:
        text = (
            "Judging it takes the same variants in two studies that differ in how many faces they "
            "train on, and in little else; among these studies no two do."
        )
        needed = "the same variants with fewer and with more faces to train on"
        return Finding(verdicts.NONE, text, needed=needed)
    ruled = verdicts.change_rule(list(found.values()))
    clearest = min(found, key=lambda v: found[v].p())
    more, less = _resolved(list(found.values()))
    text = (
        f"{sets.names}: of {len(found)} variants made on both, "
        f"{sum(one.value > 0 for one in found.values())} lose more on the first; resolved (Holm) "
        f"are {more} that lose more there and {less} that lose less. Clearest is "
        f"{clearest}: {points(found[clearest].value, sign=True)} points, 95 % interval "
        f"{between(found[clearest].interval())}. {_caveat(sets)}"
    )
    needed = _more(found[clearest], max(abs(found[clearest].value), 0.001))
    return _finding(ruled, found[clearest], text, needed)


def _caveat(sets: TwoSizes) -> str:
    """What else could be behind a difference between two sets."""
    if not sets.simulated:
        return (
            "Size may not be why: the sets differ in much more, such as who is pictured and how, "
            "which expressions are named, and the test pictures."
        )
    if not sets.differences:
        return "One program drew both; the studies differ in nothing else."
    return f"One program drew both; the studies also differ in {charts.listed(sets.differences)}."


def _stays(cells: dict[str, Estimate], margin: float, n: int) -> Finding:
    if not cells:
        return Finding(verdicts.NONE, "No variant was made together with what it is judged by.")
    estimates = list(cells.values())
    top = {name: one.interval(two_sided=False)[1] for name, one in cells.items()}
    weakest = max(top, key=top.get)
    text = (
        f"{len(cells)} cells (a pair of groups in a variant). "
        f"Wider than before: {sum(one.value > 0 for one in estimates)}. A widening above "
        f"{points(margin)} points is excluded in {sum(t < margin for t in top.values())} of the "
        f"cells; in all of them at once, only one above {points(top[weakest])} points. Weakest is "
        f"{weakest}: {points(cells[weakest].value, sign=True)} points, 95 % interval "
        f"{between(cells[weakest].interval())}."
    )
    ruled = verdicts.harmless_rule(estimates, margin)
    return _finding(ruled, cells[weakest], text, _more(cells[weakest], margin, n))


def _widens(cells: dict[str, Estimate], n: int) -> Finding:
    if not cells:
        return Finding(verdicts.NONE, "No variant was made together with what it is judged by.")
    estimates = list(cells.values())
    clearest = min(cells, key=lambda name: cells[name].p())
    wider, narrower = _resolved(estimates)
    text = (
        f"{len(cells)} cells: {wider} wider and {narrower} narrower gaps are resolved (Holm). "
        f"Clearest is {clearest}: {points(cells[clearest].value, sign=True)} points, 95 % interval "
        f"{between(cells[clearest].interval())}."
    )
    needed = _more(cells[clearest], max(abs(cells[clearest].value), 0.001), n)
    return _finding(verdicts.change_rule(estimates), cells[clearest], text, needed)


def _resolved(estimates: list[Estimate]) -> tuple[int, int]:
    """How many are resolved above and below zero, after Holm's correction."""
    adjusted = testing.holm([one.p() for one in estimates])
    signs = np.sign([one.value for one in estimates])[resolved(adjusted)]
    return int((signs > 0).sum()), int((signs < 0).sum())


def _more(found: Estimate, effect: float, n: int | None = None) -> str:
    """What a study would need to see an effect of this size in a cell, four times in five."""
    times = verdicts.times_larger(found, effect)
    pictures = f" ({rounded(times * n)} pictures in the smallest group)" if n else ""
    size = f"about {rounded(times)} times the test set{pictures}"
    size = "a test set of this size" if times <= 1 else size
    return f"{size} for {points(effect)} points, and more runs"
