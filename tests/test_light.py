"""What is loaded lightly is the same thing, and what it leaves out comes back."""

import subprocess
import sys

CODE = """
import sys
from studylib import light
altair = light.load("altair")
assert "rfc3987_syntax" not in sys.modules, sys.modules["rfc3987_syntax"]
import altair as again
assert again is altair
import rfc3987_syntax  # whoever needs it still gets it
assert rfc3987_syntax.is_valid_syntax("iri", "http://example.org/")
from studylib import charts
assert charts.alt is altair
assert light.load("altair") is altair and "rfc3987_syntax" in sys.modules
"""


def test_altair_is_loaded_without_the_grammar_and_the_grammar_stays_at_hand():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_notebook_waits_for_what_it_does_not_use():
    """The libraries that take seconds to load, after everything a chapter imports."""
    code = (
        "from studylib import audit, charts_fairness, datasets, findings, models, runs, sheets\n"
        "import sys\n"
        "print([m for m in ('rfc3987_syntax', 'torchvision', 'torch._dynamo', 'sklearn')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
