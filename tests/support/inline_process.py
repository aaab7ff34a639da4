"""The benchmark's loops without processes of their own."""

import time

from common.bench.process import Process, Runner


class Here(Process):
    """The same in this process."""

    def __init__(self, loop, data):
        self.loop, begun = loop, time.perf_counter()
        self.runner = Runner(loop, data)
        self.facts, self.start = self.runner.about(), time.perf_counter() - begun

    def __call__(self, method, *arguments):
        """What the method gives."""
        return getattr(self.runner, method)(*arguments)

    def close(self):
        """Nothing is to be ended."""
