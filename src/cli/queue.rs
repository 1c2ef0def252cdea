//! `runlet queue`: named queues and what is in them.

use std::io::Read as _;

use clap::{Args, Subcommand};
use runlet_core::clock;
use runlet_core::id::MessageId;
use runlet_core::name::QueueName;
use runlet_core::store::message::{MessageRecord, Published, QueueRecord};
use runlet_core::unit::Span;
use serde_json::{Map, Value, json};

use super::errors::CliError;
use super::output::{self, Table};
use super::page::{Listing, Rows};
use super::session::{Session, field};
use super::words;
use crate::client::Call;

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// What `queue` takes.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    verb: QueueVerb,
}

#[derive(Debug, Subcommand)]
enum QueueVerb {
    /// List queues, and how full they are
    #[command(after_help = "\
Examples:
  runlet queue ls
  runlet queue ls --json")]
    Ls,
    /// Make a queue; a deploy makes those that its triggers name
    #[command(after_help = "\
Examples:
  runlet queue create orders")]
    Create {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: QueueName,
    },
    /// Remove a queue that is empty and that no trigger takes from
    #[command(after_help = "\
Examples:
  runlet queue rm orders")]
    Rm {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Publish a message, or many at once
    #[command(after_help = "\
With --lines each line is a JSON object with `body` (any JSON) or `body_base64`, and if wanted `key`, `dedup`, `priority`,
`delay`, `attributes`, `content_type`. All lines of a request are published, or none.

Examples:
  runlet queue publish orders --data '{\"id\":7}'
  runlet queue publish orders --data @order.json --key customer-3 --delay 30s
  runlet queue publish orders --data '{}' --attribute kind=refund --priority 5
  runlet queue publish orders --lines @orders.jsonl
  make-orders | runlet queue publish orders --lines -")]
    Publish(PublishArgs),
    /// Look at messages without taking them, oldest first
    #[command(after_help = "\
Examples:
  runlet queue peek orders --limit 5
  runlet queue peek orders --state dead --json")]
    Peek {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: String,
        /// Only those: ready, delayed, behind, in_flight or dead
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// List dead letters and why they failed, oldest first
    #[command(after_help = "\
Examples:
  runlet queue dead orders")]
    Dead {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Let dead letters go again, from their first attempt on
    #[command(after_help = "\
Examples:
  runlet queue redrive orders
  runlet queue redrive orders --limit 10
  runlet queue redrive orders msg_06fcy5swzhp7d2w7k3s6cdyj1m")]
    Redrive {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: String,
        /// These; without any, all
        #[arg(value_name = "MESSAGE")]
        messages: Vec<MessageId>,
        /// The oldest ones, at most so many
        #[arg(long, value_name = "N", conflicts_with = "messages")]
        limit: Option<u32>,
    },
    /// Pause a queue: nothing is taken from it until it is resumed
    #[command(after_help = "\
Examples:
  runlet queue pause orders --note 'the shop is closed'")]
    Pause {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: String,
        /// Why, for whoever finds it paused
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Let a paused queue go on
    #[command(after_help = "\
Examples:
  runlet queue resume orders")]
    Resume {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove messages for good: those that wait, or the dead letters
    #[command(after_help = "\
Examples:
  runlet queue purge orders
  runlet queue purge orders --dead")]
    Purge {
        /// Name of the queue
        #[arg(value_name = "NAME")]
        name: String,
        /// The dead letters
        #[arg(long)]
        dead: bool,
    },
}

/// What `queue publish` takes.
#[derive(Debug, Args)]
struct PublishArgs {
    /// Name of the queue
    #[arg(value_name = "NAME")]
    name: String,
    /// One message: JSON text, @FILE, or - for stdin
    #[arg(long, short, value_name = "JSON|@FILE|-", allow_hyphen_values = true, required_unless_present = "lines")]
    data: Option<String>,
    /// Many messages, a JSON object a line: @FILE, or - for stdin
    #[arg(long, value_name = "@FILE|-", conflicts_with_all = ["data", "key", "dedup", "priority", "delay", "attribute", "content_type"])]
    lines: Option<String>,
    /// Messages with the same key go one at a time, in order
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A repeat with the same key within five minutes is no new message
    #[arg(long, value_name = "KEY")]
    dedup: Option<String>,
    /// From 0 to 9; higher goes first
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// Not before so long has passed
    #[arg(long, value_name = "SPAN")]
    delay: Option<Span>,
    /// What filters may ask for; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
    /// Content type of the message
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Does what is asked of queues.
pub(crate) async fn run(session: &Session, args: &QueueArgs) -> Result<(), CliError> {
    let path = |name: &str, rest: &str| format!("/v1/queues/{name}{rest}");
    let with = |call: Call, body: Value| call.header("content-type", JSON).body(body.to_string());
    match &args.verb {
        QueueVerb::Ls => list(session).await,
        QueueVerb::Create { name } => told(session, Call::put(path(name.as_str(), "")), "is there").await,
        QueueVerb::Rm { name } => {
            session.ask(Call::delete(path(name, ""))).await?;
            output::line(&format!("queue {name} is gone"))
        }
        QueueVerb::Publish(args) => publish(session, args).await,
        QueueVerb::Peek { name, state, limit } => peek(session, name, state.as_deref(), *limit).await,
        QueueVerb::Dead { name, limit } => peek(session, name, Some("dead"), *limit).await,
        QueueVerb::Redrive { name, messages, limit } => {
            let mut wish = Map::new();
            if !messages.is_empty() {
                wish.insert("messages".to_owned(), json!(messages));
            }
            wish.extend(limit.map(|limit| ("limit".to_owned(), limit.into())));
            counted(session, with(Call::post(path(name, "/redrive")), wish.into()), "dead letters go again").await
        }
        QueueVerb::Pause { name, note } => {
            let call = with(Call::post(path(name, "/pause")), json!({ "note": note }));
            told(session, call, "is paused").await
        }
        QueueVerb::Resume { name } => told(session, Call::post(path(name, "/resume")), "goes on").await,
        QueueVerb::Purge { name, dead } => {
            let call = with(Call::post(path(name, "/purge")), json!({ "dead": dead }));
            counted(session, call, "messages are gone").await
        }
    }
}

async fn list(session: &Session) -> Result<(), CliError> {
    let listing = Listing { key: "queues", cursor: "after" };
    let rows = Rows::fetch(session, listing, usize::MAX, || Call::get("/v1/queues")).await?;
    if session.json {
        return rows.print_json();
    }
    let now = clock::now();
    let mut table =
        Table::new(["QUEUE", "READY", "DELAYED", "BEHIND", "IN FLIGHT", "DEAD", "OLDEST", "FUNCTIONS", "STATE"]);
    for queue in rows.read::<QueueRecord>()? {
        let depth = queue.depth;
        let functions: Vec<String> = queue.functions.iter().map(ToString::to_string).collect();
        let state = queue.paused.map_or_else(
            || "on".to_owned(),
            |paused| {
                let note = paused.note.map_or_else(String::new, |note| format!(": {note}"));
                format!("paused {} ago{note}", words::age(paused.at, now))
            },
        );
        let oldest = std::time::Duration::try_from_secs_f64(depth.oldest_seconds).unwrap_or_default();
        table.row([
            queue.name,
            depth.ready.to_string(),
            depth.delayed.to_string(),
            depth.behind.to_string(),
            depth.in_flight.to_string(),
            depth.dead.to_string(),
            if depth.ready > 0 { words::span(oldest) } else { "-".to_owned() },
            if functions.is_empty() { "-".to_owned() } else { functions.join(", ") },
            state,
        ]);
    }
    table.print("no queues yet: `runlet queue create NAME` makes one, as does a trigger that names it")
}

async fn told(session: &Session, call: Call, what: &str) -> Result<(), CliError> {
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let queue: QueueRecord = field(&answer, "queue")?;
    output::line(&format!("queue {} {what}", queue.name))
}

async fn counted(session: &Session, call: Call, what: &str) -> Result<(), CliError> {
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let messages: u64 = field(&answer, "messages")?;
    output::line(&format!("{messages} {what}"))
}

async fn publish(session: &Session, args: &PublishArgs) -> Result<(), CliError> {
    let mut call = Call::post(format!("/v1/queues/{}/messages", args.name));
    if let Some(lines) = &args.lines {
        call = call.header("content-type", LINES).body(bytes(lines)?);
    } else {
        let data = args.data.as_deref().unwrap_or_default();
        let is_text = data != "-" && !data.starts_with('@');
        let body = if is_text {
            serde_json::from_str::<serde::de::IgnoredAny>(data).map_err(CliError::DataNotJson)?;
            data.as_bytes().to_vec()
        } else {
            bytes(data)?
        };
        let usual = if is_text || data.ends_with(".json") { JSON } else { "application/octet-stream" };
        call = call.header("content-type", args.content_type.as_deref().unwrap_or(usual)).body(body);
        let attributes: Map<String, Value> =
            args.attribute.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let attributes = (!attributes.is_empty()).then_some(Value::Object(attributes));
        call = call
            .query_if("key", args.key.as_ref())
            .query_if("dedup", args.dedup.as_ref())
            .query_if("priority", args.priority.as_ref())
            .query_if("delay", args.delay.as_ref())
            .query_if("attributes", attributes.as_ref());
    }
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let published: Vec<Published> = field(&answer, "messages")?;
    let repeated = published.iter().filter(|one| one.repeated).count();
    match published.as_slice() {
        [only] => output::line(&only.id.to_string())?,
        many => output::line(&format!("{} messages published", many.len() - repeated))?,
    }
    if repeated > 0 {
        output::note("a dedup key was known: that message was published before, and nothing new was");
    }
    Ok(())
}

/// What `@FILE` or `-` means.
fn bytes(what: &str) -> Result<Vec<u8>, CliError> {
    let mut body = Vec::new();
    let (name, read) = match what.strip_prefix('@') {
        Some(path) => (path, std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut body))),
        None => ("stdin", std::io::stdin().lock().read_to_end(&mut body)),
    };
    read.map_err(|source| CliError::Read { what: name.to_owned(), source })?;
    Ok(body)
}

async fn peek(session: &Session, name: &str, state: Option<&str>, limit: u32) -> Result<(), CliError> {
    let listing = Listing { key: "messages", cursor: "after" };
    let call = || Call::get(format!("/v1/queues/{name}/messages")).query_if("state", state);
    let rows = Rows::fetch(session, listing, limit as usize, call).await?;
    if session.json {
        return rows.print_json();
    }
    let now = clock::now();
    let mut table = Table::new(["ID", "STATE", "KEY", "ATTEMPTS", "AGE", "SIZE", "BODY", "REASON"]);
    for message in rows.read::<MessageRecord>()? {
        table.row([
            message.id.to_string(),
            message.state.as_str().to_owned(),
            message.key.unwrap_or_else(|| "-".to_owned()),
            message.attempts.to_string(),
            words::age(message.published_at, now),
            words::size(message.size),
            short(&message.body),
            message.reason.as_deref().map_or_else(|| "-".to_owned(), short),
        ]);
    }
    table.print("no such messages")
}

/// A line of a table has room for so much.
fn short(text: &str) -> String {
    let mut line: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > 60 {
        line.push_str("..");
    }
    line
}
