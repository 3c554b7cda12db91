//! The `gametape` program: reads the command line and hands over to the library.

use clap::Parser;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    settle_runtime();
    gametape::commands::run(gametape::cli::Cli::parse())
}

/// Settings that are read before `main`. libtorch's OpenMP threads spin while they wait:
/// on a machine whose few cores also run sandboxes that is ruinous. And the C library's
/// allocator keeps what training frees. So the program sets both and becomes itself
/// again, once.
fn settle_runtime() {
    const NAME: &str = "GOMP_SPINCOUNT";
    if std::env::var_os(NAME).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Only a failure comes back; then it goes on as it is, only slower.
        let _ = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(NAME, "20000")
            // Large tensors go back to the system when they are freed, instead of
            // leaving holes: halves the resident memory after a training.
            .env("MALLOC_ARENA_MAX", "2")
            .env("MALLOC_MMAP_THRESHOLD_", "8388608")
            .env("MALLOC_TRIM_THRESHOLD_", "67108864")
            .exec();
    }
}
