//! What an agent may try from inside: each is contained, the host unharmed, and what it
//! did to its own tree breaks no operation of ours.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tries.rs"]
mod tries;

use common::{limited, open, room, run};
use gametape_schemas::message::*;

/// What this back end refuses beside the calls that all of them do.
const MORE_CALLS: &str = r#"
denied('clone3', 435, 0, 0)
denied('setns', 308, 0, 0)
denied('io_uring', 425, 1, 0)
denied('x32 ptrace', 0x40000000 | 521, 0, 0, 0, 0)
for family in (16, 17, 40):
    try:
        socket.socket(family, socket.SOCK_RAW)
        print('socket', family, 'ALLOWED')
    except OSError:
        print('socket', family, 'denied')
"#;
const MORE_LINES: usize = 7;

const LOOK: &str = r#"
import os
print('uid', os.getuid() != 0, os.getgid() != 0, os.getgroups() == [])
print('caps', [l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')][0])
print('nnp', [l.split()[1] for l in open('/proc/self/status') if l.startswith('NoNewPrivs')][0])
print('fds', sorted(int(f) for f in os.listdir('/proc/self/fd'))[:4])
print('stdin', os.readlink('/proc/self/fd/0'))
for path in ('/proc/1/fd', '/proc/1/mem', '/proc/1/environ', '/var/log', '/etc/shadow', '/sys/kernel'):
    try:
        (os.listdir if os.path.isdir(path) else open)(path)
        print(path, 'OPEN')
    except OSError as error:
        print(path, 'closed')
try:
    os.kill(1, 9)
    print('init signalled')
except PermissionError:
    print('init closed')
print('env', sorted(os.environ))
"#;

/// Everything that could hold another version of the subject, or packages that the
/// environment does not name.
const SEARCH: &str = r#"
import os, sysconfig
own = os.path.realpath(os.environ['VIRTUAL_ENV'])
library = sysconfig.get_path('stdlib')
# Python's own tests carry some along, and so do installers, of themselves.
stock = (library + '/test', '/usr/share/python-wheels')
for place, directories, files in os.walk('/'):
    if place in ('/proc', '/sys', '/dev'):
        directories.clear()
        continue
    name = os.path.basename(place)
    if name in ('site-packages', 'dist-packages') and not place.startswith(own) and directories + files:
        print('packages', place, sorted(directories + files)[:3])
    if name in ('.git', '.hg', '.svn', 'alternates') or {'HEAD', 'objects', 'refs'} <= {*directories, *files}:
        print('history', place)
    if '/.cache/' in place + '/' or place.endswith(('/pip/http', '/pip/http-v2', '/pip/wheels')):
        print('cache', place)
    for file in files:
        if file.endswith(('.whl', '.egg')) and not place.startswith(stock) and not place.endswith('/ensurepip/_bundled'):
            print('package', place, file)
        if 'toolz' in file and file.endswith(('.tar.gz', '.zip', '.pth', '.egg-link')):
            print('archive', place, file)
import toolz
print('searched', toolz.__file__)
"#;

#[actix::test]
async fn no_other_version_and_no_package_of_the_host_can_be_found() {
    let test = "no_other_version_and_no_package_of_the_host_can_be_found";
    let Some((room, env)) = room(test).await else {
        return;
    };
    let at = open(&room, &env).await;
    let found = limited(&room, &at, &["python", "-c", SEARCH], 120_000).await;
    assert_eq!(
        (found.exit_code, found.stdout.trim()),
        (Some(0), "searched /testbed/toolz/__init__.py"),
        "{found:?}"
    );
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
}

#[actix::test]
async fn calls_that_lead_out_are_denied() {
    let Some((room, env)) = room("calls_that_lead_out_are_denied").await else {
        return;
    };
    let at = open(&room, &env).await;
    if cfg!(target_arch = "x86_64") {
        let script = [tries::DENIED, tries::CALLS, MORE_CALLS].concat();
        let calls = run(&room, &at, &["python", "-c", &script]).await;
        assert_eq!(calls.exit_code, Some(0), "{calls:?}");
        assert!(!calls.stdout.contains("ALLOWED"), "{}", calls.stdout);
        let lines = tries::CALLS_LINES + MORE_LINES;
        assert_eq!(calls.stdout.lines().count(), lines, "{}", calls.stdout);
    }
    let look = run(&room, &at, &["python", "-c", LOOK]).await;
    assert_eq!(look.exit_code, Some(0), "{look:?}");
    assert!(
        look.stdout.contains("uid True True True"),
        "{}",
        look.stdout
    );
    assert!(
        look.stdout.contains("caps 0000000000000000"),
        "{}",
        look.stdout
    );
    assert!(
        look.stdout.contains("nnp 1") && !look.stdout.contains("OPEN"),
        "{}",
        look.stdout
    );
    // Standard streams and the directory that is being listed: nothing of the host's.
    assert!(look.stdout.contains("fds [0, 1, 2, 3]"), "{}", look.stdout);
    assert!(look.stdout.contains("stdin /dev/null"), "{}", look.stdout);
    assert!(!look.stdout.contains("GAMETAPE"), "{}", look.stdout);
    // Its pid 1 is the helper: a signal from inside does not reach it, and the next
    // command comes up as ever.
    assert_eq!(run(&room, &at, &["true"]).await.exit_code, Some(0));
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
}

#[actix::test]
async fn the_loopback_works_and_nothing_else_does() {
    let Some((room, env)) = room("the_loopback_works_and_nothing_else_does").await else {
        return;
    };
    let at = open(&room, &env).await;
    let talk = "import socket\n\
        s = socket.create_server(('127.0.0.1', 0))\n\
        c = socket.create_connection(s.getsockname(), 2)\n\
        c.sendall(b'hi')\n\
        print(s.accept()[0].recv(2))\n\
        print(socket.gethostbyname('localhost'))";
    let talk = run(&room, &at, &["python", "-c", talk]).await;
    assert!(
        talk.stdout.contains("b'hi'") && talk.stdout.contains("127.0.0.1"),
        "{talk:?}"
    );
    let away = "import socket; socket.create_connection(('192.0.2.1', 80), 2)";
    let away = run(&room, &at, &["python", "-c", away]).await;
    assert!(away.stderr.contains("Network is unreachable"), "{away:?}");
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
}

#[actix::test]
async fn hostile_trees_break_nothing() {
    let Some((room, env)) = room("hostile_trees_break_nothing").await else {
        return;
    };
    let at = open(&room, &env).await;
    let mess = r#"
import os
os.symlink('/etc/shadow', 'shadow')
os.symlink('/', 'slash')
os.mkfifo('pipe')
open('big', 'wb').truncate(100 << 20)
open(b'bad\xff\nname', 'w').close()
open('bin', 'wb').write(b'\xff\xfe\x00')
os.remove('toolz/dicttoolz.py'); os.symlink('/etc/passwd', 'toolz/dicttoolz.py')
os.remove('toolz/utils.py'); os.mkdir('toolz/utils.py')
os.makedirs('.git/hooks'); open('.git/config', 'w').write('[core]\nfsmonitor = touch /tmp/evil\n')
open('new file', 'w').write('x\n')
os.mkdir('closed'); os.chmod('closed', 0)
path = os.getcwd()
for n in range(300):
    os.mkdir('d' * 40); os.chdir('d' * 40)
print('made')
"#;
    let made = run(&room, &at, &["python", "-c", mess]).await;
    assert!(made.stdout.contains("made"), "{made:?}");
    let diff = room
        .send(DiffSandbox {
            sandbox: at.clone(),
        })
        .await
        .unwrap()
        .unwrap();
    assert!(diff.contains("diff --git a/new file b/new file"), "{diff}");
    assert!(
        diff.contains("deleted file mode 100644\n--- a/toolz/utils.py"),
        "{diff}"
    );
    assert!(
        !diff.contains("toolz/dicttoolz.py"),
        "a link is left as it was: {diff}"
    );
    for name in ["shadow", "slash", "pipe", "big", "fsmonitor", "root:"] {
        assert!(!diff.contains(name), "{name}: {diff}");
    }
    for path in [
        "shadow",
        "slash/etc/passwd",
        "pipe",
        "big",
        "bin",
        "../etc/passwd",
        "closed",
    ] {
        let read = ReadFile {
            sandbox: at.clone(),
            path: path.into(),
        };
        let answer = room.send(read).await.unwrap().unwrap();
        assert!(matches!(answer, FileRead::Refused(_)), "{path}: {answer:?}");
        let write = WriteFile {
            sandbox: at.clone(),
            path: path.into(),
            content: "x".into(),
        };
        let answer = room.send(write).await.unwrap().unwrap();
        assert!(
            path == "big" || path == "bin" || matches!(answer, FileWritten::Refused(_)),
            "{path}"
        );
    }
    // A patch that touches one good file and one link: neither.
    let patch = "--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+x\n--- /dev/null\n+++ b/slash/tmp/evil\n@@ -0,0 +1 @@\n+x\n";
    let patch = ApplyPatch {
        sandbox: at.clone(),
        patch: patch.into(),
        fit: Fit::Exact,
    };
    let answer = room.send(patch).await.unwrap().unwrap();
    assert!(matches!(answer, PatchApplied::Rejected(_)), "{answer:?}");
    let read = ReadFile {
        sandbox: at.clone(),
        path: "a".into(),
    };
    assert!(matches!(
        room.send(read).await.unwrap().unwrap(),
        FileRead::Refused(_)
    ));
    room.send(CloseSandbox {
        sandbox: at.clone(),
    })
    .await
    .unwrap()
    .unwrap();
    let gone = room
        .send(DiffSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(gone.code, "GT-SANDBOX-GONE");
}

#[actix::test]
async fn nothing_outlives_its_command_and_output_at_the_limit_is_kept() {
    let Some((room, env)) = room("nothing_outlives_its_command").await else {
        return;
    };
    let at = open(&room, &env).await;
    // A daemon that holds the pipes must not keep the command from ending.
    let daemon = "import subprocess, sys\n\
        subprocess.Popen(['sleep', '3600'], start_new_session=True)\nprint('parent done')";
    let done = limited(&room, &at, &["python", "-c", daemon], 20_000).await;
    assert_eq!(
        (done.exit_code, done.timed_out),
        (Some(0), false),
        "{done:?}"
    );
    assert!(
        done.stdout.contains("parent done") && done.wall_ms < 15_000,
        "{done:?}"
    );
    let late = limited(&room, &at, &["sh", "-c", "echo so far; sleep 60"], 1_000).await;
    assert!(late.timed_out && late.stdout.contains("so far"), "{late:?}");
    // Standard input, an argument list of a megabyte, an exit code that looks like a signal.
    let echo = Exec {
        sandbox: at.clone(),
        argv: vec!["cat".into()],
        stdin: Some(vec![b'a'; 1 << 20]),
        env: vec![],
        timeout_ms: 20_000,
        output_cap: 2 << 20,
    };
    let echoed = room.send(echo).await.unwrap().unwrap();
    assert_eq!((echoed.stdout.len(), echoed.truncated_bytes), (1 << 20, 0));
    let word = "x".repeat(100_000);
    let mut argv = vec!["sh", "-c", "echo $#; exit 137", "sh"];
    argv.extend([word.as_str(); 10]);
    let many = run(&room, &at, &argv).await;
    assert_eq!(
        (many.stdout.trim(), many.exit_code),
        ("10", Some(137)),
        "{}",
        many.stderr
    );
    room.send(CloseSandbox { sandbox: at })
        .await
        .unwrap()
        .unwrap();
}

#[actix::test]
async fn closing_ends_a_running_command() {
    let Some((room, env)) = room("closing_ends_a_running_command").await else {
        return;
    };
    let at = open(&room, &env).await;
    let exec = Exec {
        sandbox: at.clone(),
        argv: vec!["sleep".into(), "60".into()],
        stdin: None,
        env: vec![],
        timeout_ms: 60_000,
        output_cap: 100,
    };
    let running = room.send(exec);
    let closing = room.send(CloseSandbox { sandbox: at });
    let begin = std::time::Instant::now();
    let (ended, closed) = futures_util::future::join(running, closing).await;
    closed.unwrap().unwrap();
    assert_eq!(ended.unwrap().unwrap_err().code, "GT-SANDBOX-GONE");
    assert!(begin.elapsed().as_secs() < 30);
}
