//! What the judge says of a run, read and checked. Pure.
//!
//! The judge numbers and authenticates the runner's records; here they must tell of a
//! whole session: every test that was collected once and in order, each in its phases,
//! the planted tests ended as they must, and the runner's own count and exit status
//! agree with all of it. What does not fit is a finding, and strict rules resolve nothing
//! with a hard one.

use gametape_schemas::verdict::TestReport;
use gametape_schemas::{Finding, FindingKind, Severity, TestStatus};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// Characters of a failing test's text that are kept.
const FAILURE_CAP: usize = 400;
/// Characters of a finding's evidence.
const EVIDENCE_CAP: usize = 400;

/// How the judge's child ended, in its words.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct Ended {
    /// Exit status; `None` when a signal or the limit ended it.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the limit ended it.
    pub timed_out: bool,
    /// Wall time, milliseconds.
    pub wall_ms: u64,
    /// Lines on the record pipe that were not the runner's.
    pub strays: u64,
    /// The first of them.
    pub stray: Option<String>,
    /// Bytes of the log that were not kept.
    pub dropped: u64,
    /// What was written to standard output, as far as it was kept.
    pub log: String,
    /// The same of standard error.
    pub stderr: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Record(Vec<Value>),
    Ended(Ended),
    Failed(String),
}

/// A run as the judge saw it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Session {
    /// Whether the runner came up, before anything of the graded tree was imported.
    pub started: bool,
    /// Whether the runner said that the session ended.
    pub finished: bool,
    /// Status by test, texts and times; the rest of the report is the caller's to fill.
    pub report: TestReport,
    /// What looks like cheating.
    pub findings: Vec<Finding>,
    /// How the child ended; `None` when the judge itself was ended first.
    pub ended: Option<Ended>,
    /// Why the judge could not do its work.
    pub failed: Option<String>,
    /// Tests that were planted.
    pub planted: usize,
}

/// One phase of a test.
#[derive(Deserialize)]
struct Phase(String, String, f64, String, bool);

#[derive(Default)]
struct Reader {
    session: Session,
    ids: Vec<String>,
    /// Tests of which the last record may be followed by another: they are run again.
    again: BTreeSet<usize>,
    next: usize,
    ran: u64,
    failed: u64,
    canaries: usize,
    doubts: Vec<String>,
    said: Option<(i64, u64, u64, u64)>,
}

/// Reads what stands between the judge's markers.
pub fn read(inner: &str) -> Session {
    let mut reader = Reader::default();
    for line in inner.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(Said::Record(record)) => {
                if reader.record(&record).is_none() {
                    reader.doubt(format!("a record that no runner writes: {line}"));
                }
            }
            Ok(Said::Ended(ended)) => reader.session.ended = Some(ended),
            Ok(Said::Failed(why)) => reader.session.failed = Some(why),
            // Cut by a limit on the way here.
            Err(_) => reader.doubt("the judge's words are not whole".to_owned()),
        }
    }
    reader.finish()
}

impl Reader {
    fn doubt(&mut self, why: String) {
        self.doubts.push(why);
    }

    fn find(&mut self, kind: FindingKind, severity: Severity, evidence: &str) {
        self.session.findings.push(Finding {
            kind,
            severity,
            step: None,
            path: None,
            evidence: evidence.chars().take(EVIDENCE_CAP).collect(),
        });
    }

    fn record(&mut self, record: &[Value]) -> Option<()> {
        let kind = record.first()?.as_str()?;
        let text = |at: usize| record.get(at).and_then(Value::as_str);
        if self.said.is_some() || (kind == "started") == self.session.started {
            self.doubt(format!("`{kind}` out of turn"));
        }
        match kind {
            "started" => self.session.started = true,
            "collected" => {
                for id in record.get(1)?.as_array()? {
                    self.ids.push(id.as_str()?.to_owned());
                }
            }
            "uncollected" => {
                let id = text(1)?.to_owned();
                self.failed += 1;
                self.note(&id, TestStatus::Error, text(2)?);
            }
            "planted" => {
                self.session.planted = usize::try_from(record.get(1)?.as_u64()?).ok()?;
                if let Some(why) = text(2).filter(|why| !why.is_empty()) {
                    let why = format!("no test could be planted: {why}");
                    self.find(FindingKind::RunnerTampered, Severity::Soft, &why);
                }
            }
            "canary" => self.canary(text(1)?, text(2)?, text(3)?),
            "tampered" => {
                let what = format!("{} was changed by {}", text(1)?, text(2)?);
                self.find(FindingKind::RunnerTampered, Severity::Hard, &what);
            }
            "odd" => {
                let what = format!("a report on a test that does not run: {}", text(1)?);
                self.doubt(what);
            }
            "test" => self.test(record)?,
            "end" => {
                let number = |at: usize| record.get(at).and_then(Value::as_u64);
                self.said = Some((record.get(1)?.as_i64()?, number(2)?, number(3)?, number(4)?));
            }
            _ => return None,
        }
        Some(())
    }

    fn canary(&mut self, kind: &str, setup: &str, call: &str) {
        self.canaries += 1;
        // What the fixtures of a module do in its setup is their own affair.
        let behaves = match kind {
            "error" => setup != "passed",
            "pass" => setup != "passed" || call != "failed",
            _ => call != "passed",
        };
        if !behaves {
            let severity = if kind == "pass" {
                Severity::Soft
            } else {
                Severity::Hard
            };
            let what = format!("the planted test `{kind}` ended: setup {setup}, call {call}");
            self.find(FindingKind::CanaryPassed, severity, &what);
        }
    }

    fn test(&mut self, record: &[Value]) -> Option<()> {
        let number = record.get(1)?.as_i64()?;
        let phases = Vec::<Phase>::deserialize(record.get(2)?).ok()?;
        let Some(at) = usize::try_from(number).ok().filter(|n| *n < self.ids.len()) else {
            self.doubt(format!("a test that was not collected: {number}"));
            return Some(());
        };
        self.ran += 1;
        self.failed += phases.iter().filter(|p| p.1 == "failed").count() as u64;
        let id = self.ids.get(at)?.clone();
        if at < self.next && !self.again.contains(&at) {
            self.doubt(format!("{id} ran twice, or not in its turn"));
        }
        self.next = self.next.max(at + 1);
        if !is_whole(&phases) {
            self.doubt(format!("{id} did not go through its phases"));
        }
        if phases.iter().any(|phase| phase.1 == "rerun") {
            self.again.insert(at);
            return Some(());
        }
        self.again.remove(&at);
        let mut seconds = 0.0;
        for Phase(when, outcome, took, text, part) in &phases {
            seconds += took.max(0.0);
            let status = match (outcome.as_str(), when.as_str()) {
                ("failed", "call") => TestStatus::Failed,
                ("failed", _) => TestStatus::Error,
                // A part of a test says nothing of the whole unless it fails.
                _ if *part => continue,
                ("xfailed", _) => TestStatus::Xfail,
                ("xpassed", _) => TestStatus::Xpass,
                ("skipped", _) => TestStatus::Skipped,
                ("passed", "call") => TestStatus::Passed,
                ("passed", _) => continue,
                _ => TestStatus::Error,
            };
            self.note(&id, status, text);
        }
        let total = self.session.report.durations_ms.entry(id).or_insert(0.0);
        *total += (seconds * 1e6).round() / 1e3;
        Some(())
    }

    /// Of several words for one test the worst counts.
    fn note(&mut self, id: &str, status: TestStatus, text: &str) {
        let rank = |status: TestStatus| match status {
            TestStatus::Passed => 0,
            TestStatus::Skipped | TestStatus::Xfail | TestStatus::Xpass => 1,
            TestStatus::Failed => 2,
            TestStatus::Error => 3,
        };
        let report = &mut self.session.report;
        let entry = report.statuses.entry(id.to_owned()).or_insert(status);
        if rank(status) > rank(*entry) {
            *entry = status;
        }
        if rank(status) >= 2 && !text.trim().is_empty() {
            let text: String = text.trim().chars().take(FAILURE_CAP).collect();
            report.failures.entry(id.to_owned()).or_insert(text);
        }
    }

    fn finish(mut self) -> Session {
        self.session.finished = self.said.is_some();
        let ended = self.session.ended.clone().unwrap_or_default();
        if let Some((code, collected, ran, failed)) = self.said {
            let whole = self.ran == self.ids.len() as u64;
            if (collected, ran, failed) != (self.ids.len() as u64, self.ran, self.failed) {
                self.doubt(format!(
                    "the runner counts {collected} tests, {ran} run, {failed} reports of \
                     failure; its records hold {}, {} and {}",
                    self.ids.len(),
                    self.ran,
                    self.failed
                ));
            }
            if ended.exit.map(i64::from) != Some(code) && !ended.timed_out {
                self.doubt(format!(
                    "the runner ended with {code}, its process with {:?}",
                    ended.exit.or(ended.signal.map(|s| -s))
                ));
            }
            if code == 0 && !whole {
                self.doubt("not every collected test ran".to_owned());
            }
            if whole && self.canaries != self.session.planted {
                self.doubt(format!(
                    "of {} planted tests {} ran",
                    self.session.planted, self.canaries
                ));
            }
        }
        if ended.strays > 0 {
            self.doubt(format!(
                "something else wrote on the record pipe: {}",
                ended.stray.unwrap_or_default()
            ));
        }
        // The first says enough.
        if let Some(doubt) = self.doubts.first().cloned() {
            self.find(FindingKind::RunnerTampered, Severity::Hard, &doubt);
        }
        self.session
    }
}

/// `setup`, then `call` if that passed, then `teardown`.
fn is_whole(phases: &[Phase]) -> bool {
    let of = |when: &str| -> Vec<&Phase> {
        phases
            .iter()
            .filter(|phase| phase.0 == when && !phase.4)
            .collect()
    };
    let (setup, call, teardown) = (of("setup"), of("call"), of("teardown"));
    let set_up = setup.first().is_some_and(|phase| phase.1 == "passed");
    setup.len() == 1 && teardown.len() == 1 && call.len() == usize::from(set_up)
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
