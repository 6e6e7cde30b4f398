"""From faces to embeddings, and from embeddings to the table of all pairs."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from studylib.faces import GROUP_COLUMNS, Faces


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
        batch = batch.to(device)
        embedding = model(batch)
        if mirror:
            embedding = embedding + model(batch.flip(-1))
        rows.append(F.normalize(embedding.float()).cpu())
    return torch.cat(rows)


def all_pairs(faces: Faces) -> pd.DataFrame:
    """The table of all unordered pairs of faces, without scores yet.

    Returns
    -------
    pandas.DataFrame
        N (N - 1) / 2 rows: item_a, item_b, subject_a, subject_b, genuine (bool), and each group
        column of the faces twice, as <column>_a and <column>_b.
    """
    first, second = _pair_index(len(faces))
    columns = ["item", "subject", *(c for c in GROUP_COLUMNS if c in faces.table)]
    pairs = {}
    for column in columns:
        values = faces.table[column].astype("category")
        pairs[f"{column}_a"] = values.iloc[first].reset_index(drop=True)
        pairs[f"{column}_b"] = values.iloc[second].reset_index(drop=True)
    table = pd.DataFrame(pairs)
    genuine = table["subject_a"].cat.codes == table["subject_b"].cat.codes
    table.insert(4, "genuine", genuine)
    return table


def score_all_pairs(embeddings: torch.Tensor) -> torch.Tensor:
    """Cosine of every unordered pair of rows, in the order of `all_pairs`: float32 (N(N-1)/2,)."""
    first, second = _pair_index(len(embeddings))
    return (embeddings @ embeddings.T)[first, second]


def _pair_index(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the first and the second of every pair i < j."""
    first, second = torch.triu_indices(n, n, offset=1)
    return first, second
