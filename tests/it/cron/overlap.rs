//! What a tick does while earlier runs of its trigger are not over.

use super::*;

const SLOW: &str = "import time\n\ndef handle(event, context):\n    time.sleep(60)\n";
const BRIEF: &str = "import time\n\ndef handle(event, context):\n    time.sleep(1.5)\n";

fn live(host: &TestHost, function: &str) -> usize {
    let list = host.get(&format!("/v1/executions?function={function}&limit=1000"));
    let running = |one: &&Value| one["state"] == "running" || one["state"] == "starting";
    list["executions"].as_array().map_or(0, |all| all.iter().filter(running).count())
}

#[test]
fn skip_and_buffer_one_keep_to_their_number() {
    let host = TestHost::start();
    host.python("skip", &format!("timeout = \"2m\"\n{}", every_second("")), SLOW);
    host.python("one", &format!("timeout = \"2m\"\n{}", every_second("overlap = \"buffer_one\"\n")), SLOW);
    host.ticks_of_fate("skip", "skipped", 3);
    host.ticks_of_fate("one", "skipped", 2);
    let fates = |function: &str, fate: &str| host.ticks(function).iter().filter(|tick| tick["fate"] == fate).count();
    assert_eq!((fates("skip", "fired"), fates("skip", "held")), (1, 0));
    assert_eq!((fates("one", "fired"), fates("one", "held")), (1, 1));
    let held = host.ticks_of_fate("one", "held", 1);
    assert_eq!(host.invocation(&invocation_of(&held[0]))["state"], "held");
    // The one that waits starts when the one that runs is over.
    let first = invocation_of(&host.ticks_of_fate("one", "fired", 1)[0]);
    host.http("POST", &format!("/v1/invocations/{first}/cancel")).send().expect(200);
    host.in_state(&invocation_of(&held[0]), "running");
    for function in ["skip", "one"] {
        host.cli(&["trigger", "pause", function]);
        for tick in host.ticks(function).iter().filter(|tick| tick["invocation"].is_string()) {
            host.http("POST", &format!("/v1/invocations/{}/cancel", invocation_of(tick))).send();
            host.settled(&invocation_of(tick));
        }
    }
    host.finish();
}

#[test]
fn buffer_all_runs_one_after_the_other_up_to_its_backlog() {
    let host = TestHost::start();
    host.python("all", &every_second("overlap = \"buffer_all\"\nbacklog = 3\n"), BRIEF);
    let full = host.ticks_of_fate("all", "full", 1);
    assert!(full[0]["invocation"].is_null());
    host.cli(&["trigger", "pause", "all"]);
    let ran: Vec<Value> = host.ticks("all").into_iter().filter(|tick| tick["invocation"].is_string()).collect();
    assert!(ran.len() >= 3);
    let mut ends: Vec<(String, String, String)> = ran
        .iter()
        .map(|tick| {
            let invocation = host.settled(&invocation_of(tick));
            assert_eq!(invocation["state"], "succeeded");
            let execution = host.execution(invocation["executions"][0].as_str().expect("it ran"));
            let text = |key: &str| execution[key].as_str().expect("a moment").to_owned();
            (tick["fires_at"].as_str().expect("a moment").to_owned(), text("started_at"), text("finished_at"))
        })
        .collect();
    ends.sort();
    for pair in ends.windows(2) {
        assert!(pair[0].2 <= pair[1].1, "in the order of their ticks, never two at a time: {pair:?}");
    }
    host.finish();
}

#[test]
fn cancel_ends_the_one_that_runs_and_allow_runs_beside_it() {
    let host = TestHost::start();
    host.python("cancel", &format!("timeout = \"2m\"\n{}", every_second("overlap = \"cancel\"\n")), SLOW);
    let first = host.ticks_of_fate("cancel", "fired", 1);
    let first = invocation_of(first.last().expect("one"));
    assert_eq!(host.settled(&first)["state"], "cancelled");
    host.ticks_of_fate("cancel", "held", 2);
    assert!(live(&host, "cancel") <= 1);
    host.cli(&["rm", "cancel"]);
    host.python(
        "allow",
        &format!(
            "timeout = \"2m\"\nmax_concurrency = 3\nmemory = \"64MiB\"\n{}",
            every_second("overlap = \"allow\"\nbacklog = 3\n")
        ),
        SLOW,
    );
    until("three run at a time", secs(60), || live(&host, "allow") == 3);
    host.ticks_of_fate("allow", "full", 1);
    host.cli(&["rm", "allow"]);
    let list = host.get("/v1/executions?state=running&limit=100");
    for execution in list["executions"].as_array().expect("a list") {
        let id = execution["invocation"].as_str().expect("an id");
        host.http("POST", &format!("/v1/invocations/{id}/cancel")).send();
        host.settled(id);
    }
    host.finish();
}

#[test]
fn schedules_fire_while_nothing_that_is_held_can_be_let_go() {
    let host = TestHost::start();
    host.psql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON queue FOR EACH ROW
         WHEN (OLD.not_before = 'infinity' AND NEW.not_before < 'infinity') EXECUTE FUNCTION refuse()",
    );
    host.python("one", &every_second("overlap = \"buffer_one\"\n"), BRIEF);
    let held = invocation_of(&host.ticks_of_fate("one", "held", 1)[0]);
    let first = invocation_of(&host.ticks_of_fate("one", "fired", 1)[0]);
    assert_eq!(host.settled(&first)["state"], "succeeded");
    // From now on the service fails to look after what is held, each time that it tries.
    until("that fails", secs(20), || host.log().contains("could not look after schedules"));
    host.python("other", &every_second(""), "def handle(event, context):\n    return 1\n");
    host.ticks_of_fate("other", "fired", 3);
    assert_eq!(host.invocation(&held)["state"], "held");
    host.psql("DROP TRIGGER refuse ON queue");
    assert_eq!(host.settled(&held)["state"], "succeeded");
    for function in ["one", "other"] {
        host.cli(&["rm", function]);
    }
    host.finish();
}
