"""Watches directories below argv[1] named `effects` and prints the number of each file in them that is opened.

It runs on the host, outside every sandbox. It says `watching` once what is there is watched; what appears later is
watched too. Opens through any mount of the
same file are seen, since the kernel notes them at the inode.
"""

import ctypes
import os
import select
import struct
import sys

IN_OPEN, IN_IGNORED = 0x20, 0x8000
libc = ctypes.CDLL(None, use_errno=True)
inotify = libc.inotify_init()
watched = set()


def watch():
    for revision in os.listdir(sys.argv[1]) if os.path.isdir(sys.argv[1]) else []:
        path = os.path.join(sys.argv[1], revision, "effects")
        if path not in watched and os.path.isdir(path):
            if libc.inotify_add_watch(inotify, path.encode(), IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")
            watched.add(path)


watch()
print("watching")
while True:
    watch()
    if not select.select([inotify], [], [], 0.02)[0]:
        continue
    data = os.read(inotify, 1 << 16)
    while data:
        _, mask, _, size = struct.unpack("iIII", data[:16])
        name = data[16:16 + size].rstrip(b"\0").decode()
        data = data[16 + size:]
        if mask & IN_IGNORED:
            watched.clear()
        if name.isdigit():
            print(int(name))
