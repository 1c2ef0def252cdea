//! stdout and stderr are bytes, whatever the code does with them.

use serde_json::json;

use crate::peer::Runner;

#[test]
fn output_arrives_whole_before_the_answer() {
    let code = "import sys\ndef handle(event, context):\n    \
                sys.stdout.write('x' * 10_000_000)\n    \
                sys.stdout.flush()\n    \
                sys.stdout.buffer.write(b'\\x00\\xff\\xfe')\n    \
                print('\\ud800 é', end='', file=sys.stderr)\n    \
                return 'done'\n";
    let mut runner = Runner::ready(code);
    let output = runner.collect_output();
    assert_eq!(runner.call(&json!({})).json(), json!("done"));
    assert_eq!(runner.bye(), Some(0));
    let output = output();
    assert_eq!(output.stdout.len(), 10_000_003);
    assert!(output.stdout[..10_000_000].iter().all(|byte| *byte == b'x'));
    assert_eq!(&output.stdout[10_000_000..], b"\x00\xff\xfe");
    assert_eq!(output.stderr, "\\ud800 é".as_bytes());
}

#[test]
fn code_may_close_or_replace_its_streams() {
    let code = "import sys\ndef handle(event, context):\n    \
                if event == 'close':\n        sys.stdout.close()\n    \
                else:\n        sys.stdout = None\n    \
                return 'alive'\n";
    for event in ["close", "replace"] {
        let mut runner = Runner::ready(code);
        assert_eq!(runner.call(&json!(event)).json(), json!("alive"));
        assert_eq!(runner.call(&json!("replace")).json(), json!("alive"));
    }
}

#[test]
fn a_text_without_line_end_is_flushed_with_the_answer() {
    let mut runner = Runner::ready("def handle(event, context):\n    print('a', end='')\n");
    let output = runner.collect_output();
    assert!(runner.call(&json!({})).json().is_null());
    // Nothing more is said: what was printed must be out already.
    drop(runner);
    assert_eq!(output().stdout, b"a");
}
