//! Sandboxes by each starter in one process: what is visible, who is who, and what ends
//! with what. Skips loudly where a starter does not work.

#![allow(clippy::unwrap_used)]

use gametape_environment::bubblewrap::Host;
use gametape_environment::inner::stage::STAGE;
use gametape_environment::inside::Inside;
use gametape_environment::local::{LocalSandbox, OpenPlan};
use gametape_environment::provision::{Manifest, Prepared, python};
use gametape_environment::sandbox::Sandbox;
use gametape_environment::starter::{self, Choice};
use gametape_environment::tree::{self, Entry, Snapshot};
use gametape_environment::warden::Warden;
use gametape_environment::{Limits, helper_beside, probe};
use gametape_schemas::message::Exec;
use gametape_schemas::{EnvironmentRecipe, PinnedPackage, SandboxId};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

const BOTH: [Choice; 2] = [Choice::Bubblewrap, Choice::Namespaces];

fn helper() -> PathBuf {
    helper_beside(&std::env::current_exe().unwrap()).unwrap()
}

fn host(test: &str, choice: Choice) -> Option<Host> {
    let host = probe::host_by(choice);
    host.inspect_err(|failure| eprintln!("SKIPPED: {test}: {choice:?}: {failure}"))
        .ok()
}

/// An open sandbox over a repository of one file, and the directory that it lies in.
fn open(test: &str, choice: Choice) -> Option<(TempDir, LocalSandbox)> {
    let host = host(test, choice)?;
    let interpreter = match python::interpreter() {
        Ok(interpreter) => interpreter,
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            return None;
        }
    };
    let place = tempfile::tempdir().unwrap();
    let environment = place.path().join("environment");
    std::fs::create_dir_all(environment.join("venv")).unwrap();
    let files = Snapshot::from([("a.py".to_owned(), Entry::plain(b"x = 1\n"))]);
    tree::write(&environment.join("tree"), &files, None).unwrap();
    let manifest = Manifest {
        layout: 0,
        recipe: EnvironmentRecipe {
            package: PinnedPackage {
                name: "subject".into(),
                version: "0".into(),
                sha256: String::new(),
            },
            requirements: vec![],
            source_root: ".".into(),
            code: vec![],
            tests: vec![],
            skip_tests: vec![],
            layout: 0,
            python: None,
            source: None,
            setup: Vec::new(),
        },
        tree: tree::digest_of(&files),
        interpreter,
    };
    let sandbox = LocalSandbox::open(OpenPlan {
        host: Arc::new(host),
        prepared: Arc::new(Prepared::by_hand(environment, manifest, files)),
        private: place.path().join("private"),
        helper: helper(),
        number: 0,
        label: "test".into(),
        limits: Limits::default(),
        groups: None,
        patches: &[],
        hidden: &[],
        history: Default::default(),
        commits: &Default::default(),
        layers: Default::default(),
    });
    Some((place, sandbox.unwrap()))
}

/// What a shell line says on its standard output.
fn said(sandbox: &LocalSandbox, line: &str) -> String {
    let ended = sandbox.exec(&Exec {
        sandbox: SandboxId::new("test"),
        argv: vec!["sh".into(), "-c".into(), line.into()],
        stdin: None,
        env: vec![],
        timeout_ms: 60_000,
        output_cap: 1 << 20,
    });
    ended.unwrap().stdout
}

/// Place → kind of file system and attributes.
fn mounts(sandbox: &LocalSandbox) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = said(sandbox, "cat /proc/self/mountinfo");
    let mounts = text.lines().map(|line| {
        let (mount, system) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = mount.split(' ').collect();
        let kind = system.split(' ').next().unwrap();
        let attributes = fields[5].split(',').map(str::to_owned).collect();
        (fields[4].to_owned(), (kind.to_owned(), attributes))
    });
    mounts.collect()
}

#[test]
fn both_starters_mount_the_same() {
    let test = "both_starters_mount_the_same";
    let seen = BOTH.map(|choice| open(test, choice).map(|(_place, sandbox)| mounts(&sandbox)));
    let [Some(bubblewrap), Some(mut own)] = seen else {
        return;
    };
    for place in [
        "/",
        "/usr",
        "/venv",
        "/proc",
        "/dev",
        "/dev/null",
        "/dev/shm",
        "/testbed",
    ] {
        assert!(own.contains_key(place), "{place}: {own:?}");
    }
    // Ours are there whether or not the one who builds it could write there.
    for name in ["sys", "sysrq-trigger", "irq", "bus"] {
        let place = format!("/proc/{name}");
        if !bubblewrap.contains_key(&place)
            && let Some((_, attributes)) = own.remove(&place)
        {
            assert!(attributes.contains("ro"), "{place}: {attributes:?}");
        }
    }
    assert_eq!(own, bubblewrap);
}

#[test]
fn both_starters_show_the_same_files() {
    let test = "both_starters_show_the_same_files";
    // Owners by name: each sandbox has a uid of its own.
    let look = "stat -c '%n %F %a %U %G %N' / /* /dev/* /dev/pts/* /etc/* /run/* /tmp/* /testbed/*; \
        ls -a / /dev /etc /run /tmp /testbed /home /root /var /sys /mnt /opt 2>/dev/null; \
        hostname; pwd; umask; ulimit -a; env | sort; ls /proc/self/fd | wc -l; \
        readlink /proc/self/fd/0; cat /proc/net/dev; grep -c 127.0.0.1 /proc/net/fib_trie; \
        ls -d /proc/[0-9]* | wc -l; grep -v -i capbnd /proc/self/status | grep -i '^cap[pea]\\|nonew\\|seccomp'";
    let seen = BOTH.map(|choice| open(test, choice).map(|(_place, sandbox)| said(&sandbox, look)));
    let [Some(bubblewrap), Some(own)] = seen else {
        return;
    };
    assert!(own.lines().count() > 60, "{own}");
    let (own, bubblewrap): (Vec<&str>, Vec<&str>) =
        (own.lines().collect(), bubblewrap.lines().collect());
    assert_eq!(own, bubblewrap);
}

#[test]
fn a_command_is_nobody_in_a_world_of_its_own() {
    let test = "a_command_is_nobody_in_a_world_of_its_own";
    for choice in BOTH {
        let Some((_place, sandbox)) = open(test, choice) else {
            continue;
        };
        assert_eq!(said(&sandbox, "hostname"), "sandbox\n", "{choice:?}");
        let status = said(&sandbox, "cat /proc/self/status");
        for line in ["CapPrm", "CapEff", "CapAmb"] {
            let none = format!("{line}:\t0000000000000000\n");
            assert!(status.contains(&none), "{choice:?}: {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{choice:?}: {status}");
        if choice == Choice::Namespaces {
            for line in ["CapInh", "CapBnd"] {
                let none = format!("{line}:\t0000000000000000\n");
                assert!(status.contains(&none), "{status}");
            }
            let writable = said(
                &sandbox,
                "find /proc/sys /proc/irq /proc/bus -writable 2>&1",
            );
            assert!(!writable.contains("/proc/"), "{writable}");
        }
        assert_ne!(said(&sandbox, "id -u"), "0\n", "{choice:?}");
        let first = said(&sandbox, "tr '\\0' ' ' < /proc/1/cmdline");
        assert!(
            first.trim_end().ends_with("gametape-sandbox test"),
            "{choice:?}: {first}"
        );
        // The shell, `cat` and process 1, and no process of the host.
        let names = said(&sandbox, "cat /proc/[0-9]*/comm");
        assert!(
            names.starts_with("gametape-sandbo\n"),
            "{choice:?}: {names}"
        );
        assert!(names.lines().count() <= 3, "{choice:?}: {names}");
        let network = said(&sandbox, "cat /proc/net/dev");
        assert_eq!(network.lines().count(), 3, "{choice:?}: {network}");
        assert!(network.contains("lo:"), "{choice:?}: {network}");
        let addresses = said(&sandbox, "cat /proc/net/fib_trie");
        assert!(addresses.contains("127.0.0.1"), "{choice:?}: {addresses}");
        for kind in ["pid", "net", "ipc", "uts", "mnt"] {
            let inside = said(&sandbox, &format!("readlink /proc/self/ns/{kind}"));
            let here = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert!(inside.starts_with(kind), "{choice:?}: {inside}");
            assert_ne!(inside.trim(), here.to_string_lossy(), "{choice:?}");
        }
        let denied = said(
            &sandbox,
            "touch /x /usr/x /venv/x /etc/x /run/x 2>&1 | grep -c -e denied -e Read-only",
        );
        assert_eq!(denied, "5\n", "{choice:?}");
        sandbox.close().unwrap();
    }
}

fn pidfd(process: u32) -> OwnedFd {
    // SAFETY: takes numbers; the result is checked before use.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let descriptor = Errno::result(descriptor).unwrap();
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

/// Waits for the end of a process; false when it goes on living.
fn ends(process: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::from(20_000u16)).unwrap() == 1
}

/// A sandbox with nothing in it, and its two processes.
fn trial(host: &Host) -> (Inside, OwnedFd, OwnedFd) {
    let (program, words) = starter::trial(host, &helper());
    let mut inside = Inside::start(&program, &words).unwrap();
    inside.wait_until_up().unwrap();
    let outer = inside.process();
    let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
    let children = children.unwrap();
    let [first] = children.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("children: {children}");
    };
    let first: u32 = first.parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let numbers = status.lines().find(|line| line.starts_with("NSpid:"));
    assert_eq!(
        numbers.unwrap().split_whitespace().last(),
        Some("1"),
        "{status}"
    );
    (inside, pidfd(outer), pidfd(first))
}

#[test]
fn process_one_ends_with_the_outer_process_and_that_with_its_thread() {
    let test = "process_one_ends_with_the_outer_process_and_that_with_its_thread";
    for choice in BOTH {
        let Some(host) = host(test, choice) else {
            continue;
        };
        let (inside, outer, first) = trial(&host);
        kill(
            Pid::from_raw(inside.process().cast_signed()),
            Signal::SIGKILL,
        )
        .unwrap();
        assert!(ends(&outer) && ends(&first), "{choice:?}");
        drop(inside);

        let (inside, outer, first) = trial(&host);
        // The host hangs up: both end by themselves.
        inside
            .handle()
            .unwrap()
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
        assert!(ends(&first) && ends(&outer), "{choice:?}");
        drop(inside);

        let warden = Warden::start(0).unwrap();
        let (inside, outer, first) = warden.run(move || trial(&host)).unwrap();
        drop(warden);
        assert!(ends(&outer) && ends(&first), "{choice:?}");
        drop(inside);
    }
}

#[test]
fn a_plan_that_is_not_understood_starts_nothing() {
    let output = Command::new(helper())
        .args([STAGE, "--unshare-pid", "--share-net", "--"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unknown word --share-net"), "{said}");
}

#[test]
fn nothing_starts_for_a_host_that_is_gone() {
    let test = "nothing_starts_for_a_host_that_is_gone";
    let Some(host) = host(test, Choice::Namespaces) else {
        return;
    };
    let (program, words) = starter::trial(&host, &helper());
    let (ours, theirs) = pipe().unwrap();
    drop(theirs);
    let output = Command::new(program)
        .args(words)
        .stdin(ours)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the parent has ended"), "{said}");
}
