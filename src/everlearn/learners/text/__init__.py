"""Learners of texts: tokens for PyTorch modules, encoders of sentences, causal language models."""
