//! Text to tokens: a `tokenizer.json`, or the byte-level BPE that GGUF metadata holds.

use crate::error::ModelError;
use crate::gguf::{Gguf, Value};
use serde_json::{Value as Json, json};
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

/// GPT-2 style split of Qwen2: contractions, words, single digits, punctuation, blanks.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As [`QWEN2`], with numbers of up to three digits (Llama 3).
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

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
        "qwen2" => (split(QWEN2), json!({"type": "NFC"})),
        "llama-bpe" | "llama3" => (split(LLAMA3), Json::Null),
        other => {
            return Err(ModelError::Unsupported {
                what: format!("the pre-tokenizer `{other}` in GGUF"),
                supported: "smollm, gpt-2, qwen2, llama-bpe".to_owned(),
            });
        }
    })
}

impl TokenizerParts {
    /// Builds a `tokenizer.json` from GGUF metadata.
    ///
    /// # Errors
    /// When the tokenizer is not a byte-level BPE of a known kind or is incomplete.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let broken = |what: &str| ModelError::Tokenizer(format!("GGUF metadata: {what}"));
        let kind = gguf.text("tokenizer.ggml.model").unwrap_or("none");
        if kind != "gpt2" {
            return Err(ModelError::Unsupported {
                what: format!("the tokenizer `{kind}` in GGUF"),
                supported: "gpt2 (byte-level BPE)".to_owned(),
            });
        }
        let texts = |key: &str| -> Result<Vec<&str>, ModelError> {
            gguf.list(key)
                .ok_or_else(|| broken(&format!("no `{key}`")))?
                .iter()
                .map(|v| match v {
                    Value::Text(t) => Ok(t.as_str()),
                    _ => Err(broken(&format!("`{key}` holds something that is no text"))),
                })
                .collect()
        };
        let tokens = texts("tokenizer.ggml.tokens")?;
        let merges: Vec<Json> = texts("tokenizer.ggml.merges")?
            .iter()
            .map(|line| match line.split_once(' ') {
                Some((a, b)) => Ok(json!([a, b])),
                None => Err(broken("a merge without a space")),
            })
            .collect::<Result<_, _>>()?;
        let kinds = gguf.list("tokenizer.ggml.token_type").unwrap_or_default();
        let mut vocab = serde_json::Map::new();
        let mut added = Vec::new();
        for (id, token) in tokens.iter().enumerate() {
            vocab.insert((*token).to_owned(), json!(id));
            // 3 = control, 4 = user-defined.
            let kind = match kinds.get(id) {
                Some(Value::Integer(n)) => *n,
                _ => 1,
            };
            if kind == 3 || kind == 4 {
                added.push(json!({"id": id, "content": token, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false, "special": kind == 3}));
            }
        }
        let (pre, normalizer) =
            pre_tokenizer(gguf.text("tokenizer.ggml.pre").unwrap_or("default"))?;
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges},
        });
        let token_text = |key: &str| -> Option<String> {
            let id = usize::try_from(gguf.integer(key)?).ok()?;
            tokens.get(id).map(|t| (*t).to_owned())
        };
        Ok(Self {
            json: json.to_string(),
            template: gguf.text("tokenizer.chat_template").map(str::to_owned),
            bos: token_text("tokenizer.ggml.bos_token_id"),
            eos: token_text("tokenizer.ggml.eos_token_id"),
        })
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
