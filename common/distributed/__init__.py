"""Training with several workers: the launcher, the worker process, the peer watchdog."""
