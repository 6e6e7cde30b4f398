"""Networks as plain torch modules: fresh ones by function, pretrained ones by name."""

from __future__ import annotations

from torch import nn

from studylib import errors
from studylib.models import sface
from studylib.models.fer_cnn import fer_cnn, parameter_count

__all__ = ["PRETRAINED", "fer_cnn", "load", "parameter_count"]

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
