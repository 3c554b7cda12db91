//! Trajectories of other agents as views: mini-swe-agent, OpenHands, Moatless.
//!
//! Rows are the JSON objects that these write, one an attempt. What is not understood is
//! left out: reading a foreign row never fails.

use super::view::{Action, View, action};
use serde_json::Value;
use std::borrow::Cow;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn numbered(views: &mut [View<'_>]) {
    for (view, index) in views.iter_mut().zip(0u32..) {
        view.index = index;
    }
}

/// The attempt of a mini-swe-agent row: `messages` with one fenced `bash` block in each
/// answer.
pub fn mini_swe_agent(row: &Value) -> Vec<View<'_>> {
    let messages = list(row, "messages");
    let mut out = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        if text(message, "role") != "assistant" {
            continue;
        }
        let said = text(message, "content");
        let observation = messages
            .get(at + 1)
            .map_or("", |next| text(next, "content"));
        // It runs a turn that has exactly one block.
        let ran = said.matches("```bash").count() == 1
            && !observation.starts_with("Please always provide");
        let block = said.split_once("```bash").and_then(|(_, rest)| {
            let (_, body) = rest.split_once('\n')?;
            body.rsplit_once("\n```").map(|(body, _)| body)
        });
        out.push(View {
            index: 0,
            said: said.into(),
            action: match block {
                Some(block) if ran => Action::Shell(block.into()),
                _ => Action::Nothing,
            },
            observation: observation.into(),
        });
    }
    numbered(&mut out);
    out
}

/// The attempt of an OpenHands `output.jsonl` row: `history` of actions and observations,
/// flat or in pairs.
pub fn openhands(row: &Value) -> Vec<View<'_>> {
    let mut out: Vec<View<'_>> = Vec::new();
    let events = list(row, "history").iter().flat_map(|event| match event {
        Value::Array(pair) => pair.as_slice(),
        event => std::slice::from_ref(event),
    });
    for event in events {
        if event.get("observation").is_some() {
            if let Some(last) = out.last_mut()
                && last.observation.is_empty()
            {
                last.observation = text(event, "content").into();
            }
            continue;
        }
        let kind = text(event, "action");
        if kind.is_empty() || matches!(kind, "system" | "recall") || text(event, "source") == "user"
        {
            continue;
        }
        // Early versions have the arguments beside the action.
        let arguments = event.get("args").unwrap_or(event);
        let argument = |name: &str| arguments.get(name).and_then(Value::as_str);
        let act = match kind {
            "run" => {
                argument("command").map_or(Action::Nothing, |command| Action::Shell(command.into()))
            }
            "run_ipython" => {
                argument("code").map_or(Action::Nothing, |code| Action::Python(code.into()))
            }
            "read" => Action::Read {
                path: argument("path").unwrap_or_default().into(),
            },
            "edit" => action("str_replace_editor", argument, ""),
            "write" => action("write", argument, ""),
            _ => Action::Nothing,
        };
        out.push(View {
            index: 0,
            said: strings(arguments).into(),
            action: act,
            observation: Cow::Borrowed(""),
        });
    }
    numbered(&mut out);
    out
}

/// The attempt of a Moatless row: `trajectory` with `transitions` (or `steps`) of actions,
/// none of which is a shell's.
pub fn moatless(row: &Value) -> Vec<View<'_>> {
    let Some(trajectory) = row.get("trajectory") else {
        return Vec::new();
    };
    let mut out = Vec::new();
    let rounds = list(trajectory, "transitions").iter();
    for round in rounds.chain(list(trajectory, "steps")) {
        for action in list(round, "actions") {
            let said = action.get("action").or(action.get("input")).map(strings);
            let observation = action.get("output").map(strings);
            out.push(View {
                index: 0,
                said: said.unwrap_or_default().into(),
                action: Action::Nothing,
                observation: observation.unwrap_or_default().into(),
            });
        }
    }
    numbered(&mut out);
    out
}

/// All texts within a value, one after the other.
fn strings(value: &Value) -> String {
    let mut out = String::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => {
                out.push_str(text);
                out.push('\n');
            }
            Value::Array(values) => open.extend(values.iter().rev()),
            Value::Object(values) => {
                let start = open.len();
                open.extend(values.values());
                if let Some(added) = open.get_mut(start..) {
                    added.reverse();
                }
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_block_of_bash_is_a_step_and_a_refused_turn_did_nothing() {
        let row = json!({"messages": [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": "THOUGHT: a\n\n```bash\nls -la\n```"},
            {"role": "user", "content": "<output>x</output>"},
            {"role": "assistant", "content": "```bash\na\n```\n```bash\nb\n```"},
            {"role": "user", "content": "Please always provide EXACTLY ONE action"},
        ]});
        let views = mini_swe_agent(&row);
        assert_eq!(views.len(), 2);
        assert_eq!(views[0].action, Action::Shell("ls -la".into()));
        assert_eq!(views[0].observation, "<output>x</output>");
        assert_eq!((views[1].index, &views[1].action), (1, &Action::Nothing));
    }

    #[test]
    fn histories_of_both_kinds_are_read() {
        let flat = json!({"history": [
            {"source": "user", "action": "message", "args": {"content": "do"}},
            {"source": "agent", "action": "run", "args": {"command": "ls"}},
            {"observation": "run", "content": "a b"},
            {"source": "agent", "action": "edit", "args": {"command": "create", "path": "/w/x.py", "file_text": "z"}},
        ]});
        let views = openhands(&flat);
        assert_eq!(views.len(), 2);
        assert_eq!(views[0].action, Action::Shell("ls".into()));
        assert_eq!(views[0].observation, "a b");
        assert!(
            matches!(&views[1].action, Action::Write { path, whole: true, .. } if path == "/w/x.py")
        );
        let pairs = json!({"history": [[{"action": "run", "command": "ls"}, {"observation": "run", "content": "c"}]]});
        assert_eq!(openhands(&pairs)[0].observation, "c");
    }

    #[test]
    fn what_is_no_row_gives_nothing() {
        for row in [
            json!(null),
            json!([]),
            json!({"messages": 1, "history": {}, "trajectory": []}),
        ] {
            assert!(mini_swe_agent(&row).is_empty());
            assert!(openhands(&row).is_empty());
            assert!(moatless(&row).is_empty());
        }
    }
}
