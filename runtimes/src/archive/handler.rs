//! Is the handler that the manifest names in the directory?

use runlet_core::manifest::{Manifest, ManifestError, RuntimeKind};

use super::tree::{Node, Tree};

/// Checks the key `handler` of `manifest`, whose text is `text`, against the directory.
pub(super) fn check(manifest: &Manifest, text: &str, tree: &Tree<'_>) -> Result<(), ManifestError> {
    let checked = match manifest.runtime {
        RuntimeKind::Python => python(&manifest.handler, tree),
        RuntimeKind::Node => node(&manifest.handler, tree),
        RuntimeKind::Exec | RuntimeKind::Custom => exec(&manifest.handler, tree),
    };
    checked.map_err(|message| ManifestError { line: line(text), key: "handler".to_owned(), message })
}

/// The line of the key: it stands before the first table.
fn line(text: &str) -> Option<usize> {
    let mut lines = text.lines().map(str::trim_start).take_while(|line| !line.starts_with('['));
    lines
        .position(|line| line.split('=').next().is_some_and(|key| key.trim().trim_matches('"') == "handler"))
        .map(|n| n + 1)
}

fn python(handler: &str, tree: &Tree<'_>) -> Result<(), String> {
    let identifier = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c == '_' || c.is_alphabetic()) && chars.all(|c| c == '_' || c.is_alphanumeric())
    };
    let Some((module, _)) = handler.rsplit_once('.').filter(|_| handler.split('.').all(identifier)) else {
        return Err(format!("`{handler}` is not `module.function`; for `def handle` in main.py write \"main.handle\""));
    };
    let base = module.replace('.', "/");
    if tree.file(&format!("{base}.py")).is_some() || tree.file(&format!("{base}/__init__.py")).is_some() {
        return Ok(());
    }
    let there = some_of(tree, |path, _| path.ends_with(".py"));
    Err(format!("`{handler}` needs a file {base}.py or {base}/__init__.py; Python files here: {there}"))
}

/// What a module's file may end in; the runner looks for them in this order.
const NODE_FILES: [&str; 3] = ["js", "mjs", "cjs"];

fn node(handler: &str, tree: &Tree<'_>) -> Result<(), String> {
    let leaves = handler.starts_with('/') || handler.split('/').any(|part| part == "..");
    let parts = handler.rsplit_once('.').filter(|(module, export)| !module.is_empty() && !export.is_empty());
    let Some((module, _)) = parts.filter(|_| !leaves) else {
        return Err(format!(
            "`{handler}` is not `module.export`; for `exports.handler` in index.js write \"index.handler\""
        ));
    };
    let module = module.trim_start_matches("./");
    if NODE_FILES.iter().any(|end| tree.file(&format!("{module}.{end}")).is_some()) {
        return Ok(());
    }
    let there = some_of(tree, |path, _| {
        !path.contains("node_modules/") && NODE_FILES.iter().any(|end| path.ends_with(&format!(".{end}")))
    });
    Err(format!("`{handler}` needs a file {module}.js, {module}.mjs or {module}.cjs; such files here: {there}"))
}

fn exec(handler: &str, tree: &Tree<'_>) -> Result<(), String> {
    if handler.starts_with('/') || handler.split('/').any(|part| part == "..") {
        return Err(format!("`{handler}` leaves the function's directory; write a path relative to it"));
    }
    let Some(file) = tree.file(handler) else {
        let there = some_of(tree, |_, node| matches!(node, Node::File { executable: true, .. }));
        return Err(format!("there is no file `{handler}`; executable files here: {there}"));
    };
    if !file.executable {
        return Err(format!("`{handler}` is not executable; run chmod +x on it"));
    }
    let first = file.body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if !first.starts_with(b"#!") && !first.starts_with(b"\x7fELF") {
        return Err(format!(
            "`{handler}` is neither a program nor a script; begin a script with #!/bin/sh or the like"
        ));
    }
    if first.starts_with(b"#!") && first.ends_with(b"\r") {
        return Err(format!("`{handler}` has Windows line ends, which Linux does not take after #!; save it with \\n"));
    }
    Ok(())
}

/// A few paths that `wanted` picks, for a message.
fn some_of(tree: &Tree<'_>, wanted: impl Fn(&str, &Node<'_>) -> bool) -> String {
    const SHOWN: usize = 8;
    let all: Vec<&str> = tree.nodes().filter(|(path, node)| wanted(path, node)).map(|(path, _)| path).collect();
    match all.len() {
        0 => "none".to_owned(),
        n if n > SHOWN => format!("{} and {} more", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    }
}
