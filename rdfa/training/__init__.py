"""Training: targets, losses, schedule, averaged weights, checkpoints and the loop."""
