//! The official harness, in a virtual environment of its own.

use crate::{HARNESS, Outcome};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `peer.py` prints.
#[derive(Deserialize)]
pub struct Peer {
    /// Of each round.
    pub seconds: Vec<f64>,
    /// Ids, sorted.
    pub resolved: Vec<String>,
}

fn cache() -> Outcome<PathBuf> {
    let from = |name| std::env::var_os(name).map(PathBuf::from);
    from("GAMETAPE_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|path| path.join("gametape")))
        .or_else(|| from("HOME").map(|path| path.join(".cache/gametape")))
        .ok_or("no cache directory".into())
}

fn checked(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let end: Vec<&str> = said.lines().rev().take(3).collect();
        return Err(format!("{command:?}: {}", end.join(" | ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Installs the harness, unless it is there, and runs it.
pub fn run(place: &Path, rounds: usize) -> Outcome<Peer> {
    let venv = cache()?.join("benches").join(HARNESS.replace("==", "-"));
    let python = venv.join("bin/python");
    let done = venv.join("installed");
    if !done.is_file() {
        println!("installing {HARNESS} into {}", venv.display());
        checked(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        checked(Command::new(&python).args(["-m", "pip", "install", "--quiet", HARNESS]))?;
        std::fs::write(&done, "")?;
    }
    let script = place.join("peer.py");
    std::fs::write(&script, include_str!("peer.py"))?;
    let said = checked(
        Command::new(&python)
            .arg(&script)
            .arg(place)
            .arg(rounds.to_string()),
    )?;
    let line = said.lines().last().unwrap_or_default();
    Ok(serde_json::from_str(line)?)
}
