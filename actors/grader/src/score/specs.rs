//! How a task's log is read: which parser, and what an absent test means. Rows of the
//! newer generation say it; for older ones the repository decides, as it did for the
//! official harness of their time.

use super::parsers::Parser;
use gametape_schemas::formats::{EvalType, TaskKind, TaskRow, specs};

/// How a task's log is read.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The parser.
    pub parser: Parser,
    /// What an absent test means.
    pub eval_type: EvalType,
}

impl Spec {
    /// How to read the log of a task.
    ///
    /// # Errors
    /// In words, why no parser can be named.
    pub fn of(task: &TaskRow) -> Result<Self, String> {
        let name = match task.log_parser() {
            Some(name) => name,
            None => by_kind(task)
                .ok_or_else(|| format!("no parser is known for logs of `{}`", task.repo()))?,
        };
        let name = match name {
            "parse_log_jekyll"
            | "parse_log_immutable_js"
            | "parse_log_next"
            | "parse_log_lighthouse" => by_task(name, task)
                .ok_or_else(|| format!("`{name}` knows no way to read `{}`", task.instance_id()))?,
            name => name,
        };
        let parser = Parser::named(name).ok_or_else(|| format!("no parser is named `{name}`"))?;
        let eval_type = task.eval_type().unwrap_or_else(|| {
            if specs::names_failures_only(task.repo()) {
                EvalType::FailOnly
            } else {
                EvalType::PassAndFail
            }
        });
        Ok(Self { parser, eval_type })
    }
}

fn by_kind(task: &TaskRow) -> Option<&'static str> {
    match task.kind() {
        TaskKind::SweGym => Some(specs::parser_of(task.repo()).unwrap_or("parse_log_pytest")),
        TaskKind::SweSmith => Some("swesmith_pytest"),
        TaskKind::R2eGym => Some("r2e_pytest"),
        TaskKind::SweBench | TaskKind::SweRebench => specs::parser_of(task.repo()),
        // Forged here, or run by its own script, which says nothing but a reward.
        TaskKind::Gametape => Some("parse_log_pytest"),
        TaskKind::Harbor => None,
    }
}

/// Parsers that look different from one task of a repository to the next.
fn by_task(name: &str, task: &TaskRow) -> Option<&'static str> {
    let number = task.instance_id().rsplit('-').next()?;
    match (name, number, task.version()) {
        ("parse_log_jekyll", "9141" | "8047" | "8167", _) => Some("parse_log_minitest"),
        ("parse_log_jekyll", "8761" | "8771", _) => Some("parse_log_cucumber"),
        ("parse_log_immutable_js", "2006", _) => Some("parse_log_jest"),
        ("parse_log_immutable_js", "2005", _) => Some("parse_log_jest_json"),
        ("parse_log_next", _, "1.27") => Some("next_cypress"),
        ("parse_log_next", _, _) => Some("next_karma"),
        ("parse_log_lighthouse", _, "9.5" | "10.0" | "10.2") => Some("lighthouse_mocha"),
        ("parse_log_lighthouse", _, version) => match version.parse::<f64>() {
            Ok(version) if version >= 3.0 => Some("parse_log_carbon"),
            Ok(_) => Some("lighthouse_json"),
            Err(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(fields: &str) -> TaskRow {
        let json = format!("{{\"FAIL_TO_PASS\": [], \"PASS_TO_PASS\": \"[]\", {fields}}}");
        TaskRow::read_all(json.as_bytes()).rows.remove(0)
    }

    fn spec(fields: &str) -> Result<(&'static str, EvalType), String> {
        Spec::of(&task(fields)).map(|spec| (spec.parser.name(), spec.eval_type))
    }

    #[test]
    fn the_row_decides_and_else_the_repository() {
        use EvalType::*;
        let r = r#""instance_id": "d__d-1", "repo": "django/django""#;
        assert_eq!(spec(r), Ok(("parse_log_django", PassAndFail)));
        assert_eq!(
            spec(&format!(
                "{r}, \"log_parser\": \"parse_log_pytest\", \"eval_type\": \"fail_only\""
            )),
            Ok(("parse_log_pytest", FailOnly))
        );
        let unknown = spec(r#""instance_id": "a", "repo": "o/r", "environment_setup_commit": """#);
        assert_eq!(unknown, Err("no parser is known for logs of `o/r`".into()));
        let named = spec(r#""instance_id": "a", "repo": "o/r", "log_parser": "x""#);
        assert_eq!(named, Err("no parser is named `x`".into()));
    }

    #[test]
    fn task_sets_have_parsers_of_their_own() {
        let gym = spec(r#""instance_id": "a", "repo": "pandas-dev/pandas", "test_patch": """#);
        assert_eq!(gym, Ok(("parse_log_pytest", EvalType::PassAndFail)));
        let smith = spec(r#""instance_id": "a", "repo": "swesmith/x", "image_name": "i""#);
        assert_eq!(smith, Ok(("swesmith_pytest", EvalType::PassAndFail)));
    }

    #[test]
    fn every_repository_has_a_parser_that_exists() {
        for (repo, name) in specs::REPOSITORIES {
            let by_task = [
                "parse_log_jekyll",
                "parse_log_immutable_js",
                "parse_log_next",
                "parse_log_lighthouse",
            ];
            assert!(
                by_task.contains(name) || Parser::named(name).is_some(),
                "{repo}: {name}"
            );
        }
    }
}
