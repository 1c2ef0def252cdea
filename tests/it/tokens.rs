//! Who may do what: every route with every kind of token.

use serde_json::json;

use super::host::TestHost;

/// Method, path and the least role; with `+ci` the role `ci` may as well, for its own jobs. `F`, `I`, `E`, `D` and `T` stand for ids that exist; a new route needs a row here.
const ROUTES: [(&str, &str, &str); 37] = [
    ("GET", "/v1/functions", "viewer"),
    ("GET", "/v1/functions/f", "viewer"),
    ("PUT", "/v1/functions/f", "deployer"),
    ("DELETE", "/v1/functions/none", "deployer"),
    ("POST", "/v1/functions/f/invocations", "invoker"),
    ("GET", "/v1/functions/f/revisions", "viewer"),
    ("POST", "/v1/functions/none/rollback", "deployer"),
    ("GET", "/v1/functions/f/aliases", "viewer"),
    ("GET", "/v1/functions/f/aliases/none", "viewer"),
    ("PUT", "/v1/functions/f/aliases/a", "deployer"),
    ("DELETE", "/v1/functions/f/aliases/a", "deployer"),
    ("GET", "/v1/invocations/I", "viewer+ci"),
    ("GET", "/v1/invocations/I/result", "viewer"),
    ("GET", "/v1/invocations/I/payload", "viewer"),
    ("GET", "/v1/invocations/I/explain", "viewer"),
    ("POST", "/v1/invocations/I/cancel", "invoker+ci"),
    ("GET", "/v1/executions", "viewer+ci"),
    ("GET", "/v1/executions?function=f&state=succeeded&since=1h", "viewer+ci"),
    ("GET", "/v1/executions/E", "viewer+ci"),
    ("GET", "/v1/executions/E/logs", "viewer+ci"),
    ("GET", "/v1/deliveries", "viewer"),
    ("GET", "/v1/deliveries/D", "viewer"),
    ("GET", "/v1/deliveries/D/body", "viewer"),
    ("GET", "/v1/capacity", "viewer+ci"),
    ("GET", "/v1/leases", "deployer+ci"),
    // Without a job it is for people only.
    ("POST", "/v1/leases", "deployer"),
    ("GET", "/v1/leases/none", "deployer+ci"),
    ("DELETE", "/v1/leases/none", "deployer+ci"),
    ("POST", "/v1/leases/none/renew", "deployer+ci"),
    ("POST", "/v1/leases/none/exec", "deployer+ci"),
    ("GET", "/v1/history/size", "admin"),
    ("GET", "/v1/tokens", "admin"),
    ("POST", "/v1/tokens", "admin"),
    ("DELETE", "/v1/tokens/T", "admin"),
    ("GET", "/v1/openapi.json", "none"),
    ("GET", "/healthz", "none"),
    ("POST", "/hooks/gh", "none"),
];

const RANKS: [&str; 6] = ["none", "ci", "viewer", "invoker", "deployer", "admin"];

fn rank(role: &str) -> usize {
    RANKS.iter().position(|known| *known == role).expect("a role")
}

/// Makes a token through the API; its secret.
fn token(host: &TestHost, role: &str) -> String {
    let request = host.http("POST", "/v1/tokens").json(&json!({"name": format!("a {role}"), "role": role}));
    request.send().expect(201).json()["secret"].as_str().expect("it is shown once").to_owned()
}

#[test]
fn each_route_takes_its_role_and_no_less() {
    let host = TestHost::start();
    host.python("f", super::calls::GITHUB_TRIGGER, "def handle(event, context):\n    return 1\n");
    let answer = host.call("f", &json!(null)).expect(200);
    let execution = answer.header("Runlet-Execution").expect("it ran").to_owned();
    let invocation = answer.header("Runlet-Invocation").expect("it ran").to_owned();
    let delivery =
        host.github("ping", "p", b"{}").send().expect(200).json()["delivery"].as_str().expect("an id").to_owned();
    let victim =
        host.http("POST", "/v1/tokens").json(&json!({"name": "victim", "role": "viewer"})).send().expect(201).json();
    let victim = victim["token"]["id"].as_str().expect("an id").to_owned();
    let last = |path: &str| {
        let path = path.replace("/I", &format!("/{invocation}")).replace("/E", &format!("/{execution}"));
        path.replace("/D", &format!("/{delivery}")).replace("/T", &format!("/{victim}"))
    };
    for role in RANKS {
        let secret = (role != "none").then(|| token(&host, role));
        for (method, path, least) in ROUTES {
            // Each role but the last must not reach what would change the things that others look at.
            let request = host.http(method, &last(path)).anonymous();
            let request = if let Some(secret) = &secret { request.bearer(secret) } else { request };
            let request = if method == "POST" || method == "PUT" { request.body("{}") } else { request };
            let answer = request.send();
            let (status, text) = (answer.status, answer.text());
            let problem = answer.header("Content-Type") == Some("application/problem+json");
            let known =
                problem && ["unauthorized", "forbidden"].iter().any(|code| text.contains(&format!("\"{code}\"")));
            let (least, or_ci) = least.split_once('+').map_or((least, false), |(least, _)| (least, role == "ci"));
            let expected = match (rank(role) >= rank(least) || or_ci, role) {
                (true, _) => None,
                (false, "none") => Some(401),
                (false, _) => Some(403),
            };
            match expected {
                Some(expected) => assert_eq!((status, known), (expected, true), "{role}: {method} {path}: {text}"),
                None => assert!(!known && status < 500, "{role}: {method} {path}: {status} {text}"),
            }
        }
    }
    host.finish();
}

#[test]
fn tokens_end_when_revoked_or_expired_and_never_show_again() {
    let host = TestHost::start();
    let made = host.http("POST", "/v1/tokens").json(&json!({"name": "t", "role": "viewer"})).send().expect(201).json();
    let secret = made["secret"].as_str().expect("it is shown once").to_owned();
    let list = |secret: &str| host.http("GET", "/v1/functions").anonymous().bearer(secret).send();
    list(&secret).expect(200);
    let listed = host.http("GET", "/v1/tokens").send().expect(200).text();
    assert!(!listed.contains(&secret) && listed.contains(made["token"]["id"].as_str().expect("an id")));
    host.http("DELETE", &format!("/v1/tokens/{}", made["token"]["id"].as_str().expect("an id"))).send().expect(204);
    list(&secret).expect(401);
    let short = json!({"name": "t", "role": "viewer", "expires_in": "1ms"});
    let expired = host.http("POST", "/v1/tokens").json(&short).send().expect(201).json();
    list(expired["secret"].as_str().expect("it is shown once")).expect(401);
    for wrong in ["", "rl_", "rl_wrong", "x", &"y".repeat(5000)] {
        list(wrong).expect(401);
    }
    assert_eq!(host.http("GET", "/v1/functions").anonymous().header("Authorization", "Basic eA==").send().status, 401);
    for text in [host.log(), host.psql("SELECT * FROM tokens")] {
        assert!(!text.contains(&secret) && !text.contains(host.token()), "a secret is where it should not be");
    }
    host.finish();
}

#[test]
fn a_token_is_bound_to_its_namespace() {
    let host = TestHost::start();
    let elsewhere = host.http("GET", "/v1/functions").header("Runlet-Namespace", "other").send();
    assert_eq!(elsewhere.expect(403).code(), "forbidden");
    host.http("GET", "/v1/functions").header("Runlet-Namespace", "default").send().expect(200);
    host.finish();
}

#[test]
fn the_unix_socket_knows_root_and_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = TestHost::start();
    host.unix("GET", "/v1/tokens").send().expect(200);
    let mode = std::fs::metadata(host.data_dir().join("runlet.sock")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mode = std::fs::metadata(host.data_dir().join("admin.token")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    host.finish();
}
