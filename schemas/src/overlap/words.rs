//! Runs of words as numbers.
//!
//! Words are runs of letters and digits in lower case; everything between them is layout.
//! A run is named by 64 bits: among 10^7 runs held against 10^6, a chance hit has a
//! probability below 10^-6.

/// Statements of fewer words than this say too little to be compared.
const LEAST_WORDS: usize = 5;
/// Base of the rolling hash; odd, so that no bit is lost.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The words of a text, in lower case, with a blank between them.
pub fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
    out
}

/// The names of the runs of `n` words in what [`words`] gave, sorted, each once. A text
/// that is shorter is one run; one of fewer than five words has none.
pub fn grams(words: &str, n: usize) -> Vec<u64> {
    let mut out: Vec<u64> = runs(words, n).map(|(gram, _)| gram).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// The words of the run that has this name; empty if there is none.
pub fn text_of(words: &str, n: usize, gram: u64) -> String {
    let Some((_, end)) = runs(words, n).find(|(name, _)| *name == gram) else {
        return String::new();
    };
    let all: Vec<&str> = words.split(' ').collect();
    let run = all.get(end.saturating_sub(n.max(1))..end);
    run.unwrap_or_default().join(" ")
}

/// Every run with the number of words up to its end.
fn runs(words: &str, n: usize) -> impl Iterator<Item = (u64, usize)> {
    let names: Vec<u64> = words
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(name)
        .collect();
    let n = n.max(1).min(if names.len() < LEAST_WORDS {
        usize::MAX
    } else {
        names.len()
    });
    let out_of_range = BASE.wrapping_pow(u32::try_from(n).unwrap_or(u32::MAX));
    let mut rolling = 0_u64;
    (0..names.len()).filter_map(move |at| {
        let new = names.get(at).copied().unwrap_or_default();
        rolling = rolling.wrapping_mul(BASE).wrapping_add(new);
        if let Some(old) = at.checked_sub(n).and_then(|old| names.get(old)) {
            rolling = rolling.wrapping_sub(old.wrapping_mul(out_of_range));
        }
        (at + 1 >= n && names.len() >= LEAST_WORDS).then(|| (mixed(rolling), at + 1))
    })
}

/// FNV-1a, mixed.
fn name(word: &str) -> u64 {
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mixed(hash)
}

/// The finaliser of SplitMix64.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_and_case_do_not_matter() {
        assert_eq!(words("  It's `F(x)`,\r\n NOT 3.5! "), "it s f x not 3 5");
        assert_eq!(words("Größe ÄÖ"), "größe äö");
        let one = grams(&words("a b c d e f"), 3);
        assert_eq!(one, grams(&words("A, b: c\n\nd e(f)"), 3));
        assert_eq!(one.len(), 4);
    }

    #[test]
    fn short_texts_are_one_run_or_none() {
        assert_eq!(grams("a b c d e", 13).len(), 1);
        assert!(grams("a b c d", 13).is_empty());
        assert!(grams("a b c d", 2).is_empty());
        assert!(grams("", 13).is_empty());
    }

    proptest! {
        #[test]
        fn a_run_has_the_same_name_wherever_it_stands(
            before in prop::collection::vec("[a-c]{1,2}", 0..9), run in prop::collection::vec("[a-c]{1,2}", 5..6),
            after in prop::collection::vec("[a-c]{1,2}", 0..9),
        ) {
            let alone = grams(&run.join(" "), 5);
            let text = [before, run.clone(), after].concat().join(" ");
            prop_assert!(grams(&text, 5).contains(&alone[0]));
            prop_assert_eq!(text_of(&text, 5, alone[0]), run.join(" "));
        }
    }
}
