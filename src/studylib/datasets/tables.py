"""What readers share: tables the user brings, layout errors, and counts held against a paper's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from studylib import errors
from studylib.faces import GROUP_COLUMNS


def wrong_layout(root: Path, name: str, problem: str, layout: str) -> errors.DataError:
    """Make the error that says what is wrong with a data set's folder and what it should hold."""
    return errors.DataError(
        errors.WRONG_LAYOUT.format(root=root, name=name, problem=problem, layout=layout)
    )


def unlike(root: Path, name: str, absent: list[Path], layout: str) -> errors.DataError:
    """Make the error that names the first of some missing files."""
    problem = f"{absent[0].relative_to(root)} is missing ({len(absent)} such files)"
    return wrong_layout(root, name, problem, layout)


def lines(root: Path, name: str, path: Path, layout: str) -> list[tuple[int, str]]:
    """Read a set's text file: the lines that are not empty, stripped, with their numbers from 1.

    Raises
    ------
    DataError
        If the file is missing or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise wrong_layout(root, name, f"{path.relative_to(root)} is missing", layout) from None
    except UnicodeDecodeError as problem:
        reason = f"{path.relative_to(root)} cannot be read ({problem})"
        raise wrong_layout(root, name, reason, layout) from problem
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in numbered if line]


def bad_line(path: Path, number: int, line: str, expected: str) -> errors.DataError:
    """Make the error that shows one line of a set's text file, cut where it is very long."""
    shown = line if len(line) <= 80 else line[:77] + "..."
    return errors.DataError(
        errors.BAD_LINE.format(path=path, number=number, line=shown, expected=expected)
    )


def with_groups(
    table: pd.DataFrame,
    path: Path,
    *,
    key: str = "subject",
    column: str = "subject",
    also: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Add the columns of the user's table to a reader's, if that file is there at all.

    Parameters
    ----------
    table : pandas.DataFrame
        The reader's rows.
    path : Path
        A CSV (UTF-8) with the column `column` and any of `GROUP_COLUMNS`.
    key, column : str
        The columns that must agree, of `table` and of the file.
    also : tuple of str
        Columns to take besides the groups, as they are written.

    Returns
    -------
    pandas.DataFrame
        The same rows; group values in lower case, "unknown" where a field is empty.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, names something twice, or leaves one out.
    """
    if not path.exists():
        return table
    try:
        given = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as problem:
        raise bad_groups(path, f"it cannot be read ({problem})", column) from problem
    groups = [name for name in GROUP_COLUMNS if name in given.columns]
    known = [*(name for name in also if name in given.columns), *groups]
    if column not in given.columns or not known:
        raise bad_groups(path, f"its columns are {', '.join(given.columns)}", column)
    given[column] = given[column].str.strip()
    if given[column].duplicated().any():
        twice = given.loc[given[column].duplicated(), column].iloc[0]
        raise bad_groups(path, f"{column} {twice} is in it twice", column)
    absent = sorted(set(table[key]) - set(given[column]))
    if absent:
        raise bad_groups(path, f"{column} {absent[0]} is not in it ({len(absent)} such)", column)
    cleaned = given[groups].apply(lambda values: values.str.strip().str.lower())
    given[groups] = cleaned.replace("", "unknown")
    added = given.set_index(column)[known].loc[table[key]].reset_index(drop=True)
    return table.drop(columns=known, errors="ignore").join(added)


def bad_groups(path: Path, problem: str, column: str = "subject") -> errors.DataError:
    """Make the error that says what is wrong with the user's table of groups."""
    return errors.DataError(
        errors.BAD_GROUPS.format(
            path=path, problem=problem, column=column, columns=", ".join(GROUP_COLUMNS)
        )
    )


def folds(n: int, count: int = 10) -> np.ndarray:
    """Cut n pairs in file order into folds, as scikit-learn's KFold does without shuffling.

    >>> folds(7, 3).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    sizes = [len(part) for part in np.array_split(np.empty(n), count)]
    return np.repeat(np.arange(count), sizes)


def counted(what: str, values: pd.Series) -> str:
    """Say how often each value occurs, in the order of the values."""
    counts = values.value_counts().sort_index()
    return f"{what}: " + ", ".join(f"{value} {count}" for value, count in counts.items())


def beside(what: str, found: dict[str, int], published: dict[str, int]) -> str:
    """Say counts, and those of a paper where they differ: a partial copy is told, not refused.

    >>> beside("parts", {"train": 5}, {"train": 7, "test": 3})
    'parts: train 5 (published 7), test 0 (published 3)'
    >>> beside("parts", {"train": 5, "test": 3}, {"train": 7, "test": 3})
    'parts: train 5 (published 7), test 3; the rest as published'
    >>> beside("parts", {"test": 3, "train": 7}, {"train": 7, "test": 3})
    'parts: train 7, test 3; all as published'
    """
    other = {name for name, count in published.items() if found.get(name, 0) != count}
    shown = ", ".join(
        f"{name} {found.get(name, 0)}" + (f" (published {count})" if name in other else "")
        for name, count in published.items()
    )
    agreeing = "" if len(other) == len(published) else "; the rest as published"
    return f"{what}: {shown}" + (agreeing if other else "; all as published")


def connected(pairs: pd.DataFrame, n: int) -> np.ndarray:
    """Number the parts of n things that genuine pairs connect: the part of each, int32 (n,).

    Where a protocol names nobody, these are the people it knows of. `pairs` has a, b (positions)
    and genuine.
    """
    a, b = pairs.loc[pairs["genuine"], ["a", "b"]].to_numpy().T
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1]
