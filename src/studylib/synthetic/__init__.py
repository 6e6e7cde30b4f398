"""Synthetic faces: photographs from a generator, and drawn faces whose every property is known."""
