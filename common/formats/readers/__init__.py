"""One reader for each file format. No reader executes anything in a file."""
