//! Boot: everything that sandboxes of an earlier life left on the host goes away. Takes no input but what it finds.

use std::collections::BTreeSet;
use std::io;

use crate::shim::{self, Inherited};

/// Sweeps every sandbox that is found by its state, its bundle or its cgroup. Returns their names.
pub(super) fn reconcile(inherited: &Inherited) -> io::Result<Vec<String>> {
    let parent = inherited.hierarchies.cgroup(&inherited.cgroup_parent);
    let mut names: BTreeSet<String> = parent.children().into_iter().collect();
    for directory in [inherited.layout.state(), inherited.layout.bundles(), inherited.layout.work().builds()] {
        match std::fs::read_dir(&directory) {
            Ok(entries) => names.extend(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for name in &names {
        shim::sweep(inherited, name, &parent.child(name));
    }
    // Records that no server took: the ledger has its own account of those executions by now.
    match std::fs::remove_dir_all(inherited.layout.exits()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(names.into_iter().collect()),
    }
}
