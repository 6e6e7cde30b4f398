"""Readers, one file a data set, and the one way to load any of them by name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from studylib import align, catalog, errors
from studylib.datasets import ijbc, packed, tables
from studylib.faces import GROUP_COLUMNS, Faces, Photos

# What papers say of these sets, to hold a user's copy against.
PUBLISHED_PAIRS = {
    **{name: {"pairs": 6_000} for name in ("lfw", "agedb_30", "calfw", "cplfw")},
    "cfp_fp": {"pairs": 7_000},
    **{
        name: dict.fromkeys(("african", "asian", "caucasian", "indian"), 6_000)
        for name in ("rfw", "rfw_bin")
    },
}
PUBLISHED_IDENTITIES = {
    "ms1mv2": {"pictures": 5_822_653, "identities": 85_742},
    "casia_webface": {"identities": 10_572},
    "bupt_balancedface": {"identities": 28_000},
    "bupt_globalface": {"identities": 38_000},
}
PUBLISHED_TEMPLATES = {"ijbc": {"genuine": 19_557, "impostor": 15_638_932}}
# Which function reads a set of which kind, and what such a set holds.
DOORS = {
    "faces": ("read", "pictures of faces"),
    "pairs": ("load_pairs", "faces and a fixed list of pairs"),
    "identities": ("open_identities", "pictures by identity, to train on"),
    "templates": ("load_templates", "templates of several pictures, and pairs of these"),
}


def kind(name: str) -> str:
    """What a data set of the catalog holds: faces, pairs, identities or templates (`DOORS`)."""
    return _entry(name).kind


def read(name: str, root: str | Path | None = None) -> Photos:
    """Read a data set's pictures as they are stored.

    Parameters
    ----------
    name : str
        A data set of the catalog.
    root : path, optional
        The user's own copy; embedded sets need none.

    Raises
    ------
    DataError
        Unknown name, no root where one is needed, a missing folder, or a broken layout.
    """
    reader, root = _find(name, root, "faces")
    return reader.read(root)


def load(
    name: str,
    root: str | Path | None = None,
    *,
    most: int | None = None,
    per_person: int | None = None,
    seed: int = 0,
) -> tuple[Faces, list[str]]:
    """Read and align a data set: its faces at 112 x 112, and the items without a face.

    Parameters
    ----------
    name, root
        As `read` takes them.
    most : int, optional
        Read only so many pictures of a larger set, drawn without replacement; all by default.
    per_person : int, optional
        Of nobody more than so many pictures, drawn likewise; all by default.
    seed : int
        Of that draw.

    Raises
    ------
    DataError
        As `read`, and if a picture is broken or too many show no face.
    ParameterError
        If most or per_person is below 1.
    """
    photos = read(name, root)
    if most is not None or per_person is not None:
        photos = _drawn(photos, most, per_person, seed)
    aligned = getattr(_reader(_entry(name)), "aligned", None)
    if aligned and aligned(photos):
        return align.resize_all(photos, align.SIZE, grey=False), []
    return align.align(photos)


def _drawn(photos: Photos, most: int | None, per_person: int | None, seed: int) -> Photos:
    """Draw at most so many pictures, of all and of each person, kept in the order of the set."""
    asked = {"most": most, "per_person": per_person}
    errors.at_least(1, **{name: n for name, n in asked.items() if n is not None})
    order = np.random.default_rng(seed).permutation(len(photos))
    if per_person is not None:
        place = photos.table.iloc[order].groupby("subject", observed=True).cumcount()
        order = order[place.to_numpy() < per_person]
    table = photos.table.iloc[np.sort(order[:most])].reset_index(drop=True)
    return dataclasses.replace(photos, table=table)


def load_pairs(name: str, root: str | Path | None = None) -> tuple[Faces, pd.DataFrame]:
    """Read a verification set with its protocol: aligned faces, and the pairs to score.

    Parameters
    ----------
    name : str
        A data set of the catalog whose kind is pairs.
    root : path, optional
        The user's own copy: a folder, or for a .bin set that file.

    Returns
    -------
    faces : Faces
        uint8 (N, 3, 112, 112), each picture once.
    pairs : pandas.DataFrame
        P rows in file order: `a` and `b` (int64, positions in the faces), `genuine` (bool),
        `fold` (int64 0..9, the file order cut in ten) and `group` where pairs lie within one.

    Raises
    ------
    DataError
        Unknown name, no root, a missing folder or file, a broken layout, list or picture.
    """
    reader, root = _find(name, root, "pairs")
    faces, pairs = reader.pairs(root)
    return dataclasses.replace(faces, origin=name), pairs


def open_identities(name: str, root: str | Path | None = None):
    """Open a training set: pictures by identity, not decoded yet, as `packed.pack` takes them.

    Returns
    -------
    object
        With `labels` (int64 (N,), codes 0..K-1), `names` (K identities), `encoded(i)` (the bytes
        of picture i as stored), `groups` (K rows) where the set has any, and `origin`.

    Raises
    ------
    DataError
        Unknown name, no root, a missing folder or a broken layout.
    """
    reader, root = _find(name, root, "identities")
    source = reader.read(root)
    source.origin = name
    return source


def draw(name: str, root: str | Path | None = None, *, n: int, seed: int = 0) -> Faces:
    """Draw faces from a set of faces or of identities, whatever its size: only these are decoded.

    Parameters
    ----------
    name, root
        As `load` or `open_identities` takes them.
    n : int
        Faces wanted, drawn without replacement; all of a smaller set.
    seed : int
        Of the draw.

    Returns
    -------
    Faces
        uint8 (at most n, 3, 112, 112), in the order of the set; pictures without a face are left
        out. Pictures of identities are taken for aligned ones and only resized.

    Raises
    ------
    DataError
        As `load` and `open_identities`, and if a picture that was drawn cannot be decoded.
    ParameterError
        If n is below 1.
    """
    errors.at_least(1, n=n)
    if kind(name) != "identities":
        return load(name, root, most=n, seed=seed)[0]
    source = open_identities(name, root)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(source.labels))[:n])
    return packed.decoded(source, chosen, align.SIZE)


def load_templates(name: str, root: str | Path | None = None) -> ijbc.Templates:
    """Open a set whose protocol compares templates of several pictures (IJB-B, IJB-C).

    Returns
    -------
    ijbc.Templates
        What `embed.embed_templates` takes; pictures are read when they are embedded.

    Raises
    ------
    DataError
        Unknown name, no root, a missing folder, or lists that are broken or disagree.
    """
    reader, root = _find(name, root, "templates")
    return reader.read(root)


def load_pictures(
    name: str, root: str | Path | None = None, *, size: int, grey: bool = True
) -> tuple[Faces, list[str]]:
    """Read a data set as faces of size x size pixels, for expressions.

    Sets whose pictures are faces already (RAF-DB, expression_folder) are only resized; from the
    others faces are cut out by `align.crop`.

    Parameters
    ----------
    name, root
        As `read` takes them.
    size : int
        Height and width of the faces, in pixels.
    grey : bool
        One channel instead of RGB.

    Returns
    -------
    faces : Faces
        uint8 (M, 1 or 3, size, size), with classes where the set has labels.
    missed : list of str
        The items in which no face was found; they are not in `faces`.

    Raises
    ------
    DataError
        As `load`.
    ParameterError
        If size is below 1.
    """
    errors.at_least(1, size=size)
    photos = read(name, root)
    if _reader(_entry(name)).CROPPED:
        return align.resize_all(photos, size, grey=grey), []
    return align.crop(photos, size, grey=grey)


def counts(missed: list[str], **parts: Faces | None) -> pd.DataFrame:
    """How many faces and people each part of a set holds, and how many pictures showed no face."""
    rows = {
        part: {"faces": len(faces), "people": len(faces.subjects)}
        for part, faces in parts.items()
        if faces is not None
    }
    rows["no face found"] = {"faces": len(missed), "people": 0}
    return pd.DataFrame.from_dict(rows, orient="index")


def check(name: str, root: str | Path | None = None) -> list[str]:
    """Read every file of a data set once and say what was found, a line a fact.

    Where a paper published counts of the set, each is held against what was found: a partial copy
    is told, not refused.

    Raises
    ------
    DataError
        At the first thing that is wrong: layout, table, or a picture that cannot be read.
    """
    holds = _entry(name).kind
    if holds == "pairs":
        return _check_pairs(*load_pairs(name, root), PUBLISHED_PAIRS.get(name, {}))
    if holds == "identities":
        return _check_identities(open_identities(name, root), PUBLISHED_IDENTITIES.get(name, {}))
    if holds == "templates":
        return _check_templates(load_templates(name, root), PUBLISHED_TEMPLATES.get(name, {}))
    photos = read(name, root)
    _open_all(photos.open, len(photos))
    subjects = photos.table.drop_duplicates("subject")
    if (photos.table["subject"] == photos.table["item"]).all():
        kind, findings = "pictures", [f"{len(photos)} pictures, all readable; nobody is named"]
    else:
        kind = "subjects"
        findings = [f"{len(photos)} pictures of {len(subjects)} subjects, all readable"]
    if photos.classes:
        labels = photos.table["label"].map(dict(enumerate(photos.classes)))
        findings.append(tables.counted("label (pictures)", labels))
    findings += [
        tables.counted(f"{column} ({kind})", subjects[column])
        for column in GROUP_COLUMNS
        if column in subjects
    ]
    facts = getattr(_reader(_entry(name)), "facts", None)
    return findings + (facts(photos) if facts else [])


def _open_all(opened: Callable[[int], object], n: int) -> None:
    """Call `opened` for every index, several at a time; it raises what is wrong with one."""
    with ThreadPoolExecutor() as readers:
        for start in range(0, n, 1000):  # in parts: millions of waiting calls would fill memory
            for _ in readers.map(opened, range(start, min(start + 1000, n))):
                pass


def _check_pairs(faces: Faces, pairs: pd.DataFrame, published: dict[str, int]) -> list[str]:
    """Say how many pairs there are, by group where they have one, and how folds are made up."""
    groups = pairs["group"] if "group" in pairs else pd.Series("pairs", index=pairs.index)
    kinds = pairs.groupby([groups, pairs["fold"]], sort=True)["genuine"]
    sizes, genuine = kinds.size(), kinds.sum()
    # Blocks: within a fold all genuine pairs come before all impostors, as RFW and LFW list them.
    blocks = kinds.apply(lambda kind: kind.astype(int).is_monotonic_decreasing)
    even = (sizes == 2 * genuine).all()
    return [
        f"{len(faces)} pictures of {len(faces.subjects)} subjects, all readable",
        _held("pairs", groups.value_counts().sort_index().to_dict(), published),
        tables.counted("genuine pairs", groups[pairs["genuine"]]),
        f"folds: {pairs['fold'].nunique()} of {sizes.min()} to {sizes.max()} pairs, "
        + ("half of each genuine" if even else "not half genuine")
        + (", genuine pairs first" if blocks.all() else ", genuine and impostor pairs mixed"),
    ]


def _check_identities(source, published: dict[str, int]) -> list[str]:
    """Decode every picture of a training set once; say how many there are, by group too."""

    def decode(index: int) -> None:
        try:
            packed.decode(source.encoded(index))
        except ValueError as problem:
            name = items[index] if (items := getattr(source, "items", None)) else f"number {index}"
            raise errors.DataError(
                errors.UNREADABLE_IMAGE.format(path=name, reason=problem)
            ) from problem

    _open_all(decode, len(source.labels))
    counts = np.bincount(source.labels, minlength=len(source.names))
    findings = [
        f"{len(source.labels)} pictures of {len(counts)} identities, all readable; "
        f"{counts.min()} to {counts.max()} an identity"
    ]
    if published:
        found = {"pictures": len(source.labels), "identities": len(counts)}
        findings.append(tables.beside("counts", found, published))
    groups = getattr(source, "groups", None)
    for column in () if groups is None else groups.columns:
        findings.append(tables.counted(f"{column} (identities)", groups[column]))
        findings.append(tables.counted(f"{column} (pictures)", groups[column].repeat(counts)))
    return findings


def _check_templates(found: ijbc.Templates, published: dict[str, int]) -> list[str]:
    """Read every picture of a template set once; say how many pictures, media and pairs it has."""
    _open_all(lambda index: found.batch(index, index + 1), len(found))
    media = found.pictures.drop_duplicates(["template", "media"])
    genuine = int(found.pairs["genuine"].sum())
    pairs = {"genuine": genuine, "impostor": len(found.pairs) - genuine}
    return [
        f"{len(found)} pictures in {len(media)} media of {len(found.ids)} templates, all readable",
        _held("pairs", pairs, published),
    ]


def _held(what: str, found: dict[str, int], published: dict[str, int]) -> str:
    """Say counts, held against a paper's where one gives them."""
    if published:
        return tables.beside(what, found, published)
    return f"{what}: " + ", ".join(f"{name} {count}" for name, count in found.items())


def _find(name: str, root: str | Path | None, kind: str) -> tuple[ModuleType, Path | None]:
    """Find a set's reader and root, if it is of this kind and its root is there."""
    entry = _entry(name, kind)
    if entry.kind != kind:
        door, holds = DOORS[entry.kind]
        raise errors.DataError(errors.OTHER_DOOR.format(name=name, holds=holds, door=door))
    reader = _reader(entry)
    if root is None and entry.tier != "embedded":
        raise errors.DataError(errors.NEEDS_ROOT.format(name=name, get=entry.get))
    if root is not None:
        root = Path(root).expanduser()
        # A verification set may be one file, and so may a set whose reader opens an archive.
        file = kind == "pairs" or getattr(reader, "ARCHIVE", False)
        if not (root.is_dir() or (file and root.is_file())):
            raise errors.DataError(
                errors.MISSING_ROOT.format(root=root, name=name, layout=reader.LAYOUT)
            )
    return reader, root


def _reader(entry: catalog.Entry) -> ModuleType:
    return importlib.import_module(entry.reader)


def _entry(name: str, kind: str | None = None) -> catalog.Entry:
    """Look a set up that has a reader; an unknown name is told those of the kind wanted."""
    known = {key: e for key, e in catalog.ENTRIES.items() if e.reader}
    if name in catalog.ENTRIES and catalog.ENTRIES[name].kind == "faces" and name not in known:
        raise errors.DataError(errors.NO_FILES.format(name=name))
    if name not in known:
        choices = sorted(key for key, e in known.items() if kind in (None, e.kind))
        raise errors.DataError(errors.UNKNOWN_DATASET.format(name=name, known=", ".join(choices)))
    return known[name]
