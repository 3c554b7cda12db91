//! How a task's log is read: which parser, and what an absent test means. Rows of the
//! newer generation say it; for older ones the repository decides, as it did for the
//! official harness of their time.

use super::parsers::Parser;
use gametape_schemas::formats::{EvalType, TaskKind, TaskRow};

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
            if FAIL_ONLY
                .iter()
                .any(|repo| repo.eq_ignore_ascii_case(task.repo()))
            {
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
        TaskKind::SweGym => Some(by_repo(task.repo()).unwrap_or("parse_log_pytest")),
        TaskKind::SweSmith => Some("swesmith_pytest"),
        TaskKind::R2eGym => Some("r2e_pytest"),
        TaskKind::SweBench | TaskKind::SweRebench => by_repo(task.repo()),
    }
}

fn by_repo(repo: &str) -> Option<&'static str> {
    REPOSITORIES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(repo))
        .map(|(_, parser)| *parser)
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

/// Repositories of which the parser records failures only.
const FAIL_ONLY: &[&str] = &[
    "chartjs/Chart.js",
    "processing/p5.js",
    "markedjs/marked",
    "bpmn-io/bpmn-js",
    "openlayers/openlayers",
    "eslint/eslint",
];

/// The parser of each repository, for rows that do not name it.
const REPOSITORIES: &[(&str, &str)] = &[
    ("astropy/astropy", "parse_log_pytest_v2"),
    ("django/django", "parse_log_django"),
    ("marshmallow-code/marshmallow", "parse_log_pytest"),
    ("matplotlib/matplotlib", "parse_log_matplotlib"),
    ("mwaskom/seaborn", "parse_log_seaborn"),
    ("pallets/flask", "parse_log_pytest"),
    ("psf/requests", "parse_log_pytest_options"),
    ("pvlib/pvlib-python", "parse_log_pytest"),
    ("pydata/xarray", "parse_log_pytest"),
    ("pydicom/pydicom", "parse_log_pytest_options"),
    ("pylint-dev/astroid", "parse_log_pytest"),
    ("pylint-dev/pylint", "parse_log_pytest_options"),
    ("pytest-dev/pytest", "parse_log_pytest"),
    ("pyvista/pyvista", "parse_log_pytest"),
    ("scikit-learn/scikit-learn", "parse_log_pytest_v2"),
    ("sqlfluff/sqlfluff", "parse_log_pytest"),
    ("sphinx-doc/sphinx", "parse_log_pytest_v2"),
    ("sympy/sympy", "parse_log_sympy"),
    ("Automattic/wp-calypso", "parse_log_calypso"),
    ("chartjs/Chart.js", "parse_log_chart_js"),
    ("markedjs/marked", "parse_log_marked"),
    ("processing/p5.js", "parse_log_p5js"),
    ("diegomura/react-pdf", "parse_log_react_pdf"),
    ("babel/babel", "parse_log_jest"),
    ("vuejs/core", "parse_log_vitest"),
    ("facebook/docusaurus", "parse_log_jest"),
    ("immutable-js/immutable-js", "parse_log_immutable_js"),
    ("mrdoob/three.js", "parse_log_tap"),
    ("preactjs/preact", "parse_log_karma"),
    ("axios/axios", "parse_log_tap"),
    ("alibaba-fusion/next", "parse_log_next"),
    ("bpmn-io/bpmn-js", "parse_log_bpmn_js"),
    ("carbon-design-system/carbon", "parse_log_carbon"),
    ("eslint/eslint", "parse_log_eslint"),
    ("GoogleChrome/lighthouse", "parse_log_lighthouse"),
    ("grommet/grommet", "parse_log_grommet"),
    ("highlightjs/highlight.js", "parse_log_highlightjs"),
    ("openlayers/openlayers", "parse_log_openlayers"),
    ("prettier/prettier", "parse_log_carbon"),
    ("PrismJS/prism", "parse_log_prismjs"),
    ("quarto-dev/quarto-cli", "parse_log_quarto_cli"),
    ("scratchfoundation/scratch-gui", "parse_log_carbon"),
    ("redis/redis", "parse_log_redis"),
    ("jqlang/jq", "parse_log_jq"),
    ("nlohmann/json", "parse_log_doctest"),
    ("micropython/micropython", "parse_log_micropython_test"),
    ("valkey-io/valkey", "parse_log_redis"),
    ("fmtlib/fmt", "parse_log_googletest"),
    ("caddyserver/caddy", "parse_log_gotest"),
    ("hashicorp/terraform", "parse_log_gotest"),
    ("prometheus/prometheus", "parse_log_gotest"),
    ("gohugoio/hugo", "parse_log_gotest"),
    ("gin-gonic/gin", "parse_log_gotest"),
    ("google/gson", "parse_log_maven"),
    ("apache/druid", "parse_log_maven"),
    ("javaparser/javaparser", "parse_log_maven"),
    ("projectlombok/lombok", "parse_log_ant"),
    ("apache/lucene", "parse_log_gradle_custom"),
    ("reactivex/rxjava", "parse_log_gradle_custom"),
    ("phpoffice/phpspreadsheet", "parse_log_phpunit"),
    ("laravel/framework", "parse_log_phpunit"),
    ("php-cs-fixer/php-cs-fixer", "parse_log_phpunit"),
    ("briannesbitt/carbon", "parse_log_phpunit"),
    ("jekyll/jekyll", "parse_log_jekyll"),
    ("fluent/fluentd", "parse_log_ruby_unit"),
    ("fastlane/fastlane", "parse_log_rspec_transformed_json"),
    ("jordansissel/fpm", "parse_log_rspec_transformed_json"),
    ("faker-ruby/faker", "parse_log_ruby_unit"),
    ("rubocop/rubocop", "parse_log_rspec_transformed_json"),
    ("burntsushi/ripgrep", "parse_log_cargo"),
    ("sharkdp/bat", "parse_log_cargo"),
    ("astral-sh/ruff", "parse_log_cargo"),
    ("tokio-rs/tokio", "parse_log_cargo"),
    ("uutils/coreutils", "parse_log_cargo"),
    ("nushell/nushell", "parse_log_cargo"),
    ("tokio-rs/axum", "parse_log_cargo"),
];

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
        for (repo, name) in REPOSITORIES {
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
