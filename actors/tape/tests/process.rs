//! What takes another process: kill -9, the lock, a disk that is full.
//!
//! The other process is this test binary once more, told by an environment variable
//! to be a writer instead.
#![allow(clippy::unwrap_used)]

mod common;

use common::{noise, open, paused};
use gametape_tape::{compact, verify};
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const ROLE: &str = "GAMETAPE_TEST_WRITER";
/// Bytes of each event, when not the mixture.
const SIZE: &str = "GAMETAPE_TEST_SIZE";

/// Not a test: the other process. Appends for ever and prints what was acknowledged.
#[test]
fn the_other_process() {
    let Some(path) = std::env::var_os(ROLE) else {
        return;
    };
    let mut out = std::io::stdout();
    let tape = match open(Path::new(&path)) {
        Ok(tape) => tape,
        Err(error) => {
            writeln!(out, "refused {} {error}", error.code()).unwrap();
            return;
        }
    };
    let fixed = std::env::var(SIZE).map(|size| size.parse::<usize>().unwrap());
    let begin = tape.durable();
    writeln!(out, "opened {begin}").unwrap();
    for n in begin.. {
        // Several frames now and then: all or none of them survive.
        let size = if n % 7 == 3 { 150 } else { 1 };
        let name = |k: u64| format!("{begin}.{n}.{k}.{size}");
        // Some bodies lie in frames, some in files of their own.
        let mixture = if n % 5 == 1 { 40_000 } else { 300 };
        let text = noise(*fixed.as_ref().unwrap_or(&mixture), n);
        let events = (0..size).map(|k| paused((n % 3) as u8, &name(k), &text));
        match tape.append(events.collect()) {
            Ok(done) => writeln!(out, "acknowledged {}", done.last).unwrap(),
            Err(error) => {
                writeln!(out, "stopped {} {error}", error.code()).unwrap();
                let again = tape.append(vec![paused(0, "again", "x")]).unwrap_err();
                writeln!(out, "then {}", again.code()).unwrap();
                break;
            }
        }
    }
    tape.close();
    writeln!(out, "closed").unwrap();
}

fn me(path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "the_other_process", "--nocapture"])
        .env(ROLE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let out = BufReader::new(child.stdout.take().unwrap());
    out.lines().map_while(Result::ok)
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tape");
    let mut acknowledged = None;
    for cycle in 0..12u64 {
        let mut child = me(&path).spawn().unwrap();
        let mut lines = lines(&mut child);
        // Some are killed while they open, most at some moment of writing.
        for _ in 0..cycle * 5 {
            let Some(line) = lines.next() else { break };
            assert!(!line.contains("refused "), "{line}");
            if let Some(seq) = line.strip_prefix("acknowledged ") {
                acknowledged = Some(seq.parse::<u64>().unwrap());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it could still say before it died counts.
        for line in lines {
            if let Some(Ok(seq)) = line.strip_prefix("acknowledged ").map(str::parse) {
                acknowledged = Some(seq);
            }
        }
        if path.join("db").exists() {
            match verify(&path) {
                Ok(found) => assert!(Some(found.events) > acknowledged, "cycle {cycle}"),
                // Killed before the database had its first mark.
                Err(failure) => {
                    assert_eq!(failure.code, "GT-TAPE-NONE", "cycle {cycle}: {failure}");
                    assert_eq!(acknowledged, None, "cycle {cycle}");
                }
            }
        }
    }
    let tape = open(&path).unwrap();
    let all = tape.read(0, usize::MAX).unwrap();
    assert!(all.iter().zip(0..).all(|(record, seq)| record.seq == seq));
    // Requests are whole: the last part of each name says how many there must be.
    let mut requests = std::collections::HashMap::<String, (u64, u64)>::new();
    for record in &all {
        let name = record.event_id.split('#').nth(1).unwrap();
        let parts: Vec<&str> = name.split('.').collect();
        let whole = parts[3].parse().unwrap();
        let entry = requests.entry(parts[..2].join(".")).or_insert((0, whole));
        entry.0 += 1;
    }
    for (name, (found, whole)) in requests {
        assert_eq!(found, whole, "request {name}");
    }
    assert!(all.len() as u64 > acknowledged.unwrap());
    eprintln!("{} events, {acknowledged:?} acknowledged", all.len());
}

#[test]
fn another_process_is_refused_and_told_who_holds_the_tape() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tape");
    let tape = open(&path).unwrap();
    let refused = |path: &Path| {
        let mut child = me(path).spawn().unwrap();
        let found = lines(&mut child).find(|line| line.contains("refused "));
        child.wait().unwrap();
        found
    };
    let line = refused(&path).unwrap();
    assert!(line.contains("GT-TAPE-LOCKED"), "{line}");
    assert!(
        line.contains(&format!("process {} (", std::process::id())),
        "{line}"
    );
    tape.close();
    // And the other way round: held by a process that is then killed.
    let mut child = me(&path).spawn().unwrap();
    // Somebody goes on listening: a process that cannot say what it does ends, and what
    // ends is waited for.
    let mut said = lines(&mut child);
    assert!(said.any(|line| line.contains("opened ")));
    let Err(error) = open(&path) else {
        panic!("opened under another process");
    };
    assert!(
        error
            .to_string()
            .contains(&format!("process {} (", child.id())),
        "{error}"
    );
    assert!(
        error.to_string().contains("the_other_process"),
        "names the command: {error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    open(&path).unwrap();
}

/// Tells by a byte to read when somebody closes a file that they could write to.
fn closings(path: &Path) -> File {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that ends in zero and outlives the calls, and nobody
    // else has the new descriptor.
    unsafe {
        let told = libc::inotify_init1(libc::IN_CLOEXEC);
        assert!(
            told >= 0 && libc::inotify_add_watch(told, path.as_ptr(), libc::IN_CLOSE_WRITE) > 0
        );
        File::from_raw_fd(told)
    }
}

#[test]
fn a_tape_whose_holder_ends_while_another_process_asks_for_it_goes_to_that_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tape");
    let tape = open(&path).unwrap();
    let mut told = closings(&path.join("LOCK"));
    let mut child = me(&path).spawn().unwrap();
    // Its first try was in vain.
    assert!(told.read(&mut [0; 512]).unwrap() > 0);
    tape.close();
    let said = lines(&mut child).find(|line| line.contains("opened ") || line.contains("refused "));
    let said = said.unwrap();
    assert!(said.contains("opened "), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_full_disk_stops_the_writer_and_loses_nothing() {
    fill("a_full_disk_stops_the_writer_and_loses_nothing", None);
}

#[test]
fn a_disk_that_fills_up_with_payloads_keeps_no_half_of_one() {
    fill(
        "a_disk_that_fills_up_with_payloads_keeps_no_half_of_one",
        Some("2000000"),
    );
}

/// Writes until a small disk is full: events of `size` bytes, or the mixture.
fn fill(test: &str, size: Option<&str>) {
    // A small file system of our own, in a name space of our own.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let script = "mount -t tmpfs -o size=14m tmpfs \"$1\" || exit 9; \
                  \"$2\" --exact the_other_process --nocapture; cp -r \"$1/tape\" \"$3\"";
    let mut command = Command::new("unshare");
    if let Some(size) = size {
        command.env(SIZE, size);
    }
    let output = command
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(&small)
        .arg(std::env::current_exe().unwrap())
        .arg(&copy)
        .env(ROLE, small.join("tape"))
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        other => {
            eprintln!("SKIPPED: {test}: no tmpfs: {other:?}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |line: &str| line.strip_prefix("acknowledged ")?.parse::<u64>().ok();
    let acknowledged = text.lines().filter_map(number).max();
    assert!(text.contains("stopped GT-TAPE-FULL"), "{text}");
    assert!(text.contains("then GT-TAPE-STOPPED"), "{text}");
    assert!(text.contains("closed"), "{text}");
    eprintln!("{text}");
    let found = verify(&copy.join("tape")).unwrap();
    assert!(found.payloads > 0, "{found}");
    let done = compact(&copy.join("tape"), true).unwrap();
    let halves = done.removed.iter().filter(|r| r.name.ends_with(".part"));
    assert_eq!(halves.count(), 0, "{done}");
    assert!(
        Some(found.events) > acknowledged,
        "{found} {acknowledged:?}"
    );
}
