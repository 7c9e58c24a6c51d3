"""When and where: plans, the queue, the fold, workers."""
