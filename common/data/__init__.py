"""Images and labels: their sources, their readers, and the batches of a training step."""
