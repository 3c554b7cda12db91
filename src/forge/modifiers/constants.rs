//! `func_pm_op_change_const`: integer constants off by one.

use super::super::edit::Edit;
use super::super::syntax::{Entity, Source, each_node_of};

/// Every decimal integer becomes its successor and, above zero, its predecessor.
/// Other notations (`0xff`, `1_000`, `2j`) carry meaning in their form and stay.
pub fn change_const(source: &Source, entity: &Entity) -> Vec<Edit> {
    let mut edits = Vec::new();
    each_node_of(source, entity, &mut |node| {
        let text = source.of(node);
        if node.kind() != "integer" || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return;
        }
        let Ok(value) = text.parse::<u32>() else {
            return;
        };
        edits.push(Edit::new(
            node.byte_range(),
            (u64::from(value) + 1).to_string(),
        ));
        if let Some(less) = value.checked_sub(1) {
            edits.push(Edit::new(node.byte_range(), less.to_string()));
        }
    });
    edits
}

#[cfg(test)]
mod tests {
    use super::super::testing::{body_mutants, mutants};

    #[test]
    fn off_by_one_both_ways() {
        let cases: [(&str, &[&str]); 4] = [
            ("return a[0]", &["return a[1]"]),
            ("return a[-1]", &["return a[-2]", "return a[-0]"]),
            ("return 0xff + 1.5 + 1_000", &[]),
            ("return 99999999999999999999", &[]),
        ];
        for (body, expected) in cases {
            assert_eq!(
                body_mutants("func_pm_op_change_const", body),
                expected,
                "{body}"
            );
        }
    }

    #[test]
    fn defaults_of_parameters_count() {
        assert_eq!(
            mutants("func_pm_op_change_const", "def f(a=2):\n    return a\n"),
            ["def f(a=3):\n    return a\n", "def f(a=1):\n    return a\n"]
        );
    }
}
