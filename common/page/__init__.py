"""The page: four frameworks side by side. `build` makes it, from `topics`, `words` and results."""
