//! `runlet token`: who may do what over the API.

use clap::{Args, Subcommand};
use runlet_core::clock;
use runlet_core::id::TokenId;
use runlet_core::store::token::Token;
use runlet_core::token::Role;
use runlet_core::unit::Span;
use serde_json::json;

use super::errors::CliError;
use super::output::{self, Table};
use super::page::{Listing, Rows};
use super::session::{Session, field};
use super::words;
use crate::client::Call;

/// What `token` takes.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Make a token; its secret is shown this once
    #[command(after_help = "\
Roles: viewer reads, invoker calls and cancels as well, deployer deploys as well, admin does everything; ci leases sandboxes alone.

Examples:
  runlet token create laptop --role deployer --expires-in 30d
  export RUNLET_TOKEN=$(runlet token create ci --role invoker)")]
    Create {
        /// What to call it
        name: String,
        /// viewer, invoker, deployer, admin or ci
        #[arg(long, value_parser = role)]
        role: Role,
        /// How long it is good: 12h, 30d [default: until it is revoked]
        #[arg(long, value_name = "SPAN")]
        expires_in: Option<Span>,
    },
    /// List tokens, without their secrets
    #[command(after_help = "\
Examples:
  runlet token ls
  runlet token ls --json")]
    Ls,
    /// Revoke a token: it is refused from now on
    #[command(after_help = "\
Examples:
  runlet token revoke tok_06fcy5swzhp7d2w7k3s6cdyj1m")]
    Revoke {
        /// tok_...
        id: TokenId,
    },
}

/// Makes, lists or revokes.
pub(crate) async fn run(session: &Session, args: &TokenArgs) -> Result<(), CliError> {
    match &args.verb {
        TokenVerb::Create { name, role, expires_in } => create(session, name, *role, *expires_in).await,
        TokenVerb::Ls => list(session).await,
        TokenVerb::Revoke { id } => revoke(session, *id).await,
    }
}

async fn create(session: &Session, name: &str, role: Role, expires_in: Option<Span>) -> Result<(), CliError> {
    let mut wanted = json!({ "name": name, "role": role });
    if let Some(span) = expires_in {
        wanted["expires_in"] = json!(span);
    }
    let call = Call::post("/v1/tokens").header("content-type", "application/json").body(wanted.to_string());
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let token: Token = field(&answer, "token")?;
    let secret: String = field(&answer, "secret")?;
    let end = token
        .expires_at
        .map_or_else(|| "until it is revoked".to_owned(), |end| format!("until {}", words::moment(end)));
    output::line(&secret)?;
    output::note(&format!(
        "{} `{}`, role {}, good {end}. The secret is not shown again.",
        token.id, token.name, token.role
    ));
    Ok(())
}

async fn list(session: &Session) -> Result<(), CliError> {
    let listing = Listing { key: "tokens", cursor: "before" };
    let rows = Rows::fetch(session, listing, usize::MAX, || Call::get("/v1/tokens")).await?;
    if session.json {
        return rows.print_json();
    }
    table(&rows.read()?, clock::now()).print("no tokens: `runlet token create NAME --role ROLE` makes one")
}

async fn revoke(session: &Session, id: TokenId) -> Result<(), CliError> {
    session.ask(Call::delete(format!("/v1/tokens/{id}"))).await?;
    if session.json {
        // The API answers without a body; a script still gets one document.
        return output::line(&json!({ "revoked": id }).to_string());
    }
    output::line(&format!("revoked {id}"))
}

fn table(tokens: &[Token], now: clock::Timestamp) -> Table<5> {
    let mut table = Table::new(["ID", "NAME", "ROLE", "STATE", "AGE"]);
    for token in tokens {
        let state = match (token.revoked_at, token.expires_at) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(end)) if end <= now => "expired".to_owned(),
            (None, Some(end)) => format!("good until {}", words::moment(end)),
            (None, None) => "good".to_owned(),
        };
        let age = words::age(token.created_at, now);
        table.row([token.id.to_string(), token.name.clone(), token.role.to_string(), state, age]);
    }
    table
}

fn role(text: &str) -> Result<Role, String> {
    let all: Vec<&str> = Role::ALL.into_iter().map(Role::as_str).collect();
    Role::parse(text).ok_or_else(|| format!("write one of {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use runlet_core::name::Namespace;

    #[test]
    fn the_table_tells_which_tokens_are_good() {
        let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a moment");
        let good = Token {
            id: uuid::Uuid::nil().into(),
            namespace: Namespace::default_namespace(),
            name: "laptop".into(),
            role: Role::Deployer,
            created_at: now - TimeDelta::hours(3),
            expires_at: None,
            revoked_at: None,
        };
        let expired = Token { expires_at: Some(now), ..good.clone() };
        let ending = Token { expires_at: Some(now + TimeDelta::days(1)), ..good.clone() };
        let revoked = Token { revoked_at: Some(now), ..ending.clone() };
        insta::assert_snapshot!(table(&[good, ending, expired, revoked], now).text(), @r"
        ID                              NAME    ROLE      STATE                               AGE
        tok_00000000000000000000000000  laptop  deployer  good                                3h
        tok_00000000000000000000000000  laptop  deployer  good until 2027-01-16 08:00:00 UTC  3h
        tok_00000000000000000000000000  laptop  deployer  expired                             3h
        tok_00000000000000000000000000  laptop  deployer  revoked                             3h
        ");
    }
}
