"""What readers share: tables the user brings, layout errors, and counts held against a paper's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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
