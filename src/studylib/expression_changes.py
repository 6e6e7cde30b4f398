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

from studylib import errors, expressions, shrink
from studylib import expression_compare as compare
from studylib.compress import quantize
from studylib.expression_compare import ALL, Drawn, Joined
from studylib.faces import GROUP_COLUMNS, Faces
from studylib.metrics import testing

FEWEST = 5  # people in a group that gets results of its own
ALL_EXPRESSIONS = "all pictures"
SHIPPED = "shipped"  # the variant that stands for the packager's own file
# What data sets call expressions, where a network calls them otherwise.
SYNONYMS = {"smiling": "happy", "happiness": "happy"}
_SURE = 1e-6  # probabilities closer to 0 or 1 count as this close: float32 knows no better
_CELL = ["attribute", "group", "expression", "people", "n"]


def compress(
    network: nn.Module, names: list[str], faces: Faces, *, seed: int = 0
) -> dict[str, nn.Module]:
    """Make variants of a network without training anything.

    Parameters
    ----------
    network : torch.nn.Module
        Left as it is.
    names : list of str
        As in `shrink.parse`, without controls and channels, which mean training; or `shipped`:
        TFLite's default quantisation with activations rounded as its kernels do.
    faces : Faces
        From which the faces that calibrate static activation ranges are drawn.
    seed : int
        Of that draw, and of k-means++.

    Returns
    -------
    dict
        Name -> network, in the order of `names`; quantised ones with their quantisers.

    Raises
    ------
    ParameterError
        If a name is unknown, or names something that is trained.
    """
    check(*names)
    plan = shrink.expand([name for name in names if name != SHIPPED], shrink.UNTRAINED)
    parts = expressions.Parts(faces, faces, faces)
    made, _ = shrink.make_all(plan, network, parts, recipe=shrink.UNTRAINED, seed=seed)
    if SHIPPED in names:
        made[SHIPPED] = quantize.dynamic_range(quantize.fold_norms(network), activations=True)
    return {name: made[name] for name in names}


def check(*names: str) -> None:
    """Refuse names of variants that `compress` cannot make (ParameterError)."""
    for name in names:
        trained = ("control", "channels")
        if name != SHIPPED and shrink.parse(name).method.startswith(trained):
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
        for cell, weights in _cells(drawn):
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
        for cell, weights in _cells(drawn):
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
        attribute, expression; highest, lowest (groups, by the first variant), highest_people,
        lowest_people (in these), people (in the smallest of all groups), gap, low, high, p
        (`expression_compare.equality` of the first variant);
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
            for end, g in (("highest", best), ("lowest", worst)):
                about |= {end: drawn.groups[g], f"{end}_people": int(drawn.people[g])}
            about |= {key: found[key] for key in ("people", "gap", "low", "high", "p")}
            low, high = moved.interval()
            changed = {"change": moved.value, "change_low": low, "change_high": high}
            rows.append(about | changed | {"change_p": moved.p()})
    table = pd.DataFrame(rows, columns=_GAP)
    p, change_p = (testing.holm(table[c].to_numpy(float)) for c in ("p", "change_p"))
    return table.assign(p_holm=p, change_p_holm=change_p)


_GAP = ["attribute", "expression", "highest", "highest_people", "lowest", "lowest_people"]
_GAP += ["people", "gap", "low", "high", "p", "change", "change_low", "change_high", "change_p"]


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
        attribute, expression, groups (their number), people (in the smallest), p, variant, p_holm:
        is the mean the same in all groups?
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
            tests.append((column, expression, len(samples), min(map(len, samples)), float(p)))
    about = ["attribute", "expression", "groups", "people", "p"]
    between = pd.DataFrame(tests, columns=about)
    by_group = pd.DataFrame(rows)
    return (
        by_group.assign(variant=second, p_holm=testing.holm(by_group["p"])),
        between.assign(variant=second, p_holm=testing.holm(between["p"])),
    )


def _drawn(
    joined: Joined, classes, variants: list[str] | None, resamples: int, seed: int
) -> Iterator[Drawn]:
    """Everybody first, then each group column; all of them on the same people."""
    for column in [None, *joined.columns]:
        about = {"variants": variants, "resamples": resamples, "seed": seed}
        yield compare.resample(joined, column, classes=classes, **about)


def _cells(drawn: Drawn) -> Iterator[tuple[dict, np.ndarray]]:
    """Each cell's description, and the weights that pick it."""
    for g, (group, one) in enumerate(drawn.cells):
        expression = one or ALL_EXPRESSIONS
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
