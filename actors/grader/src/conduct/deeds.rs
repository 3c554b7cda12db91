//! What an action does: programs run, files written, text printed. Pure.
//!
//! Wrappers are taken off (`env`, `timeout`, `bash -c`, `xargs`, `find -exec`), Python that
//! runs is read for the commands and files in it, and paths are seen from where `cd` led.

use super::paths::within;
use super::python;
use super::shell::{self, Command};
use super::view::Action;
use std::collections::HashMap;

/// Shells within shells, Python within shells and so on that are followed.
const DEPTH: usize = 6;

/// One thing done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A program ran.
    Ran {
        /// Its name, without directory.
        program: String,
        /// Its arguments, without its name.
        arguments: Vec<String>,
    },
    /// A file was written, changed or taken away.
    Wrote {
        /// The file, as [`within`] gives it.
        path: String,
        /// What was written, as far as the command has it.
        text: String,
        /// How.
        how: How,
    },
    /// Python ran.
    Python(String),
    /// Text was printed, to the terminal or to a file.
    Printed(String),
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// As a whole: it may be new.
    Whole,
    /// In a part: it was there.
    Part,
    /// Taken away.
    Gone,
}

/// The deeds of an action, in order.
pub fn of(action: &Action<'_>) -> Vec<Deed> {
    let mut reader = Reader {
        directory: String::new(),
        out: Vec::new(),
        budget: 8 << 20,
    };
    match action {
        Action::Nothing => {}
        Action::Shell(text) => reader.shell(text, 0),
        Action::Python(code) => reader.python(code, 0),
        Action::Read { path } => reader.out.push(Deed::Ran {
            program: "view".to_owned(),
            arguments: vec![within("", path)],
        }),
        Action::Write { path, text, whole } => reader.out.push(Deed::Wrote {
            path: within("", path),
            text: text.clone().into_owned(),
            how: if *whole { How::Whole } else { How::Part },
        }),
    }
    reader.out
}

struct Reader {
    directory: String,
    out: Vec<Deed>,
    /// Bytes of written text that may still be kept: one text can go to many files.
    budget: usize,
}

impl Reader {
    fn shell(&mut self, text: &str, depth: usize) {
        if depth > DEPTH {
            return;
        }
        let mut printed: Option<String> = None;
        for command in shell::commands(text) {
            let input = command
                .input
                .clone()
                .or_else(|| printed.take().filter(|_| command.piped));
            printed = self.command(&command, input, depth);
        }
    }

    /// One simple command; what it prints, as far as that is known.
    fn command(
        &mut self,
        command: &Command,
        input: Option<String>,
        depth: usize,
    ) -> Option<String> {
        for (name, value) in &command.variables {
            if command.words.is_empty() {
                continue;
            }
            self.out.push(Deed::Ran {
                program: "env".to_owned(),
                arguments: vec![format!("{name}={value}")],
            });
        }
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let printed = self.run(&words, input, depth);
        for target in &command.writes {
            if target == "/dev/null" || target.starts_with("/dev/std") {
                continue;
            }
            self.wrote(target, printed.as_deref().unwrap_or_default(), How::Whole);
        }
        printed
    }

    fn run(&mut self, words: &[&str], input: Option<String>, depth: usize) -> Option<String> {
        let words = unwrapped(words);
        let (first, rest) = words.split_first()?;
        let program = super::paths::name(first);
        if depth > DEPTH {
            return None;
        }
        let program = if program.starts_with("python") || program.starts_with("pypy") {
            "python"
        } else {
            program
        };
        self.out.push(Deed::Ran {
            program: program.to_owned(),
            arguments: rest.iter().map(|word| (*word).to_owned()).collect(),
        });
        match program {
            "cd" | "pushd" => {
                if let Some(to) = rest.iter().find(|word| !word.starts_with('-')) {
                    self.directory = within(&self.directory, to);
                }
                None
            }
            "bash" | "sh" | "zsh" | "dash" | "ksh" => {
                let code = rest.iter().position(|word| {
                    word.starts_with('-') && !word.starts_with("--") && word.contains('c')
                });
                match code.and_then(|at| rest.get(at + 1)) {
                    Some(text) => self.shell(text, depth + 1),
                    None if rest.iter().all(|word| word.starts_with('-')) => {
                        if let Some(text) = input {
                            self.shell(&text, depth + 1);
                        }
                    }
                    None => {}
                }
                None
            }
            "eval" => {
                self.shell(&rest.join(" "), depth + 1);
                None
            }
            "python" | "ipython" => {
                match rest.iter().position(|word| *word == "-c") {
                    Some(at) => {
                        if let Some(code) = rest.get(at + 1) {
                            self.python(code, depth + 1);
                        }
                    }
                    None if rest.first().is_none_or(|word| *word == "-") => {
                        if let Some(code) = input {
                            self.python(&code, depth + 1);
                        }
                    }
                    None => {}
                }
                None
            }
            "echo" => {
                let from = usize::from(rest.first().is_some_and(|word| word.starts_with('-')));
                let text = rest.get(from..).unwrap_or_default().join(" ");
                // `echo -e` and some shells' own read these.
                Some(self.print(python::unescaped(&text)))
            }
            "printf" => Some(self.print(python::unescaped(&rest.join(" ")))),
            "cat" if input.is_some() && rest.iter().all(|word| *word == "-" || word.is_empty()) => {
                input.map(|text| self.print(text))
            }
            "tee" => {
                let text = input.unwrap_or_default();
                for file in operands(rest, &[]) {
                    self.wrote(file, &text, How::Whole);
                }
                Some(text)
            }
            _ => {
                self.files(program, rest, input.as_deref(), depth);
                None
            }
        }
    }

    fn print(&mut self, text: String) -> String {
        self.out.push(Deed::Printed(text.clone()));
        text
    }

    fn wrote(&mut self, path: &str, text: &str, how: How) {
        let text = if text.len() <= self.budget { text } else { "" };
        self.budget -= text.len();
        self.out.push(Deed::Wrote {
            path: within(&self.directory, path),
            text: text.to_owned(),
            how,
        });
    }

    /// Programs that change files.
    fn files(&mut self, program: &str, rest: &[&str], input: Option<&str>, depth: usize) {
        match program {
            "sed" | "perl" => {
                let in_place = rest.iter().any(|word| {
                    word.starts_with("--in-place")
                        || (word.starts_with('-') && !word.starts_with("--") && word.contains('i'))
                });
                if !in_place {
                    return;
                }
                let scripts: Vec<&str> = rest
                    .windows(2)
                    .filter_map(|pair| match pair {
                        [
                            "-e" | "-pe" | "-ne" | "-pie" | "-i -pe" | "--expression",
                            script,
                        ] => Some(*script),
                        _ => None,
                    })
                    .collect();
                let mut files = operands(rest, &["-e", "-f", "-pe", "-ne", "-pie", "--expression"]);
                let script = if scripts.is_empty() && !files.is_empty() {
                    files.remove(0).to_owned()
                } else {
                    scripts.join("\n")
                };
                for file in files {
                    self.wrote(file, &python::unescaped(&script), How::Part);
                }
            }
            "cp" | "mv" | "install" | "ln" => {
                let mut files = operands(rest, &["-t", "-m"]);
                let Some(to) = files.pop() else { return };
                if program == "mv" {
                    for from in &files {
                        self.wrote(from, "", How::Gone);
                    }
                }
                // Into a directory, or on a file: both are looked at by those who care.
                if let ([from], false) = (files.as_slice(), to.ends_with('/') || to == ".") {
                    let extension = |path: &str| super::paths::name(path).contains('.');
                    if extension(to) || !extension(from) {
                        self.wrote(to, "", How::Whole);
                        return;
                    }
                }
                for from in files {
                    let to = format!("{}/{}", to.trim_end_matches('/'), super::paths::name(from));
                    self.wrote(&to, "", How::Whole);
                }
            }
            "rm" | "unlink" | "shred" => {
                for file in operands(rest, &[]) {
                    self.wrote(file, "", How::Gone);
                }
            }
            "truncate" => {
                for file in operands(rest, &["-s"]) {
                    self.wrote(file, "", How::Part);
                }
            }
            "dd" => {
                if let Some(to) = rest.iter().find_map(|word| word.strip_prefix("of=")) {
                    self.wrote(to, "", How::Whole);
                }
            }
            "ed" | "ex" => {
                for file in operands(rest, &[]) {
                    self.wrote(file, input.unwrap_or_default(), How::Part);
                }
            }
            "patch" => self.diff(input.unwrap_or_default()),
            "git" => {
                let (verb, rest) = git(rest);
                match verb {
                    "apply" | "am" => self.diff(input.unwrap_or_default()),
                    "rm" => {
                        for file in operands(rest, &[]) {
                            self.wrote(file, "", How::Gone);
                        }
                    }
                    "mv" => self.files("mv", rest, None, depth),
                    _ => {}
                }
            }
            "find" => {
                let from = rest
                    .iter()
                    .position(|word| matches!(*word, "-exec" | "-execdir"));
                if let Some(from) = from {
                    let rest = rest.get(from + 1..).unwrap_or_default();
                    let end = rest.iter().position(|word| matches!(*word, ";" | "+"));
                    let command = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                    self.run(command, None, depth + 1);
                }
            }
            _ => {}
        }
    }

    /// Files that a diff on standard input changes.
    fn diff(&mut self, text: &str) {
        for file in super::patch::read(text) {
            let added: Vec<&str> = file.lines(super::patch::Side::New).collect();
            let how = match (file.made, file.gone) {
                (_, true) => How::Gone,
                (true, _) => How::Whole,
                _ => How::Part,
            };
            self.wrote(&file.path, &added.join("\n"), how);
        }
    }

    /// Python that runs: commands that it starts, files that it writes.
    fn python(&mut self, code: &str, depth: usize) {
        self.out.push(Deed::Python(code.to_owned()));
        if depth > DEPTH {
            return;
        }
        let tokens = python::tokens(code);
        let mut values: HashMap<&str, &str> = HashMap::new();
        for four in tokens.windows(3) {
            if let [name, sign, value] = four
                && name.kind == python::Kind::Name
                && sign.is_sign("=")
                && value.kind == python::Kind::Text
            {
                values.insert(name.text, value.text);
            }
        }
        for call in python::calls(&tokens) {
            let arguments = python::arguments(&tokens, &call);
            let texts: Vec<&str> = arguments
                .iter()
                .filter(|token| token.kind == python::Kind::Text)
                .map(|token| token.text)
                .collect();
            let first = arguments.first();
            let place = first.and_then(|token| match token.kind {
                python::Kind::Text => Some(token.text),
                python::Kind::Name => values.get(token.text).copied(),
                _ => None,
            });
            match call.name.as_str() {
                "os.system"
                | "os.popen"
                | "subprocess.getoutput"
                | "subprocess.getstatusoutput" => {
                    if let Some(text) = texts.first() {
                        self.shell(&python::unescaped(text), depth + 1);
                    }
                }
                "subprocess.run"
                | "subprocess.call"
                | "subprocess.check_call"
                | "subprocess.check_output"
                | "subprocess.Popen"
                | "Popen"
                | "check_output" => {
                    if first.is_some_and(|token| token.is_sign("[")) {
                        let end = arguments.iter().position(|token| token.is_sign("]"));
                        let words: Vec<&str> = arguments
                            .get(..end.unwrap_or(arguments.len()))
                            .unwrap_or_default()
                            .iter()
                            .filter(|token| token.kind == python::Kind::Text)
                            .map(|token| token.text)
                            .collect();
                        self.run(&words, None, depth + 1);
                    } else if let Some(text) = place {
                        self.shell(&python::unescaped(text), depth + 1);
                    }
                }
                "open" | "io.open" | "codecs.open" => {
                    let mode = arguments
                        .iter()
                        .rev()
                        .find(|token| token.kind == python::Kind::Text);
                    let writes = mode.is_some_and(|mode| {
                        mode.text.len() <= 3 && mode.text.contains(['w', 'a', 'x', '+'])
                    });
                    if let (Some(path), true) = (place, writes) {
                        self.wrote(path, code, How::Whole);
                    }
                }
                "Path" | "pathlib.Path" => {
                    let after = tokens
                        .get(call.inside + arguments.len() + 1..)
                        .unwrap_or_default();
                    let written = after.first().is_some_and(|token| token.is_sign("."))
                        && after.get(1).is_some_and(|token| {
                            matches!(token.text, "write_text" | "write_bytes" | "unlink")
                        });
                    if let (Some(path), true) = (place, written) {
                        self.wrote(path, code, How::Whole);
                    }
                }
                "os.remove" | "os.unlink" | "shutil.rmtree" => {
                    if let Some(path) = place {
                        self.wrote(path, "", How::Gone);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A command without what only passes it on.
fn unwrapped<'w, 'a>(mut words: &'w [&'a str]) -> &'w [&'a str] {
    while let Some((first, rest)) = words.split_first() {
        // Options that take a value, by wrapper.
        let with_value: &[&str] = match super::paths::name(first) {
            "sudo" => &["-u", "-g"],
            "env" => &["-u", "-C"],
            "timeout" => &["-s", "-k"],
            "nice" => &["-n"],
            "xargs" => &["-I", "-n", "-P", "-L", "-d"],
            "stdbuf" => &["-i", "-o", "-e"],
            "nohup" | "exec" | "command" | "builtin" | "setsid" | "time" => &[],
            "conda" | "poetry" | "uv" | "pipenv" | "hatch"
                if rest.first().is_some_and(|word| *word == "run") =>
            {
                &["-n", "-p", "run"]
            }
            _ => return words,
        };
        let timeout = super::paths::name(first) == "timeout";
        let mut at = 0;
        while let Some(word) = rest.get(at) {
            if *word == "run" {
                at += 1;
            } else if with_value.contains(word) {
                at += 2;
            } else if word.starts_with('-') || shell::assignment(word).is_some() {
                at += 1;
            } else {
                break;
            }
        }
        at += usize::from(timeout);
        let inner = rest.get(at..).unwrap_or_default();
        if inner.is_empty() {
            return words;
        }
        words = inner;
    }
    words
}

/// Words that are no options; `with_value` names the options that take the next word.
pub fn operands<'a>(words: &[&'a str], with_value: &[&str]) -> Vec<&'a str> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut options = true;
    while let Some(word) = words.get(at) {
        at += 1;
        if options && *word == "--" {
            options = false;
        } else if options && with_value.contains(word) {
            at += 1;
        } else if !options || !word.starts_with('-') || *word == "-" {
            out.push(*word);
        }
    }
    out
}

/// git's verb and what follows it, options before the verb left out.
pub fn git<'w, 'a>(words: &'w [&'a str]) -> (&'a str, &'w [&'a str]) {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        if matches!(*word, "-C" | "-c" | "--git-dir" | "--work-tree") {
            at += 1;
        } else if !word.starts_with('-') {
            return (word, words.get(at..).unwrap_or_default());
        }
    }
    ("", &[])
}

#[cfg(test)]
#[path = "deeds_tests.rs"]
mod tests;
