//! The direct ChatML renderer, the template path, and prefixes from turn to turn.
#![allow(clippy::unwrap_used)]

use gametape_model::{ChatTokenizer, tiny};
use gametape_schemas::{ChatMessage, Role};
use proptest::prelude::*;

const LLAMA3: &str = "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>[' + m['role'] + ']\n\n' + m['content'].strip() + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>[assistant]\n\n' }}{% endif %}";
const SYSTEM_FIRST: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn tokenizer(template: Option<&str>) -> ChatTokenizer {
    let mut parts = tiny::tokenizer_parts();
    if let Some(template) = template {
        parts.template = Some(template.to_owned());
    }
    ChatTokenizer::new(parts, &[2]).unwrap()
}

fn talk() -> Vec<ChatMessage> {
    vec![
        ChatMessage::new(Role::User, "fix <|im_end|> it\r\n\t🙂"),
        ChatMessage::trained("view a.py f"),
        ChatMessage::new(Role::User, "1: x"),
        ChatMessage::new(Role::Assistant, "hm"),
        ChatMessage::new(Role::User, "?"),
        ChatMessage::trained("submit"),
    ]
}

#[test]
fn direct_rendering_equals_the_template() {
    for template in [None, Some(SYSTEM_FIRST)] {
        let t = tokenizer(template);
        assert!(t.is_chatml());
        for n in 1..=talk().len() {
            for prompt in [false, true] {
                let tokens = t.render(&talk()[..n], prompt).unwrap().tokens;
                let text = t.template_text(&talk()[..n], prompt).unwrap();
                assert_eq!(t.decode(&tokens).unwrap(), text);
            }
        }
    }
}

#[test]
fn loss_is_on_trained_turns_and_prompts_are_prefixes() {
    for (template, direct) in [(None, true), (Some(LLAMA3), false)] {
        let t = tokenizer(template);
        assert_eq!(t.is_chatml(), direct);
        let all = t.render(&talk(), false).unwrap();
        assert_eq!(all.tokens.len(), all.loss.len());
        let lossy: Vec<u32> = (all.tokens.iter().zip(&all.loss))
            .filter(|(_, l)| **l)
            .map(|(t, _)| *t)
            .collect();
        assert_eq!(
            t.decode(&lossy).unwrap(),
            "view a.py f<|im_end|>submit<|im_end|>"
        );
        for n in [1, 3, 5] {
            let prompt = t.render(&talk()[..n], true).unwrap().tokens;
            assert!(all.tokens.starts_with(&prompt));
        }
    }
}

#[test]
fn a_turn_cannot_be_ended_from_within() {
    let t = tokenizer(None);
    let tokens = t.render(&talk()[..1], false).unwrap().tokens;
    assert_eq!(tokens.iter().filter(|t| **t == 2).count(), 1);
    assert_eq!(t.encode_with_special("<|im_end|>").unwrap(), [2]);
    assert_eq!(t.decode_completion(&[104 + 3, 105 + 3, 2]).unwrap(), "hi");
}

#[test]
fn templates_that_fail_say_so() {
    let t = tokenizer(Some("{{ raise_exception('no roles here') }}"));
    let error = t.render(&talk(), true).unwrap_err();
    assert_eq!(error.code(), "GT-MODEL-TEMPLATE");
    assert!(error.to_string().contains("no roles here"), "{error}");
    // Says only the last turn: earlier text is rewritten.
    let t = tokenizer(Some("{{ messages[-1]['content'] }}"));
    assert_eq!(
        t.render(&talk(), false).unwrap_err().code(),
        "GT-MODEL-TEMPLATE"
    );
}

proptest! {
    #[test]
    fn text_survives(text in "\\PC{0,40}[\r\n\t ]{0,3}") {
        let t = tokenizer(None);
        prop_assert_eq!(t.decode(&t.encode(&text).unwrap()).unwrap(), text);
    }
}
