"""Runs one Python function in a sandbox, call after call.

It owns the sandbox's end of fd 3 (frames, version 1): it loads the handler once, then answers each call with what the
handler returned or raised. It knows nothing of limits and deadlines: the host enforces them from outside.

Start-up time is every cold call's time, so what is rarely needed is imported where it is needed.
"""

import os
import sys
from json.decoder import JSONDecoder
from json.encoder import JSONEncoder
from os import getpid, read, readv, write
from struct import Struct
from time import time

FD = 3
HEADER = Struct("<IBBHQ")
MAX_FRAME = 1 << 20
HELLO, WELCOME, INIT, READY, INIT_ERROR, INVOKE, DATA, LOG, RESULT, ERROR, CANCEL, BYE = range(1, 13)
END = 1
EX_SOFTWARE = 70

PID = getpid()
HERE = __file__.rpartition("/")[0]
# Where Python's own modules are, before the code's are put in front of them.
PATH = tuple(sys.path)
parts = {}
forking = False
decoder = JSONDecoder()
to_json = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
JSON_HEAD = b'{"content_type":"application/json"}'
BYTES_HEAD = b'{"content_type":"application/octet-stream"}'
# How the head of most calls begins; what follows is the context, and a brace.
JSON_CALL = b'{"body":"json","context":'
# What is known of a call.
FACTS = "namespace function revision invocation execution attempt deadline_ms memory_limit cause".split()
# What most handlers return: nothing to wait for, and no pieces.
PLAIN = frozenset((dict, list, str, int, float, bool, type(None), bytes))


def part(name):
    """A part of the runner that not every call needs; no name that the code could import."""
    if name not in parts:
        path = f"{HERE}/{name}.py"
        module = type(sys)(f"<runlet {name}>")
        module.__file__ = path
        with open(path, "rb") as source:
            exec(compile(source.read(), path, "exec"), module.__dict__)
        parts[name] = module
    return parts[name]


class ProtocolError(Exception):
    """The host said something that version 1 does not allow."""


class Cause:
    """Why the call was made."""

    kind = trigger = delivery = normalised = of = lineage = None

    def __init__(self, facts):
        self.__dict__.update(facts)
        self.headers = facts.get("headers") or {}

    def __repr__(self):
        return f"Cause({self.__dict__!r})"


class Context:
    """All that is known of a call except its event, as attributes; read when the first of them is asked for, for most
    handlers ask for none."""

    # Whether nobody wants the result any more; only told where calls share the process.
    cancelled = False

    def __init__(self, facts):
        self._facts = facts

    def __getattr__(self, name):
        facts = self.__dict__.get("_facts")
        if facts is not None:
            if not isinstance(facts, dict):
                facts = from_json(str(facts, "utf-8"))
            # Two threads that ask at once both find all of it.
            self.__dict__.update({**dict.fromkeys(FACTS), **facts, "cause": Cause(facts.get("cause") or {})})
            self._facts = None
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"the context of a call has no {name!r}") from None

    def remaining_ms(self):
        """Milliseconds until the sandbox is killed."""
        return max(0, self.deadline_ms - int(time() * 1000))

    def __repr__(self):
        return f"Context({({name: getattr(self, name) for name in FACTS})!r})"


def from_json(text):
    """What JSON says. `decode` looks for blanks around it first, which costs as much again as a small event."""
    try:
        value, end = decoder.scan_once(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    return decoder.decode(text)


def poll_of_channel():
    """Waits until the host has written something; `None` where Python has no such thing.

    A `read` that waits is woken twice a call: a socket of this kind tells whoever waits at it that the host has taken the
    answer. A poll hears of what has come alone.
    """
    from _frozen_importlib import BuiltinImporter, module_from_spec
    from _frozen_importlib_external import PathFinder

    try:
        # Python's own, whatever the code calls `select`; and not where the code would find it.
        spec = BuiltinImporter.find_spec("select") or PathFinder.find_spec("select", PATH)
        select = module_from_spec(spec)
        spec.loader.exec_module(select)
        poll = select.poll()
        poll.register(FD, select.POLLIN)
        return poll.poll
    except Exception:
        return None


class Channel:
    """Frames in, frames out."""

    def __init__(self):
        self.pending = b""
        self.poll = None

    def wait_by_poll(self):
        """From now on; not worth its import where a call or two are all there will be."""
        self.poll = poll_of_channel()

    def more(self):
        """What the host has written, of which there is some; waits for it."""
        if self.poll is not None:
            self.poll()
        data = read(FD, 1 << 16)
        if not data:
            raise EOFError
        return data

    def next_call(self):
        """The number, the head and the body of the next call; `None` if the host says bye."""
        self.pending = data = self.pending or self.more()
        if len(data) > HEADER.size:
            size, kind, flags, reserved, call = HEADER.unpack_from(data)
            at = HEADER.size + size
            rest = len(data) - at - HEADER.size
            # Most come whole: a head, a body in one piece, and nothing else.
            if kind == INVOKE and call and not flags and not reserved and rest >= 0:
                if HEADER.unpack_from(data, at) == (rest, DATA, END, 0, call):
                    self.pending = b""
                    return call, data[HEADER.size : at], data[at + HEADER.size :]
        kind, end, call, head = self.receive()
        if kind == BYE:
            return None
        if kind != INVOKE or not call:
            raise ProtocolError(f"kind {kind} of call {call} where a call begins")
        return call, head, b"" if end else self.body(call)

    def receive(self):
        """The next frame: kind, end, call, body."""
        data = self.pending
        while len(data) < HEADER.size:
            data = data + self.more() if data else self.more()
        length, kind, flags, reserved, call = HEADER.unpack_from(data)
        if length > MAX_FRAME or not HELLO <= kind <= BYE or flags & ~END or reserved:
            raise ProtocolError(f"kind {kind}, {length} bytes, flags {flags}, reserved {reserved}")
        whole = HEADER.size + length
        if len(data) >= whole:
            self.pending = data[whole:]
            return kind, flags, call, data[HEADER.size : whole]
        # A long body is read straight into its place.
        self.pending = b""
        have = len(data) - HEADER.size
        body = bytearray(length)
        body[:have] = data[HEADER.size :]
        view = memoryview(body)
        while have < length:
            count = readv(FD, [view[have:]])
            if not count:
                raise EOFError
            have += count
        return kind, flags, call, body

    def expect(self, wanted):
        """The body of the next frame, which must be of kind `wanted`, as JSON."""
        kind, _, _, body = self.receive()
        if kind == BYE:
            raise EOFError
        if kind != wanted:
            raise ProtocolError(f"kind {kind} where {wanted} belongs")
        return from_json(str(body, "utf-8"))

    def body(self, call):
        """The rest of a call's body."""
        whole = b""
        while True:
            kind, end, of, piece = self.receive()
            if kind != DATA or of != call:
                raise ProtocolError(f"kind {kind} of call {of} amid the body of call {call}")
            if end and not whole:
                return piece
            if not whole:
                whole = bytearray()
            whole += piece
            if end:
                return whole

    def send(self, data):
        """Writes all of `data`."""
        sent = write(FD, data)
        while sent < len(data):
            sent += write(FD, memoryview(data)[sent:])

    def tell(self, kind, call, body):
        """One frame that stands for itself."""
        self.send(HEADER.pack(len(body), kind, END if call else 0, 0, call) + body)

    def begin(self, call, head):
        """The head of a result that comes in pieces."""
        self.send(HEADER.pack(len(head), RESULT, 0, 0, call) + head)

    def piece(self, call, body, end=0):
        """A piece of such a result."""
        view = memoryview(body)
        at = 0
        while True:
            data = view[at : at + MAX_FRAME]
            at += MAX_FRAME
            last = at >= len(view)
            self.send(HEADER.pack(len(data), DATA, end if last else 0, 0, call) + data)
            if last:
                return

    def result(self, call, head, body):
        """The result of a call, in one write where it is small."""
        size = len(body)
        if not size:
            self.tell(RESULT, call, head)
            return
        first = HEADER.pack(len(head), RESULT, 0, 0, call) + head
        if size <= MAX_FRAME:
            self.send(b"".join((first, HEADER.pack(size, DATA, END, 0, call), body)))
            return
        view = memoryview(body)
        for at in range(0, size, MAX_FRAME):
            piece = view[at : at + MAX_FRAME]
            end = END if at + MAX_FRAME >= size else 0
            self.send(b"".join((first, HEADER.pack(len(piece), DATA, end, 0, call), piece)))
            first = b""


def flush():
    """Pushes out what the code has printed; what it did to its streams is its own affair."""
    out, err, own_out, own_err = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    streams = (out, err) if out is own_out and err is own_err else (out, err, own_out, own_err)
    for stream in streams:
        try:
            stream.flush()
        except Exception:
            pass


def fork():
    """Forks a process that takes this one's place at the channel; 0 in the child."""
    global PID, forking
    forking = True
    child = os.fork()
    forking = False
    if not child:
        PID = getpid()
    return child


def leave(status):
    """Ends the process now: threads that the code left behind must not hold it."""
    flush()
    os._exit(status)


def leave_as_told(stop):
    """Ends the process as SystemExit asks for, by Python's own rules."""
    code = stop.code
    if code is None:
        leave(0)
    if isinstance(code, int):
        leave(code & 0xFF)
    try:
        print(code, file=sys.stderr)
    finally:
        leave(1)


def leave_if_forked(problem=None):
    """A process that the code has forked and let return ends here: the call is its parent's."""
    if getpid() != PID:
        if problem is not None:
            sys.__excepthook__(type(problem), problem, problem.__traceback__)
        leave(0 if problem is None else 1)


def tell_problem(channel, kind, call, problem, code):
    """Answers with what the code raised, behind everything that it has printed."""
    leave_if_forked(problem)
    told = part("problem").describe(problem, code)
    flush()
    channel.tell(kind, call, told)


def load(handler, code):
    """The function that `module.function` names."""
    module_name, _, name = handler.rpartition(".")
    __import__(module_name)
    module = sys.modules[module_name]
    origin = getattr(module, "__file__", None) or ""
    if not origin.startswith(code):
        raise ImportError(
            f"`{module_name}` is a module of Python itself ({origin or 'built in'}), so yours is never found; "
            "give your file another name"
        )
    function = getattr(module, name, None)
    if callable(function):
        flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
        if flags & 0x280:  # async def: its import belongs to the start, not to the first call
            import asyncio  # noqa: F401
        return function
    if function is not None:
        raise TypeError(f"`{handler}` is a {type(function).__name__}, not a function")
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", None) == module_name
    ]
    there = f"it has {', '.join(own[:10])}" if own else "it has no function at all"
    raise AttributeError(f"module `{module_name}` has no function `{name}`; {there}")


def wait_for(awaitable):
    """What an async handler returns in the end."""
    import asyncio

    async def all_of_it():
        return await awaitable

    return asyncio.run(all_of_it())


def opened(head):
    """How the event of a call is written, and the context of the call."""
    if head.startswith(JSON_CALL):
        return "json", Context(head[len(JSON_CALL) : -1])
    facts = from_json(str(head, "utf-8"))
    return facts["body"], Context(facts["context"])


def event_of(how, body):
    """The event as the code sees it."""
    if how == "json":
        return from_json(str(body, "utf-8"))
    if how == "base64":
        from binascii import b2a_base64

        return b2a_base64(body, newline=False).decode("ascii")
    return None


def encoded(value):
    """A returned value as content type and bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES_HEAD, bytes(value)
    text = to_json(value)
    try:
        return JSON_HEAD, text.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but it has a JSON escape.
        return JSON_HEAD, JSONEncoder(allow_nan=False, separators=(",", ":")).encode(value).encode("ascii")


def serve(channel, function, code, call, head, body):
    """Runs one call and answers it."""
    how, context = head
    try:
        event = event_of(how, body)
    except Exception as problem:
        told = part("problem").error(type(problem).__name__, f"Python cannot read this event: {problem}")
        channel.tell(ERROR, call, told)
        return
    del body
    try:
        value = function(event, context)
        kind = type(value)
        if kind not in PLAIN and hasattr(kind, "__await__"):
            value = wait_for(value)
            kind = type(value)
        if kind not in PLAIN and (hasattr(kind, "__next__") or hasattr(kind, "__anext__")):
            part("pieces").pour(channel, call, value, context, leave_if_forked)
            return
    except SystemExit as stop:
        leave_as_told(stop)
    except BaseException as problem:
        tell_problem(channel, ERROR, call, problem, code)
        return
    leave_if_forked()
    give(channel, call, value)


def give(channel, call, value):
    """Answers with what the handler returned."""
    try:
        content, result = encoded(value)
    except Exception as problem:
        told = part("problem")
        message = told.clean(str(problem))[:1000]
        told = told.error(
            type(problem).__name__,
            f"what the handler returned is not JSON: {message}; "
            "return dict, list, str, int, finite float, bool, None, bytes, or an iterator of such",
        )
        flush()
        channel.tell(ERROR, call, told)
        return
    flush()
    channel.result(call, content, result)


def prepare():
    """Makes the process fit for code of others."""
    os.set_inheritable(FD, False)
    os.set_blocking(FD, True)
    # A forked child must neither answer a call nor keep the channel open after its parent; but for one of our own.
    os.register_at_fork(after_in_child=lambda: None if forking else os.close(FD))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def start(channel):
    """Shakes hands and loads the handler; returns it, the directory of the code, and what the host has said."""
    version = "python %d.%d.%d" % sys.version_info[:3]
    channel.tell(HELLO, 0, to_json({"versions": [1], "features": ["concurrency"], "runtime": version}).encode("ascii"))
    chosen = channel.expect(WELCOME).get("version")
    if chosen != 1:
        raise ProtocolError(f"version {chosen}")
    init = channel.expect(INIT)
    code = init["code"].rstrip("/") + "/"
    os.environ.update(init["env"])
    if "TZ" in init["env"]:
        from time import tzset

        tzset()
    sys.path.insert(0, code[:-1])
    os.chdir(code)
    try:
        function = load(init["handler"], code)
    except SystemExit as stop:
        leave_as_told(stop)
    except BaseException as problem:
        tell_problem(channel, INIT_ERROR, 0, problem, code)
        leave(0)
    leave_if_forked()
    flush()
    # What the start has made stays: the collector need not look at it again and again.
    from gc import freeze

    freeze()
    channel.tell(READY, 0, b"{}")
    return function, code, init


def main():
    """Serves until the host says bye or is gone."""
    channel = Channel()
    try:
        prepare()
        function, code, init = start(channel)
        if init.get("concurrency", 1) > 1:
            part("shared").run(sys.modules[__name__], channel, function, code)
        if init.get("reset") == "fork":
            part("forked").run(sys.modules[__name__], channel, function, code)
        served = 0
        while (told := channel.next_call()) is not None:
            call, head, body = told
            serve(channel, function, code, call, opened(head), body)
            served += 1
            if served == 2:
                channel.wait_by_poll()
        leave(0)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        leave(0)
    except ProtocolError as problem:
        print(f"runlet: the host broke the protocol: {problem}", file=sys.stderr)
        leave(EX_SOFTWARE)


if __name__ == "__main__":
    main()
