//! Conversations to tokens and back.
//!
//! Every turn is tokenised as a segment of its own, so that the prompt of one turn is
//! an exact token prefix of the next turn's prompt: that is what makes the KV cache
//! reusable and what makes training see the tokens that sampling sees.
//!
//! ChatML (SmolLM2, Qwen) is rendered directly, with the special tokens put in by id:
//! text of the environment that happens to contain `<|im_end|>` stays text and cannot
//! end a turn. Other formats run the model's Jinja template on growing prefixes. Which of
//! the two a model gets: `chat_format`.

use crate::chat_format::{Format, detect};
use crate::error::ModelError;
use crate::template::Template;
use crate::tokenizer::{Prefix, TokenizerParts};
use gametape_schemas::{ChatMessage, Digest, Role};
use std::collections::HashSet;
use std::sync::Arc;
use tokenizers::Tokenizer;

/// A conversation as tokens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rendered {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// For each token, whether training puts a loss on predicting it: the content and
    /// the end-of-turn token of assistant turns with `train`.
    pub loss: Vec<bool>,
}

impl Rendered {
    fn push(&mut self, tokens: &[u32], loss: bool) {
        self.tokens.extend_from_slice(tokens);
        self.loss.resize(self.tokens.len(), loss);
    }
}

#[derive(Debug)]
struct Inner {
    parts: TokenizerParts,
    /// Takes special tokens in a text as text.
    plain: Tokenizer,
    /// Recognises special tokens in a text; only for templates.
    special: Tokenizer,
    /// Where a space is put that the text has not, and the pair of tokenizers (plain,
    /// special) that put none: `None` where these do not either.
    prefix: Prefix,
    inside: Option<(Tokenizer, Tokenizer)>,
    /// Tokens that are matched before anything else.
    added: HashSet<u32>,
    template: Option<Template>,
    format: Format,
    stops: Vec<u32>,
}

/// A tokenizer with the chat format of its model. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ChatTokenizer {
    inner: Arc<Inner>,
}

impl ChatTokenizer {
    /// Builds the tokenizer; `eos_ids` are the end tokens that the model's
    /// configuration names.
    ///
    /// A model without a template gets ChatML when its vocabulary has the two tokens.
    ///
    /// # Errors
    /// When the tokenizer or template is malformed, or there is no chat format.
    pub fn new(parts: TokenizerParts, eos_ids: &[u32]) -> Result<Self, ModelError> {
        let plain = parts.build(true)?;
        let special = parts.build(false)?;
        let template = match &parts.template {
            Some(source) => Some(Template::new(
                source,
                parts.bos.as_deref(),
                parts.eos.as_deref(),
            )?),
            None => None,
        };
        let format = detect(&plain, template.as_ref())?;
        let mut stops = eos_ids.to_vec();
        stops.extend(parts.eos.as_deref().and_then(|t| plain.token_to_id(t)));
        if let Format::ChatMl { end, .. } = format {
            stops.push(end);
        }
        // Ends of a text or turn that every family knows under one of these names.
        for name in ["<|endoftext|>", "<|eot_id|>", "<|end_of_text|>"] {
            stops.extend(plain.token_to_id(name));
        }
        stops.sort_unstable();
        stops.dedup();
        let prefix = parts.prefix();
        let inside = match prefix {
            Prefix::None => None,
            _ => {
                let parts = parts.without_prefix();
                Some((parts.build(true)?, parts.build(false)?))
            }
        };
        let added = special.get_added_tokens_decoder().into_keys().collect();
        Ok(Self {
            inner: Arc::new(Inner {
                parts,
                plain,
                special,
                prefix,
                inside,
                added,
                template,
                format,
                stops,
            }),
        })
    }

    /// What the tokenizer was made from, for saving.
    pub fn parts(&self) -> &TokenizerParts {
        &self.inner.parts
    }

    /// Digest of tokenizer and chat template ([`TokenizerParts::digest`]).
    pub fn digest(&self) -> Digest {
        self.inner.parts.digest()
    }

    /// Tokens that end a completion, ascending.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.inner.stops
    }

    /// Tokens of the vocabulary, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.plain.get_vocab_size(true)
    }

    /// Whether the direct ChatML renderer is used (and not the template).
    pub fn is_chatml(&self) -> bool {
        matches!(self.inner.format, Format::ChatMl { .. })
    }

    /// Tokens of a text; special tokens written in it are ordinary text, and nothing
    /// is put before or after it.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode_with(&self.inner.plain, text)
    }

    /// Tokens of a text that follows other text: as [`Self::encode`], without the space
    /// that SentencePiece puts before a text.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_inside(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        match &self.inner.inside {
            Some((plain, _)) => encode_with(plain, text),
            None => self.encode(text),
        }
    }

    /// Tokens of plain text right behind a special token.
    fn encode_after_special(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        match self.inner.prefix {
            Prefix::First => self.encode_inside(text),
            Prefix::None | Prefix::EveryPiece => self.encode(text),
        }
    }

    /// Appends text of a template, as transformers would tokenise it in the middle of
    /// what is there.
    fn push_text(&self, out: &mut Rendered, text: &str, loss: bool) -> Result<(), ModelError> {
        let tokens = self.continued(out.tokens.last(), text)?;
        out.push(&tokens, loss);
        Ok(())
    }

    fn continued(&self, last: Option<&u32>, text: &str) -> Result<Vec<u32>, ModelError> {
        let inner = &self.inner;
        let (Some((_, inside)), Some(last)) = (&inner.inside, last) else {
            return self.encode_with_special(text);
        };
        if inner.prefix == Prefix::First {
            return encode_with(inside, text);
        }
        if inner.added.contains(last) {
            return self.encode_with_special(text);
        }
        // No space up to the next special token, and again one behind it.
        let encoding = inside
            .encode(text, false)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        let ids = encoding.get_ids();
        let Some(first) = ids.iter().position(|t| inner.added.contains(t)) else {
            return Ok(ids.to_vec());
        };
        let cut = encoding.get_offsets().get(first).map_or(0, |o| o.0);
        let mut out = ids.get(..first).unwrap_or_default().to_vec();
        out.extend(self.encode_with_special(text.get(cut..).unwrap_or_default())?);
        Ok(out)
    }

    /// Tokens of a text in which special tokens are recognised, as transformers does.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode_with(&self.inner.special, text)
    }

    /// Text of tokens; bytes that are no UTF-8 become replacement characters.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ModelError> {
        self.inner
            .plain
            .decode(tokens, false)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))
    }

    /// Text of a completion: without a stop token at its end.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn decode_completion(&self, tokens: &[u32]) -> Result<String, ModelError> {
        match tokens.split_last() {
            Some((last, rest)) if self.inner.stops.binary_search(last).is_ok() => self.decode(rest),
            _ => self.decode(tokens),
        }
    }

    /// The model's own template applied by Jinja, as text.
    ///
    /// # Errors
    /// When there is no template or it fails.
    pub fn template_text(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ModelError> {
        match &self.inner.template {
            Some(template) => template.render(messages, add_generation_prompt),
            None => Err(ModelError::Template("the model has none".to_owned())),
        }
    }

    /// Renders a conversation; with `add_generation_prompt`, up to where the assistant
    /// would speak.
    ///
    /// # Errors
    /// When the template or the tokenizer fails, or the template rewrites earlier
    /// turns when a later one is added.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<Rendered, ModelError> {
        match &self.inner.format {
            Format::ChatMl {
                start,
                end,
                default_system,
            } => self.render_chatml(
                messages,
                add_generation_prompt,
                (*start, *end),
                default_system.as_deref(),
            ),
            Format::Template => self.render_template(messages, add_generation_prompt),
        }
    }

    fn render_chatml(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        (start, end): (u32, u32),
        default_system: Option<&str>,
    ) -> Result<Rendered, ModelError> {
        let newline = self.encode_after_special("\n")?;
        let speaks = self.encode_after_special("assistant\n")?;
        let mut out = Rendered::default();
        let turn = |out: &mut Rendered, role: Role, content: &str, loss: bool| {
            out.push(&[start], false);
            if role == Role::Assistant {
                // Cut where sampling begins.
                out.push(&speaks, false);
                out.push(&self.encode_inside(content)?, loss);
            } else {
                out.push(
                    &self.encode_after_special(&format!("{}\n{content}", role.as_str()))?,
                    false,
                );
            }
            out.push(&[end], loss && role == Role::Assistant);
            out.push(&newline, false);
            Ok::<(), ModelError>(())
        };
        if let Some(system) = default_system
            && messages.first().is_none_or(|m| m.role != Role::System)
        {
            turn(&mut out, Role::System, system, false)?;
        }
        for message in messages {
            turn(&mut out, message.role, &message.content, message.train)?;
        }
        if add_generation_prompt {
            out.push(&[start], false);
            out.push(&speaks, false);
        }
        Ok(out)
    }

    fn render_template(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<Rendered, ModelError> {
        let mut out = Rendered::default();
        let mut done = String::new();
        let grown = |done: &str, text: &str| -> Result<String, ModelError> {
            text.strip_prefix(done).map(str::to_owned).ok_or_else(|| {
                ModelError::Template(
                    "it rewrites earlier turns when a turn is added, so prompts are no prefixes \
                     of one another"
                        .to_owned(),
                )
            })
        };
        for (i, message) in messages.iter().enumerate() {
            let before = messages.get(..i).unwrap_or_default();
            let upto = messages.get(..=i).unwrap_or_default();
            // Some templates refuse a system turn alone: it is rendered with the next.
            let alone = message.role == Role::System && i + 1 < messages.len();
            let text = match self.template_text(upto, false) {
                Err(_) if alone => continue,
                other => other?,
            };
            if message.role == Role::Assistant {
                let header = grown(&done, &self.template_text(before, true)?)?;
                done.push_str(&header);
                self.push_text(&mut out, &header, false)?;
                let rest = grown(&done, &text)?;
                let rest = self.continued(out.tokens.last(), &rest)?;
                let (body, tail) = self.split_after_stop(&rest);
                out.push(&body, message.train);
                out.push(&tail, false);
            } else {
                self.push_text(&mut out, &grown(&done, &text)?, false)?;
            }
            done = text;
        }
        if add_generation_prompt {
            let header = grown(&done, &self.template_text(messages, true)?)?;
            self.push_text(&mut out, &header, false)?;
        }
        Ok(out)
    }

    /// Cuts behind the last stop token: what follows (a newline) is not the model's.
    fn split_after_stop(&self, tokens: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let cut = tokens
            .iter()
            .rposition(|t| self.inner.stops.binary_search(t).is_ok())
            .map_or(tokens.len(), |i| i + 1);
        let (body, tail) = tokens.split_at(cut);
        (body.to_vec(), tail.to_vec())
    }
}

fn encode_with(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, ModelError> {
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
    Ok(encoding.get_ids().to_vec())
}
