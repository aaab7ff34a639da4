"""Images and labels: where they come from, how they are read, which of them a step takes."""
