"""Downloads over HTTP that end: a size that is not exceeded, and a deadline for the whole."""

from __future__ import annotations

import threading
import time

from common.terminal import progress

CHUNK = 2**16
SILENCE = 30  #: seconds without a byte until a server is given up


def fetch(url: str, most: int, seconds: float) -> bytes:
    """Return what is at a URL; OSError if it is more than `most` bytes or takes too long.

    A server may send one byte at a time, so the transfer has a thread of its own. At the deadline,
    the thread is left behind, and stops with the next bytes that it gets.
    """
    until = time.monotonic() + seconds
    done: list[bytes | Exception] = []

    def work() -> None:
        try:
            done.append(_transfer(url, most, until))
        except Exception as error:  # is raised by the thread that waits
            done.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    result = done[0] if done else OSError(f"{url} took more than {seconds:.0f} seconds")
    if isinstance(result, Exception):
        raise result
    return result


def _transfer(url: str, most: int, until: float) -> bytes:
    import requests  # imported only when needed

    data = bytearray()
    headers = {"Accept-Encoding": "identity"}  # the file is packed already, and has a known size
    with requests.get(url, stream=True, timeout=SILENCE, headers=headers) as answer:
        answer.raise_for_status()
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 20 else None
        if total is not None and total > most:
            raise OSError(f"{url} announces {total} bytes, more than {most}")
        with progress("downloading", total and total / 1e6, unit="MB") as bar:
            for chunk in answer.iter_content(CHUNK):
                data += chunk
                bar.advance(len(chunk) / 1e6)
                if len(data) > most:
                    raise OSError(f"{url} sends more than {most} bytes")
                if time.monotonic() > until:
                    raise OSError(f"{url} is too slow")
    return bytes(data)
