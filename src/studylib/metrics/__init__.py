"""Statistics on tables and tensors of scores; usable on anyone's scores, without any network."""
