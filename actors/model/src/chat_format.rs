//! Which way the turns of a model are written: ChatML directly, or its own template.
//!
//! The template decides, by what it says about a few probes:
//! - exactly ChatML (with a default system turn or without): ChatML directly;
//! - something that only ever appends: the template itself;
//! - ChatML in every prompt, but earlier turns are rewritten once later ones come (Qwen3
//!   takes thoughts out of them): ChatML directly, and a warning. A prompt that is no
//!   prefix of the next one could neither be cached nor trained on;
//! - anything else: the template itself, which then says why it cannot be used.

use crate::error::ModelError;
use crate::template::Template;
use gametape_schemas::{ChatMessage, Role};
use tokenizers::Tokenizer;

/// How turns are written.
#[derive(Debug)]
pub(crate) enum Format {
    /// `<|im_start|>role\ncontent<|im_end|>\n`.
    ChatMl {
        start: u32,
        end: u32,
        /// What the template puts first when there is no system turn.
        default_system: Option<String>,
    },
    /// Anything else.
    Template,
}

const IM_START: &str = "<|im_start|>";
const IM_END: &str = "<|im_end|>";

fn chatml_text(messages: &[ChatMessage], prompt: bool, system: Option<&str>) -> String {
    let mut out = String::new();
    if let Some(system) = system
        && messages.first().is_none_or(|m| m.role != Role::System)
    {
        out.push_str(&format!("{IM_START}system\n{system}{IM_END}\n"));
    }
    for m in messages {
        let role = m.role.as_str();
        out.push_str(&format!("{IM_START}{role}\n{}{IM_END}\n", m.content));
    }
    if prompt {
        out.push_str(&format!("{IM_START}assistant\n"));
    }
    out
}

/// The format of a model with this tokenizer and template.
///
/// # Errors
/// When there is neither a template nor ChatML's tokens.
pub(crate) fn detect(
    tokenizer: &Tokenizer,
    template: Option<&Template>,
) -> Result<Format, ModelError> {
    let ids = tokenizer
        .token_to_id(IM_START)
        .zip(tokenizer.token_to_id(IM_END));
    let (Some(template), Some((start, end))) = (template, ids) else {
        return match (template, ids) {
            (Some(_), None) => Ok(Format::Template),
            (_, Some((start, end))) => Ok(Format::ChatMl {
                start,
                end,
                default_system: None,
            }),
            (None, None) => Err(ModelError::Template(
                "the model has none, and no <|im_start|> token to assume ChatML by".to_owned(),
            )),
        };
    };
    let say = |role, text: &str| ChatMessage::new(role, text);
    let ask = [say(Role::User, "  probe one\n")];
    let Ok(text) = template.render(&ask, false) else {
        return Ok(Format::Template);
    };
    // What comes before the first turn is the default system turn, if there is one.
    let default_system = text
        .strip_suffix(&chatml_text(&ask, false, None))
        .and_then(|t| t.strip_prefix(&format!("{IM_START}system\n")))
        .and_then(|t| t.strip_suffix(&format!("{IM_END}\n")))
        .map(str::to_owned);
    let long = [
        say(Role::System, " be brief "),
        say(Role::User, "a\n\nb "),
        say(Role::Assistant, " view x.py f\n"),
        say(Role::User, "1: {{ x }}"),
        say(Role::Assistant, "submit"),
    ];
    let chatml = |turns: &[ChatMessage], prompt: bool| {
        let direct = chatml_text(turns, prompt, default_system.as_deref());
        template.render(turns, prompt).is_ok_and(|t| t == direct)
    };
    let part = |from: usize, to: usize| long.get(from..to).unwrap_or_default();
    let prompts = [&ask, part(0, 2), part(1, 2), part(0, 4), part(1, 4)];
    let whole = [&ask, &long[..], part(1, 5), part(0, 2), part(0, 4)];
    let same_prompts = prompts.iter().all(|turns| chatml(turns, true));
    let same = same_prompts
        && whole.iter().all(|t| chatml(t, false))
        && [&long[..], part(1, 5)].iter().all(|t| chatml(t, true));
    if !same && (!same_prompts || appends(template, &long)) {
        return Ok(Format::Template);
    }
    if !same {
        tracing::warn!(
            "the chat template rewrites earlier turns; its prompts are ChatML, so turns are \
             written as ChatML and stay as they are"
        );
    }
    Ok(Format::ChatMl {
        start,
        end,
        default_system,
    })
}

/// Whether every turn of a conversation only adds to what the template said before.
fn appends(template: &Template, turns: &[ChatMessage]) -> bool {
    let mut done = String::new();
    for (i, turn) in turns.iter().enumerate() {
        let upto = turns.get(..=i).unwrap_or_default();
        // Some templates refuse a system turn alone.
        let Ok(text) = template.render(upto, false) else {
            continue;
        };
        if turn.role == Role::Assistant {
            let before = turns.get(..i).unwrap_or_default();
            match template.render(before, true) {
                Ok(prompt) if prompt.starts_with(&done) => done = prompt,
                _ => return false,
            }
        }
        if !text.starts_with(&done) {
            return false;
        }
        done = text;
    }
    true
}
