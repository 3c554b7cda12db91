//! Tasks of ours as Harbor folders. The folder holds what Harbor needs to build and grade
//! it, and in `solution/` our own row, with which it reads back as the equal task.
//!
//! A test script there has Python and nothing of ours: it can say which tests pytest ran
//! and how they ended, and nothing else. Tasks that are read by another parser are refused.

use super::harbor::{self, Files};
use super::own;
use super::rows::Row;
use super::specs::quoted;
use crate::event::Imported;
use crate::task::{EnvironmentRecipe, Expectation, RepositorySource, Runner, Task};
use serde_json::{Value, json};

/// Runs pytest in its own process, sees how each test ends, and writes the reward.
const CHECK: &str = include_str!("check.py");
/// Seconds for the tests where the task says nothing.
const LIMIT_S: u64 = 600;
/// Where a repository lies that is put into an image for the occasion.
const TESTBED: &str = "/testbed";

/// The folder of a task, as a row (see [`harbor`]). What came from a folder comes out as
/// it went in.
///
/// # Errors
/// In words, why Harbor could not build or grade it.
pub fn to_harbor(
    task: &Task,
    imported: Option<&Imported>,
    recipe: Option<&EnvironmentRecipe>,
) -> Result<Row, String> {
    if let Some(imported) = imported
        && let Ok(Value::Object(row)) = serde_json::from_str::<Value>(&imported.row_json)
        && row.contains_key(harbor::KEY)
    {
        return Ok(row);
    }
    let recipe = imported.and_then(|i| i.recipe.as_ref()).or(recipe);
    let recipe = recipe.ok_or("nothing is known of its environment")?;
    let mut files = Files::new();
    let mut put = |path: &str, text: String| drop(files.insert(path.to_owned(), text.into()));
    let directory = match &recipe.source {
        Some(RepositorySource::Image { directory, .. }) => directory.as_str(),
        _ => TESTBED,
    };
    put(harbor::TASK_FILE, task_toml(task, recipe)?);
    put(harbor::INSTRUCTION, task.problem_statement.clone());
    put(
        "environment/Dockerfile",
        dockerfile(recipe, directory, !task.bug_patch.is_empty())?,
    );
    if !task.bug_patch.is_empty() {
        put("environment/bug.patch", task.bug_patch.clone());
    }
    if recipe.source.is_none() {
        put(
            "environment/requirements.txt",
            recipe.requirements.join("\n") + "\n",
        );
        let package = &recipe.package;
        put(
            "environment/subject.txt",
            format!(
                "{}=={} --hash=sha256:{}\n",
                package.name, package.version, package.sha256
            ),
        );
    }
    tests(task, recipe, directory, &mut put)?;
    if !task.gold_patch.is_empty() {
        put("solution/gold.patch", task.gold_patch.clone());
        put(
            "solution/solve.sh",
            format!(
                "#!/bin/bash\ncd {} && git apply \"$(dirname \"$0\")/gold.patch\"\n",
                quoted(directory)
            ),
        );
    }
    let own = own::to_row(task, Some(recipe))?;
    let own = serde_json::to_string_pretty(&own).map_err(|e| e.to_string())?;
    put(harbor::OWN_ROW, own);
    let executable: Vec<String> = ["tests/test.sh", "solution/solve.sh"]
        .into_iter()
        .filter(|path| files.contains_key(*path))
        .map(str::to_owned)
        .collect();
    harbor::to_row(task.id.as_str(), files, executable)
}

fn task_toml(task: &Task, recipe: &EnvironmentRecipe) -> Result<String, String> {
    let limit = task
        .execution
        .as_ref()
        .and_then(|e| e.timeout_s)
        .unwrap_or(LIMIT_S);
    let mut environment = json!({ "network_mode": "no-network" });
    if let (Some(RepositorySource::Image { reference, .. }), true) =
        (&recipe.source, task.bug_patch.is_empty())
    {
        environment["docker_image"] = reference.as_str().into();
    }
    let table = json!({
        "schema_version": "1.0",
        "task": { "name": format!("gametape/{}", task.id), "keywords": [task.repo] },
        "metadata": { "repo": task.repo, "base_commit": task.base_commit, "origin": task.origin },
        "verifier": { "timeout_sec": limit as f64 },
        "environment": environment,
    });
    toml::to_string(&table).map_err(|e| e.to_string())
}

fn dockerfile(recipe: &EnvironmentRecipe, directory: &str, bug: bool) -> Result<String, String> {
    let mut text = match &recipe.source {
        Some(RepositorySource::Image { reference, .. }) => {
            format!("FROM {reference}\nWORKDIR {directory}\n")
        }
        Some(RepositorySource::Git { .. }) => {
            return Err(
                "its environment comes from a git repository, not from an image".to_owned(),
            );
        }
        None => {
            let python = recipe.python.as_deref().unwrap_or("3.11");
            let root = format!("{directory}/{}", recipe.source_root);
            format!(
                "FROM python:{python}\nWORKDIR {directory}\n\
                 COPY requirements.txt subject.txt /build/\n\
                 RUN pip install --no-cache-dir --require-hashes -r /build/requirements.txt \\\n \
                 && pip download --no-deps --no-binary :all: --require-hashes -r /build/subject.txt -d /build \\\n \
                 && tar -xzf /build/*.tar.gz --strip-components=1 -C {directory} && rm -r /build\n\
                 ENV PYTHONPATH={root}\n"
            )
        }
    };
    for line in &recipe.setup {
        text.push_str(&format!("RUN {}\n", line.replace('\n', " \\\n")));
    }
    if bug {
        text.push_str("COPY bug.patch /bug.patch\nRUN git apply /bug.patch && rm /bug.patch\n");
    }
    if recipe.source.is_none() || bug {
        // One commit: no history, and the bug is not a difference to it.
        text.push_str(
            "RUN rm -rf .git && git init -q && git add -A -f && git -c user.name=base \
             -c user.email=base@localhost commit -q -m base\n",
        );
    }
    Ok(text)
}

fn tests(
    task: &Task,
    recipe: &EnvironmentRecipe,
    directory: &str,
    put: &mut impl FnMut(&str, String),
) -> Result<(), String> {
    let execution = task.execution.as_deref();
    let mut arguments: Vec<String> = Vec::new();
    match execution.map(|execution| &execution.runner) {
        None => {}
        Some(Runner::Pytest { arguments: given }) => arguments.clone_from(given),
        Some(Runner::Reward { files, .. }) => {
            for (path, text) in files {
                put(&format!("tests/{path}"), text.clone());
            }
            return Ok(());
        }
        Some(Runner::Script { log_parser, .. } | Runner::Command { log_parser, .. }) => {
            // These print pytest's own ids, and pytest can be run in their place.
            const PYTEST: [&str; 5] = [
                "parse_log_pytest",
                "parse_log_pytest_v2",
                "parse_log_pytest_options",
                "swesmith_pytest",
                "parse_log_sqlfluff",
            ];
            if !PYTEST.contains(&log_parser.as_str()) {
                return Err(format!(
                    "its log is read by `{log_parser}`, which a folder cannot carry"
                ));
            }
        }
    }
    if execution.is_some_and(|e| e.expectation != Expectation::Lists) {
        return Err("what it expects of its tests is more than two lists".to_owned());
    }
    let expected = json!({
        "arguments": arguments,
        "files": task.test_files,
        "fail_to_pass": task.fail_to_pass,
        "pass_to_pass": task.pass_to_pass,
    });
    let test_patch = execution.map_or("", |execution| execution.test_patch.as_str());
    let mut script = format!(
        "#!/bin/bash\nmkdir -p /logs/verifier\ncd {} || exit 1\n",
        quoted(directory)
    );
    if matches!(recipe.source, Some(RepositorySource::Image { .. })) {
        script.push_str(
            "if [ -f /opt/miniconda3/bin/activate ]; then\n  \
             source /opt/miniconda3/bin/activate && conda activate testbed\nfi\n",
        );
    }
    if !test_patch.is_empty() {
        put("tests/test.patch", test_patch.to_owned());
    }
    // Whatever the agent did to them, tests are as they were.
    for file in &task.test_files {
        script.push_str(&format!(
            "git checkout -q HEAD -- {} 2>/dev/null || rm -rf {0}\n",
            quoted(file)
        ));
    }
    if !test_patch.is_empty() {
        script.push_str("git apply /tests/test.patch || exit 1\n");
    }
    script.push_str("python /tests/check.py\n");
    put("tests/test.sh", script);
    put("tests/check.py", CHECK.to_owned());
    let expected = serde_json::to_string_pretty(&expected).map_err(|e| e.to_string())?;
    put("tests/expected.json", expected);
    Ok(())
}

#[cfg(test)]
#[path = "harbor_tests.rs"]
mod tests;
