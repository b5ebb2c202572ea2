"""Tiles over loopback, from a function of the path."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[str], tuple[int, bytes]]
"""Status and body for the path of a request."""
Log = list[tuple[str, float]]
"""Path and moment of each request."""


@contextmanager
def tile_server(answer: Answer) -> Iterator[tuple[str, Log]]:
    """Yields the address and the log."""
    log: Log = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            log.append((self.path, time.monotonic()))
            status, body = answer(self.path)
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", log
    finally:
        server.shutdown()
        server.server_close()


def files_of(folder: Path) -> Answer:
    """The files of a folder."""

    def answer(path: str) -> tuple[int, bytes]:
        file = folder / path.lstrip("/").partition("?")[0]
        return (200, file.read_bytes()) if file.is_file() else (404, b"no such tile")

    return answer
