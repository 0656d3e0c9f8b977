"""A web server on this machine that serves ranges of files, and can be told to fail in the ways real ones do."""

import re
import threading
from collections import Counter
from contextlib import contextmanager
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Files:
    """What is served: bytes by path, faults as functions of a request, and what was asked for."""

    def __init__(self, content):
        self.content = dict(content)
        self.etags, self.requests, self.faults, self.modified = {}, [], [], ""
        self.seen = Counter()

    def etag(self, path):
        return self.etags.get(path, f'"{blake2b(self.content[path], digest_size=8).hexdigest()}"')

    def folder(self, name, path):
        """Serve the files of a folder on disk."""
        for file in path.rglob("*"):
            if file.is_file():
                self.content[f"/{name}/{file.relative_to(path)}"] = file.read_bytes()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        files, path = self.server.files, unquote(urlsplit(self.path).path)
        if self.path in files.content:  # one that is served for this query alone
            path = self.path
        files.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        files.seen[path] += 1
        for fault in files.faults:
            if fault(self, path):
                return
        self.serve(path)

    def serve(self, path, ranges=True, cut=False, extra=b"", etag=None):
        """Answer with the file, all of it where `ranges` is off, `cut` in the middle, with `extra` bytes."""
        files = self.server.files
        if path not in files.content:
            return self.refuse(404)
        data, etag = files.content[path], etag or files.etag(path)
        if etag and self.headers.get("If-Match", etag) != etag:
            return self.refuse(412)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
        start, stop = (int(match[1]), min(int(match[2]) + 1, len(data))) if match else (0, len(data))
        if match and start >= len(data):
            return self.refuse(416)
        body = data[start:stop] + extra
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(data)}")
        if etag:
            self.send_header("ETag", etag)
        if files.modified:
            self.send_header("Last-Modified", files.modified)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif self.command == "GET":
            self.wfile.write(body)
        return None

    def refuse(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that went away is none."""


@contextmanager
def serving(content=()):
    """(files, address) of a server that ends with the context."""
    server = Server(("127.0.0.1", 0), Handler)
    server.files = Files(content)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.files, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
