//! The image that the zygote is executed from.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};

/// How long a seal may be refused because pages are in use.
const PATIENCE: Duration = Duration::from_secs(5);

/// A copy of the running binary that nobody can write to, so that no code that gets hold of `/proc/<pid>/exe` can change
/// what root executes (CVE-2019-5736).
///
/// # Errors
/// When the binary cannot be read, or there is no memory for it.
pub(super) fn sealed_copy() -> io::Result<OwnedFd> {
    let mut image = unsealed()?;
    io::copy(&mut File::open("/proc/self/exe")?, &mut image)?;
    let until = Instant::now() + PATIENCE;
    seal(&image, || {
        sleep(Duration::from_millis(10));
        Instant::now() < until
    })?;
    Ok(image.into())
}

fn unsealed() -> io::Result<File> {
    let fd = memfd_create(c"runlet", MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING)?;
    Ok(fd.into())
}

/// Seals `image` against every change. The kernel refuses that with `EBUSY` while anything else holds one of its pages, be it
/// for a moment to move or reclaim it, and gives up after some 150 ms by itself (`memfd_wait_for_pins`): `again` says whether to ask once more.
fn seal(image: &File, mut again: impl FnMut() -> bool) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    loop {
        match fcntl(image.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals)) {
            Err(Errno::EBUSY) if again() => {}
            sealed => return Ok(sealed.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use nix::fcntl::{SpliceFFlags, splice};
    use nix::unistd::pipe;

    use super::*;

    /// An image with a page that a pipe holds, too.
    fn held() -> (File, (OwnedFd, OwnedFd)) {
        let mut image = unsealed().unwrap();
        image.write_all(&[7; 4096]).unwrap();
        let (read, write) = pipe().unwrap();
        assert_eq!(splice(image.as_fd(), Some(&mut 0), write.as_fd(), None, 4096, SpliceFFlags::empty()), Ok(4096));
        (image, (read, write))
    }

    #[test]
    fn a_page_in_use_is_waited_for() {
        let (image, pipe) = held();
        let mut pipe = Some(pipe);
        seal(&image, || pipe.take().is_some()).unwrap();
        assert!(pipe.is_none(), "the first attempt was refused");
        assert_eq!((&image).write(b"x").unwrap_err().raw_os_error(), Some(Errno::EPERM as i32));
    }

    #[test]
    fn a_page_that_stays_in_use_is_told() {
        let (image, _pipe) = held();
        assert_eq!(seal(&image, || false).unwrap_err().raw_os_error(), Some(Errno::EBUSY as i32));
    }
}
