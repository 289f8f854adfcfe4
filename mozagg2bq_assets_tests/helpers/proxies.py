"""Proxies between the code and a real server, which do what networks and overloaded services do."""

import ctypes
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from mozagg2bq_assets.postgres.connection import Postgres

SO_ATTACH_FILTER = 26  # of Linux


class Request(NamedTuple):
    """What was asked."""

    method: str
    path: str
    body: bytes


class Answer(NamedTuple):
    """What is answered; with status 0, nothing. With `cut`, so many bytes of the body, and the connection ends."""

    status: int
    body: bytes = b""
    cut: int | None = None


# What is answered in the place of the server, or made of its answer; None for the server's own.
Fault: TypeAlias = Callable[[Request, Callable[[], Answer]], Answer | None]


@dataclass
class HttpProxy:
    """A server that passes requests on to another, unless its `fault` answers. `requests` are all that came."""

    url: str
    fault: Fault = lambda _, __: None
    requests: list[Request] = field(default_factory=list)

    def fail(self, times: int, matching: Callable[[Request], bool], answer: Answer) -> None:
        """Answer so to the first requests of a kind."""
        left = [times]

        def fault(request: Request, _: Callable[[], Answer]) -> Answer | None:
            if not matching(request) or not left[0]:
                return None
            left[0] -= 1
            return answer

        self.fault = fault


@contextmanager
def http_proxy(target: str, timeout_seconds: float = 60) -> Iterator[HttpProxy]:
    """A proxy before that URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer are sent one by one: else the body would wait for the client's delayed ACK.
        disable_nagle_algorithm = True

        def forward(self, request: Request) -> tuple[Answer, list[tuple[str, str]]]:
            # The name of the host is signed, so it stays the one that the client has used.
            connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=timeout_seconds)
            with_body = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(request.method, request.path, request.body, with_body)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN_HEADERS]
            return Answer(answer.status, body), kept

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, body)
            proxy.requests.append(request)
            headers: list[tuple[str, str]] = []

            @cache
            def real() -> Answer:
                answer, headers[:] = self.forward(request)
                return answer

            answer = proxy.fault(request, real) or real()
            if answer.status == 0:
                self.close_connection = True
                return
            self.send_response(answer.status)
            if self.command != "HEAD" or not headers:  # whose length is that of a body which does not come
                headers = [header for header in headers if header[0].lower() != "content-length"]
                headers.append(("Content-Length", str(len(answer.body))))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut])
            if answer.cut is not None:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that has gone is none of our business."""

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = HttpProxy(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


_OWN_HEADERS = {"connection", "date", "server", "transfer-encoding"}


@dataclass
class TcpProxy:
    """A port whose connections go on to a Unix socket."""

    port: int
    connections: list[socket.socket] = field(default_factory=list)

    def swallow(self) -> None:
        """Drop every packet of every connection, without a word, as a firewall that has forgotten them does."""
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # of BPF: return 0 bytes
        program = struct.pack("HL", 1, ctypes.addressof(drop_all))
        for connection in self.connections:
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def fall_silent(self, seconds: float) -> None:
        """The same, until both kernels give the connections up."""
        self.swallow()
        lost, self.connections = self.connections, []
        threading.Timer(seconds, TcpProxy(self.port, lost).cut).start()

    def cut(self) -> None:
        """End every connection, as a network or a server that goes down does."""
        while self.connections:
            with suppress(OSError):
                self.connections.pop().shutdown(socket.SHUT_RDWR)


def socket_of(postgres: Postgres) -> str:
    """The path of the Unix socket that it connects to."""
    return f"{postgres.host}/.s.PGSQL.{postgres.port}"


@contextmanager
def tcp_proxy(target: str, port: int = 0) -> Iterator[TcpProxy]:
    """A proxy before that Unix socket, on any port or on that one."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        proxy = TcpProxy(listener.getsockname()[1])

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(2**16):
                    sink.sendall(data)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.socket(socket.AF_UNIX)
                    try:
                        server.connect(target)
                    except OSError:
                        client.close()
                        continue
                    proxy.connections += [client, server]
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=pump, args=ends, daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            proxy.cut()
            thread.join()
