"""PyTorch modules as learners. PyTorch is imported by those files alone that need it."""
