//! Modifiers of operators: the opposite, another of the family, operands swapped,
//! a chain broken.

use super::super::edit::Edit;
use super::super::syntax::{Entity, Source, each_node_of};
use tree_sitter::Node;

/// An operator with its operands, whatever the node is called.
struct Operation<'tree> {
    node: Node<'tree>,
    left: Node<'tree>,
    operator: Node<'tree>,
    right: Node<'tree>,
}

/// Operations with exactly two operands, in order of appearance.
fn operations<'tree>(source: &'tree Source, entity: &Entity) -> Vec<Operation<'tree>> {
    let mut found = Vec::new();
    each_node_of(source, entity, &mut |node| {
        let parts = match node.kind() {
            "binary_operator" | "boolean_operator" | "augmented_assignment" => (
                node.child_by_field_name("left"),
                node.child_by_field_name("operator"),
                node.child_by_field_name("right"),
            ),
            "comparison_operator" if node.child_count() == 3 => {
                (node.child(0), node.child(1), node.child(2))
            }
            _ => return,
        };
        if let (Some(left), Some(operator), Some(right)) = parts {
            found.push(Operation {
                node,
                left,
                operator,
                right,
            });
        }
    });
    found
}

/// `"…" % x` formats: arithmetic mutants of it are crashes, not bugs to learn from.
fn is_text(node: Node<'_>) -> bool {
    matches!(node.kind(), "string" | "concatenated_string")
}

fn replace_operator(source: &Source, entity: &Entity, table: &[(&str, &str)]) -> Vec<Edit> {
    let mut edits = Vec::new();
    for operation in operations(source, entity) {
        // The kind, not the text: `not  in` may be spread over spaces.
        let old = operation.operator.kind();
        let arithmetic = operation.node.kind() == "binary_operator";
        if arithmetic && (is_text(operation.left) || is_text(operation.right)) {
            continue;
        }
        for (from, to) in table {
            if *from == old {
                edits.push(Edit::new(operation.operator.byte_range(), *to));
            }
        }
    }
    edits
}

/// `func_pm_flip_operators`: every operator becomes its opposite.
pub fn flip(source: &Source, entity: &Entity) -> Vec<Edit> {
    replace_operator(
        source,
        entity,
        &[
            ("==", "!="),
            ("!=", "=="),
            ("<", ">="),
            (">=", "<"),
            (">", "<="),
            ("<=", ">"),
            ("is", "is not"),
            ("is not", "is"),
            ("in", "not in"),
            ("not in", "in"),
            ("and", "or"),
            ("or", "and"),
            ("+", "-"),
            ("-", "+"),
            ("*", "//"),
            ("/", "*"),
            ("//", "*"),
            ("<<", ">>"),
            (">>", "<<"),
            ("+=", "-="),
            ("-=", "+="),
            ("*=", "//="),
            ("//=", "*="),
        ],
    )
}

/// `func_pm_op_change`: another operator of the same family, the near miss first.
pub fn change(source: &Source, entity: &Entity) -> Vec<Edit> {
    replace_operator(
        source,
        entity,
        &[
            ("<", "<="),
            ("<", ">"),
            ("<=", "<"),
            ("<=", ">="),
            (">", ">="),
            (">", "<"),
            (">=", ">"),
            (">=", "<="),
            ("+", "*"),
            ("-", "*"),
            ("*", "+"),
            ("/", "//"),
            ("//", "/"),
            ("//", "%"),
            ("%", "//"),
            ("**", "*"),
            ("&", "|"),
            ("|", "&"),
            ("^", "|"),
            ("+=", "*="),
            ("*=", "+="),
            ("&=", "|="),
            ("|=", "&="),
        ],
    )
}

/// `func_pm_op_swap`: the operands change places, where that can matter.
pub fn swap(source: &Source, entity: &Entity) -> Vec<Edit> {
    operations(source, entity)
        .into_iter()
        .filter(|operation| {
            operation.node.kind() != "augmented_assignment"
                && matches!(
                    operation.operator.kind(),
                    "+" | "-"
                        | "/"
                        | "//"
                        | "%"
                        | "**"
                        | "<<"
                        | ">>"
                        | "<"
                        | "<="
                        | ">"
                        | ">="
                        | "in"
                        | "not in"
                        | "and"
                        | "or"
                )
                && !is_text(operation.left)
        })
        .map(|operation| {
            let between = source.slice(operation.left.end_byte()..operation.right.start_byte());
            Edit::new(
                operation.left.start_byte()..operation.right.end_byte(),
                format!(
                    "{}{between}{}",
                    source.of(operation.right),
                    source.of(operation.left)
                ),
            )
        })
        .collect()
}

/// `func_pm_op_break_chains`: a part of a chain is dropped: one side of `and`/`or`,
/// the last term of `a + b + c`, one end of `a < b < c`.
pub fn break_chains(source: &Source, entity: &Entity) -> Vec<Edit> {
    let mut edits = Vec::new();
    each_node_of(source, entity, &mut |node| match node.kind() {
        "boolean_operator" => {
            for side in ["left", "right"] {
                if let Some(kept) = node.child_by_field_name(side) {
                    edits.push(Edit::new(node.byte_range(), source.of(kept)));
                }
            }
        }
        "binary_operator" => {
            if let Some(left) = node.child_by_field_name("left")
                && left.kind() == "binary_operator"
            {
                edits.push(Edit::new(node.byte_range(), source.of(left)));
            }
        }
        "comparison_operator" if node.child_count() >= 5 => {
            let count = node.child_count();
            if let (Some(second), Some(before_last)) = (node.child(2), node.child(count - 3)) {
                let first_end = before_last.end_byte();
                edits.push(Edit::new(
                    node.byte_range(),
                    source.slice(node.start_byte()..first_end),
                ));
                edits.push(Edit::new(
                    node.byte_range(),
                    source.slice(second.start_byte()..node.end_byte()),
                ));
            }
        }
        _ => {}
    });
    edits
}

#[cfg(test)]
mod tests {
    use super::super::testing::body_mutants;

    fn check(modifier: &str, cases: &[(&str, &[&str])]) {
        for (body, expected) in cases {
            assert_eq!(
                &body_mutants(modifier, body),
                expected,
                "{modifier}: {body}"
            );
        }
    }

    #[test]
    fn flips() {
        check(
            "func_pm_flip_operators",
            &[
                ("return a == b", &["return a != b"]),
                ("return a is not None", &["return a is None"]),
                ("return a not  in b", &["return a in b"]),
                ("return a and b", &["return a or b"]),
                ("a += 1", &["a -= 1"]),
                (
                    "return a + b * c",
                    &["return a - b * c", "return a + b // c"],
                ),
                ("return '%s' % a", &[]),
                ("x: int | None = a", &[]),
                ("return '==' + f'{a}'", &[]),
            ],
        );
    }

    #[test]
    fn changes() {
        check(
            "func_pm_op_change",
            &[
                ("return a < b", &["return a <= b", "return a > b"]),
                ("return a // b", &["return a / b", "return a % b"]),
                ("a |= b", &["a &= b"]),
                ("return a == b", &[]),
            ],
        );
    }

    #[test]
    fn swaps() {
        check(
            "func_pm_op_swap",
            &[
                ("return a - b", &["return b - a"]),
                ("return f(a)  <  b[0]", &["return b[0]  <  f(a)"]),
                ("return a in b", &["return b in a"]),
                ("return a * b", &[]),
                ("return 'x' + a", &[]),
            ],
        );
    }

    #[test]
    fn breaks() {
        check(
            "func_pm_op_break_chains",
            &[
                ("return a and not b", &["return a", "return not b"]),
                ("return a + b + c", &["return a + b"]),
                ("return a < b <= c", &["return a < b", "return b <= c"]),
                ("return a + b", &[]),
            ],
        );
    }
}
