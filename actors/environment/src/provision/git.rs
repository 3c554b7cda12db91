//! A commit of a git repository, as files: fetched alone, by the system's git, into a
//! bare repository that is thrown away. No history is taken, no filter, attribute or hook
//! of the repository's has a say, and nothing is checked out by git.

use super::Job;
use super::refused::{Refused, is_the_machines_fault, is_the_networks_fault};
use crate::{failure, root_commit, tree};
use gametape_schemas::Failure;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Files of a repository at most.
const MAX_FILES: usize = 50_000;
/// Bytes of a repository's files at most.
const MAX_BYTES: u64 = 1 << 30;
/// Settings of every call: which ways lead out, and that nothing waits for ever.
const SETTINGS: [&str; 7] = [
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=always",
    "credential.helper=",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];
/// What of our environment a fetch may need.
const PASSED: [&str; 10] = [
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// Writes the files of a commit into the new directory `repository`.
pub(super) fn fetch(
    job: &Job<'_>,
    url: &str,
    commit: &str,
    repository: &Path,
) -> Result<(), Refused> {
    let no = |why: &str| failure::source(url, why);
    check_url(url).map_err(&no)?;
    check_commit(commit).map_err(&no)?;
    let git = Git {
        directory: job.half.join("git"),
        url,
    };
    let io = |e: io::Error| failure::disk(&job.half, &e);
    std::fs::create_dir(&git.directory).map_err(io)?;
    git.get(commit)?;
    let entries = git.entries(commit)?;
    git.write(&entries, repository)?;
    std::fs::remove_dir_all(&git.directory).map_err(io)?;
    Ok(())
}

/// Only what leads to a repository by ways that we know. Pure.
fn check_url(url: &str) -> Result<(), &'static str> {
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) || url.contains("::") {
        return Err("its address holds characters that no address has");
    }
    if url.starts_with('/') || url.starts_with("file:///") {
        return Ok(());
    }
    let host = match url.split_once("://") {
        Some(("https" | "ssh", rest)) => rest.split('/').next().unwrap_or_default(),
        Some(_) => return Err("only https, ssh and file are fetched from"),
        // `user@host:path`, as ssh has it.
        None => match url.split_once(':') {
            Some((host, path)) if host.contains('@') && !path.is_empty() => host,
            _ => return Err("its address is neither a URL nor an absolute path"),
        },
    };
    let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
    if user.contains(':') {
        return Err("a password does not belong into a recipe");
    }
    if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
        return Err("its address names no host");
    }
    Ok(())
}

/// A full object name. Pure.
fn check_commit(commit: &str) -> Result<(), &'static str> {
    let is_hex = commit
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match (is_hex, commit.len()) {
        (true, 40 | 64) => Ok(()),
        _ => Err("a commit is named by its full object name, 40 or 64 lower-case digits"),
    }
}

/// One file of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    executable: bool,
    object: String,
    path: String,
}

/// Files in what `git ls-tree -r -z` prints. Links have no place in a tree of ours, as in
/// source archives. Pure.
fn parse(listing: &[u8]) -> Result<Vec<Entry>, String> {
    let mut out = Vec::new();
    for line in listing.split(|byte| *byte == 0).filter(|l| !l.is_empty()) {
        let line = std::str::from_utf8(line).map_err(|_| "a name in it is not UTF-8".to_owned())?;
        let (head, path) = line.split_once('\t').ok_or("its list of files is torn")?;
        let mut words = head.split(' ');
        let (mode, _, object) = (words.next(), words.next(), words.next());
        let object = object.unwrap_or_default();
        let executable = match mode {
            Some("100644" | "100664") => false,
            Some("100755") => true,
            Some("120000") => {
                tracing::warn!(path, "a symbolic link is left out of the repository");
                continue;
            }
            Some("160000") => {
                return Err(format!(
                    "`{path}` is a submodule, and those are not fetched"
                ));
            }
            _ => return Err(format!("`{path}` is of an unknown kind")),
        };
        let is_plain = path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(".git"));
        if !is_plain {
            return Err(format!("`{path}` is no name of a file in a repository"));
        }
        out.push(Entry {
            executable,
            object: object.to_owned(),
            path: path.to_owned(),
        });
    }
    match out.len() {
        0 => Err("the commit holds no files".to_owned()),
        1..=MAX_FILES => Ok(out),
        _ => Err(format!("the commit holds more than {MAX_FILES} files")),
    }
}

/// A bare repository of ours, filled from elsewhere.
struct Git<'a> {
    directory: std::path::PathBuf,
    url: &'a str,
}

impl Git<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = root_commit::command(&self.directory);
        for name in PASSED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("GIT_ALLOW_PROTOCOL", "https:ssh:file")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=30")
            .env("GIT_ASKPASS", "true")
            .stdin(Stdio::null());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(words);
        command
    }

    fn failed(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound => failure::no_git(),
            _ => failure::git(error),
        }
    }

    /// What a call printed; or what it said, and whether it would say so again.
    fn said(&self, words: &[&str]) -> Result<Vec<u8>, Refused> {
        let output = self.command(words).output().map_err(|e| self.failed(&e))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lasting = ["not our ref", "unadvertised object"];
        Err(Refused {
            lasting: lasting.iter().any(|words| said.contains(words)),
            failure: failure::source(self.url, said.trim()),
        })
    }

    /// Fetches one commit and nothing that it came from.
    fn get(&self, commit: &str) -> Result<(), Refused> {
        let format = if commit.len() == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        self.said(&["init", "--quiet", "--bare", "--template=", &format])?;
        let shallow = [
            "--quiet",
            "--no-tags",
            "--depth=1",
            "--no-recurse-submodules",
        ];
        let fetch = [&["fetch"], &shallow[..], &["--", self.url, commit]].concat();
        let fetched = self.said(&fetch).or_else(|refused| {
            if !refused.failure.message.contains("unadvertised object") {
                return Err(refused);
            }
            // An old server names branches only: those, whole, for the time being.
            let branches = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
            let all = "+refs/heads/*:refs/all/*";
            self.said(&[&branches[..], &["--", self.url, all]].concat())
        });
        fetched.map_err(|refused| self.in_words(refused, commit))?;
        // Objects are named by their content: what has this name is this commit.
        match self.said(&["cat-file", "-t", commit]) {
            Ok(kind) if kind.trim_ascii() == b"commit" => Ok(()),
            Ok(kind) => Err(Refused {
                lasting: true,
                failure: failure::source(
                    self.url,
                    format!("{commit} is a {}", String::from_utf8_lossy(&kind).trim()),
                ),
            }),
            Err(_) => Err(self.unknown(commit)),
        }
    }

    fn unknown(&self, commit: &str) -> Refused {
        Refused {
            lasting: true,
            failure: failure::source(self.url, format!("it has no commit {commit}")),
        }
    }

    fn in_words(&self, refused: Refused, commit: &str) -> Refused {
        let said = &refused.failure.message;
        if said.contains("not our ref") {
            return self.unknown(commit);
        }
        Refused {
            lasting: refused.lasting
                && !is_the_networks_fault(said)
                && !is_the_machines_fault(said),
            ..refused
        }
    }

    fn entries(&self, commit: &str) -> Result<Vec<Entry>, Refused> {
        let listing = self.said(&["ls-tree", "-r", "-z", "--full-tree", commit])?;
        parse(&listing).map_err(|why| Refused {
            lasting: true,
            failure: failure::source(self.url, why),
        })
    }

    /// Writes files out of the objects, without git's ideas of line ends and filters.
    fn write(&self, entries: &[Entry], repository: &Path) -> Result<(), Refused> {
        let mut child = self
            .command(&["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| self.failed(&e))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (Some(mut to), Some(from)) = (to, from) else {
            return Err(failure::git("no streams").into());
        };
        let written = std::thread::scope(|scope| {
            scope.spawn(move || {
                // The reader tells what went wrong.
                for entry in entries {
                    if writeln!(to, "{}", entry.object).is_err() {
                        break;
                    }
                }
            });
            unpack(&mut BufReader::new(from), entries, repository)
        });
        let ended = child.wait();
        written.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Refused {
                lasting: true,
                failure: failure::source(self.url, error),
            },
            _ => failure::disk(repository, &error).into(),
        })?;
        ended.map_err(|e| self.failed(&e))?;
        Ok(())
    }
}

/// Reads what `git cat-file --batch` gives, in the order in which it was asked.
fn unpack(from: &mut impl BufRead, entries: &[Entry], repository: &Path) -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    std::fs::create_dir(repository)?;
    let mut all = 0u64;
    for entry in entries {
        let mut head = String::new();
        from.read_line(&mut head)?;
        let mut words = head.trim_end().split(' ');
        let (object, kind) = (words.next(), words.next());
        let size = words.next().and_then(|size| size.parse::<u64>().ok());
        let (Some("blob"), Some(size)) = (kind, size) else {
            return Err(invalid("an object of the commit is missing"));
        };
        if object != Some(&entry.object) {
            return Err(invalid("git gave another object"));
        }
        all += size;
        if all > MAX_BYTES {
            return Err(invalid("the repository is too large"));
        }
        let to = repository.join(&entry.path);
        if size > tree::MAX_FILE {
            // Nothing that large is source; sandboxes do not get it.
            io::copy(&mut from.by_ref().take(size + 1), &mut io::sink())?;
            continue;
        }
        let mut bytes = Vec::new();
        from.by_ref().take(size + 1).read_to_end(&mut bytes)?;
        if bytes.pop() != Some(b'\n') || bytes.len() as u64 != size {
            return Err(invalid("git ended early"));
        }
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&to, bytes)?;
        let mode = if entry.executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&to, PermissionsExt::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_lead_to_repositories_only() {
        for good in [
            "https://example.org/a/b.git",
            "https://token@example.org/a",
            "ssh://git@example.org:22/a",
            "git@example.org:a/b.git",
            "/srv/git/a",
            "file:///srv/git/a",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "ext::sh -c touch% /tmp/x",
            "ext::sh",
            "http://example.org/a",
            "git://example.org/a",
            "ftp://example.org/a",
            "file://host/a",
            "--upload-pack=touch",
            "-oProxyCommand=x",
            "ssh://-oProxyCommand=x/a",
            "-x@example.org:a",
            "git@-oProxyCommand=x:a",
            "https://user:secret@example.org/a",
            "https:///a",
            "relative/path",
            "../up",
            "",
            "https://example.org/a\nb",
            "fd::3",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_full_names_are_commits() {
        assert!(check_commit(&"a1".repeat(20)).is_ok() && check_commit(&"0".repeat(64)).is_ok());
        for bad in [
            "",
            "main",
            "HEAD",
            "abc123",
            "--all",
            &"A".repeat(40),
            &"a".repeat(41),
        ] {
            assert!(check_commit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_of_files_is_read_and_doubted() {
        let object = "b".repeat(40);
        let line = |mode: &str, path: &str| format!("{mode} blob {object}\t{path}\0");
        let good = line("100644", "a b.py") + &line("100755", "d/run") + &line("120000", "l");
        let found = parse(good.as_bytes()).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[1].executable && found[1].path == "d/run" && found[0].object == object);
        let refused = |text: String| parse(text.as_bytes()).unwrap_err();
        assert!(refused(line("160000", "vendor/x")).contains("submodule"));
        for path in [
            "../x",
            "/etc/x",
            "a//b",
            ".git/config",
            "d/.GIT/hooks/x",
            "./a",
        ] {
            assert!(refused(line("100644", path)).contains("no name"), "{path}");
        }
        assert!(refused(String::new()).contains("no files"));
        assert!(parse(b"100644 blob x\t\xff\0").is_err());
    }

    proptest! {
        #[test]
        fn any_list_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(entries) = parse(&bytes) {
                prop_assert!(entries.iter().all(|entry| !entry.path.contains("..")
                    || !entry.path.split('/').any(|part| part == "..")));
            }
        }

        #[test]
        fn any_answer_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let directory = tempfile::tempdir().unwrap();
            let entry = Entry { executable: false, object: "b".into(), path: "a".into() };
            let _ = unpack(&mut bytes.as_slice(), &[entry], &directory.path().join("r"));
        }
    }
}
