//! Environments: what an attempt and a grading run live in.
//!
//! Layout, in reading order:
//! - [`provision`]: recipe → prepared directory, once, with the network on
//! - [`archive`]: source archives unpacked without trust
//! - [`tree`]: small trees in memory, written and read without trust
//! - [`patch`]: unified diffs onto a tree, whole or not at all
//! - [`diff`]: what an agent changed, computed here and never by its tree's own git
//! - [`sandbox`]: what every back end can do
//! - [`local`]: the back end on bubblewrap: no daemon, no network, another uid
//!   - [`bubblewrap`]: its command line: what a sandbox can see
//!   - [`process`]: one command: started, drained, killed at its limit
//!   - [`protocol`], [`output`]: words with the helper inside; what is kept of a stream
//!   - [`inner`]: the helper: rlimits, Landlock, seccomp, then the command
//!   - [`private`]: directories, and what dead processes left of theirs
//! - [`docker`]: the back end on the Docker Engine: one container per sandbox
//! - [`files`]: reading and writing below a tree that may hold hostile links
//! - [`mod@probe`]: which layers this machine has
//! - [`actor`]: messages in front of it all
//! - [`failure`]: codes and words of what can go wrong
//!
//! **Not here:** what is run and what its output means. No host program ever runs on a
//! tree that an agent touched.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod archive;
pub mod bubblewrap;
pub mod diff;
pub mod docker;
pub mod failure;
pub mod files;
pub mod inner;
pub mod local;
pub mod output;
pub mod patch;
pub mod private;
pub mod probe;
pub mod process;
pub mod protocol;
pub mod provision;
pub mod sandbox;
pub mod tree;

pub use actor::{EnvironmentActor, EnvironmentOptions, helper_beside};
pub use probe::{Layer, probe};
pub use protocol::Limits;
