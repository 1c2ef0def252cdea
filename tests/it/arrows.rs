//! The rooms and the arrows between them, read from `cargo metadata`: docs/ARCHITECTURE.md draws the same graph.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom. A new arrow is a decision, not an accident.
const ARROWS: [(&str, &[&str]); 6] = [
    ("runlet", &["runlet-core", "runlet-executor", "runlet-integrations", "runlet-runtimes", "runlet-triggers"]),
    ("runlet-integrations", &["runlet-core", "runlet-triggers"]),
    ("runlet-triggers", &["runlet-core"]),
    ("runlet-executor", &["runlet-core", "runlet-runtimes"]),
    ("runlet-runtimes", &["runlet-core"]),
    ("runlet-core", &[]),
];

/// Dependencies that belong to one room alone.
const OWNED: [(&str, &str); 4] = [
    ("libcontainer", "runlet-executor"),
    ("libcgroups", "runlet-executor"),
    ("oci-spec", "runlet-executor"),
    ("sqlx", "runlet-core"),
];

/// Normal and build dependencies of each package of the workspace; those of its tests are its own affair.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let names = |package: &Value| {
        let all = package["dependencies"].as_array().expect("a list").iter();
        all.filter(|dependency| dependency["kind"] != "dev")
            .filter_map(|d| d["name"].as_str().map(str::to_owned))
            .collect()
    };
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages.map(|package| (package["name"].as_str().expect("a name").to_owned(), names(package))).collect()
}

#[test]
fn arrows_point_down_only() {
    let found = dependencies();
    let drawn: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), drawn, "the rooms of the workspace");
    for (room, below) in ARROWS {
        let arrows: BTreeSet<&str> =
            found[room].iter().map(String::as_str).filter(|name| drawn.contains(name)).collect();
        assert_eq!(arrows, below.iter().copied().collect::<BTreeSet<_>>(), "what {room} depends on");
    }
}

#[test]
fn the_kernel_and_the_database_have_one_room_each() {
    for (room, dependencies) in dependencies() {
        for (dependency, owner) in OWNED {
            assert!(
                room == owner || !dependencies.contains(dependency),
                "{room} depends on {dependency}: it is {owner}'s"
            );
        }
    }
}
