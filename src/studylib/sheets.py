"""Contact sheets: faces in a grid, shown only where their licence allows."""

from __future__ import annotations

import base64
import html
import io

import torch
from PIL import Image

from studylib import catalog
from studylib.faces import Faces


class Sheet:
    """A picture with an alternative text and a credit, or a sentence on why there is none."""

    def __init__(self, picture: Image.Image | None, text: str):
        self.picture, self.text = picture, text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        text = html.escape(self.text)
        if self.picture is None:
            return f"<p>{text}</p>"
        data = io.BytesIO()
        self.picture.save(data, "JPEG", quality=88)
        source = base64.b64encode(data.getvalue()).decode()
        return (
            f'<figure><img alt="{text}" src="data:image/jpeg;base64,{source}">'
            f"<figcaption>{text}</figcaption></figure>"
        )


def contact_sheet(faces: Faces, *, most: int = 16, columns: int = 8) -> Sheet:
    """The first faces of distinct subjects, in a grid.

    Parameters
    ----------
    faces : Faces
        What to show; the licence of their origin decides, and is credited.
    most, columns : int
        How many faces at most, and how many a row.

    Returns
    -------
    Sheet
        Shown by Jupyter; without a picture where the licence does not allow one.
    """
    if faces.origin == "noise":
        credit = "Noise: independent uniform pixels"
    else:
        entry = catalog.ENTRIES[faces.origin]
        credit = f"{entry.title}. {entry.citation}. Licence: {entry.licence}"
        if not entry.showable:
            return Sheet(None, f"{entry.title}: these pictures are not shown in published pages.")
    first = ~faces.table["subject"].duplicated().to_numpy()
    shown = faces.take(first.nonzero()[0][:most])
    return Sheet(
        Image.fromarray(_grid(shown.images, columns).permute(1, 2, 0).numpy()),
        f"{len(shown)} of {len(faces)} faces. {credit}.",
    )


def _grid(images: torch.Tensor, columns: int, gap: int = 2) -> torch.Tensor:
    """Lay images (N, C, H, W) on white paper: uint8 (3, height, width).

    As torchvision's make_grid; importing that takes seconds, in every notebook.
    """
    columns = min(columns, len(images))
    height, width = (side + gap for side in images.shape[-2:])
    rows = -(-len(images) // columns)
    paper = torch.full((3, rows * height + gap, columns * width + gap), 255, dtype=torch.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * height + gap, k % columns * width + gap
        paper[:, top : top + height - gap, left : left + width - gap] = image
    return paper
