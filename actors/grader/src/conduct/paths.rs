//! What a path is about. Pure.

use super::known::Known;

/// Where scaffolds put the repository.
const ROOTS: &[&str] = &["testbed", "repo", "app", "src", "code", "workspace"];

/// Directories at the root of a machine that are no repository.
const SYSTEM: &[&str] = &[
    "bin", "boot", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "nix", "opt", "proc",
    "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var",
];

/// A path as seen from a directory, relative to the repository where it lies in it; else it
/// begins with `/`. `directory` is such a path itself, empty for the repository's root.
pub fn within(directory: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else if path == "~" || path.starts_with("~/") || path.starts_with("$HOME") {
        format!(
            "/tmp/~/{}",
            path.split_once('/').map_or("", |(_, rest)| rest)
        )
    } else {
        format!("{directory}/{path}")
    };
    let absolute =
        path.starts_with('/') || directory.starts_with('/') || path.starts_with(['~', '$']);
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if !absolute {
        return parts.join("/");
    }
    match parts.as_slice() {
        [first, ..] if SYSTEM.contains(first) => format!("/{}", parts.join("/")),
        ["workspace", second, rest @ ..] if second.contains("__") => rest.join("/"),
        [first, rest @ ..] if ROOTS.contains(first) => rest.join("/"),
        _ => parts.join("/"),
    }
}

/// The last part.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path lies outside the repository.
pub fn is_outside(path: &str) -> bool {
    path.starts_with('/')
}

/// Whether a path looks like one of a test.
pub fn is_test(path: &str) -> bool {
    let name = name(path);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    if matches!(extension, "md" | "rst" | "txt") && !path.contains("tests/") {
        return false;
    }
    let by_name = match extension {
        "py" => {
            stem.starts_with("test_") || stem.ends_with("_test") || matches!(stem, "tests" | "test")
        }
        "js" | "ts" | "jsx" | "tsx" | "mjs" => stem.ends_with(".test") || stem.ends_with(".spec"),
        "go" | "rs" | "c" | "cpp" | "cc" => stem.ends_with("_test") || stem.starts_with("test_"),
        "java" | "kt" | "php" | "cs" => stem.ends_with("Test") || stem.ends_with("Tests"),
        "rb" => stem.ends_with("_spec") || stem.ends_with("_test"),
        _ => false,
    };
    let directories = path
        .rsplit_once('/')
        .map_or("", |(directories, _)| directories);
    by_name
        || directories.split('/').enumerate().any(|(at, part)| {
            matches!(part, "tests" | "__tests__" | "spec")
                || (at == 0 && matches!(part, "test" | "testing"))
        })
}

/// Files that say how tests are found, collected and judged.
pub fn is_configuration(path: &str) -> bool {
    matches!(
        name(path),
        "conftest.py"
            | "pytest.ini"
            | ".pytest.ini"
            | "pytest.toml"
            | ".pytest.toml"
            | "tox.ini"
            | "setup.cfg"
            | "pyproject.toml"
            | "jest.config.js"
            | "vitest.config.ts"
            | "phpunit.xml"
            | ".mocharc.json"
            | "karma.conf.js"
    )
}

/// Whether the interpreter, or the runner in the interpreter's name, loads a file by itself.
pub fn is_startup(path: &str, made: bool) -> bool {
    let python = path.ends_with(".py");
    let stem = |part: &str| part.split('.').next().unwrap_or(part).to_owned();
    let first = stem(path.split('/').next().unwrap_or(path));
    path.ends_with(".pth")
        || (python
            && path
                .split('/')
                .any(|part| matches!(stem(part).as_str(), "sitecustomize" | "usercustomize")))
        || (made
            && python
            && matches!(
                first.as_str(),
                "pytest" | "_pytest" | "pluggy" | "iniconfig" | "unittest"
            ))
}

/// Whether a path is Python code of the product: no test, no configuration.
pub fn is_product(path: &str, known: &Known) -> bool {
    (path.ends_with(".py") || path.ends_with(".pyx"))
        && !is_test(path)
        && !is_configuration(path)
        && !known.is_task_test(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_repository() {
        for (directory, path, expected) in [
            ("", "./a/../b.py", "b.py"),
            ("tests", "x.py", "tests/x.py"),
            ("a", "/testbed/b.py", "b.py"),
            ("", "/workspace/a__b__1/c.py", "c.py"),
            ("", "/tmp/x.py", "/tmp/x.py"),
            ("/tmp", "x.py", "/tmp/x.py"),
            ("", "~/.bashrc", "/tmp/~/.bashrc"),
            ("", "../../..", ""),
        ] {
            assert_eq!(within(directory, path), expected, "{directory} {path}");
        }
    }

    #[test]
    fn tests_are_known_by_their_names() {
        for path in [
            "tests/a.py",
            "a/tests/data/x.txt",
            "test_a.py",
            "a/b_test.go",
            "testing/x.py",
            "x/tests.py",
        ] {
            assert!(is_test(path), "{path}");
        }
        for path in [
            "django/test/client.py",
            "sympy/testing/runtests.py",
            "a/contest.py",
            "a/testimony.py",
            "latest.py",
        ] {
            assert!(!is_test(path), "{path}");
        }
    }
}
