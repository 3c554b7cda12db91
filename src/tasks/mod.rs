//! Task sets in and out: files, tables, folders and tapes. What rows mean is decided in
//! [`gametape_schemas::formats`]; here is what touches the disk.
//!
//! - [`read`]: rows of any file, one at a time
//! - [`table`], [`table_write`]: Parquet, with the types of its columns kept
//! - [`folder`]: Harbor's folders and SWE-bench's task repositories
//! - [`item`]: a task, from a row or from a tape
//! - [`source`]: where tasks come from, filters, problems
//! - [`register`]: tasks onto a tape
//! - [`mod@write`]: tasks into files, tables and folders

pub mod folder;
pub mod item;
pub mod read;
pub mod register;
pub mod source;
pub mod table;
pub mod table_write;
pub mod write;

pub use item::Item;
pub use source::{Filter, Place, Problems, Source};

use gametape_schemas::{Failure, FailureKind};
use std::path::Path;

/// A file of tasks that cannot be used as a whole.
pub(crate) fn unusable(path: &Path, reason: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-TASKS-FILE",
        format!("{}: {reason}", path.display()),
    )
    .with_help(
        "give JSON lines, a JSON list or map (also gzipped), a Parquet table, a task folder, \
         a folder of them, or the directory of a run",
    )
}
