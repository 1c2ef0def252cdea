"""Several calls at a time in one process: threads for a plain handler, one event loop for an async one.

Frames of all calls share the channel; what a call prints goes under its number. A thread cannot be ended from outside:
a cancelled call is told so by `context.cancelled`, a coroutine by CancelledError.
"""

import io
import os
import sys
import threading
from contextvars import ContextVar, copy_context
from queue import SimpleQueue

# Output is held until a line of it is whole, or so much of it is there.
HELD = 8192

# The call that the running code belongs to; 0: none.
current = ContextVar("call", default=0)


class Lane:
    """The channel as several calls use it at once: whole frames, and nothing of a call behind its end."""

    def __init__(self, runner, channel):
        self.runner = runner
        self.channel = channel
        self.live = {}
        self.lock = threading.RLock()
        os.register_at_fork(after_in_child=self.forked)

    def forked(self):
        """A forked child has no channel, and somebody else may have held the lock."""
        self.lock = threading.RLock()
        self.live = {}

    def end(self, call, send, *args):
        """The last that is said of a call, unless it has ended already."""
        with self.lock:
            if self.live.pop(call, None) is not None:
                send(*args)

    def tell(self, kind, call, body):
        self.end(call, self.channel.tell, kind, call, body)

    def result(self, call, head, body):
        self.end(call, self.channel.result, call, head, body)

    def begin(self, call, head):
        with self.lock:
            self.channel.begin(call, head)

    def piece(self, call, body, end=0):
        if end:
            self.end(call, self.channel.piece, call, body, end)
        else:
            with self.lock:
                self.channel.piece(call, body)

    def log(self, call, stream, data):
        """Output of a call; False if it belongs to none that runs."""
        most = self.runner.MAX_FRAME - 1
        with self.lock:
            if call not in self.live:
                return False
            for at in range(0, len(data), most):
                piece = bytes((stream,)) + data[at : at + most]
                self.channel.send(self.runner.HEADER.pack(len(piece), self.runner.LOG, 0, 0, call) + piece)
            return True


class Output(io.RawIOBase):
    """stdout or stderr: what is written goes to the call that writes it, by lines or when it is flushed."""

    def __init__(self, lane, stream):
        self.lane = lane
        self.stream = stream
        self.pending = {}

    def writable(self):
        return True

    def fileno(self):
        return self.stream

    def write(self, data):
        call = current.get()
        with self.lane.lock:
            held = self.pending.setdefault(call, bytearray())
            held += data
            if len(held) > HELD or 10 in data:
                self.flush()
        return len(data)

    def flush(self):
        call = current.get()
        with self.lane.lock:
            held = self.pending.pop(call, None)
            if not held or (call and self.lane.log(call, self.stream, bytes(held))):
                return
        view = memoryview(held)
        while view:
            view = view[os.write(self.stream, view) :]


class Threads:
    """As many threads as there are calls at a time; they stay for the next."""

    def __init__(self):
        self.jobs = SimpleQueue()
        self.idle = 0
        self.lock = threading.Lock()

    def submit(self, job):
        with self.lock:
            waits = self.idle > 0
            self.idle -= waits
        if waits:
            self.jobs.put(job)
        else:
            threading.Thread(target=self.work, args=(job,), daemon=True).start()

    def work(self, job):
        while True:
            # A context of its own: what one call sets, the next one does not see.
            copy_context().run(job)
            with self.lock:
                self.idle += 1
            job = self.jobs.get()


class Calls:
    """The calls whose bodies are coming, and who runs them."""

    def __init__(self, runner, channel, function, code):
        self.runner = runner
        self.channel = channel
        self.function = function
        self.code = code
        self.lane = Lane(runner, channel)
        self.coming = {}
        self.threads = Threads()
        self.loop = None

    def read(self):
        """Hears the host to its end."""
        runner = self.runner
        self.channel.wait_by_poll()
        try:
            while True:
                kind, end, call, body = self.channel.receive()
                if kind == runner.BYE:
                    runner.leave(0)
                elif kind == runner.INVOKE and call and call not in self.coming and call not in self.lane.live:
                    self.coming[call] = (runner.opened(body), bytearray())
                    if end:
                        self.begin(call)
                elif kind == runner.DATA and call in self.coming:
                    self.coming[call][1].extend(body)
                    if end:
                        self.begin(call)
                elif kind == runner.CANCEL and call:
                    self.cancel(call)
                else:
                    raise runner.ProtocolError(f"kind {kind} of call {call}")
        except (EOFError, BrokenPipeError, ConnectionResetError):
            runner.leave(0)
        except runner.ProtocolError as problem:
            print(f"runlet: the host broke the protocol: {problem}", file=sys.__stderr__)
            runner.leave(runner.EX_SOFTWARE)

    def begin(self, call):
        """The body is whole: the call runs."""
        head, body = self.coming.pop(call)
        self.lane.live[call] = [head[1], None]
        if self.loop is None:
            try:
                self.threads.submit(lambda: self.in_thread(call, head, body))
            except RuntimeError as problem:  # the limit `pids` is reached
                self.runner.tell_problem(self.lane, self.runner.ERROR, call, problem, self.code)
        else:
            self.loop.call_soon_threadsafe(self.in_loop, call, head, body)

    def cancel(self, call):
        """Tells a call that nobody wants its result any more; one that has ended needs no telling."""
        live = self.lane.live.get(call)
        if live is None:
            return
        live[0].cancelled = True
        if self.loop is not None:
            self.loop.call_soon_threadsafe(lambda: live[1] and live[1].cancel())

    def in_thread(self, call, head, body):
        current.set(call)
        self.runner.serve(self.lane, self.function, self.code, call, head, body)

    def in_loop(self, call, head, body):
        bound = copy_context()
        bound.run(current.set, call)
        task = bound.run(self.loop.create_task, self.serve(call, head, body))
        live = self.lane.live.get(call)
        if live is not None:
            live[1] = task

    async def serve(self, call, head, body):
        """Runs one call of an async handler and answers it."""
        runner, lane = self.runner, self.lane
        how, context = head
        try:
            event = runner.event_of(how, body)
        except Exception as problem:
            told = runner.part("problem").error(type(problem).__name__, f"Python cannot read this event: {problem}")
            lane.tell(runner.ERROR, call, told)
            return
        pieces = runner.part("pieces")
        try:
            value = self.function(event, context)
            if hasattr(type(value), "__await__"):
                value = await value
            if hasattr(type(value), "__anext__"):
                await pieces.pour_async(lane, call, value, context, runner.leave_if_forked)
                return
            if hasattr(type(value), "__next__"):
                pieces.pour(lane, call, value, context, runner.leave_if_forked)
                return
        except SystemExit as stop:
            runner.leave_as_told(stop)
        except BaseException as problem:
            runner.tell_problem(lane, runner.ERROR, call, problem, self.code)
            return
        runner.leave_if_forked()
        runner.give(lane, call, value)

    def run(self):
        """Serves for ever."""
        for name, stream in (("stdout", 1), ("stderr", 2)):
            raw = Output(self.lane, stream)
            text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
            getattr(sys, name).flush()
            setattr(sys, name, text)
        flags = getattr(getattr(self.function, "__code__", None), "co_flags", 0)
        if not flags & 0x280:
            self.read()
        import asyncio

        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        threading.Thread(target=self.read, daemon=True).start()
        self.loop.run_forever()


def run(runner, channel, function, code):
    """Serves calls of `function` until the host says bye or is gone; does not return."""
    Calls(runner, channel, function, code).run()
