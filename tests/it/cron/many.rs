//! Many triggers, and many servers.

use super::super::wait::scaled;
use super::*;

const NOTHING: &str = "def handle(event, context):\n    return None\n";

#[test]
fn two_servers_fire_each_tick_once() {
    let one = TestHost::builder().set("lease", "\"3s\"").start();
    let triggers: String = (0..20).map(|_| every_second("overlap = \"allow\"\nmisfire = \"all\"\n")).collect();
    one.python("f", &format!("max_concurrency = 4\nmemory = \"64MiB\"\n{triggers}"), NOTHING);
    let url = format!("\"postgres://runlet@localhost/postgres?host={}\"", one.postgres_socket().display());
    let mut other = TestHost::builder().set("lease", "\"3s\"").set("database_url", &url).start();
    let number = |query: &str| one.psql(query).parse::<u64>().expect("a number");
    until("both have run some", secs(60), || number("SELECT count(DISTINCT server) FROM executions") == 2);
    let seconds = scaled(4, 60);
    let distinct = "SELECT count(DISTINCT fires_at) FROM cron_ticks";
    until("both have seen enough ticks", secs(seconds * 4 + 30), || number(distinct) >= seconds);
    // One of them is killed in the middle of it; the other one goes on alone.
    other.kill9();
    let before = number(distinct);
    until("the other one goes on", secs(60), || number(distinct) >= before + 3);
    one.cli(&["rm", "f"]);
    until("all is over", secs(60), || one.psql("SELECT count(*) FROM queue") == "0");
    let doubles = one.psql(
        "SELECT count(*) FROM (SELECT payload, cause->>'trigger' FROM invocations WHERE cause_kind = 'cron'
         GROUP BY 1, 2 HAVING count(*) > 1) AS d",
    );
    assert_eq!(doubles, "0", "no tick has two invocations");
    let gaps = one.psql(
        "SELECT count(*) FROM (SELECT cause->>'trigger' AS t, convert_from(payload, 'UTF8')::json->>'fires_at' AS at,
             lag(convert_from(payload, 'UTF8')::json->>'fires_at') OVER
               (PARTITION BY cause->>'trigger' ORDER BY convert_from(payload, 'UTF8')::json->>'fires_at') AS before
           FROM invocations WHERE cause_kind = 'cron') AS g
         WHERE at::timestamptz - before::timestamptz <> interval '1 second'",
    );
    assert_eq!(gaps, "0", "no tick is left out");
    other.finish();
    one.finish();
}

#[test]
fn a_thousand_triggers_every_second_stay_bounded() {
    let host = TestHost::start();
    let triggers: String = (0..1000).map(|_| every_second("")).collect();
    host.python("f", &format!("max_concurrency = 2\nmemory = \"64MiB\"\n{triggers}"), NOTHING);
    let depth = || host.psql("SELECT count(*) FROM queue").parse::<u64>().expect("a number");
    let mut worst = 0;
    let ticks = scaled(5, 60);
    until("every trigger has had its ticks", secs(180), || {
        worst = worst.max(depth());
        host.psql("SELECT count(DISTINCT fires_at) FROM cron_ticks").parse::<u64>().expect("a number") > ticks
    });
    assert!(worst <= 1000, "{worst} in the queue: at most one run of each trigger");
    let uneven = host.psql(
        "SELECT count(*) FROM (SELECT fires_at FROM cron_ticks GROUP BY 1 HAVING count(*) <> 1000) AS u
         WHERE fires_at > (SELECT min(fires_at) + interval '1 second' FROM cron_ticks)",
    );
    assert_eq!(uneven, "0", "each second has the tick of each trigger");
    host.cli(&["rm", "f"]);
    until("nothing of it is left", secs(60), || depth() == 0);
    host.finish();
}
