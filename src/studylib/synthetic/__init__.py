"""Synthetic faces: photographs from a generator, of people who do not exist."""
