use super::*;

const WINS: &str = "[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]\n";

fn refused(text: &str) -> String {
    let failure = Recipe::parse(text).unwrap_err();
    assert_eq!(failure.code, "GT-DATASET-RECIPE");
    failure.message
}

#[test]
fn bad_recipes_are_refused_in_words() {
    let head = "version = 1\nkind = \"policy\"\n";
    for (text, why) in [
        ("kind = \"policy\"".to_owned(), "does not say `version = 1`"),
        (
            "version = 2\nkind = \"policy\"\nnew = 1".to_owned(),
            "of version 2",
        ),
        (
            format!("{head}unknown = 1\n{WINS}"),
            "unknown field `unknown`",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"turns\"\nmost = 3"),
            "most",
        ),
        (format!("{head}{WINS}[[filter]]\nby = \"magic\""), "magic"),
        (
            format!("{head}{WINS}[[filter]]\nby = \"agreeing\"\nx = 1"),
            "x",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"turns\"\nmin = 3\nmax = 2"),
            "filter 2 (`turns`): `min` 3 is above `max` 2",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"turns\"\nmin = -3"),
            "-3",
        ),
        (head.to_owned(), "what it learns from"),
        (
            format!("{head}{WINS}[[filter]]\nby = \"outcome\"\nis = [\"unresolved\"]"),
            "contradict",
        ),
        (
            format!("version = 1\nkind = \"verifier\"\n{WINS}"),
            "wins and losses",
        ),
        (
            format!("version = 1\nkind = \"preference\"\n{WINS}"),
            "wins and losses",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"balance\"\nratio = 1"),
            "two classes",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"split\"\nany = [\"held_out\"]"),
            "for evaluation",
        ),
        (
            format!(
                "{head}{WINS}[[filter]]\nby = \"split\"\nany = [\"train\"]\n[[filter]]\nby = \"split\"\nany = [\"explore\"]"
            ),
            "contradict",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"mix\"\noff_policy = 1.5"),
            "from 0 to 1",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"mix\"\noff_policy = nan"),
            "from 0 to 1",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"cost\"\nmax = nan"),
            "`max` is NaN",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"repos\"\nonly = [\"a\"]\nnot = [\"a\"]"),
            "every repository",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"dates\"\nfrom = \"2026-01-01\""),
            "UTC",
        ),
        (format!("{head}{WINS}[[filter]]\nby = \"dates\""), "neither"),
        (
            format!("{head}{WINS}[[filter]]\nby = \"per_task\"\nmost = 0\nkeep = \"first\""),
            "drops everything",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"sample\"\nshare = 0"),
            "above 0 and up to 1",
        ),
        (
            format!("{head}{WINS}[[filter]]\nby = \"sample\"\nshare = 0.5\nseed = -1"),
            "-1",
        ),
        ("]".to_owned(), "cannot be used"),
    ] {
        let said = refused(&text);
        assert!(said.contains(why), "{text}\n{said}");
    }
}

#[test]
fn a_recipes_digest_is_of_what_it_says() {
    let text = format!(
        "version = 1\nkind = \"policy\"\nseed = 7\n{WINS}[[filter]]\nby = \"per_task\"\nmost = 2\nkeep = \"fewest_turns\"\n"
    );
    let digest = Recipe::parse(&text).unwrap().digest();
    // Frozen: datasets of other machines are named by it.
    assert_eq!(digest.short(), "a5663b07af58");
    let other = format!(
        "# a comment\nseed   = 7\nkind = \"policy\"\nversion = 1\n{WINS}[[filter]]\nkeep = \"fewest_turns\"\nmost = 2\nby = \"per_task\"\n"
    );
    assert_eq!(Recipe::parse(&other).unwrap().digest(), digest);
    let json = serde_json::to_string(&Recipe::parse(&text).unwrap()).unwrap();
    assert_eq!(
        serde_json::from_str::<Recipe>(&json).unwrap().digest(),
        digest
    );
    assert_ne!(
        Recipe::parse(&text.replace("most = 2", "most = 3"))
            .unwrap()
            .digest(),
        digest
    );
}
