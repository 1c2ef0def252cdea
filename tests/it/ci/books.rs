//! What is on record of a job, and what is not.

use super::job::Job;
use super::runner::Verdict;
use super::runner_for;
use crate::host::TestHost;

#[test]
fn a_job_is_one_invocation_and_each_stage_an_execution_of_it() {
    let host = TestHost::start();
    let job = Job::new(201, &["echo to stdout; echo to stderr >&2"]).after(&["true"]);
    let report = runner_for(&host).run(job.clone()).expect(Verdict::Success);
    let record = host.job(201);
    assert_eq!(
        (record["state"].as_str(), record["cause"]["kind"].as_str()),
        (Some("succeeded"), Some("ci")),
        "{record}"
    );
    let facts = &record["cause"]["job"];
    for (key, value) in [
        ("provider", "gitlab"),
        ("id", "201"),
        ("name", "build"),
        ("project", "group/project-7"),
        ("project_id", "7"),
        ("pipeline", "1000201"),
        ("ref", "main"),
        ("sha", "0123456789abcdef0123456789abcdef01234567"),
        ("url", &job.url()),
    ] {
        assert_eq!(facts[key], value, "{key} in {record}");
    }
    let steps = host.steps(&record);
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().expect("a stage")).collect();
    let called: Vec<&str> =
        report.names().into_iter().filter(|name| !["config", "prepare", "cleanup"].contains(name)).collect();
    assert_eq!(names, called);
    for step in &steps {
        assert_eq!(
            (step["state"].as_str(), step["outcome"]["kind"].as_str()),
            (Some("succeeded"), Some("ok")),
            "{step}"
        );
        assert_eq!(step["invocation"], record["id"], "{step}");
    }
    let attempts: Vec<u64> = steps.iter().map(|step| step["attempt"].as_u64().expect("a number")).collect();
    assert_eq!(attempts, (1..=u64::try_from(steps.len()).expect("few")).collect::<Vec<_>>());
    let id = host.step(201, "build_script")["id"].as_str().expect("an id").to_owned();
    assert!(String::from_utf8_lossy(&host.logs(&id, "stdout")).ends_with("to stdout\n"));
    assert_eq!(host.logs(&id, "stderr"), b"to stderr\n");
    // The same by CLI.
    let list = host.cli(&["executions", "--cause", "ci", "--json"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains(&id), "{}", String::from_utf8_lossy(&list.stdout));
    let table = host.cli(&["executions", "--cause", "ci"]);
    assert!(
        String::from_utf8_lossy(&table.stdout).contains("build_script"),
        "{}",
        String::from_utf8_lossy(&table.stdout)
    );
    let none = host.cli(&["executions", "--cause", "webhook"]);
    assert!(!String::from_utf8_lossy(&none.stdout).contains("build_script"));
    let logs = host.cli(&["logs", &id]);
    assert!(
        String::from_utf8_lossy(&logs.stdout).ends_with("to stdout\n"),
        "{}",
        String::from_utf8_lossy(&logs.stderr)
    );
    let shown = host.cli(&["show", record["id"].as_str().expect("an id")]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("group/project-7"),
        "{}",
        String::from_utf8_lossy(&shown.stdout)
    );
    host.finish();
}

#[test]
fn secrets_of_a_job_are_in_no_book_of_the_server() {
    const MASKED: &str = "masked-value-4711-of-the-test";
    const HIDDEN: &str = "plain-value-4712-of-the-test";
    const FILED: &str = "file-value-4713-of-the-test";
    let host = TestHost::start();
    let job = Job::new(211, &["echo \"it is $SECRET, in pieces too: ${SECRET:0:9}\"; printf %s \"${SECRET:9}\"; echo; cat \"$FILED\" | wc -c"])
        .masked("SECRET", MASKED)
        .set("HIDDEN", HIDDEN)
        .file("FILED", FILED);
    let token = job.token();
    let report = runner_for(&host).run(job).expect(Verdict::Success);
    assert!(report.trace.contains("it is [MASKED], in pieces too"), "{}", report.trace);
    let id = host.step(211, "build_script")["id"].as_str().expect("an id").to_owned();
    let stdout = String::from_utf8_lossy(&host.logs(&id, "stdout")).into_owned();
    assert!(stdout.contains("it is [MASKED], in pieces too"), "{stdout}");
    let tables = host.psql(
        "SELECT coalesce(string_agg(query_to_xml(format('SELECT * FROM %I', c.relname), true, false, '')::text, ''), '') \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')",
    );
    assert!(tables.contains("group/project-7"), "the dump does not show what is there: {} bytes", tables.len());
    for secret in [MASKED, HIDDEN, FILED, token.as_str()] {
        assert!(!host.log().contains(secret), "{secret} is in the server's log");
        assert!(!tables.contains(secret), "{secret} is in a table");
        // Bytes of output and payloads are not text in the dump, and files hold what a table has let go.
        let chunks =
            host.psql(&format!("SELECT count(*) FROM log_chunks WHERE position('{secret}'::bytea IN bytes) > 0"));
        assert_eq!(chunks, "0", "{secret} is in stored output");
        let grep = std::process::Command::new("grep").args(["-rlaF", "--", secret]).arg(host.data_dir()).output();
        let found = String::from_utf8_lossy(&grep.expect("grep is there").stdout).into_owned();
        assert!(found.is_empty(), "{secret} is in {found}");
    }
    host.finish();
}
