"""Serve the files of a folder on this machine: ranges over HTTP, or as a bucket of an S3-compatible server (moto).

    python bench/object_server.py FOLDER [--log FILE]
    python bench/object_server.py FOLDER --s3

Prints its address and serves until it is ended. The folder is the first part of the path, or the bucket. With --log every range
that is sent is written down as `path start stop`, to be fetched again by a peer.
"""

from __future__ import annotations

import argparse
import re
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from typing import TextIO
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open."""

    protocol_version = "HTTP/1.1"
    folder: Path
    log: TextIO | None

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        """The head of an answer."""
        self.do_GET()

    def do_GET(self) -> None:
        """A file or a range of it."""
        name = unquote(urlsplit(self.path).path).lstrip("/")
        path = (self.folder.parent / name).resolve()
        if not path.is_file() or not path.is_relative_to(self.folder):
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        about = path.stat()
        match = RANGE.fullmatch(self.headers.get("Range", ""))
        start, stop = (int(match[1]), min(int(match[2]) + 1, about.st_size)) if match else (0, about.st_size)
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{about.st_size}")
        self.send_header("ETag", f'"{about.st_mtime_ns:x}-{about.st_size:x}"')
        self.send_header("Last-Modified", formatdate(about.st_mtime, usegmt=True))
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self._send(path, start, stop)
            if self.log:
                self.log.write(f"{name} {start} {stop}\n")
                self.log.flush()

    def _send(self, path: Path, start: int, stop: int) -> None:
        with path.open("rb") as file:
            self.wfile.flush()
            self.connection.sendfile(file, start, stop - start)


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none."""


def ranges(folder: Path, log: Path | None) -> None:
    """Serve ranges of the files of a folder."""
    Handler.folder, Handler.log = folder.resolve(), log.open("w") if log else None
    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def bucket(folder: Path) -> None:
    """Serve the checkpoints of a folder from a bucket of moto."""
    import obstore
    from moto.server import ThreadedMotoServer
    from obstore.store import S3Store

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    urlopen(Request(f"{address}/{folder.name}", method="PUT")).close()
    store = S3Store(folder.name, endpoint=address, client_options={"allow_http": True})
    for path in folder.glob("*.safetensors"):
        obstore.put(store, path.name, path)
    print(address, flush=True)
    Event().wait()


def main() -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--s3", action="store_true")
    arguments = parser.parse_args()
    if arguments.s3:
        bucket(arguments.folder)
    else:
        ranges(arguments.folder, arguments.log)


if __name__ == "__main__":
    main()
