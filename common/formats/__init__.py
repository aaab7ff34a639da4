"""Files of weights that other programs wrote: formats, names, and which network they hold."""
