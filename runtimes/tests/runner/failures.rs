//! Code that raises, exits, forks or cannot be loaded; hosts that break the protocol.

use runlet_runtimes::frame::{Frame, Kind};
use serde_json::json;

use crate::peer::{Answer, Runner};

#[test]
fn an_exception_comes_back_with_the_users_frames_only() {
    let code = "import json\ndef deep():\n    json.loads('{')\ndef handle(event, context):\n    deep()\n";
    let mut runner = Runner::ready(code);
    let (kind, message, trace) = runner.call(&json!({})).error();
    assert_eq!(kind, "JSONDecodeError");
    assert!(message.starts_with("Expecting property name"), "{message}");
    assert_eq!(trace[0], "Traceback (most recent call last):");
    assert!(trace[1].ends_with("main.py\", line 5, in handle"), "{trace:?}");
    assert!(trace.iter().all(|line| !line.contains("runner.py") && !line.contains('\n')), "{trace:?}");
    // The same process serves on.
    assert_eq!(runner.call(&json!({})).error().0, "JSONDecodeError");
}

#[test]
fn frames_of_asyncio_and_of_imports_are_left_out() {
    let code = "async def handle(event, context):\n    import late\n";
    let mut runner = Runner::start(&[("main.py", code), ("late.py", "1 / 0\n")], "main.handle", json!({}));
    runner.expect_ready();
    let (kind, _, trace) = runner.call(&json!({})).error();
    assert_eq!(kind, "ZeroDivisionError");
    let files: Vec<&String> = trace.iter().filter(|line| line.trim_start().starts_with("File ")).collect();
    assert_eq!(files.len(), 2, "{trace:?}");
    assert!(files[0].contains("main.py") && files[1].contains("late.py"), "{trace:?}");
}

#[test]
fn every_kind_of_raise_is_an_error_of_the_call() {
    let code = "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\n\
                def again():\n    return again()\n\
                def handle(event, context):\n    \
                if event == 'interrupt': raise KeyboardInterrupt\n    \
                if event == 'memory': raise MemoryError\n    \
                if event == 'base': raise BaseException('b')\n    \
                if event == 'odd': raise Odd\n    \
                if event == 'huge': raise ValueError('\\x00' * 5000000)\n    \
                if event == 'surrogate': raise ValueError('\\udcff')\n    \
                if event == 'chain':\n        \
                    try:\n            1 / 0\n        \
                    except ZeroDivisionError as e:\n            raise ValueError('outer') from e\n    \
                again()\n";
    let mut runner = Runner::ready(code);
    for (event, kind) in [
        ("interrupt", "KeyboardInterrupt"),
        ("memory", "MemoryError"),
        ("base", "BaseException"),
        ("odd", "Odd"),
        ("huge", "ValueError"),
        ("surrogate", "ValueError"),
        ("recursion", "RecursionError"),
    ] {
        let (got, _, trace) = runner.call(&json!(event)).error();
        assert_eq!(got, kind, "{event}");
        assert!(!trace.is_empty());
    }
    let (_, message, trace) = runner.call(&json!("chain")).error();
    assert_eq!(message, "outer");
    assert!(trace.iter().any(|line| line == "ZeroDivisionError: division by zero"), "{trace:?}");
}

#[test]
fn an_event_that_python_cannot_read_is_an_error_of_the_call() {
    let mut runner = Runner::ready("def handle(event, context):\n    return 1\n");
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert_eq!(runner.call_with("json", deep.as_bytes()).error().0, "RecursionError");
    let (_, message, _) = runner.call_with("json", b"{").error();
    assert!(message.starts_with("Python cannot read this event"), "{message}");
    assert_eq!(runner.call(&json!({})).json(), json!(1));
}

#[test]
fn code_that_cannot_be_loaded_says_why() {
    for (code, handler, kind, part) in [
        ("1 / 0\n", "main.handle", "ZeroDivisionError", "division"),
        ("def handle(:\n", "main.handle", "SyntaxError", "invalid syntax"),
        ("import nowhere\n", "main.handle", "ModuleNotFoundError", "nowhere"),
        ("def other(e, c): pass\n", "main.handle", "AttributeError", "no function `handle`; it has other"),
        ("handle = 3\n", "main.handle", "TypeError", "is a int, not a function"),
        ("", "json.handle", "ImportError", "give your file another name"),
    ] {
        let mut runner = Runner::start(&[("main.py", code), ("json.py", code)], handler, json!({}));
        let (got, message, trace) = runner.expect_init_error().error();
        assert_eq!(got, kind);
        assert!(message.contains(part), "{message}");
        assert!(trace.iter().all(|line| !line.contains("runner.py") && !line.contains("<frozen")), "{trace:?}");
        assert!(runner.receive().is_none());
        assert_eq!(runner.exit_code(), Some(0));
    }
}

#[test]
fn system_exit_ends_the_process_with_its_status() {
    for (code, status, said) in
        [("3", 3, ""), ("", 0, ""), ("None", 0, ""), ("'gone fishing'", 1, "gone fishing\n"), ("256 + 7", 7, "")]
    {
        // A thread that the code left behind does not hold the process.
        let text = format!(
            "import sys, threading\ndef handle(event, context):\n    \
             threading.Thread(target=threading.Event().wait).start()\n    \
             print('last words', end='')\n    sys.exit({code})\n"
        );
        let mut runner = Runner::ready(&text);
        let output = runner.collect_output();
        assert!(matches!(runner.call(&json!({})), Answer::Gone));
        assert_eq!(runner.exit_code(), Some(status));
        let output = output();
        assert_eq!(output.stdout, b"last words");
        assert_eq!(String::from_utf8_lossy(&output.stderr), said);
    }
    let mut runner = Runner::start(&[("main.py", "raise SystemExit(4)\n")], "main.handle", json!({}));
    assert!(runner.receive().is_none());
    assert_eq!(runner.exit_code(), Some(4));
}

#[test]
fn a_forked_child_never_answers() {
    let code = "import os\n\
                def handle(event, context):\n    \
                child = os.fork()\n    \
                if child == 0:\n        \
                    if event == 'raise': raise ValueError('in the child')\n        \
                    return 'child'\n    \
                return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 'parent']\n";
    let mut runner = Runner::ready(code);
    assert_eq!(runner.call(&json!("return")).json(), json!([0, "parent"]));
    assert_eq!(runner.call(&json!("raise")).json(), json!([1, "parent"]));
    assert_eq!(runner.call(&json!("return")).json(), json!([0, "parent"]));
}

#[test]
fn neither_forks_nor_programs_inherit_the_channel() {
    let code = "import os, subprocess\n\
                def handle(event, context):\n    \
                socket = os.readlink('/proc/self/fd/3')\n    \
                listing = subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, close_fds=False)\n    \
                r, w = os.pipe()\n    \
                if os.fork() == 0:\n        \
                    try:\n            os.fstat(3)\n            os.write(w, b'open')\n        \
                    except OSError:\n            os.write(w, b'closed')\n        \
                    os._exit(0)\n    \
                os.wait()\n    \
                return [socket.startswith('socket:'), socket in listing.stdout.decode(), os.read(r, 10).decode()]\n";
    let mut runner = Runner::ready(code);
    assert_eq!(runner.call(&json!({})).json(), json!([true, false, "closed"]));
}

#[test]
fn a_host_that_hangs_up_ends_the_runner() {
    let mut runner = Runner::ready("def handle(event, context):\n    pass\n");
    runner.hang_up();
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn a_host_that_breaks_the_protocol_is_left() {
    let frame = |kind, end, call| Frame { kind, end, call, body: br#"{"body":"json","context":{}}"#[..].into() };
    for frames in [
        vec![frame(Kind::Data, true, 1)],
        vec![frame(Kind::Ready, false, 0)],
        vec![frame(Kind::Invoke, true, 0)],
        vec![frame(Kind::Invoke, false, 1), frame(Kind::Data, true, 2)],
    ] {
        let mut runner = Runner::ready("def handle(event, context):\n    pass\n");
        let output = runner.collect_output();
        runner.send_frames(&frames);
        assert!(runner.receive().is_none());
        assert_eq!(runner.exit_code(), Some(70));
        assert!(output().stderr.starts_with(b"runlet: the host broke the protocol"));
    }
}
