//! The memory of the server's own processes.

/// Gives back the pages of program code and constants that are mapped: most of them were used by the start alone. What is used
/// again comes back from the page cache, 64 KiB at a time. To be called once a process has come to rest.
pub fn settle() {
    crate::sys::memory::give_back_program();
}
