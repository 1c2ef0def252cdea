//! Writing: answers to stdout, everything else to stderr; tables and fields in plain columns.
//!
//! Text that came from functions or senders of webhooks is cleaned of control characters before a terminal sees it;
//! results and logs are bytes and pass as they are.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use super::errors::CliError;

/// Writes bytes to stdout as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::StdoutClosed,
        _ => CliError::Stdout(error),
    })
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a document to stdout as it is, ended by a newline.
pub(crate) fn document(document: &[u8]) -> Result<(), CliError> {
    bytes(document)?;
    if document.ends_with(b"\n") { Ok(()) } else { bytes(b"\n") }
}

/// Writes a result to stdout as it is; a terminal gets a newline after it, so that the prompt stands on its own line.
pub(crate) fn result(result: &[u8]) -> Result<(), CliError> {
    bytes(result)?;
    if io::stdout().is_terminal() && !result.is_empty() && !result.ends_with(b"\n") { bytes(b"\n") } else { Ok(()) }
}

/// Writes bytes to stderr as they are. Where stderr is gone there is nobody to tell.
pub(crate) fn bytes_to_stderr(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Writes text to stderr.
pub(crate) fn to_stderr(text: &str) {
    bytes_to_stderr(text.as_bytes());
}

/// Writes a line about what happens to stderr.
pub(crate) fn note(text: &str) {
    to_stderr(&format!("{}\n", clean(text)));
}

/// `error:`, red where that can be seen and is not unwelcome.
pub(crate) fn error_word() -> &'static str {
    let unwelcome = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stderr().is_terminal() && !unwelcome { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" }
}

/// The text with its control characters (but newlines and tabs) written out, so that it cannot steer a terminal.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            clean.extend(c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// One line of it.
fn cell(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

/// Rows in columns as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with these headings and no row.
    pub(crate) fn new(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|text| cell(&text)));
    }

    /// The table as text; nothing at all without a row.
    pub(crate) fn text(&self) -> String {
        if self.rows.len() < 2 {
            return String::new();
        }
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints the table; without a row, says `nothing` on stderr.
    pub(crate) fn print(&self, nothing: &str) -> Result<(), CliError> {
        if self.rows.len() < 2 {
            note(nothing);
        }
        bytes(self.text().as_bytes())
    }
}

/// Names and values of one thing, one a line.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    rows: Vec<(&'static str, String)>,
}

impl Fields {
    /// Adds a field.
    pub(crate) fn add(&mut self, name: &'static str, value: impl ToString) {
        self.rows.push((name, value.to_string()));
    }

    /// Adds a field if there is a value.
    pub(crate) fn add_if(&mut self, name: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// The fields as text; further lines of a value stand below its first.
    pub(crate) fn text(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &self.rows {
            let mut name = format!("{name}:");
            for line in clean(value).split('\n') {
                let line = format!("{name:<width$}  {line}");
                text.push_str(line.trim_end());
                text.push('\n');
                name.clear();
            }
        }
        text
    }

    /// Prints them.
    pub(crate) fn print(&self) -> Result<(), CliError> {
        bytes(self.text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "STATE", "AGE"]);
        table.row(["a".into(), "running".into(), "1s".into()]);
        table.row(["größer-als".into(), "ok".into(), String::new()]);
        insta::assert_snapshot!(table.text(), @r"
        NAME        STATE    AGE
        a           running  1s
        größer-als  ok
        ");
    }

    #[test]
    fn an_empty_table_is_no_output() {
        assert_eq!(Table::new(["A"]).text(), "");
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal_or_break_its_line() {
        let mut table = Table::new(["EVENT"]);
        table.row(["push\u{1b}]0;x\u{7}\nsecond".into()]);
        insta::assert_snapshot!(table.text(), @r"
        EVENT
        push\u{1b}]0;x\u{7} second
        ");
    }

    #[test]
    fn fields_are_aligned_and_may_have_several_lines() {
        let mut fields = Fields::default();
        fields.add("id", "exe_1");
        fields.add("outcome", "error\n  ValueError: x");
        fields.add_if("sandbox", None::<&str>);
        insta::assert_snapshot!(fields.text(), @r"
        id:       exe_1
        outcome:  error
                    ValueError: x
        ");
    }
}
