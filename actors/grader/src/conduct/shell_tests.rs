//! Tests of `shell`.

use super::*;
use proptest::prelude::*;

fn words(text: &str) -> Vec<Vec<String>> {
    commands(text)
        .into_iter()
        .map(|command| command.words)
        .collect()
}

fn lines(text: &str) -> Vec<String> {
    words(text)
        .into_iter()
        .map(|words| words.join(" "))
        .collect()
}

#[test]
fn what_joins_commands_parts_them() {
    assert_eq!(
        lines("cd a && git log | head -3; if true; then ls & fi || (pwd)"),
        ["cd a", "git log", "head -3", "true", "ls", "pwd"]
    );
    let piped: Vec<bool> = commands("a | b || c |& d")
        .iter()
        .map(|c| c.piped)
        .collect();
    assert_eq!(piped, [false, true, false, true]);
}

#[test]
fn quotes_are_undone_and_hide_what_joins() {
    assert_eq!(
        words(r#"echo 'a; b' "c && $X" d\ e f'g'"h" $'i\nj'"#),
        [["echo", "a; b", "c && $X", "d e", "fgh", "i\nj"]]
    );
    assert_eq!(lines("# git log --all\nls # more"), ["ls"]);
}

#[test]
fn substitutions_are_commands() {
    assert_eq!(
        lines("echo $(git log --all) \"`git reflog`\" <(ls) $((1 << 2))"),
        ["git log --all", "git reflog", "ls", "echo   0"]
    );
}

#[test]
fn here_documents_go_to_their_command() {
    let found = commands(
        "cat <<'EOF' > a.py && python a.py\nx = $(1)\nEOF\nbash <<-X\n\tls\n\tX\ncat <<< hi",
    );
    assert_eq!(found[0].words, ["cat"]);
    assert_eq!(found[0].writes, ["a.py"]);
    assert_eq!(found[0].input.as_deref(), Some("x = $(1)\n"));
    assert_eq!(found[1].words, ["python", "a.py"]);
    assert_eq!(found[2].input.as_deref(), Some("ls\n"));
    assert_eq!(found[3].input.as_deref(), Some("hi"));
    // Without its end it reaches to the end of the text.
    assert_eq!(commands("cat <<E\na\nb")[0].input.as_deref(), Some("a\nb"));
}

#[test]
fn redirections_are_no_arguments() {
    let found = commands("a b 2>&1 > c 2> d < e &> f; [[ x > y ]]");
    assert_eq!(found[0].words, ["a", "b"]);
    assert_eq!(found[0].writes, ["c", "d", "f"]);
    assert_eq!(found[0].reads, ["e"]);
    assert!(found[1].writes.is_empty());
}

#[test]
fn variables_that_the_text_sets_are_put_in() {
    assert_eq!(
        lines("U=http://x; curl $U ${U}/y $Z"),
        ["", "curl http://x http://x/y $Z"]
    );
    let doubling = format!("A=ab;{}", "A=$A$A;".repeat(60));
    assert!(commands(&doubling).len() <= 61);
}

proptest! {
    #[test]
    fn any_text_is_read(text in r#"([a-z ;&|<>(){}$'"`\\#\n=é-]|<<|EOF|\$\()*"#) {
        let found = commands(&text);
        prop_assert!(found.len() <= text.len() + 1);
    }
}

#[test]
fn deep_and_open_text_is_read_at_once() {
    for piece in ["$(", "\"$(", "`", "(", "<<A ", "'", "${", "$((", "a<("] {
        commands(&piece.repeat(200_000));
    }
}
