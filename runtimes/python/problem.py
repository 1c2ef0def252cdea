"""What the code has raised, as the body of an error frame: type, message, and a traceback of the user's own frames."""

import os
from json.encoder import JSONEncoder
from traceback import TracebackException

# Characters of a message and of a trace. JSON makes at most 6 bytes of one: both together fit into one frame.
TEXT_MAX = 1 << 16
HERE = os.path.dirname(os.path.abspath(__file__)) + "/"

to_json = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def clean(text):
    """`text` as something that every JSON reader takes: no lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def trace_lines(problem, code):
    """The traceback, reduced to what starts in the user's code."""
    told = TracebackException(type(problem), problem, problem.__traceback__)
    links, seen = [told], set()
    while links:
        link = links.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        frames = [frame for frame in link.stack if not frame.filename.startswith("<frozen importlib")]
        if frames and os.path.abspath(frames[0].filename).startswith(HERE):
            first = next((at for at, f in enumerate(frames) if f.filename.startswith(code)), len(frames))
            frames = frames[first:]
        link.stack[:] = frames
        links += [link.__cause__, link.__context__]
    lines = [line for text in told.format() for line in clean(text).splitlines()]
    kept, room = [], TEXT_MAX - 100
    for line in reversed(lines):
        line = line[:4000]
        room -= len(line) + 1
        if room < 0:
            kept.append(f"  ... {len(lines) - len(kept)} more lines ...")
            break
        kept.append(line)
    return kept[::-1]


def describe(problem, code):
    """The body of an error frame: what was raised, and where."""
    try:
        message = clean(str(problem))[:TEXT_MAX]
    except BaseException:
        message = "(the exception cannot be turned into text)"
    try:
        trace = trace_lines(problem, code)
    except BaseException:
        trace = ["(the traceback cannot be turned into text)"]
    return error(type(problem).__name__, message, trace)


def error(kind, message, trace=()):
    """The body of an error frame."""
    return to_json({"type": clean(kind)[:200], "message": message, "trace": list(trace)}).encode("utf-8")
