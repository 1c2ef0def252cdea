//! Archives as honest and hostile packers make them.

mod content;
mod hostile;
mod packing;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

const MANIFEST: &str = "schema = 1\nname = \"f\"\nruntime = \"python\"\nhandler = \"main.handle\"\n";
const CODE: &str = "def handle(event, context):\n    return event\n";

/// A tar whose names and numbers are whatever the test says: nothing checks them.
#[derive(Default)]
struct Crafted(Vec<u8>);

impl Crafted {
    /// One that would be accepted as it is.
    fn good() -> Self {
        Self::default().file("function.toml", MANIFEST).file("main.py", CODE)
    }

    fn entry(self, name: &str, kind: EntryType, link: &str, mode: u32, body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        header.set_link_name_literal(link).expect("it is short");
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_mtime(99);
        header.set_size(u64::try_from(body.len()).expect("it fits"));
        header.set_cksum();
        self.raw(&header, body)
    }

    fn raw(mut self, header: &Header, body: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, body: &str) -> Self {
        self.entry(name, EntryType::Regular, "", 0o644, body.as_bytes())
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, target, 0o777, b"")
    }

    /// A file with a name that no header holds.
    fn long(self, name: &str) -> Self {
        self.entry("././@LongLink", EntryType::GNULongName, "", 0, format!("{name}\0").as_bytes()).file("x", "")
    }

    fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// How `normalise` and `unpack` refuse it; both must, and nothing may be left behind.
    fn refusal(self) -> String {
        let tar = self.done();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let into = dir.path().join("into");
        let unpacked = unpack(&tar, &into).expect_err("unpack must refuse it").to_string();
        let normalised = normalise(&tar).expect_err("normalise must refuse it").to_string();
        assert_eq!(unpacked, normalised);
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
        normalised
    }
}

#[test]
fn same_content_is_the_same_revision_whoever_packed_it() {
    let plain = normalise(&Crafted::good().file("a/b.txt", "x").done()).expect("it is good");
    let other = Crafted::default()
        .entry("pax_global_header", EntryType::XGlobalHeader, "", 0o644, b"")
        .entry("./", EntryType::Directory, "", 0o700, b"")
        .entry("./a/", EntryType::Directory, "", 0o40_777, b"")
        .entry("./a/b.txt", EntryType::Regular, "", 0o600, b"x")
        .file("./main.py", CODE)
        .entry("function.toml", EntryType::Continuous, "", 0o464, MANIFEST.as_bytes());
    let other = normalise(&other.done()).expect("it is good");
    assert_eq!(plain.archive, other.archive);
    assert_eq!(plain.digest, other.digest);
    assert_eq!(plain.manifest.name.as_str(), "f");
    let executable = Crafted::good().entry("a/b.txt", EntryType::Regular, "", 0o755, b"x");
    assert_ne!(plain.digest, normalise(&executable.done()).expect("it is good").digest);
}

/// Stored digests depend on these bytes: a change here makes every function look changed.
#[test]
fn the_canonical_form_is_pinned() {
    let tar = Crafted::good()
        .entry("bin/tool", EntryType::Regular, "", 0o6755, b"#!/bin/sh\n")
        .link("bin/again", "./tool")
        .long(&format!("{}/x", "d".repeat(150)));
    let done = normalise(&tar.done()).expect("it is good");
    assert_eq!(done.digest.as_str(), "sha256:5aa424d76bd0457e2eea645c951fea3703c2231668c029b649f4d090e11590bd");
}

#[test]
fn unpacking_gives_the_content_with_modes_for_all() {
    let tar = Crafted::good()
        .entry("bin/tool", EntryType::Regular, "", 0o6755, b"#!/bin/sh\n")
        .entry("secret", EntryType::Regular, "", 0o400, b"\x00\xff")
        .link("bin/again", "tool")
        .link("dangling", "nowhere");
    let done = normalise(&tar.done()).expect("it is good");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let into = dir.path().join("into");
    unpack(&done.archive, &into).expect("it is good");
    let mode = |path: &str| fs::symlink_metadata(into.join(path)).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(
        [mode(""), mode("bin"), mode("bin/tool"), mode("secret"), mode("main.py")],
        [0o755, 0o755, 0o755, 0o644, 0o644]
    );
    assert_eq!(fs::read(into.join("secret")).expect("it is there"), b"\x00\xff");
    assert_eq!(fs::read_link(into.join("bin/again")).expect("it is there"), Path::new("tool"));
    let again = unpack(&done.archive, &into).expect_err("it is not empty").to_string();
    assert!(again.contains("the directory is not empty"), "{again}");
}

/// Any directory, by path: what is written there, and whether it may be run.
fn any_files() -> impl Strategy<Value = std::collections::BTreeMap<String, (Vec<u8>, bool)>> {
    let name = proptest::string::string_regex("([a-c]{1,3}/){0,3}[x-z]{1,120}").expect("it is a pattern");
    proptest::collection::btree_map(name, (proptest::collection::vec(any::<u8>(), 0..600), any::<bool>()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_directory_survives_and_its_form_is_final(files in any_files(), backwards in any::<bool>()) {
        let mut builder = Builder::new(Vec::new());
        let mut all: Vec<(&str, &[u8], bool)> = vec![("function.toml", MANIFEST.as_bytes(), false), ("main.py", CODE.as_bytes(), false)];
        all.extend(files.iter().map(|(path, (body, run))| (path.as_str(), body.as_slice(), *run)));
        if backwards {
            all.reverse();
        }
        for (path, body, run) in &all {
            let mut header = Header::new_ustar();
            header.set_mode(if *run { 0o711 } else { 0o600 });
            header.set_size(u64::try_from(body.len()).expect("it fits"));
            builder.append_data(&mut header, path, *body).expect("it is memory");
        }
        let first = normalise(&builder.into_inner().expect("it is memory")).expect("it is good");
        let again = normalise(&first.archive).expect("it is good");
        prop_assert_eq!(&first.archive, &again.archive);

        let dir = tempfile::tempdir().expect("a temporary directory");
        let into = dir.path().join("into");
        unpack(&first.archive, &into).expect("it is good");
        for (path, body, run) in all {
            prop_assert_eq!(fs::read(into.join(path)).expect("it is there"), body);
            let mode = fs::metadata(into.join(path)).expect("it is there").permissions().mode() & 0o777;
            prop_assert_eq!(mode, if run { 0o755 } else { 0o644 });
        }
        prop_assert_eq!(pack(&into).expect("it is good"), &first.archive[..]);
    }

    #[test]
    fn a_flipped_byte_never_leads_outside(at in 0usize..4096, value in any::<u8>()) {
        let mut tar = Crafted::good().link("l", "main.py").file("d/x", "y").done();
        let at = at % tar.len();
        tar[at] = value;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _ = unpack(&tar, &dir.path().join("into"));
        for found in fs::read_dir(dir.path()).expect("it is there") {
            prop_assert_eq!(found.expect("it is there").file_name(), "into");
        }
    }
}
