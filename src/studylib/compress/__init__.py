"""Compressing networks: they go in as modules and come out as modules; data is someone else's."""
