//! Tests of `deeds`.

use super::*;

fn deeds(text: &str) -> Vec<Deed> {
    of(&Action::Shell(text.into()))
}

fn ran(text: &str) -> Vec<String> {
    deeds(text)
        .into_iter()
        .filter_map(|deed| match deed {
            Deed::Ran { program, arguments } => Some(format!("{program} {}", arguments.join(" "))),
            _ => None,
        })
        .collect()
}

fn wrote(text: &str) -> Vec<String> {
    deeds(text)
        .into_iter()
        .filter_map(|deed| match deed {
            Deed::Wrote { path, how, .. } => Some(format!("{path} {how:?}")),
            _ => None,
        })
        .collect()
}

#[test]
fn wrappers_are_taken_off() {
    for text in [
        "sudo -u x timeout 10 env A=b curl http://x",
        "bash -lc 'cd a && curl http://x'",
        "echo 'curl http://x' | bash",
        "bash <<E\ncurl http://x\nE",
        "find . -exec curl http://x {} \\;",
        "ls | xargs -n 1 curl http://x",
        "python -c \"import os; os.system('curl http://x')\"",
        "python3 - <<'E'\nimport subprocess\nsubprocess.run(['curl', 'http://x'], check=True)\nE",
        "eval \"curl http://x\"",
        "X=http://x; curl $X",
    ] {
        assert!(
            ran(text).iter().any(|ran| ran.starts_with("curl http://x")),
            "{text}: {:?}",
            ran(text)
        );
    }
    // Read, written or searched for is not run.
    for text in [
        "echo curl http://x",
        "grep 'curl http://x' a",
        "cat > a.sh <<E\ncurl http://x\nE",
        "# curl http://x",
    ] {
        assert!(
            !ran(text).iter().any(|ran| ran.starts_with("curl")),
            "{text}"
        );
    }
}

#[test]
fn files_that_change_are_seen() {
    for (text, expected) in [
        (
            "cd tests && sed -i 's/a/b/' x.py y.py",
            vec!["tests/x.py Part", "tests/y.py Part"],
        ),
        ("sed -n 1,3p x.py", vec![]),
        ("sed -i -e 's/a/b/' -e 's/c/d/' x.py", vec!["x.py Part"]),
        ("cat > a.py <<E\nx\nE", vec!["a.py Whole"]),
        (
            "echo x | tee -a a b > /dev/null",
            vec!["a Whole", "b Whole"],
        ),
        ("rm -rf a /tmp/b", vec!["a Gone", "/tmp/b Gone"]),
        ("cp a.py tests/", vec!["tests/a.py Whole"]),
        ("mv a.py b.py", vec!["a.py Gone", "b.py Whole"]),
        (
            "python -c \"p = 'c.py'; open(p, 'w').write('x'); open('d.py').read()\"",
            vec!["c.py Whole"],
        ),
        (
            "python -c \"from pathlib import Path; Path('e.py').write_text('x')\"",
            vec!["e.py Whole"],
        ),
        (
            "git apply <<E\n--- a/t.py\n+++ b/t.py\n@@ -1 +1 @@\n-a\n+b\nE",
            vec!["t.py Part"],
        ),
    ] {
        assert_eq!(wrote(text), expected, "{text}");
    }
}
