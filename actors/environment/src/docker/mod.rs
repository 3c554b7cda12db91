//! The back end on the Docker Engine: one container per sandbox, without a network, with
//! limits on everything, ended with everything in it.
//!
//! - [`settings`]: how the engine is asked; what a container may use
//! - [`client`]: every call, each with its deadline
//! - [`base`], [`image`]: images from this machine's files, or a user's own
//! - [`owner`], [`container`]: whose a container is, and what it is made of
//! - [`sandbox`]: a sandbox: opened, used, closed
//!   - `inside`: what is done in a running container
//!   - [`exec`]: one command; [`quiet`]: that nothing of it goes on, and what it used;
//!     [`limit`]: which limit struck
//!   - `terminal`: the shell that lives on beside commands; `spared`: what is not killed
//!     with them
//!   - [`tree`]: the repository as it was seen last; [`archive`], [`pack`]: in and
//!     out; [`sparse`]: trees that claim to be larger than they can be
//!   - [`plan`]: what a patch changes
//! - [`mod@reap`]: what dead processes left
//!
//! The repository comes out as one archive, once after each command that may have changed
//! it, and reading, writing and the diff are answered from that: no path of an agent's is
//! resolved by the host or by the engine, and nothing is unpacked.

pub mod archive;
pub mod base;
pub mod client;
pub mod container;
pub mod exec;
pub mod image;
mod inside;
pub mod limit;
pub mod owner;
pub mod pack;
pub mod plan;
pub mod quiet;
pub mod reap;
pub mod sandbox;
pub mod settings;
mod spared;
pub mod sparse;
mod terminal;
pub mod tree;

pub use client::Engine;
pub use image::Image;
pub use quiet::Usage;
pub use reap::{Reaped, reap};
pub use sandbox::{DockerPlan, DockerSandbox};
pub use settings::{Bounds, EngineSettings};
