"""Accuracy and fairness of compressed face models: a thin library behind the study's notebooks."""

__version__ = "0.1.0"
