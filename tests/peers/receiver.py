"""A receiver of callbacks that checks them with PyPI's `standardwebhooks`, and answers as the path asks for.

Prints the port first, then a line of JSON for each request: what was asked for, whether it was good, its id and type; of a CloudEvent
what PyPI's `cloudevents` reads. With TLS_CERT and TLS_KEY it speaks TLS.
Paths: /ok takes it; /busy answers 429 with Retry-After once for each id; /down answers 503 once; /gone answers 410; /moved redirects to the
path /private of this receiver; /slow takes it after ten seconds.
"""

import json
import os
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook

WEBHOOK = Webhook(os.environ["CALLBACK_SECRET"])
SEEN = {}
LOCK = threading.Lock()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = WEBHOOK.verify(body, dict(self.headers))
            good = True
        except Exception as error:
            event, good = {"type": repr(error)}, False
        id = self.headers["webhook-id"]
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "ce-specversion" in headers or headers["content-type"].startswith("application/cloudevents"):
            read = from_http_event(HTTPMessage(headers, body))
            event = {"type": read.get_attributes()["type"], "data": read.get_data()}
            event["attributes"] = {name: str(value) for name, value in read.get_attributes().items()}
        with LOCK:
            times = SEEN[id] = SEEN.get(id, 0) + 1
        line = {"path": self.path, "good": good, "id": id, "type": event["type"], "at": time.time(), "data": event.get("data")}
        line["attributes"] = event.get("attributes")
        with LOCK:
            print(json.dumps(line), flush=True)
        self.answer(times)

    def answer(self, times):
        headers = {}
        status = 204
        if self.path == "/busy" and times == 1:
            status, headers = 429, {"Retry-After": "2"}
        elif self.path == "/down" and times == 1:
            status = 503
        elif self.path == "/gone":
            status = 410
        elif self.path == "/moved":
            status, headers = 301, {"Location": f"http://127.0.0.1:{self.server.server_port}/private"}
        elif self.path == "/slow":
            time.sleep(10)
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            pass

    do_GET = do_POST

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Receiver)
if "TLS_CERT" in os.environ:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
