//! What is known of repositories beyond their rows: which parser reads their logs, and
//! which command runs their tests. Rows of the newer generation say both themselves; for
//! older ones this is what the official harness of their time had in its tables.

/// The name of the parser for logs of a repository; `None` where none is known.
pub fn parser_of(repo: &str) -> Option<&'static str> {
    REPOSITORIES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(repo))
        .map(|(_, parser)| *parser)
}

/// Whether logs of the repository name failures only: what is absent has passed.
pub fn names_failures_only(repo: &str) -> bool {
    FAIL_ONLY.iter().any(|name| name.eq_ignore_ascii_case(repo))
}

/// Files of a test patch that no test runner takes.
const NO_TESTS: &[&str] = &[
    ".json", ".png", ".csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml",
];

/// The command that runs the tests of these files, for the Python repositories of
/// SWE-bench; `None` where none is known. It expects the environment to be active.
pub fn test_command(repo: &str, version: &str, files: &[String]) -> Option<String> {
    let known = parser_of(repo)?;
    let repo = repo.to_ascii_lowercase();
    let command = match repo.as_str() {
        "django/django" => "./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1",
        "sympy/sympy" => {
            "PYTHONWARNINGS='ignore::UserWarning,ignore::SyntaxWarning' bin/test -C --verbose"
        }
        "sphinx-doc/sphinx" => "tox --current-env -epy39 -v --",
        "mwaskom/seaborn" => "pytest --no-header -rA",
        "astropy/astropy"
            if matches!(
                version,
                "0.1" | "0.2" | "0.3" | "0.4" | "1.1" | "1.2" | "1.3"
            ) =>
        {
            "pytest -rA -vv -o console_output_style=classic --tb=no"
        }
        _ if PYTEST.contains(&repo.as_str()) || known == "parse_log_pytest" => "pytest -rA",
        _ => return None,
    };
    let mut line = command.to_owned();
    for file in files {
        if NO_TESTS.iter().any(|end| file.ends_with(end)) {
            continue;
        }
        line.push(' ');
        if repo == "django/django" {
            let module = file.strip_suffix(".py").unwrap_or(file);
            let module = module.strip_prefix("tests/").unwrap_or(module);
            line.push_str(&module.replace('/', "."));
        } else {
            line.push_str(&quoted(file));
        }
    }
    Some(line)
}

/// A word for bash, in quotes where it needs them.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Repositories that run plain pytest and are read by a parser of another name.
const PYTEST: &[&str] = &[
    "astropy/astropy",
    "matplotlib/matplotlib",
    "psf/requests",
    "pydicom/pydicom",
    "pylint-dev/pylint",
    "scikit-learn/scikit-learn",
];

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
pub const REPOSITORIES: &[(&str, &str)] = &[
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
