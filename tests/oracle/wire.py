"""A proxy that parses the frames of HTTP/2 and alters answers: the `wire:` treatments of hostile.py."""

import socket
import struct
import threading
import time

# The treatments of the connections, by the port from which the proxy opened them.
ALTERED = {}


def spoil(context, how):
    port = int(context.peer().rpartition(":")[2])
    ALTERED[port] = how
    time.sleep(0.05)


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def exactly(source, length):
    data = b""
    while len(data) < length:
        more = source.recv(length - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data


def answers(server, client, port):
    """Forwards frames from the server to the client, altered where a treatment requires it."""
    data, headers, rst, goaway = 0, 1, 3, 7
    try:
        while True:
            head = exactly(server, 9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
            payload = exactly(server, length)
            how = ALTERED.get(port)
            if how == "cut":
                break
            if how in ("reset", "refuse") and kind in (data, headers):
                if kind == headers:
                    client.sendall(frame(rst, 0, stream, struct.pack(">I", 2 if how == "reset" else 7)))
            elif how == "goaway":
                client.sendall(frame(goaway, 0, 0, struct.pack(">II", 0, 11)))
                break
            elif how == "open" and kind == headers and flags & 1:
                client.sendall(frame(data, 1, stream))
            elif how == "drip":
                for byte in head + payload:
                    client.sendall(bytes([byte]))
                    time.sleep(0.2)
            else:
                client.sendall(head + payload)
    except OSError:
        pass
    for end in (server, client):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        end.close()


def proxy(listener, upstream):
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", upstream))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = server.getsockname()[1]
        ALTERED.pop(port, None)
        threading.Thread(target=copy, args=(client, server), daemon=True).start()
        threading.Thread(target=answers, args=(server, client, port), daemon=True).start()
