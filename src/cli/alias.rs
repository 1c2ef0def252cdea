//! `runlet alias`: names that point at revisions of a function.

use std::str::FromStr;

use clap::{Args, Subcommand};
use runlet_core::name::{AliasName, FunctionName};
use runlet_core::store::alias::{Alias, MOST_WEIGHT};
use runlet_core::target::{Target, Which};
use serde_json::{Value, json};

use super::errors::CliError;
use super::output::{self, Table};
use super::page::{Listing, Rows};
use super::revision::{self, Wanted};
use super::session::{Session, field};
use crate::client::Call;

/// What `alias` takes.
#[derive(Debug, Args)]
pub(crate) struct AliasArgs {
    #[command(subcommand)]
    verb: AliasVerb,
}

#[derive(Debug, Subcommand)]
enum AliasVerb {
    /// Point an alias at a revision, or at several with weights
    #[command(after_help = "\
What is given replaces what the alias pointed at. With several revisions each invocation gets one by weight and chance; which
one ran is on record with the execution.

Examples:
  runlet alias set on-push@live current               what is current now, whatever is deployed later
  runlet alias set on-push@live 3f2a91c0=95 current=5   a canary of 5 %
  runlet invoke on-push@live --data @push.json")]
    Set {
        /// The alias
        #[arg(value_name = "NAME@ALIAS")]
        alias: Aliased,
        /// `current`, a revision or the beginning of one; =WEIGHT from 1 to 10000 where there are several
        #[arg(required = true, value_name = "REVISION[=WEIGHT]")]
        revisions: Vec<Weighted>,
    },
    /// List the aliases of a function
    #[command(after_help = "\
Examples:
  runlet alias ls on-push
  runlet alias ls on-push --json")]
    Ls {
        /// Name of the function
        name: FunctionName,
    },
    /// Remove an alias; the revisions stay
    #[command(after_help = "\
Examples:
  runlet alias rm on-push@live")]
    Rm {
        /// The alias
        #[arg(value_name = "NAME@ALIAS")]
        alias: Aliased,
    },
}

/// `NAME@ALIAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Aliased {
    function: FunctionName,
    name: AliasName,
}

impl FromStr for Aliased {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target: Target = text.parse().map_err(|error: runlet_core::name::BadName| error.to_string())?;
        match target.which {
            Which::Alias(name) => Ok(Self { function: target.function, name }),
            _ => Err("write the function and the alias, for example on-push@live".to_owned()),
        }
    }
}

impl Aliased {
    fn path(&self) -> String {
        format!("/v1/functions/{}/aliases/{}", self.function, self.name)
    }
}

/// `REVISION` or `REVISION=WEIGHT`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Weighted {
    revision: Wanted,
    weight: u32,
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (revision, weight) = match text.split_once('=') {
            None => (text, 1),
            Some((revision, weight)) => {
                let number = weight.parse().ok().filter(|weight| (1..=MOST_WEIGHT).contains(weight));
                (revision, number.ok_or_else(|| format!("`{weight}` is no weight; write 1 to {MOST_WEIGHT}"))?)
            }
        };
        Ok(Self { revision: revision.parse()?, weight })
    }
}

/// Sets, lists or removes.
pub(crate) async fn run(session: &Session, args: &AliasArgs) -> Result<(), CliError> {
    match &args.verb {
        AliasVerb::Set { alias, revisions } => set(session, alias, revisions).await,
        AliasVerb::Ls { name } => list(session, name).await,
        AliasVerb::Rm { alias } => remove(session, alias).await,
    }
}

async fn set(session: &Session, alias: &Aliased, wanted: &[Weighted]) -> Result<(), CliError> {
    let known = revision::list(session, &alias.function).await?.read()?;
    let mut shares: Vec<Value> = Vec::new();
    for one in wanted {
        let digest = revision::find(&one.revision, &alias.function, &known)?;
        shares.push(json!({ "revision": digest, "weight": one.weight }));
    }
    let body = json!({ "revisions": shares }).to_string();
    let answer = session.ask(Call::put(alias.path()).header("content-type", "application/json").body(body)).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let now: Alias = field(&answer, "alias")?;
    output::line(&format!("{}@{} -> {}", now.function, now.name, told(&now)))
}

async fn list(session: &Session, function: &FunctionName) -> Result<(), CliError> {
    let listing = Listing { key: "aliases", cursor: "after" };
    let call = || Call::get(format!("/v1/functions/{function}/aliases"));
    let rows = Rows::fetch(session, listing, usize::MAX, call).await?;
    if session.json {
        return rows.print_json();
    }
    let mut table = Table::new(["ALIAS", "REVISIONS"]);
    for alias in rows.read::<Alias>()? {
        table.row([alias.name.to_string(), told(&alias)]);
    }
    table.print(&format!("no aliases: `runlet alias set {function}@live current` makes one"))
}

async fn remove(session: &Session, alias: &Aliased) -> Result<(), CliError> {
    session.ask(Call::delete(alias.path())).await?;
    let name = format!("{}@{}", alias.function, alias.name);
    if session.json {
        // The API answers without a body; a script still gets one document.
        return output::line(&json!({ "removed": name }).to_string());
    }
    output::line(&format!("removed {name}"))
}

/// Where an alias points: the revision alone, or each with its share.
fn told(alias: &Alias) -> String {
    if let [only] = &alias.revisions[..] {
        return only.revision.short().to_owned();
    }
    let total: u64 = alias.revisions.iter().map(|share| u64::from(share.weight)).sum();
    let share = |weight: u32| {
        let tenths = u64::from(weight) * 1000 / total.max(1);
        format!("{}.{} %", tenths / 10, tenths % 10)
    };
    let all = alias.revisions.iter().map(|one| format!("{} {}", one.revision.short(), share(one.weight)));
    all.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_weights_are_read_as_typed() {
        assert!("f@live".parse::<Aliased>().is_ok());
        for text in ["f", "f@", "@live", &format!("f@sha256:{}", "a".repeat(64))] {
            assert!(text.parse::<Aliased>().is_err(), "{text}");
        }
        let one = |text: &str| text.parse::<Weighted>().map(|one| (one.revision.to_string(), one.weight)).ok();
        assert_eq!(one("current"), Some(("current".to_owned(), 1)));
        assert_eq!(one("abcd=95"), Some(("abcd".to_owned(), 95)));
        for text in ["abcd=0", "abcd=x", "abcd=10001", "abcd=", "=1"] {
            assert_eq!(one(text), None, "{text}");
        }
    }
}
