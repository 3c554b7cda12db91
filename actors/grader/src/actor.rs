//! The effects of grading.

use crate::decide::{self, Run};
use crate::execute::{Bench, Tests, is_runner};
use crate::score::Rules;
use crate::{rules_name, strip, written};
use actix::prelude::*;
use gametape_schemas::ask::ask;
use gametape_schemas::message::*;
use gametape_schemas::task::Runner;
use gametape_schemas::verdict::TestReport;
use gametape_schemas::{
    Digest, EnvironmentId, Failure, FailureKind, Finding, SandboxId, Task, Verdict,
};
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
    /// Bytes kept of a run's output.
    pub output_cap: usize,
    /// Whose rules decide.
    pub rules: Rules,
}

impl Default for GraderOptions {
    fn default() -> Self {
        Self {
            timeout_ms: 60_000,
            parallel: 2,
            output_cap: 8 << 20,
            rules: Rules::Strict,
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

/// The key under which a verdict of the strict rules is kept: what it depends on and
/// nothing else.
pub fn cache_key(task: &Task, patch: &str) -> Digest {
    cache_key_under(task, patch, Rules::Strict)
}

/// The same for other rules.
pub fn cache_key_under(task: &Task, patch: &str, rules: Rules) -> Digest {
    let parts = (
        &task.id,
        patch,
        &task.environment,
        rules_name(rules),
        (&task.bug_patch, &task.fail_to_pass, &task.pass_to_pass),
        &task.test_files,
        &task.execution,
    );
    // Strings always have a JSON form.
    Digest::of_value(&parts).unwrap_or_else(|_| Digest::of_bytes(patch.as_bytes()))
}

/// A verdict, and the run that it was read from, if there was one.
struct Outcome {
    verdict: Verdict,
    ran: Option<RanTests>,
    findings: Vec<Finding>,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            ran: None,
            findings: Vec::new(),
        }
    }
}

/// What is put into a fresh sandbox before the tests run.
struct Setting<'a> {
    environment: &'a EnvironmentId,
    base: Vec<String>,
    history: History,
    /// The patch that is graded, if any.
    patch: Option<&'a str>,
    fit: Fit,
}

/// What runs then.
enum What<'a> {
    /// The tests of a task, and the files that are theirs.
    Task(&'a Task, Vec<String>),
    /// These files, with a limit in milliseconds.
    Files(&'a [String], u64),
}

/// What came of a setting.
enum Set {
    /// The tests ran; by which step the patch was fitted, if it did not fit exactly.
    Ran(Run, Option<String>),
    /// The graded patch does not apply; why.
    Rejected(String),
}

/// What the grader leaves out of a patch.
struct Cut {
    patch: String,
    dropped: Vec<String>,
}

/// Files that are the tests' own: the task's, and those that its test patch names.
fn test_files(task: &Task) -> Result<Vec<String>, Failure> {
    let mut files = task.test_files.clone();
    if let Some(execution) = task.execution.as_deref() {
        let named = strip::paths(&execution.test_patch).map_err(|why| bad_tests(task, &why))?;
        files.extend(named);
    }
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

fn bad_tests(task: &Task, why: &str) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-GRADE-TEST-PATCH",
        format!("the test patch of {} does not apply: {why}", task.id),
    )
    .with_help("the task does not fit its environment: see docs/errors/GT-GRADE-TEST-PATCH.md")
}

fn is_script(task: &Task) -> bool {
    let runner = task.execution.as_deref().map(|e| &e.runner);
    matches!(runner, Some(Runner::Script { .. }))
}

impl Inner {
    /// The patch as it is applied. The official harness puts back no more than what the
    /// test patch touches.
    fn cut(&self, patch: &str, tests: &[String]) -> Result<Cut, String> {
        let (patch, dropped) = match self.options.rules {
            Rules::Strict => strip::strip(patch, tests)?,
            Rules::Swebench => strip::without(patch, tests)?,
        };
        Ok(Cut { patch, dropped })
    }

    /// Opens a fresh sandbox, puts in what is to be there, runs the tests, closes it.
    async fn run(&self, setting: Setting<'_>, what: What<'_>) -> Result<Set, Failure> {
        // The semaphore lives as long as the room: it is never closed.
        let _permit = self.work.acquire().await;
        let open = OpenSandbox {
            environment: setting.environment.clone(),
            label: "grade".to_owned(),
            patches: setting.base.clone(),
            hidden_paths: vec![],
            history: setting.history,
        };
        let sandbox = self.open(open).await?;
        let done = self.run_in(&sandbox, &setting, what).await;
        let closed = ask(&self.rooms.close, CloseSandbox { sandbox }).await;
        if let Err(failure) = closed {
            tracing::warn!(%failure, "a grading sandbox was not closed");
        }
        done
    }

    /// Opens a sandbox. Only images have a history of their own to show: a script for an
    /// environment of ours gets a repository with one commit, and where there is no git to
    /// make that, none; what it then asks for in vain is in its log.
    async fn open(&self, mut open: OpenSandbox) -> Result<SandboxId, Failure> {
        loop {
            let less = match open.history {
                History::AsIs => History::Root,
                History::Root | History::None => History::None,
            };
            match ask(&self.rooms.open, open.clone()).await {
                Err(failure) if failure.code == "GT-SANDBOX-HISTORY" && open.history != less => {
                    open.history = less;
                }
                answer => return answer,
            }
        }
    }

    async fn run_in(
        &self,
        sandbox: &SandboxId,
        setting: &Setting<'_>,
        what: What<'_>,
    ) -> Result<Set, Failure> {
        let mut step = None;
        if let Some(patch) = setting.patch {
            match self.apply(sandbox, patch, setting.fit).await? {
                PatchApplied::Applied => {}
                PatchApplied::Fitted(how) => step = Some(how),
                PatchApplied::Rejected(why) => return Ok(Set::Rejected(why)),
            }
        }
        let mut bench = Bench {
            rooms: &self.rooms,
            sandbox,
            nonce: &*self.nonce,
            timeout_ms: self.options.timeout_ms,
            log_cap: self.options.output_cap,
        };
        let run = match what {
            What::Files(files, timeout_ms) => {
                bench.timeout_ms = timeout_ms;
                let tests = Tests {
                    files,
                    own_files: strip::own(files),
                    ..Tests::default()
                };
                bench.pytest(&tests).await?
            }
            What::Task(task, own_files) => {
                if let Some(execution) = task.execution.as_deref() {
                    let limit = execution.timeout_s.map(|s| s.saturating_mul(1000));
                    bench.timeout_ms = limit.unwrap_or(bench.timeout_ms);
                    let brings = !execution.test_patch.trim().is_empty() && !is_script(task);
                    if brings {
                        let patch = &execution.test_patch;
                        if let PatchApplied::Rejected(why) =
                            self.apply(sandbox, patch, Fit::Exact).await?
                        {
                            return Err(bad_tests(task, &why));
                        }
                    }
                }
                bench.task(task, own_files).await?
            }
        };
        Ok(Set::Ran(run, step))
    }

    async fn apply(
        &self,
        sandbox: &SandboxId,
        patch: &str,
        fit: Fit,
    ) -> Result<PatchApplied, Failure> {
        let request = ApplyPatch {
            sandbox: sandbox.clone(),
            patch: patch.to_owned(),
            fit,
        };
        ask(&self.rooms.apply, request).await
    }

    async fn grade(&self, request: &GradePatch) -> Result<Outcome, Failure> {
        let (task, rules) = (&request.task, self.options.rules);
        if request.use_cache && request.patch.trim().is_empty() {
            return Ok(decide::unresolved("empty patch", true).into());
        }
        let tests = test_files(task)?;
        let Cut { patch, dropped } = match self.cut(&request.patch, &tests) {
            Ok(cut) => cut,
            Err(why) => {
                let reason = format!("the patch does not apply: {why}");
                return Ok(decide::unresolved(reason, false).into());
            }
        };
        let left_out = format!("changes to {} were left out", dropped.join(", "));
        if request.use_cache && patch.trim().is_empty() {
            let reason = format!("empty patch; {left_out}");
            return Ok(decide::unresolved(reason, true).into());
        }
        let setting = Setting {
            environment: &task.environment,
            base: vec![task.bug_patch.clone()],
            history: if is_script(task) {
                History::AsIs
            } else {
                History::None
            },
            patch: Some(&patch),
            fit: match rules {
                Rules::Strict => Fit::Exact,
                Rules::Swebench => Fit::Official,
            },
        };
        let own_files = strip::own(&tests);
        let (mut run, step) = match self.run(setting, What::Task(task, own_files)).await? {
            Set::Ran(run, step) => (run, step),
            Set::Rejected(why) => {
                let reason = format!("the patch does not apply: {why}");
                return Ok(decide::unresolved(reason, false).into());
            }
        };
        if !is_runner(&task.repo) {
            run.findings.extend(written::findings(&patch, task));
        }
        let mut verdict = decide::decide(task, &run, rules)?;
        if let Some(step) = step {
            verdict.reason = format!("{}; the patch was fitted: {step}", verdict.reason);
        }
        if !dropped.is_empty() {
            verdict.reason = format!("{}; {left_out}", verdict.reason);
        }
        Ok(Outcome {
            verdict,
            ran: Some(run.ran()),
            findings: run.findings,
        })
    }
}

impl Handler<RunTests> for GraderActor {
    type Result = ResponseFuture<Result<TestReport, Failure>>;

    fn handle(&mut self, message: RunTests, _: &mut Self::Context) -> Self::Result {
        let inner = self.inner.clone();
        Box::pin(async move {
            let setting = Setting {
                environment: &message.environment,
                base: message.patches.clone(),
                history: History::None,
                patch: None,
                fit: Fit::Exact,
            };
            let what = What::Files(&message.test_files, message.timeout_ms);
            match inner.run(setting, what).await? {
                Set::Ran(run, _) => Ok(run.report),
                // No patch is applied here; kept for completeness.
                Set::Rejected(why) => Err(Failure::new(
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
            let rules = inner.options.rules;
            let key = cache_key_under(&message.task, &message.patch, rules);
            let grade = |cached: bool, outcome: Outcome| Grade {
                cache_key: key.clone(),
                cached,
                verdict: outcome.verdict,
                rules: rules_name(rules).to_owned(),
                ran: outcome.ran,
                findings: outcome.findings,
            };
            if !message.use_cache {
                let outcome = inner.grade(&message).await?;
                let cell = Arc::new(OnceCell::new_with(Some(outcome.verdict.clone())));
                let mut known = inner.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(key.clone(), cell);
                return Ok(grade(false, outcome));
            }
            let cell = {
                let mut known = inner.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.entry(key.clone()).or_default().clone()
            };
            // Filled by whoever of several equal requests is the one that runs.
            let mut own = None;
            let verdict = cell
                .get_or_try_init(|| async {
                    let outcome = inner.grade(&message).await?;
                    let verdict = outcome.verdict.clone();
                    own = Some(outcome);
                    Ok::<_, Failure>(verdict)
                })
                .await?
                .clone();
            Ok(match own {
                Some(outcome) => grade(false, outcome),
                None => grade(true, verdict.into()),
            })
        })
    }
}
