//! What every back end promises.

use crate::rooms::{Open, order, python, run, shell};
use gametape_environment::sandbox::Sandbox;
use gametape_schemas::message::{FileRead, FileWritten, PatchApplied};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All of it, on one back end.
pub fn contract(open: Open<'_>) {
    how_commands_end(open);
    what_goes_in_and_comes_out(open);
    nothing_goes_on(open);
    files_are_read_and_written(open);
    patches_apply_whole_or_not_at_all(open);
    links_lead_nowhere(open);
    what_no_patch_takes_is_named(open);
    closing_ends_everything(open);
}

fn text(sandbox: &dyn Sandbox, path: &str) -> String {
    match sandbox.read(path).unwrap() {
        FileRead::Text(text) => text,
        FileRead::Refused(why) => panic!("{path}: {why}"),
    }
}

fn how_commands_end(open: Open<'_>) {
    let at = open(&[], &[]);
    let code = |argv: &[&str]| run(&*at, argv).exit_code;
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 3"]), Some(3));
    assert_eq!(
        code(&["sh", "-c", "exit 137"]),
        Some(137),
        "a code that looks like a signal"
    );
    assert_eq!(
        code(&["python", "-c", "import os; os.kill(os.getpid(), 9)"]),
        None
    );
    assert_eq!(code(&["no-such-program"]), Some(127));
    assert_eq!(code(&["./a.py"]), Some(126), "not executable");
    assert_eq!(code(&["exit", "3"]), Some(127), "no word of a shell");
    assert_eq!(run(&*at, &["./run.sh"]).stdout, "ran\n");
    let late = at
        .exec(&order(&["sh", "-c", "echo so far; sleep 600"], 1_500, 100))
        .unwrap();
    assert!(late.timed_out && late.exit_code.is_none(), "{late:?}");
    assert_eq!(
        late.stdout, "so far\n",
        "what was said before the limit is kept"
    );
    at.close().unwrap();
}

fn what_goes_in_and_comes_out(open: Open<'_>) {
    let at = open(&[], &[]);
    // Without input a reader ends at once.
    assert_eq!(run(&*at, &["cat"]).exit_code, Some(0));
    let mut echo = order(&["cat"], 60_000, 2 << 20);
    echo.stdin = Some(vec![b'a'; 1 << 20]);
    let echoed = at.exec(&echo).unwrap();
    assert_eq!((echoed.stdout.len(), echoed.truncated_bytes), (1 << 20, 0));
    let mut unread = order(&["true"], 60_000, 100);
    unread.stdin = Some(vec![b'a'; 1 << 20]);
    assert_eq!(at.exec(&unread).unwrap().exit_code, Some(0));
    // A command of a megabyte; and one word that no kernel takes.
    let word = "x".repeat(100_000);
    let many = [
        &["sh", "-c", "echo $#; exit 7", "sh"][..],
        &[word.as_str(); 10],
    ]
    .concat();
    let many = run(&*at, &many);
    assert_eq!(
        (many.stdout.trim(), many.exit_code),
        ("10", Some(7)),
        "{}",
        many.stderr
    );
    let long = format!(": {}", "x".repeat(1 << 20));
    assert_eq!(run(&*at, &["sh", "-c", &long]).exit_code, Some(126));
    let mut env = order(&["sh", "-c", "echo $MARK $HOME; pwd"], 60_000, 1_000);
    env.env = vec![("MARK".into(), "a b=c".into())];
    assert_eq!(at.exec(&env).unwrap().stdout, "a b=c /tmp/home\n/testbed\n");
    let noisy = run(
        &*at,
        &[
            "python",
            "-c",
            "import sys\nfor s in (sys.stdout, sys.stderr): s.write('x' * 10**7)",
        ],
    );
    assert_eq!(noisy.truncated_bytes, 2 * (10_000_000 - 4_000));
    assert!(noisy.stdout.len() < 5_000 && noisy.stderr.len() < 5_000);
    let binary = python(&*at, "import os; os.write(1, bytes([65, 255, 66]))");
    assert_eq!(binary.stdout, "A\u{fffd}B");
    assert!(shell(&*at, "touch /tmp/x /dev/shm/y && test -w /tmp/home").exit_code == Some(0));
    at.close().unwrap();
}

fn nothing_goes_on(open: Open<'_>) {
    let at = open(&[], &[]);
    // A daemon of its own session that writes where we can see it.
    let daemon = "import os, subprocess, sys\n\
        script = 'while :; do echo x >> /testbed/beat; done'\n\
        subprocess.Popen(['sh', '-c', script], start_new_session=True)\n\
        while not os.path.exists('/testbed/beat'): pass\n\
        sys.exit(5)";
    let begin = Instant::now();
    let done = python(&*at, daemon);
    assert_eq!(
        (done.exit_code, done.timed_out),
        (Some(5), false),
        "{done:?}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(40),
        "its streams were waited for"
    );
    let size = || shell(&*at, "wc -c < beat").stdout;
    assert_eq!(size(), size(), "a daemon goes on after its command");
    let hang = "import subprocess, time\n\
        for _ in range(20): subprocess.Popen(['sleep', '3600'], start_new_session=True)\n\
        print('all', flush=True)\ntime.sleep(3600)";
    let hung = at
        .exec(&order(&["python", "-c", hang], 3_000, 100))
        .unwrap();
    assert!(hung.timed_out && hung.stdout == "all\n", "{hung:?}");
    let left = "import os\n\
        names = [open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit()]\n\
        print(sum('36' + '00' in name for name in names))";
    assert_eq!(python(&*at, left).stdout, "0\n");
    at.close().unwrap();
}

fn files_are_read_and_written(open: Open<'_>) {
    let at = open(&[], &["tests".into()]);
    assert_eq!(text(&*at, "a.py"), "x = 1\ny = 2\n");
    assert_eq!(text(&*at, "d/../d/b.py"), "z = 3\n");
    let refused = |path: &str| matches!(at.read(path).unwrap(), FileRead::Refused(_));
    for path in [
        "tests/test_a.py",
        "none",
        "d",
        "raw.bin",
        "",
        ".",
        "..",
        "a.py/x",
        "a\0b",
    ] {
        assert!(refused(path), "{path}");
    }
    let written = |path: &str, text: &str| at.write(path, text).unwrap() == FileWritten::Written;
    assert!(written("a.py", "x = 2\ny = 2\n") && written("new/deep/ü \"q\".txt", "1"));
    assert!(written("run.sh", "#!/bin/sh\necho again\n"));
    for path in ["d", "", "../x", "/etc/x", "a.py/x"] {
        assert!(!written(path, "x"), "{path}");
    }
    assert!(!written("large", &"x".repeat((4 << 20) + 1)));
    // Commands see it, may change it, and the mode has stayed.
    let seen = shell(
        &*at,
        "cat a.py; ./run.sh; echo more >> 'new/deep/ü \"q\".txt'; mkdir new/own; rm d/b.py",
    );
    assert_eq!(seen.stdout, "x = 2\ny = 2\nagain\n", "{seen:?}");
    assert_eq!(text(&*at, "new/deep/ü \"q\".txt"), "1more\n");
    let diff = at.diff().unwrap();
    for part in [
        "-x = 1\n+x = 2\n",
        "deleted file mode 100644\n--- a/d/b.py",
        "+echo again",
    ] {
        assert!(diff.contains(part), "{part}: {diff}");
    }
    assert!(
        !diff.contains("secret") && !diff.contains("test_a"),
        "{diff}"
    );
    at.close().unwrap();
}

fn patches_apply_whole_or_not_at_all(open: Open<'_>) {
    let bug = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n-x = 1\n+x = 9\n y = 2\n";
    let at = open(&[bug.to_owned()], &[]);
    assert_eq!(text(&*at, "a.py"), "x = 9\ny = 2\n");
    assert_eq!(at.diff().unwrap(), "", "the base is what was opened");
    let mend = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n-x = 9\n+x = 1\n y = 2\n\
        --- a/d/b.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-z = 3\n\
        --- /dev/null\n+++ b/new/n.py\n@@ -0,0 +1 @@\n+n = 1\n";
    assert_eq!(at.apply(mend).unwrap(), PatchApplied::Applied);
    let seen = shell(&*at, "cat a.py new/n.py; test -e d/b.py; echo $?");
    assert_eq!(seen.stdout, "x = 1\ny = 2\nn = 1\n1\n");
    let before = at.diff().unwrap();
    let half = "--- a/new/n.py\n+++ b/new/n.py\n@@ -1 +1 @@\n-n = 1\n+n = 2\n\
        --- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-nothing like it\n+x\n";
    assert!(matches!(at.apply(half).unwrap(), PatchApplied::Rejected(_)));
    assert_eq!(at.diff().unwrap(), before);
    at.close().unwrap();
}

/// Links, pipes and names that should confuse whoever reads the tree.
pub const MESS: &str = r#"
import os
os.symlink('/etc/passwd', 'link'); os.symlink('/', 'top'); os.symlink('..', 'd/up')
os.symlink('a.py', 'inner'); os.mkfifo('pipe'); os.link('a.py', 'second')
open('big', 'wb').truncate(100 << 20)
open(b'bad\xff\nname', 'w').close(); open('line\nbreak', 'w').write('x\n')
open('bin', 'wb').write(b'\xff\xfe\x00')
os.remove('d/b.py'); os.symlink('/etc/passwd', 'd/b.py')
os.remove('d/deep/c.txt'); os.mkdir('d/deep/c.txt')
os.makedirs('.git/hooks'); open('.git/config', 'w').write('[core]\n')
os.makedirs('__pycache__'); open('__pycache__/a.pyc', 'w').close()
open('new file', 'w').write('x\n'); open('run', 'w').write('x'); os.chmod('run', 0o700)
open('n' * 200, 'w').write('long\n'); os.chmod('a.py', 0o755)
os.mkdir('closed'); open('closed/inside', 'w').write('1\n'); os.chmod('closed', 0)
path = '/'.join(['d' * 20] * 70); os.makedirs(path); open(path[:200] + '_', 'w').write('deep\n')
print('made')
"#;

fn links_lead_nowhere(open: Open<'_>) {
    let at = open(&[], &[]);
    assert_eq!(python(&*at, MESS).stdout, "made\n");
    for path in [
        "link",
        "top/etc/passwd",
        "d/up/a.py",
        "pipe",
        "big",
        "bin",
        "d/b.py",
        "inner",
    ] {
        assert!(
            matches!(at.read(path).unwrap(), FileRead::Refused(_)),
            "{path}"
        );
    }
    for path in [
        "link",
        "top/tmp/evil",
        "d/up/evil",
        "pipe",
        "d/b.py",
        "closed",
    ] {
        assert!(
            matches!(at.write(path, "x").unwrap(), FileWritten::Refused(_)),
            "{path}"
        );
    }
    let patch = "--- /dev/null\n+++ b/good\n@@ -0,0 +1 @@\n+x\n\
        --- /dev/null\n+++ b/top/tmp/evil\n@@ -0,0 +1 @@\n+x\n";
    assert!(matches!(
        at.apply(patch).unwrap(),
        PatchApplied::Rejected(_)
    ));
    assert!(matches!(at.read("good").unwrap(), FileRead::Refused(_)));
    assert_eq!(shell(&*at, "ls /tmp/evil").exit_code, Some(2));
    at.close().unwrap();
}

/// What a back end's diff of that mess is: the same on all of them.
pub fn diff_of_a_mess(open: Open<'_>) -> String {
    let at = open(&[], &["tests".into()]);
    assert_eq!(python(&*at, MESS).stdout, "made\n");
    let diff = at.diff().unwrap();
    at.close().unwrap();
    diff
}

fn what_no_patch_takes_is_named(open: Open<'_>) {
    let at = open(&[], &["tests".into()]);
    let made = shell(
        &*at,
        "mkdir -p pkg/__pycache__ tests && touch pkg/__pycache__/a.pyc tests/mine && \
         printf '\\377\\0' > raw.bin && ln -s a.py link && truncate -s 5M big && \
         echo 'x = 3' > new.py && mkdir -p /tmp/deep/er && touch /tmp/deep/er/out.log /tmp/zz",
    );
    assert_eq!(made.exit_code, Some(0), "{made:?}");
    assert!(at.diff().unwrap().contains("new.py"));
    let used = at.close().unwrap();
    assert_eq!(
        used.scratch,
        [
            "big",
            "link",
            "pkg/__pycache__",
            "raw.bin",
            "/tmp/deep/er/out.log",
            "/tmp/zz"
        ]
    );
    // Many, with names that are hard to print.
    let at = open(&[], &[]);
    let script = "for n in range(300): open(f'/tmp/{n:03}\\n\\x1b', 'w').close()";
    assert_eq!(python(&*at, script).exit_code, Some(0));
    let used = at.close().unwrap();
    assert_eq!(used.scratch.len(), 100);
    assert_eq!(used.scratch[7], "/tmp/007\\n\\u{1b}");
    // Nothing made, nothing named.
    let at = open(&[], &[]);
    assert_eq!(run(&*at, &["true"]).exit_code, Some(0));
    assert_eq!(at.close().unwrap().scratch, [""; 0]);
}

fn closing_ends_everything(open: Open<'_>) {
    let at = open(&[], &[]);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let inside: Arc<dyn Sandbox> = at.clone();
        let running = scope.spawn(move || inside.exec(&order(&["sleep", "300"], 300_000, 10)));
        at.close().unwrap();
        assert_eq!(running.join().unwrap().unwrap_err().code, "GT-SANDBOX-GONE");
    });
    assert!(begin.elapsed() < Duration::from_secs(60));
    let again = at.exec(&order(&["true"], 1_000, 10)).unwrap_err();
    assert_eq!(again.code, "GT-SANDBOX-GONE");
    at.close().unwrap();
}

/// Not only commands fail on what was closed.
pub fn closed_is_gone(open: Open<'_>) {
    let at = open(&[], &[]);
    at.close().unwrap();
    assert_eq!(at.diff().unwrap_err().code, "GT-SANDBOX-GONE");
    assert_eq!(at.read("a.py").unwrap_err().code, "GT-SANDBOX-GONE");
    assert_eq!(at.write("n", "").unwrap_err().code, "GT-SANDBOX-GONE");
    assert_eq!(at.apply("").unwrap_err().code, "GT-SANDBOX-GONE");
}
