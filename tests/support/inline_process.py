"""The benchmark's loops without processes of their own."""

from common.bench import process


class Here(process.Process):
    """The same in this process."""

    def __init__(self, loop, data):
        self.loop, begun = loop, process.time.perf_counter()
        self.runner = process.Runner(loop, data)
        self.facts, self.start = self.runner.about(), process.time.perf_counter() - begun

    def __call__(self, method, *arguments):
        """What the method gives."""
        return getattr(self.runner, method)(*arguments)

    def close(self):
        """Nothing is to be ended."""
