"""Importing altair and papermill in a second less, or three.

Both bring in jsonschema, which brings in a parser of IRIs where one is installed (Jupyter's event
log wants it), and that parser compiles its grammar when it is imported. No chart and no notebook
holds an IRI to check; a process that imported jsonschema before keeps what it has.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_GRAMMAR = "rfc3987_syntax"


def load(name: str) -> ModuleType:
    """Import a module without that grammar; jsonschema then leaves IRIs unchecked.

    >>> load("altair").__name__
    'altair'
    """
    absent = _GRAMMAR not in sys.modules
    if absent:
        sys.modules[_GRAMMAR] = None  # importing it fails at once, as if it were not installed
    try:
        return importlib.import_module(name)
    finally:
        if absent:
            del sys.modules[_GRAMMAR]
