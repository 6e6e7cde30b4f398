"""From faces to embeddings, and from these to tables of pairs: all of them, or a protocol's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from studylib import align
from studylib.datasets import ijbc
from studylib.faces import GROUP_COLUMNS, Faces

PART = 4096  # pairs scored at a time: the rows of so many stay in the processor's cache


@torch.inference_mode()
def embed(
    model: nn.Module, faces: Faces, *, device="cpu", batch_size: int = 16, mirror: bool = False
) -> torch.Tensor:
    """Embed every face.

    Parameters
    ----------
    model : torch.nn.Module
        Takes uint8 (B, 3, H, W), gives (B, D); used in the mode it is in.
    faces : Faces
        N faces.
    device : str or torch.device
        Where the model is and the work is done.
    batch_size : int
        Faces at a time.
    mirror : bool
        Add the embedding of each mirrored face before normalising, as InsightFace's verification
        protocol does.

    Returns
    -------
    torch.Tensor
        float32 (N, D) on the CPU, rows of length 1.
    """
    rows = []
    for batch in faces.images.split(batch_size):
        rows.append(F.normalize(_raw(model, batch.to(device), mirror)).cpu())
    return torch.cat(rows)


def _raw(model: nn.Module, batch: torch.Tensor, mirror: bool) -> torch.Tensor:
    """Embed a batch as it comes, lengths and all: float32 (B, D)."""
    embedding = model(batch)
    if mirror:
        embedding = embedding + model(batch.flip(-1))
    return embedding.float()


@torch.inference_mode()
def embed_templates(
    model: nn.Module,
    templates: ijbc.Templates,
    *,
    device="cpu",
    batch_size: int = 64,
    mirror: bool = True,
    size: int = align.SIZE,
) -> torch.Tensor:
    """Embed every template of IJB-B or IJB-C, as InsightFace's script for them does.

    The embeddings of a picture and its mirror image are added, keep their length (a long one is a
    certain one), are weighted by the detector's score, and pooled by `pool_templates`. Pictures
    are read a batch at a time.

    Parameters
    ----------
    model, device, batch_size, mirror
        As `embed` takes them.
    templates : ijbc.Templates
        T templates of N pictures, from `datasets.load_templates`.
    size : int
        Edge of the faces that the network takes.

    Returns
    -------
    torch.Tensor
        float32 (T, D) on the CPU, rows of length 1: `score_pairs(rows, templates.pairs)`.
    """
    rows = []
    for start in range(0, len(templates), batch_size):
        batch = align.resized_batch(templates.batch(start, start + batch_size), size)
        rows.append(_raw(model, batch.to(device), mirror).cpu())
    scores = torch.tensor(templates.pictures["score"].to_numpy(), dtype=torch.float32)
    vectors = torch.cat(rows) * scores[:, None]
    codes = (templates.pictures[column].to_numpy() for column in ("template", "media"))
    return pool_templates(vectors, *codes)


def pool_templates(vectors: torch.Tensor, template: np.ndarray, media: np.ndarray) -> torch.Tensor:
    """Pool pictures into templates: the mean within a medium, the sum of media, length 1.

    So a video of many frames counts as much as one photograph, as in InsightFace's script.

    Parameters
    ----------
    vectors : torch.Tensor
        float32 (N, D), an embedding a picture, of any length.
    template, media : numpy.ndarray
        int64 (N,), codes 0..T-1 of the templates, and the medium within the template.

    Returns
    -------
    torch.Tensor
        float32 (T, D), rows of length 1.
    """
    both, medium, counts = np.unique(
        np.stack([template, media]), axis=1, return_inverse=True, return_counts=True
    )
    means = vectors.new_zeros(len(counts), vectors.shape[1])
    means.index_add_(0, torch.from_numpy(medium.reshape(-1)), vectors)
    means /= torch.from_numpy(counts)[:, None]
    sums = vectors.new_zeros(int(template.max()) + 1, vectors.shape[1])
    return F.normalize(sums.index_add_(0, torch.from_numpy(both[0]), means))


def all_pairs(faces: Faces) -> pd.DataFrame:
    """The table of all unordered pairs of faces, without scores yet.

    Returns
    -------
    pandas.DataFrame
        N (N - 1) / 2 rows: item_a, item_b, subject_a, subject_b, genuine (bool), and each group
        column of the faces twice, as <column>_a and <column>_b.
    """
    return _outcomes(faces, *_pair_index(len(faces)))


def pair_table(faces: Faces, pairs: pd.DataFrame) -> pd.DataFrame:
    """The table of a protocol's fixed pairs, without scores yet.

    Parameters
    ----------
    faces : Faces
        The faces that the pairs are made of.
    pairs : pandas.DataFrame
        P rows as `datasets.load_pairs` gives them: a, b (positions in faces), genuine, fold, and
        group where pairs lie within one.

    Returns
    -------
    pandas.DataFrame
        P rows in the same order, with the columns of `all_pairs` and the protocol's fold and
        group; genuine is what the protocol says.
    """
    table = _outcomes(faces, pairs["a"].to_numpy(), pairs["b"].to_numpy())
    own = [column for column in ("genuine", "fold", "group") if column in pairs]
    return table.assign(**{column: pairs[column].to_numpy() for column in own})


def template_table(templates: ijbc.Templates) -> pd.DataFrame:
    """The table of a template protocol's pairs, without scores yet.

    Returns
    -------
    pandas.DataFrame
        P rows in the protocol's order: item_a and item_b (the set's numbers of the templates),
        subject_a and subject_b (`Templates.people`), and genuine.
    """
    names = pd.Series(templates.ids).astype(str)
    known = pd.DataFrame({"item": names, "subject": templates.people}).astype("category")
    table = _sides(known, templates.pairs["a"].to_numpy(), templates.pairs["b"].to_numpy())
    table["genuine"] = templates.pairs["genuine"].to_numpy()
    return table


def _outcomes(faces: Faces, first, second) -> pd.DataFrame:
    """Write a row a pair of positions: who is on it, and whether both are one person."""
    columns = ["item", "subject", *(c for c in GROUP_COLUMNS if c in faces.table)]
    table = _sides(faces.table[columns].astype("category"), first, second)
    genuine = table["subject_a"].cat.codes == table["subject_b"].cat.codes
    table.insert(4, "genuine", genuine)
    return table


def _sides(known: pd.DataFrame, first, second) -> pd.DataFrame:
    """Each column of a table of categories twice: of a pair's first position and of its second."""
    sides = {}
    for column in known:
        sides[f"{column}_a"] = known[column].iloc[first].reset_index(drop=True)
        sides[f"{column}_b"] = known[column].iloc[second].reset_index(drop=True)
    return pd.DataFrame(sides)


def score_all_pairs(embeddings: torch.Tensor) -> torch.Tensor:
    """Cosine of every unordered pair of rows, in the order of `all_pairs`: float32 (N(N-1)/2,)."""
    first, second = _pair_index(len(embeddings))
    return (embeddings @ embeddings.T)[first, second]


def score_pairs(embeddings: torch.Tensor, pairs: pd.DataFrame) -> torch.Tensor:
    """Cosine of each of a protocol's fixed pairs.

    Parameters
    ----------
    embeddings : torch.Tensor
        float32 (N, D), rows of length 1.
    pairs : pandas.DataFrame
        P rows with a and b, positions in the embeddings.

    Returns
    -------
    torch.Tensor
        float32 (P,), in the order of the pairs.
    """
    first, second = (torch.tensor(pairs[side].to_numpy()) for side in "ab")
    scores = [embeddings.new_empty(0)]
    # In parts: the 15.7 million pairs of IJB-C as rows of 512 would not fit in memory.
    for a, b in zip(first.split(PART), second.split(PART), strict=True):
        scores.append(torch.linalg.vecdot(embeddings[a], embeddings[b]))
    return torch.cat(scores)


def _pair_index(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the first and the second of every pair i < j."""
    first, second = torch.triu_indices(n, n, offset=1)
    return first, second
