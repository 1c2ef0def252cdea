#!/usr/bin/python3
"""Sends a webhook as GitHub does: usage: github_push.py URL SECRET_FILE PAYLOAD [EVENT]. Prints the answer.

The signature is an HMAC-SHA256 of the raw body in X-Hub-Signature-256; the delivery's id is new each time.
"""

import hashlib
import hmac
import sys
import urllib.error
import urllib.request
import uuid

url, secret_file, payload, event = (sys.argv[1:] + ["push"])[:4]
with open(secret_file, "rb") as file:
    secret = file.read().rstrip(b"\r\n")
with open(payload, "rb") as file:
    body = file.read()
headers = {
    "Content-Type": "application/json",
    "User-Agent": "GitHub-Hookshot/demo",
    "X-GitHub-Event": event,
    "X-GitHub-Delivery": str(uuid.uuid4()),
    "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
}
try:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit("%s answered %d: %s" % (url, error.code, error.read().decode()))
