//! What a patch may not bring: tests and test configuration are the grader's. Hunks on
//! such files are dropped before the patch is applied, and named in the verdict.

/// Files whose content decides how tests are found and judged.
const CONFIGURATION: &[&str] = &[
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    "tox.ini",
    "setup.cfg",
    "pyproject.toml",
    "sitecustomize.py",
    "usercustomize.py",
];

/// Whether a path belongs to the grader. `tests` are the task's test files.
pub fn is_protected(path: &str, tests: &[String]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    CONFIGURATION.contains(&name)
        || name.ends_with(".pth")
        // A module of this name at the root would be imported instead of the real one.
        || matches!(path.split('/').next(), Some("pytest" | "_pytest" | "pluggy" | "pytest.py" | "_pytest.py" | "pluggy.py"))
        || tests.iter().any(|test| test == path)
}

/// The patch without its protected files, and the names of what was dropped.
pub fn strip(patch: &str, tests: &[String]) -> (String, Vec<String>) {
    let mut kept = String::new();
    let mut dropped = Vec::new();
    for section in sections(patch) {
        let protected: Vec<String> = names(section)
            .into_iter()
            .filter(|path| is_protected(path, tests))
            .collect();
        if protected.is_empty() {
            kept.push_str(section);
        } else {
            dropped.extend(protected);
        }
    }
    dropped.sort_unstable();
    dropped.dedup();
    (kept, dropped)
}

/// The patch cut into one part per file.
fn sections(patch: &str) -> Vec<&str> {
    let mut starts = Vec::new();
    let mut at = 0;
    let git = patch.starts_with("diff --git ") || patch.contains("\ndiff --git ");
    for line in patch.split_inclusive('\n') {
        let begins = if git {
            line.starts_with("diff --git ")
        } else {
            // A removed line may look like `--- x`; a header follows no hunk body
            // directly unless the next line is `+++`.
            line.starts_with("--- ")
                && patch
                    .get(at + line.len()..)
                    .is_some_and(|rest| rest.starts_with("+++ "))
        };
        if begins {
            starts.push(at);
        }
        at += line.len();
    }
    let mut out = Vec::new();
    for (n, start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(patch.len());
        out.extend(patch.get(*start..end));
    }
    if let Some(first) = starts.first()
        && *first > 0
    {
        // Text before the first file is commentary.
        return out;
    }
    if starts.is_empty() && !patch.trim().is_empty() {
        out.push(patch);
    }
    out
}

/// Every path that a section names, in any of its header lines.
fn names(section: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in section.lines() {
        if line.starts_with("@@") {
            break;
        }
        let rest = ["--- a/", "+++ b/", "rename from ", "rename to ", "copy to "]
            .iter()
            .find_map(|prefix| line.strip_prefix(prefix));
        if let Some(rest) = rest {
            out.push(
                rest.split('\t')
                    .next()
                    .unwrap_or(rest)
                    .trim_matches('"')
                    .to_owned(),
            );
        }
        if let Some(rest) = line.strip_prefix("diff --git a/")
            && let Some((a, b)) = rest.split_once(" b/")
        {
            out.push(a.to_owned());
            out.push(b.to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_their_configuration_go_and_the_rest_stays() {
        let patch = "\
diff --git a/conftest.py b/conftest.py
new file mode 100644
--- /dev/null
+++ b/conftest.py
@@ -0,0 +1 @@
+import os
diff --git a/pkg/x.py b/pkg/x.py
--- a/pkg/x.py
+++ b/pkg/x.py
@@ -1 +1 @@
-a
+b
diff --git a/tests/test_x.py b/tests/test_x.py
--- a/tests/test_x.py
+++ b/tests/test_x.py
@@ -1 +1 @@
-a
+b
";
        let (kept, dropped) = strip(patch, &["tests/test_x.py".to_owned()]);
        assert!(kept.starts_with("diff --git a/pkg/x.py") && kept.ends_with("+b\n"));
        assert_eq!(dropped, ["conftest.py", "tests/test_x.py"]);
        assert_eq!(strip(&kept, &[]).0, kept);
        let plain = "--- a/setup.cfg\n+++ b/setup.cfg\n@@ -1 +1 @@\n-a\n+b\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n--- old\n+++ new\n";
        let (kept, dropped) = strip(plain, &[]);
        assert_eq!(dropped, ["setup.cfg"]);
        assert!(kept.starts_with("--- a/m.py"));
        assert_eq!(strip("", &[]), (String::new(), vec![]));
        assert!(is_protected("a/evil.pth", &[]) && is_protected("pytest/__init__.py", &[]));
    }
}
