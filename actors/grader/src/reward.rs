//! Harbor's way: files go to `/tests`, `test.sh` among them runs, and what it leaves in
//! `/logs/verifier` is the reward. A missing reward is a failure of ours, never 0.

use crate::execute::Bench;
use gametape_schemas::{Failure, FailureKind};
use std::collections::BTreeMap;

/// Runs the tests; where they lie, as Harbor does.
pub(crate) const RUN: &str = "bash /tests/test.sh\n";

const MAKE: &str = "mkdir -p /tests /logs/verifier && exec tar -xf - -C /tests";
const READ: &str = "cd /logs/verifier && if [ -f reward.json ]; then printf 'json '; \
                    head -c 65536 reward.json; elif [ -f reward.txt ]; then printf 'txt '; \
                    head -c 65536 reward.txt; fi";

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Sandbox, "GT-GRADE-REWARD", message)
        .with_help("see docs/errors/GT-GRADE-REWARD.md")
}

fn words(argv: [&str; 3]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

/// Puts the files below `/tests`.
///
/// # Errors
/// `GT-GRADE-REWARD` when a name leads elsewhere or the sandbox has no room there.
pub(crate) async fn upload(
    bench: &Bench<'_>,
    files: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let archive = archive(files)?;
    let argv = words(["sh", "-c", MAKE]);
    let done = bench.exec_bytes(&argv, Some(archive), vec![]).await?;
    if done.exit_code != Some(0) {
        let said = crate::execute::tail(&done.stdout, &done.stderr);
        return Err(failed(format!("files cannot be put to /tests: {said}")));
    }
    Ok(())
}

/// The reward that was left, in thousandths.
///
/// # Errors
/// `GT-GRADE-REWARD` when there is none, or none that can be read.
pub(crate) async fn read(bench: &Bench<'_>) -> Result<i64, Failure> {
    let argv = words(["sh", "-c", READ]);
    let done = bench.exec(&argv, None, vec![]).await?;
    parse(&done.stdout).map_err(failed)
}

fn archive(files: &BTreeMap<String, String>) -> Result<Vec<u8>, Failure> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_plain {
            return Err(failed(format!("{path} does not lie below /tests")));
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if path.ends_with(".sh") { 0o755 } else { 0o644 });
        tar.append_data(&mut header, path, content.as_bytes())
            .map_err(|e| failed(format!("{path}: {e}")))?;
    }
    tar.into_inner().map_err(|e| failed(e.to_string()))
}

/// `txt 0.5` or `json {"reward": 1}` → thousandths. In words, why not.
fn parse(said: &str) -> Result<i64, String> {
    let missing = || "the tests left no reward in /logs/verifier".to_owned();
    let value = match said.split_once(' ').ok_or_else(missing)? {
        ("txt", text) => text
            .trim()
            .parse::<f64>()
            .map_err(|_| format!("reward.txt holds no number: {text:.80}"))?,
        ("json", text) => {
            let value: serde_json::Value =
                serde_json::from_str(text).map_err(|e| format!("reward.json: {e}"))?;
            of_json(&value)
                .ok_or_else(|| format!("reward.json holds no reward: {:.80}", value.to_string()))?
        }
        _ => return Err(missing()),
    };
    if !value.is_finite() || value.abs() > 1e9 {
        return Err(format!("the reward is no number to work with: {value}"));
    }
    // Below a thousandth nothing is told apart; rounding down grants nothing.
    Ok((value * 1000.0 + 1e-6).floor() as i64)
}

/// A number; or the one named `reward`; or the only one.
fn of_json(value: &serde_json::Value) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    let object = value.as_object()?;
    if let Some(reward) = object.get("reward") {
        return reward.as_f64();
    }
    let mut numbers = object.values().filter_map(serde_json::Value::as_f64);
    let first = numbers.next()?;
    numbers.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rewards_are_read_and_a_missing_one_is_no_zero() {
        for (said, milli) in [
            ("txt 1\n", 1000),
            ("txt 0.3\n", 300),
            ("txt 0\n", 0),
            ("json {\"reward\": 0.25, \"other\": 1}", 250),
            ("json {\"accuracy\": 1.0, \"note\": \"x\"}", 1000),
            ("json 1", 1000),
        ] {
            assert_eq!(parse(said), Ok(milli), "{said}");
        }
        for said in [
            "",
            "txt ",
            "txt nan",
            "txt one",
            "json {}",
            "json {\"a\": 1, \"b\": 2}",
            "json {",
            "json {\"reward\": \"1\"}",
        ] {
            assert!(parse(said).is_err(), "{said}");
        }
    }

    #[test]
    fn files_stay_below_tests() {
        let one = |path: &str| BTreeMap::from([(path.to_owned(), "x".to_owned())]);
        assert!(archive(&one("a/test.sh")).is_ok());
        for path in ["../x", "/etc/x", "a//b", ""] {
            assert_eq!(archive(&one(path)).unwrap_err().code, "GT-GRADE-REWARD");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_read_without_panic(said in "(txt|json)? ?[-{}\":a-z0-9.e]{0,20}") {
            let _ = parse(&said);
        }
    }
}
