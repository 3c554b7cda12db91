//! Chat templates: Jinja with the helpers that Hugging Face's templates use.
//!
//! The environment says what transformers' jinja2 says: blocks are trimmed, `tojson`
//! escapes nothing for HTML, `None` and `True` are written as Python writes them,
//! `{% generation %}` marks nothing, `break` and `continue` work in loops.

use crate::error::ModelError;
use gametape_schemas::ChatMessage;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, context};
use serde::Serialize;
use serde_json::Value as Json;
use std::fmt::Write;

/// Name under which the one template is kept.
const NAME: &str = "chat";

/// Parts of the fixed day: Friday, 26 July 2024 (the one that Llama 3's own template
/// falls back to).
const DAY: [(&str, &str); 12] = [
    ("%d", "26"),
    ("%m", "07"),
    ("%b", "Jul"),
    ("%B", "July"),
    ("%Y", "2024"),
    ("%y", "24"),
    ("%a", "Fri"),
    ("%A", "Friday"),
    ("%H", "00"),
    ("%M", "00"),
    ("%S", "00"),
    ("%j", "208"),
];

#[derive(Serialize)]
struct Turn<'a> {
    role: &'a str,
    content: &'a str,
}

/// A compiled chat template.
#[derive(Clone, Debug)]
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        // As transformers sets up jinja2.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_formatter(write_as_python);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        // A template that asks for today would make prompts depend on the clock: it
        // gets a fixed day.
        environment.add_function("strftime_now", |format: String| {
            DAY.iter()
                .fold(format, |text, (code, part)| text.replace(code, part))
        });
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|e| ModelError::Template(e.to_string()))?;
        Ok(Self {
            environment,
            bos: bos.unwrap_or_default().to_owned(),
            eos: eos.unwrap_or_default().to_owned(),
        })
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// When the template refuses (for instance a role that it does not know).
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ModelError> {
        let turns: Vec<Turn> = messages
            .iter()
            .map(|m| Turn {
                role: m.role.as_str(),
                content: &m.content,
            })
            .collect();
        self.environment
            .get_template(NAME)
            .and_then(|template| {
                template.render(context! {
                    messages => Value::from_serialize(&turns),
                    add_generation_prompt => add_generation_prompt,
                    bos_token => self.bos,
                    eos_token => self.eos,
                    tools => (),
                    documents => (),
                })
            })
            .map_err(|e| ModelError::Template(format!("{e:#}").trim().to_owned()))
    }
}

/// `{{ … }}` as Python's `str` has it: `None`, `True` and `False`.
fn write_as_python(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    Ok(out.write_str(text)?)
}

/// `{% generation %}` … `{% endgeneration %}` become a condition that always holds: the
/// marks tell transformers where loss goes, which is ours to know from the turns.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let Some((inner, after)) = tag.split_once("%}") else {
            rest = tag;
            continue;
        };
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&inner.replace(word, "if true")),
            "endgeneration" => out.push_str(&inner.replace(word, "endif")),
            _ => out.push_str(inner),
        }
        out.push_str("%}");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// transformers' `tojson`: Python's `json.dumps` with `ensure_ascii=False` by default.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let json = serde_json::to_value(&value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let default_comma = if indent.is_some() { "," } else { ", " };
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.as_str(), colon.as_str()),
        _ => (default_comma, ": "),
    };
    let style = Style {
        indent,
        ascii: ascii == Some(true),
        sorted: sorted == Some(true),
        comma,
        colon,
    };
    let mut out = String::new();
    style.write(&mut out, &json, 0);
    Ok(out)
}

/// How `json.dumps` was asked to write.
struct Style<'a> {
    indent: Option<usize>,
    ascii: bool,
    sorted: bool,
    comma: &'a str,
    colon: &'a str,
}

impl Style<'_> {
    fn write(&self, out: &mut String, value: &Json, depth: usize) {
        match value {
            Json::Array(items) if items.is_empty() => out.push_str("[]"),
            Json::Object(map) if map.is_empty() => out.push_str("{}"),
            Json::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.next(out, i, depth + 1);
                    self.write(out, item, depth + 1);
                }
                self.line(out, depth);
                out.push(']');
            }
            Json::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sorted {
                    entries.sort_by(|a, b| a.0.cmp(b.0));
                }
                out.push('{');
                for (i, (key, item)) in entries.into_iter().enumerate() {
                    self.next(out, i, depth + 1);
                    self.text(out, key);
                    out.push_str(self.colon);
                    self.write(out, item, depth + 1);
                }
                self.line(out, depth);
                out.push('}');
            }
            Json::String(text) => self.text(out, text),
            other => out.push_str(&other.to_string()),
        }
    }

    fn next(&self, out: &mut String, index: usize, depth: usize) {
        if index > 0 {
            out.push_str(self.comma);
        }
        self.line(out, depth);
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(width) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn text(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                // Writing to a String cannot fail.
                c if c < ' ' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                // Python leaves DEL as it is.
                c if self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::Role;

    fn say(template: &str) -> String {
        let turns = [ChatMessage::new(Role::User, "<a> é\t\"x\"\u{1}🙂")];
        let template = Template::new(template, Some("<s>"), Some("</s>")).unwrap();
        template.render(&turns, true).unwrap()
    }

    #[test]
    fn json_is_python_s() {
        assert_eq!(
            say("{{ messages | tojson }}"),
            "[{\"role\": \"user\", \"content\": \"<a> é\\t\\\"x\\\"\\u0001🙂\"}]"
        );
        assert_eq!(
            say("{{ messages[0].content | tojson(ensure_ascii=true) }}"),
            "\"<a> \\u00e9\\t\\\"x\\\"\\u0001\\ud83d\\ude42\""
        );
        assert_eq!(
            say("{{ {'b': [1, 2.5, none], 'a': {}} | tojson(indent=2, sort_keys=true) }}"),
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    2.5,\n    null\n  ]\n}"
        );
        assert_eq!(
            say("{{ [1, true] | tojson(separators=(',', ':')) }}"),
            "[1,true]"
        );
    }

    #[test]
    fn python_s_words_days_and_marks() {
        assert_eq!(say("{{ none }}{{ true }}{{ 1 > 2 }}"), "NoneTrueFalse");
        assert_eq!(say("{{ strftime_now('%d %B %Y') }}"), "26 July 2024");
        assert_eq!(
            say("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
            "01"
        );
        assert_eq!(
            say("a\n{%- generation -%}\n b {%- endgeneration %}{% raw %}{% x {% endraw %}"),
            "ab{% x "
        );
    }

    proptest::proptest! {
        #[test]
        fn json_can_be_read_back(text in "\\PC{0,12}[\u{0}-\u{20}\"\\\\]{0,4}", ascii: bool) {
            let turns = [ChatMessage::new(Role::User, text.clone())];
            let source = format!("{{{{ messages[0].content | tojson(ensure_ascii={ascii}) }}}}");
            let template = Template::new(&source, None, None).unwrap();
            let written = template.render(&turns, false).unwrap();
            proptest::prop_assert!(!ascii || written.is_ascii());
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
