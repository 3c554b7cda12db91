//! What others wrote stays text, wherever it is shown.

use crate::made_up::{How, begun, said_by, task, task_stream, text, write};
use crate::measured::{NASTY, files, rich};
use gametape_schemas::{PolicyRef, TaskId};
use std::collections::BTreeSet;

/// Every element of a page, as it opens or closes. What is text holds no `<`.
fn tags(page: &str) -> Vec<&str> {
    let parts = page.split('<').skip(1);
    parts.map(|part| part.split('>').next().unwrap()).collect()
}

/// No element that loads or acts.
fn assert_still(page: &str) {
    const KNOWN: &str = "!doctype html head meta title style body h1 h2 h3 h4 p ul li div table \
                         tr th td details summary pre figure svg g rect line circle polygon \
                         polyline path text";
    let known: BTreeSet<&str> = KNOWN.split_whitespace().collect();
    for tag in tags(page) {
        let lower = tag.to_ascii_lowercase();
        let name = lower.trim_start_matches('/').split_whitespace().next();
        let name = name.unwrap_or("").trim_end_matches('/');
        assert!(known.contains(name), "<{tag}>");
        for bad in ["src=", "href", " on", "url(", "javascript:", "refresh"] {
            assert!(!lower.contains(bad), "<{tag}>");
        }
        // The one address is the name of SVG's own namespace, which nobody asks for.
        let without = lower.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!without.contains("://"), "<{tag}>");
    }
    assert!(!page.contains("@import") && !page.contains("<?"));
}

fn is_obeyed(c: char) -> bool {
    (c.is_control() && c != '\n') || c == '\u{202e}'
}

#[test]
fn what_others_wrote_is_text_in_pages_pictures_and_on_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let mut streams = vec![begun("made-up")];
    for n in 0..3 {
        let mut asked = task(n);
        asked.id = TaskId::new(format!("o__{NASTY}-{n}"));
        asked.repo = format!("o/{NASTY}");
        asked.problem_statement =
            format!("{NASTY}</pre><img src=\"https://example.org/x.png\" onerror=\"alert(2)\">");
        for index in 0..4 {
            let mut one = rich(n, "weights", 1, index, 5);
            one.key.task = asked.id.clone();
            one.purpose = "r".into();
            one.patch = format!("--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-a\n+{NASTY}{index}\n");
            streams.push(one.stream());
            let model = NASTY.to_owned();
            one.key.policy = PolicyRef::Endpoint { model };
            streams.push(one.stream());
        }
        streams.insert(1, task_stream(asked));
    }
    let run = dir.path().join("<b>\u{1b}[31mrun");
    write(&run, &streams, How::default());
    let out = dir.path().join("out");
    let arguments = ["evaluate", "--run", text(&run), "--k", "1,2,4", "--out"];
    let (shown, _) = said_by(0, &[&arguments[..], &[text(&out)]].concat());
    assert!(!shown.contains(is_obeyed), "{shown:?}");
    // Visible, and obeyed by nobody.
    let harmless = "␛[31m<script>alert(1)</script>\\u{202e}";
    assert!(
        shown.contains(&format!("endpoint {harmless}")) && shown.contains("<b>␛[31mrun"),
        "{shown}"
    );

    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_still(&page);
    assert!(!page.contains(is_obeyed));
    let escaped = "\u{fffd}[31m&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}";
    for place in [
        format!("<summary>o__{escaped}-0 · "),
        format!("<h4>Statement (o/{escaped})</h4>"),
        format!("<pre>{escaped}&lt;/pre&gt;&lt;img src=&quot;https://example.org"),
        format!("\n+{escaped}"),
    ] {
        assert!(page.contains(&place), "{place}: {page}");
    }
    // The policy stands before anything that it could forbid, and allows styles alone.
    let policy = page.find("http-equiv=\"Content-Security-Policy\"").unwrap();
    assert!(policy < page.find("<style").unwrap() && policy < page.find("<body").unwrap());
    let policy = page[policy..].split('>').next().unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    for allowed in ["script-src", "unsafe-eval", "connect-src", "*", "http:"] {
        assert!(!policy.contains(allowed), "{policy}");
    }

    let mut pictures = 0;
    for name in files(&out).iter().filter(|name| name.ends_with(".svg")) {
        let picture = std::fs::read_to_string(out.join(name)).unwrap();
        assert_still(&picture);
        assert!(!picture.contains(is_obeyed), "{name}");
        // The page holds the very picture.
        assert!(page.contains(picture.trim()), "{name}");
        pictures += usize::from(picture.contains("[31m&lt;script&gt;alert(1)"));
    }
    // Of Pass@k, of Best@k, and of the rules of the endpoint.
    assert_eq!(pictures, 3);
}
