"""What compressing one pretrained network changed, picture by picture, and for whom.

No training, hence no seeds: one network and its compressed self answer on the same pictures, and
the people in them are the only chance there is. Three looks, from coarse to fine: how many answers
are right (`rates`), which answers changed (`flips`), and how far the odds of the expected answer
moved (`shifts`), which move long before an answer does.

Pictures without labels have the first network's own answers for labels: "right" then means that
the compressed network agrees with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy import special, stats
from torch import nn

from studylib import charts, errors, expressions, shrink, verdicts
from studylib import expression_compare as compare
from studylib.compress import cluster, prune, quantize
from studylib.expression_compare import ALL, Drawn, Joined
from studylib.faces import GROUP_COLUMNS, Faces
from studylib.metrics import testing

ALPHA = 0.05
FEWEST = 5  # people in a group that gets results of its own
ALL_EXPRESSIONS = "all pictures"
SHIPPED = "shipped"  # the variant that stands for the packager's own file
# What data sets call expressions, where a network calls them otherwise.
SYNONYMS = {"smiling": "happy", "happiness": "happy"}
_SURE = 1e-6  # probabilities closer to 0 or 1 count as this close: float32 knows no better
_CELL = ["attribute", "group", "expression", "people", "n"]


def compress(network: nn.Module, name: str, faces: torch.Tensor, *, seed: int = 0) -> nn.Module:
    """Make a variant of a network without training anything.

    Parameters
    ----------
    network : torch.nn.Module
        Left as it is.
    name : str
        As in `shrink.parse`, without controls and channels, which mean training; or `shipped`:
        TFLite's default quantisation with activations rounded as its kernels do.
    faces : torch.Tensor
        uint8 (N, C, H, W), on which static activation ranges are calibrated.
    seed : int
        Of k-means++ seeds.

    Raises
    ------
    ParameterError
        If the name is unknown, or names something that is trained.
    """
    check(name)
    if name == SHIPPED:
        return quantize.dynamic_range(network, activations=True)
    about = shrink.parse(name)
    if about.sparsity:
        pattern = "2:4" if "2of4" in name else "unstructured"
        scope = "global" if name.split("+")[0].endswith("g") else "layer"
        network = prune.prepare(network, scope=scope, pattern=pattern)
        prune.update(network, about.sparsity)
        network = prune.strip(network)
    if about.clusters:
        zeros = about.sparsity > 0
        network = cluster.strip(
            cluster.prepare(network, about.clusters, keep_zeros=zeros, seed=seed)
        )
    if about.precision == "w8":
        return quantize.dynamic_range(network)
    network = quantize.prepare(network, about.precision)
    quantize.calibrate(network, faces)
    return network


def check(*names: str) -> None:
    """Refuse names of variants that `compress` cannot make (ParameterError)."""
    for name in names:
        trained = ("control", "channels")
        if name != SHIPPED and any(shrink.parse(name).method.startswith(kind) for kind in trained):
            raise errors.ParameterError(errors.NEEDS_TRAINING.format(name=name))


def with_labels_of(faces: Faces, classes: list[str]) -> Faces:
    """Faces whose labels are a network's class codes, without those that it has no class for.

    Parameters
    ----------
    faces : Faces
        With classes of its own (matched by name, `SYNONYMS` included), or with none: then they
        come back as they are.
    classes : list of str
        The network's classes.

    Raises
    ------
    DataError
        If no face is left.
    """
    if not faces.classes:
        return faces
    codes = {name: code for code, name in enumerate(classes)}
    wanted = [codes.get(SYNONYMS.get(name, name)) for name in faces.classes]
    label = faces.table["label"].map(dict(enumerate(wanted)))
    if label.isna().all():
        raise errors.DataError(
            errors.NO_COMMON_CLASS.format(
                origin=faces.origin, found=", ".join(faces.classes), wanted=", ".join(classes)
            )
        )
    kept = faces.take(label.notna().to_numpy())
    table = kept.table.assign(label=label.dropna().astype(int).to_numpy())
    return Faces(kept.images, table, kept.origin, tuple(classes))


def outcomes(
    faces: Faces, probabilities: dict[str, torch.Tensor], reference: str = "fp32"
) -> pd.DataFrame:
    """The table of outcomes, with the probability that each variant gives to the expected answer.

    Parameters
    ----------
    faces : Faces
        N faces, from `with_labels_of`; without classes the reference's answers are the labels.
    probabilities : dict
        Variant -> float32 (N, C), from `train.predict`.
    reference : str
        The variant that labels faces without labels.

    Returns
    -------
    pandas.DataFrame
        As `expressions.outcomes`, and for each variant `probability_<variant>` of the label.
    """
    if not faces.classes:
        table = faces.table.assign(label=probabilities[reference].argmax(1).numpy())
        faces = Faces(faces.images, table, faces.origin)
    table = expressions.outcomes(faces, probabilities)
    label = torch.tensor(table["label"].to_numpy(np.int64))[:, None]
    columns = {
        f"probability_{variant}": rows.gather(1, label)[:, 0].numpy()
        for variant, rows in probabilities.items()
    }
    return table.assign(**columns)


def with_bands(table: pd.DataFrame, edges: list[int]) -> pd.DataFrame:
    """Put ages that are given in years into bands; any other table stays as it is.

    Parameters
    ----------
    table : pandas.DataFrame
        With or without a column `age`. Bands are made only if every known age is a number.
    edges : list of int
        The first year of each band, ascending; the last band has no end, and whoever is younger
        than the first edge is in no band.

    Raises
    ------
    ParameterError
        If the edges do not ascend.

    Examples
    --------
    >>> with_bands(pd.DataFrame({"age": ["19", "30", "unknown"]}), [18, 30])["age"].tolist()
    ['18-29', '30+', None]
    """
    check_edges(edges)
    if "age" not in table:
        return table
    known = table["age"].notna() & (table["age"] != "unknown")
    years = pd.to_numeric(table["age"].where(known), errors="coerce")
    if not known.any() or years[known].isna().any():
        return table
    names = [f"{first}-{after - 1}" for first, after in pairwise(edges)] + [f"{edges[-1]}+"]
    bands = pd.cut(years, [*edges, np.inf], right=False, labels=names)
    return table.assign(age=bands.astype(object).where(bands.notna(), None))


def check_edges(edges: list[int]) -> None:
    """Refuse edges of age bands that do not ascend (ParameterError)."""
    if not edges or sorted(set(edges)) != list(edges):
        raise errors.ParameterError(errors.BAD_EDGES.format(value=edges))


def without_few(table: pd.DataFrame, fewest: int = FEWEST) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take people out of groups of fewer than `fewest`; everybody still counts in the whole.

    Returns
    -------
    table : pandas.DataFrame
        With None in the group columns of those people.
    groups : pandas.DataFrame
        attribute, group, people and kept (bool), one row a group.
    """
    errors.at_least(1, fewest=fewest)
    rows = []
    for column in (c for c in GROUP_COLUMNS if c in table):
        people = table.groupby(column)["subject"].nunique()
        rows += [(column, str(group), int(n), n >= fewest) for group, n in people.items()]
        kept = table[column].map(people).fillna(0) >= fewest
        table = table.assign(**{column: table[column].where(kept, None)})
    return table, pd.DataFrame(rows, columns=["attribute", "group", "people", "kept"])


def rates(
    joined: Joined, classes: list[str] | None, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How often each variant is right, for everybody and in each group.

    Intervals (95 %) as `expression_compare.contrast` makes them from resampled people.

    Parameters
    ----------
    joined : Joined
        Outcomes of one run, from `expression_compare.join`.
    classes : list of str or None
        Names of the label codes: a row for each expression. None: all pictures together.
    resamples, seed : int
        Number of resamples, and the seed that draws them.

    Returns
    -------
    pandas.DataFrame
        attribute, group, expression, people, n (pictures), variant, right (a count), value, low,
        high (fractions).
    """
    rows = []
    for drawn in _drawn(joined, classes, None, resamples, seed):
        for cell, weights in _cells(drawn, classes):
            for variant in drawn.variants:
                found = compare.contrast(drawn, weights, variant)
                low, high = np.clip(found.interval(), 0, 1)
                about = {"variant": variant, "right": round(found.value * cell["n"])}
                rows.append(cell | about | {"value": found.value, "low": low, "high": high})
    return pd.DataFrame(rows)


def flips(
    joined: Joined,
    first: str,
    second: str,
    classes: list[str] | None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Which answers changed from one variant to another, for everybody and in each group.

    Parameters
    ----------
    joined, classes, resamples, seed
        As in `rates`.
    first, second : str
        Variants, such as the float network and the compressed one.

    Returns
    -------
    pandas.DataFrame
        The cell's columns as in `rates`; lost, gained (pictures that only the first, only the
        second gets right), other (both wrong in two ways); change = (gained - lost) / n with low
        and high (95 %, never narrower than Wilson's bound for no change in n pictures); p from
        McNemar's exact test where nobody has two pictures in the cell, else from the resampled
        people; variant (the second); p_holm corrected over all rows.
    """
    label = joined.items["label"].to_numpy()
    a, b = joined.predicted[first][0], joined.predicted[second][0]
    became = pd.DataFrame(
        {
            "lost": (a == label) & (b != label),
            "gained": (a != label) & (b == label),
            "other": (a != label) & (b != label) & (a != b),  # wrong in two ways
        }
    )
    rows = []
    for drawn in _drawn(joined, classes, [first, second], resamples, seed):
        counts = became.groupby(_names(joined, drawn.column, classes)).sum()
        for cell, weights in _cells(drawn, classes):
            found = compare.contrast(drawn, weights, second, first)
            low, high = np.clip(found.interval(), -1, 1)
            moved = counts.loc[(cell["group"], cell["expression"])].to_dict()
            alone = cell["n"] == cell["people"]
            p = float(testing.mcnemar(moved["lost"], moved["gained"])) if alone else found.p()
            rows.append(cell | moved | {"change": found.value, "low": low, "high": high, "p": p})
    table = pd.DataFrame(rows)
    return table.assign(variant=second, p_holm=testing.holm(table["p"]))


def gaps(
    joined: Joined,
    first: str,
    second: str,
    classes: list[str] | None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How far apart the groups are with the first variant, and what the second changes in that.

    Parameters
    ----------
    joined, first, second, classes, resamples, seed
        As in `flips`.

    Returns
    -------
    pandas.DataFrame
        attribute, expression; highest, lowest (groups, by the first variant), people (in the
        smallest group), gap, low, high, p (`expression_compare.equality` of the first variant);
        change (of the gap of these two groups), change_low, change_high, change_p; p_holm and
        change_p_holm, each corrected over the rows. Empty without groups.
    """
    rows = []
    for expression, part in _by_expression(joined, classes):
        for column in part.columns:
            drawn = compare.resample(
                part, column, variants=[first, second], resamples=resamples, seed=seed
            )
            found = compare.equality(drawn, first)
            accuracy = drawn.accuracy(first)
            pairs = compare.ordered_pairs(drawn, first)  # two groups even where all are equal
            best, worst = max(pairs, key=lambda pair: accuracy[pair[0]] - accuracy[pair[1]])
            ends = np.eye(len(accuracy))
            moved = compare.contrast(drawn, ends[best] - ends[worst], second, first)
            about = {"attribute": column, "expression": expression}
            about |= {"highest": drawn.groups[best], "lowest": drawn.groups[worst]}
            about |= {key: found[key] for key in ("people", "gap", "low", "high", "p")}
            low, high = moved.interval()
            changed = {"change": moved.value, "change_low": low, "change_high": high}
            rows.append(about | changed | {"change_p": moved.p()})
    table = pd.DataFrame(rows, columns=_GAP)
    p, change_p = (testing.holm(table[c].to_numpy(float)) for c in ("p", "change_p"))
    return table.assign(p_holm=p, change_p_holm=change_p)


_GAP = ["attribute", "expression", "highest", "lowest", "people", "gap", "low", "high", "p"]
_GAP += ["change", "change_low", "change_high", "change_p"]


def _by_expression(joined: Joined, classes) -> Iterator[tuple[str, Joined]]:
    """The pictures of each expression, as outcomes of their own."""
    if classes is None:
        yield ALL_EXPRESSIONS, joined
        return
    label = joined.items["label"].to_numpy()
    for code in np.unique(label):
        of = label == code
        sides = ({v: x[:, of] for v, x in d.items()} for d in (joined.predicted, joined.confidence))
        items = joined.items[of].reset_index(drop=True)
        yield classes[code], Joined(items, joined.runs, *sides, joined.left_out)


def shifts(
    table: pd.DataFrame, first: str, second: str, classes: list[str] | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far the odds of the expected answer moved, and whether groups differ in that.

    A shift is a difference of log odds, log(p / (1 - p)): where the network is sure, probabilities
    have no room to move, and groups on which it is surer would seem to be spared. A person's shift
    is the mean over their pictures, and people are independent: Student's t for each group's mean,
    and for equal means of all groups the test of Alexander and Govern 1994, which allows them
    different variances.

    Parameters
    ----------
    table : pandas.DataFrame
        subject, label, any group columns, and probability_<variant> (of the label).
    first, second : str
        Variants; a shift is the second's log odds minus the first's.
    classes : list of str or None
        As in `rates`.

    Returns
    -------
    by_group : pandas.DataFrame
        The cell's columns as in `rates`; shift, low, high (95 %; natural log odds), p, variant
        (the second), p_holm over all rows. NaN where fewer than two people, or people who do not
        differ at all, allow no test.
    between : pandas.DataFrame
        attribute, expression, groups (their number), p, variant, p_holm: is the mean the same in
        all groups?
    """
    odds = (
        special.logit(table[f"probability_{one}"].astype(float).clip(_SURE, 1 - _SURE))
        for one in (second, first)
    )
    items = table.assign(shift=np.subtract(*odds))
    rows, tests = [], []
    for column in [None, *_columns(table)]:
        names = [_group(items, column), _expression(items, classes)]
        cells = items.groupby(names)
        means = {key: cell.groupby("subject")["shift"].mean() for key, cell in cells}
        for (group, expression), cell in cells:
            each = means[group, expression]
            about = (column or ALL, group, expression, len(each), len(cell))
            rows.append(dict(zip(_CELL, about, strict=True)) | _mean(each))
        for expression in dict.fromkeys(key[1] for key in means) if column else ():
            samples = [each for key, each in means.items() if key[1] == expression]
            testable = len(samples) > 1 and all(_varies(each) for each in samples)
            p = stats.alexandergovern(*samples).pvalue if testable else np.nan
            tests.append((column, expression, len(samples), float(p)))
    between = pd.DataFrame(tests, columns=["attribute", "expression", "groups", "p"])
    by_group = pd.DataFrame(rows)
    return (
        by_group.assign(variant=second, p_holm=testing.holm(by_group["p"])),
        between.assign(variant=second, p_holm=testing.holm(between["p"])),
    )


def rates_table(rates: pd.DataFrame) -> pd.DataFrame:
    """Everybody's rates in % with their intervals, a row a variant and a column an expression."""
    whole = rates[rates["attribute"] == ALL]
    texts = [
        f"{100 * row.value:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"
        for row in whole.itertuples()
    ]
    wide = whole.assign(text=texts).pivot(index="variant", columns="expression", values="text")
    return wide.loc[list(dict.fromkeys(whole["variant"]))].rename_axis(columns="right, %")


def by_variant(flips: pd.DataFrame) -> pd.DataFrame:
    """Everybody's changes as `charts_tradeoff.gaps` draws them, a row a variant and expression.

    Parameters
    ----------
    flips : pandas.DataFrame
        Tables of `flips`, one after the other.
    """
    whole = flips[flips["attribute"] == ALL]
    kinds = [SHIPPED if name == SHIPPED else shrink.parse(name).method for name in whole["variant"]]
    drawn = {"panel": whole["expression"], "setting": whole["variant"], "method": kinds}
    return whole.assign(value=whole["change"], **drawn)


def by_group(shifts: pd.DataFrame, variant: str) -> pd.DataFrame:
    """One variant's shifts as `charts_tradeoff.gaps` draws them, as relative changes of the odds.

    A row a group and expression; those that allow no interval are left out.
    """
    drawn = shifts[shifts["variant"] == variant].dropna(subset=["low", "high"])
    names = [
        f"{row.group if row.attribute == ALL else f'{row.attribute} {row.group}'}, "
        f"{row.people} people"
        for row in drawn.itertuples()
    ]
    ends = {"value": drawn["shift"], "low": drawn["low"], "high": drawn["high"]}
    columns = {"panel": drawn["expression"], "setting": names, "method": drawn["attribute"]}
    return drawn.assign(**columns, **{name: np.expm1(log) for name, log in ends.items()})


def as_rates(rates: pd.DataFrame, variants: list[str]) -> pd.DataFrame:
    """Rates of some variants as `charts_fairness.group_intervals` draws them."""
    drawn = rates[rates["variant"].isin(variants) & (rates["attribute"] != ALL)]
    groups = drawn["attribute"] + " " + drawn["group"]
    return drawn.assign(group=groups, series=drawn["variant"], metric=drawn["expression"])


def group_sizes(groups: pd.DataFrame) -> str:
    """Say how many people stand behind the groups, from the table of `without_few` (Markdown)."""
    if not len(groups):
        return "The set says nothing of groups: all results are of everybody together."

    def named(rows: pd.DataFrame) -> str:
        shown = (f"{r.attribute} {r.group} ({r.people})" for r in rows.itertuples())
        return charts.listed(shown)

    kept, left = groups[groups["kept"]], groups[~groups["kept"]]
    lines = [f"People in each group: {named(kept)}."] if len(kept) else []
    if len(left):
        lines.append(f"Too few for a result of their own: {named(left)}.")
    lines.append(
        "**So few cannot stand for a population.** An interval says how far a number could have "
        "come out otherwise with other people like these; it knows of no people unlike them."
    )
    return " ".join(lines)


def answers(table: pd.DataFrame, first: str, second: str) -> str:
    """Say in words which answers changed, from the table of `flips` (Markdown)."""
    table = table[table["variant"] == second]
    whole = table[table["attribute"] == ALL]
    changed = int(whole[["lost", "gained", "other"]].to_numpy().sum())
    lines = [
        f"On {changed} of {whole['n'].sum()} pictures the answers of {first} and {second} differ.",
        "",
    ]
    for row in whole.to_dict("records"):
        lines.append(
            f"- {row['expression']}: {row['lost']} lost and {row['gained']} gained of {row['n']}, "
            f"a change of {verdicts.points(row['change'], sign=True)} percentage points "
            f"({verdicts.between((row['low'], row['high']))}; p {verdicts.p_text(row['p'])})."
        )
    groups = table[table["attribute"] != ALL]
    if len(groups):
        lines += ["", _by_group(groups)]
    return "\n".join(lines)


def odds(by_group: pd.DataFrame, between: pd.DataFrame, first: str, second: str) -> str:
    """Say in words how the expected answer's odds moved (tables of `shifts`; Markdown)."""
    by_group = by_group[by_group["variant"] == second]
    lines = [f"Odds of the expected answer, from {first} to {second}:", ""]
    for row in by_group[by_group["attribute"] == ALL].to_dict("records"):
        seen = "resolved" if row["p_holm"] < ALPHA else "not resolved"
        lines.append(f"- {row['expression']}: {_percent(row)}, {seen}.")
    tested = between[between["variant"] == second].dropna(subset="p")
    if len(tested):
        apart = tested[tested["p_holm"] < ALPHA]
        found = [_extremes(by_group, row) for row in apart.to_dict("records")]
        lines += ["", " ".join(found) if found else _no_difference(tested)]
    return "\n".join(lines)


def _percent(row: dict) -> str:
    """A shift as a relative change of the odds, with its interval."""
    value, *ends = (np.expm1(row[key]) for key in ("shift", "low", "high"))
    within = "no interval" if np.isnan(ends[0]) else verdicts.between(ends)
    return f"{verdicts.points(value, sign=True)} % ({within})"


def distances(table: pd.DataFrame, first: str, second: str) -> str:
    """Say in words how far apart groups are, and what compression did to it (table of `gaps`)."""
    if not len(table):
        return "There are no groups to compare."
    lines = []
    for row in table[table["p_holm"] < ALPHA].to_dict("records"):
        told = "resolved" if row["change_p_holm"] < ALPHA else "not resolved"
        lines.append(
            f"- {row['attribute']}, {row['expression']}: {first} is right more often for "
            f"{row['highest']} than for {row['lowest']}, by {verdicts.points(row['gap'])} points "
            f"({verdicts.points(row['low'])} to {verdicts.points(row['high'])}; p "
            f"{verdicts.p_text(row['p_holm'])} after Holm). {second} changes this gap by "
            f"{verdicts.points(row['change'], sign=True)} points "
            f"({verdicts.between((row['change_low'], row['change_high']))}; {told})."
        )
    if not lines:
        return (
            f"Groups were compared {len(table)} times; no difference between them is resolved with "
            f"{first}, and with so few people only large ones could be."
        )
    changed = (table["change_p_holm"] < ALPHA).sum()
    return "\n".join(
        [
            f"Of {len(table)} comparisons of groups, those that are resolved:",
            "",
            *lines,
            "",
            f"In {changed} of the {len(table)} a change of the gap between the groups furthest "
            "apart is resolved.",
        ]
    )


def _by_group(groups: pd.DataFrame) -> str:
    seen = groups[groups["p_holm"] < ALPHA]
    widest = groups.assign(reach=groups[["low", "high"]].abs().max(axis=1)).nlargest(1, "reach")
    row = widest.iloc[0]
    named = [f"{r.attribute} {r.group} ({r.expression})" for r in seen.itertuples()]
    told = (
        f"After Holm's correction over {len(groups)} groups and expressions and the rows above, a "
        f"change is resolved for {charts.listed(named)}."
        if named
        else f"In none of the {len(groups)} groups and expressions is a change resolved (smallest "
        f"corrected p {verdicts.p_text(groups['p_holm'].min())})."
    )
    return (
        f"{told} That is no proof of equal treatment: for {row['attribute']} {row['group']} "
        f"({row['people']} people, {row['expression']}) anything from "
        f"{verdicts.between((row['low'], row['high']))} points is inside the interval."
    )


def _extremes(by_group: pd.DataFrame, test: dict) -> str:
    of = (by_group["attribute"] == test["attribute"]) & (
        by_group["expression"] == test["expression"]
    )
    ordered = by_group[of].sort_values("shift")
    ends = [f"{row['group']} {_percent(row)}" for row in ordered.iloc[[0, -1]].to_dict("records")]
    return (
        f"By {test['attribute']} the changes differ on {test['expression']} "
        f"(p {verdicts.p_text(test['p_holm'])} after Holm): from {ends[0]} to {ends[1]}."
    )


def _no_difference(tested: pd.DataFrame) -> str:
    return (
        f"Whether the change is the same in all groups was tested {len(tested)} times "
        f"({charts.listed(dict.fromkeys(tested['attribute']))}); no difference is resolved "
        f"(smallest corrected p {verdicts.p_text(tested['p_holm'].min())})."
    )


def _drawn(
    joined: Joined, classes, variants: list[str] | None, resamples: int, seed: int
) -> Iterator[Drawn]:
    """Everybody first, then each group column; all of them on the same people."""
    for column in [None, *joined.columns]:
        about = {"variants": variants, "resamples": resamples, "seed": seed}
        yield compare.resample(joined, column, classes=classes, **about)


def _cells(drawn: Drawn, classes) -> Iterator[tuple[dict, np.ndarray]]:
    """Each cell's description, and the weights that pick it."""
    for g, name in enumerate(drawn.groups):
        group, expression = name.rsplit(", ", 1) if classes is not None else (name, ALL_EXPRESSIONS)
        about = (drawn.column or ALL, group, expression, int(drawn.people[g]), int(drawn.n[g]))
        yield dict(zip(_CELL, about, strict=True)), np.eye(len(drawn.groups))[g]


def _columns(table: pd.DataFrame) -> list[str]:
    """Group columns that `Joined.columns` would compare too."""
    return Joined(table, [], {}, {}, []).columns


def _names(joined: Joined, column: str, classes) -> list[pd.Series]:
    return [_group(joined.items, column or None), _expression(joined.items, classes)]


def _group(items: pd.DataFrame, column: str | None) -> pd.Series:
    if column is None:
        return pd.Series(ALL, index=items.index, name="of")
    return items[column].astype("string").replace(compare.UNSURE, pd.NA).rename("of")


def _expression(items: pd.DataFrame, classes) -> pd.Series:
    if classes is None:
        return pd.Series(ALL_EXPRESSIONS, index=items.index, name="expression")
    return items["label"].map(dict(enumerate(classes))).rename("expression")


def _varies(each: pd.Series) -> bool:
    return len(each) > 1 and each.std() > 0


def _mean(each: pd.Series) -> dict[str, float]:
    found = {"shift": each.mean(), "low": np.nan, "high": np.nan, "p": np.nan}
    if _varies(each):
        test = stats.ttest_1samp(each, 0)
        interval = test.confidence_interval()
        found |= {"low": interval.low, "high": interval.high, "p": test.pvalue}
    return {key: float(value) for key, value in found.items()}
