"""How gradients change weights: optimizers, clipping, learning-rate schedules."""
