//! A tape as a Parquet file, a row an event, for DuckDB, pandas, polars and their like;
//! and back.
//!
//! | column | type | what |
//! |---|---|---|
//! | `seq` | unsigned 64 | position on the tape |
//! | `stream` | text | its stream |
//! | `category` | text | the kind of the stream |
//! | `version` | unsigned 64 | position in the stream |
//! | `event_id` | text | name of this very fact |
//! | `causation` | unsigned 64, or none | number of the event that caused it |
//! | `correlation` | text, or none | what it belongs to beyond its stream |
//! | `at` | time in UTC, microseconds | clock reading of the writer |
//! | `type` | text | the type of the event |
//! | `schema` | signed 32 | version of the body |
//! | `body` | JSON | the body |
//! | `exact` | bytes | the event as [`gametape_schemas::codec::encode`] writes it |
//!
//! JSON cannot say everything (a loss that is not a number is `null` in it), so import
//! reads `exact`, and no other column. The key-value metadata hold the content digest
//! ([`DIGEST_KEY`]), the number of events and the version of this table.

mod read;
mod write;

pub use read::Rows;
pub(crate) use write::export_named;
pub use write::{GroupLimits, export};

/// First bytes of a Parquet file.
pub const MAGIC: &[u8; 4] = b"PAR1";
/// Metadata key: [`crate::content_digest`] of the tape.
pub const DIGEST_KEY: &str = "gametape.content_digest";
/// Metadata key: number of events.
pub const EVENTS_KEY: &str = "gametape.events";
/// Metadata key: [`FORMAT`].
pub const FORMAT_KEY: &str = "gametape.format";
/// Newest table that this version reads, and the one that it writes.
pub const FORMAT: u64 = 1;

/// The columns.
const SCHEMA: &str = "message tape {
    required int64 seq (INTEGER(64,false));
    required binary stream (STRING);
    required binary category (STRING);
    required int64 version (INTEGER(64,false));
    required binary event_id (STRING);
    optional int64 causation (INTEGER(64,false));
    optional binary correlation (STRING);
    required int64 at (TIMESTAMP(MICROS,true));
    required binary type (STRING);
    required int32 schema;
    required binary body (JSON);
    required binary exact;
}";
/// The column that import reads.
const EXACT: &str = "exact";
