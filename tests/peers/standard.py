"""Sends with the signatures of PyPI's `standardwebhooks`: an event to /hooks/standard, and GitLab's payloads to /hooks/gl.

The payloads are the JSON files of the directories that are named as arguments.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

from standardwebhooks import Webhook

URL, TOKEN = os.environ["RUNLET_URL"], os.environ["RUNLET_TOKEN"]
SECRET, OTHER = os.environ["HOOK_SECRET"].split("\n")
GITLAB_KEY, GITLAB_TOKEN = os.environ["GITLAB_SECRET"].split("\n")

HOOKS = {
    "build": "Job Hook",
    "merge_request": "Merge Request Hook",
    "note": "Note Hook",
    "tag_push": "Tag Push Hook",
    "wiki_page": "Wiki Page Hook",
}


def request(path, headers, body=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data=body, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def taken(what, path, headers, body):
    status, answer = request(path, headers, body)
    assert status == 202, (what, status, answer)
    answer = json.loads(answer)
    kept = request(f"/v1/deliveries/{answer['delivery']}/body", {"Authorization": f"Bearer {TOKEN}"})
    assert kept == (200, body), f"{what}: the stored body differs"
    return answer


def refused(what, path, headers, body):
    status, answer = request(path, headers, body)
    assert status == 401 and json.loads(answer)["code"] == "bad_signature", (what, status, answer)
    return json.loads(answer)["detail"]


def signed(secret, id, body, at=None):
    at = at or datetime.now(timezone.utc)
    return {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(id, at, body.decode()),
    }


def flipped(body, number):
    other = bytearray(body)
    other[number * 7919 % len(other)] ^= 1 << number % 8
    return bytes(other)


def hook_of(payload):
    """The header that GitLab sends with a payload."""
    kind = payload.get("object_kind")
    if kind is None or "event_name" in payload and "object_kind" not in payload:
        return "System Hook"
    if str(payload.get("event_type", "")).startswith("confidential"):
        return "Confidential Note Hook"
    return HOOKS.get(kind, f"{kind.title()} Hook")


def standard():
    body = json.dumps({"type": "invoice.paid", "data": {"name": "é", "amount": 7}}).encode()
    path = "/hooks/standard"
    first = taken("first", path, signed(SECRET, "msg_py_1", body), body)["invocations"][0]
    again = taken("again", path, signed(SECRET, "msg_py_1", body), body)["invocations"][0]
    assert again["repeated"] and again["id"] == first["id"]
    taken("the other key", path, signed(OTHER, "msg_py_2", body), body)
    for late in (400, -400):
        at = datetime.now(timezone.utc) - timedelta(seconds=late)
        assert "look at the clocks" in refused("the wrong time", path, signed(SECRET, "msg_py_3", body, at), body)
    for number in range(16):
        refused(f"bit {number}", path, signed(SECRET, "msg_py_4", body), flipped(body, number))
    return 2


def gitlab(directories):
    files = sorted(file for directory in directories for file in Path(directory).glob("*.json"))
    for number, file in enumerate(files):
        body, path = file.read_bytes(), "/hooks/gl"
        hook = {"X-Gitlab-Event": hook_of(json.loads(body)), "X-Gitlab-Token": GITLAB_TOKEN}
        headers = signed(GITLAB_KEY, f"gitlab-{number}", body) | hook
        taken(file.name, path, headers, body)
        refused(file.name, path, headers, flipped(body, number))
        token = {"Content-Type": "application/json", "Idempotency-Key": f"token-{number}"} | hook
        taken(file.name, path, token, body)
        refused(file.name, path, token | {"X-Gitlab-Token": GITLAB_TOKEN[:-1]}, body)
        refused(file.name, path, token | {"webhook-signature": headers["webhook-signature"]}, body)
    return 2 * len(files)


print(json.dumps({"run": standard(), "gitlab": gitlab(sys.argv[1:])}))
