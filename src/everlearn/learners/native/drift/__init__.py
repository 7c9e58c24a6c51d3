"""Drift detectors: they watch a stream of numbers, and say when it has changed."""
