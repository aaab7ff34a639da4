"""The speed of a training step, beside the published loops."""
