"""Explanations: what a version learned, from whom, and what it answers otherwise."""
