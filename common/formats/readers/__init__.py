"""One reader for each file format; none of them runs anything that a file says."""
