//! Environments: what an attempt and a grading run live in.
//!
//! Layout, in reading order:
//! - [`provision`]: recipe → prepared directory, once, with the network on
//! - [`archive`]: source archives unpacked without trust
//! - [`tree`]: copies and digests of directory trees
//! - [`patch`]: unified diffs onto a tree, whole or not at all
//! - [`diff`]: what an agent changed, computed here and never by its tree's own git
//! - [`local`]: the back end on bubblewrap: no daemon, no network, another uid
//! - [`inner`]: the last step inside: rlimits, Landlock, seccomp, then the command
//! - [`files`]: reading and writing below a tree that may hold hostile links
//! - [`probe`]: which layers this machine has
//! - [`actor`]: messages in front of it all
//!
//! **Not here:** what is run and what its output means.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod archive;
pub mod diff;
pub mod files;
pub mod inner;
pub mod local;
pub mod patch;
pub mod probe;
pub mod provision;
pub mod tree;

pub use actor::{EnvironmentActor, EnvironmentOptions};
pub use probe::{Layer, probe};
