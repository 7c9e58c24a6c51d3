"""Excisions: rows withdrawn, and what was learned folded again without them."""
