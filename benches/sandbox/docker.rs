//! `docker run` with the smallest image that runs `true`: the program, its libraries and
//! the loader, imported from this machine's own files.

use crate::Outcome;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const NAME: &str = "gametape-benchmark-true";

/// The image, removed when it is dropped.
pub struct Image(());

impl Image {
    /// Makes it, where an Engine answers.
    pub fn make() -> Outcome<Self> {
        let version = Command::new("docker").arg("version").output()?;
        if !version.status.success() {
            return Err("no Engine answers".into());
        }
        let said = Command::new("ldd").arg("/bin/true").output()?.stdout;
        let said = String::from_utf8(said)?;
        let mut files: Vec<PathBuf> = said
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(PathBuf::from)
            .collect();
        files.push("/bin/true".into());
        let mut tar = Command::new("tar")
            .args(["--create", "--dereference", "--file=-", "--directory=/"])
            .args(files.iter().filter_map(|file| file.strip_prefix("/").ok()))
            .stdout(Stdio::piped())
            .spawn()?;
        let content = tar.stdout.take().ok_or("tar has no output")?;
        let import = Command::new("docker")
            .args(["import", "-", NAME])
            .stdin(content)
            .output()?;
        tar.wait()?;
        if !import.status.success() {
            return Err(String::from_utf8_lossy(&import.stderr).trim().into());
        }
        Ok(Self(()))
    }

    /// `docker run --rm … true`.
    pub fn run(&self) -> Outcome<()> {
        let output = Command::new("docker")
            .args(["run", "--rm", "--network", "none", NAME, "/bin/true"])
            .output()?;
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(reason.into())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["image", "rm", "--force", NAME])
            .output();
    }
}
