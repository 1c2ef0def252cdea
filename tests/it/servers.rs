//! Several servers on one Postgres: they share the work, take over what a dead one has left, and one that comes back from the dead
//! writes nothing.

mod kill;
mod postgres;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::host::TestHost;
use super::wait::{secs, until, until_some};
use postgres::Shared;

const CODE: &str = "import time\n\ndef handle(event, context):\n    print('go', flush=True)\n    time.sleep(event['sleep'])\n    return {'attempt': context.attempt}\n";

/// A server on the shared Postgres whose claims die soon.
fn server(postgres: &Shared) -> TestHost {
    let url = format!("{:?}", postgres.url());
    TestHost::builder().set("lease", "\"3s\"").set("max_queued", "1000000").set("database_url", &url).start()
}

/// The name of a server in the ledger.
fn name(host: &TestHost) -> String {
    std::fs::read_to_string(host.data_dir().join("server.id")).expect("serve writes it").trim().to_owned()
}

/// Attempt, state and server of each execution of an invocation that two servers had one after the other.
fn attempts(postgres: &Shared) -> String {
    postgres.psql("SELECT string_agg(attempt || ' ' || state || ' ' || server, ', ' ORDER BY attempt) FROM executions")
}

/// Submits work and says which of the servers has it.
fn taken<'a>(id: &str, servers: [&'a TestHost; 2], postgres: &Shared) -> (&'a TestHost, &'a TestHost) {
    let [one, other] = servers;
    one.in_state(id, "running");
    let holder = until_some("the code runs", secs(30), || {
        let server = postgres.psql("SELECT server FROM executions WHERE state = 'running'");
        (!server.is_empty()).then_some(server)
    });
    if holder == name(one) { (one, other) } else { (other, one) }
}

#[test]
fn work_of_a_dead_server_is_taken_over_after_its_lease() {
    let postgres = Shared::start();
    let (mut one, mut other) = (server(&postgres), server(&postgres));
    one.python("f", "timeout = \"2m\"\nmemory = \"64MiB\"\n", CODE);
    let id = one.submit("f", &json!({"sleep": 4}));
    let first_has_it = std::ptr::eq(taken(&id, [&one, &other], &postgres).0, &raw const one);
    let (dead, alive) = if first_has_it { (&mut one, &other) } else { (&mut other, &one) };
    let dead_name = name(dead);
    dead.kill9();
    let settled = alive.settled(&id);
    assert_eq!((&settled["state"], &settled["attempts"]), (&json!("succeeded"), &json!(2)), "{settled}");
    assert_eq!(attempts(&postgres), format!("1 lost {dead_name}, 2 succeeded {}", name(alive)));
    one.finish();
    other.finish();
}

#[test]
fn a_server_that_was_frozen_beyond_its_lease_writes_nothing() {
    let postgres = Shared::start();
    let (one, other) = (server(&postgres), server(&postgres));
    one.python("f", "timeout = \"2m\"\nmemory = \"64MiB\"\n", CODE);
    // Its code ends while the server sleeps: the end is all that is left to be written. The other one's is still at work then.
    for sleep in [2, 12] {
        postgres.psql("TRUNCATE executions, invocations");
        let id = one.submit("f", &json!({"sleep": sleep}));
        let (frozen, awake) = taken(&id, [&one, &other], &postgres);
        frozen.signal(Signal::SIGSTOP);
        until("it was taken over", secs(60), || {
            postgres.psql("SELECT count(*) FROM executions WHERE attempt = 2 AND state = 'running'") == "1"
        });
        let before = frozen.log().len();
        let lost = postgres.psql("SELECT e::text FROM executions e WHERE attempt = 1");
        frozen.signal(Signal::SIGCONT);
        // It finds out by itself: its code is killed, or its end refused.
        until("it knows that the claim is not its own", secs(30), || {
            let log = frozen.log();
            let new = log.get(before..).unwrap_or_default();
            new.contains("the claim is not ours any more") || new.contains("the execution has ended")
        });
        let settled = awake.settled(&id);
        assert_eq!((&settled["state"], &settled["attempts"]), (&json!("succeeded"), &json!(2)), "{settled}");
        let result: Value = awake.get(&format!("/v1/invocations/{id}/result"));
        assert_eq!(result, json!({"attempt": 2}), "the result is the second one's");
        until("nothing of it runs any more", secs(30), || frozen.traces.sandboxed().is_empty() || sleep == 2);
        assert_eq!(postgres.psql("SELECT e::text FROM executions e WHERE attempt = 1"), lost, "not a byte was written");
        assert_eq!(postgres.psql("SELECT count(*) FROM queue"), "0");
        // And it goes on working.
        frozen.call("f", &json!({"sleep": 0})).expect(200);
    }
    one.finish();
    other.finish();
}
