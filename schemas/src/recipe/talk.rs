//! What a policy saw, as rows.
//!
//! **Views.** When a conversation grows too long, a scaffold hides old observations: from
//! there on the policy reads another conversation, and the last prompt is no record of the
//! turns before. (SWE-Gym trained on the last prompt alone.) So an attempt is told in views:
//! a view is the conversation of turns that were said while the same observations were
//! hidden. Those turns get a loss there, and each turn gets it exactly once, below exactly
//! what the policy had read when it said it. An attempt where nothing was hidden has one view.
//!
//! A row ends with the last turn: what came back of it is read by nobody.

use super::spec::{Recipe, TrainOn, Views};
use crate::attempt::Step;
use crate::dataset::{ChatMessage, Role};
use crate::event::TrajectoryImported;
use crate::formats::rows::Row as Map;
use crate::formats::trajectories::chat::{call_text, understood};
use crate::formats::trajectories::told::{calls, tool};
use crate::formats::trajectories::{Hint, ImportedTrajectory, TrajectoryFormat, to_chat};
use crate::policy::{Said, ToolSpec};
use crate::task::Task;
use crate::trajectory::Trajectory;
use serde_json::{Value, json};
use std::ops::Range;

/// What only the rooms know: how scaffolds tell conversations, and how a verifier is asked.
pub trait Voice: Sync {
    /// The conversation after some steps, as the attempt's scaffold tells it; `None` for one
    /// that is not known here.
    fn conversation(
        &self,
        task: &Task,
        attempt: &Trajectory,
        steps: &[Step],
        hidden: &[u32],
    ) -> Option<Vec<Said>>;

    /// Whether that conversation has a turn of the policy for this step.
    fn is_told(&self, attempt: &Trajectory, step: &Step) -> bool;

    /// Tools that the policy was told of apart from the conversation.
    fn tools(&self, attempt: &Trajectory) -> Vec<ToolSpec>;

    /// What a verifier reads, with the right answer as a trained turn.
    fn judged(&self, task: &Task, attempt: &Trajectory, resolved: bool) -> Vec<ChatMessage>;
}

/// A turn of a row.
#[derive(Clone, PartialEq, Debug)]
pub struct Turn {
    /// What is said.
    pub said: Said,
    /// Whether there is a loss on it.
    pub train: bool,
    /// The step that it is of, for turns of the policy: its position.
    pub step: Option<usize>,
}

/// A view of an attempt.
#[derive(Clone, PartialEq, Debug)]
pub struct Talk {
    /// Its turns.
    pub turns: Vec<Turn>,
    /// Positions of the steps that were said in this view.
    pub steps: Range<usize>,
    /// Tools that the policy was told of apart, as OpenAI's interface describes them.
    pub tools: Vec<Value>,
}

/// The views of an attempt, in order.
///
/// # Errors
/// Why there are none: `unknown_scaffold`, `hidden` (where the recipe wants whole
/// attempts), `untellable` (the record or the scaffold does not fit the steps).
pub fn talks(
    recipe: &Recipe,
    voice: &dyn Voice,
    task: &Task,
    attempt: &Trajectory,
    imported: Option<&TrajectoryImported>,
) -> Result<Vec<Talk>, &'static str> {
    let steps = attempt.steps.as_slice();
    if recipe.views == Views::Whole && steps.iter().any(|step| !step.hidden.is_empty()) {
        return Err("hidden");
    }
    if let Some(imported) = imported {
        return Ok(vec![foreign(recipe, imported, steps)?]);
    }
    let tools: Vec<Value> = voice.tools(attempt).iter().map(tool).collect();
    let mut out = Vec::new();
    let mut begin = 0;
    while let Some(head) = steps.get(begin) {
        let rest = steps.iter().skip(begin);
        let end = begin + rest.take_while(|step| step.hidden == head.hidden).count();
        let shown = steps.get(..end).unwrap_or(steps);
        let said = voice.conversation(task, attempt, shown, &head.hidden);
        let said = said.ok_or("unknown_scaffold")?;
        let told: Vec<usize> = (0..end)
            .filter(|at| {
                shown
                    .get(*at)
                    .is_some_and(|step| voice.is_told(attempt, step))
            })
            .collect();
        let mut talk = Talk {
            turns: assigned(said, &told)?,
            steps: begin..end,
            tools: tools.clone(),
        };
        talk.mark(recipe, steps, begin..end);
        out.push(talk);
        begin = end;
    }
    Ok(out)
}

/// Which turn is of which step: turns of the policy come in the order of the steps that are
/// told.
fn assigned(said: Vec<Said>, told: &[usize]) -> Result<Vec<Turn>, &'static str> {
    let mut of = told.iter().copied();
    let mut turns = Vec::with_capacity(said.len());
    for said in said {
        let step = match said {
            Said::Assistant { .. } => Some(of.next().ok_or("untellable")?),
            _ => None,
        };
        turns.push(Turn {
            said,
            train: false,
            step,
        });
    }
    if of.next().is_some() {
        return Err("untellable");
    }
    Ok(turns)
}

/// An attempt that was made elsewhere: what its record says was said before, and its steps.
fn foreign(
    recipe: &Recipe,
    imported: &TrajectoryImported,
    steps: &[Step],
) -> Result<Talk, &'static str> {
    let format = TrajectoryFormat::named(&imported.format).ok_or("untellable")?;
    let row: Map = serde_json::from_str(&imported.record).map_err(|_| "untellable")?;
    let read =
        ImportedTrajectory::read(&row, Some(format), &Hint::default()).map_err(|_| "untellable")?;
    let opening = read.opening.into_iter();
    let mut turns: Vec<Turn> = opening
        .map(|said| Turn {
            said,
            train: false,
            step: None,
        })
        .collect();
    for (at, step) in steps.iter().enumerate() {
        let native = &step.completion.calls;
        turns.push(Turn {
            said: Said::Assistant {
                text: step.completion.text.clone(),
                calls: native.clone(),
            },
            train: false,
            step: Some(at),
        });
        let mut answer = |said| {
            turns.push(Turn {
                said,
                train: false,
                step: None,
            })
        };
        if native.is_empty() {
            let mut text = step.observation.clone();
            for acted in step
                .further
                .iter()
                .filter(|acted| !acted.observation.is_empty())
            {
                text.push('\n');
                text.push_str(&acted.observation);
            }
            answer(Said::User { text });
        } else {
            for (call, _, observed, _) in calls(step) {
                answer(Said::Tool {
                    call: call.id,
                    name: call.name,
                    text: observed.to_owned(),
                });
            }
        }
    }
    let mut talk = Talk {
        turns,
        steps: 0..steps.len(),
        tools: read.tools,
    };
    talk.mark(recipe, steps, 0..steps.len());
    Ok(talk)
}

impl Talk {
    /// Puts a loss on the turns of these steps, and ends the row behind the last of them.
    pub fn mark(&mut self, recipe: &Recipe, steps: &[Step], range: Range<usize>) {
        let mut last = None;
        for (at, turn) in self.turns.iter_mut().enumerate() {
            let step = turn
                .step
                .filter(|step| range.contains(step))
                .and_then(|step| steps.get(step));
            turn.train = step.is_some_and(|step| match recipe.train_on {
                TrainOn::All => {
                    !step.completion.text.is_empty() || !step.completion.calls.is_empty()
                }
                TrainOn::Understood => step.call.is_some(),
            });
            if turn.train {
                last = Some(at);
            }
        }
        self.turns.truncate(last.map_or(0, |last| last + 1));
    }

    /// Whether there is anything to learn.
    pub fn is_trained(&self) -> bool {
        self.turns.iter().any(|turn| turn.train)
    }

    /// As messages for a chat template, calls in the text.
    pub fn into_messages(self) -> Vec<ChatMessage> {
        let mut out: Vec<ChatMessage> = Vec::with_capacity(self.turns.len());
        let is_native = self
            .turns
            .iter()
            .any(|turn| matches!(&turn.said, Said::Assistant { calls, .. } if !calls.is_empty()));
        let mut after_tool = false;
        for turn in self.turns {
            let is_tool = matches!(turn.said, Said::Tool { .. });
            let (role, text) = match turn.said {
                Said::System { text } => (Role::System, text),
                Said::User { text } => (Role::User, text),
                Said::Tool { name, text, .. } => {
                    (Role::User, format!("EXECUTION RESULT of [{name}]:\n{text}"))
                }
                Said::Assistant { mut text, calls } => {
                    for call in &calls {
                        let call = understood(call).unwrap_or_else(|| crate::ToolCall {
                            tool: call.name.clone(),
                            arguments: [("arguments".to_owned(), call.arguments.clone())].into(),
                        });
                        if !text.is_empty() {
                            text.push_str("\n\n");
                        }
                        text.push_str(&call_text(&call));
                    }
                    (Role::Assistant, text)
                }
            };
            match out.last_mut() {
                // Several calls of a turn have one answer.
                Some(last) if is_tool && after_tool => {
                    last.content.push_str("\n\n");
                    last.content.push_str(&text);
                }
                _ => out.push(ChatMessage {
                    role,
                    content: text,
                    train: turn.train,
                }),
            }
            after_tool = is_tool;
        }
        if is_native && !self.tools.is_empty() {
            let about = to_chat::about_tools(&self.tools);
            match out.first_mut() {
                Some(first) if first.role == Role::System => {
                    first.content.push_str("\n\n");
                    first.content.push_str(&about);
                }
                _ => out.insert(0, ChatMessage::new(Role::System, about)),
            }
        }
        out
    }

    /// As OpenAI's messages with native calls. `train` is said where there is no loss on an
    /// assistant's turn.
    pub fn native(&self, steps: &[Step]) -> Vec<Value> {
        let mut out = Vec::new();
        // Ids of the calls that were taken out of a text, until they are answered.
        let mut waiting: Vec<(String, String)> = Vec::new();
        for turn in &self.turns {
            match &turn.said {
                Said::System { text } => out.push(json!({"role": "system", "content": text})),
                Said::User { text } => match std::mem::take(&mut waiting).as_slice() {
                    [] => out.push(json!({"role": "user", "content": text})),
                    [(id, name), more @ ..] => {
                        out.push(json!({"role": "tool", "tool_call_id": id, "name": name, "content": text}));
                        // One text answered them all; each call needs an answer.
                        for (id, name) in more {
                            out.push(json!({"role": "tool", "tool_call_id": id, "name": name, "content": ""}));
                        }
                    }
                },
                Said::Tool { call, name, text } => {
                    out.push(json!({"role": "tool", "tool_call_id": call, "name": name, "content": text}));
                }
                Said::Assistant {
                    text,
                    calls: native,
                } => {
                    let mut message = json!({"role": "assistant", "content": text});
                    let written = match (native.is_empty(), turn.step.and_then(|at| steps.get(at)))
                    {
                        (false, _) => native.clone(),
                        (true, Some(step)) => {
                            calls(step).into_iter().map(|(call, ..)| call).collect()
                        }
                        (true, None) => Vec::new(),
                    };
                    if let (Some(map), false) = (message.as_object_mut(), written.is_empty()) {
                        if native.is_empty() {
                            waiting = written
                                .iter()
                                .map(|c| (c.id.clone(), c.name.clone()))
                                .collect();
                            let talk = text.split("<function=").next().unwrap_or("").trim_end();
                            map.insert("content".into(), talk.into());
                        }
                        let list = written.iter().map(|call| {
                            json!({"id": call.id, "type": "function",
                                   "function": {"name": call.name, "arguments": call.arguments}})
                        });
                        map.insert("tool_calls".into(), list.collect::<Vec<_>>().into());
                    }
                    if let (Some(map), false) = (message.as_object_mut(), turn.train) {
                        map.insert("train".into(), false.into());
                    }
                    out.push(message);
                }
            }
        }
        out
    }
}
