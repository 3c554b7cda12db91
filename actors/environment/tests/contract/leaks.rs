//! What a killed process leaves in the engine is removed by the next one.

use crate::rooms::{docker_with, engine, order, shell};
use gametape_environment::docker::{Bounds, reap};
use gametape_environment::sandbox::Sandbox;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Set in the process that holds sandboxes until it is killed.
const HOLD: &str = "GAMETAPE_TEST_HOLDS_CONTAINERS";
/// Its sandboxes.
const HELD: usize = 5;

/// Names of containers (or volumes) that carry a label.
fn with_label(kind: &[&str], label: &str) -> Vec<String> {
    let out = Command::new("docker")
        .args(kind)
        .args(["--filter", &format!("label={label}")])
        .output()
        .unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// No test by itself: the process of the test below that is killed.
#[test]
fn holder() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let (engine, image) = engine("holder").unwrap();
    let held: Vec<_> = (0..HELD)
        .map(|_| docker_with(&engine, &image, Bounds::default(), &[], &[]))
        .collect();
    std::thread::scope(|scope| {
        // One is in the middle of a command.
        scope.spawn(|| held[0].exec(&order(&["sleep", "600"], 600_000, 10)));
        for sandbox in &held {
            println!("\nHELD {}", sandbox.container());
        }
        println!("\nALL");
        std::io::stdout().flush().unwrap();
        // Until it is killed; or until the test that waits for it has ended.
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(1);
    });
}

#[test]
fn what_a_killed_process_held_is_reaped() {
    let test = "what_a_killed_process_held_is_reaped";
    let Some((engine, image)) = engine(test) else {
        return;
    };
    if Command::new("docker").arg("version").output().is_err() {
        eprintln!("SKIPPED: {test}: no `docker` program to look with");
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["leaks::holder", "--exact", "--nocapture"])
        .env(HOLD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut names = Vec::new();
    for line in lines {
        let line = line.unwrap();
        if let Some(name) = line.strip_prefix("HELD ") {
            names.push(name.to_owned());
        } else if line == "ALL" {
            break;
        }
    }
    assert_eq!(names.len(), HELD);
    child.kill().unwrap();
    child.wait().unwrap();
    let owner = names[0].strip_prefix("gametape-").unwrap();
    let owner = owner.rsplit_once('-').unwrap().0;
    let label = format!("gametape.owner={owner}");
    // Every state that a container can be left in.
    let docker = |args: &[&str]| {
        let out = Command::new("docker").args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {out:?}");
    };
    docker(&["pause", &names[1]]);
    docker(&["kill", &names[2]]);
    docker(&[
        "create", "--label", &label, "--volume", "/v", &image.id, "never",
    ]);
    assert_eq!(with_label(&["ps", "-aq"], &label).len(), HELD + 1);
    assert_eq!(with_label(&["volume", "ls", "-q"], &label).len(), HELD);
    let ours = docker_with(&engine, &image, Bounds::default(), &[], &[]);
    let reaped = reap(&engine).unwrap();
    assert_eq!(with_label(&["ps", "-aq"], &label), [""; 0]);
    assert_eq!(with_label(&["volume", "ls", "-q"], &label), [""; 0]);
    assert!(reaped.containers > HELD, "{reaped:?}");
    assert_eq!(reaped.volumes, 0, "they went with their containers");
    assert_eq!(
        shell(&ours, "echo here").stdout,
        "here\n",
        "the living keep theirs"
    );
    ours.close().unwrap();
    let own = with_label(&["ps", "-a", "--format", "{{.Names}}"], "gametape.owner");
    assert!(
        !own.contains(&ours.container().to_owned()),
        "closed and still there"
    );
}

#[test]
fn a_container_that_ended_is_told_and_not_waited_for() {
    let test = "a_container_that_ended_is_told_and_not_waited_for";
    let Some((engine, image)) = engine(test) else {
        return;
    };
    let at = docker_with(&engine, &image, Bounds::default(), &[], &[]);
    let killed = Command::new("docker")
        .args(["kill", at.container()])
        .output();
    if killed.is_err() {
        eprintln!("SKIPPED: {test}: no `docker` program to kill with");
        return;
    }
    let failure = at.exec(&order(&["true"], 10_000, 10)).unwrap_err();
    assert_eq!(failure.code, "GT-SANDBOX-DIED");
    assert!(failure.kind.is_retryable());
    at.close().unwrap();
}

#[test]
fn an_image_that_is_not_there_says_what_to_do() {
    let test = "an_image_that_is_not_there_says_what_to_do";
    let Some((engine, image)) = engine(test) else {
        return;
    };
    use gametape_environment::docker::image::own;
    let missing = own(&engine, "sha256:0123", "/testbed").unwrap_err();
    assert_eq!(missing.code, "GT-SANDBOX-IMAGE");
    assert!(missing.help.contains("docker pull"), "{missing}");
    let nowhere = own(&engine, &image.id, "/no/such/place").unwrap_err();
    assert_eq!(nowhere.code, "GT-SANDBOX-IMAGE");
    // An image by its digest, with a repository of its own: here Python's json package.
    let place = "/venv/lib";
    let own = own(&engine, &image.id, place).unwrap();
    assert_eq!(own.id, image.id);
    let at = docker_with(&engine, &own, Bounds::default(), &[], &[]);
    let there = shell(&at, "pwd; touch new; ls -d python3*");
    assert!(there.stdout.starts_with("/venv/lib\npython3"), "{there:?}");
    assert!(at.diff().unwrap().contains("new file mode"));
    at.close().unwrap();
}
