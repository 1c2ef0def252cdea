"""Results that come in pieces: what an iterator gives is sent as it comes.

The first piece says what the result is: bytes, text, or lines of JSON. Whoever reads slowly slows the iterator down: a
piece is only asked for when the host has taken the last one.
"""

from json.encoder import JSONEncoder

to_json = JSONEncoder(allow_nan=False, separators=(",", ":")).encode

LINES = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
END = 1


class Pieces:
    """A result of `call` on its way."""

    def __init__(self, channel, call):
        self.channel = channel
        self.call = call
        self.type = None

    def send(self, value):
        """Sends the next piece."""
        raw = isinstance(value, (bytes, bytearray, memoryview))
        if self.type is None:
            data = self.encode(value, raw, BYTES if raw else TEXT if isinstance(value, str) else LINES)
            head = '{"content_type":"%s","stream":true}' % self.type
            self.channel.begin(self.call, head.encode("ascii"))
        else:
            data = self.encode(value, raw, self.type)
        if data:
            self.channel.piece(self.call, data)

    def encode(self, value, raw, kind):
        """A piece as bytes; fails before anything of it is sent."""
        if kind == LINES:
            data = to_json(value).encode("ascii") + b"\n"
        elif raw:
            data = bytes(value)
        elif isinstance(value, str):
            data = value.encode("utf-8", "backslashreplace")
        else:
            raise TypeError(f"a stream of {kind} yielded a {type(value).__name__}; yield str or bytes")
        self.type = kind
        return data

    def end(self):
        """Nothing follows."""
        if self.type is None:
            self.channel.result(self.call, b'{"content_type":"%s"}' % BYTES.encode("ascii"), b"")
        else:
            self.channel.piece(self.call, b"", END)


async def pour_async(channel, call, values, context, check):
    """The pieces of an asynchronous iterator."""
    pieces = Pieces(channel, call)
    try:
        async for value in values:
            check()
            if context.cancelled:
                break
            pieces.send(value)
    finally:
        if hasattr(values, "aclose"):
            await values.aclose()
    check()
    flush()
    pieces.end()


def pour(channel, call, values, context, check):
    """The pieces of any iterator; `check` is asked before each is sent."""
    if hasattr(type(values), "__anext__"):
        import asyncio

        asyncio.run(pour_async(channel, call, values, context, check))
        return
    pieces = Pieces(channel, call)
    try:
        for value in values:
            check()
            if context.cancelled:
                break
            pieces.send(value)
    finally:
        if hasattr(values, "close"):
            values.close()
    check()
    flush()
    pieces.end()


def flush():
    """Pushes out what the code has printed: it belongs in front of the end."""
    import sys

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
