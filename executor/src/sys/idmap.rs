//! Detached mounts: cloned from a directory, given attributes and an id mapping, and attached elsewhere. nix wraps none of it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A mount of the directory that is attached nowhere: nosuid, nodev, and with the ids of `users` where one is given.
///
/// # Errors
/// The errno of `open_tree` or `mount_setattr`; `EINVAL` where the file system maps no ids.
pub(crate) fn detached(directory: BorrowedFd<'_>, users: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let tree = cloned(directory)?;
    set(&tree, 0, users)?;
    Ok(tree)
}

/// A read-only mount of the directory that is attached nowhere: nosuid and nodev, too.
///
/// # Errors
/// The errno of `open_tree` or `mount_setattr`.
pub(crate) fn sealed(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = cloned(directory)?;
    set(&tree, libc::MOUNT_ATTR_RDONLY, None)?;
    Ok(tree)
}

fn cloned(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open, the path is a NUL-terminated literal; the result is checked before it is used.
    let result = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            directory.as_raw_fd(),
            c"".as_ptr(),
            libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned(),
        )
    };
    let Ok(number) = i32::try_from(result) else { return Err(io::ErrorKind::Other.into()) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn set(tree: &OwnedFd, more: u64, users: Option<BorrowedFd<'_>>) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let mut attr = MountAttr {
        set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | more,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    if let Some(users) = users {
        attr.set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::from(users.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the descriptor is open and `attr` has the layout of struct mount_attr, whose size is given; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Attaches a detached mount at `target`.
///
/// # Errors
/// The errno of `move_mount`.
pub(crate) fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: the descriptor is open and both paths are NUL-terminated; all outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
