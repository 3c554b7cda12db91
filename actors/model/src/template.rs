//! Chat templates: Jinja with the helpers that Hugging Face's templates use.

use crate::error::ModelError;
use gametape_schemas::ChatMessage;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

/// Name under which the one template is kept.
const NAME: &str = "chat";

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
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        // A template that asks for today would make prompts depend on the clock: it
        // gets a fixed day (the one that Llama 3's own template falls back to).
        environment.add_function("strftime_now", |_format: String| "26 Jul 2024".to_owned());
        environment
            .add_template_owned(NAME, source.to_owned())
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
