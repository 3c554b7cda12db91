//! Hidden tests run in a sandbox that holds the graded tree, by whichever runner the task
//! names. What cannot be done is an `Err`, never a verdict.

use crate::actor::GraderRooms;
use crate::decide::Run;
use crate::expect;
use crate::judge::records::{self, Ended, Session};
use crate::judge::{self, INTERPRETER, Order, Runner};
use crate::reward;
use gametape_schemas::ask::ask;
use gametape_schemas::message::*;
use gametape_schemas::task::Runner as TaskRunner;
use gametape_schemas::verdict::TestReport;
use gametape_schemas::{Failure, FailureKind, SandboxId, Task};

/// What pytest is told, beside the test files. Output that tests print is not shown.
const PYTEST: &[&str] = &[
    "-p",
    "no:cacheprovider",
    "-rA",
    "-q",
    "--tb=short",
    "--show-capture=no",
    "--color=no",
    "-W",
    "ignore",
];

/// What the sandbox itself gets beyond the judge's limit to end a run, milliseconds.
const GRACE_MS: u64 = 10_000;
/// Bytes of the judge's words: a record of every test must fit.
const WORDS_CAP: usize = 96 << 20;

/// A sandbox in which tests are to run.
pub(crate) struct Bench<'a> {
    pub rooms: &'a GraderRooms,
    pub sandbox: &'a SandboxId,
    pub nonce: &'a (dyn Fn() -> String + Send + Sync),
    pub timeout_ms: u64,
    /// Bytes kept of the log.
    pub log_cap: usize,
}

/// What pytest is to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tests<'a> {
    /// Files, relative to the repository.
    pub files: &'a [String],
    /// Arguments beside the grader's own.
    pub more: &'a [String],
    /// Files of the tree that are the tests' own, and no patch's.
    pub own_files: Vec<String>,
    /// Whether the environment's plugins and the repository's own options count (imported
    /// tasks), or pytest runs bare (ours).
    pub as_configured: bool,
    /// Whether the repository is a part of the runner.
    pub is_runner: bool,
}

/// Repositories of which the code is the test runner.
pub(crate) fn is_runner(repo: &str) -> bool {
    let name = repo.rsplit('/').next().unwrap_or(repo);
    matches!(name, "pytest" | "pluggy")
}

impl Bench<'_> {
    /// Runs a task's hidden tests.
    ///
    /// # Errors
    /// `GT-GRADE-NO-START`, `GT-GRADE-JUDGE`, `GT-GRADE-REWARD`, `GT-GRADE-PARSER`, and
    /// those of the sandbox.
    pub async fn task(&self, task: &Task, own_files: Vec<String>) -> Result<Run, Failure> {
        let Some(execution) = task.execution.as_deref() else {
            let tests = Tests {
                files: &task.test_files,
                own_files,
                is_runner: is_runner(&task.repo),
                ..Tests::default()
            };
            return self.pytest(&tests).await;
        };
        match &execution.runner {
            TaskRunner::Pytest { arguments } => {
                let tests = Tests {
                    files: &task.test_files,
                    more: arguments,
                    own_files,
                    as_configured: true,
                    is_runner: is_runner(&task.repo),
                };
                self.pytest(&tests).await
            }
            TaskRunner::Command {
                command,
                log_parser,
            } => {
                let mut run = self.script(command).await?;
                // As the official harness marks it, so that its tools can read it.
                let code = run.report.exit_code;
                run.log = format!(
                    ">>>>> Start Test Output\n{}\n>>>>> End Test Output\n{}",
                    run.log.trim_end_matches('\n'),
                    code.map_or(String::new(), |c| format!(">>>>> Test Exit Code: {c}\n"))
                );
                self.read(task, run, log_parser)
            }
            TaskRunner::Script { script, log_parser } => {
                let run = self.script(script).await?;
                self.read(task, run, log_parser)
            }
            TaskRunner::Reward { files, .. } => {
                reward::upload(self, files).await?;
                let mut run = self.script(reward::RUN).await?;
                if !run.report.timed_out && run.report.complete {
                    run.reward_milli = Some(reward::read(self).await?);
                }
                Ok(run)
            }
        }
    }

    /// The statuses of a log go into the report, for people and recipes.
    fn read(&self, task: &Task, mut run: Run, parser: &str) -> Result<Run, Failure> {
        run.report.statuses = expect::statuses(task, &run.log, parser)?.statuses;
        Ok(run)
    }

    /// Runs pytest under the judge.
    ///
    /// # Errors
    /// `GT-GRADE-NO-START`, `GT-GRADE-JUDGE`, and those of the sandbox.
    pub async fn pytest(&self, tests: &Tests<'_>) -> Result<Run, Failure> {
        let nonce = (self.nonce)();
        let mut arguments: Vec<String> = PYTEST.iter().map(|w| (*w).to_owned()).collect();
        let mut env = vec![("COLUMNS".to_owned(), "200".to_owned())];
        if !tests.as_configured {
            arguments.extend(["-o".to_owned(), "addopts=".to_owned()]);
            env.push(("PYTEST_DISABLE_PLUGIN_AUTOLOAD".into(), "1".into()));
        }
        arguments.extend(tests.more.iter().chain(tests.files).cloned());
        let runner = Runner {
            arguments,
            files: tests.own_files.clone(),
            own: tests.is_runner,
            // A test may look at its own name; where the lists come from elsewhere, it did.
            disguise: !tests.as_configured,
            ..Runner::default()
        };
        let order = Order::pytest(&nonce, runner, self.timeout_ms, self.log_cap);
        let (session, outcome) = self.judged("python", &order, &nonce, env).await?;
        let is_ours = !session.started && !tests.is_runner;
        let ended = self.ended(&session, &outcome)?;
        if is_ours && ended.is_some_and(|ended| !ended.timed_out) {
            let said = ended.map_or("", |e| e.stderr.as_str());
            return Err(no_start(&tail(&outcome.stdout, said)));
        }
        Ok(run_of(session, &outcome, true))
    }

    /// Runs a script for bash under the judge; by a plain shell where there is no Python.
    ///
    /// # Errors
    /// `GT-GRADE-NO-START`, `GT-GRADE-JUDGE`, and those of the sandbox.
    pub async fn script(&self, script: &str) -> Result<Run, Failure> {
        let nonce = (self.nonce)();
        let look = [
            "sh",
            "-c",
            "command -v python3 || command -v python || true",
        ];
        let found = self.exec(&look.map(str::to_owned), None, vec![]).await?;
        let Some(python) = found.stdout.lines().next().filter(|l| !l.is_empty()) else {
            return self.shell(script, &nonce).await;
        };
        let order = Order::script(&nonce, script, self.timeout_ms, self.log_cap);
        let (session, outcome) = self.judged(python, &order, &nonce, vec![]).await?;
        self.ended(&session, &outcome)?;
        Ok(run_of(session, &outcome, false))
    }

    /// The way without the judge: markers by the shell alone. Its standard input, which
    /// holds the nonce, is read whole and closed before anything runs.
    async fn shell(&self, script: &str, nonce: &str) -> Result<Run, Failure> {
        let (start, end) = (judge::start_marker(nonce), judge::end_marker(nonce));
        let wrapped = format!(
            "{{ exec </dev/null; echo '{start}'; bash -c \"$1\" 2>&1; code=$?; echo; \
             echo '{end}'; exit $code; }}\n"
        );
        let argv = ["sh", "-s", "--", script].map(str::to_owned);
        let outcome = self.exec(&argv, Some(wrapped), vec![]).await?;
        let (log, complete) = judge::between(&outcome.stdout, nonce);
        let log = log.ok_or_else(|| no_start(&tail(&outcome.stdout, &outcome.stderr)))?;
        Ok(Run {
            report: TestReport {
                exit_code: outcome.exit_code,
                timed_out: outcome.timed_out,
                complete,
                wall_ms: outcome.wall_ms,
                tail: tail(log, &outcome.stderr),
                ..TestReport::default()
            },
            log: log.trim_start_matches('\n').to_owned(),
            ..Run::default()
        })
    }

    async fn judged(
        &self,
        python: &str,
        order: &Order,
        nonce: &str,
        env: Vec<(String, String)>,
    ) -> Result<(Session, ExecOutcome), Failure> {
        let mut argv = vec![python.to_owned()];
        argv.extend(INTERPRETER.iter().map(|word| (*word).to_owned()));
        let outcome = self.exec(&argv, Some(order.program()), env).await?;
        let (said, _) = judge::between(&outcome.stdout, nonce);
        let said = said.ok_or_else(|| no_start(&tail(&outcome.stdout, &outcome.stderr)))?;
        Ok((records::read(said), outcome))
    }

    /// How the judge's child ended; `None` when the judge was ended before it.
    fn ended<'s>(
        &self,
        session: &'s Session,
        outcome: &ExecOutcome,
    ) -> Result<Option<&'s Ended>, Failure> {
        if let Some(why) = &session.failed {
            return Err(Failure::new(
                FailureKind::Sandbox,
                "GT-GRADE-JUDGE",
                format!("the judge of a test run could not do its work: {why}"),
            )
            .with_help("see docs/errors/GT-GRADE-JUDGE.md"));
        }
        tracing::debug!(code = ?outcome.exit_code, "the judge ended");
        Ok(session.ended.as_ref())
    }

    /// A command in the sandbox, with the limits of a test run.
    pub async fn exec(
        &self,
        argv: &[String],
        stdin: Option<String>,
        env: Vec<(String, String)>,
    ) -> Result<ExecOutcome, Failure> {
        self.exec_bytes(argv, stdin.map(String::into_bytes), env)
            .await
    }

    /// The same with any bytes on its standard input.
    pub async fn exec_bytes(
        &self,
        argv: &[String],
        stdin: Option<Vec<u8>>,
        env: Vec<(String, String)>,
    ) -> Result<ExecOutcome, Failure> {
        let request = Exec {
            sandbox: self.sandbox.clone(),
            argv: argv.to_vec(),
            stdin,
            env,
            timeout_ms: self.timeout_ms.saturating_add(GRACE_MS),
            output_cap: WORDS_CAP,
        };
        ask(&self.rooms.exec, request).await
    }
}

fn no_start(said: &str) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-GRADE-NO-START",
        format!("the tests never began: {said}"),
    )
    .with_help("`gametape doctor` checks the sandbox; the attempt is graded again")
}

fn run_of(session: Session, outcome: &ExecOutcome, records: bool) -> Run {
    let ended = session.ended.unwrap_or_default();
    let was_judged = ended != Ended::default();
    Run {
        report: TestReport {
            exit_code: ended.exit,
            timed_out: ended.timed_out || outcome.timed_out,
            complete: was_judged && !ended.timed_out && (session.finished || !records),
            wall_ms: outcome.wall_ms,
            tail: tail(&ended.log, &ended.stderr),
            ..session.report
        },
        findings: session.findings,
        reward_milli: None,
        log: ended.log,
    }
}

/// The last lines of an output, for people.
pub(crate) fn tail(stdout: &str, stderr: &str) -> String {
    let last = |text: &str, count: usize| {
        let lines: Vec<&str> = text.trim_end().lines().rev().take(count).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    let text = format!("{}\n{}", last(stdout, 15), last(stderr, 15));
    text.trim().chars().take(2_000).collect()
}
