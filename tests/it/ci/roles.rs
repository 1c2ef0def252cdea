//! The role `ci` can run jobs, look at them and end them, and no more.

use serde_json::{Value, json};

use super::job::Job;
use super::runner::{Runner, Verdict};
use super::runner_for;
use crate::calls::execution_id;
use crate::host::TestHost;
use crate::http::{Address, Request};

/// A new token's secret.
pub(super) fn token(host: &TestHost, namespace: &str, role: &str) -> String {
    let request = host.unix("POST", "/v1/tokens").header("Runlet-Namespace", namespace);
    let answer = request.json(&json!({"name": format!("{namespace}-{role}"), "role": role})).send().expect(201).json();
    answer["secret"].as_str().expect("it is shown once").to_owned()
}

/// A runner whose driver reaches the server over TCP with this token, as somebody who is not root would.
fn with_token(host: &TestHost, secret: &str) -> Runner {
    let mut runner = runner_for(host);
    runner.host_env.retain(|(name, _)| name != "RUNLET_DATA_DIR");
    runner.host_env.push(("RUNLET_HOST".into(), format!("http://{}", host.address()).into()));
    runner.host_env.push(("RUNLET_TOKEN".into(), secret.into()));
    runner
}

#[test]
fn the_role_ci_runs_jobs_and_no_more() {
    let host = TestHost::start();
    host.python("f", "", "def handle(event, context):\n    return 1\n");
    let foreign = host.call("f", &json!(null)).expect(200);
    let secret = token(&host, "default", "ci");
    let as_ci = |method: &str, path: &str| Request::new(Address::Tcp(host.address()), method, path).bearer(&secret);

    let runner = with_token(&host, &secret);
    let running = runner.start(Job::new(601, &["echo begun; while [ ! -e /builds/go ]; do sleep 0.05; done"]));
    running.saw("begun\n");
    let leases = as_ci("GET", "/v1/leases").send().expect(200).json();
    let lease = leases["leases"][0]["id"].as_str().expect("its own").to_owned();
    let mut go = crate::host::runlet();
    go.args(["exec", &lease, "--", "touch", "/builds/go"]).stdin(std::process::Stdio::null());
    go.env("RUNLET_HOST", format!("http://{}", host.address())).env("RUNLET_TOKEN", &secret);
    let output = go.output().expect("it is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    running.finish().expect(Verdict::Success);

    // Its own history, and nobody else's.
    let list = as_ci("GET", "/v1/executions").send().expect(200).json();
    let executions = list["executions"].as_array().expect("a list");
    assert!(
        !executions.is_empty() && executions.iter().all(|one| one["invocation"] == executions[0]["invocation"]),
        "{list}"
    );
    let step = host.step(601, "build_script")["id"].as_str().expect("an id").to_owned();
    as_ci("GET", &format!("/v1/executions/{step}")).send().expect(200);
    assert_eq!(
        as_ci("GET", &format!("/v1/executions/{step}/logs")).send().expect(200).text().lines().last(),
        Some("begun")
    );
    let (execution, invocation) =
        (execution_id(&foreign), foreign.header("Runlet-Invocation").expect("it ran").to_owned());
    for path in [
        format!("/v1/executions/{execution}"),
        format!("/v1/executions/{execution}/logs"),
        format!("/v1/invocations/{invocation}"),
    ] {
        let status = as_ci("GET", &path).send().status;
        assert!(matches!(status, 403 | 404), "{path}: {status}");
    }
    let cancel = as_ci("POST", &format!("/v1/invocations/{invocation}/cancel")).send().status;
    assert!(matches!(cancel, 403 | 404), "{cancel}");
    assert_eq!(as_ci("GET", "/v1/executions?cause=http").send().json()["executions"].as_array().map_or(0, Vec::len), 0);

    // No function, no token, no delivery, no bare sandbox, no sandbox with a function's secrets.
    for (method, path) in [
        ("GET", "/v1/functions"),
        ("GET", "/v1/functions/f"),
        ("PUT", "/v1/functions/g"),
        ("DELETE", "/v1/functions/f"),
        ("POST", "/v1/functions/f/invocations"),
        ("GET", "/v1/tokens"),
        ("POST", "/v1/tokens"),
        ("GET", "/v1/deliveries"),
    ] {
        assert_eq!(as_ci(method, path).send().status, 403, "{method} {path}");
    }
    let job = json!({"provider": "gitlab", "id": "1"});
    for body in [json!({}), json!({"function": "f"}), json!({"function": "f", "job": job})] {
        let answer = as_ci("POST", "/v1/leases").json(&body).send();
        assert_eq!(answer.status, 403, "{body}: {}", answer.text());
    }
    host.finish();
}

#[test]
fn other_roles_and_other_namespaces_have_no_part_in_a_job() {
    let host = TestHost::start();
    let own = token(&host, "default", "ci");
    let running = with_token(&host, &own).start(Job::new(611, &["echo begun; sleep 995"]));
    running.saw("begun\n");
    let lease = host.get("/v1/leases")["leases"][0].clone();
    let (id, key) = (lease["id"].as_str().expect("an id"), lease["key"].as_str().expect("a key"));
    let team = token(&host, "team", "ci");
    let request = |method: &str, path: &str, secret: &str| {
        Request::new(Address::Tcp(host.address()), method, path).bearer(secret).send()
    };
    for name in [id, key] {
        let path = format!("/v1/leases/{name}");
        assert_eq!(request("GET", &path, &team).status, 404);
        assert_eq!(request("DELETE", &path, &team).status, 404);
        let renew = Request::new(Address::Tcp(host.address()), "POST", &format!("{path}/renew")).bearer(&team);
        assert_eq!(renew.json(&json!({"timeout": "1h"})).send().status, 404);
    }
    assert_eq!(request("GET", "/v1/leases", &team).json()["leases"], json!([]));
    for role in ["viewer", "invoker"] {
        let secret = token(&host, "default", role);
        assert_eq!(request("DELETE", &format!("/v1/leases/{id}"), &secret).status, 403, "{role}");
        assert_eq!(request("POST", &format!("/v1/leases/{id}/exec"), &secret).status, 403, "{role}");
    }
    let leases = host.get("/v1/leases");
    assert_eq!(leases["leases"].as_array().map(Vec::len), Some(1), "{leases}");
    // A job of the same number in another namespace is another job, with a sandbox of its own.
    let report = with_token(&host, &team).run(Job::new(611, &["ls /builds"])).expect(Verdict::Success);
    assert!(report.trace.contains("group\n"), "{}", report.trace);
    assert!(!running.is_over());
    running.cancel();
    running.finish().expect(Verdict::Cancelled);
    let none: Value = host.get("/v1/leases");
    assert_eq!(none["leases"], json!([]));
    host.finish();
}

#[test]
fn a_token_that_is_none_is_a_system_failure_that_says_so() {
    let host = TestHost::start();
    for (secret, word) in [("rl_nobody", "token"), (token(&host, "default", "viewer").as_str(), "role")] {
        let mut runner = with_token(&host, secret);
        runner.retry_interval = std::time::Duration::from_millis(50);
        let report = runner.run(Job::new(621, &["true"])).expect(Verdict::System(super::driver::Failure::System));
        assert!(report.trace.contains("runlet: ") && report.trace.contains(word), "{}", report.trace);
        assert!(!report.trace.contains(secret), "a token is in the job log");
    }
    host.finish();
}
