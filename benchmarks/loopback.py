"""A loopback port before a server's Unix socket, for clients that know none: python -m benchmarks.loopback SOCKET.

Prints the port, and serves until it is ended. What it adds falls on all that come through it.
"""

import socket
import sys
import threading
from contextlib import suppress

BUFFER = 2**20


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes on, until one end has gone."""
    buffer = memoryview(bytearray(BUFFER))
    with suppress(OSError):
        while size := source.recv_into(buffer):
            sink.sendall(buffer[:size])
        sink.shutdown(socket.SHUT_WR)


def main(target: str) -> None:
    """Serve."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(target)
            for ends in ((client, server), (server, client)):
                threading.Thread(target=pump, args=ends, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
