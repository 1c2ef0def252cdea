"""Looks around inside the sandbox, tries what must not work, and reports. The verdict is the test's."""

import errno
import os
import socket
import time

TRIES = {
    "write /etc/passwd": lambda: open("/etc/passwd", "a").close(),
    "write /etc/resolv.conf": lambda: open("/etc/resolv.conf", "a").close(),
    "write /usr/bin/x": lambda: open("/usr/bin/x", "w").close(),
    "write /var/task": lambda: open("/var/task/x", "w").close(),
    "write the runner": lambda: open("/run/runlet/runner.py", "a").close(),
    "write /x": lambda: open("/x", "w").close(),
    "write core_pattern": lambda: open("/proc/sys/kernel/core_pattern", "w").close(),
    "write sysrq": lambda: open("/proc/sysrq-trigger", "w").close(),
    "write own exe": lambda: open("/proc/1/exe", "wb").close(),
    "write oom_score_adj": lambda: open("/proc/self/oom_score_adj", "wb", buffering=0).write(b"-1000"),
    "chroot": lambda: os.chroot("/tmp"),
    "setuid elsewhere": lambda: os.setresuid(70000, 70000, 70000),
    "mknod": lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)),
    "raise a limit": lambda: __import__("resource").setrlimit(7, (1 << 24, 1 << 24)),
    "nice down": lambda: os.setpriority(0, 0, -10),
    "hostname": lambda: socket.sethostname("x"),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet socket": lambda: socket.socket(17, socket.SOCK_RAW),
    "netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "alg socket": lambda: socket.socket(38, socket.SOCK_SEQPACKET),
    "write a cgroup": lambda: open(next(os.path.join(r, "cgroup.procs") for r, _, f in os.walk("/sys/fs/cgroup") if "cgroup.procs" in f), "w"),
}


def word(error):
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, type(error).__name__) if number else type(error).__name__


def attempt(what):
    try:
        what()
        return "done"
    except (OSError, ValueError, StopIteration, PermissionError) as error:
        return word(error)


def connect(address, family=socket.AF_INET):
    start = time.monotonic()
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(2)
            sock.connect(address)
        error = None
    except OSError as caught:
        error = word(caught)
    return {"error": error, "seconds": time.monotonic() - start}


def reading(path):
    try:
        if os.path.isdir(path):
            return "read" if os.listdir(path) else "empty"
        with open(path, "rb") as file:
            return "read" if file.read(64) else "empty"
    except OSError as error:
        return word(error)


def writable():
    found = set()
    for root, dirs, _ in os.walk("/"):
        if root.startswith(("/proc", "/sys")):
            dirs[:] = []
            continue
        try:
            path = os.path.join(root, ".probe-write")
            open(path, "w").close()
            os.unlink(path)
            found.add(root)
        except OSError:
            pass
    # What is below a writable place is that place.
    return sorted(p for p in found if not any(p != q and p.startswith(q + "/") for q in found))


def descriptors():
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
        if int(number) > 3:
            found.append("%s -> %s" % (number, target))
    return found


def handle(event, context):
    lines = [line.partition(":") for line in open("/proc/self/status")]
    status = {key: value.strip() for key, _, value in lines}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    commands = {pid: open("/proc/%d/cmdline" % pid, "rb").read().replace(b"\0", b" ").decode() for pid in pids}
    port = event["port"]
    return {
        "status": status,
        "uid_map": open("/proc/self/uid_map").read(),
        "groups": os.getgroups(),
        "pids": pids,
        "foreign": [c for c in commands.values() if "serve" in c or "postgres" in c or "cargo" in c],
        "interfaces": sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line),
        "connects": {
            "the API": connect(("127.0.0.1", port)),
            "the API by [::1]": connect(("::1", port), socket.AF_INET6),
            "the API by a mapped address": connect(("::ffff:127.0.0.1", port), socket.AF_INET6),
            "the API by 0.0.0.0": connect(("0.0.0.0", port)),
            "the metadata service": connect(("169.254.169.254", 80)),
            "a private network": connect(("10.0.0.1", 80)),
            "the world": connect(("192.0.2.1", 80)),
            "Postgres by name": connect("\0postgres", socket.AF_UNIX),
        },
        "refused": {name: attempt(what) for name, what in TRIES.items()},
        "reads": {path: reading(path) for path in event.get("read", [])},
        "writable": writable(),
        # The listing itself holds one descriptor on /proc/self/fd.
        "descriptors": [text for text in descriptors() if "/fd" not in text],
        "set_ids": [name for name in os.environ if name.startswith(("CARGO", "NEXTEST", "SSH", "PG"))],
    }
