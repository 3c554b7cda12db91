//! Text to tokens: a `tokenizer.json`, or what GGUF metadata holds (byte-level BPE or
//! SentencePiece's BPE).
//!
//! SentencePiece puts a space before a text. Turns are tokenised one by one, so a text in
//! the middle of a conversation must not get one: [`TokenizerParts::prefix`] says where
//! the space goes, [`TokenizerParts::without_prefix`] is the tokenizer that puts none.

use crate::error::ModelError;
use crate::gguf::{Gguf, Value};
use gametape_schemas::Digest;
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use tokenizers::Tokenizer;

/// What a model's directory or file says about its tokenizer.
#[derive(Clone, Debug)]
pub struct TokenizerParts {
    /// The text of `tokenizer.json`.
    pub json: String,
    /// The chat template (Jinja), where the model has one.
    pub template: Option<String>,
    /// Text of the token that begins a text.
    pub bos: Option<String>,
    /// Text of the token that ends a text or turn.
    pub eos: Option<String>,
}

impl TokenizerParts {
    /// Digest of what decides how conversations become tokens, whatever the layout of the
    /// files: two models with the same one read and write the same tokens.
    pub fn digest(&self) -> Digest {
        // A `tokenizer.json` that is no JSON does not load; its text stands for it.
        let json = match serde_json::from_str::<Json>(&self.json) {
            Ok(value) => sorted(&value),
            Err(_) => Json::String(self.json.clone()),
        };
        let all = json!([json, self.template, self.bos, self.eos]);
        Digest::of_bytes(all.to_string().as_bytes())
    }
}

/// With the keys of every object in order.
fn sorted(value: &Json) -> Json {
    match value {
        Json::Object(map) => {
            let mut pairs: Vec<(&String, &Json)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let pairs = pairs.into_iter().map(|(k, v)| (k.clone(), sorted(v)));
            Json::Object(pairs.collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// GPT-2 style split of Qwen2: contractions, words, single digits, punctuation, blanks.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As [`QWEN2`], with numbers of up to three digits (Llama 3).
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Where a tokenizer puts the space that SentencePiece begins a text with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefix {
    /// Nowhere (byte-level BPE).
    None,
    /// At the beginning of a text only.
    First,
    /// At the beginning and after every added token (transformers calls it legacy).
    EveryPiece,
}

/// The pre-tokenizer (and normalizer) that GGUF names.
fn pre_tokenizer(name: &str) -> Result<(Json, Json), ModelError> {
    let bytes = |regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
               "use_regex": regex})
    };
    let split = |regex: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            bytes(false)]})
    };
    Ok(match name {
        "smollm" => (
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, bytes(true)]}),
            Json::Null,
        ),
        "gpt-2" | "gpt2" | "default" => (bytes(true), Json::Null),
        "qwen2" | "deepseek-r1-qwen" => (split(QWEN2), json!({"type": "NFC"})),
        "llama-bpe" | "llama3" | "llama-v3" => (split(LLAMA3), Json::Null),
        other => {
            return Err(ModelError::Unsupported {
                what: format!("the pre-tokenizer `{other}` in GGUF"),
                supported: "smollm, gpt-2, qwen2, llama-bpe".to_owned(),
            });
        }
    })
}

/// The lists of GGUF metadata that make up a tokenizer.
struct Vocabulary<'a> {
    gguf: &'a Gguf,
    tokens: Vec<&'a str>,
    /// Tokens that are matched in a text before anything else.
    added: Vec<Json>,
}

fn broken(what: &str) -> ModelError {
    ModelError::Tokenizer(format!("GGUF metadata: {what}"))
}

fn texts<'a>(gguf: &'a Gguf, key: &str) -> Result<Vec<&'a str>, ModelError> {
    gguf.list(key)
        .ok_or_else(|| broken(&format!("no `{key}`")))?
        .iter()
        .map(|v| match v {
            Value::Text(t) => Ok(t.as_str()),
            _ => Err(broken(&format!("`{key}` holds something that is no text"))),
        })
        .collect()
}

impl<'a> Vocabulary<'a> {
    fn new(gguf: &'a Gguf) -> Result<Self, ModelError> {
        let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
        let mut out = Self {
            gguf,
            tokens,
            added: Vec::new(),
        };
        for (id, token) in out.tokens.iter().enumerate() {
            // 3 = control, 4 = user-defined.
            let kind = out.kind(id);
            if kind == 3 || kind == 4 {
                out.added
                    .push(json!({"id": id, "content": token, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false, "special": kind == 3}));
            }
        }
        Ok(out)
    }

    /// llama.cpp's kind of a token; 1 (normal) where the file does not say.
    fn kind(&self, id: usize) -> i64 {
        let kinds = self.gguf.list("tokenizer.ggml.token_type");
        match kinds.unwrap_or_default().get(id) {
            Some(Value::Integer(n)) => *n,
            _ => 1,
        }
    }

    fn ids(&self) -> Map<String, Json> {
        let pairs = self.tokens.iter().enumerate();
        pairs.map(|(id, t)| ((*t).to_owned(), json!(id))).collect()
    }

    fn named(&self, key: &str) -> Option<String> {
        let id = usize::try_from(self.gguf.integer(key)?).ok()?;
        self.tokens.get(id).map(|t| (*t).to_owned())
    }

    /// `tokenizer.json` of a byte-level BPE.
    fn byte_level(&self) -> Result<Json, ModelError> {
        let merges: Vec<Json> = texts(self.gguf, "tokenizer.ggml.merges")?
            .iter()
            .map(|line| match line.split_once(' ') {
                Some((a, b)) => Ok(json!([a, b])),
                None => Err(broken("a merge without a space")),
            })
            .collect::<Result<_, _>>()?;
        let name = self.gguf.text("tokenizer.ggml.pre").unwrap_or("default");
        let (pre, normalizer) = pre_tokenizer(name)?;
        // Llama 3 takes whole words from the vocabulary before it looks at merges.
        let whole_words = name.starts_with("llama");
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added,
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": whole_words, "vocab": self.ids(),
                "merges": merges},
        }))
    }

    /// `tokenizer.json` of SentencePiece's BPE with byte fallback.
    fn sentence_piece(&self) -> Result<Json, ModelError> {
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
        // llama.cpp's default is to put a space first.
        let first = match self.gguf.metadata.get("tokenizer.ggml.add_space_prefix") {
            Some(Value::Bool(false)) => None,
            _ => Some(prepend),
        };
        let normalizers: Vec<Json> = first.iter().cloned().chain([space]).collect();
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if first.is_some() {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {"type": "BPE", "dropout": null,
                "unk_token": self.named("tokenizer.ggml.unknown_token_id"),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": false, "vocab": self.ids(),
                "merges": self.merges_by_score()?},
        }))
    }

    /// SentencePiece keeps a score for every piece and joins the pair whose piece scores
    /// highest: as a list of merges, every way to split every piece, best piece first.
    fn merges_by_score(&self) -> Result<Vec<Json>, ModelError> {
        let scores = self
            .gguf
            .list("tokenizer.ggml.scores")
            .ok_or_else(|| broken("no `tokenizer.ggml.scores`"))?;
        let mut ids = HashMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if self.kind(id) == 1 {
                ids.insert(*token, id);
            }
        }
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            let score = match scores.get(id) {
                Some(Value::Float(score)) => *score,
                _ => return Err(broken(&format!("no score of token {id}"))),
            };
            if self.kind(id) != 1 {
                continue;
            }
            let mut splits: Vec<(usize, usize, &str, &str)> = token
                .char_indices()
                .skip(1)
                .map(|(at, _)| token.split_at(at))
                .filter_map(|(a, b)| Some((*ids.get(a)?, *ids.get(b)?, a, b)))
                .collect();
            splits.sort_unstable();
            merges.extend(splits.into_iter().map(|(_, _, a, b)| (score, a, b)));
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(merges.into_iter().map(|(_, a, b)| json!([a, b])).collect())
    }
}

impl TokenizerParts {
    /// Builds a `tokenizer.json` from GGUF metadata.
    ///
    /// # Errors
    /// When the tokenizer is of no known kind or is incomplete.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let kind = gguf.text("tokenizer.ggml.model").unwrap_or("none");
        if kind != "gpt2" && kind != "llama" {
            return Err(ModelError::Unsupported {
                what: format!("the tokenizer `{kind}` in GGUF"),
                supported: "gpt2 (byte-level BPE), llama (SentencePiece BPE)".to_owned(),
            });
        }
        let vocabulary = Vocabulary::new(gguf)?;
        let json = match kind {
            "gpt2" => vocabulary.byte_level()?,
            _ => vocabulary.sentence_piece()?,
        };
        Ok(Self {
            json: json.to_string(),
            template: gguf.text("tokenizer.chat_template").map(str::to_owned),
            bos: vocabulary.named("tokenizer.ggml.bos_token_id"),
            eos: vocabulary.named("tokenizer.ggml.eos_token_id"),
        })
    }

    /// Where this tokenizer puts a space that the text has not.
    pub fn prefix(&self) -> Prefix {
        let json: Json = serde_json::from_str(&self.json).unwrap_or_default();
        let mut found = Prefix::None;
        for part in ["normalizer", "pre_tokenizer"] {
            steps(json.get(part), &mut |step| {
                let scheme = step.get("prepend_scheme").and_then(Json::as_str);
                let old_style = step.get("add_prefix_space").and_then(Json::as_bool);
                match step.get("type").and_then(Json::as_str) {
                    Some("Prepend") => found = Prefix::EveryPiece,
                    Some("Metaspace") => match scheme {
                        Some("never") => {}
                        Some("first") => found = Prefix::First,
                        None if old_style == Some(false) => {}
                        _ => found = Prefix::EveryPiece,
                    },
                    Some("ByteLevel") if old_style == Some(true) => found = Prefix::EveryPiece,
                    _ => {}
                }
            });
        }
        found
    }

    /// The same tokenizer for texts in the middle of another: no space is put first.
    pub fn without_prefix(&self) -> Self {
        let mut json: Json = serde_json::from_str(&self.json).unwrap_or_default();
        for part in ["normalizer", "pre_tokenizer"] {
            if let Some(value) = json.get_mut(part) {
                strip_prefix(value);
            }
        }
        Self {
            json: json.to_string(),
            ..self.clone()
        }
    }

    /// Builds the tokenizer. With `plain`, special tokens written in the text are
    /// taken as ordinary text.
    ///
    /// # Errors
    /// When the JSON is not a tokenizer.
    pub fn build(&self, plain: bool) -> Result<Tokenizer, ModelError> {
        let mut tokenizer = Tokenizer::from_bytes(self.json.as_bytes())
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        // A saved training length limit must not cut conversations silently.
        tokenizer
            .with_truncation(None)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(plain);
        Ok(tokenizer)
    }
}

/// Calls `look` with a step of a tokenizer, or with every step of a sequence.
fn steps(value: Option<&Json>, look: &mut dyn FnMut(&Json)) {
    let Some(value) = value else { return };
    look(value);
    for list in ["normalizers", "pretokenizers"] {
        for step in value
            .get(list)
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
        {
            steps(Some(step), look);
        }
    }
}

/// Takes every step away that puts a space first.
fn strip_prefix(value: &mut Json) {
    for list in ["normalizers", "pretokenizers"] {
        if let Some(steps) = value.get_mut(list).and_then(Json::as_array_mut) {
            steps.retain(|s| s.get("type").and_then(Json::as_str) != Some("Prepend"));
            steps.iter_mut().for_each(strip_prefix);
        }
    }
    match value.get("type").and_then(Json::as_str) {
        Some("Prepend") => *value = Json::Null,
        Some("Metaspace") => {
            if let Some(map) = value.as_object_mut() {
                map.insert("prepend_scheme".to_owned(), json!("never"));
                map.remove("add_prefix_space");
            }
        }
        Some("ByteLevel") => {
            if let Some(map) = value.as_object_mut() {
                map.insert("add_prefix_space".to_owned(), json!(false));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_a_tokenizer_does_and_not_of_its_layout() {
        let parts = crate::tiny::tokenizer_parts();
        let value: Json = serde_json::from_str(&parts.json).unwrap();
        let with = |json: String| TokenizerParts {
            json,
            ..parts.clone()
        };
        // Another layout and another order of keys.
        let mut keys: Vec<_> = value.as_object().unwrap().iter().collect();
        keys.reverse();
        let turned: Map<String, Json> = keys
            .into_iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let turned = with(serde_json::to_string_pretty(&turned).unwrap());
        assert_ne!(turned.json, parts.json);
        assert_eq!(turned.digest(), parts.digest());
        // Another token, another template, another end.
        let other = with(parts.json.replace("<|endoftext|>", "<|end|>"));
        let template = TokenizerParts {
            template: Some("{{ messages }}".to_owned()),
            ..parts.clone()
        };
        let end = TokenizerParts {
            eos: None,
            ..parts.clone()
        };
        for changed in [other, template, end] {
            assert_ne!(changed.digest(), parts.digest());
        }
    }
}
