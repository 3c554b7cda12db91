//! The effects of grading.

use crate::decide::Run;
use crate::{RULES, decide, parse, strip};
use actix::prelude::*;
use gametape_schemas::ask::ask;
use gametape_schemas::message::*;
use gametape_schemas::verdict::TestReport;
use gametape_schemas::{Digest, EnvironmentId, Failure, FailureKind, SandboxId, Verdict};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OnceCell, Semaphore};

/// How the room is set up.
#[derive(Clone, Debug)]
pub struct GraderOptions {
    /// Wall-clock limit of a test run.
    pub timeout_ms: u64,
    /// Test runs at once.
    pub parallel: usize,
    /// Bytes kept of a run's output; a summary line of every test must fit.
    pub output_cap: usize,
}

impl Default for GraderOptions {
    fn default() -> Self {
        Self {
            timeout_ms: 60_000,
            parallel: 2,
            output_cap: 8 << 20,
        }
    }
}

/// What the room asks of others.
#[derive(Clone)]
pub struct GraderRooms {
    /// Opens sandboxes.
    pub open: Recipient<OpenSandbox>,
    /// Runs commands.
    pub exec: Recipient<Exec>,
    /// Applies patches.
    pub apply: Recipient<ApplyPatch>,
    /// Closes sandboxes.
    pub close: Recipient<CloseSandbox>,
}

struct Inner {
    rooms: GraderRooms,
    options: GraderOptions,
    work: Semaphore,
    /// One cell per key: equal requests in flight share one run.
    known: Mutex<HashMap<Digest, Arc<OnceCell<Verdict>>>>,
    nonce: Box<dyn Fn() -> String + Send + Sync>,
}

/// Serves [`RunTests`] and [`GradePatch`].
pub struct GraderActor {
    inner: Arc<Inner>,
}

impl GraderActor {
    /// A grader. `nonce` gives a new unguessable text at every call; `known` are
    /// verdicts of earlier processes by key.
    pub fn new(
        rooms: GraderRooms,
        options: GraderOptions,
        nonce: Box<dyn Fn() -> String + Send + Sync>,
        known: Vec<(Digest, Verdict)>,
    ) -> Self {
        let cells = known
            .into_iter()
            .map(|(key, verdict)| (key, Arc::new(OnceCell::new_with(Some(verdict)))))
            .collect();
        let work = Semaphore::new(options.parallel.max(1));
        Self {
            inner: Arc::new(Inner {
                rooms,
                options,
                work,
                known: Mutex::new(cells),
                nonce,
            }),
        }
    }
}

impl Actor for GraderActor {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(256);
    }
}

/// The key under which a verdict is kept: what it depends on and nothing else.
pub fn cache_key(task: &gametape_schemas::Task, patch: &str) -> Digest {
    let parts = (
        &task.id,
        patch,
        &task.environment,
        RULES,
        (&task.bug_patch, &task.fail_to_pass, &task.pass_to_pass),
        &task.test_files,
    );
    // Strings always have a JSON form.
    Digest::of_value(&parts).unwrap_or_else(|_| Digest::of_bytes(patch.as_bytes()))
}

/// Characters of a failing test's text that are kept.
const FAILURE_CAP: usize = 400;

/// What pytest is told, beside the test files. Output that tests print is not shown:
/// it could look like the runner's own lines.
const PYTEST: &[&str] = &[
    "-p",
    "no:cacheprovider",
    "-o",
    "addopts=",
    "-rA",
    "-q",
    "--tb=short",
    "--show-capture=no",
    "--color=no",
    "-W",
    "ignore",
];

/// The shell program around the runner. It arrives on standard input and is read whole
/// before anything runs, so that the nonce is in no argument, variable or open file of a
/// process that the graded code can look at.
fn script(nonce: &str) -> String {
    format!(
        "{{ echo '{}'; \"$@\" </dev/null; code=$?; echo; echo '{}'; exit $code; }}\n",
        parse::start_marker(nonce),
        parse::end_marker(nonce)
    )
}

/// The last lines of an output, for people.
fn tail(stdout: &str, stderr: &str) -> String {
    let last = |text: &str, count: usize| {
        let lines: Vec<&str> = text.trim_end().lines().rev().take(count).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    let text = format!("{}\n{}", last(stdout, 15), last(stderr, 15));
    text.trim().chars().take(2_000).collect()
}

impl Inner {
    /// Opens a fresh sandbox, optionally applies a patch, runs the tests, closes it.
    async fn run(
        &self,
        environment: &EnvironmentId,
        patches: Vec<String>,
        patch: Option<&str>,
        test_files: &[String],
        timeout_ms: u64,
    ) -> Result<Result<Run, String>, Failure> {
        // The semaphore lives as long as the room: it is never closed.
        let _permit = self.work.acquire().await;
        let open = OpenSandbox {
            environment: environment.clone(),
            label: "grade".to_owned(),
            patches,
            hidden_paths: vec![],
            history: History::None,
        };
        let sandbox = ask(&self.rooms.open, open).await?;
        let outcome = self.run_in(&sandbox, patch, test_files, timeout_ms).await;
        let closed = ask(&self.rooms.close, CloseSandbox { sandbox }).await;
        if let Err(failure) = closed {
            tracing::warn!(%failure, "a grading sandbox was not closed");
        }
        outcome
    }

    async fn run_in(
        &self,
        sandbox: &SandboxId,
        patch: Option<&str>,
        test_files: &[String],
        timeout_ms: u64,
    ) -> Result<Result<Run, String>, Failure> {
        if let Some(patch) = patch {
            let apply = ApplyPatch {
                sandbox: sandbox.clone(),
                patch: patch.to_owned(),
            };
            if let PatchApplied::Rejected(why) = ask(&self.rooms.apply, apply).await? {
                return Ok(Err(why));
            }
        }
        let nonce = (self.nonce)();
        let mut argv: Vec<String> = ["sh", "-s", "--", "python", "-m", "pytest"]
            .iter()
            .chain(PYTEST)
            .map(|word| (*word).to_owned())
            .collect();
        argv.extend(test_files.iter().cloned());
        let outcome = ask(
            &self.rooms.exec,
            Exec {
                sandbox: sandbox.clone(),
                argv,
                stdin: Some(script(&nonce).into_bytes()),
                env: vec![
                    ("PYTEST_DISABLE_PLUGIN_AUTOLOAD".into(), "1".into()),
                    ("COLUMNS".into(), "200".into()),
                ],
                timeout_ms,
                output_cap: self.options.output_cap,
            },
        )
        .await?;
        let (output, complete) = parse::between(&outcome.stdout, &nonce);
        let started = output.is_some();
        let output = output.unwrap_or_default();
        let parse::Summary { statuses, doubt } = parse::read(output);
        let report = TestReport {
            failures: parse::failures(output, &statuses, FAILURE_CAP),
            statuses,
            exit_code: outcome.exit_code,
            timed_out: outcome.timed_out,
            complete,
            wall_ms: outcome.wall_ms,
            durations_ms: Default::default(),
            tail: tail(output, &outcome.stderr),
        };
        Ok(Ok(Run {
            report,
            started,
            doubt,
        }))
    }

    async fn grade(&self, request: &GradePatch) -> Result<Verdict, Failure> {
        let task = &request.task;
        if request.use_cache && request.patch.trim().is_empty() {
            return Ok(decide::unresolved("empty patch", true));
        }
        let (patch, dropped) = match strip::strip(&request.patch, &task.test_files) {
            Ok(parts) => parts,
            Err(why) => {
                let reason = format!("the patch does not apply: {why}");
                return Ok(decide::unresolved(reason, false));
            }
        };
        if request.use_cache && patch.trim().is_empty() {
            let reason = format!(
                "empty patch; changes to {} were left out",
                dropped.join(", ")
            );
            return Ok(decide::unresolved(reason, true));
        }
        let run = self
            .run(
                &task.environment,
                vec![task.bug_patch.clone()],
                Some(&patch),
                &task.test_files,
                self.options.timeout_ms,
            )
            .await?;
        let run = match run {
            Ok(run) => run,
            Err(why) => {
                return Ok(decide::unresolved(
                    format!("the patch does not apply: {why}"),
                    false,
                ));
            }
        };
        let mut verdict = decide::decide(task, &run).ok_or_else(|| {
            Failure::new(
                FailureKind::Sandbox,
                "GT-GRADE-NO-START",
                format!("the tests of {} never began: {}", task.id, run.report.tail),
            )
            .with_help("`gametape doctor` checks the sandbox; the attempt is graded again")
        })?;
        if !dropped.is_empty() {
            verdict.reason = format!(
                "{}; changes to {} were left out",
                verdict.reason,
                dropped.join(", ")
            );
        }
        Ok(verdict)
    }
}

impl Handler<RunTests> for GraderActor {
    type Result = ResponseFuture<Result<TestReport, Failure>>;

    fn handle(&mut self, message: RunTests, _: &mut Self::Context) -> Self::Result {
        let inner = self.inner.clone();
        Box::pin(async move {
            let run = inner
                .run(
                    &message.environment,
                    message.patches.clone(),
                    None,
                    &message.test_files,
                    message.timeout_ms,
                )
                .await?;
            match run {
                Ok(run) => Ok(run.report),
                // No patch is applied here; kept for completeness.
                Err(why) => Err(Failure::new(
                    FailureKind::Internal,
                    "GT-GRADE-NO-START",
                    why,
                )),
            }
        })
    }
}

impl Handler<GradePatch> for GraderActor {
    type Result = ResponseFuture<Result<Grade, Failure>>;

    fn handle(&mut self, message: GradePatch, _: &mut Self::Context) -> Self::Result {
        let inner = self.inner.clone();
        Box::pin(async move {
            let key = cache_key(&message.task, &message.patch);
            if !message.use_cache {
                let verdict = inner.grade(&message).await?;
                let cell = Arc::new(OnceCell::new_with(Some(verdict.clone())));
                let mut known = inner.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(key.clone(), cell);
                return Ok(Grade {
                    cache_key: key,
                    cached: false,
                    verdict,
                    rules: RULES.to_owned(),
                    ran: None,
                    findings: Vec::new(),
                });
            }
            let cell = {
                let mut known = inner.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.entry(key.clone()).or_default().clone()
            };
            let mut cached = true;
            let verdict = cell
                .get_or_try_init(|| {
                    cached = false;
                    inner.grade(&message)
                })
                .await?
                .clone();
            Ok(Grade {
                cache_key: key,
                cached,
                verdict,
                rules: RULES.to_owned(),
                ran: None,
                findings: Vec::new(),
            })
        })
    }
}
