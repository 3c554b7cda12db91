//! Tokens and chat templates against what Python recorded (data/words.py): tokenizers of
//! transformers and sentencepiece, templates by jinja2, on texts with code, tabs, CRLF,
//! emoji and special tokens; and number formats of GGUF against the gguf package.
#![allow(clippy::unwrap_used)]

mod common;

use common::gguf::{self, Meta};
use common::{Recorded, difference, json};
use gametape_model::ChatTokenizer;
use gametape_model::dequantize::{Format, dequantize};
use gametape_model::gguf::Gguf;
use gametape_model::template::Template;
use gametape_model::tokenizer::TokenizerParts;
use gametape_schemas::{ChatMessage, Role};
use serde_json::Value;
use std::path::Path;

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap();
    list.iter()
        .map(|v| v.as_str().unwrap().to_owned())
        .collect()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap();
    list.iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn conversations(fixture: &Value) -> Vec<Vec<ChatMessage>> {
    let turn = |m: &Value| {
        let role = match m["role"].as_str().unwrap() {
            "system" => Role::System,
            "user" => Role::User,
            _ => Role::Assistant,
        };
        ChatMessage::new(role, m["content"].as_str().unwrap())
    };
    let all = fixture["conversations"].as_array().unwrap().iter();
    all.map(|c| c.as_array().unwrap().iter().map(turn).collect())
        .collect()
}

/// A tokenizer by way of the bytes of a GGUF file.
fn from_gguf(metadata: &[(&str, Meta)]) -> TokenizerParts {
    let bytes = gguf::file(metadata, &[]);
    let parsed = Gguf::parse(&bytes, Path::new("words.gguf")).unwrap();
    TokenizerParts::from_gguf(&parsed).unwrap()
}

fn chat(mut parts: TokenizerParts) -> ChatTokenizer {
    parts.template.get_or_insert("{{ messages }}".to_owned());
    ChatTokenizer::new(parts, &[]).unwrap()
}

/// Our tokens of every text of the corpus against Python's.
fn compare(what: &str, ours: impl Fn(&str) -> Vec<u32>, theirs: &Value, fixture: &Value) {
    let corpus = strings(&fixture["corpus"]);
    let theirs = theirs.as_array().unwrap();
    assert_eq!(corpus.len(), theirs.len());
    for (text, theirs) in corpus.iter().zip(theirs) {
        assert_eq!(ours(text), ids(theirs), "{what}: {text:?}");
    }
}

#[test]
fn byte_level_tokens_are_those_of_transformers() {
    let fixture = json("text.json");
    let part = &fixture["byte_level"];
    let tokens = strings(&part["tokens"]);
    for (name, theirs) in part["ids"].as_object().unwrap() {
        let mut kinds = vec![1; tokens.len()];
        let count = kinds.len();
        kinds[count - 3..].fill(3);
        let tokenizer = chat(from_gguf(&[
            ("tokenizer.ggml.model", Meta::Text("gpt2")),
            ("tokenizer.ggml.pre", Meta::Text(name)),
            ("tokenizer.ggml.tokens", Meta::Texts(tokens.clone())),
            (
                "tokenizer.ggml.merges",
                Meta::Texts(strings(&part["merges"])),
            ),
            ("tokenizer.ggml.token_type", Meta::I32s(kinds)),
        ]));
        compare(
            name,
            |t| tokenizer.encode_with_special(t).unwrap(),
            theirs,
            &fixture,
        );
        for text in strings(&fixture["corpus"]) {
            let back = tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap();
            // Qwen's tokenizer composes accents first.
            assert!(name == "qwen2" || back == text, "{name}: {text:?} {back:?}");
        }
    }
}

/// SentencePiece's vocabulary as a GGUF file has it.
fn sentence_piece(fixture: &Value) -> TokenizerParts {
    let part = &fixture["sentence_piece"];
    let numbers = |key: &str| part[key].as_array().unwrap().clone();
    let scores = numbers("scores");
    let scores = scores.iter().map(|s| s.as_f64().unwrap() as f32).collect();
    let kinds = numbers("kinds");
    let kinds = kinds.iter().map(|s| s.as_i64().unwrap() as i32).collect();
    from_gguf(&[
        ("tokenizer.ggml.model", Meta::Text("llama")),
        (
            "tokenizer.ggml.tokens",
            Meta::Texts(strings(&part["tokens"])),
        ),
        ("tokenizer.ggml.scores", Meta::F32s(scores)),
        ("tokenizer.ggml.token_type", Meta::I32s(kinds)),
        ("tokenizer.ggml.unknown_token_id", Meta::U32(0)),
        ("tokenizer.ggml.bos_token_id", Meta::U32(1)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(2)),
    ])
}

#[test]
fn sentencepiece_tokens_are_those_of_sentencepiece() {
    let fixture = json("text.json");
    let tokenizer = chat(sentence_piece(&fixture));
    compare(
        "sentencepiece",
        |t| tokenizer.encode(t).unwrap(),
        &fixture["sentence_piece"]["ids"],
        &fixture,
    );
    for text in strings(&fixture["corpus"]) {
        let back = tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap();
        // SentencePiece writes a space as ▁ and cannot tell the two apart afterwards.
        assert_eq!(back, text.replace('\u{2581}', " "));
    }
}

#[test]
fn turns_one_by_one_are_the_conversation_at_once() {
    let fixture = json("text.json");
    let conversations = conversations(&fixture);
    let parts = sentence_piece(&fixture);
    let model = serde_json::from_str::<Value>(&parts.json).unwrap()["model"].clone();
    for (name, part) in fixture["llama"].as_object().unwrap() {
        let mut json = part["json"].clone();
        json["model"] = model.clone();
        let tokenizer = chat(TokenizerParts {
            json: json.to_string(),
            template: fixture["templates"]["brackets"]["source"]
                .as_str()
                .map(str::to_owned),
            ..parts.clone()
        });
        compare(
            name,
            |t| tokenizer.encode_with_special(t).unwrap(),
            &part["ids"],
            &fixture,
        );
        let chats = part["chats"].as_array().unwrap();
        for (conversation, theirs) in conversations.iter().zip(chats) {
            let ours = tokenizer.render(conversation, true).unwrap().tokens;
            assert_eq!(ours, ids(theirs), "{name}: {conversation:?}");
        }
    }
}

#[test]
fn templates_say_what_jinja2_says() {
    let fixture = json("text.json");
    let conversations = conversations(&fixture);
    for (name, part) in fixture["templates"].as_object().unwrap() {
        let source = part["source"].as_str().unwrap();
        let template = Template::new(source, Some("<s>"), Some("</s>")).unwrap();
        let mut texts = strings(&part["texts"]).into_iter();
        for conversation in &conversations {
            for prompt in [false, true] {
                let ours = template.render(conversation, prompt).unwrap();
                assert_eq!(ours, texts.next().unwrap(), "{name}: {conversation:?}");
            }
        }
    }
}

#[test]
fn the_default_model_s_words_are_those_of_transformers() {
    let Some(path) = common::smollm2() else {
        eprintln!(
            "SKIPPED: the_default_model_s_words_are_those_of_transformers: SmolLM2 is not in the cache"
        );
        return;
    };
    let fixture = json("text.json");
    let (_, tokenizer) = gametape_model::load_tokenizer(&path).unwrap();
    compare(
        "SmolLM2",
        |t| tokenizer.encode_with_special(t).unwrap(),
        &fixture["smollm2"]["ids"],
        &fixture,
    );
    let chats = strings(&fixture["smollm2"]["chats"]);
    for (conversation, theirs) in conversations(&fixture).iter().zip(chats) {
        assert_eq!(tokenizer.template_text(conversation, true).unwrap(), theirs);
    }
}

#[test]
fn number_formats_of_gguf_are_those_of_the_gguf_package() {
    let recorded = Recorded::open("blocks.safetensors");
    for (id, name) in [
        (1, "F16"),
        (30, "BF16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (6, "Q5_0"),
        (7, "Q5_1"),
        (8, "Q8_0"),
        (12, "Q4_K"),
        (13, "Q5_K"),
        (14, "Q6_K"),
    ] {
        let format = Format::from_id(id, name).unwrap();
        let raw = recorded.bytes(&format!("raw.{name}"));
        assert_eq!(raw.len(), 2 * format.block_bytes(), "{name}");
        let theirs = recorded.floats(&format!("out.{name}"));
        let largest = theirs.iter().fold(0f32, |a, b| a.max(b.abs()));
        let worst = difference(&dequantize(format, &raw), &theirs);
        assert!(worst <= 1e-6 * largest, "{name}: {worst} of {largest}");
    }
}

/// Qwen3's way: thoughts are taken out of earlier turns, and an empty one is put into the
/// last. Prompts are ChatML all the same, so that is what is written.
#[test]
fn a_template_that_rewrites_chatml_is_written_as_chatml() {
    let fixture = json("text.json");
    let source = &fixture["templates"]["thinking"]["source"];
    let parts = TokenizerParts {
        template: source.as_str().map(str::to_owned),
        ..gametape_model::tiny::tokenizer_parts()
    };
    let tokenizer = ChatTokenizer::new(parts.clone(), &[2]).unwrap();
    assert!(tokenizer.is_chatml());
    let turns = [
        ChatMessage::new(Role::System, "s"),
        ChatMessage::new(Role::User, "one"),
        ChatMessage::trained("<think>\nhm\n</think>\n\nanswer"),
        ChatMessage::new(Role::User, "two"),
    ];
    for count in [2, 4] {
        let ours = tokenizer.render(&turns[..count], true).unwrap().tokens;
        let whole = tokenizer.render(&turns, true).unwrap().tokens;
        assert!(whole.starts_with(&ours));
        let text = tokenizer.decode(&ours).unwrap();
        assert!(text.ends_with("<|im_start|>assistant\n"), "{text}");
        assert_eq!(text.contains("<think>"), count == 4);
    }
    // One that appends in its own way keeps it.
    let own = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let parts = TokenizerParts {
        template: Some(own.to_owned()),
        ..parts
    };
    assert!(!ChatTokenizer::new(parts, &[2]).unwrap().is_chatml());
}
