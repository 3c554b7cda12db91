//! What an agent may try inside a container: each is contained, and the sandbox is of use
//! afterwards.

use crate::rooms::{docker_with, engine, order, python, run, shell};
use crate::tries;
use gametape_environment::docker::settings::Space;
use gametape_environment::docker::{Bounds, DockerSandbox};
use gametape_environment::sandbox::Sandbox;
use gametape_schemas::message::{FileRead, FileWritten};

fn small() -> Bounds {
    Bounds {
        memory_mib: 256,
        processes: 40,
        repository: Space {
            mib: 16,
            inodes: 500,
        },
        tmp: Space {
            mib: 16,
            inodes: 500,
        },
        shm: Space {
            mib: 8,
            inodes: 100,
        },
        ..Bounds::default()
    }
}

/// A sandbox with little room, or a loud skip.
fn tight(test: &str) -> Option<DockerSandbox> {
    let (engine, image) = engine(test)?;
    Some(docker_with(&engine, &image, small(), &[], &[]))
}

/// It still does what it is for, and nothing of before is left.
fn is_well(at: &DockerSandbox) {
    let after = shell(at, "cat d/b.py");
    assert_eq!(
        (after.exit_code, after.stdout.as_str()),
        (Some(0), "z = 3\n"),
        "{after:?}"
    );
    let left = "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))";
    // docker-init, what keeps the container open, the shell around, its half, and Python.
    let count: u32 = python(at, left).stdout.trim().parse().unwrap();
    assert!(count <= 5, "{count} processes");
    assert!(matches!(at.read("a.py").unwrap(), FileRead::Text(_)));
}

#[test]
fn a_fork_bomb_stays_within_its_limit() {
    let Some(at) = tight("a_fork_bomb_stays_within_its_limit") else {
        return;
    };
    at.write("a.py", "kept = 1\n").unwrap();
    let bomb = "import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.01)";
    let bomb = at
        .exec(&order(&["python", "-c", bomb], 3_000, 1_000))
        .unwrap();
    assert!(bomb.timed_out, "{bomb:?}");
    is_well(&at);
    assert_eq!(
        at.read("a.py").unwrap(),
        FileRead::Text("kept = 1\n".into())
    );
    let usage = at.usage();
    // What the engine itself puts in beside it is counted, too.
    assert!(
        (35..60).contains(&usage.processes) && usage.cpu_us > 100_000,
        "{usage:?}"
    );
    at.close().unwrap();
}

#[test]
fn a_killer_of_its_own_kind_is_ended() {
    let Some(at) = tight("a_killer_of_its_own_kind_is_ended") else {
        return;
    };
    // It kills the shell around it, and whatever of its user comes to kill it.
    let killer = "import os, subprocess, sys\n\
        loop = 'import os\\nwhile True:\\n try: os.kill(-1, 9)\\n except OSError: pass'\n\
        subprocess.Popen([sys.executable, '-c', loop], start_new_session=True)\n\
        import time; time.sleep(60)";
    let ended = at
        .exec(&order(&["python", "-c", killer], 30_000, 1_000))
        .unwrap();
    assert_eq!(ended.exit_code, None, "{ended:?}");
    is_well(&at);
    at.close().unwrap();
}

#[test]
fn memory_ends_where_its_limit_is() {
    let Some(at) = tight("memory_ends_where_its_limit_is") else {
        return;
    };
    let hog = python(&at, "x = bytearray(1 << 30); print('had it')");
    assert!(hog.exit_code != Some(0) && hog.stdout.is_empty(), "{hog:?}");
    is_well(&at);
    let usage = at.usage();
    assert!(usage.oom_kills > 0, "{usage:?}");
    assert!(usage.peak_memory_bytes <= 256 << 20 && usage.peak_memory_bytes > 200 << 20);
    at.close().unwrap();
}

#[test]
fn no_file_system_can_be_filled_for_long() {
    let Some(at) = tight("no_file_system_can_be_filled_for_long") else {
        return;
    };
    for (place, mib) in [("/tmp", 16), ("/dev/shm", 8), ("/testbed", 16)] {
        let fill = format!("head -c 1G /dev/zero > {place}/fill; wc -c < {place}/fill");
        let fill = shell(&at, &fill);
        let size: u64 = fill.stdout.trim().parse().unwrap();
        assert!(
            size <= mib << 20 && fill.stderr.contains("No space left"),
            "{place}: {fill:?}"
        );
        if place == "/testbed" {
            let full = at.write("more", &"x".repeat(1 << 20)).unwrap();
            assert!(matches!(full, FileWritten::Refused(_)), "{full:?}");
        }
        let count = shell(
            &at,
            &format!(
                "rm {place}/fill; mkdir {place}/many; cd {place}/many && seq 1 2000 | xargs touch 2>/dev/null; ls | wc -l; cd /; rm -r {place}/many"
            ),
        );
        let count: u64 = count.stdout.trim().parse().unwrap();
        assert!(count < 500, "{place}: {count} files");
    }
    for place in ["/usr/x", "/etc/x", "/venv/x", "/x", "/run/x", "/var/x"] {
        assert_ne!(
            shell(&at, &format!("echo x > {place}")).exit_code,
            Some(0),
            "{place}"
        );
    }
    is_well(&at);
    at.close().unwrap();
}

#[test]
fn sparse_files_do_not_blow_up_a_look() {
    let Some(at) = tight("sparse_files_do_not_blow_up_a_look") else {
        return;
    };
    let sparse = "for n in range(20): open(f's{n}', 'w').truncate(200 << 20)\n\
        open('kept.py', 'w').write('1\\n')";
    assert_eq!(python(&at, sparse).exit_code, Some(0));
    let diff = at.diff().unwrap();
    assert!(diff.contains("kept.py") && !diff.contains("s1"), "{diff}");
    assert_eq!(
        at.read("s3").unwrap(),
        FileRead::Refused("too large: s3".into())
    );
    at.close().unwrap();
}

#[test]
fn output_without_an_end_is_bounded() {
    let Some(at) = tight("output_without_an_end_is_bounded") else {
        return;
    };
    let endless = at.exec(&order(&["yes"], 2_000, 1_000)).unwrap();
    assert!(
        endless.timed_out && endless.truncated_bytes > 1 << 20,
        "{endless:?}"
    );
    assert!(endless.stdout.len() < 2_000);
    is_well(&at);
    at.close().unwrap();
}

/// What is tried beside the calls that every back end refuses.
const MORE_CALLS: &str = r#"
try:
    socket.socket(17, socket.SOCK_RAW); print('packet ALLOWED')
except OSError:
    print('packet denied')
try:
    os.kill(1, 9); print('init ALLOWED')
except PermissionError:
    print('init denied')
"#;
const MORE_LINES: usize = 2;

#[test]
fn calls_that_lead_out_are_denied() {
    let Some(at) = tight("calls_that_lead_out_are_denied") else {
        return;
    };
    if cfg!(target_arch = "x86_64") {
        let script = [tries::DENIED, tries::CALLS, MORE_CALLS].concat();
        let calls = python(&at, &script);
        let lines = tries::CALLS_LINES + MORE_LINES;
        assert_eq!(calls.stdout.lines().count(), lines, "{calls:?}");
        assert!(!calls.stdout.contains("ALLOWED"), "{}", calls.stdout);
    }
    assert_ne!(run(&at, &["unshare", "-Ur", "true"]).exit_code, Some(0));
    assert_ne!(
        run(&at, &["mount", "-t", "tmpfs", "x", "/tmp"]).exit_code,
        Some(0)
    );
    let look = "print([l.split()[1] for l in open('/proc/self/status') \
        if l.startswith(('CapEff', 'CapPrm', 'CapBnd', 'NoNewPrivs', 'Uid', 'Seccomp:'))])";
    let zero = "0000000000000000";
    assert_eq!(
        python(&at, look).stdout.trim(),
        format!("['61000', '{zero}', '{zero}', '{zero}', '1', '2']")
    );
    at.close().unwrap();
}

#[test]
fn nothing_of_the_host_is_seen() {
    let Some(at) = tight("nothing_of_the_host_is_seen") else {
        return;
    };
    for (what, attack) in [
        ("secrets", "open('/etc/shadow').read()"),
        (
            "the engine",
            "import socket; s = socket.socket(1); s.connect('/var/run/docker.sock')",
        ),
        ("users", "import os; assert os.listdir('/home')"),
        ("packages", "import pip"),
        (
            "network",
            "import socket; socket.create_connection(('192.0.2.1', 80), 5)",
        ),
        (
            "names",
            "import socket; socket.getaddrinfo('example.org', 80)",
        ),
        (
            "interfaces",
            "import socket; assert len(socket.if_nameindex()) > 1",
        ),
        (
            "disks",
            "import os; assert [d for d in os.listdir('/dev') if d.startswith(('sd', 'vd', 'nvme'))]",
        ),
    ] {
        let tried = python(&at, attack);
        assert_ne!(tried.exit_code, Some(0), "{what}: {tried:?}");
    }
    let away = python(
        &at,
        "import socket; socket.create_connection(('192.0.2.1', 80), 5)",
    );
    assert!(away.stderr.contains("Network is unreachable"), "{away:?}");
    let env = run(&at, &["env"]).stdout;
    assert!(!env.contains("GAMETAPE") && !env.contains("CARGO"), "{env}");
    at.close().unwrap();
}
