//! Images of a user's own: a repository with its history, files of root's, programs in
//! odd places. Agents get the repository alone; the grader's scripts get the image as it
//! is.

use crate::histories::{git, has_git};
use crate::rooms::{docker_as, engine, order, python, run, shell};
use actix::prelude::*;
use gametape_environment::docker::{Bounds, DockerSandbox, Engine, Image, image};
use gametape_environment::sandbox::Sandbox;
use gametape_environment::{Backend, EnvironmentActor, EnvironmentOptions, helper_beside};
use gametape_schemas::message::*;
use gametape_schemas::{EnvironmentRecipe, ResourceLimit};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// An image that was made here, removed in the end.
struct Own {
    /// What the engine calls it.
    name: String,
    id: String,
    /// The commit that the tests of its repository ask for.
    base: String,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["rmi", "-f", &self.id])
            .output();
    }
}

fn docker(words: &[&str]) -> String {
    let out = Command::new("docker").args(words).output().unwrap();
    assert!(out.status.success(), "docker {words:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn host_git(at: &Path, words: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=m",
        ])
        .args(words)
        .current_dir(at)
        .output()
        .unwrap();
    assert!(out.status.success(), "git {words:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

const TEST: &str = "import calc\nassert calc.add(2, 2) == 4\nprint('ok 1')\n";

/// Makes `base`, then puts a repository with two commits and a site directory on it: the
/// base state, and after it the mended one, with `HEAD` at the base.
fn made(test: &str, base: &Image, name: &str, calc: &str) -> Option<Own> {
    if !has_git(test) || Command::new("docker").arg("version").output().is_err() {
        eprintln!("SKIPPED: {test}: no `docker` or no `git` program to make an image with");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    host_git(at, &["init", "-q"]);
    std::fs::write(at.join("calc.py"), calc).unwrap();
    std::fs::write(at.join("test_calc.py"), TEST).unwrap();
    std::os::unix::fs::symlink("calc.py", at.join("alias.py")).unwrap();
    host_git(at, &["add", "."]);
    host_git(at, &["commit", "-qm", "base"]);
    let commit = host_git(at, &["rev-parse", "HEAD"]);
    std::fs::write(
        at.join("calc.py"),
        "def add(a, b):\n    return a + b  # mended\n",
    )
    .unwrap();
    host_git(at, &["commit", "-qam", "the fix"]);
    host_git(at, &["branch", "fix"]);
    host_git(at, &["reset", "-q", "--hard", &commit]);
    let container = docker(&["create", &base.id, "/never"]);
    let from = format!("{}/.", at.display());
    docker(&["cp", &from, &format!("{container}:/testbed")]);
    let env = "ENV MARK=of-the-image PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin";
    let id = docker(&["commit", "--change", env, &container, name]);
    docker(&["rm", "-fv", &container]);
    Some(Own {
        name: name.to_owned(),
        id,
        base: commit,
    })
}

fn wrong() -> &'static str {
    "def add(a, b):\n    return a - b\n"
}

fn name(what: &str) -> String {
    format!("gametape-test-{}:{what}", std::process::id())
}

fn as_is(engine: &Arc<Engine>, image: &Image, patches: &[String]) -> DockerSandbox {
    docker_as(
        engine,
        image,
        Bounds::default(),
        (patches, &[]),
        History::AsIs,
    )
}

#[test]
fn an_agent_gets_the_repository_of_an_image_and_not_its_history() {
    let test = "an_agent_gets_the_repository_of_an_image_and_not_its_history";
    let Some((engine, base)) = engine(test) else {
        return;
    };
    let Some(own) = made(test, &base, &name("agent"), wrong()) else {
        return;
    };
    let image = image::own(&engine, &own.name, "/testbed").unwrap();
    for history in [History::None, History::Root] {
        let at = docker_as(&engine, &image, Bounds::default(), (&[], &[]), history);
        assert_eq!(
            shell(&at, "id -u; echo $MARK; ls").stdout,
            "61000\nof-the-image\nalias.py\ncalc.py\ntest_calc.py\n"
        );
        assert_ne!(shell(&at, "touch /opt/x /usr/x").exit_code, Some(0));
        if history == History::Root {
            assert_eq!(git(&at, "log --all --format=%s"), "Base state\n");
            assert_eq!(git(&at, "status --porcelain"), "", "links are part of it");
            assert_eq!(
                git(&at, "fsck --root --unreachable --no-progress 2>&1 | wc -l").trim(),
                "1"
            );
        } else {
            assert_ne!(shell(&at, "git log").exit_code, Some(0));
            assert_eq!(shell(&at, "ls -d .git").exit_code, Some(2));
        }
        let reached = shell(&at, &format!("git cat-file -e {}", own.base));
        assert_ne!(
            reached.exit_code,
            Some(0),
            "the history of the image is out of reach"
        );
        assert_eq!(at.diff().unwrap(), "");
        assert_eq!(
            at.close().unwrap().scratch,
            [""; 0],
            "its links are not the agent's"
        );
    }
}

#[test]
fn a_script_of_a_graders_finds_the_image_as_it_is() {
    let test = "a_script_of_a_graders_finds_the_image_as_it_is";
    let Some((engine, base)) = engine(test) else {
        return;
    };
    let Some(own) = made(test, &base, &name("script"), wrong()) else {
        return;
    };
    let image = image::own(&engine, &own.name, "/testbed").unwrap();
    let at = as_is(&engine, &image, &[]);
    // A patch of the agent's, then the kind of script that SWE-bench has.
    let cheat = "--- a/test_calc.py\n+++ b/test_calc.py\n@@ -1,3 +1,1 @@\n-import calc\n-assert calc.add(2, 2) == 4\n-print('ok 1')\n+print('ok 1')\n";
    let mend = "--- a/calc.py\n+++ b/calc.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n";
    assert_eq!(at.apply(cheat).unwrap(), PatchApplied::Applied);
    let mut apply = order(&["git", "apply", "--verbose", "-"], 60_000, 4_000);
    apply.stdin = Some(mend.as_bytes().to_vec());
    assert_eq!(at.exec(&apply).unwrap().exit_code, Some(0));
    assert!(at.diff().unwrap().contains("+    return a + b"));
    let base = &own.base;
    let script = format!(
        "set -uxo pipefail\n[ \"$PWD\" = /testbed ] && [ \"$(id -u)\" = 0 ] || exit 9\n\
         git status --short; git show -s --format=%s fix\n\
         git checkout {base} test_calc.py || exit 8\n\
         git apply -v - <<'EOF_114'\n--- a/test_calc.py\n+++ b/test_calc.py\n@@ -1,3 +1,4 @@\n import calc\n \
         assert calc.add(2, 2) == 4\n print('ok 1')\n+print('ok 2')\nEOF_114\n\
         mkdir -p /usr/lib/python3/made /opt/made && touch /usr/lib/python3/made/x /opt/made/x || exit 7\n\
         echo \"$MARK\"; python test_calc.py; code=$?\ngit checkout {base} test_calc.py\nexit $code"
    );
    let mut bash = order(&["bash", "-s"], 60_000, 8_000);
    bash.stdin = Some(script.into_bytes());
    let ran = at.exec(&bash).unwrap();
    assert_eq!(ran.exit_code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stdout.lines().filter(|l| l.starts_with("ok ")).count(),
        2,
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("of-the-image") && ran.stdout.contains("the fix"),
        "{ran:?}"
    );
    // What it left is there for the next command.
    assert_eq!(
        shell(&at, "ls /opt/made /usr/lib/python3/made").exit_code,
        Some(0)
    );
    assert!(matches!(
        at.write("notes/new.txt", "1\n").unwrap(),
        FileWritten::Written
    ));
    assert_eq!(
        shell(&at, "stat -c %u notes/new.txt notes calc.py").stdout,
        "0\n0\n0\n"
    );
    at.close().unwrap();
    // Patches of a base state, and hidden files, are part of it from the beginning.
    let asked = ([mend.to_owned()], ["test_calc.py".to_owned()]);
    let at = docker_as(
        &engine,
        &image,
        Bounds::default(),
        (&asked.0, &asked.1),
        History::AsIs,
    );
    let seen = shell(
        &at,
        "grep -c 'a + b' calc.py; ls test_calc.py; git rev-parse HEAD",
    );
    assert_eq!(seen.stdout, format!("1\n{base}\n"), "{seen:?}");
    assert_eq!(at.diff().unwrap(), "");
    at.close().unwrap();
}

#[test]
fn an_image_as_it_is_is_held_by_every_limit() {
    let test = "an_image_as_it_is_is_held_by_every_limit";
    let Some((engine, base)) = engine(test) else {
        return;
    };
    let Some(own) = made(test, &base, &name("limits"), wrong()) else {
        return;
    };
    let image = image::own(&engine, &own.name, "/testbed").unwrap();
    let bounds = Bounds {
        memory_mib: 64,
        processes: 32,
        ..Bounds::default()
    };
    let at = docker_as(&engine, &image, bounds, (&[], &[]), History::AsIs);
    // No network, no rights over the machine, although it is root.
    assert_eq!(shell(&at, "ls /sys/class/net").stdout, "lo\n");
    for attack in [
        "mount -t tmpfs none /mnt",
        "kill -9 1",
        "mknod /tmp/sda b 8 0",
        "python -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
        "python -c 'import os; os.chroot(\"/tmp\")'",
        "python -c 'import socket; socket.create_connection((\"1.1.1.1\", 53), 2)'",
    ] {
        assert_ne!(shell(&at, attack).exit_code, Some(0), "{attack}");
    }
    // Nobody outlives its command: neither another session, nor another user, and who
    // kills everything it may does not end the container.
    let daemons = "import os, sys, time\n\
        for uid in (0, 12345, 61000):\n    if os.fork() == 0:\n        os.setsid(); os.setuid(uid)\n        \
        os.close(0); os.close(1); os.close(2)\n        time.sleep(3600)\nopen('/usr/kept', 'w').close()";
    assert_eq!(python(&at, daemons).exit_code, Some(0));
    let left = "import os\nprint(sum('36' + '00' in open(f'/proc/{p}/cmdline').read() \
        for p in os.listdir('/proc') if p.isdigit()))";
    assert_eq!(python(&at, left).stdout, "0\n");
    assert_eq!(
        shell(&at, "ls /usr/kept").exit_code,
        Some(0),
        "files outlive a restart"
    );
    run(&at, &["sh", "-c", "kill -9 -1"]);
    assert_eq!(shell(&at, "echo here").stdout, "here\n");
    let hog = at
        .exec(&order(
            &["python", "-c", "x = bytearray(200 << 20)"],
            60_000,
            100,
        ))
        .unwrap();
    assert_eq!(hog.limit, Some(ResourceLimit::Memory), "{hog:?}");
    let bomb = "import os, time\nfor _ in range(100):\n    os.fork() or time.sleep(3600)";
    let bomb = at
        .exec(&order(&["python", "-c", bomb], 60_000, 100))
        .unwrap();
    assert_eq!(bomb.limit, Some(ResourceLimit::Processes), "{bomb:?}");
    let late = at.exec(&order(&["sleep", "600"], 500, 100)).unwrap();
    assert!(
        late.timed_out && late.limit == Some(ResourceLimit::WallTime),
        "{late:?}"
    );
    // It carries its owner's name like all others, and goes with its sandbox.
    let label = docker(&[
        "inspect",
        "--format",
        "{{index .Config.Labels \"gametape.owner\"}}",
        at.container(),
    ]);
    assert!(at.container().contains(&label) && !label.is_empty());
    let used = at.close().unwrap();
    assert!(used.limits.contains(&ResourceLimit::Memory), "{used:?}");
    let gone = Command::new("docker")
        .args(["inspect", at.container()])
        .output()
        .unwrap();
    assert!(!gone.status.success(), "closed and still there");
}

fn room(backend: Backend) -> Option<(tempfile::TempDir, Addr<EnvironmentActor>)> {
    let directory = tempfile::tempdir().unwrap();
    let options = EnvironmentOptions {
        cache: directory.path().to_owned(),
        known: Vec::new(),
        scratch: directory.path().join("sandboxes"),
        helper: helper_beside(&std::env::current_exe().unwrap())?,
        parallel: 2,
        limits: gametape_environment::Limits::default(),
        backend,
        environments: None,
    };
    Some((directory, EnvironmentActor::new(options).start()))
}

#[actix::test]
async fn a_recipe_may_be_an_image() {
    let test = "a_recipe_may_be_an_image";
    let tag = name("room");
    let recipe = EnvironmentRecipe::of_image("o/calc", "1", &tag, "/testbed");
    // Local sandboxes are made of no image, and say so before anything is looked at.
    if let Some((_directory, local)) = room(Backend::Local) {
        let asked = Provision {
            recipe: recipe.clone(),
        };
        let failure = local.send(asked).await.unwrap().unwrap_err();
        assert_eq!(failure.code, "GT-ENV-DOCKER");
        assert!(
            failure.help.contains("limits.sandbox = \"docker\""),
            "{failure}"
        );
    }
    let Some((_, base)) = engine(test) else {
        return;
    };
    let Some(own) = made(test, &base, &tag, wrong()) else {
        return;
    };
    let Some((_directory, room)) = room(Backend::Docker) else {
        eprintln!("SKIPPED: {test}: no helper program");
        return;
    };
    let provision = || {
        room.send(Provision {
            recipe: recipe.clone(),
        })
    };
    let first = provision().await.unwrap().unwrap();
    assert_eq!((first.cached, &first.environment), (false, &recipe.id()));
    let calc = async |history: History| {
        let environment = recipe.id();
        let asked = OpenSandbox {
            environment,
            label: "test".into(),
            patches: vec![],
            hidden_paths: vec![],
            history,
        };
        let sandbox = room.send(asked).await.unwrap().unwrap();
        let mut cat = order(&["cat", "calc.py"], 60_000, 1_000);
        cat.sandbox = sandbox.clone();
        let said = room.send(cat).await.unwrap().unwrap().stdout;
        room.send(CloseSandbox { sandbox }).await.unwrap().unwrap();
        said
    };
    assert_eq!(calc(History::None).await, wrong());
    // The name moves to another image; a room stays with the first.
    let moved = made(test, &base, &tag, "moved = True\n").unwrap();
    let again = provision().await.unwrap().unwrap();
    assert_eq!((again.cached, &again.tree), (true, &first.tree));
    for history in [History::None, History::AsIs] {
        assert_eq!(calc(history).await, wrong(), "{history:?}");
    }
    drop((own, moved));
    let missing = EnvironmentRecipe::of_image("o/calc", "1", &name("none"), "/testbed");
    let failure = room
        .send(Provision { recipe: missing })
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(failure.code, "GT-SANDBOX-IMAGE");
}
