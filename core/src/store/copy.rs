//! Rows for `COPY … FROM STDIN (FORMAT binary)`, the quickest way into a table for rows that are new (PostgreSQL documentation, `COPY`,
//! "Binary Format").
//!
//! Nothing checks the rows against the table when they are compiled: Postgres refuses what does not fit its columns.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgTypeInfo, Postgres};
use sqlx::types::Type;

/// Signature, flags, and length of an extension that is not there.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of the number of columns: no row follows.
const END: i16 = -1;
/// In place of a length.
const NULL: i32 = -1;

/// Rows of one table.
#[derive(Debug)]
pub(super) struct Rows(PgArgumentBuffer);

impl Rows {
    /// No rows yet, and room for so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut buffer = PgArgumentBuffer::default();
        buffer.reserve(bytes);
        buffer.extend_from_slice(HEADER);
        Self(buffer)
    }

    /// Begins a row of so many columns.
    pub(super) fn row(&mut self, columns: i16) {
        self.0.extend_from_slice(&columns.to_be_bytes());
    }

    /// The next column of the row.
    ///
    /// # Errors
    /// When the value is too large for any column.
    pub(super) fn put<'q>(&mut self, value: impl Encode<'q, Postgres>) -> Result<(), BoxDynError> {
        let start = self.0.len();
        self.0.extend_from_slice(&NULL.to_be_bytes());
        if let IsNull::No = value.encode(&mut self.0)? {
            let length = i32::try_from(self.0.len() - start - size_of_val(&NULL))?;
            self.0[start..start + size_of_val(&NULL)].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    /// Has `statement`, which names table and columns, take the rows.
    ///
    /// # Errors
    /// What Postgres says; then none of them is taken.
    pub(super) async fn copy(mut self, statement: &str, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.0.extend_from_slice(&END.to_be_bytes());
        let mut copy = connection.copy_in_raw(statement).await?;
        copy.send(self.0.as_slice()).await?;
        copy.finish().await.map(drop)
    }
}

/// JSON as a value of a `jsonb` column.
#[derive(Debug)]
pub(super) struct Jsonb<'a>(pub(super) &'a str);

impl Type<Postgres> for Jsonb<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("jsonb")
    }
}

impl Encode<'_, Postgres> for Jsonb<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // The version of the format.
        buffer.push(1);
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}
