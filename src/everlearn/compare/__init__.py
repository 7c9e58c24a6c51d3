"""Retraining strategies replayed over history: which one suits this data, and what it costs."""
