"""A client that speaks one version of HTTP over TLS and says what it saw, as JSON on stdout.

talk.py CA ALPN METHOD URL [HEADER:VALUE ...]   the body comes from stdin
"""

import hashlib
import json
import socket
import ssl
import sys
import time
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset


def connect(ca, protocol, url):
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols([protocol])
    raw = socket.create_connection((url.hostname, url.port), timeout=60)
    return context.wrap_socket(raw, server_hostname=url.hostname)


def frames(data):
    """Whole frames at the head of `data`, those of the connection's end apart, and the rest.

    The library takes the announcement of an end (GOAWAY) for the end itself; what is under way goes on in between.
    """
    whole, goodbyes = b"", 0
    while len(data) >= 9 and len(data) >= (size := 9 + int.from_bytes(data[:3], "big")):
        if data[3] == 7:
            goodbyes += 1
        else:
            whole += data[:size]
        data = data[size:]
    return whole, goodbyes, data


def over_two(stream, url, method, headers, body):
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    head = [(":method", method), (":scheme", "https"), (":authority", url.netloc), (":path", url.path)]
    connection.send_headers(1, head + headers, end_stream=not body)
    stream.sendall(connection.data_to_send())
    answer = {"status": None, "headers": {}, "body": "", "goodbyes": 0}
    rest = b""
    while True:
        if body:
            size = min(connection.local_flow_control_window(1), connection.max_outbound_frame_size, len(body))
            if size:
                connection.send_data(1, body[:size], end_stream=size == len(body))
                body = body[size:]
                stream.sendall(connection.data_to_send())
                continue
        data = stream.recv(65536)
        if not data:
            answer["cut"] = True
            return answer
        data, goodbyes, rest = frames(rest + data)
        answer["goodbyes"] += goodbyes
        for event in connection.receive_data(data):
            if isinstance(event, ResponseReceived):
                answer["headers"] = dict(event.headers)
                answer["status"] = int(answer["headers"][":status"])
            elif isinstance(event, DataReceived):
                answer["body"] += event.data.decode()
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, (StreamEnded, StreamReset)):
                answer["reset"] = isinstance(event, StreamReset)
                return answer
        stream.sendall(connection.data_to_send())


def over_one(stream, url, method, headers, body):
    head = [f"{method} {url.path} HTTP/1.1", f"Host: {url.netloc}", "Connection: close", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers]
    stream.sendall("\r\n".join(head + ["", ""]).encode() + body)
    data = b""
    while piece := stream.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    return {"status": int(lines[0].split(" ")[1]), "headers": fields, "body": body.decode()}


def main():
    ca, protocol, method, url, *headers = sys.argv[1:]
    url = urlsplit(url)
    headers = [tuple(header.split(":", 1)) for header in headers]
    body = sys.stdin.buffer.read()
    begin = time.monotonic()
    try:
        stream = connect(ca, protocol, url)
    except ssl.SSLError as refusal:
        print(json.dumps({"refused": str(refusal)}))
        return
    agreed = stream.selected_alpn_protocol()
    certificate = hashlib.sha256(stream.getpeercert(True)).hexdigest()
    answer = (over_two if agreed == "h2" else over_one)(stream, url, method, headers, body)
    took = time.monotonic() - begin
    print(json.dumps(answer | {"alpn": agreed, "certificate": certificate, "tls": stream.version(), "seconds": took}))


main()
