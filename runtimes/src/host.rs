//! What a runtime needs of the host: its interpreter, where sandboxes look for it.

use std::path::Path;

use runlet_core::manifest::RuntimeKind;

/// Where programs are looked for in a sandbox; they are the host's own.
const PLACES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// What the host lacks to run functions of the runtime, and what to do; `None` if it lacks nothing.
#[must_use]
pub fn missing(kind: RuntimeKind) -> Option<String> {
    match kind {
        RuntimeKind::Python => lacks("python3", &["/usr/bin"], "python3 (3.9 or newer)"),
        RuntimeKind::Node => lacks("node", &PLACES, "nodejs (18 or newer)"),
        RuntimeKind::Exec | RuntimeKind::Custom => None,
    }
}

fn lacks(program: &str, places: &[&str], package: &str) -> Option<String> {
    let found = places.iter().any(|place| Path::new(place).join(program).exists());
    (!found).then(|| {
        format!("this host has no `{program}` in {}: install Debian's package {package} there", places.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_where_it_was_looked_for() {
        assert_eq!(lacks("sh", &PLACES, "dash"), None);
        let text = lacks("no-such-interpreter", &PLACES, "nodejs (18 or newer)").expect("it is not there");
        assert!(text.contains("`no-such-interpreter` in /usr/local/bin, /usr/bin, /bin"), "{text}");
        assert!(text.contains("nodejs"), "{text}");
        assert_eq!(missing(RuntimeKind::Custom), None);
    }
}
