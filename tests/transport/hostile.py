"""A range server on loopback that misbehaves on demand, its token service, and a forward proxy."""

import http.client
import json
import re
import socketserver
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass(kw_only=True)
class Faults:
    """What the server does wrong; the numbers count requests from the beginning."""

    status: int = 0
    """Answered instead of the file, `times` times."""
    times: int = 0
    after: str = ""
    """Retry-After beside it: `seconds` or `date`, in `after_s` seconds."""
    after_s: float = 1.0
    cut: int = 0
    """Bodies of so many requests end in the middle, and the connection with them."""
    longer: int = 0
    """So many requests say a Content-Length that is too long."""
    shorter: int = 0
    skip: int = 0
    """Requests that are answered well before the faults above begin."""
    sleep_s: float = 0.0
    sleeps: int = 10**9
    latency_s: float = 0.0
    flip: int = 0
    """In so many answers that hold it, the byte in the middle of the file is wrong."""
    ignore_range: bool = False
    gzip: bool = False
    shift: int = 0
    """So many answers hold other bytes than were asked for, and say so."""
    new_etag_from: int = 10**9
    """Requests from this one on see another ETag."""
    no_etag: bool = False
    truncate: int = 0
    """Bytes that the file has lost."""
    token_life_s: float = 0.0
    """0: no token is needed; else older ones are refused."""
    no_head: bool = False
    region: str = ""
    """Told in a header of every answer, as S3 does."""


@dataclass
class Served:
    """What the server did."""

    requests: int = 0
    bodies: int = 0
    most_at_once: int = 0
    running: int = 0
    by_path: Counter = field(default_factory=Counter)
    ranges: list = field(default_factory=list)
    times: list = field(default_factory=list)
    tokens: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def end_headers(self):
        if self.server.faults.region:
            self.send_header("x-amz-bucket-region", self.server.faults.region)
        super().end_headers()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        served = self.server.served
        with served.lock:
            served.requests += 1
            self.number = served.requests
            served.running += 1
            served.most_at_once = max(served.most_at_once, served.running)
            served.by_path[urlsplit(self.path).path] += 1
            served.times.append(time.monotonic())
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with served.lock:
                served.running -= 1

    def _answer(self):
        faults = self.server.faults
        path = urlsplit(self.path).path
        if path.startswith("/token/"):
            return self._token()
        if faults.latency_s:
            time.sleep(faults.latency_s)
        number = self.number - faults.skip
        if faults.sleep_s and 0 < number <= faults.sleeps:
            self.server.stopping.wait(faults.sleep_s)
        if 0 < number <= faults.times:
            return self._refuse(faults.status)
        if faults.token_life_s and not self._token_is_young():
            return self._refuse(403)
        if faults.no_head and self.command == "HEAD":
            return self._refuse(405)
        body = self.server.files.get(path)
        if body is None:
            return self._refuse(404)
        return self._send_file(path, body, number)

    def _refuse(self, status):
        self.send_response(status)
        faults = self.server.faults
        if faults.after == "seconds":
            self.send_header("Retry-After", f"{faults.after_s:.0f}")
        elif faults.after == "date":
            when = datetime.now(UTC) + timedelta(seconds=faults.after_s)
            self.send_header("Retry-After", format_datetime(when, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _token(self):
        with self.server.served.lock:
            self.server.served.tokens += 1
        later = (datetime.now(UTC) + timedelta(minutes=45)).strftime("%Y-%m-%dT%H:%M:%SZ")
        token = f"st=1&se=2&sp=rl&sig=s3cr3t{time.time_ns()}"
        body = json.dumps({"msft:expiry": later, "token": token}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _token_is_young(self):
        found = parse_qs(urlsplit(self.path).query).get("sig", [""])[0]
        if not found.startswith("s3cr3t"):
            return False
        return (time.time_ns() - int(found[6:])) / 1e9 < self.server.faults.token_life_s

    def _send_file(self, path, body, number):
        faults, served = self.server.faults, self.server.served
        if faults.truncate:
            body = body[: len(body) - faults.truncate]
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or faults.ignore_range:
            first, last, status = 0, len(body) - 1, 200
        else:
            first, last, status = int(asked[1]), min(int(asked[2]), len(body) - 1), 206
            with served.lock:
                served.ranges.append((path, first, last + 1))
        if asked is not None and first >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if 0 < number <= faults.shift:
            first, last = first + 1, min(last + 1, len(body) - 1)
        part = self._flipped(body, first, last)
        self.send_response(status)
        if not faults.no_etag:
            self.send_header("ETag", '"two"' if self.number >= faults.new_etag_from else '"one"')
        if faults.gzip:
            self.send_header("Content-Encoding", "gzip")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        said = len(part)
        said += 10 * (0 < number <= faults.longer) - 10 * (0 < number <= faults.shorter)
        self.send_header("Content-Length", str(said))
        self.end_headers()
        if self.command == "HEAD":
            return
        with served.lock:
            served.bodies += len(part)
        if 0 < number <= faults.cut:
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
            return
        self.wfile.write(part)
        if 0 < number <= faults.longer:
            self.close_connection = True

    def _flipped(self, body, first, last):
        middle = len(body) // 2
        with self.server.served.lock:
            if self.server.faults.flip <= 0 or not first <= middle <= last:
                return body[first : last + 1]
            self.server.faults.flip -= 1
        part = bytearray(body[first : last + 1])
        part[middle - first] ^= 0xFF
        return bytes(part)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, address):
        pass


@dataclass
class Hostile:
    """A running server."""

    address: str
    served: Served
    faults: Faults


@contextmanager
def serving(files, faults=None):
    """Serve a dict of path to bytes on loopback."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.files, server.faults, server.served = files, faults or Faults(), Served()
    server.stopping = threading.Event()
    with _running(server):
        yield Hostile(f"http://127.0.0.1:{server.server_port}", server.served, server.faults)
        server.stopping.set()


@contextmanager
def _running(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw_server(answer):
    """Answer every request with these bytes and hang up; yields the address and the requests."""
    asked = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            lines = list(iter(lambda: self.rfile.readline().strip(), b""))
            asked.append([line.decode() for line in lines])
            self.wfile.write(answer)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    with _running(server):
        yield f"http://127.0.0.1:{server.server_address[1]}", asked


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        parts = urlsplit(self.path)
        self.server.passed.append(self.path)
        target = self.server.known.get(parts.netloc, parts.netloc)
        connection = http.client.HTTPConnection(target, timeout=10)
        kept = {k: v for k, v in self.headers.items() if not k.lower().startswith("proxy-")}
        self.server.authorised.append(self.headers.get("Proxy-Authorization", ""))
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request(self.command, path, headers=kept)
            answer = connection.getresponse()
            body = answer.read()
        except OSError:
            return self.send_error(502)
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"date", "server", "connection"}:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        return None

    do_HEAD = do_GET  # noqa: N815


@contextmanager
def forwarding(known=None):
    """A forward proxy for http; `known` maps a host name to the `host:port` that plays it."""
    server = _Server(("127.0.0.1", 0), _Proxy)
    server.known, server.passed, server.authorised = known or {}, [], []
    with _running(server):
        yield f"http://127.0.0.1:{server.server_port}", server
