"""Keras models as learners. Keras is imported by those files alone that need it."""
