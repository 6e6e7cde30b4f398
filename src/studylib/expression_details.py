"""A closer look at runs on expressions: single pictures, confidence, protocols, the paper's rows.

Which runs belong together, the pictures that compression changes, how far confidence can be
trusted, how two protocols differ, and our runs in the form of the published tables. Joining and
resampling are those of `studylib.expression_compare`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from studylib import errors, expression_compare, expressions, published
from studylib.expression_compare import Drawn, Joined
from studylib.expressions import SIMULATED
from studylib.metrics import classification, intervals, resampling, testing
from studylib.metrics.arrays import divide
from studylib.published import Estimate
from studylib.runs import Finished
from studylib.sheets import Sheet, contact_sheet

# What runs of one recipe may differ in; anything else makes them another study.
_FREE = ("seed", "device", "protocol", "profile", "variants")
SMALLER = ("ckplus", "rafdb")  # the paper's sets, the smaller first


class Study(NamedTuple):
    """Finished runs that differ in seed and protocol alone.

    `parameters` are those they share (of the first run), `runs` protocol -> name -> run.
    """

    parameters: dict
    runs: dict[str, dict[str, Finished]]

    @property
    def protocol(self) -> str:
        """What the study's figures are from: sound runs, or the others where there are none."""
        return "sound" if "sound" in self.runs else next(iter(self.runs))

    @property
    def main(self) -> dict[str, Finished]:
        """The runs of that protocol, by name."""
        return self.runs[self.protocol]

    @property
    def name(self) -> str:
        """The data set, and of simulated faces how many there are to train on."""
        data_set = self.parameters["data_set"]
        if data_set != SIMULATED:
            return data_set
        return f"{data_set} with {self.parameters['n_train']:,} training faces"

    def outcomes(self, protocol: str) -> dict[str, pd.DataFrame]:
        """Run -> outcomes, for `expression_compare.join`."""
        return {name: run.outcomes for name, run in self.runs[protocol].items()}

    def tables(self, name: str, protocol: str) -> list[pd.DataFrame]:
        """A side table of every run of a protocol."""
        return [run.table(name) for run in self.runs[protocol].values()]


def studies(found: list[Finished]) -> list[Study]:
    """Sort finished runs into studies, the one with most runs first."""
    sorted_out: dict[str, Study] = {}
    for run in found:
        shared = {k: v for k, v in run.parameters.items() if k not in _FREE}
        study = sorted_out.setdefault(repr(sorted(shared.items())), Study(run.parameters, {}))
        study.runs.setdefault(run.parameters["protocol"], {})[run.name] = run
    return sorted(sorted_out.values(), key=lambda one: -len(one.main))


# What studies of two sizes may differ in as well: a small set takes more rounds to as many steps.
_BESIDE = {"epochs": "epochs", "n_test": "test faces", "size": "pixels a side"}


class TwoSizes(NamedTuple):
    """Two studies, the one with fewer faces to train on first."""

    smaller: Study
    larger: Study

    @property
    def names(self) -> str:
        """Both, for a sentence."""
        return f"{self.smaller.name} against {self.larger.name}"

    @property
    def simulated(self) -> bool:
        """Whether one program drew both sets."""
        return self.larger.parameters["data_set"] == SIMULATED

    @property
    def differences(self) -> list[str]:
        """What two simulated sets differ in beside the training faces, "epochs (24 against 16)"."""
        return [
            f"{words} ({a} against {b})"
            for key, words in _BESIDE.items()
            if (a := _setting(self.smaller, key)) != (b := _setting(self.larger, key))
        ]


def _setting(study: Study, key: str):
    value = study.parameters.get(key)
    if key == "size" and value is None:
        return expressions.SIZES[study.parameters["data_set"]]
    return value


def of_two_sizes(main: Study, others: list[Study]) -> TwoSizes | None:
    """A smaller and a larger training set to compare with each other; None where no two fit.

    The paper's two sets, or two studies on simulated faces that differ in `n_train`, and perhaps in
    the epochs, the number of test faces and the size of a face, but in nothing else. They need not
    have made the same variants: `loss_differences` takes those that both made.
    """
    for other in others:
        pair = (main, other)
        sets = [study.parameters["data_set"] for study in pair]
        if sorted(sets) == sorted(SMALLER):
            return TwoSizes(*(pair if tuple(sets) == SMALLER else pair[::-1]))
        differ = {k for k in main.parameters if main.parameters[k] != other.parameters.get(k)}
        differ -= {*_FREE, *_BESIDE}
        if sets == [SIMULATED] * 2 and differ == {"n_train"}:
            return TwoSizes(*sorted(pair, key=lambda study: study.parameters["n_train"]))
    return None


def overview(found: list[Study]) -> pd.DataFrame:
    """What was run: a row a study and protocol."""
    rows = []
    for study in found:
        for protocol, of in study.runs.items():
            row = {"study": study.name, "test pictures": len(next(iter(of.values())).outcomes)}
            row |= {key: study.parameters.get(key) for key in ("width", "epochs")}
            seeds = ", ".join(str(run.parameters["seed"]) for run in of.values())
            row |= {"protocol": protocol, "runs": len(of), "seeds": seeds}
            rows.append(row | {"minutes": sum(r.record["wall_seconds"] for r in of.values()) / 60})
    return pd.DataFrame(rows)


# --- single pictures ---


def exemplars(joined: Joined, pairs: dict[str, str]) -> dict[str, np.ndarray]:
    """Pictures on which most runs of a variant say something else than most runs of its control.

    Compression identified exemplars (`classification.identified_exemplars`, Hooker et al. 2019).

    Parameters
    ----------
    joined : Joined
        From `expression_compare.join`.
    pairs : dict of str to str
        Variant -> what to compare it with. A control against the baseline shows how many there are
        when nothing is compressed.

    Returns
    -------
    dict of str to numpy.ndarray
        Variant -> bool (N,).

    Misleads: with one or two runs the commonest prediction is one network's.
    """
    return {
        variant: classification.identified_exemplars(
            joined.predicted[other], joined.predicted[variant]
        )
        for variant, other in pairs.items()
        if {variant, other} <= set(joined.predicted)
    }


def exemplar_table(
    joined: Joined, variant: str, control: str, classes: list[str], *, most: int = 24
) -> pd.DataFrame:
    """The exemplars of one variant, one a person, those on which its runs agree most first.

    Returns
    -------
    pandas.DataFrame
        item, subject and group columns, expression (the label), before and after (what most runs of
        control and variant say; the first class of equals), agreed (share of the runs on both sides
        that say so).
    """
    at = np.flatnonzero(exemplars(joined, {variant: control})[variant])
    sides = [joined.predicted[name][:, at] for name in (control, variant)]
    commonest = [stats.mode(side, axis=0).mode for side in sides]
    agreed = [(side == mode).mean(0) for side, mode in zip(sides, commonest, strict=True)]
    names = np.array(classes)
    table = joined.items.iloc[at].reset_index(drop=True)
    table = table.assign(
        expression=names[table.pop("label").to_numpy()],
        before=names[commonest[0]],
        after=names[commonest[1]],
        agreed=np.mean(agreed, 0),
    )
    table = table.sort_values("agreed", ascending=False, kind="stable")
    return table.drop_duplicates("subject").head(most)


def faces_of(parameters: dict, items) -> Sheet:
    """A contact sheet of some test faces of a run, in the order given.

    Parameters
    ----------
    parameters : dict
        The run's: data_set, data_root, data_seed, size, n_test, and `shift` if it has one.
        Simulated faces are drawn again, the others read from their folder.
    items : iterable of str
        Names in the column item, each of another person.

    Returns
    -------
    studylib.sheets.Sheet
        Without a picture, and saying why, where the faces are not at hand or may not be shown.
    """
    given = {k: parameters[k] for k in ("data_seed", "size", "n_test", "shift") if k in parameters}
    try:
        # test faces do not depend on how many there are to train on
        faces = expressions.load(
            parameters["data_set"], parameters["data_root"], n_train=FEW, **given
        ).test
    except errors.StudyError as problem:
        return Sheet(None, f"The faces cannot be shown here. {problem}")
    place = {item: at for at, item in enumerate(faces.table["item"])}
    if not set(items) <= set(place):
        return Sheet(None, "The faces cannot be shown here: those at hand are others.")
    chosen = faces.take([place[item] for item in items])
    return contact_sheet(chosen, most=len(chosen))


FEW = 64  # faces, enough to divide into parts


# --- calibration ---


def calibration(
    joined: Joined,
    column: str | None,
    variants: list[str],
    *,
    bins: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far confidence is from accuracy, by group: the mean error, and bin by bin.

    Parameters
    ----------
    joined : Joined
        From `expression_compare.join`, with confidences.
    column : str, optional
        A group column; without one everybody is one group.
    variants : list of str
        Which variants; those without confidences are left out.
    bins : int
        Bins of equal width (`classification.calibration_bins`).
    resamples, seed : int
        Resamples of people, drawn within their group.

    Returns
    -------
    errors : pandas.DataFrame
        variant, group, value (expected calibration error, mean over the runs), low, high, n, runs.
        The error of single runs is taken; test set and runs are both in the interval.
    bins : pandas.DataFrame
        variant, group, bin (from 0), confidence (mean), value (accuracy, all runs together), low,
        high, n (pictures times runs); bins without a picture are left out.

    Misleads: as `classification.expected_calibration_error`, which is biased upwards, most in small
    groups.
    """
    kept = [variant for variant in variants if variant in joined.confidence]
    of, names, person, stratum = expression_compare.grouped(joined, column)
    grouped, of = of >= 0, of[of >= 0]
    tables, reliability = [], []
    for variant in kept:
        sure, right = joined.confidence[variant][:, grouped], joined.right(variant)[:, grouped]
        for group, name in enumerate(names):
            inside = of == group
            seen = _bin_sums(sure, right, inside, person, stratum, bins, resamples, seed)
            about = {"variant": variant, "group": name}
            tables.append(about | _ece(seen, int(inside.sum()), len(np.unique(person[inside]))))
            reliability += [about | row for row in _reliability(seen)]
    return (
        pd.DataFrame(tables, columns=CALIBRATION),
        pd.DataFrame(reliability, columns=RELIABILITY),
    )


CALIBRATION = ["variant", "group", "value", "low", "high", "n", "runs"]
RELIABILITY = ["variant", "group", "bin", "confidence", "value", "low", "high", "n"]


def _bin_sums(sure, right, inside, person, stratum, bins, resamples, seed) -> np.ndarray:
    """Sums in one group (1 + resamples, 3, R, bins): pictures, right ones, confidence."""
    r = len(sure)
    at = (sure[:, inside] * bins).astype(int).clip(0, bins - 1)  # (R, M)
    one_hot = (at[:, None] == np.arange(bins)[:, None]).astype(float)  # (R, bins, M)
    kinds = np.stack([one_hot, one_hot * right[:, None, inside], one_hot * sure[:, None, inside]])
    columns = kinds.reshape(3 * r * bins, -1).T  # (M, 3 R bins)
    sums = resampling.cluster_sums(
        columns, person[inside], strata=stratum, resamples=resamples, seed=seed
    )
    return np.concatenate([columns.sum(0)[None], sums]).reshape(-1, 3, r, bins)


def _ece(sums: np.ndarray, n: int, people: int) -> dict:
    """Expected calibration error of a group, mean over its runs, with its interval."""
    every = [
        classification.expected_calibration_error(classification.Bins(*kinds)) for kinds in sums
    ]
    per_run = np.array(every)  # (1 + resamples, R)
    r = per_run.shape[1]
    of_runs = per_run[0].var(ddof=1) / r if r > 1 else 0.0
    counted, right = sums[:, :2].sum(-1).swapaxes(0, 1)  # (1 + resamples, R) each
    accuracy = divide(right, counted)[..., None]
    least = expression_compare.least([n], [people], accuracy[0], accuracy[1:]).item()
    of_test = max(np.nanvar(per_run[1:].mean(1)), least)
    df = (max(people - 1, 1), r - 1 if r > 1 else 1e9)
    found = Estimate(float(per_run[0].mean()), float(of_test), float(of_runs), *df)
    low, high = np.clip(found.interval(), 0, 1)
    return {"value": found.value, "low": low, "high": high, "n": n, "runs": r}


def _reliability(sums: np.ndarray) -> list[dict]:
    """Accuracy of a group in each bin of confidence, all its runs together."""
    n, right, sure = np.moveaxis(sums.sum(2), 1, 0)  # (1 + resamples, bins) each
    low, high = intervals.rate_bounds(divide(right[1:], n[1:]), right[0], n[0])
    columns = {"confidence": divide(sure[0], n[0]), "value": divide(right[0], n[0])}
    columns |= {"low": low, "high": high, "n": n[0].astype(int)}
    return [
        {"bin": at} | {name: values[at] for name, values in columns.items()}
        for at in np.flatnonzero(n[0])
    ]


# --- protocols, data sets, and the paper's own rows ---


def protocols(
    tables: dict[str, dict[str, pd.DataFrame]],
    histories: dict[str, list[pd.DataFrame]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy under two protocols on the same pictures, and how far the best epoch leads the last.

    Parameters
    ----------
    tables : dict
        Protocol -> run -> outcomes; two protocols, the one of interest first.
    histories : dict
        Protocol -> the runs' tables `history`: variant, epoch, chosen_accuracy.
    resamples, seed : int
        Resamples of people.

    Returns
    -------
    pandas.DataFrame
        A row a variant that all runs made: variant, accuracy of either protocol (<name>),
        difference (first minus second, paired by picture), low, high, p, p_holm; and for either,
        <name> gain: accuracy of the best epoch minus that of the last one, both on the faces that
        it was chosen by (NaN for variants that were not trained), with <name> gain low and high
        (95 %, Student's t over the runs; NaN with one).

    Raises
    ------
    DataError
        If the runs judged different pictures.

    Misleads: the difference is that of all in which the protocols differ (`expressions.PROTOCOLS`
    and the faces that are kept for choosing), not that of the choice alone. A gain is never below
    0, since the last epoch is one of those that the best is taken from.
    """
    first, second = tables
    everything = {f"{p}/{run}": t for p, part in tables.items() for run, t in part.items()}
    joined = expression_compare.join(everything)
    drawn = expression_compare.resample(joined, resamples=resamples, seed=seed)
    of_first = np.array([run.startswith(f"{first}/") for run in joined.runs])
    gains = {name: _gains(histories[name]) for name in tables}
    rows = []
    for at, variant in enumerate(drawn.variants):
        values, draws = drawn.values[at, :, 0], drawn.draws[:, at, :, 0]
        sides = [values[of_first], values[~of_first]]
        parts = np.array([s.var(ddof=1) / len(s) if len(s) > 1 else 0.0 for s in sides])
        df = np.array([max(len(side) - 1, 1) for side in sides])
        test = np.var(draws[:, of_first].mean(1) - draws[:, ~of_first].mean(1))
        test = max(test, drawn.least(variant).item())
        means = [float(side.mean()) for side in sides]
        found = Estimate(
            means[0] - means[1],
            float(test),
            float(parts.sum()),
            max(int(drawn.people[0]) - 1, 1),
            published.pooled_df(parts, df),
        )
        low, high = found.interval()
        row = {"variant": variant, first: means[0], second: means[1]}
        row |= {"difference": found.value, "low": low, "high": high, "p": found.p()}
        for name in tables:
            row |= {f"{name} {key}": x for key, x in gains[name].get(variant, _NO_GAIN).items()}
        rows.append(row)
    return pd.DataFrame(rows).assign(p_holm=lambda t: testing.holm(t["p"]))


_NO_GAIN = dict.fromkeys(("gain", "gain low", "gain high"), np.nan)


def _gains(histories: list[pd.DataFrame]) -> dict[str, dict]:
    """Best chosen_accuracy of each variant's epochs minus that of its last, over the runs."""
    gains: dict[str, list[float]] = {}
    for table in histories:
        for variant, of in table.groupby("variant", sort=False)["chosen_accuracy"]:
            gains.setdefault(variant, []).append(of.max() - of.iloc[-1])
    return {variant: _over_runs(each) for variant, each in gains.items()}


def _over_runs(each: list[float]) -> dict:
    found = _NO_GAIN | {"gain": float(np.mean(each))}
    if (r := len(each)) > 1:
        ends = Estimate(found["gain"], 0.0, float(np.var(each, ddof=1)) / r, 1e9, r - 1).interval()
        found |= dict(zip(("gain low", "gain high"), ends, strict=True))
    return found


def loss_differences(first: Drawn, second: Drawn, *, reference: str) -> dict[str, Estimate]:
    """How much more accuracy each variant loses on one data set than on another.

    Parameters
    ----------
    first, second : Drawn
        Of everybody, on two data sets that share neither people nor runs.
    reference : str
        The variant that losses are counted from.

    Returns
    -------
    dict of str to published.Estimate
        Variant (made on both) -> loss on the first minus loss on the second.
    """
    shared = [v for v in first.variants if v in second.variants and v != reference]
    return {
        variant: published.minus(
            expression_compare.contrast(first, [-1], variant, reference),
            expression_compare.contrast(second, [-1], variant, reference),
        )
        for variant in shared
    }


class Resampled(NamedTuple):
    """The accuracies of one study, of everybody and by each group column, and what was compared."""

    everybody: Drawn
    by_group: list[Drawn]
    described: pd.DataFrame


def resampled(study: Study, *, resamples: int = 1000, seed: int = 0) -> Resampled:
    """Join a study's main runs and resample their people, everybody and by group."""
    joined = expression_compare.join(study.outcomes(study.protocol))
    described = expression_compare.settings(study.tables("variants", study.protocol))
    everybody, *by_group = (
        expression_compare.resample(joined, column, resamples=resamples, seed=seed)
        for column in (None, *joined.columns)
    )
    return Resampled(everybody, by_group, described[described["variant"].isin(joined.predicted)])


def published_groups(data_set: str) -> list[str]:
    """The groups of the paper's tables on one of its two sets, "overall" first."""
    errors.one_of("data set of the paper", data_set, SMALLER)
    columns = ["gender"] if data_set == "ckplus" else list(published.GROUPS)
    return ["overall", *(group for column in columns for group in published.GROUPS[column])]


def beside(study: Study, protocol: str, paper: pd.DataFrame, groups: list[str]) -> pd.DataFrame:
    """The paper's rows and ours as they are printed, settings that both have next to each other.

    Parameters
    ----------
    study, protocol
        Whose runs.
    paper : pandas.DataFrame
        From `published.fer_table`, of the same groups.
    groups : list of str
        As in `as_published`.

    Returns
    -------
    pandas.DataFrame
        As `published.printed`, with the column figures: "published" or "ours".
    """
    joined = expression_compare.join(study.outcomes(protocol))
    described = expression_compare.settings(study.tables("variants", protocol))
    ours = as_published(joined, described, groups)
    both = {"published": paper, "ours": ours}
    tables = [
        published.printed(table).assign(figures=name, _at=np.arange(len(table)))
        for name, table in both.items()
    ]
    place = {setting: at for at, setting in enumerate(paper["setting"])}
    together = pd.concat(tables, ignore_index=True)
    order = together["setting"].map(place).fillna(len(place))
    together = together.assign(_order=order).sort_values(["_order", "_at"], kind="stable")
    columns = ["setting", "figures", *[c for c in together if c not in ("setting", "figures")]]
    return together[columns].drop(columns=["_order", "_at"])


def as_published(joined: Joined, described: pd.DataFrame, groups: list[str]) -> pd.DataFrame:
    """Our runs in the form of `published.fer_table`, to stand beside the paper's rows.

    Parameters
    ----------
    joined : Joined
        From `expression_compare.join`.
    described : pandas.DataFrame
        From `expression_compare.settings`.
    groups : list of str
        "overall" and names as in `published.GROUPS`, such as "race=african_american"; ours may be
        written with a dash or a blank.

    Returns
    -------
    pandas.DataFrame
        setting, method, runs, size_mb, and for each group <group> and <group> std (population, over
        the runs; NaN for one), in per cent.
    """
    members = [_members(joined, group) for group in groups]
    rows = []
    for one in described.itertuples():
        if one.variant not in joined.predicted:
            continue
        right = joined.right(one.variant)
        row = {"setting": one.variant, "method": one.method, "runs": len(right)}
        row["size_mb"] = one.zip_mb
        for group, inside in zip(groups, members, strict=True):
            percent = 100 * divide(right[:, inside].sum(1), inside.sum())
            row[group] = percent.mean()
            row[f"{group} std"] = percent.std() if len(percent) > 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _members(joined: Joined, group: str) -> np.ndarray:
    """Who belongs to a group of the published tables, bool (N,)."""
    column, _, wanted = group.partition("=")
    if not wanted:
        return np.ones(len(joined.items), bool)
    if column not in joined.items:
        return np.zeros(len(joined.items), bool)
    names = joined.items[column].astype("string").str.lower().str.replace(r"[ -]", "_", regex=True)
    return (names == wanted.replace("-", "_")).fillna(False).to_numpy(bool)
