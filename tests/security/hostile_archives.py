"""Writes tar archives that a server must refuse into the directory given as argument, and prints their paths."""

import io
import os
import sys
import tarfile

TOML = b'schema = 1\nname = "f"\nruntime = "python"\nhandler = "main.handle"\n'
CODE = b"def handle(event, context):\n    return 1\n"


def entry(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def archive(name, *entries, form=tarfile.PAX_FORMAT, base=True):
    path = os.path.join(sys.argv[1], name + ".tar")
    with tarfile.open(path, "w", format=form) as tar:
        if base:
            tar.addfile(*entry("function.toml", TOML))
            tar.addfile(*entry("main.py", CODE))
        for info, data in entries:
            tar.addfile(info, data)
    print(path)
    return path


def truncated(path):
    with open(path, "r+b") as file:
        file.truncate(700)


archive("dotdot", entry("../outside.py", b"x"))
archive("dotdot-inside", entry("lib/../../outside.py", b"x"))
archive("absolute", entry("/etc/cron.d/x", b"x"))
archive("symlink-out", entry("link", type=tarfile.SYMTYPE, linkname="../../etc"))
archive("symlink-absolute", entry("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
archive("write-through", entry("link", type=tarfile.SYMTYPE, linkname="."), entry("link/x", b"x"))
archive("hardlink", entry("shadow", type=tarfile.LNKTYPE, linkname="/etc/shadow"))
archive("fifo", entry("fifo", type=tarfile.FIFOTYPE))
archive("device", entry("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0))
archive("twice", entry("main.py", b"x = 1\n"))
archive("long-name", entry("d/" + "n" * 300, b"x"))
archive("long-path", entry("/".join(["d" * 200] * 25), b"x"))
archive("no-manifest", entry("main.py", CODE), base=False)
archive("many", *[entry("f%d" % n) for n in range(10_050)])
truncated(archive("cut"))
path = os.path.join(sys.argv[1], "noise.tar")
with open(path, "wb") as file:
    file.write(os.urandom(4096))
print(path)
