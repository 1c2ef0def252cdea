//! What goes in and what comes back.

use serde_json::json;

use crate::peer::{Answer, Runner};

#[test]
fn events_go_in_and_results_come_back() {
    let mut runner = Runner::ready("def handle(event, context):\n    return event\n");
    for event in [json!(null), json!({"a": [1, 2.5, "é \u{1F600}"], "b": {}}), json!("text"), json!(false)] {
        assert_eq!(runner.call(&event).json(), event);
    }
    assert!(runner.call_with("none", b"").json().is_null());
    assert_eq!(runner.call_with("base64", b"\x00\xff\x01").json(), json!("AP8B"));
    assert_eq!(runner.bye(), Some(0));
}

#[test]
fn context_tells_about_the_call() {
    let code = "def handle(event, context):\n    \
                assert context.remaining_ms() > 0\n    \
                assert context.cause.normalised is None\n    \
                return [context.namespace, context.function, context.revision, context.invocation,\n            \
                context.execution, context.attempt, context.memory_limit, context.cause.kind,\n            \
                context.cause.trigger, context.cause.headers['x-event']]\n";
    let mut runner = Runner::ready(code);
    let want = json!(["default", "f", "sha256:00", "inv_1", "exe_1", 1, 134_217_728, "webhook", "trg_1", "push"]);
    assert_eq!(runner.call(&json!({})).json(), want);
}

#[test]
fn context_is_the_same_whoever_asks_first() {
    let code = "import copy, threading\ndef handle(event, context):\n    \
                told = []\n    \
                ask = lambda: told.append((context.cause, context.function))\n    \
                threads = [threading.Thread(target=ask) for _ in range(8)]\n    \
                [thread.start() for thread in threads]\n    \
                [thread.join() for thread in threads]\n    \
                assert {(cause.kind, function) for cause, function in told} == {('webhook', 'f')}, told\n    \
                assert copy.deepcopy(context).execution == context.execution\n    \
                assert \"'attempt': 1\" in repr(context)\n    \
                return [len(told), hasattr(context, 'nonsense'), context.cancelled]\n";
    let mut runner = Runner::ready(code);
    assert_eq!(runner.call(&json!({})).json(), json!([8, false, false]));
}

#[test]
fn environment_is_there_when_the_module_loads() {
    let code = "import os\nSEEN = os.environ['GREETING']\ndef handle(event, context):\n    return SEEN\n";
    let mut runner =
        Runner::start(&[("pkg/__init__.py", ""), ("pkg/mod.py", code)], "pkg.mod.handle", json!({"GREETING": "hi"}));
    runner.expect_ready();
    assert_eq!(runner.call(&json!({})).json(), json!("hi"));
}

#[test]
fn bytes_come_back_as_they_are() {
    let mut runner = Runner::ready("def handle(event, context):\n    return bytes(range(256)) * event\n");
    for times in [0, 1] {
        match runner.call(&json!(times)) {
            Answer::Result { content_type, body, .. } => {
                assert_eq!(content_type, "application/octet-stream");
                assert_eq!(&body[..], (0..=255).collect::<Vec<u8>>().repeat(times));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn big_bodies_travel_in_several_frames() {
    let mut runner = Runner::ready("def handle(event, context):\n    return event[::-1]\n");
    let text: String = "abcdefgh".repeat(5 << 17);
    let reversed: String = text.chars().rev().collect();
    match runner.call(&json!(text)) {
        Answer::Result { body, frames, .. } => {
            assert_eq!(frames, 6, "5 MiB and two quotation marks");
            assert!(body[..] == *json!(reversed).to_string().as_bytes());
        }
        other => panic!("{other:?}"),
    }
    // The stream is still in step.
    assert_eq!(runner.call(&json!("ab")).json(), json!("ba"));
}

#[test]
fn async_handlers_are_awaited() {
    let code = "import asyncio\nasync def handle(event, context):\n    await asyncio.sleep(0)\n    return event + 1\n";
    let mut runner = Runner::ready(code);
    assert_eq!(runner.call(&json!(1)).json(), json!(2));
    assert_eq!(runner.call(&json!(2)).json(), json!(3));
}

#[test]
fn state_lives_from_call_to_call() {
    let code = "count = 0\ndef handle(event, context):\n    global count\n    count += 1\n    return count\n";
    let mut runner = Runner::ready(code);
    assert_eq!(runner.call(&json!({})).json(), json!(1));
    assert_eq!(runner.call(&json!({})).json(), json!(2));
}

#[test]
fn lone_surrogates_come_back_escaped() {
    let mut runner = Runner::ready("def handle(event, context):\n    return '\\ud800 é'\n");
    match runner.call(&json!({})) {
        Answer::Result { body, .. } => assert_eq!(&body[..], br#""\ud800 \u00e9""#),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_json_is_explained() {
    let code = "def handle(event, context):\n    \
                loop = []\n    loop.append(loop)\n    \
                return {'set': {1}, 'nan': float('nan'), 'loop': loop, 'key': {(1, 2): 3}}[event]\n";
    let mut runner = Runner::ready(code);
    for (what, kind, part) in [
        ("set", "TypeError", "Object of type set is not JSON serializable"),
        ("nan", "ValueError", "Out of range float values"),
        ("loop", "ValueError", "Circular reference"),
        ("key", "TypeError", "keys must be str"),
    ] {
        let (got, message, _) = runner.call(&json!(what)).error();
        assert_eq!(got, kind);
        assert!(message.contains(part) && message.contains("return dict, list"), "{message}");
    }
    // It serves on.
    assert_eq!(runner.call(&json!("none")).error().0, "KeyError");
}
