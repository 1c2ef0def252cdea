"""Calls of which each runs in a fork of the process that has loaded the handler.

The parent reads a call, forks, and reads no other before the child is gone and with it everything that it has left: processes,
files, shared memory. A child that ends without an answer takes the parent with it, in the same way: for the host it is as if
the code had run in the parent.
"""

import gc
import os
from time import monotonic

PLACES = ("/tmp", "/dev/shm")
SIGKILL = 9
# How long the end of what a call has left may take; then the sandbox is given up.
PATIENCE = 2


def run(runner, channel, function, code):
    """Serves until the host says bye or is gone."""
    answered, answer = os.pipe()
    os.set_blocking(answered, False)
    # What is there now is not the call's: the collector would only copy its pages.
    gc.collect()
    gc.freeze()
    while (told := channel.next_call()) is not None:
        call, head, body = told
        head = runner.opened(head)
        runner.flush()
        child = runner.fork()
        if not child:
            runner.serve(channel, function, code, call, head, body)
            os.write(answer, b"!")
            runner.leave(0)
        status = os.waitpid(child, 0)[1]
        if not has_answered(answered):
            end_like(runner, status)
        if not clean():
            runner.leave(runner.EX_SOFTWARE)
    runner.leave(0)


def has_answered(answered):
    """Whether the child has said that it has answered."""
    try:
        return bool(os.read(answered, 1))
    except BlockingIOError:
        return False


def end_like(runner, status):
    """Ends this process as the child has ended."""
    if os.WIFSIGNALED(status):
        from signal import SIG_DFL, signal

        number = os.WTERMSIG(status)
        if number != SIGKILL:
            signal(number, SIG_DFL)
        os.kill(os.getpid(), number)
    runner.leave(os.waitstatus_to_exitcode(status) & 0xFF)


def clean():
    """Ends all other processes and empties the places that can be written to; whether nothing is left."""
    until = monotonic() + PATIENCE
    while True:
        try:
            # Everybody but ourselves and the init of the sandbox.
            os.kill(-1, SIGKILL)
        except ProcessLookupError:
            break
        if monotonic() > until:
            return False
        os.sched_yield()
    try:
        for place in PLACES:
            empty(place)
    except OSError:
        return False
    return True


def empty(directory):
    """Removes all that is in a directory; one that was closed is opened first, for all is ours."""
    try:
        entries = list(os.scandir(directory))
    except PermissionError:
        os.chmod(directory, 0o700)
        entries = list(os.scandir(directory))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            empty(entry.path)
            remove(os.rmdir, entry.path, directory)
        else:
            remove(os.unlink, entry.path, directory)


def remove(how, path, directory):
    """Removes one entry of a directory."""
    try:
        how(path)
    except PermissionError:
        os.chmod(directory, 0o700)
        how(path)
