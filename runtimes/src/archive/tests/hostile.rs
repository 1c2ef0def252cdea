//! What a hostile client may send.

use tar::{EntryType, Header};

use super::Crafted;
use crate::archive::{ArchiveError, MAX_ENTRIES, normalise};

/// `normalise` and `unpack` refuse `tar` with a message that has `part`.
fn refused(tar: Crafted, part: &str) {
    let text = tar.refusal();
    assert!(text.contains(part), "{text}");
}

#[test]
fn names_that_lead_outside_are_refused() {
    refused(Crafted::good().file("../evil", ""), "entry `../evil`: its path has a `..`");
    refused(Crafted::good().file("a/../../evil", ""), "`..`");
    refused(Crafted::good().file("..", ""), "`..`");
    refused(Crafted::good().file("/etc/passwd", ""), "entry `/etc/passwd`: its path is absolute");
    refused(Crafted::good().file("C:\\evil", ""), "backslash");
    refused(Crafted::good().file("..\\evil", ""), "backslash");
    refused(Crafted::good().file("a\nb", ""), "entry `a\\nb`: its name has a control character");
    refused(Crafted::good().long("a\0b"), "control character");
    refused(Crafted::good().file("./", "content"), "empty");
    refused(Crafted::good().long(&"n".repeat(256)), "more than 255 bytes");
    refused(Crafted::good().long(&"n/".repeat(2048)), "more than 3072 bytes");
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..2].copy_from_slice(b"\xff\xfe");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    refused(Crafted::good().raw(&header, b""), "not UTF-8");
}

#[test]
fn what_is_no_file_directory_or_link_is_refused() {
    for (kind, part) in [
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "pipe"),
        (EntryType::new(b'V'), "neither a file"),
    ] {
        refused(Crafted::good().entry("odd", kind, "/etc/shadow", 0o644, b""), part);
    }
}

#[test]
fn a_name_is_there_once_and_below_directories_only() {
    refused(Crafted::good().file("main.py", ""), "entry `main.py`: the name is there twice");
    refused(Crafted::good().file("./main.py", ""), "twice");
    refused(Crafted::good().file("a//b", "").file("a/./b", ""), "twice");
    refused(Crafted::good().file("a/b", "").file("a", ""), "twice");
    refused(Crafted::good().file("a/b", "").link("a", "b"), "twice");
    refused(Crafted::good().file("main.py/x", ""), "below something that is not a directory");
    // Through a link, even to a place inside.
    refused(Crafted::good().link("dir", ".").file("dir/x", ""), "entry `dir/x`: it lies below");
    refused(Crafted::good().link("dir", ".").file("dir/a/b/x", ""), "it lies below");
}

#[test]
fn links_that_leave_are_refused() {
    let leaves = "leaves the function's directory";
    refused(Crafted::good().link("l", "/etc/passwd"), leaves);
    refused(Crafted::good().link("l", ".."), leaves);
    refused(Crafted::good().link("a/l", "../.."), leaves);
    refused(Crafted::good().link("l", "nowhere/../../x"), leaves);
    // Each of the two looks innocent by its letters alone.
    refused(
        Crafted::good().link("a/b/up", "../..").link("m", "a/b/up/.."),
        "entry `m`: it is a symbolic link that leaves",
    );
    refused(Crafted::good().link("l", "l"), "circle");
    refused(Crafted::good().link("a", "b").link("b", "a"), "circle");
    refused(Crafted::good().link("l", ""), "empty");
    let chain = (0..60).fold(Crafted::good(), |tar, n| tar.link(&format!("l{n}"), &format!("l{}", n + 1)));
    refused(chain, "too many links");
}

#[test]
fn tangled_links_cost_little_time() {
    // Every link walks a long way through others.
    let hop = "d/../".repeat(18);
    let tar = (0..2000).fold(Crafted::good(), |tar, n| {
        let next = if n % 39 == 38 { "main.py".to_owned() } else { format!("{hop}l{}", n + 1) };
        tar.link(&format!("l{n}"), &next)
    });
    refused(tar, "too many links");
}

#[test]
fn sizes_that_lie_are_refused() {
    let mut header = Header::new_gnu();
    header.set_path("bomb").expect("it is short");
    header.set_mode(0o644);
    for size in [10 << 30, u64::MAX >> 1, u64::MAX] {
        header.set_size(size);
        header.set_cksum();
        refused(Crafted::good().raw(&header, b""), "no whole, uncompressed tar");
    }
    // A pax record that says otherwise than the header.
    let pax = b"20 size=10737418240\n";
    let tar = Crafted::good().entry("pax", EntryType::XHeader, "", 0o644, pax).file("bomb", "x");
    refused(tar, "no whole, uncompressed tar");
    for record in ["22 GNU.sparse.major=1\n", "32 GNU.sparse.realsize=99999999\n"] {
        let tar = Crafted::good().entry("pax", EntryType::XHeader, "", 0o644, record.as_bytes()).file("sparse", "x");
        refused(tar, "entry `sparse`: it is stored as a sparse file");
    }
    let mut header = Header::new_gnu();
    header.set_path("holes").expect("it is short");
    header.set_mode(0o644);
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    let gnu = header.as_gnu_mut().expect("it is one");
    gnu.set_real_size(10 << 30);
    gnu.sparse[0].set_offset(10 << 30);
    gnu.sparse[0].set_length(0);
    header.set_cksum();
    refused(Crafted::good().raw(&header, b""), "entry `holes`: it is stored as a sparse file");
}

#[test]
fn too_much_is_refused() {
    let many = (0..MAX_ENTRIES).fold(Crafted::good(), |tar, n| tar.file(&format!("f{n}"), ""));
    refused(many, "more than 10000");
    // Directories that are only implied count as well.
    let deep = (0..20).fold(Crafted::good(), |tar, n| tar.long(&format!("{n}{}", "/d".repeat(1000))));
    refused(deep, "more than 10000");
    let huge = normalise(&vec![0; (50 << 20) + 1]).expect_err("it is too large").to_string();
    assert!(huge.starts_with("the archive has 52428801 bytes, where 50MiB is the most"), "{huge}");
}

#[test]
fn what_is_no_tar_is_refused() {
    for bytes in [&b"\x1f\x8b\x08 a gzip"[..], &[7; 512], &[7; 10_000]] {
        let text = normalise(bytes).expect_err("it is no tar").to_string();
        assert!(text.starts_with("this is no whole, uncompressed tar archive"), "{text}");
    }
    let whole = Crafted::good().done();
    let text = normalise(&whole[..700]).expect_err("it is cut").to_string();
    assert!(text.starts_with("this is no whole"), "{text}");
    assert!(matches!(normalise(&[]), Err(ArchiveError::NoManifest)));
}
