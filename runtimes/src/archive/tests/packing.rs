//! Directories on disk.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{CODE, MANIFEST};
use crate::archive::{normalise, pack};

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("it is below the directory")).expect("it is made");
    fs::write(path, text).expect("it is written");
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path(), "function.toml", MANIFEST);
    write(dir.path(), "main.py", CODE);
    dir
}

#[test]
fn packing_leaves_out_what_is_no_code_and_is_canonical_already() {
    let dir = directory();
    write(dir.path(), "lib/util.py", "x = 1\n");
    write(dir.path(), "node_modules/m/index.js", "");
    symlink("lib/util.py", dir.path().join("shortcut.py")).expect("it is made");
    let clean = pack(dir.path()).expect("it is good");
    for junk in [".git/config", "lib/.git", "__pycache__/main.cpython-311.pyc", "lib/old.pyc"] {
        write(dir.path(), junk, "junk");
    }
    let packed = pack(dir.path()).expect("it is good");
    assert_eq!(clean, packed);
    assert_eq!(normalise(&packed).expect("it is good").archive, packed);
}

#[test]
fn packing_names_what_is_in_the_way() {
    let dir = directory();
    symlink("../elsewhere", dir.path().join("out")).expect("it is made");
    assert!(pack(dir.path()).expect_err("it leaves").to_string().starts_with("entry `out`: it is a symbolic link"));
    fs::remove_file(dir.path().join("out")).expect("it is there");

    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).expect("it is made");
    assert!(pack(dir.path()).expect_err("it is a socket").to_string().starts_with("entry `sock`: it is a device"));
    drop(socket);
    fs::remove_file(dir.path().join("sock")).expect("it is there");

    let big = fs::File::create(dir.path().join("big.bin")).expect("it is made");
    big.set_len(60 << 20).expect("it is sparse");
    let text = pack(dir.path()).expect_err("it is too large").to_string();
    assert!(text.contains("holds more than 50MiB; the largest file so far is big.bin (60MiB)"), "{text}");
    fs::remove_file(dir.path().join("big.bin")).expect("it is there");

    let text = pack(&dir.path().join("missing")).expect_err("it is not there").to_string();
    assert!(text.starts_with("cannot read ") && text.contains("missing"), "{text}");
    pack(dir.path()).expect("nothing is in the way any more");
}
