//! What each rule takes, and what it must leave alone.

use super::*;
use crate::normalise::{Agreement, compare};

#[test]
fn every_form_compiles_and_says_what_varies() {
    let mut names: Vec<&str> = rule_names().collect();
    assert_eq!(names.len(), FORMS.len());
    for ((name, forms), (_, compiled)) in RULES.iter().zip(FORMS.iter()) {
        assert_eq!(forms.len(), compiled.len(), "a form of {name} is no regex");
        for form in compiled {
            assert!(form.captures_len() > 1, "{name}: nothing varies in {form}");
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len(), "names are unique");
}

#[test]
fn the_table_in_the_documentation_is_the_one_of_the_rules() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page
        .split("\n## ")
        .find(|part| part.starts_with("Resume\n"));
    for text in [include_str!("rules.rs"), section.unwrap()] {
        let rows = text.lines().filter_map(|line| {
            let row = line.trim_start_matches("//! ").strip_prefix("| `")?;
            row.split('`').next()
        });
        assert_eq!(rows.collect::<Vec<_>>(), rule_names().collect::<Vec<_>>());
    }
}

/// Pairs that agree under just this rule.
const VARIES: &[(&str, &str, &str)] = &[
    (
        "pytest-summary",
        "======== 3 passed in 0.12s ========",
        "======= 3 passed in 10.12s ========",
    ),
    (
        "pytest-summary",
        "===== 1 failed, 3 passed in 59.98s =====",
        "=== 1 failed, 3 passed in 60.02s (0:01:00) ===",
    ),
    ("iso-8601", "built 2024-01-31.", "built 2025-12-01."),
    (
        "iso-8601",
        "2024-01-31T12:34:56.789Z",
        "2024-01-31T12:34:57Z",
    ),
    (
        "iso-8601",
        "2024-01-31 12:34:56,789 INFO",
        "2024-02-01 00:00:00,001 INFO",
    ),
    (
        "iso-8601",
        "(2024-01-31T12:34+01:00)",
        "(2024-01-31T12:35+01:00)",
    ),
    (
        "iso-8601",
        "log-20240131T123456Z.txt",
        "log-20240131T123457Z.txt",
    ),
    (
        "rfc-2822",
        "Date: Wed, 31 Jan 2024 12:34:56 +0000",
        "Date: Thu, 1 Feb 2024 12:34:56 +0000",
    ),
    (
        "rfc-2822",
        "Wed, 31 Jan 2024 12:34:56 GMT",
        "Wed, 31 Jan 2024 12:34:57 GMT",
    ),
    (
        "unix-date",
        "Wed Jan 31 12:34:56 UTC 2024",
        "Thu Feb  1 12:34:56 UTC 2024",
    ),
    (
        "unix-date",
        "Wed Jan 31 12:34:56 2024 +0100",
        "Wed Jan 31 12:34:59 2024 +0100",
    ),
    (
        "unix-date",
        "Wed 31 Jan 2024 12:34:56 PM UTC",
        "Thu 1 Feb 2024 01:34:56 AM UTC",
    ),
    (
        "clock",
        "12:34:56 start 12:34:57 end",
        "12:34:58 start 12:35:00 end",
    ),
    ("clock", "[12:34:56] start", "[12:34:57] start"),
    ("clock", "at=12:34:56.123456;", "at=12:34:56.9;"),
    (
        "uuid-4",
        "id_123e4567-e89b-42d3-a456-426614174000",
        "id_00000000-0000-4000-8000-000000000000",
    ),
    (
        "random-hex",
        "/srv/123e4567e89b42d3a456426614174000.db",
        "/srv/00000000000040008000000000000000.db",
    ),
    (
        "random-hex",
        "token=0123456789abcdef0123",
        "token=fedcba98765432100123",
    ),
    (
        "random-hex",
        "[main (root-commit) 1a2b3c4] first",
        "[main (root-commit) 5d6e7f8] first",
    ),
    (
        "random-hex",
        "commit 0123456789012345678901234567890123456789",
        "commit 0123456789012345678901234567890123456780",
    ),
    (
        "temp-path",
        "open('/tmp/tmpab12cd34/a.py')",
        "open('/tmp/tmp_x9y8z7w/a.py')",
    ),
    ("temp-path", "/tmp/tmpabcd", "/tmp/tmpwxyz"),
    ("temp-path", "/tmp/tmp.Ab3dE5gH7i", "/tmp/tmp.zzzzzzzzzz"),
    (
        "temp-path",
        "rootdir: /tmp/pytest-of-x/pytest-12/a0",
        "rootdir: /tmp/pytest-of-x/pytest-3/a0",
    ),
    (
        "object-at",
        "<function f at 0x1c3a5e0>",
        "<function f at 0x7f1234567890>",
    ),
    (
        "address",
        "Thread 0x00007f1234567890 (most recent call first):",
        "Thread 0x00007fabcdef0123 (most recent call first):",
    ),
    ("address", "heap 0x55d0c0ffee00,", "heap 0x560123456789,"),
    ("pid", "killed pid 123", "killed pid 4567"),
    ("pid", "(PID: 12)", "(PID: 345)"),
    ("pid", "[12] [INFO] ready", "[3456] [INFO] ready"),
    ("duration", "Ran 3 tests in 0.004s", "Ran 3 tests in 12.5s"),
    (
        "duration",
        "3 passed in 0.12s",
        "3 passed in 61.20s (0:01:01)",
    ),
    (
        "duration",
        "loop: 1.2 ms, best 3.4 µs",
        "loop: 10.25 ms, best 5.0 µs",
    ),
    ("duration", "real\t0m0.003s", "real\t1m2.500s"),
    ("duration", "took 15 ms", "took 7 ms"),
    ("duration", "done in 15ms", "done in 7ms"),
];

#[test]
fn each_rule_takes_its_forms() {
    for (rule, was, is) in VARIES {
        assert_eq!(
            compare(was, is),
            Agreement::Under(vec![rule]),
            "{was}\n{is}"
        );
        // A number beside the value still counts.
        let (was, is) = (format!("3 {was}"), format!("4 {is}"));
        let found = compare(&was, &is);
        assert!(matches!(found, Agreement::Differs(_)), "{was}: {found:?}");
    }
    for rule in rule_names() {
        assert!(VARIES.iter().any(|(name, ..)| *name == rule), "{rule}");
    }
}

/// Pairs that must be seen to differ.
const NEAR_MISSES: &[(&str, &str)] = &[
    // Numbers of tests, lines, sizes, codes, versions.
    ("assert 3 == 4", "assert 3 == 5"),
    ("assert 0.3 == 0.4", "assert 0.3 == 0.5"),
    ("m.py:12: AssertionError", "m.py:13: AssertionError"),
    ("m.py:12:34: E501", "m.py:12:35: E501"),
    (
        "  File \"m.py\", line 3, in f",
        "  File \"m.py\", line 4, in f",
    ),
    ("0 passed in 0.01s", "1 passed in 0.01s"),
    ("=== 3 passed in 0.12s ===", "=== 4 passed in 0.12s ==="),
    ("=== 3 passed ===", "==== 3 passed ===="),
    ("Ran 3 tests in 0.004s", "Ran 4 tests in 0.004s"),
    ("-rw-r--r-- 1 u u 1234 m.py", "-rw-r--r-- 1 u u 1235 m.py"),
    ("exit code 1", "exit code 2"),
    ("toolz 1.0.1", "toolz 1.0.2"),
    ("version 2024.1.31", "version 2024.1.30"),
    ("12 seconds", "13 seconds"),
    ("timeout=30s", "timeout=60s"),
    ("in 3 seconds", "in 4 seconds"),
    ("12.5 kB", "12.6 kB"),
    ("0.5sx", "0.6sx"),
    ("x1.5s", "x1.6s"),
    ("-1.5s", "-2.5s"),
    ("1.5.2s", "1.6.2s"),
    // Times that are none.
    ("a[10:20:30]", "a[10:20:40]"),
    ("1:2:3", "1:2:4"),
    ("12:34", "12:35"),
    ("12:34:61", "12:34:62"),
    ("aa:12:34:56", "aa:12:34:57"),
    ("12:34:56:78", "12:34:57:78"),
    ("2024-13-31", "2024-14-31"),
    ("2024-01-311", "2024-01-312"),
    ("12024-01-31", "12024-01-30"),
    ("20240131", "20240130"),
    ("Mon Jan 31", "Tue Feb 1"),
    // A time is no duration, and no other rule's value.
    ("at 12:34:56", "at 1.2 ms"),
    ("at 12:34:56", "at ⟨clock⟩"),
    ("at 12:34:56", "at "),
    // Hexadecimal numbers, digests.
    ("x = 0xff", "x = 0xfe"),
    ("x = 0xdeadbeef", "x = 0xdeadbeee"),
    ("x = 0x7f12", "x = 0x7f13"),
    ("x at 0xdeadbeef", "x at 0xdeadbeee"),
    (
        "d41d8cd98f00b204e9800998ecf8427e",
        "0cc175b9c0f1b6a831c399e269772661",
    ),
    (
        "index 83db48f..bf2a9d1 100644",
        "index 83db48f..bf2a9d2 100644",
    ),
    (
        "123e4567-e89b-12d3-a456-426614174000",
        "123e4567-e89b-12d3-a456-426614174001",
    ),
    ("commit 1234567", "commit 1234568"),
    ("token=123", "token=124"),
    // Process ids that are not marked, indexes that look like it.
    ("killed 123", "killed 124"),
    ("values[3]: 1", "values[4]: 1"),
    ("[3] 1", "[4] 1"),
    ("pid = 3", "pid = 4"),
    ("rapid 3", "rapid 4"),
    // Paths that somebody chose.
    ("/tmp/a1/m.py", "/tmp/a2/m.py"),
    ("/srv/tmp/tmpab12cd34", "/srv/tmp/tmpab12cd35"),
    ("/tmp/pytest-of-x/m1", "/tmp/pytest-of-x/m2"),
    ("/tmp/tmpab12cd34/1", "/tmp/tmpab12cd34/2"),
    // The order of a set.
    ("{'a', 'b'}", "{'b', 'a'}"),
    // White space and line ends.
    ("a b", "a  b"),
    ("a\n", "a"),
    ("a\r\n", "a\n"),
];

#[test]
fn what_only_looks_like_it_is_compared_as_it_is() {
    for (was, is) in NEAR_MISSES {
        let found = compare(was, is);
        assert!(matches!(found, Agreement::Differs(_)), "{was:?}: {found:?}");
        assert!(matches!(compare(is, was), Agreement::Differs(_)), "{is:?}");
    }
}
