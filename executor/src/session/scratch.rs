//! A buffer per thread to read into, so that idle sessions hold no memory for output that does not come.

use std::cell::RefCell;

/// As much as a pipe holds by default.
const SIZE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE]);
}

/// Lends the buffer of this thread to `read`. It must not call itself.
pub(super) fn with<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| read(scratch))
}
