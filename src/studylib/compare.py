"""Several runs of one experiment, side by side on the same pairs."""

from __future__ import annotations

import pandas as pd

from studylib import errors
from studylib.metrics import uncertainty
from studylib.runs import Finished

PAIR = ["item_a", "item_b"]
SETTINGS = ["eval_set", "calibration", "observer", "method", "train_norm", "steps", "seed"]


def join_outcomes(runs: list[Finished]) -> pd.DataFrame:
    """One table of outcomes with every run's scores, as score_<run>/<variant>.

    Parameters
    ----------
    runs : list of Finished
        Runs that scored the same pairs in the same order.

    Raises
    ------
    RunError
        If two runs scored different pairs.
    """
    first = runs[0]
    scores = [c for c in first.outcomes if c.startswith("score_")]
    joined = {"": first.outcomes.drop(columns=scores)}
    for run in runs:
        if not run.outcomes[PAIR].astype(str).equals(first.outcomes[PAIR].astype(str)):
            raise errors.RunError(errors.OTHER_PAIRS.format(first=first.name, other=run.name))
        for column in (c for c in run.outcomes if c.startswith("score_")):
            name = f"score_{run.name}/{column.removeprefix('score_')}"
            joined[name] = run.outcomes[column].rename(name)
    return pd.concat(joined.values(), axis=1)


def settings(runs: dict[str, Finished]) -> pd.DataFrame:
    """What each run was asked, a row a run, with the faces that really calibrated it."""
    rows = {}
    for name, run in runs.items():
        asked = {key: run.parameters[key] for key in SETTINGS}
        if asked["method"] != "qat":
            asked |= {"train_norm": ""}
        if asked["method"] == "ptq":
            asked |= {"steps": ""}
        rows[name] = asked | {"calibration faces": len(run.table("calibration"))}
    return pd.DataFrame.from_dict(rows, orient="index")


def trainings(runs: dict[str, Finished]) -> pd.DataFrame:
    """What each network of `fr_training` was trained on, and how that ended: a row a run."""
    rows = []
    for name, run in runs.items():
        history, asked = run.table("history"), run.parameters
        simulated = asked["data_set"] == "simfaces"
        rows.append(
            {
                "run": name,
                "architecture": asked["architecture"],
                "trained on": asked["shares"] if simulated else asked["data_set"],
                "seed": asked["seed"],
                "epochs": len(history),
                "last loss": history["loss"].iloc[-1],
                "minutes": run.record["wall_seconds"] / 60,
            }
        )
    return pd.DataFrame(rows)


def with_groups(runs: list[Finished]) -> list[Finished]:
    """The runs whose pairs lie in at least two groups.

    Raises
    ------
    RunError
        If there is none.
    """
    found = [r for r in runs if "group" in r.outcomes and r.outcomes["group"].nunique() > 1]
    if not found:
        sets = ", ".join(dict.fromkeys(run.parameters["eval_set"] for run in runs))
        raise errors.RunError(errors.NOTHING_GROUPED.format(sets=sets))
    return found


def networks(runs: list[Finished]) -> pd.DataFrame:
    """Which network each run quantised, and from which source: a row a run.

    Parameters
    ----------
    runs : list of Finished
        Runs of `fr_quantization` on trained networks.

    Returns
    -------
    pandas.DataFrame
        run, network, architecture, trained_on, training_seed, size, calibration, method, source
        (of `source_of`), eval_set; what a network's file does not say is "not noted".

    Raises
    ------
    RunError
        If two runs quantise one network from one source, a run has no fp32 scores, or none of its
        network.
    """
    rows = {}
    for run in runs:
        if "score_fp32" not in run.outcomes:
            raise errors.RunError(errors.NO_REFERENCE.format(run=run.name))
        about = run.table("network").iloc[0].fillna("not noted").to_dict()
        asked = {key: run.parameters[key] for key in ("calibration", "method", "eval_set")}
        row = {"run": run.name} | about | asked | {"source": source_of(run)}
        key = (row["network"], row["source"], row["eval_set"])
        if key in rows:
            said = {"first": rows[key]["run"], "other": run.name, "network": key[0]}
            raise errors.RunError(errors.SAME_VERSION.format(**said, source=key[1]))
        rows[key] = row
    return pd.DataFrame(list(rows.values()))


def source_of(run: Finished) -> str:
    """What quantised a run's network: the faces, and the method unless it only calibrates."""
    source, method = run.parameters["calibration"], run.parameters["method"]
    return source if method == "ptq" else f"{source} {method}"


FP32_ROUNDING = 1e-3  # cosines of one network on two machines, or on a CPU and a GPU, differ less


def join_networks(runs: list[Finished], about: pd.DataFrame) -> pd.DataFrame:
    """One table of outcomes of several networks and sources.

    Parameters
    ----------
    runs : list of Finished
        Runs that scored the same pairs in the same order.
    about : pandas.DataFrame
        From `networks`.

    Returns
    -------
    pandas.DataFrame
        The pairs' columns, score_NETWORK/fp32 once a network, and score_NETWORK/SOURCE/PRECISION.

    Raises
    ------
    RunError
        If two runs scored different pairs, or their networks of one name are different ones.
    """
    joined = join_outcomes(runs)
    table = joined[[c for c in joined if not c.startswith("score_")]]
    columns, first = {}, {}
    for row in about.itertuples():
        full = f"score_{row.network}/fp32"
        scores = joined[f"score_{row.run}/fp32"]
        if full in columns:
            most = float((scores - columns[full]).abs().max())
            if most > FP32_ROUNDING:
                said = {"first": first[full], "other": row.run, "network": row.network}
                raise errors.RunError(errors.OTHER_FP32.format(**said, most=most))
        else:
            columns[full], first[full] = scores, row.run
        own = f"score_{row.run}/"
        for name in (c for c in joined if c.startswith(own) and c != f"{own}fp32"):
            columns[f"score_{row.network}/{row.source}/{name.removeprefix(own)}"] = joined[name]
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def variants(table: pd.DataFrame) -> list[str]:
    """The <run>/<variant> names of a joined table."""
    return [c.removeprefix("score_") for c in table if c.startswith("score_")]


def split_names(table: pd.DataFrame) -> pd.DataFrame:
    """Split a column `variant` of <run>/<variant> names into `series` and `variant`."""
    parts = table["variant"].str.split("/", n=1, expand=True)
    return table.assign(series=parts[0], variant=parts[1])


def between(
    resampled: uncertainty.Resampled, one: str, reference: str, precisions: list[str]
) -> pd.DataFrame:
    """Differences of two runs at each precision that both have: run `one` minus `reference`.

    Empty where they share no precision, or one of them was not made.
    """
    parts = []
    for precision in precisions:
        pair = [f"{reference}/{precision}", f"{one}/{precision}"]
        if set(pair) <= set(resampled.variants):
            parts.append(uncertainty.differences(resampled.take(pair), pair[0]))
    return split_names(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame()


def recoveries(
    resampled: uncertainty.Resampled, damaged: str, repaired: str, precisions: list[str]
) -> pd.DataFrame:
    """Share of each precision's loss in run `damaged` that run `repaired` won back.

    Columns variant and those of `uncertainty.recovery`; the reference is `repaired`'s own fp32.
    Empty where the runs share no precision, or one of them was not made.
    """
    parts = []
    for precision in precisions:
        names = [f"{damaged}/{precision}", f"{repaired}/{precision}"]
        if precision != "fp32" and set(names) <= set(resampled.variants):
            part = uncertainty.recovery(resampled, *names, f"{repaired}/fp32")
            parts.append(part.assign(variant=precision))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
