//! A judge on disk, its tokens, and the room that asks it, over a tiny random model's
//! tokenizer.

use super::*;
use crate::VerifierActor;
use crate::prompt::answers;
use crate::testing::{attempt, patch_of, task};
use actix::prelude::*;
use gametape_model::score::answer_tokens;
use gametape_model::tiny;
use gametape_schemas::Split;
use gametape_schemas::message::{ScoreAnswers, ScoreTrajectories};

/// A directory with a judge whose weights are the tiny model's.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny::write(&dir.path().join("weights"), 1).unwrap();
    let (_, _, tokenizer) = tokenizer_of(&dir.path().join("weights")).unwrap();
    let judge = Judge {
        format: JUDGE.to_owned(),
        prompt: long::LONG_PROMPT.to_owned(),
        shortening: long::SHORTENING.to_owned(),
        budget: 400,
        tokenizer,
        weights: CheckpointId::new("tiny"),
        path: "weights".into(),
        base: CheckpointId::new("base"),
        hyper: Hyperparameters::default(),
        temperature: 2.0,
        bias: 0.5,
        calibrated_on: vec!["toolz".to_owned()],
        trained: Trained::default(),
    };
    judge.save(dir.path()).unwrap();
    dir
}

fn item() -> (Task, Trajectory) {
    let task = task("toolz", "t1", Split::Explore);
    let one = attempt(&task, "explore", 0, Some(true), &patch_of("a", "b"));
    (task, one)
}

#[test]
fn what_is_trained_on_up_to_the_answer_is_what_is_scored() {
    let dir = directory();
    let ready = Ready::load(dir.path()).unwrap();
    let (task, one) = item();
    let asked = ready.conversation(&task, &one);
    let tokenizer = &ready.tokenizer;
    let scored = tokenizer.render(&asked, true).unwrap().tokens;
    let yes_and_no = answer_tokens(tokenizer, &answers()).unwrap();
    for (resolved, answer) in [(true, yes_and_no[0]), (false, yes_and_no[1])] {
        let measure = measure(tokenizer);
        let row = long::training_conversation(&task, &one, ready.judge.budget, &measure, resolved);
        let trained = tokenizer.render(&row, false).unwrap();
        assert_eq!(trained.tokens[..scored.len()], scored[..]);
        assert_eq!(trained.tokens[scored.len()], answer);
        let learned = trained.loss.iter().position(|l| *l).unwrap();
        assert_eq!(learned, scored.len());
    }
}

#[test]
fn the_budget_is_kept_in_tokens_of_the_weights() {
    let dir = directory();
    let ready = Ready::load(dir.path()).unwrap();
    let (mut task, one) = item();
    task.problem_statement = "Ünïcode ist länger. ".repeat(400);
    let asked = ready.conversation(&task, &one);
    let tokens = ready.tokenizer.encode_inside(&asked[1].content).unwrap();
    assert!(
        tokens.len() <= 400 && tokens.len() > 300,
        "{}",
        tokens.len()
    );
}

#[test]
fn files_that_are_none_and_other_tokenizers_are_refused() {
    let code = |dir: &Path| Ready::load(dir).err().unwrap().code;
    let dir = directory();
    let file = dir.path().join(FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    for (from, to) in [
        ("verifier-judge/1", "verifier-judge/9"),
        ("verifier-prompt/2", "verifier-prompt/1"),
        ("\"temperature\": 2.0", "\"temperature\": 0.0"),
        ("{", "["),
    ] {
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        assert_eq!(code(dir.path()), "GT-VERIFIER-JUDGE", "{from}");
    }
    assert_eq!(code(&dir.path().join("nowhere")), "GT-VERIFIER-JUDGE");
    std::fs::write(&file, &text).unwrap();
    assert!(Ready::load(dir.path()).is_ok());
    let tokenizer = dir.path().join("weights/tokenizer.json");
    let json = std::fs::read_to_string(&tokenizer).unwrap();
    // Two letters change places: every text is other tokens.
    let swapped = json
        .replace("\"a\":", "\"\u{1}\":")
        .replace("\"b\":", "\"a\":")
        .replace("\"\u{1}\":", "\"b\":");
    assert_ne!(json, swapped);
    std::fs::write(&tokenizer, swapped).unwrap();
    assert_eq!(code(dir.path()), "GT-VERIFIER-TOKENIZER");
}

/// Says what it was asked for, and YES with log-probability −1, NO with −3.
struct Echo(std::sync::Arc<std::sync::Mutex<Vec<ScoreAnswers>>>);

impl Actor for Echo {
    type Context = Context<Self>;
}

impl Handler<ScoreAnswers> for Echo {
    type Result = Result<Vec<Vec<f64>>, Failure>;
    fn handle(&mut self, ask: ScoreAnswers, _: &mut Context<Self>) -> Self::Result {
        let answer = vec![vec![-1.0, -3.0]; ask.conversations.len()];
        self.0.lock().unwrap().push(ask);
        Ok(answer)
    }
}

#[actix::test]
async fn the_room_asks_with_its_prompt_and_calibrates() {
    let dir = directory();
    let ready = Ready::load(dir.path()).unwrap();
    let heard = std::sync::Arc::default();
    let room = VerifierActor::new(Echo(std::sync::Arc::clone(&heard)).start().recipient()).start();
    let ask = |checkpoint: &CheckpointId| ScoreTrajectories {
        model: ModelSource {
            checkpoint: checkpoint.clone(),
            path: dir.path().to_owned(),
        },
        items: vec![item()],
    };
    let scored = room.send(ask(&ready.id)).await.unwrap().unwrap();
    let (task, one) = item();
    {
        let heard = heard.lock().unwrap();
        assert_eq!(heard[0].conversations[0], ready.conversation(&task, &one));
        assert_eq!(heard[0].model, ready.weights);
    }
    // (−1 + 3) / 2 + 0.5
    let logit = scored[0].logprob_yes - scored[0].logprob_no;
    assert!((logit - 1.5).abs() < 1e-9, "{logit}");
    assert_eq!(scored[0].verifier, ready.id);
    let other = room.send(ask(&CheckpointId::new("other"))).await.unwrap();
    assert_eq!(other.unwrap_err().code, "GT-VERIFIER-JUDGE");
}
