//! What is typed into the shell: the set-up, and commands in their frames. Pure.
//!
//! Lines stay far below the 4,096 bytes that a terminal takes at once, and hold only
//! printable ASCII: no byte of a command is a key of the terminal, a word of history
//! expansion or an alias.

/// The program and its arguments.
pub const BASH: [&str; 5] = ["bash", "--norc", "--noprofile", "--noediting", "-i"];

/// The descriptor that marks are printed to: `exec >file` does not move it, and scripts
/// that count their descriptors from 3 or 10 do not meet it.
const MARKS_TO: u32 = 99;

/// Longest line typed.
const LINE: usize = 1_000;

/// The first character of a mark; it is printed, never typed.
pub const RECORD: u8 = 0x1e;

/// The set-up. It ends with a prompt, and so with the mark of command `number`. Harmless
/// when it is typed again; one line, for the hook of a prompt in between would throw away
/// the rest.
pub fn set_up(nonce: &str, number: u64) -> Vec<u8> {
    // The directory may hold anything but the nonce, so it stands last.
    let mark = format!("\\036{nonce}[%s %s %s\\036{nonce}]");
    let lines = [
        // No history, no editing: what is typed is only read.
        "set +o history +H +o emacs +o vi +v; unset HISTFILE TMOUT".to_owned(),
        // A key of end-of-file that comes too late does not end the shell.
        "PS1= PS2= PS0= IGNOREEOF=10".to_owned(),
        // Nothing waits for a person to turn a page.
        "export TERM=dumb PAGER=cat GIT_PAGER=cat MANPAGER=cat".to_owned(),
        // The hook. What was typed and not read must not become a command.
        format!(
            "__gt_p() {{ __gt_e=$?; set +vH +o history +o emacs +o vi; PS1= PS2= PS0=; \
             while builtin read -r -t 0; do \
             IFS= builtin read -r -t 0.2 -n 4096 __gt_l || break; done; \
             builtin printf '{mark}' \"$__gt_n\" \"$__gt_e\" \"$PWD\" >&{MARKS_TO}; }}"
        ),
        // After a command the hook is put back; `$?` goes on to the next command, but not
        // where it would end the shell.
        "__gt_t() { local __gt_s=$?; unset PROMPT_COMMAND; \
         PROMPT_COMMAND='{ __gt_p; } >/dev/null 2>&1'; \
         case $- in *e*) return 0;; esac; return \"$__gt_s\"; }"
            .to_owned(),
        format!("{{ builtin : >&{MARKS_TO}; }} 2>/dev/null || exec {MARKS_TO}>&1"),
    ];
    format!("{}; __gt_n={number}; __gt_t\n", lines.join("; ")).into_bytes()
}

/// A command in its frame: one line for bash, several for the terminal; its first word is
/// escaped, so that it is no alias. `$?` is still
/// what the command before it left, for nothing is run in between: the number is set
/// while the words of `eval` are expanded, by a part of `$0` that is empty.
pub fn framed(number: u64, command: &str) -> Vec<u8> {
    let mut typed = format!("\\eval \"${{0:0:0*(__gt_n={number})}}\"$'").into_bytes();
    let mut line = typed.len();
    // A here-document at the end needs the end of its line.
    for byte in command.bytes().chain(std::iter::once(b'\n')) {
        let before = typed.len();
        quoted(byte, &mut typed);
        line += typed.len() - before;
        if line >= LINE {
            typed.extend_from_slice(b"'\\\n$'");
            line = 2;
        }
    }
    typed.extend_from_slice(b"'; { __gt_t; } >/dev/null 2>&1\n");
    typed
}

/// A byte inside `$'…'`.
fn quoted(byte: u8, typed: &mut Vec<u8>) {
    match byte {
        // History expansion reads `!` even in quotes.
        b'\'' | b'\\' | b'!' | 0..=0x1f | 0x7f.. => {
            typed.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        }
        _ => typed.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What bash makes of the quoted words.
    fn unquoted(typed: &[u8]) -> Vec<u8> {
        let text = std::str::from_utf8(typed).unwrap();
        let start = text.find("$'").unwrap();
        let end = text.rfind("'; { __gt_t").unwrap();
        let body = text[start + 2..end].replace("'\\\n$'", "");
        let mut bytes = Vec::new();
        let mut rest = body.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            if first == b'\\' {
                let octal = std::str::from_utf8(&after[..3]).unwrap();
                bytes.push(u8::from_str_radix(octal, 8).unwrap());
                rest = &after[3..];
            } else {
                bytes.push(first);
                rest = after;
            }
        }
        bytes
    }

    #[test]
    fn the_set_up_fits_into_a_terminal() {
        let typed = set_up(&"f".repeat(64), u64::MAX);
        assert!(typed.len() < 4_000, "{}", String::from_utf8_lossy(&typed));
        assert_eq!(
            typed.iter().position(|&b| b == b'\n'),
            Some(typed.len() - 1)
        );
        assert!(!typed.contains(&RECORD));
    }

    proptest! {
        #[test]
        fn a_frame_holds_the_command_in_short_printable_lines(
            command in "(?s).{0,3000}",
            number in any::<u64>(),
        ) {
            let typed = framed(number, &command);
            let mut expected = command.into_bytes();
            expected.push(b'\n');
            prop_assert_eq!(unquoted(&typed), expected);
            for line in typed.split(|&b| b == b'\n') {
                prop_assert!(line.len() < LINE + 100);
                prop_assert!(line.iter().all(|b| (0x20..0x7f).contains(b)));
            }
        }
    }
}
