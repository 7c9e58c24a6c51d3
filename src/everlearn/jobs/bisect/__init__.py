"""Bisections: the version that made a model worse, and what in its increment did."""
