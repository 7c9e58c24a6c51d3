"""Gradient descent, one row after the other: what all linear models are made of."""
