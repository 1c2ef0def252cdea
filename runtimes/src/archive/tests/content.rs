//! Manifest and handler, looked for in the archive.

use tar::EntryType;

use super::{CODE, Crafted, MANIFEST};
use crate::archive::normalise;

fn handler_refusal(runtime: &str, handler: &str, tar: impl FnOnce(Crafted) -> Crafted) -> String {
    let text = format!("schema = 1\nname = \"f\"\nruntime = \"{runtime}\"\nhandler = \"{handler}\"\n");
    match normalise(&tar(Crafted::default().file("function.toml", &text)).done()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn python_handlers_must_be_there() {
    let with = |tar: Crafted| tar.file("app.py", CODE).file("pkg/__init__.py", CODE).file("pkg/deep/mod.py", CODE);
    for good in ["app.handle", "pkg.handle", "pkg.deep.mod.handle", "app._h2"] {
        assert_eq!(handler_refusal("python", good, with), "accepted");
    }
    assert_eq!(
        handler_refusal("python", "main.handle", with),
        "function.toml:4: handler: `main.handle` needs a file main.py or main/__init__.py; \
         Python files here: app.py, pkg/__init__.py, pkg/deep/mod.py"
    );
    for bad in ["handle", "app.", ".handle", "app.py:handle", "../app.handle", "app.1x", "app..handle", "a b.c"] {
        let text = handler_refusal("python", bad, with);
        assert!(text.contains("is not `module.function`"), "{text}");
    }
    let linked = handler_refusal("python", "main.handle", |tar| with(tar).link("main.py", "pkg/../app.py"));
    assert_eq!(linked, "accepted");
}

#[test]
fn exec_handlers_must_be_runnable() {
    let file = |mode, body: &'static str| {
        move |tar: Crafted| tar.entry("bin/run", EntryType::Regular, "", mode, body.as_bytes())
    };
    let script = "#!/bin/sh\necho hi\n";
    assert_eq!(handler_refusal("exec", "bin/run", file(0o755, script)), "accepted");
    assert_eq!(handler_refusal("exec", "./bin/run", file(0o755, script)), "accepted");
    for (handler, mode, body, part) in [
        ("bin/run", 0o644, script, "`bin/run` is not executable; run chmod +x on it"),
        ("run.sh", 0o755, script, "there is no file `run.sh`; executable files here: bin/run"),
        ("bin", 0o755, script, "there is no file `bin`"),
        ("/bin/sh", 0o755, script, "leaves the function's directory"),
        ("../run", 0o755, script, "leaves the function's directory"),
        ("bin/run", 0o755, "echo hi\n", "neither a program nor a script"),
        ("bin/run", 0o755, "#!/bin/sh\r\necho hi\r\n", "Windows line ends"),
    ] {
        let text = handler_refusal("exec", handler, file(mode, body));
        assert!(text.starts_with("function.toml:4: handler: ") && text.contains(part), "{text}");
    }
}

#[test]
fn manifests_are_needed_and_checked() {
    let refusal = |tar: Crafted| normalise(&tar.done()).expect_err("it is bad").to_string();
    assert_eq!(
        refusal(Crafted::default().file("f/function.toml", MANIFEST)),
        "there is no function.toml at the top of the archive: a function's directory must have one"
    );
    assert_eq!(
        refusal(Crafted::default().file("function.toml", &format!("{MANIFEST}cpu = 0\n"))),
        "function.toml:5: cpu: write a number from 0.01 to 1024"
    );
    assert!(refusal(Crafted::default().file("function.toml", &"#".repeat(300 << 10))).contains("larger than 256KiB"));
    let latin = Crafted::default().entry("function.toml", EntryType::Regular, "", 0o644, b"# \xe9");
    assert!(refusal(latin).contains("it is not UTF-8"));
}
