use super::super::apply_to;
use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};

fn snapshot(before: &str) -> Snapshot {
    Snapshot::from([("x".to_owned(), Entry::plain(before.as_bytes()))])
}

/// What our chain makes of `x`, and by which step.
fn ours(before: &str, patch: &str) -> Result<(String, String), String> {
    let mut files = snapshot(before);
    let found = fitted(patch, |path| Ok(files.get(path).cloned()))?;
    apply_to(&mut files, &found.exact)?;
    let bytes = files.get("x").map_or(Vec::new(), |e| e.bytes.to_vec());
    Ok((String::from_utf8(bytes).unwrap(), found.step))
}

/// What the real program makes of it; `None` when it refuses.
fn theirs(program: &[&str], before: &str, patch: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), before).unwrap();
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(patch.as_bytes())
        .unwrap();
    child.wait().unwrap().success().then(|| {
        let bytes = std::fs::read(dir.path().join("x")).unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    })
}

const PATCH: &[&str] = &["patch", "--batch", "--forward", "--fuzz=5", "-p1"];
const GIT: &[&str] = &["git", "apply"];

fn is_there(test: &str, program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: {test}: no `{program}` on this machine");
    }
    there
}

const HUNK: &str = "--- a/x\n+++ b/x\n@@ -2,5 +2,5 @@\n b\n c\n-d\n+D\n e\n f\n";

#[test]
fn context_at_the_ends_may_differ_and_the_files_own_stays() {
    let (text, step) = ours("a\nB\nc\nd\ne\nF\ng\n", HUNK).unwrap();
    assert_eq!(text, "a\nB\nc\nD\ne\nF\ng\n");
    assert_eq!(step, "`patch --fuzz=5`, with fuzz 1");
    let error = ours("a\nb\nc\nX\ne\nf\n", HUNK).unwrap_err();
    assert!(error.contains("does not apply"), "{error}");
}

#[test]
fn a_diff_that_is_there_already_is_told_from_one_that_fits() {
    let (text, step) = ours("a\nb\nc\nD\ne\nf\n", HUNK).unwrap();
    assert_eq!(
        (text.as_str(), step.as_str()),
        ("a\nb\nc\nD\ne\nf\n", "it is there already")
    );
    let made = "--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+a\n+b\n";
    assert_eq!(ours("a\nb\n", made).unwrap().1, "it is there already");
    assert!(ours("a\nc\n", made).is_err());
    let added = "--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n a\n+n\n b\n";
    assert_eq!(ours("a\nn\nb\n", added).unwrap().1, "it is there already");
}

#[test]
fn line_ends_and_what_is_no_text_are_told_in_words() {
    let crlf = HUNK.replace('\n', "\r\n");
    assert_eq!(
        ours("a\nb\nc\nd\ne\nf\n", &crlf).unwrap().0,
        "a\nb\nc\nD\ne\nf\n"
    );
    // Carriage returns of the file itself are content.
    let body = "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\r\n-b\r\n+B\r\n c\r\n";
    assert_eq!(ours("Z\r\nb\r\nc\r\n", body).unwrap().0, "Z\r\nB\r\nc\r\n");
    let binary = "diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 1\n";
    assert!(ours("a\n", binary).unwrap_err().contains("binary"));
    let mut files = snapshot("");
    files.insert("x".into(), Entry::plain(b"a\n\xff\nb\nc\nQ\n"));
    let error = fitted(HUNK.replace("-2,5 +2,5", "-1,5 +1,5").as_str(), |path| {
        Ok(files.get(path).cloned())
    });
    assert!(error.is_err());
}

#[test]
fn it_agrees_with_the_real_programs_on_cases_by_hand() {
    let test = "it_agrees_with_the_real_programs_on_cases_by_hand";
    if !is_there(test, "patch") || !is_there(test, "git") {
        return;
    }
    let start = "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n-a\n+A\n b\n c\n";
    let end = "--- a/x\n+++ b/x\n@@ -2,3 +2,3 @@\n b\n c\n-d\n+D\n";
    let two =
        "--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@\n a\n+n\n b\n c\n@@ -5,3 +6,3 @@\n e\n-f\n+F\n g\n";
    for (before, patch) in [
        ("a\nb\nc\nd\ne\nf\ng\n", HUNK),
        ("0\n0\n0\na\nb\nc\nd\ne\nf\ng\n", HUNK),
        ("a\nB\nC\nd\nE\nF\ng\n", HUNK),
        ("a\nb\nC\nd\ne\nf\n", HUNK),
        ("d\n", HUNK),
        ("0\na\nb\nc\n", start),
        ("a\nb\nX\n", start),
        ("a\nX\nc\n", start),
        ("a\nb\nc\nd\n0\n", end),
        ("a\nb\nX\nd\n", end),
        ("a\nX\nX\nd\n", end),
        ("a\nb\nc\nd\ne\nf\ng\n", two),
        ("0\na\nb\nX\nd\n0\n0\ne\nf\nX\n", two),
        ("a\nb\nc\nd\nX\nf\ng\n", two),
    ] {
        let exact = {
            let mut files = snapshot(before);
            apply_to(&mut files, patch)
                .ok()
                .map(|()| String::from_utf8(files["x"].bytes.to_vec()).unwrap())
        };
        assert_eq!(
            exact,
            theirs(GIT, before, patch),
            "git: {before:?}\n{patch}"
        );
        let fuzzy = ours(before, patch).ok().map(|(text, _)| text);
        assert_eq!(
            fuzzy,
            theirs(PATCH, before, patch),
            "patch: {before:?}\n{patch}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A change of one file on another that has drifted.
    #[test]
    fn it_agrees_with_patch_on_files_that_drifted(
        before in prop::collection::vec("[a-e]", 3..14),
        drift in prop::collection::vec((0usize..14, "[a-e]|"), 0..3),
        at in 0usize..14,
        word in "[x-z]",
    ) {
        if Command::new("patch").arg("--version").output().is_err() {
            return Ok(());
        }
        let text = |lines: &[String]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
        let mut after = before.clone();
        let at = at % after.len();
        after[at] = word;
        let base = snapshot(&text(&before));
        let patch = diff::unified(&base, &snapshot(&text(&after))).text;
        let mut drifted = before;
        for (place, line) in drift {
            let place = place % drifted.len();
            if line.is_empty() && drifted.len() > 1 {
                drifted.remove(place);
            } else {
                drifted[place] = line;
            }
        }
        let file = text(&drifted);
        let found = ours(&file, &patch);
        // Of what is there already `patch --forward` says no; the harness asks git.
        let already = found.as_ref().is_ok_and(|(_, step)| step == "it is there already");
        if !already {
            let found = found.ok().map(|(text, _)| text);
            prop_assert_eq!(found, theirs(PATCH, &file, &patch), "{:?}\n{}", file, patch);
        }
    }

    #[test]
    fn any_diff_is_tried_without_panic(body in "[-+ @a-c\n\\\\0-3,]{0,80}", before in "[a-c\n]{0,20}") {
        let patch = format!("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n{body}");
        let _ = ours(&before, &patch);
    }
}
