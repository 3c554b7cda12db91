//! What a patch may not bring: tests and test configuration are the grader's. Hunks on
//! such files are dropped before the patch is applied, and named in the verdict.
//!
//! The patch is read with its structure (hunks are counted out), so that a header cannot
//! hide in what looks like another file's hunk. Every name that a header gives counts,
//! quoted or not; what cannot be read is refused as a whole.

/// Files whose content decides how tests are found and judged.
const CONFIGURATION: &[&str] = &[
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "tox.ini",
    "setup.cfg",
    "pyproject.toml",
];

/// How the names of other languages' test configuration begin.
const CONFIGURATION_OF_OTHERS: &[&str] = &[
    "jest.config.",
    "vitest.config.",
    "karma.conf.",
    "babel.config.",
    ".mocharc",
    "phpunit.xml",
    ".rspec",
];

/// Modules that the interpreter imports by itself, as a file or as a package.
const AT_START: &[&str] = &["sitecustomize", "usercustomize"];

/// The runner's own modules: one of these at the root would be imported instead.
const RUNNER: &[&str] = &["pytest", "_pytest", "pluggy", "iniconfig"];

/// Whether a path belongs to the grader. `tests` are the task's test files; `made` says
/// whether the patch makes the file.
pub fn is_protected(path: &str, made: bool, tests: &[String]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = |part: &str| part.split('.').next().unwrap_or(part).to_owned();
    let first = stem(path.split('/').next().unwrap_or(path));
    // Where sources lie a directory down, that is the root of what is imported.
    let below = match path.split_once('/') {
        Some(("src" | "lib", rest)) => stem(rest.split('/').next().unwrap_or(rest)),
        _ => String::new(),
    };
    // What says which plugins an installed package brings to the runner.
    let is_metadata = |part: &str| part.ends_with(".egg-info") || part.ends_with(".dist-info");
    CONFIGURATION.contains(&name)
        || CONFIGURATION_OF_OTHERS
            .iter()
            .any(|begin| name.starts_with(begin))
        || name.ends_with(".pth")
        || path.split('/').any(is_metadata)
        || path
            .split('/')
            .any(|part| AT_START.contains(&stem(part).as_str()))
        || (made && (RUNNER.contains(&first.as_str()) || RUNNER.contains(&below.as_str())))
        || tests
            .iter()
            .any(|test| test == path || is_support(path, test))
}

/// Whether a file lies beside (or below) a test file in a directory of tests: helpers
/// that tests import judge as much as the tests do. Where tests lie among the product's
/// code, only they themselves are protected.
fn is_support(path: &str, test: &str) -> bool {
    directory_of_tests(test).is_some_and(|directory| path.starts_with(directory))
}

/// The path of a test up to the first directory that is named after tests, with its `/`.
fn directory_of_tests(test: &str) -> Option<&str> {
    let (directory, _) = test.rsplit_once('/')?;
    let mut end = 0;
    for part in directory.split('/') {
        end += part.len();
        if matches!(part, "test" | "tests") {
            return test.get(..=end);
        }
        end += 1;
    }
    None
}

/// Files of a tree that are the tests' own, and no patch's: themselves, and directories
/// (with `/`) of what they import.
pub fn own(tests: &[String]) -> Vec<String> {
    let directories = tests.iter().filter_map(|test| directory_of_tests(test));
    let mut own: Vec<String> = directories.map(str::to_owned).collect();
    own.extend(tests.iter().cloned());
    own.sort_unstable();
    own.dedup();
    own
}

/// Every path that a patch names, sorted.
///
/// # Errors
/// One sentence when the patch cannot be read.
pub fn paths(patch: &str) -> Result<Vec<String>, String> {
    let mut paths: Vec<String> = sections(patch)?.into_iter().flat_map(|s| s.paths).collect();
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// The patch without its sections on these files, and the names of what was dropped.
///
/// # Errors
/// One sentence when the patch cannot be read.
pub fn without(patch: &str, files: &[String]) -> Result<(String, Vec<String>), String> {
    drop_where(patch, |path, _| files.iter().any(|file| file == path))
}

/// Lines that a patch adds, each with the file's path (the first that its header names).
///
/// # Errors
/// One sentence when the patch cannot be read.
pub fn added(patch: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    for section in sections(patch)? {
        let path = section.paths.last().cloned().unwrap_or_default();
        let body = section.text.lines().skip_while(|l| !l.starts_with("@@"));
        let lines = body.filter_map(|line| line.strip_prefix('+'));
        out.extend(lines.map(|line| (path.clone(), line.to_owned())));
    }
    Ok(out)
}

/// The patch without its protected files, and the names of what was dropped, sorted.
///
/// # Errors
/// One sentence when the patch cannot be read.
pub fn strip(patch: &str, tests: &[String]) -> Result<(String, Vec<String>), String> {
    drop_where(patch, |path, made| is_protected(path, made, tests))
}

fn drop_where(
    patch: &str,
    goes: impl Fn(&str, bool) -> bool,
) -> Result<(String, Vec<String>), String> {
    let mut kept = String::new();
    let mut dropped = Vec::new();
    let sections = sections(patch)?;
    if sections.is_empty() {
        // Whoever applies it says what is wrong with it.
        return Ok((patch.to_owned(), dropped));
    }
    for section in sections {
        let mut protected: Vec<String> = section
            .paths
            .into_iter()
            .filter(|path| goes(path, section.made))
            .collect();
        if protected.is_empty() {
            kept.push_str(section.text);
        }
        dropped.append(&mut protected);
    }
    dropped.sort_unstable();
    dropped.dedup();
    Ok((kept, dropped))
}

/// What a patch says of one file.
struct Section<'a> {
    text: &'a str,
    paths: Vec<String>,
    made: bool,
}

/// A section that is being read.
#[derive(Default)]
struct Open {
    start: usize,
    paths: Vec<String>,
    made: bool,
    /// Whether `---` and `+++` still belong to the header that `diff --git` began.
    header: bool,
}

/// Cuts a patch into one part per file. Text before the first is left out.
fn sections(patch: &str) -> Result<Vec<Section<'_>>, String> {
    let mut out = Vec::new();
    let mut open: Option<Open> = None;
    let mut close = |open: Option<Open>, end: usize| {
        out.extend(open.map(|open| Section {
            text: patch.get(open.start..end).unwrap_or_default(),
            paths: open.paths,
            made: open.made,
        }));
    };
    let mut at = 0;
    let mut lines = patch.split_inclusive('\n').peekable();
    while let Some(whole) = lines.next() {
        let begin = at;
        at += whole.len();
        let line = whole.trim_end_matches(['\n', '\r']);
        let next = lines.peek().copied().unwrap_or_default();
        if let Some(names) = line.strip_prefix("diff --git ") {
            close(open.take(), begin);
            open = Some(Open {
                start: begin,
                paths: git_names(names)?,
                made: false,
                header: true,
            });
        } else if let (Some(old), Some(new)) =
            (line.strip_prefix("--- "), next.strip_prefix("+++ "))
        {
            lines.next();
            at += next.len();
            if open.as_ref().is_none_or(|open| !open.header) {
                close(open.take(), begin);
            }
            let section = open.get_or_insert_with(|| Open {
                start: begin,
                ..Open::default()
            });
            section.header = false;
            let old = side(old)?;
            section.made |= old.is_none();
            section.paths.extend(old);
            section.paths.extend(side(new)?);
        } else if line.starts_with("@@ -") {
            let section = open
                .as_mut()
                .ok_or_else(|| format!("a hunk without a file: {line}"))?;
            section.header = false;
            let (mut old, mut new) =
                counts(line).ok_or_else(|| format!("a hunk's header cannot be read: {line}"))?;
            while old > 0 || new > 0 {
                let cut = || format!("a hunk is cut short: {line}");
                let body = lines.next().ok_or_else(cut)?;
                at += body.len();
                let (a, b) = match body.bytes().next() {
                    Some(b' ' | b'\n') => (1, 1),
                    Some(b'-') => (1, 0),
                    Some(b'+') => (0, 1),
                    Some(b'\\') => (0, 0),
                    _ => return Err(cut()),
                };
                old = old.checked_sub(a).ok_or_else(cut)?;
                new = new.checked_sub(b).ok_or_else(cut)?;
            }
        } else if let Some(section) = &mut open {
            let name = ["rename from ", "rename to ", "copy from ", "copy to "]
                .iter()
                .find_map(|prefix| line.strip_prefix(prefix));
            if let Some(name) = name {
                section.paths.push(unquoted(name)?);
                section.made = true;
            }
            section.made |= line.starts_with("new file mode ");
        }
    }
    close(open, patch.len());
    Ok(out)
}

/// Lines on the old and the new side: `@@ -1,2 +1 @@` → (2, 1).
fn counts(header: &str) -> Option<(usize, usize)> {
    let mut words = header.strip_prefix("@@ ")?.split(' ');
    let mut count = |sign: char| {
        let range = words.next()?.strip_prefix(sign)?;
        range
            .split_once(',')
            .map_or(Some(1), |(_, count)| count.parse().ok())
    };
    Some((count('-')?, count('+')?))
}

/// The name on a `---` or `+++` line without its first component; `None` for no file.
fn side(name: &str) -> Result<Option<String>, String> {
    let name = name.trim_end_matches(['\n', '\r']);
    let name = if name.starts_with('"') {
        unquoted(name)?
    } else {
        name.split('\t').next().unwrap_or(name).to_owned()
    };
    Ok((name != "/dev/null").then(|| first_gone(&name)))
}

fn first_gone(name: &str) -> String {
    name.split_once('/')
        .map_or(name, |(_, rest)| rest)
        .to_owned()
}

/// Both names of a `diff --git` line, as far as they can be told apart.
fn git_names(names: &str) -> Result<Vec<String>, String> {
    let cuts: Vec<(usize, usize)> = if names.starts_with('"') {
        names
            .find("\" ")
            .map(|at| (at + 1, at + 2))
            .into_iter()
            .collect()
    } else {
        names
            .match_indices(' ')
            .map(|(at, _)| (at, at + 1))
            .collect()
    };
    let mut out = Vec::new();
    for (end, start) in cuts {
        let (old, new) = (names.get(..end), names.get(start..));
        for name in [old, new].into_iter().flatten() {
            // A cut within a name gives half a quoted name; the right cut gives both.
            if let Ok(name) = unquoted(name) {
                out.push(first_gone(&name));
            }
        }
    }
    Ok(out)
}

/// Undoes git's quoting of unusual names.
fn unquoted(name: &str) -> Result<String, String> {
    let Some(inner) = name.strip_prefix('"') else {
        return Ok(name.to_owned());
    };
    let bad = || format!("a quoted name cannot be read: {name}");
    let inner = inner.strip_suffix('"').ok_or_else(bad)?;
    let mut out = Vec::new();
    let mut bytes = inner.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next().ok_or_else(bad)? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'v' => 11,
            b'f' => 12,
            first @ b'0'..=b'3' => {
                let mut value = first - b'0';
                for _ in 0..2 {
                    let digit = bytes.next().filter(|d| (b'0'..=b'7').contains(d));
                    value = (value << 3) | (digit.ok_or_else(bad)? - b'0');
                }
                value
            }
            plain @ (b'"' | b'\\') => plain,
            _ => return Err(bad()),
        });
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRODUCT: &str = "\
diff --git a/pkg/x.py b/pkg/x.py
--- a/pkg/x.py
+++ b/pkg/x.py
@@ -1 +1 @@
-a
+b
";

    fn made(path: &str) -> String {
        format!(
            "diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+import os\n"
        )
    }

    fn dropped(patch: &str) -> Vec<String> {
        let tests = ["tests/test_x.py".to_owned(), "pkg/test_y.py".to_owned()];
        let (kept, dropped) = strip(patch, &tests).unwrap();
        assert!(!kept.contains("import os") || dropped.is_empty(), "{kept}");
        dropped
    }

    #[test]
    fn tests_and_their_configuration_go_and_the_rest_stays() {
        let patch = format!(
            "{}{PRODUCT}{}",
            made("conftest.py"),
            made("tests/test_x.py")
        );
        let (kept, gone) = strip(&patch, &["tests/test_x.py".to_owned()]).unwrap();
        assert_eq!(kept, PRODUCT);
        assert_eq!(gone, ["conftest.py", "tests/test_x.py"]);
        let plain = "--- a/setup.cfg\n+++ b/setup.cfg\n@@ -1 +1 @@\n-a\n+b\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n--- old\n+++ new\n";
        let (kept, gone) = strip(plain, &[]).unwrap();
        assert_eq!(gone, ["setup.cfg"]);
        assert!(kept.starts_with("--- a/m.py") && kept.ends_with("+++ new\n"));
        assert_eq!(strip("", &[]).unwrap(), (String::new(), vec![]));
    }

    #[test]
    fn each_protected_place() {
        for path in [
            "conftest.py",
            "a/b/conftest.py",
            "a/evil.pth",
            "sitecustomize.py",
            "src/sitecustomize/__init__.py",
            "src/usercustomize.pyc",
            "pytest/__init__.py",
            "_pytest.py",
            "tests/test_x.py",
            "tests/__init__.py",
            "tests/helpers/answers.py",
            "pkg/test_y.py",
            "src/pytest/__init__.py",
            "evil.egg-info/entry_points.txt",
            "web/jest.config.js",
        ] {
            assert_eq!(dropped(&made(path)), [path]);
        }
        for path in [
            "pkg/z.py",
            "pkg/pytest.py",
            "tests.py",
            "testsuite/x.py",
            "src/a/conf.py",
        ] {
            assert!(dropped(&made(path)).is_empty(), "{path}");
        }
        // A repository that is the runner may be repaired.
        let own = PRODUCT.replace("pkg/x.py", "_pytest/x.py");
        assert_eq!(strip(&own, &[]).unwrap(), (own.clone(), vec![]));
    }

    #[test]
    fn a_name_cannot_hide() {
        let hidden = "--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1 @@\n+import os\n";
        let quoted = "\"b/conf\\164est.py\"";
        for (patch, why) in [
            (format!("{PRODUCT}{hidden}"), "a plain section after a git one"),
            (made("conftest.py").replace("b/conftest.py\n@@", &format!("{quoted}\n@@")), "quoted"),
            (hidden.replace("b/", "\"b/").replace(".py", ".py\""), "quoted without need"),
            (hidden.replace("b/", "other/"), "another prefix"),
            (hidden.replace(".py\n", ".py\t2020-01-01\n"), "a time behind it"),
            (
                "diff --git a/m.py b/conftest.py\nsimilarity index 100%\nrename from m.py\nrename to conftest.py\n".to_owned(),
                "a rename",
            ),
            (
                "diff --git a/conftest.py b/conftest.py\nnew file mode 100644\n".to_owned(),
                "an empty file",
            ),
            (
                "diff --git \"a/conftest.py\" \"b/conftest.py\"\nnew file mode 100644\n".to_owned(),
                "an empty file, quoted",
            ),
        ] {
            assert_eq!(dropped(&patch), ["conftest.py"], "{why}");
        }
        let inside = "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n--- a/conftest.py\n-x\n+++ b/conftest.py\n+y\n";
        assert!(dropped(inside).is_empty(), "text of a file is no header");
        for bad in [
            "--- a/m.py\n+++ b/m.py\n@@ -1,9 +1 @@\n-a\n",
            "--- a/m.py\n+++ b/m.py\n@@ what @@\n",
            "@@ -1 +1 @@\n-a\n+b\n",
            "--- a/m.py\n+++ \"b/m.py\n@@ -1 +1 @@\n-a\n+b\n",
        ] {
            // The second is no hunk at all: whoever applies it finds nothing to do.
            assert!(strip(bad, &[]).is_err() || bad.contains("what"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_panic_or_loss(patch in "[-+@ a\n\"/\\\\0-3,]{0,120}") {
            if let Ok((kept, dropped)) = strip(&patch, &[]) {
                prop_assert!(dropped.is_empty());
                prop_assert!(patch.ends_with(&kept));
            }
        }

        #[test]
        fn what_is_kept_is_kept_whole(names in prop::collection::vec(0usize..4, 0..6)) {
            let all = [PRODUCT.to_owned(), made("conftest.py"), made("q.py"), made("tests/t.py")];
            let patch: String = names.iter().map(|n| all[*n].as_str()).collect();
            let expected: String =
                names.iter().filter(|n| **n % 2 == 0).map(|n| all[*n].as_str()).collect();
            let (kept, _) = strip(&patch, &["tests/test_x.py".to_owned()]).unwrap();
            prop_assert_eq!(kept, expected);
        }
    }
}
