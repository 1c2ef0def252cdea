//! Memory of this process: giving back what only the start has used.

use std::ffi::c_void;

/// Segments begin at a multiple of this. Where pages are larger, the kernel may refuse the call, and nothing is given back.
const PAGE: u64 = 4096;

/// Gives back the pages of the program and its libraries that are mapped read-only: code and constants. Whatever is used again comes
/// back from the page cache, 64 KiB at a time. To be called once a process has come to rest: a start touches several times of what serving
/// does (migrations, the API's document, certificates).
pub fn give_back_program() {
    // SAFETY: `segments` reads what the loader passes it, only during the call, and keeps nothing.
    unsafe { libc::dl_iterate_phdr(Some(segments), std::ptr::null_mut()) };
}

/// Called by the loader for each object that is loaded.
unsafe extern "C" fn segments(object: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> i32 {
    // SAFETY: the loader's own description of an object, valid during the call; `dlpi_phdr` has `dlpi_phnum` entries.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    for header in headers.iter().filter(|one| one.p_type == libc::PT_LOAD && one.p_flags & libc::PF_W == 0) {
        let (start, end) = (base + header.p_vaddr, base + header.p_vaddr + header.p_memsz);
        let start = start / PAGE * PAGE;
        let (Ok(address), Ok(length)) = (usize::try_from(start), usize::try_from(end.next_multiple_of(PAGE) - start))
        else {
            continue;
        };
        // SAFETY: a segment that is never writable is a private mapping of a file without changes of its own: a page that is
        // dropped is read from the file again, with the same bytes, at the next access. Refused for the kernel's own page (vdso).
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(address), length, libc::MADV_DONTNEED) };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped_file_pages() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn pages_go_and_come_back_with_the_same_bytes() {
        static CONSTANT: [u8; 1 << 20] = [7; 1 << 20];
        let sum = || CONSTANT.iter().map(|byte| u64::from(std::hint::black_box(*byte))).sum::<u64>();
        let expected = sum();
        let before = mapped_file_pages();
        give_back_program();
        let after = mapped_file_pages();
        assert!(after + 1024 <= before, "{before} kB before, {after} kB after");
        assert_eq!(sum(), expected);
    }
}
