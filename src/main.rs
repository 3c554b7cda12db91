//! The `gametape` program: reads the command line and hands over to the library.

use clap::Parser;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    calm_openmp();
    gametape::commands::run(gametape::cli::Cli::parse())
}

/// libtorch's OpenMP threads spin while they wait. On a machine whose few cores also run
/// sandboxes that is ruinous, and the runtime reads its settings when it is loaded,
/// before `main`: so the program sets them and becomes itself again, once.
fn calm_openmp() {
    const NAME: &str = "GOMP_SPINCOUNT";
    if std::env::var_os(NAME).is_some() || std::env::var_os("OMP_WAIT_POLICY").is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Only a failure comes back; then it goes on as it is, only slower.
        let _ = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(NAME, "20000")
            .exec();
    }
}
