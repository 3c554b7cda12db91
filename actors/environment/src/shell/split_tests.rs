//! What is one command and what is several.

use super::*;
use proptest::prelude::*;

fn count(text: &str) -> usize {
    commands(text).len()
}

/// One command each, on a line or joined over several.
const JOINED: &[&str] = &[
    "ls",
    "ls; pwd; cd ..",
    "make && make test || echo failed",
    "ls |\n  grep x |\n  wc -l",
    "make &&\n# now the tests\nmake test",
    "ls \\\n  -l \\\n  -a",
    "sleep 100 & echo $!",
    "ls 2>&1 | tee log",
    "make &> log",
];

/// One command each, of several lines.
const OF_LINES: &[&str] = &[
    "for i in 1 2\ndo\n  echo $i\ndone",
    "while read -r line\ndo echo \"$line\"\ndone < file | sort",
    "if true\nthen\n  ls\nelif false; then\n  pwd\nelse\n  id\nfi",
    "case $x in\n  a|b) echo 1;;\n  done) echo 2 ;;\n  (*)\n    echo 3\n    ;;\nesac",
    "f() {\n  local x=1\n  echo $x\n}",
    "f ()\n{\n  ls\n}",
    "function f\n{\n  ls\n}",
    "function f {\n  ls\n}",
    "{\n  ls\n  pwd\n} > log",
    "(\n  cd x\n  ls\n)",
    "echo 'one\ntwo'",
    "echo \"one\n$(ls \"a b\"\npwd) `date`\ntwo\"",
    "echo $'it\\'s\ntwo'",
    "python - <<'EOF'\nprint(\"it's\")\nif x:\n  pass\nEOF",
    "cat > a.txt <<-END\n\tone (\n\tEND",
    "cat <<A <<B\na\nA\nb\nB",
    "cat <<EOF | grep x\ntext\nEOF",
    "x=(a if\n b done)",
    "echo $(( 1 +\n 2 ))",
    "((x = 1 << 2)) && echo \"$x\"",
    "[[ -f a &&\n -f b ]] && ls",
    "echo ${x:-a\nb}",
    "diff <(ls a\nls b) <(ls c)",
    "grep -n 'a' <<< \"b\nc\"",
    "! ls &&\nls",
];

#[test]
fn commands_on_lines_of_their_own_are_several() {
    assert_eq!(commands("ls\npwd"), ["ls", "pwd"]);
    assert_eq!(commands("cd /tmp\n\n# look\nls -l\n"), ["cd /tmp", "ls -l"]);
    assert_eq!(count("for i in 1 2; do echo $i; done\necho end"), 2);
    assert_eq!(count("cat <<EOF\nls\npwd\nEOF\nls"), 2);
    assert_eq!(count("f() { ls; }\nf"), 2);
    assert_eq!(count("a=(1\n2)\necho ${a[0]}"), 2);
    assert_eq!(count("case $x in a) ls;; esac\npwd"), 2);
    assert_eq!(count("python -c 'import os\nprint(1)'\nls"), 2);
    assert_eq!(count("(cd x && ls)\npwd"), 2);
    assert_eq!(count("if [[ a == b ]]; then ls; fi\npwd"), 2);
    assert_eq!(count("sleep 1 &\nwait"), 2);
    assert_eq!(count("echo $((1 << 2))\nls"), 2);
    assert_eq!(count("echo \"$(date)\"\nls"), 2);
}

#[test]
fn what_is_joined_is_one() {
    for text in JOINED {
        assert_eq!(count(text), 1, "{text}");
    }
}

#[test]
fn a_command_of_several_lines_is_one() {
    for text in OF_LINES {
        assert_eq!(count(text), 1, "{text}");
    }
}

#[test]
fn words_that_only_look_reserved_are_words() {
    assert_eq!(count("echo if\nls"), 2);
    assert_eq!(count("git log --grep=done\nls"), 2);
    assert_eq!(count("echo it is done\nls"), 2);
    assert_eq!(count("for done in a b; do ls; done\nls"), 2);
    assert_eq!(count("echo a#b\nls"), 2);
    assert_eq!(count("ls # it's a comment\npwd"), 2);
}

#[test]
fn what_is_not_understood_is_one() {
    for text in [
        "echo 'open\nls",
        "echo \"open\nls",
        "cat <<EOF\nls",
        "if true\nls",
        "fi\nls",
        ")\nls",
        "echo $(ls\npwd",
    ] {
        assert_eq!(count(text), 1, "{text}");
    }
}

#[test]
fn nothing_is_no_command() {
    assert_eq!(count(""), 0);
    assert_eq!(count("\n \t\n"), 0);
    assert_eq!(count("# only a comment\n# and another"), 0);
}

proptest! {
    #[test]
    fn as_many_commands_are_seen_as_were_put_together(
        picks in prop::collection::vec(
            prop::sample::select([JOINED, OF_LINES].concat()),
            1..6,
        ),
        gap in prop::sample::select(vec!["\n", "\n\n", "\n \t\n", "\n# it's (a) \"comment\n"]),
    ) {
        let text = picks.join(gap);
        prop_assert_eq!(count(&text), picks.len(), "{}", text);
    }

    #[test]
    fn any_text_is_read_to_its_end(text in "[a-z \n'\"`$(){}\\[\\]<>|&;#\\\\=!-]{0,120}") {
        let parts = commands(&text);
        let kept: usize = parts.iter().map(|part| part.len()).sum();
        prop_assert!(kept <= text.len());
    }
}
