//! Environments: what an attempt and a grading run live in.
//!
//! Layout, in reading order:
//! - [`provision`]: recipe → prepared directory, once, with the network on
//! - [`archive`]: source archives unpacked without trust
//! - [`tree`]: small trees in memory, written and read without trust
//! - [`patch`]: unified diffs onto a tree, whole or not at all
//! - [`diff`]: what an agent changed, computed here and never by its tree's own git
//! - [`sandbox`]: what every back end can do
//! - [`state`]: the base state, what is a change of it, what is left out of it
//! - [`root_commit`]: a history of one commit, for agents that want git
//! - [`local`]: the local back end: no daemon, no network, another uid
//!   - [`bubblewrap`]: what a sandbox can see, as bubblewrap's command line
//!   - [`starter`]: who makes it so: bubblewrap, or the helper itself
//!   - [`warden`], [`ground`], [`upper`]: the thread that its life and its mounts are tied
//!     to; limited space and an overlay over the prepared tree; what was written there
//!   - [`inside`]: the sandbox that is up: commands started, drained, killed at their limit
//!   - [`protocol`], [`packets`], [`output`]: words with the helper inside, and how they
//!     travel; what is kept of a stream
//!   - [`inner`]: the helper: rlimits, Landlock, seccomp, then the command; where there is
//!     no bubblewrap, namespaces and mounts before them
//!   - [`detached`]: mounts by descriptor
//!   - [`private`]: directories, and what dead processes left of theirs
//! - [`cgroup`]: limits on all of a sandbox together, from a pool of slots
//! - [`shell`]: a bash that lives as long as an attempt, over any terminal
//! - [`docker`]: the back end on the Docker Engine: one container per sandbox
//! - [`files`]: reading and writing below a tree that may hold hostile links
//! - [`packages`]: those of the host's interpreters, to be hidden
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
pub mod cgroup;
pub mod detached;
pub mod diff;
pub mod docker;
pub mod failure;
pub mod files;
pub mod ground;
pub mod inner;
pub mod inside;
pub mod local;
pub mod output;
pub mod packages;
pub mod packets;
pub mod patch;
pub mod private;
pub mod probe;
pub mod protocol;
pub mod provision;
pub mod root_commit;
pub mod sandbox;
pub mod shell;
pub mod starter;
pub mod state;
pub mod tree;
pub mod upper;
pub mod warden;

pub use actor::{Backend, EnvironmentActor, EnvironmentOptions, helper_beside};
pub use probe::{Layer, probe};
pub use protocol::Limits;
