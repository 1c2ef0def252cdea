//! Processes: fork, exit without clean-up, signal dispositions, capabilities.

use nix::unistd::ForkResult;

/// Forks a process that has one thread.
///
/// # Errors
/// The errno of `fork`, or `EBUSY` when the process has more than one thread: the child of a threaded process may do nothing
/// but exec, for another thread may hold any lock.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count);
    if threads != 1 {
        return Err(nix::errno::Errno::EBUSY);
    }
    // SAFETY: there is no other thread, so no lock is held by one and the child may run any code.
    unsafe { nix::unistd::fork() }
}

/// Ends this process at once: no destructors, no exit handlers. For forked children, whose parent owns what those would touch.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit touches no memory of ours and does not return.
    unsafe { libc::_exit(status) }
}

/// Gives every signal its default action back; the Rust runtime ignores SIGPIPE, which programs must not inherit.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler of ours. Numbers without a changeable action fail with EINVAL, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Empties the permitted, effective and inheritable capability sets of this process.
///
/// # Errors
/// The errno of `capset`.
pub(crate) fn drop_capabilities() -> std::io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    // effective, permitted, inheritable: twice, for capabilities 0-31 and 32-63
    let data = [0_u32; 6];
    // SAFETY: header and data have the layout that version 3 asks for (see capset(2)) and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Takes capability `number` out of the bounding set. Numbers that the kernel does not know are `Ok(false)`.
///
/// # Errors
/// The errno of `prctl`.
pub(crate) fn drop_from_bounding_set(number: u64) -> std::io::Result<bool> {
    // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
    if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } == 0 {
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) { Ok(false) } else { Err(error) }
}
