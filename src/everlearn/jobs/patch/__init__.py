"""Patches: single answers of the champion put right, solved again for what comes after it."""
