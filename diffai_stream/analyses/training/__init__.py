"""What two or more checkpoints of a training run tell about it: progress, convergence, gradients, learning rate, settings."""
