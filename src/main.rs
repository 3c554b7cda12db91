//! The `gametape` program: reads the command line and hands over to the library.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    gametape::commands::run(gametape::cli::Cli::parse())
}
