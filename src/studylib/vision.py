"""torchvision, importable beside any build of torch.

The registry's torchvision wheel is built for CUDA. Beside a CPU-only torch its compiled operators
cannot load, and its Python side then stops at import because it attaches a fake implementation to
two operators that nobody declared. Declaring their schemas is all that is missing: transforms, data
sets and networks need no compiled operator. Import torchvision through this module only:

>>> from studylib.vision import torchvision
>>> torchvision.utils.make_grid.__name__
'make_grid'
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _declare_missing_operators() -> torch.library.Library | None:
    """Declare nms and qnms unless torchvision's own library does; return what must stay alive."""
    package = Path(importlib.util.find_spec("torchvision").origin).parent
    for library in sorted(package.glob("_C*.so")):
        try:
            torch.ops.load_library(library)
            return None  # an ordinary installation: the compiled operators are there
        except OSError:
            continue
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            fragment.define(schema)
    return fragment


_fragment = _declare_missing_operators()

import torchvision  # noqa: E402
import torchvision.utils  # noqa: E402

__all__ = ["torchvision"]
