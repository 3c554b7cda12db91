//! Real sandboxes on a real package. Skips loudly where bubblewrap or, for the first
//! provisioning on a machine, the package index is missing.

#![allow(clippy::unwrap_used)]

mod common;

use common::{limited, open, room, run};
use gametape_schemas::SandboxId;
use gametape_schemas::message::*;

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
            history: History::None,
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

#[actix::test]
async fn a_shell_lives_on_beside_commands_and_ends_with_its_sandbox() {
    let Some((room, env)) = room("a_shell_lives_on_beside_commands").await else {
        return;
    };
    let at = open(&room, &env).await;
    let say = async |command: &str| {
        let input = ShellInput {
            sandbox: at.clone(),
            command: command.into(),
            is_input: false,
            timeout_ms: Some(20_000),
        };
        room.send(input).await.unwrap().unwrap()
    };
    let moved = say("cd toolz && export COLOUR=green && id -u").await;
    assert_eq!(
        (moved.exit_code, moved.state),
        (Some(0), ShellState::Completed),
        "{moved:?}"
    );
    assert_ne!(moved.output.trim(), "0", "not root inside");
    // A job of the shell's outlives a command beside it, which leaves nothing of its own.
    let job = say("sleep 1000 & echo $!").await;
    let left = "(setsid sleep 2000 &) ; true";
    assert_eq!(
        run(&room, &at, &["sh", "-c", left]).await.exit_code,
        Some(0)
    );
    let jobs = say("echo $COLOUR; pwd; cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(jobs.output.contains("green\n/testbed/toolz\n"), "{jobs:?}");
    assert!(jobs.output.contains("sleep 1000"), "{job:?} {jobs:?}");
    assert!(!jobs.output.contains("sleep 2000"), "{jobs:?}");
    let dead = say("exit 3").await;
    assert_eq!(
        (dead.state, dead.exit_code),
        (ShellState::Dead, Some(3)),
        "{dead:?}"
    );
    let again = say("pwd").await;
    assert_eq!(again.output.trim(), "/testbed", "{again:?}");
    let closed = room.send(CloseSandbox {
        sandbox: at.clone(),
    });
    assert_eq!(closed.await.unwrap().unwrap().commands, 1);
    let gone = room.send(ShellInput {
        sandbox: at.clone(),
        command: "pwd".into(),
        is_input: false,
        timeout_ms: None,
    });
    assert_eq!(gone.await.unwrap().unwrap_err().code, "GT-SANDBOX-GONE");
}

#[actix::test]
async fn what_was_used_and_which_limit_struck_is_told_at_the_end() {
    let Some((room, env)) = room("what_was_used_is_told").await else {
        return;
    };
    let at = open(&room, &env).await;
    let late = limited(&room, &at, &["sleep", "1000"], 100).await;
    assert_eq!(late.limit, Some(gametape_schemas::ResourceLimit::WallTime));
    let fine = "x = bytearray(50 << 20); open('f', 'w').write('x' * 100_000)";
    let fine = run(&room, &at, &["python", "-c", fine]).await;
    assert_eq!((fine.exit_code, fine.limit), (Some(0), None), "{fine:?}");
    let closed = room.send(CloseSandbox { sandbox: at }).await;
    let used = closed.unwrap().unwrap();
    assert_eq!(used.commands, 2);
    assert_eq!(used.limits, [gametape_schemas::ResourceLimit::WallTime]);
    assert!(used.cpu_us > 1_000 && used.wall_ms >= 100, "{used:?}");
    assert!(used.peak_memory_bytes > Some(50 << 20), "{used:?}");
    // Where layers cannot be mounted nobody knows.
    assert!(
        used.written_bytes.is_none_or(|bytes| bytes > 100_000),
        "{used:?}"
    );
}

#[actix::test]
async fn a_renamed_directory_is_in_the_diff_wherever_its_files_lie() {
    let Some((room, env)) = room("a_renamed_directory_is_in_the_diff").await else {
        return;
    };
    let at = open(&room, &env).await;
    let rename = "import os; os.rename('toolz/sandbox', 'toolz/moved'); \
        open('toolz/moved/core.py', 'a').write('x = 1\\n'); \
        os.mkdir('toolz/sandbox'); open('toolz/sandbox/new.py', 'w').write('y = 2\\n')";
    let renamed = run(&room, &at, &["python", "-c", rename]).await;
    assert_eq!(renamed.exit_code, Some(0), "{renamed:?}");
    let diff = room.send(DiffSandbox {
        sandbox: at.clone(),
    });
    let diff = diff.await.unwrap().unwrap();
    for part in [
        "--- a/toolz/sandbox/parallel.py\n+++ /dev/null",
        "--- /dev/null\n+++ b/toolz/moved/parallel.py",
        "--- /dev/null\n+++ b/toolz/sandbox/new.py",
        "+x = 1\n",
    ] {
        assert!(diff.contains(part), "{part}: {diff}");
    }
    assert!(!diff.contains("dicttoolz"), "{diff}");
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
}
