"""Makes system calls that a sealed sandbox refuses, each in a child of its own, and tells what became of each."""

import ctypes
import errno
import mmap
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)

X86_64 = {
    "ptrace": (101, 16, 1), "mount": (165, 0, 0, 0, 0, 0), "umount2": (166, b"/usr", 0), "unshare user": (272, 0x10000000),
    "unshare mount": (272, 0x00020000), "unshare net": (272, 0x40000000), "setns": (308, 0, 0), "pivot_root": (155, b"/", b"/"),
    "keyctl": (250, 0, -3, 1), "add_key": (248, b"user", b"x", b"y", 1, -2), "request_key": (249, b"user", b"x", 0, 0),
    "bpf": (321, 0, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "userfaultfd": (323, 0), "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, 0, 0, 0, 0, 0), "kexec_load": (246, 0, 0, 0, 0), "kexec_file_load": (320, 0, 0, 0, 0, 0),
    "init_module": (175, 0, 0, b""), "finit_module": (313, 0, b"", 0), "delete_module": (176, b"x", 0),
    "open_by_handle_at": (304, 0, 0, 0), "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0), "swapon": (167, b"/x", 0), "swapoff": (168, b"/x"), "acct": (163, b"/tmp/x"),
    "settimeofday": (164, 0, 0), "clock_settime": (227, 0, 0), "quotactl": (179, 0, 0, 0, 0), "iopl": (172, 3),
    "ioperm": (173, 0, 1, 1), "syslog": (103, 3, 0, 0), "open_tree": (428, -100, b"/", 1), "move_mount": (429, -1, b"", -1, b"", 0),
    "fsopen": (430, b"tmpfs", 0), "fsmount": (432, 0, 0, 0), "mount_setattr": (442, -100, b"/", 0, 0, 0),
    "name_to_handle_at": (303, -100, b"/", 0, 0, 0), "kcmp": (312, 1, 1, 0, 0, 0), "lookup_dcookie": (212, 0, 0, 0),
    "clone newuser": (56, 0x10000011, 0, 0, 0, 0), "clone3": (435, 0, 0), "personality": (135, 0x0040000),
}


def refusal(arguments):
    """What the call came to, told by a child that makes it: a name of an errno, `killed`, or `done`."""
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        arguments = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
        result = libc.syscall(*arguments)
        os._exit(ctypes.get_errno() if result < 0 else 255)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed" if os.WTERMSIG(status) == 31 else "signal %d" % os.WTERMSIG(status)
    code = os.WEXITSTATUS(status)
    return "done" if code == 255 else errno.errorcode.get(code, str(code))


def run(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def handle(event, context):
    assert platform.machine() == "x86_64"
    what = event["what"]
    if what == "native":  # getpid by machine code: mov eax, 39; syscall; ret
        return "alive" if run(b"\xb8\x27\x00\x00\x00\x0f\x05\xc3") == os.getpid() else "wrong"
    if what == "int80":  # getpid of i386: mov eax, 20; int 0x80; ret
        return run(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    if what == "x32":  # getpid of x32: mov eax, 0x40000000 + 39; syscall; ret
        return run(b"\xb8\x27\x00\x00\x40\x0f\x05\xc3")
    return {name: refusal(arguments) for name, arguments in X86_64.items()}
