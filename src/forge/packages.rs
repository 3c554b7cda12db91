//! The subject packages: pinned source archives that carry their own tests.
//!
//! The pins are data (`packages.toml`); a person adds their own in the same form.

use gametape_schemas::{EnvironmentRecipe, Failure, FailureKind, PinnedPackage, RepositorySource};
use serde::Deserialize;
use std::collections::BTreeMap;

const PINS: &str = include_str!("packages.toml");

/// Requirement lines by group name, and packages that use them.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Pins {
    requirements: BTreeMap<String, Vec<String>>,
    package: Vec<Pin>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Pin {
    name: String,
    version: String,
    sha256: String,
    #[serde(default)]
    requirements: Vec<String>,
    source_root: String,
    code: Vec<String>,
    tests: Vec<String>,
    #[serde(default)]
    skip_tests: Vec<String>,
    python: Option<String>,
    source: Option<RepositorySource>,
    #[serde(default)]
    setup: Vec<String>,
}

/// Every pinned package, in the order of the file.
///
/// # Errors
/// `GT-FORGE-PACKAGE` when the pins cannot be read.
pub fn packages() -> Result<Vec<EnvironmentRecipe>, Failure> {
    parse_pins(PINS)
}

/// The pinned package of that name.
///
/// # Errors
/// `GT-FORGE-PACKAGE` when there is none; the help lists those that there are.
pub fn package(name: &str) -> Result<EnvironmentRecipe, Failure> {
    let all = packages()?;
    let known: Vec<_> = all.iter().map(|pin| pin.package.name.clone()).collect();
    all.into_iter()
        .find(|pin| pin.package.name == name)
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Input,
                "GT-FORGE-PACKAGE",
                format!("no package `{name}` is pinned"),
            )
            .with_help(format!("pinned packages: {}", known.join(", ")))
        })
}

/// Reads pins in the form of `packages.toml`.
///
/// # Errors
/// `GT-FORGE-PACKAGE` with the place of the first mistake.
pub fn parse_pins(text: &str) -> Result<Vec<EnvironmentRecipe>, Failure> {
    let wrong = |what: String| {
        Failure::new(FailureKind::Input, "GT-FORGE-PACKAGE", what)
            .with_help("compare with src/forge/packages.toml")
    };
    let pins: Pins =
        toml::from_str(text).map_err(|error| wrong(format!("the package pins: {error}")))?;
    pins.package
        .into_iter()
        .map(|pin| {
            let mut requirements = Vec::new();
            for group in ["base"]
                .into_iter()
                .chain(pin.requirements.iter().map(String::as_str))
            {
                let lines = pins.requirements.get(group).ok_or_else(|| {
                    wrong(format!(
                        "`{}` needs unknown requirements `{group}`",
                        pin.name
                    ))
                })?;
                requirements.extend(lines.iter().cloned());
            }
            Ok(EnvironmentRecipe {
                package: PinnedPackage {
                    name: pin.name,
                    version: pin.version,
                    sha256: pin.sha256,
                },
                requirements,
                source_root: pin.source_root,
                code: pin.code,
                tests: pin.tests,
                skip_tests: pin.skip_tests,
                layout: 1,
                python: pin.python,
                source: pin.source,
                setup: pin.setup,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sha256(text: &str) -> bool {
        text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn pins_are_well_formed() {
        let all = packages().unwrap();
        assert!(all.len() >= 3);
        let mut names: Vec<_> = all.iter().map(|pin| &pin.package.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "one pin a package");
        for pin in &all {
            let name = &pin.package.name;
            assert!(is_sha256(&pin.package.sha256), "{name}");
            assert!(!pin.code.is_empty() && !pin.tests.is_empty(), "{name}");
            assert!(
                pin.requirements
                    .iter()
                    .any(|line| line.starts_with("pytest=="))
            );
            for line in &pin.requirements {
                let (what, hash) = line.split_once(" --hash=sha256:").unwrap();
                assert!(what.contains("=="), "{line}");
                assert!(is_sha256(hash), "{line}");
            }
            for path in pin.code.iter().chain(&pin.tests).chain(&pin.skip_tests) {
                assert!(!path.starts_with('/') && !path.contains(".."), "{path}");
            }
        }
    }

    #[test]
    fn a_pin_may_choose_its_python_its_commit_and_what_is_run_once() {
        let text = "[requirements]\nbase = []\n[[package]]\nname='x'\nversion='1'\nsha256=''\nsource_root='.'\ncode=['x']\ntests=['t']\npython='3.12'\nsetup=['make']\nsource={from='git', url='https://example.org/x', commit='0a'}\n";
        let pins = parse_pins(text).unwrap();
        let one = pins.first().unwrap();
        assert_eq!(one.python.as_deref(), Some("3.12"));
        assert_eq!(one.setup, ["make"]);
        assert!(
            matches!(&one.source, Some(RepositorySource::Git { commit, .. }) if commit == "0a")
        );
        let plain = parse_pins(&text.replace("python='3.12'\n", "")).unwrap();
        assert_ne!(plain.first().unwrap().id(), one.id());
    }

    #[test]
    fn unknown_names_and_groups_say_what_there_is() {
        let failure = package("nothing").unwrap_err();
        assert!(failure.help.contains("toolz"), "{failure}");
        let text = "requirements = {}\n[[package]]\nname='x'\nversion='1'\nsha256=''\nsource_root='.'\ncode=[]\ntests=[]\n";
        assert!(parse_pins(text).unwrap_err().message.contains("base"));
    }
}
