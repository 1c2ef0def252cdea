"""Events of the official Python SDK: sends them in both modes, and reads back what the function was given and returned."""

import json
import os
import sys
import time
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

url, token, secret = os.environ["RUNLET_URL"], os.environ["RUNLET_TOKEN"], os.environ["HOOK_SECRET"]


def ask(method, path, headers, body=None):
    request = urllib.request.Request(url + path, data=body, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def result(answer):
    name = json.loads(answer)["invocations"][0]["id"]
    bearer = {"Authorization": "Bearer " + token}
    ask("GET", "/v1/invocations/" + name + "?wait=60s", bearer)
    return ask("GET", "/v1/invocations/" + name + "/result", bearer)


def event(number, data, kind):
    attributes = {
        "id": str(number), "source": "/python/sdk", "type": "sdk.test", "time": datetime(2026, 1, 2, tzinfo=timezone.utc),
        "subject": "Euro € \U0001f600 100% \"quoted\"", "datacontenttype": kind, "comexampleextension": "x",
    }
    return CloudEvent(attributes, data)


done = 0
for number, (data, kind) in enumerate([({"n": 1, "s": "ü"}, "application/json"), ("plain ü", "text/plain"), (b"\x00\xff", "application/octet-stream")]):
    for mode in (to_binary_event, to_structured_event):
        sent = event(f"{number}-{mode.__name__}", data, kind)
        message = mode(sent)
        body = message.body if isinstance(message.body, bytes) else message.body.encode()
        headers = {**message.headers, "Authorization": "Bearer " + secret}
        back = result(ask("POST", "/hooks/ce", headers, body))
        seen = from_http_event(HTTPMessage({"content-type": "application/cloudevents+json"}, back))
        for name in ("id", "source", "type", "subject", "datacontenttype", "time", "comexampleextension"):
            assert seen.get_attributes()[name] == sent.get_attributes()[name], (mode.__name__, name, seen.get_attributes(), sent.get_attributes())
        assert seen.get_data() == sent.get_data(), (mode.__name__, seen.get_data(), sent.get_data())
        done += 1

print(json.dumps({"events": done}))
