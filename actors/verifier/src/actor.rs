//! The room: answers `ScoreTrajectories`. What lies at the verifier's path decides how: a
//! [head](crate::head) scores here, on the blocking pool; of a language model the
//! log-probabilities of YES and NO are asked for: of a [judge](crate::judge) with the prompt
//! and the calibration that its directory names, of weights alone with the loop's prompt.
//!
//! Every attempt gets its score from the model, one without a patch too: a rule that
//! gave those zero would hide what the model does. Equal conversations are asked once.

use crate::head::{Head, is_head};
use crate::judge::{Ready, is_judge};
use crate::prompt::{answers, conversation};
use actix::prelude::*;
use gametape_schemas::event::VerifierScored;
use gametape_schemas::message::{ModelSource, ScoreAnswers, ScoreTrajectories};
use gametape_schemas::{ChatMessage, Failure, FailureKind};
use std::collections::HashMap;
use std::time::Duration;

/// Conversations asked for at once.
pub const BATCH: usize = 16;
/// How long one batch may take. Generous: the model may be busy with another ask.
pub const DEADLINE: Duration = Duration::from_secs(900);

/// Scores finished trajectories.
#[derive(Clone)]
pub struct VerifierActor {
    model: Recipient<ScoreAnswers>,
    batch: usize,
    deadline: Duration,
}

impl VerifierActor {
    /// A verifier that asks this model, [`BATCH`] conversations at a time, each batch
    /// within [`DEADLINE`].
    pub fn new(model: Recipient<ScoreAnswers>) -> Self {
        Self {
            model,
            batch: BATCH,
            deadline: DEADLINE,
        }
    }

    /// With another batch size (at least 1).
    #[must_use]
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch.max(1);
        self
    }

    /// With another deadline per batch.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    async fn score(self, ask: ScoreTrajectories) -> Result<Vec<VerifierScored>, Failure> {
        if let Some((task, open)) = ask.items.iter().find(|(_, t)| t.end.is_none()) {
            return Err(Failure::new(
                FailureKind::Internal,
                "GT-VERIFIER-UNFINISHED",
                format!(
                    "attempt {} at task {} has not ended and cannot be scored",
                    open.attempt, task.id
                ),
            )
            .with_help("score attempts after their PatchSubmitted event"));
        }
        let local = ask.clone();
        let scored = tokio::task::spawn_blocking(move || by_head(&local)).await;
        match scored {
            Ok(Some(scored)) => return scored,
            Ok(None) => {}
            Err(error) => return Err(gone(error)),
        }
        let without_patch = ask
            .items
            .iter()
            .filter(|(_, t)| t.patch().is_none_or(|p| p.trim().is_empty()))
            .count();

        let (ask, ready, asked) = tokio::task::spawn_blocking(move || prepare(ask))
            .await
            .map_err(gone)??;
        let weights = ready.as_ref().map_or(&ask.model, |ready| &ready.weights);
        // Position of each item's conversation among the different ones.
        let mut distinct: Vec<Vec<ChatMessage>> = Vec::new();
        let mut known: HashMap<Vec<ChatMessage>, usize> = HashMap::new();
        let mut place = Vec::with_capacity(ask.items.len());
        for asked in asked {
            let at = *known.entry(asked).or_insert_with_key(|asked| {
                distinct.push(asked.clone());
                distinct.len() - 1
            });
            place.push(at);
        }
        tracing::info!(
            attempts = ask.items.len(),
            without_patch,
            conversations = distinct.len(),
            "scoring"
        );
        let mut pairs = Vec::with_capacity(distinct.len());
        for batch in distinct.chunks(self.batch) {
            pairs.extend(self.ask(weights, batch).await?);
        }
        ask.items
            .iter()
            .zip(place)
            .map(|((_, attempt), at)| {
                let (yes, no) = *pairs
                    .get(at)
                    .ok_or_else(|| bad_answer("fewer answers than conversations"))?;
                let (logprob_yes, logprob_no) = match &ready {
                    Some(ready) => ready.judge.calibrated(yes, no),
                    None => (yes, no),
                };
                Ok(VerifierScored {
                    attempt: attempt.attempt.clone(),
                    verifier: ask.model.checkpoint.clone(),
                    logprob_yes,
                    logprob_no,
                    score: score_of(logprob_yes, logprob_no),
                })
            })
            .collect()
    }

    /// Log-probabilities of (YES, NO) for one batch.
    async fn ask(
        &self,
        model: &ModelSource,
        batch: &[Vec<ChatMessage>],
    ) -> Result<Vec<(f64, f64)>, Failure> {
        let answer = self
            .model
            .send(ScoreAnswers {
                model: model.clone(),
                conversations: batch.to_vec(),
                answers: answers(),
            })
            .timeout(self.deadline)
            .await
            .map_err(|error| self.unreachable(&error))??;
        if answer.len() != batch.len() {
            return Err(bad_answer(format!(
                "{} answers to {} conversations",
                answer.len(),
                batch.len()
            )));
        }
        answer
            .iter()
            .map(|scores| match scores.as_slice() {
                [yes, no] if !yes.is_nan() && !no.is_nan() && yes.max(*no) > f64::NEG_INFINITY => {
                    Ok((*yes, *no))
                }
                _ => Err(bad_answer(format!(
                    "log-probabilities {scores:?} where one of YES and one of NO were asked for"
                ))),
            })
            .collect()
    }

    fn unreachable(&self, error: &MailboxError) -> Failure {
        match error {
            MailboxError::Timeout => Failure::new(
                FailureKind::Timeout,
                "GT-VERIFIER-TIMEOUT",
                format!(
                    "the model did not score a batch of {} within {} s",
                    self.batch,
                    self.deadline.as_secs()
                ),
            )
            .with_help("is the machine busy? The same command goes on where it was"),
            MailboxError::Closed => Failure::new(
                FailureKind::ActorDied,
                "GT-VERIFIER-MODEL-GONE",
                "the model actor is gone, with a batch in its hands",
            )
            .with_help("it is restarted and asked again; see ActorDied events on the tape"),
        }
    }
}

/// What is asked about each attempt, and of whom. Shortening long attempts takes time: not
/// on an actor's thread.
type Prepared = (ScoreTrajectories, Option<Ready>, Vec<Vec<ChatMessage>>);

fn prepare(ask: ScoreTrajectories) -> Result<Prepared, Failure> {
    let items = ask.items.iter();
    if !is_judge(&ask.model.path) {
        let asked = items.map(|(task, one)| conversation(task, one)).collect();
        return Ok((ask, None, asked));
    }
    let ready = Ready::load(&ask.model.path)?;
    if ready.id != ask.model.checkpoint {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-VERIFIER-JUDGE",
            format!(
                "{} holds the verifier {}, and {} was asked for",
                ask.model.path.display(),
                ready.id,
                ask.model.checkpoint
            ),
        )
        .with_help("a verifier's name is the digest of its file: was it trained again?"));
    }
    let asked = items
        .map(|(task, one)| ready.conversation(task, one))
        .collect();
    Ok((ask, Some(ready), asked))
}

fn gone(error: tokio::task::JoinError) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "GT-VERIFIER-HEAD",
        format!("the thread that was to score is gone: {error}"),
    )
}

/// The scores by the head at the verifier's path; `None` where no head lies.
fn by_head(ask: &ScoreTrajectories) -> Option<Result<Vec<VerifierScored>, Failure>> {
    is_head(&ask.model.path).then(|| {
        let head = Head::load(&ask.model.path)?;
        let id = head.id()?;
        if id != ask.model.checkpoint {
            return Err(Failure::new(
                FailureKind::Input,
                "GT-VERIFIER-HEAD",
                format!(
                    "{} holds the verifier {id}, and {} was asked for",
                    ask.model.path.display(),
                    ask.model.checkpoint
                ),
            )
            .with_help("a head's name is the digest of its file: was it trained again?"));
        }
        let score = |(task, attempt): &(_, gametape_schemas::Trajectory)| {
            let (logprob_yes, logprob_no) = head.score(task, attempt);
            VerifierScored {
                attempt: attempt.attempt.clone(),
                verifier: id.clone(),
                logprob_yes,
                logprob_no,
                score: score_of(logprob_yes, logprob_no),
            }
        };
        Ok(ask.items.iter().map(score).collect())
    })
}

/// exp(yes) / (exp(yes) + exp(no)), without overflow.
pub fn score_of(logprob_yes: f64, logprob_no: f64) -> f64 {
    1.0 / (1.0 + (logprob_no - logprob_yes).exp())
}

fn bad_answer(what: impl Into<String>) -> Failure {
    Failure::new(
        FailureKind::Model,
        "GT-VERIFIER-ANSWER",
        format!("the model's answer cannot be a score: {}", what.into()),
    )
    .with_help("weights with NaN in them give this: look at the loss of the verifier's training")
}

impl Actor for VerifierActor {
    type Context = Context<Self>;
}

// What the supervisor does to restart it: there is no state to lose.
impl Supervised for VerifierActor {}

impl Handler<ScoreTrajectories> for VerifierActor {
    type Result = ResponseFuture<Result<Vec<VerifierScored>, Failure>>;

    fn handle(&mut self, ask: ScoreTrajectories, _: &mut Context<Self>) -> Self::Result {
        Box::pin(self.clone().score(ask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attempt, task};
    use gametape_schemas::{CheckpointId, Split, Task, Trajectory};
    use std::sync::{Arc, Mutex};

    /// Says YES in proportion to the length of the conversation; remembers batches.
    struct FakeModel {
        batches: Arc<Mutex<Vec<usize>>>,
        reply: fn(&ScoreAnswers) -> Result<Vec<Vec<f64>>, Failure>,
    }

    impl Actor for FakeModel {
        type Context = Context<Self>;
    }

    impl Handler<ScoreAnswers> for FakeModel {
        type Result = Result<Vec<Vec<f64>>, Failure>;
        fn handle(&mut self, ask: ScoreAnswers, _: &mut Context<Self>) -> Self::Result {
            assert_eq!(ask.answers, ["YES", "NO"]);
            self.batches.lock().unwrap().push(ask.conversations.len());
            (self.reply)(&ask)
        }
    }

    fn by_length(ask: &ScoreAnswers) -> Result<Vec<Vec<f64>>, Failure> {
        Ok(ask
            .conversations
            .iter()
            .map(|c| vec![-1000.0 / c[1].content.len() as f64, -1.0])
            .collect())
    }

    fn source() -> ModelSource {
        ModelSource {
            checkpoint: CheckpointId::new("judge"),
            path: "unused".into(),
        }
    }

    async fn run(
        reply: fn(&ScoreAnswers) -> Result<Vec<Vec<f64>>, Failure>,
        items: Vec<(Task, Trajectory)>,
    ) -> (Result<Vec<VerifierScored>, Failure>, Vec<usize>) {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let model = FakeModel {
            batches: batches.clone(),
            reply,
        }
        .start();
        let verifier = VerifierActor::new(model.recipient()).with_batch(2).start();
        let scored = verifier
            .send(ScoreTrajectories {
                model: source(),
                items,
            })
            .await
            .unwrap();
        let batches = batches.lock().unwrap().clone();
        (scored, batches)
    }

    fn items() -> Vec<(Task, Trajectory)> {
        let task = task("toolz", "a", Split::HeldOut);
        let patch = |n: usize| {
            if n == 0 {
                return String::new();
            }
            format!(
                "--- a/x.py\n+++ b/x.py\n@@ -1,0 +1,1 @@\n+{}\n",
                "y".repeat(n)
            )
        };
        [1, 0, 2, 1, 3, 4]
            .iter()
            .enumerate()
            .map(|(i, n)| {
                let one = attempt(&task, "evaluate-tuned", i as u32, Some(true), &patch(*n));
                (task.clone(), one)
            })
            .collect()
    }

    #[actix::test]
    async fn scores_come_in_order_in_bounded_batches_and_twins_share_one() {
        let items = items();
        let (scored, batches) = run(by_length, items.clone()).await;
        let scored = scored.unwrap();
        assert_eq!(batches, [2, 2, 1]);
        let ids =
            |list: &[VerifierScored]| list.iter().map(|s| s.attempt.clone()).collect::<Vec<_>>();
        assert_eq!(
            ids(&scored),
            items
                .iter()
                .map(|i| i.1.attempt.clone())
                .collect::<Vec<_>>()
        );
        assert_eq!(scored[0].score, scored[3].score);
        assert!(scored[0].score < scored[2].score && scored[2].score < scored[4].score);
        assert!(
            scored[1].score > 0.0,
            "an empty patch is scored by the model too"
        );
        let expected = score_of(scored[5].logprob_yes, scored[5].logprob_no);
        assert_eq!(scored[5].score, expected);
        assert_eq!(scored[5].verifier, CheckpointId::new("judge"));
        let (none, batches) = run(by_length, vec![]).await;
        assert!(none.unwrap().is_empty() && batches.is_empty());
    }

    #[actix::test]
    async fn answers_that_cannot_be_scores_are_failures() {
        for reply in [
            (|_: &ScoreAnswers| Ok(vec![])) as fn(&ScoreAnswers) -> _,
            |ask| Ok(vec![vec![f64::NAN, 0.0]; ask.conversations.len()]),
            |ask| Ok(vec![vec![-1.0]; ask.conversations.len()]),
            |ask| Ok(vec![vec![f64::NEG_INFINITY; 2]; ask.conversations.len()]),
        ] {
            let (scored, _) = run(reply, items()).await;
            assert_eq!(scored.unwrap_err().code, "GT-VERIFIER-ANSWER");
        }
        let broken = |_: &ScoreAnswers| Err(Failure::new(FailureKind::Model, "GT-MODEL-X", "no"));
        assert_eq!(run(broken, items()).await.0.unwrap_err().code, "GT-MODEL-X");
        let mut open = items();
        open[0].1.end = None;
        let (scored, batches) = run(by_length, open).await;
        assert_eq!(scored.unwrap_err().code, "GT-VERIFIER-UNFINISHED");
        assert!(batches.is_empty());
    }

    #[actix::test]
    async fn a_model_that_is_gone_or_silent_is_named() {
        struct Silent;
        impl Actor for Silent {
            type Context = Context<Self>;
        }
        impl Handler<ScoreAnswers> for Silent {
            // Lives in the actor's context, so it dies with it.
            type Result = ResponseActFuture<Self, Result<Vec<Vec<f64>>, Failure>>;
            fn handle(&mut self, ask: ScoreAnswers, ctx: &mut Context<Self>) -> Self::Result {
                if ask.conversations.len() > 1 {
                    ctx.terminate();
                }
                Box::pin(std::future::pending().into_actor(self))
            }
        }
        for (count, code) in [(1, "GT-VERIFIER-TIMEOUT"), (6, "GT-VERIFIER-MODEL-GONE")] {
            let verifier = VerifierActor::new(Silent.start().recipient())
                .with_deadline(Duration::from_millis(200))
                .start();
            let answer = verifier
                .send(ScoreTrajectories {
                    model: source(),
                    items: items().into_iter().take(count).collect(),
                })
                .await
                .unwrap();
            assert_eq!(answer.unwrap_err().code, code);
        }
    }

    #[test]
    fn scores_are_probabilities_at_any_scale() {
        assert_eq!(score_of(-3.0, -3.0), 0.5);
        assert!((score_of(-0.1, -2.4) - 0.9089).abs() < 1e-3);
        assert_eq!(score_of(0.0, -2000.0), 1.0);
        assert_eq!(score_of(-2000.0, 0.0), 0.0);
        assert_eq!(score_of(f64::NEG_INFINITY, -1.0), 0.0);
    }
}
