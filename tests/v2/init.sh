#!/bin/sh
# First process of the virtual machine. pivot_root does not work on the root file system that the kernel unpacks: everything moves to
# another one first.
export PATH=/usr/bin:/bin
if [ ! -e /moved ]; then
    mount -t tmpfs -o mode=0755 tmpfs /new
    for name in usr bin sbin lib lib64 etc var root init; do cp -a "/$name" /new/; done
    mkdir /new/proc /new/sys /new/dev /new/run /new/tmp
    echo >/new/moved
    exec switch_root /new /init
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "kernel: $(cat /proc/sys/kernel/osrelease), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
if smoke; then echo "smoke: passed"; else echo "smoke: failed"; fi
poweroff -f
