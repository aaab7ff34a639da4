"""Several workers."""


def join(device):
    """Take part as the environment says: this worker's number, and how many there are."""
    return 0, 1


def leave():
    """Take no further part."""


def lost(error):
    """Whether it means by this exception that another worker is gone."""
    return False


def total(numbers):
    """The sum of all workers' vectors."""
    return numbers
