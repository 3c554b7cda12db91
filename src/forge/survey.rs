//! The clean package: its code, its test files, which tests pass every time, and
//! which of them reach which function.

use super::ask::{ForgeDeps, ask, bounded};
use super::candidate::CodeFile;
use super::driver::{Answer, Answers, PROGRAM, Request, driver_failure, read_answers};
use super::kept::{self, Observations, Observed};
use super::progress::{News, Phase, Progress};
use super::reach::{Reach, Reference, reference};
use super::syntax::Source;
use gametape_schemas::message::{
    CloseSandbox, Exec, OpenSandbox, Provision, Provisioned, RunTests,
};
use gametape_schemas::{EnvironmentId, EnvironmentRecipe, Failure, FailureKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Limit of a clean run of one test file. A file that needs longer is not for a
/// forge that runs it hundreds of times.
const CLEAN_LIMIT_MS: u64 = 30_000;
/// Provisioning downloads and installs.
const PROVISION_LIMIT: Duration = Duration::from_secs(1_200);
/// Output of the driver: a few kilobytes a job.
const DRIVER_OUTPUT_CAP: usize = 32 << 20;

/// What the forge knows of a clean package.
pub struct Survey {
    /// The environment.
    pub provisioned: Provisioned,
    /// The package's own code.
    pub files: Vec<CodeFile>,
    /// Test files that are of use, with what passes in them.
    pub references: BTreeMap<String, Reference>,
    /// Who calls what.
    pub reach: Reach,
}

impl Survey {
    /// Tests that pass on the clean tree in these files.
    pub fn expected(&self, tests: &[String]) -> Vec<String> {
        tests
            .iter()
            .filter_map(|file| self.references.get(file))
            .flat_map(|reference| reference.passing.iter().cloned())
            .collect()
    }

    /// Clean wall time of these files together, milliseconds.
    pub fn clean_ms(&self, tests: &[String]) -> u64 {
        tests
            .iter()
            .filter_map(|file| self.references.get(file))
            .map(|reference| reference.wall_ms)
            .sum()
    }
}

/// Provisions a package and runs its tests on the clean tree, twice; not at all when an
/// earlier survey of the same is kept.
///
/// # Errors
/// Those of the rooms; `GT-FORGE-SOURCE` when the package cannot be read;
/// `GT-FORGE-NO-TESTS` when no test passes every time.
pub(crate) async fn survey(
    recipe: &EnvironmentRecipe,
    jobs: usize,
    deps: &ForgeDeps,
    progress: &impl Progress,
) -> Result<Survey, Failure> {
    let name = &recipe.package.name;
    let news = |phase, done: usize, wanted: usize, note: &str| {
        progress.report(News {
            package: name.clone(),
            phase,
            done: done as u64,
            wanted: wanted as u64,
            note: note.to_owned(),
        });
    };
    news(Phase::Provision, 0, 1, "");
    let message = Provision {
        recipe: recipe.clone(),
    };
    let provisioned = ask(&deps.provision, message, PROVISION_LIMIT).await?;
    news(
        Phase::Provision,
        1,
        1,
        if provisioned.cached { "cached" } else { "" },
    );

    let (files, test_files) = read_package(&provisioned.repository, recipe).await?;
    let place = kept::place(&deps.surveys, &provisioned, recipe, CLEAN_LIMIT_MS);
    let observed = match place.as_deref().and_then(kept::load) {
        Some(observed) => observed,
        None => {
            let environment = &provisioned.environment;
            let observed = observe(environment, test_files, recipe, jobs, deps, &news).await?;
            if let Some(place) = place
                && let Err(error) = kept::save(&place, &observed)
            {
                tracing::warn!(%error, "the survey of a package is not kept");
            }
            observed
        }
    };
    let reach = Reach::of(&observed);
    let references: BTreeMap<_, _> = observed
        .into_iter()
        .map(|(file, observed)| (file, observed.reference))
        .collect();
    if references.is_empty() {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-FORGE-NO-TESTS",
            format!("no test of `{name}` passes on the clean package each time it is run"),
        )
        .with_help(format!(
            "looked in {}; check `tests` and `skip_tests` of the package's pin",
            recipe.tests.join(", ")
        )));
    }
    Ok(Survey {
        provisioned,
        files,
        references,
        reach,
    })
}

/// Runs the tests of the clean tree twice, once with a look at what calls what.
async fn observe(
    environment: &EnvironmentId,
    test_files: Vec<String>,
    recipe: &EnvironmentRecipe,
    jobs: usize,
    deps: &ForgeDeps,
    news: &impl Fn(Phase, usize, usize, &str),
) -> Result<Observations, Failure> {
    let wanted = test_files.len();
    news(Phase::Reference, 0, wanted, "which test calls what");
    let shards = (0..jobs.max(1)).map(|shard| {
        let files: Vec<_> = test_files
            .iter()
            .skip(shard)
            .step_by(jobs.max(1))
            .cloned()
            .collect();
        trace(environment, files, recipe, deps)
    });
    let mut traced: BTreeMap<String, Answer> = BTreeMap::new();
    for answers in bounded(jobs, shards).await {
        traced.extend(answers?);
    }

    let done = std::cell::Cell::new(0);
    let runs = test_files.iter().map(|file| {
        let done = &done;
        async move {
            let message = RunTests {
                environment: environment.clone(),
                patches: Vec::new(),
                test_files: vec![file.clone()],
                timeout_ms: CLEAN_LIMIT_MS,
            };
            let report = ask(&deps.run_tests, message, run_deadline(CLEAN_LIMIT_MS)).await;
            done.set(done.get() + 1);
            news(Phase::Reference, done.get(), wanted, "");
            report
        }
    });
    let reports = bounded(jobs, runs).await;
    let mut observed = Observations::new();
    for (file, report) in test_files.iter().zip(reports) {
        if let Some(answer) = traced.get(file)
            && let Some(reference) = reference(&report?, answer)
        {
            let calls = answer.calls.clone();
            observed.insert(file.clone(), Observed { reference, calls });
        }
    }
    Ok(observed)
}

/// Deadline of an ask for a run that has its own limit: opening and closing come on top.
pub(crate) fn run_deadline(limit_ms: u64) -> Duration {
    Duration::from_millis(limit_ms) + Duration::from_secs(60)
}

/// Which functions does each test file reach? Files whose run broke the driver are
/// absent from the answer.
async fn trace(
    environment: &EnvironmentId,
    files: Vec<String>,
    recipe: &EnvironmentRecipe,
    deps: &ForgeDeps,
) -> Result<BTreeMap<String, Answer>, Failure> {
    drive(
        environment,
        &recipe.package.name,
        "trace",
        files.into_iter().map(|file| (file.clone(), file)).collect(),
        CLEAN_LIMIT_MS,
        |files| Request::Trace {
            files,
            timeout: CLEAN_LIMIT_MS as f64 / 1000.0,
            code: recipe.code.clone(),
        },
        deps,
    )
    .await
}

/// Runs the driver over jobs in one sandbox. A job that ends the driver is left out
/// of the answer and the rest goes on in a fresh sandbox.
///
/// # Errors
/// Those of the environment; `GT-FORGE-DRIVER` when the driver answers nothing at all.
pub(crate) async fn drive<J: Clone>(
    environment: &EnvironmentId,
    package: &str,
    purpose: &str,
    mut jobs: Vec<(String, J)>,
    limit_ms: u64,
    request: impl Fn(Vec<J>) -> Request,
    deps: &ForgeDeps,
) -> Result<BTreeMap<String, Answer>, Failure> {
    let mut all = BTreeMap::new();
    let mut fruitless = 0;
    while !jobs.is_empty() {
        let limit = limit_ms.saturating_mul(jobs.len() as u64) + 30_000;
        let body = request(jobs.iter().map(|(_, job)| job.clone()).collect());
        let (answers, stderr) =
            run_driver(environment, package, purpose, &body, limit, deps).await?;
        let got_some = !answers.by_id.is_empty();
        all.extend(answers.by_id);
        jobs.retain(|(id, _)| !all.contains_key(id));
        if answers.complete {
            break;
        }
        fruitless = if got_some { 0 } else { fruitless + 1 };
        // The first one without an answer was running when the driver ended.
        if !jobs.is_empty() {
            jobs.remove(0);
        }
        if fruitless > 2 || (jobs.is_empty() && all.is_empty()) {
            return Err(driver_failure(package, &stderr));
        }
    }
    Ok(all)
}

async fn run_driver(
    environment: &EnvironmentId,
    package: &str,
    purpose: &str,
    request: &Request,
    limit_ms: u64,
    deps: &ForgeDeps,
) -> Result<(Answers, String), Failure> {
    let stdin = serde_json::to_vec(request).map_err(|error| {
        Failure::new(FailureKind::Internal, "GT-FORGE-DRIVER", error.to_string())
    })?;
    let open = OpenSandbox {
        environment: environment.clone(),
        label: format!("forge/{package}/{purpose}"),
        patches: Vec::new(),
        hidden_paths: Vec::new(),
        history: gametape_schemas::message::History::None,
    };
    let sandbox = ask(&deps.open, open, Duration::from_secs(120)).await?;
    let exec = Exec {
        sandbox: sandbox.clone(),
        argv: ["python", "-c", PROGRAM].map(str::to_owned).to_vec(),
        stdin: Some(stdin),
        env: [
            // Sets of strings must not change their order between runs.
            ("PYTHONHASHSEED", "0"),
            ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        timeout_ms: limit_ms,
        output_cap: DRIVER_OUTPUT_CAP,
    };
    let outcome = ask(&deps.exec, exec, run_deadline(limit_ms)).await;
    let close = ask(
        &deps.close,
        CloseSandbox { sandbox },
        Duration::from_secs(60),
    )
    .await;
    let outcome = outcome?;
    close?;
    Ok((read_answers(&outcome.stdout), outcome.stderr))
}

/// Reads the code and lists the test files, on a thread that may block.
async fn read_package(
    repository: &Path,
    recipe: &EnvironmentRecipe,
) -> Result<(Vec<CodeFile>, Vec<String>), Failure> {
    let repository = repository.to_owned();
    let recipe = recipe.clone();
    tokio::task::spawn_blocking(move || {
        let tests = test_files(&repository, &recipe);
        if tests.is_empty() {
            return Err(Failure::new(
                FailureKind::Input,
                "GT-FORGE-NO-TESTS",
                format!(
                    "`{}` has no test files in {}",
                    recipe.package.name,
                    recipe.tests.join(", ")
                ),
            )
            .with_help("the source archive must carry its tests; check `tests` of the pin"));
        }
        let mut files = Vec::new();
        for path in python_files(&repository, &recipe.code) {
            if tests.contains(&path) || is_test_name(&path) || in_tests(&path, &recipe) {
                continue;
            }
            let text = std::fs::read_to_string(repository.join(&path));
            // A file that is not UTF-8 or does not parse is left alone.
            if let Some(source) = text.ok().and_then(Source::parse) {
                files.push(CodeFile { path, source });
            }
        }
        if files.is_empty() {
            return Err(Failure::new(
                FailureKind::Input,
                "GT-FORGE-SOURCE",
                format!(
                    "no Python file of `{}` can be read in {}",
                    recipe.package.name,
                    recipe.code.join(", ")
                ),
            )
            .with_help("check `code` of the package's pin"));
        }
        Ok((files, tests))
    })
    .await
    .map_err(|error| Failure::new(FailureKind::Internal, "GT-FORGE-SOURCE", error.to_string()))?
}

/// Whether a path lies in one of the directories of tests.
fn in_tests(path: &str, recipe: &EnvironmentRecipe) -> bool {
    recipe
        .tests
        .iter()
        .any(|tests| path == tests || path.starts_with(&format!("{tests}/")))
}

fn is_test_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py"))
}

/// Test files of a recipe that are there: those that it names, and those that pytest
/// would collect in directories that it names.
fn test_files(repository: &Path, recipe: &EnvironmentRecipe) -> Vec<String> {
    python_files(repository, &recipe.tests)
        .into_iter()
        .filter(|path| is_test_name(path) || recipe.tests.contains(path))
        .filter(|path| !recipe.skip_tests.contains(path))
        .collect()
}

/// Python files at or below some paths, relative to the repository, sorted.
fn python_files(repository: &Path, roots: &[String]) -> Vec<String> {
    let mut found: Vec<String> = roots
        .iter()
        .flat_map(|root| walkdir::WalkDir::new(repository.join(root)))
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| relative(repository, entry.into_path()))
        .filter(|path| path.ends_with(".py"))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn relative(repository: &Path, path: PathBuf) -> Option<String> {
    let parts: Option<Vec<_>> = path
        .strip_prefix(repository)
        .ok()?
        .components()
        .map(|part| part.as_os_str().to_str().filter(|part| *part != "."))
        .collect();
    Some(parts?.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::PinnedPackage;

    #[test]
    fn tests_and_code_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in [
            "box/__init__.py",
            "box/core.py",
            "box/tests/test_core.py",
            "box/tests/helper.py",
            "box/tests/test_net.py",
            "box/data.txt",
            "more/check.py",
        ] {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x = 1\n").unwrap();
        }
        let recipe = EnvironmentRecipe {
            package: PinnedPackage {
                name: "box".to_owned(),
                version: "1".to_owned(),
                sha256: String::new(),
            },
            requirements: Vec::new(),
            source_root: ".".to_owned(),
            code: vec!["box".to_owned()],
            tests: vec!["box/tests".to_owned(), "more/check.py".to_owned()],
            skip_tests: vec!["box/tests/test_net.py".to_owned()],
            layout: 1,
            python: None,
            source: None,
            setup: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (files, tests) = runtime.block_on(read_package(root, &recipe)).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["box/__init__.py", "box/core.py"]);
        assert_eq!(tests, ["box/tests/test_core.py", "more/check.py"]);
        let nothing = EnvironmentRecipe {
            tests: vec!["absent".to_owned()],
            ..recipe
        };
        let failure = runtime
            .block_on(read_package(root, &nothing))
            .err()
            .unwrap();
        assert_eq!(failure.code, "GT-FORGE-NO-TESTS");
    }
}
