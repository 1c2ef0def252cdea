//! `runlet invoke`: one call, its result on stdout.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use runlet_core::target::Target;
use runlet_core::unit::Span;
use serde_json::{Value, json};

use super::errors::CliError;
use super::output;
use super::session::{Session, field};
use crate::client::{Answer, Call};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// What `invoke` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
The result goes to stdout byte for byte; a function that failed is an exit code from 20 on, told on stderr.
JSON text and @FILE.json are sent as application/json, any other file and stdin as bytes unless --content-type says more.

Examples:
  runlet invoke hello-sh --data '{\"name\":\"you\"}'
  runlet invoke on-push --data @push.json --async
  runlet invoke nightly --async --delay 10m
  runlet invoke on-push@live --data @push.json
  gzip -c big.log | runlet invoke count --data -")]
pub(crate) struct InvokeArgs {
    /// The function: NAME, NAME@ALIAS or NAME@sha256:...
    #[arg(value_name = "NAME[@ALIAS]")]
    name: Target,
    /// The event: JSON text, @FILE, or - for stdin [default: none]
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// Content type of the event
    #[arg(long, value_name = "TYPE", requires = "data")]
    content_type: Option<String>,
    /// Do not wait: print the id of the invocation once it is on record
    #[arg(long = "async")]
    asynchronous: bool,
    /// A repeat with the same key gives the first invocation back while that one lives or has succeeded
    #[arg(long, value_name = "KEY", requires = "asynchronous")]
    idempotency_key: Option<String>,
    /// Not before so long from now
    #[arg(long, value_name = "SPAN", requires = "asynchronous", conflicts_with = "at")]
    delay: Option<Span>,
    /// Not before this moment, like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", requires = "asynchronous")]
    at: Option<String>,
    /// Before all that waits with a lower one; from -100 to 100, 0 is usual
    #[arg(long, value_name = "N", requires = "asynchronous", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i16).range(-100..=100))]
    priority: Option<i16>,
}

/// Sends the event; prints the result, or the invocation's id.
pub(crate) async fn run(session: &Session, args: &InvokeArgs) -> Result<(), CliError> {
    let mut call = Call::post(format!("/v1/functions/{}/invocations", args.name));
    if let Some(data) = &args.data {
        let (body, content_type) = event(data)?;
        call = call.header("content-type", args.content_type.as_deref().unwrap_or(content_type)).body(body);
    }
    if args.asynchronous {
        return accept(session, call, args).await;
    }
    let answer = tokio::select! {
        answer = session.ask(call.patient()) => answer?,
        _ = tokio::signal::ctrl_c() => return Err(CliError::Interrupted { function: args.name.function.to_string() }),
    };
    if session.json { output::line(&described(&answer).to_string()) } else { output::result(&answer.body) }
}

async fn accept(session: &Session, call: Call, args: &InvokeArgs) -> Result<(), CliError> {
    let mut call = call.header("prefer", "respond-async");
    if let Some(key) = &args.idempotency_key {
        call = call.header("idempotency-key", key.as_str());
    }
    let delay = args.delay.map(|delay| ("runlet-delay", delay.to_string()));
    let at = args.at.clone().map(|at| ("runlet-not-before", at));
    let priority = args.priority.map(|priority| ("runlet-priority", priority.to_string()));
    for (name, value) in [delay, at, priority].into_iter().flatten() {
        call = call.header(name, value.as_str());
    }
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let invocation: Value = field(&answer, "invocation")?;
    let id = invocation["id"].as_str().ok_or_else(|| CliError::StrangeAnswer {
        status: answer.status.as_u16(),
        why: "its `invocation` has no `id`".to_owned(),
    })?;
    output::line(id)?;
    if invocation["repeated"] == true {
        let state = invocation["state"].as_str().map_or_else(String::new, |state| format!(", which is {state}"));
        output::note(&format!(
            "this key was known: it is the first invocation's id{state}, and nothing new was queued"
        ));
    }
    Ok(())
}

/// The body that `--data` means, and the content type that goes with it.
fn event(data: &str) -> Result<(Vec<u8>, &'static str), CliError> {
    if data == "-" {
        let mut body = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut body);
        return read.map(|_| (body, BYTES)).map_err(|source| CliError::Read { what: "stdin".to_owned(), source });
    }
    if let Some(path) = data.strip_prefix('@') {
        let body = std::fs::read(path).map_err(|source| CliError::Read { what: path.to_owned(), source })?;
        let is_json = std::path::Path::new(path).extension().is_some_and(|extension| extension == "json");
        return Ok((body, if is_json { JSON } else { BYTES }));
    }
    serde_json::from_str::<serde::de::IgnoredAny>(data).map_err(CliError::DataNotJson)?;
    Ok((data.as_bytes().to_vec(), JSON))
}

/// A result with its ids as one JSON document: the API gives the bare result, with the ids in headers.
fn described(answer: &Answer) -> Value {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content_type = header("content-type");
    let is_json = content_type.as_deref().is_some_and(|kind| kind.starts_with(JSON));
    let (key, result) = match serde_json::from_slice(&answer.body) {
        Ok(value) if is_json => ("result", value),
        _ => match std::str::from_utf8(&answer.body) {
            Ok(text) => ("result_text", Value::from(text)),
            Err(_) => ("result_base64", Value::from(STANDARD.encode(&answer.body))),
        },
    };
    json!({
        "invocation": header("runlet-invocation"),
        "execution": header("runlet-execution"),
        "outcome": header("runlet-outcome"),
        "content_type": content_type,
        key: result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_text_or_a_file() {
        assert_eq!(event("{\"a\":1}").expect("JSON"), (b"{\"a\":1}".to_vec(), JSON));
        assert_eq!(event("-1").expect("JSON"), (b"-1".to_vec(), JSON));
        assert!(matches!(event("hello"), Err(CliError::DataNotJson(_))));
        assert!(matches!(event("{} {}"), Err(CliError::DataNotJson(_))));
        assert!(matches!(event("@/nonexistent/x.json"), Err(CliError::Read { .. })));

        let dir = tempfile::tempdir().expect("a directory");
        for (name, content_type) in [("x.json", JSON), ("x.bin", BYTES)] {
            let path = dir.path().join(name);
            std::fs::write(&path, b"\0\xff").expect("writable");
            assert_eq!(event(&format!("@{}", path.display())).expect("a file"), (b"\0\xff".to_vec(), content_type));
        }
    }

    #[test]
    fn a_described_result_keeps_its_kind() {
        let told = |content_type: &'static str, body: &'static [u8]| {
            let mut headers = hyper::HeaderMap::new();
            headers.insert("content-type", hyper::header::HeaderValue::from_static(content_type));
            headers.insert("runlet-outcome", hyper::header::HeaderValue::from_static("ok"));
            described(&Answer { status: hyper::StatusCode::OK, headers, body: body.into() })
        };
        assert_eq!(told(JSON, b"{\"a\":[1]}")["result"]["a"][0], 1);
        assert_eq!(told(BYTES, b"plain")["result_text"], "plain");
        assert_eq!(told(BYTES, b"\xff")["result_base64"], "/w==");
        assert_eq!(told(BYTES, b"")["outcome"], "ok");
    }
}
