"""Networks as plain torch modules, and the one way to load a pretrained one by name."""

from __future__ import annotations

from torch import nn

from studylib import errors
from studylib.models import sface

PRETRAINED = {"sface": sface.load}


def load(name: str) -> nn.Module:
    """Return a pretrained network in evaluation mode.

    Raises
    ------
    ParameterError
        If no such network is known.
    AssetError
        If its weights cannot be fetched.
    """
    errors.one_of("network", name, PRETRAINED)
    return PRETRAINED[name]()
