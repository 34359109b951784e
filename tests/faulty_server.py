"""A real HTTP server of a folder, with byte ranges, that fails on purpose for a share of its
answers."""

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What the server does -> the fault that a reader must see.
FAULTS = {
    "drop": "connection",
    "reset": "connection",
    "stall": "timeout",
    "cut": "short",
    "short": "short",
    "corrupt": "checksum",
    "500": "status",
    "503": "status",
}


class FaultyServer:
    """Serves ``folder`` on loopback while the context is open; ``forbidden...`` only with an
    Authorization header.

    Args: share: of the GET requests that fail; which of them follows from the seed, the path, the
        range and how often
            it was asked before, so not from the order in which requests arrive.
        faults: kinds to choose from, keys of FAULTS.
        ranges: False answers 200 with the whole file.

    Attributes: url: root of the folder. counts: answers by kind: "ok", "missing", "head" and the
        faults. Faults strike GET requests only. "unread":
            answers that the reader hung up on.
        busiest: most requests answered at the same time."""

    def __init__(
        self,
        folder: str | Path,
        seed: int = 0,
        share: float = 0.0,
        faults=tuple(FAULTS),
        ranges=True,
    ):
        self.folder, self.seed, self.share, self.faults, self.ranges = (
            Path(folder),
            seed,
            share,
            list(faults),
            ranges,
        )
        self.counts, self.asked, self.lock = Counter(), Counter(), threading.Lock()
        self.active = self.busiest = 0
        self.sockets = set()
        self.wait = 0.0  # seconds before each answer, so that requests meet
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self})
        )
        self.server.daemon_threads = False  # leaving waits for every answer
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        for connection in list(self.sockets):  # readers keep theirs open
            connection.shutdown(socket.SHUT_RDWR)
        self.server.server_close()

    def expected(self) -> dict[str, int]:
        """Faults done so far, by the kind a reader must count."""
        found = Counter()
        for fault, kind in FAULTS.items():
            found[f"fault/{kind}"] += self.counts[fault]
        return {name: count for name, count in found.items() if count}

    def choose(self, path: str, span: str) -> str:
        """ "ok" or the fault of this request."""
        with self.lock:
            self.asked[path, span] += 1
            chance = random.Random(f"{self.seed}/{path}/{span}/{self.asked[path, span]}")
        return chance.choice(self.faults) if chance.random() < self.share else "ok"

    def count(self, kind: str) -> None:
        with self.lock:
            self.counts[kind] += 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    wbufsize = 65536  # headers and a small body in one packet
    owner: FaultyServer

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.owner.sockets.add(self.connection)

    def finish(self):
        self.owner.sockets.discard(self.connection)
        with contextlib.suppress(ConnectionError):  # the reader may have hung up first
            super().finish()

    def do_HEAD(self):
        path = self._file()
        if path is not None:
            self.owner.count("head")
            self._headers(200, path.stat().st_size)

    def do_GET(self):
        owner = self.owner
        with owner.lock:
            owner.active += 1
            owner.busiest = max(owner.busiest, owner.active)
        try:
            time.sleep(owner.wait)
            self._get()
        except ConnectionError:
            owner.count("unread")
            self.close_connection = True
        finally:
            with owner.lock:
                owner.active -= 1

    def _get(self):
        path, span = self._file(), self.headers.get("Range", "") if self.owner.ranges else ""
        if path is None:
            return
        start, stop = (
            span.removeprefix("bytes=").split("-") if span else (0, path.stat().st_size - 1)
        )
        with open(path, "rb") as file:
            file.seek(int(start))
            data = file.read(int(stop) + 1 - int(start))
        status = 206 if span else 200
        fault = self.owner.choose(self.path, span)
        self.owner.count(fault)  # before the answer: the reader may ask as soon as it has it
        if fault in ("drop", "reset"):
            self.close_connection = True
            if fault == "reset":  # closing with a linger time of 0 sends RST in place of FIN
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()
        elif fault == "stall":
            self.close_connection = True
            self.rfile.read(1)  # returns when the reader gives up
        elif fault in ("500", "503"):
            self._headers(int(fault), 0)
        elif fault == "cut":
            self._headers(status, len(data))
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            if fault == "short":
                data = data[:-1]
            elif fault == "corrupt":
                data = bytes(
                    255 - byte for byte in data
                )  # every byte, so that no range of the answer is right
            self._headers(status, len(data))
            self.wfile.write(data)

    def _file(self) -> Path | None:
        """The file asked for, or None after a 404 or 403."""
        path = self.owner.folder / unquote(urlsplit(self.path).path).lstrip("/")
        forbidden = path.name.startswith("forbidden") and "Authorization" not in self.headers
        if forbidden or not path.is_file():
            self.owner.count("missing")
            self._headers(403 if forbidden else 404, 0)
            return None
        return path

    def _headers(self, status: int, length: int) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(usegmt=True))
        self.send_header("Content-Length", str(length))
        self.end_headers()
