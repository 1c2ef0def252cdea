//! `match`: deliveries run only where the payload's fields hold what a trigger wants, and the record says why not.

use serde_json::json;

use super::calls::GITHUB_TRIGGER;
use super::host::TestHost;

const ECHO: &str = "def handle(event, context):\n    return None\n";

#[test]
fn fields_of_the_payload_decide_and_the_record_says_why_not() {
    let host = TestHost::start();
    let rule = |fields: &str| format!("{GITHUB_TRIGGER}events = [\"pull_request\"]\nmatch = {fields}\n");
    host.python("by-repository", &rule("{ \"repository.full_name\" = [\"o/r\", \"o/s-*\"] }"), ECHO);
    host.python(
        "by-label",
        &rule("{ action = \"labeled\", pull_request.labels.name = \"run-*\", pull_request.draft = false }"),
        ECHO,
    );
    let body = |repository: &str, action: &str, labels: serde_json::Value, draft: bool| {
        json!({
            "action": action, "repository": {"full_name": repository},
            "pull_request": {"number": 7, "labels": labels, "draft": draft},
        })
        .to_string()
    };
    let labels = json!([{"name": "bug"}, {"name": "run-ci"}]);
    for (number, (body, ran, reasons)) in [
        (
            body("o/r", "labeled", labels.clone(), false),
            vec!["by-label", "by-repository"],
            [
                "by-label: matched event pull_request, action, pull_request.draft, pull_request.labels.name",
                "by-repository: matched event pull_request, repository.full_name",
            ],
        ),
        (
            body("o/s-1", "labeled", labels.clone(), true),
            vec!["by-repository"],
            [
                "by-label: pull_request.draft is true, and only [false] is wanted",
                "by-repository: matched event pull_request, repository.full_name",
            ],
        ),
        (
            body("o/t", "opened", labels, false),
            vec![],
            [
                "by-label: action is \"opened\", and only [\"labeled\"] is wanted",
                "by-repository: repository.full_name is \"o/t\", and only [\"o/r\", \"o/s-*\"] is wanted",
            ],
        ),
        (
            json!({"action": "labeled", "pull_request": {"draft": false, "labels": []}}).to_string(),
            vec![],
            [
                "by-label: the payload has no pull_request.labels.name, and only [\"run-*\"] is wanted",
                "by-repository: the payload has no repository.full_name, and only [\"o/r\", \"o/s-*\"] is wanted",
            ],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = host.github("pull_request", &format!("d-{number}"), body.as_bytes()).send();
        let answer = answer.expect(if ran.is_empty() { 200 } else { 202 }).json();
        let mut started: Vec<&str> =
            answer["invocations"].as_array().into_iter().flatten().filter_map(|one| one["function"].as_str()).collect();
        started.sort_unstable();
        assert_eq!(started, ran, "{body}");
        let path = format!("/v1/deliveries/{}", answer["delivery"].as_str().expect("it is on record"));
        let record = &host.get(&path)["delivery"];
        assert_eq!(record["reasons"], json!(reasons), "{body}");
        assert_eq!(record["verdict"], if ran.is_empty() { "ignored" } else { "accepted" });
    }
    host.finish();
}
