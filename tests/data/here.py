"""The benchmark's loops without processes of their own."""

from common import bench


class Here(bench.Process):
    """The same in this process."""

    def __init__(self, loop, data):
        self.loop, begun = loop, bench.time.perf_counter()
        self.runner = bench.Runner(loop, data)
        self.facts, self.start = self.runner.about(), bench.time.perf_counter() - begun

    def __call__(self, method, *arguments):
        """What the method gives."""
        return getattr(self.runner, method)(*arguments)

    def close(self):
        """Nothing is to be ended."""
