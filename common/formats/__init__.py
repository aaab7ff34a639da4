"""Weight files that other programs wrote: their formats, their names and their networks."""
