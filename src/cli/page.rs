//! Lists: pages fetched one after the other until there are enough rows or no more.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::errors::CliError;
use super::output;
use super::session::Session;
use crate::client::Call;

/// Most rows that the API gives in one answer.
const PAGE_MAX: usize = 1000;

/// A list as the API tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// Key of the rows in the answer.
    pub(crate) key: &'static str,
    /// Parameter that takes the `next` of the page before.
    pub(crate) cursor: &'static str,
}

/// Rows, each as the server wrote it.
#[derive(Debug)]
pub(crate) struct Rows {
    listing: Listing,
    rows: Vec<Box<RawValue>>,
    next: Option<String>,
}

impl Rows {
    /// Fetches up to `limit` rows; `call` makes the request of a page, without cursor and limit.
    pub(crate) async fn fetch(
        session: &Session,
        listing: Listing,
        limit: usize,
        call: impl Fn() -> Call,
    ) -> Result<Self, CliError> {
        let mut all = Self { listing, rows: Vec::new(), next: None };
        loop {
            let wanted = limit.saturating_sub(all.rows.len()).min(PAGE_MAX);
            let page = call().query("limit", wanted).query_if(listing.cursor, all.next.as_deref());
            let came = all.take(&session.ask(page).await?.body)?;
            if came == 0 || all.next.is_none() || all.rows.len() >= limit {
                return Ok(all);
            }
        }
    }

    /// Takes the rows of a page; returns how many came.
    fn take(&mut self, body: &[u8]) -> Result<usize, CliError> {
        let strange = |error: serde_json::Error| CliError::StrangeAnswer { status: 200, why: error.to_string() };
        let page: HashMap<String, Box<RawValue>> = serde_json::from_slice(body).map_err(strange)?;
        let Some(rows) = page.get(self.listing.key) else {
            return Err(CliError::StrangeAnswer { status: 200, why: format!("it has no `{}`", self.listing.key) });
        };
        let rows: Vec<Box<RawValue>> = serde_json::from_str(rows.get()).map_err(strange)?;
        let came = rows.len();
        self.rows.extend(rows);
        self.next = match page.get("next") {
            Some(next) => serde_json::from_str(next.get()).map_err(strange)?,
            None => None,
        };
        Ok(came)
    }

    /// The rows, read.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, CliError> {
        let strange = |error: serde_json::Error| CliError::StrangeAnswer { status: 200, why: error.to_string() };
        self.rows.iter().map(|row| serde_json::from_str(row.get()).map_err(strange)).collect()
    }

    /// One document in the API's shape, with all rows in it.
    fn document(&self) -> String {
        let rows: Vec<&str> = self.rows.iter().map(|row| row.get()).collect();
        let next = self.next.as_ref().map(|next| format!(",\"next\":{}", serde_json::Value::from(next.as_str())));
        format!("{{\"{}\":[{}]{}}}", self.listing.key, rows.join(","), next.unwrap_or_default())
    }

    /// Prints that document.
    pub(crate) fn print_json(&self) -> Result<(), CliError> {
        output::line(&self.document())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_one_document_with_the_rows_untouched() {
        let listing = Listing { key: "functions", cursor: "after" };
        let mut rows = Rows { listing, rows: Vec::new(), next: None };
        assert_eq!(rows.take(br#"{"functions":[{"b":1.50,"a":[ ]}],"next":"x"}"#).expect("a page"), 1);
        assert_eq!(rows.next.as_deref(), Some("x"));
        assert_eq!(rows.take(br#"{"functions":[2,3],"next":null}"#).expect("a page"), 2);
        assert_eq!(rows.document(), r#"{"functions":[{"b":1.50,"a":[ ]},2,3]}"#);
        rows.next = Some("\"".into());
        assert!(rows.document().ends_with(r#","next":"\""}"#));
    }

    #[test]
    fn a_page_without_rows_is_not_understood() {
        let mut rows = Rows { listing: Listing { key: "tokens", cursor: "before" }, rows: Vec::new(), next: None };
        assert!(rows.take(b"{}").is_err());
        assert!(rows.take(b"[]").is_err());
    }
}
