"""Functions that take all they can get: memory in several disguises, files, processes."""

import errno
import os
import signal
import time


def heap():
    return len(bytearray(1 << 30))


def memfd():
    fd = os.memfd_create("bomb")
    block = b"x" * (1 << 20)
    while True:
        os.write(fd, block)


def children():
    """Children that together take too much: the kernel kills one of them, and its end says how."""
    while True:
        if os.fork() == 0:
            kept = bytearray(24 << 20)
            time.sleep(3600)
            os._exit(len(kept) & 0)
        time.sleep(0.05)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            return {"signal": os.WTERMSIG(status)}


def tmp():
    written = 0
    try:
        with open("/tmp/full", "wb", buffering=0) as file:
            while True:
                written += file.write(b"x" * 65536)
    except OSError as error:
        os.unlink("/tmp/full")
        return {"error": errno.errorcode[error.errno], "written": written}


def inodes():
    files = 0
    try:
        while files < 1_000_000:
            os.close(os.open("/tmp/%d" % files, os.O_CREAT | os.O_WRONLY))
            files += 1
        return {"error": None, "files": files}
    except OSError as error:
        return {"error": errno.errorcode[error.errno], "files": files}


def forks():
    made = []
    try:
        while True:
            pid = os.fork()
            if pid == 0:
                time.sleep(3600)
                os._exit(0)
            made.append(pid)
    except OSError as error:
        for pid in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return {"children": len(made), "error": errno.errorcode[error.errno]}


def handle(event, context):
    return globals()[event["what"]]()
