//! What is known to vary between two runs of the same command, by rules with stable
//! names. Data only; [`crate::normalise`] applies it.
//!
//! A rule has forms. A form says in which surroundings something stands, and its groups
//! are what varies there; all else, every other number above all, is compared as it is.
//!
//! | rule | what varies |
//! |---|---|
//! | `pytest-summary` | the seconds of pytest's last line, and the `=` that fill it up |
//! | `iso-8601` | `2024-01-31`, `2024-01-31T12:34:56.7Z`, `2024-01-31 12:34:56,789` |
//! | `rfc-2822` | `Wed, 31 Jan 2024 12:34:56 +0000`, in HTTP with `GMT` |
//! | `unix-date` | `Wed Jan 31 12:34:56 UTC 2024`, as `date`, `ctime` and git write it |
//! | `clock` | `12:34:56`, with fractions |
//! | `uuid-4` | a random UUID |
//! | `random-hex` | a random UUID without hyphens; the value of a `token`, `nonce`, `salt`, …; the name of a commit where git tells it |
//! | `temp-path` | the random part of `/tmp/tmpab12cd34`, `/tmp/pytest-of-x/pytest-12` |
//! | `object-at` | ` at 0x7f12…>` in the description of an object |
//! | `address` | an address of a library, a stack or a heap: `0x7f…`, `0x55…` |
//! | `pid` | `pid 123`, `[123] [INFO]` |
//! | `duration` | `0.03s`, `1.2 ms`, `took 15 ms`, `in 75.30s (0:01:15)` |
//!
//! **Never a rule**, for it is a real difference:
//! - the order of a set: sandboxes fix `PYTHONHASHSEED`, so a program that prints in
//!   another order does something else
//! - digests (md5, sha256, git's `index 1a2b..3c4d`): they name content
//! - counts, sizes, versions, line numbers, exit codes
//!
//! A rule that changes, comes or goes raises [`RULES_VERSION`].

use regex::Regex;
use std::sync::LazyLock;

/// Name and version of the rules, as it stands on the tape.
pub const RULES_VERSION: &str = "normalise/1";

/// Names of all rules, in order of declaration.
pub fn rule_names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(name, _)| *name)
}

/// [`RULES`], compiled once. (Every form compiles: a test says so.)
pub(crate) static FORMS: LazyLock<Vec<(&'static str, Vec<Regex>)>> = LazyLock::new(|| {
    let compiled = |forms: &&[&str]| forms.iter().flat_map(|form| Regex::new(form)).collect();
    RULES
        .iter()
        .map(|(name, forms)| (*name, compiled(forms)))
        .collect()
});

// A value stands alone: no letter, digit or sign of a longer number touches it. The
// angle brackets keep values that were named by `normalise` from making room for others.
macro_rules! before {
    () => {
        r"(?:^|[^0-9A-Za-z_.:+⟨⟩-])"
    };
}
macro_rules! after {
    () => {
        r"(?:$|[^0-9A-Za-z_.:+⟨⟩-]|[.:-](?:$|[^0-9A-Za-z_⟨⟩]))"
    };
}
macro_rules! day {
    () => {
        r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
    };
}
macro_rules! month {
    () => {
        r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    };
}
macro_rules! time {
    () => {
        r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    };
}
macro_rules! unit {
    () => {
        r"(?:s|secs?|seconds?|ms|msecs?|milliseconds?|us|µs|μs|microseconds?|ns|nanoseconds?)"
    };
}
macro_rules! decimal {
    () => {
        r"[0-9]+\.[0-9]+(?:e[+-]?[0-9]+)?"
    };
}
/// Around what is marked by its own form: letters and digits must not touch it.
macro_rules! apart {
    ($form:literal) => {
        concat!(r"(?:^|[^0-9A-Za-z⟨⟩])(", $form, r")(?:$|[^0-9A-Za-z⟨⟩])")
    };
}

/// Names and forms, in order of declaration: the earlier one takes what both would.
pub(crate) const RULES: &[(&str, &[&str])] = &[
    (
        "pytest-summary",
        &[r"^(=+) [^=].* in ([0-9]+\.[0-9]+s(?: \([0-9]+:[0-5][0-9]:[0-5][0-9]\))?) (=+)$"],
    ),
    (
        "iso-8601",
        &[
            concat!(
                before!(),
                r"([12][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])",
                r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?",
                r"(?:Z| ?[+-][0-9]{2}:?[0-9]{2})?)?)",
                after!()
            ),
            apart!("[12][0-9]{3}[01][0-9][0-3][0-9]T[0-2][0-9][0-5][0-9][0-5][0-9]Z?"),
        ],
    ),
    (
        "rfc-2822",
        &[concat!(
            before!(),
            "(",
            day!(),
            ", [ 0-3]?[0-9] ",
            month!(),
            " [12][0-9]{3} ",
            time!(),
            " (?:[+-][0-9]{4}|GMT|UTC))",
            after!()
        )],
    ),
    (
        "unix-date",
        &[
            concat!(
                before!(),
                "(",
                day!(),
                " ",
                month!(),
                " [ 0-3][0-9] ",
                time!(),
                "(?: [AP]M)?(?: (?:[A-Z]{3,5}|[+-][0-9]{2,4}))? [12][0-9]{3}(?: [+-][0-9]{4})?)",
                after!()
            ),
            concat!(
                before!(),
                "(",
                day!(),
                " [ 0-3]?[0-9] ",
                month!(),
                " [12][0-9]{3} ",
                time!(),
                "(?: [AP]M)?(?: (?:[A-Z]{3,5}|[+-][0-9]{2,4}))?)",
                after!()
            ),
        ],
    ),
    (
        "clock",
        // Behind a bracket only where a line of a log begins: `a[10:20:30]` is a slice.
        &[concat!(
            r#"(?:^|[ \t,;("'=>]|^[ \t]*\[)("#,
            time!(),
            "(?:[.,][0-9]{1,9})?(?: [AP]M)?)",
            after!()
        )],
    ),
    (
        "uuid-4",
        &[apart!(
            "(?i:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"
        )],
    ),
    (
        "random-hex",
        &[
            apart!("[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}"),
            concat!(
                r"(?:^|[^0-9A-Za-z⟨⟩])(?i:token|nonce|salt|secret|session|request[ _-]?id|",
                r#"run[ _-]?id|trace[ _-]?id)["']?[=: ]{1,2}["']?([0-9a-f]{16,128})"#,
                r"(?:$|[^0-9A-Za-z⟨⟩])"
            ),
            r"^commit ([0-9a-f]{40})(?:$|[ \r])",
            r"^\[[^ \]]+(?: \(root-commit\))? ([0-9a-f]{7,40})\] ",
            r"^HEAD is now at ([0-9a-f]{7,40}) ",
        ],
    ),
    (
        "temp-path",
        &[concat!(
            r"(?:^|[^0-9A-Za-z_./⟨⟩-])(?:/private)?(?:/var)?/tmp/",
            r"(tmp[0-9A-Za-z_]{4,12}|tmp\.[0-9A-Za-z]{6,12}|",
            r"pytest-of-[0-9A-Za-z._-]+/pytest-[0-9]+)(?:$|[^0-9A-Za-z_⟨⟩-])"
        )],
    ),
    ("object-at", &[r" at (0x[0-9A-Fa-f]{4,16})>"]),
    (
        "address",
        &[concat!(
            before!(),
            "(0x(?:0{4})?(?:7[ef]|5[56])[0-9A-Fa-f]{10})",
            after!()
        )],
    ),
    (
        "pid",
        &[
            concat!(
                before!(),
                "(?i:pid|process id)[ =:]{1,2}([0-9]{1,7})",
                after!()
            ),
            r"(?:^|[ \t])\[([0-9]{1,7})\] \[(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\]",
        ],
    ),
    (
        "duration",
        &[
            concat!(
                before!(),
                r"((?:[0-9]+m)?",
                decimal!(),
                " ?",
                unit!(),
                r"(?: \([0-9]+:[0-5][0-9]:[0-5][0-9]\))?)",
                after!()
            ),
            // Whole numbers only where a word says that it was measured.
            concat!(
                before!(),
                "(?i:took|elapsed:?) ?([0-9]+ ?",
                unit!(),
                ")",
                after!()
            ),
            concat!(before!(), "in ([0-9]+ ?(?:ms|us|µs|μs|ns))", after!()),
        ],
    ),
];

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
