"""A function that looks for another function's code, environment and files, everywhere it can reach."""

import os

PLACES = ["/var", "/run", "/tmp", "/dev/shm", "/proc", "/home", "/root", "/srv", "/opt", "/mnt", "/sys/fs"]


def handle(event, context):
    canary = event["canary"].encode()
    own = "/proc/%d" % os.getpid()
    hits, read = [], 0
    for place in PLACES + [event["data_dir"], os.path.dirname(event["data_dir"])]:
        for root, dirs, files in os.walk(place):
            if root.count("/") > 6 or root.startswith("/proc/sys"):
                dirs[:] = []
            for name in files:
                path = os.path.join(root, name)
                if path.startswith((own, "/proc/self", "/proc/thread-self")):
                    continue
                try:
                    # Non-blocking: a pipe or a device must not hold the search up.
                    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                    try:
                        read += 1
                        if canary in os.read(fd, 1 << 16):
                            hits.append(path)
                    finally:
                        os.close(fd)
                except OSError:
                    pass
    if os.path.exists(event["data_dir"]):
        hits.append(event["data_dir"])
    return {"hits": hits, "read": read}
