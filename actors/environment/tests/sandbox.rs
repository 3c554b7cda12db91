//! Real sandboxes on a real package. Skips loudly where bubblewrap or, for the first
//! provisioning on a machine, the package index is missing.

#![allow(clippy::unwrap_used)]
use actix::prelude::*;
use gametape_environment::{EnvironmentActor, EnvironmentOptions};
use gametape_schemas::message::*;
use gametape_schemas::{EnvironmentRecipe, PinnedPackage, SandboxId};

fn recipe() -> EnvironmentRecipe {
    EnvironmentRecipe {
        package: PinnedPackage {
            name: "toolz".into(),
            version: "1.2.0".into(),
            sha256: "9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490".into(),
        },
        requirements: vec![
            "iniconfig==2.3.1 --hash=sha256:9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7".into(),
            "packaging==26.3 --hash=sha256:d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c".into(),
            "pluggy==1.7.0 --hash=sha256:7dd7b0d8832ba3cb632c306926ded123429211b83641b35dc5c41ad2d34f9bec".into(),
            "pygments==2.21.0 --hash=sha256:2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9".into(),
            "pytest==9.2.0 --hash=sha256:07acdcf88ec174f907dc01af70bf52d49b014bbab03faeeade31c96b18c2e588".into(),
        ],
        source_root: ".".into(),
        code: vec!["toolz".into()],
        tests: vec!["toolz/tests".into()],
        skip_tests: vec![],
        layout: 0,
    }
}

fn cache() -> std::path::PathBuf {
    std::env::var_os("GAMETAPE_CACHE")
        .map(std::path::PathBuf::from)
        .or_else(|| {
            std::env::var_os("XDG_CACHE_HOME").map(|d| std::path::PathBuf::from(d).join("gametape"))
        })
        .or_else(|| {
            std::env::var_os("HOME").map(|d| std::path::PathBuf::from(d).join(".cache/gametape"))
        })
        .unwrap_or_else(std::env::temp_dir)
}

/// A room with an open environment, or a loud skip.
async fn room(test: &str) -> Option<(Addr<EnvironmentActor>, Provisioned)> {
    if let Err(failure) = gametape_environment::probe::require(&gametape_environment::probe()) {
        eprintln!("SKIPPED: {test}: {failure}");
        return None;
    }
    let options = match EnvironmentOptions::usual(cache(), 2) {
        Ok(options) => options,
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            return None;
        }
    };
    let room = EnvironmentActor::new(options).start();
    match room.send(Provision { recipe: recipe() }).await.unwrap() {
        Ok(provisioned) => Some((room, provisioned)),
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            None
        }
    }
}

async fn open(room: &Addr<EnvironmentActor>, env: &Provisioned) -> SandboxId {
    room.send(OpenSandbox {
        environment: env.environment.clone(),
        label: "test".into(),
        patches: vec![],
        hidden_paths: vec!["toolz/tests/test_itertoolz.py".into()],
    })
    .await
    .unwrap()
    .unwrap()
}

async fn run(room: &Addr<EnvironmentActor>, at: &SandboxId, argv: &[&str]) -> ExecOutcome {
    limited(room, at, argv, 20_000).await
}

async fn limited(
    room: &Addr<EnvironmentActor>,
    at: &SandboxId,
    argv: &[&str],
    ms: u64,
) -> ExecOutcome {
    room.send(Exec {
        sandbox: at.clone(),
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        stdin: None,
        env: vec![],
        timeout_ms: ms,
        output_cap: 4_000,
    })
    .await
    .unwrap()
    .unwrap()
}

#[actix::test]
async fn a_command_sees_its_repository_and_nothing_else() {
    let Some((room, env)) = room("a_command_sees_its_repository_and_nothing_else").await else {
        return;
    };
    let at = open(&room, &env).await;
    let neighbour = open(&room, &env).await;
    let hello = run(
        &room,
        &at,
        &["python", "-c", "import toolz; print(toolz.__file__)"],
    )
    .await;
    assert_eq!(
        (hello.exit_code, hello.stdout.trim()),
        (Some(0), "/testbed/toolz/__init__.py"),
        "{hello:?}"
    );
    // Each line is tried from inside; every one must fail.
    for (what, attack) in [
        ("host secrets", "open('/etc/shadow').read()"),
        (
            "network",
            "import socket; socket.create_connection(('1.1.1.1', 53), 2)",
        ),
        (
            "host files",
            "assert __import__('os').listdir('/home') or True; open('/root/.bashrc').read()",
        ),
        (
            "other processes",
            "import os; assert len([p for p in os.listdir('/proc') if p.isdigit()]) > 5",
        ),
        ("write to the system", "open('/usr/evil', 'w')"),
        ("write to the environment", "open('/venv/evil', 'w')"),
        ("become root", "import os; os.setuid(0)"),
        (
            "ptrace",
            "import ctypes; c=ctypes.CDLL(None,use_errno=True); assert c.ptrace(0,0,0,0)==0",
        ),
        (
            "mount",
            "import ctypes; c=ctypes.CDLL(None,use_errno=True); assert c.mount(b'x',b'/tmp',b'tmpfs',0,0)==0",
        ),
        (
            "namespaces",
            "import ctypes; c=ctypes.CDLL(None,use_errno=True); assert c.unshare(0x10000000)==0",
        ),
        ("hidden tests", "open('toolz/tests/test_itertoolz.py')"),
        ("the host's packages", "import pip"),
        (
            "a neighbour's files",
            &format!("import os; assert os.path.exists('/tmp/{neighbour}')"),
        ),
        (
            "signals to the parent",
            "import os, signal; os.kill(os.getppid() + 100000, 0)",
        ),
    ] {
        let outcome = run(&room, &at, &["python", "-c", attack]).await;
        assert_ne!(
            outcome.exit_code,
            Some(0),
            "{what} was not contained: {outcome:?}"
        );
    }
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
    room.send(CloseSandbox { sandbox: neighbour })
        .await
        .unwrap()
        .unwrap();
}

#[actix::test]
async fn limits_hold_and_are_told_apart() {
    let Some((room, env)) = room("limits_hold_and_are_told_apart").await else {
        return;
    };
    let at = open(&room, &env).await;
    let failed = run(&room, &at, &["python", "-c", "raise SystemExit(3)"]).await;
    assert_eq!((failed.exit_code, failed.timed_out), (Some(3), false));
    let missing = run(&room, &at, &["no-such-program"]).await;
    assert_eq!(missing.exit_code, Some(127), "{missing:?}");
    let killed = run(
        &room,
        &at,
        &["python", "-c", "import os; os.kill(os.getpid(), 9)"],
    )
    .await;
    assert_eq!(
        (killed.exit_code, killed.timed_out),
        (None, false),
        "{killed:?}"
    );
    // A hung command with daemons of its own session: all gone at the limit.
    let mark = format!("gametape-mark-{}", std::process::id());
    let hang = format!(
        "import subprocess, time\nfor _ in range(20): subprocess.Popen(['sleep', '3600', '{mark}'], start_new_session=True)\ntime.sleep(3600)"
    );
    let hung = limited(&room, &at, &["python", "-c", &hang], 1_500).await;
    assert!(hung.timed_out && hung.exit_code.is_none(), "{hung:?}");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let ours = entry.file_name().to_string_lossy() == std::process::id().to_string();
        assert!(
            ours || !String::from_utf8_lossy(&line).contains(&mark),
            "a daemon survived"
        );
    }
    let endless = limited(&room, &at, &["sh", "-c", "yes"], 500).await;
    assert!(endless.timed_out);
    let noisy = run(&room, &at, &["python", "-c", "print('x' * 10**7)"]).await;
    assert!(
        noisy.stdout.len() < 5_000 && noisy.truncated_bytes > 9_000_000,
        "{}",
        noisy.stdout.len()
    );
    let binary = run(
        &room,
        &at,
        &[
            "python",
            "-c",
            "import os; os.write(1, bytes([255, 254, 65]))",
        ],
    )
    .await;
    assert!(binary.stdout.ends_with('A'), "{binary:?}");
    let bomb = run(
        &room,
        &at,
        &["python", "-c", "import os\nfor _ in range(1000): os.fork()"],
    )
    .await;
    assert_ne!(bomb.exit_code, Some(0), "{bomb:?}");
    let hog = run(&room, &at, &["python", "-c", "x = bytearray(8 << 30)"]).await;
    assert_ne!(hog.exit_code, Some(0));
    let fill = run(&room, &at, &["sh", "-c", "head -c 1G /dev/zero > big"]).await;
    assert_ne!(fill.exit_code, Some(0), "a file of 1 GiB was written");
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
}

#[actix::test]
async fn only_the_agents_change_is_in_the_diff() {
    let Some((room, env)) = room("only_the_agents_change_is_in_the_diff").await else {
        return;
    };
    let source = std::fs::read_to_string(env.repository.join("toolz/dicttoolz.py")).unwrap();
    let first = source.lines().next().unwrap();
    let bug = format!(
        "--- a/toolz/dicttoolz.py\n+++ b/toolz/dicttoolz.py\n@@ -1 +1,2 @@\n+# planted\n {first}\n"
    );
    let at = room
        .send(OpenSandbox {
            environment: env.environment.clone(),
            label: "diff".into(),
            patches: vec![bug],
            hidden_paths: vec!["toolz/tests/test_dicttoolz.py".into()],
        })
        .await
        .unwrap()
        .unwrap();
    let diff = |at: &SandboxId| {
        room.send(DiffSandbox {
            sandbox: at.clone(),
        })
    };
    run(&room, &at, &["python", "-B", "-c", "import toolz"]).await;
    assert_eq!(
        diff(&at).await.unwrap().unwrap(),
        "",
        "nothing was changed yet"
    );
    let FileRead::Text(text) = room
        .send(ReadFile {
            sandbox: at.clone(),
            path: "toolz/dicttoolz.py".into(),
        })
        .await
        .unwrap()
        .unwrap()
    else {
        panic!("unreadable");
    };
    assert!(text.starts_with("# planted\n"));
    let edited = text.replacen("# planted\n", "# mended\n", 1);
    let written = room
        .send(WriteFile {
            sandbox: at.clone(),
            path: "toolz/dicttoolz.py".into(),
            content: edited,
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(written, FileWritten::Written);
    // The command's own uid can write it, too.
    let appended = run(
        &room,
        &at,
        &[
            "sh",
            "-c",
            "echo new > scratch.txt && echo >> toolz/dicttoolz.py",
        ],
    )
    .await;
    assert_eq!(appended.exit_code, Some(0), "{appended:?}");
    let patch = diff(&at).await.unwrap().unwrap();
    assert!(patch.contains("-# planted\n+# mended\n"), "{patch}");
    assert!(
        patch.contains("scratch.txt") && !patch.contains("test_dicttoolz"),
        "{patch}"
    );
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
}
