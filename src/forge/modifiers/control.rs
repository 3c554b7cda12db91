//! Modifiers of control flow: branches inverted, statements out of order.

use super::super::edit::Edit;
use super::super::syntax::{Entity, Source, each_node_of};
use super::lines::{own_lines, statements};
use tree_sitter::Node;

/// `func_pm_ctrl_invert_if`: the branches of an `if` change places. For `if c: …`
/// and for conditional expressions that is one line; for `if`/`else` both the
/// negated condition (one line) and the swapped bodies are candidates.
pub fn invert_if(source: &Source, entity: &Entity) -> Vec<Edit> {
    let mut edits = Vec::new();
    each_node_of(source, entity, &mut |node| match node.kind() {
        "if_statement" => {
            edits.extend(negated(source, node));
            edits.extend(swapped_bodies(source, node));
        }
        // A loop's condition stays: negated, it is an endless loop more often than a bug.
        "elif_clause" => edits.extend(negated(source, node)),
        "conditional_expression" => edits.extend(swapped_values(source, node)),
        _ => {}
    });
    edits
}

/// The condition of a statement, negated.
fn negated(source: &Source, node: Node<'_>) -> Option<Edit> {
    let condition = node.child_by_field_name("condition")?;
    let text = source.of(condition);
    let replacement = match condition.kind() {
        "not_operator" => source
            .of(condition.child_by_field_name("argument")?)
            .to_owned(),
        // These bind weaker than `not`.
        "boolean_operator" | "conditional_expression" | "lambda" | "named_expression" => {
            format!("not ({text})")
        }
        _ => format!("not {text}"),
    };
    Some(Edit::new(condition.byte_range(), replacement))
}

/// `if`/`else` without `elif`: the two bodies change places.
fn swapped_bodies(source: &Source, node: Node<'_>) -> Option<Edit> {
    let mut cursor = node.walk();
    let alternatives: Vec<_> = node
        .children_by_field_name("alternative", &mut cursor)
        .collect();
    let [alternative] = alternatives.as_slice() else {
        return None;
    };
    if alternative.kind() != "else_clause" {
        return None;
    }
    let yes = node.child_by_field_name("consequence")?;
    let no = alternative.child_by_field_name("body")?;
    let between = source.slice(yes.end_byte()..no.start_byte());
    Some(Edit::new(
        yes.start_byte()..no.end_byte(),
        format!("{}{between}{}", source.of(no), source.of(yes)),
    ))
}

/// `a if c else b` becomes `b if c else a`.
fn swapped_values(source: &Source, node: Node<'_>) -> Option<Edit> {
    let (yes, no) = (node.named_child(0)?, node.named_child(2)?);
    // A conditional or a lambda on the left would swallow the rest.
    if matches!(no.kind(), "conditional_expression" | "lambda") {
        return None;
    }
    let between = source.slice(yes.end_byte()..no.start_byte());
    Some(Edit::new(
        yes.start_byte()..no.end_byte(),
        format!("{}{between}{}", source.of(no), source.of(yes)),
    ))
}

/// `func_pm_ctrl_shuffle`: two neighbouring statements change places.
pub fn shuffle(source: &Source, entity: &Entity) -> Vec<Edit> {
    let mut edits = Vec::new();
    each_node_of(source, entity, &mut |node| {
        if node.kind() != "block" {
            return;
        }
        for pair in statements(node).windows(2) {
            if let [first, second] = pair
                && movable(*first)
                && movable(*second)
                && let (Some(above), Some(below)) =
                    (own_lines(source, *first), own_lines(source, *second))
            {
                let between = source.slice(above.end..below.start);
                // A file that ends without a newline must not glue two lines.
                let last = source.slice(below.clone());
                if !last.ends_with('\n') {
                    continue;
                }
                edits.push(Edit::new(
                    above.start..below.end,
                    format!("{last}{between}{}", source.slice(above)),
                ));
            }
        }
    });
    edits
}

/// Whether moving a statement changes what happens rather than how it reads:
/// documentation, imports, nested definitions and jumps stay where they are.
fn movable(node: Node<'_>) -> bool {
    match node.kind() {
        "expression_statement" => node
            .named_child(0)
            .is_some_and(|inner| inner.kind() != "string"),
        "if_statement" | "for_statement" | "while_statement" | "try_statement"
        | "with_statement" | "delete_statement" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{body_mutants, mutants};

    #[test]
    fn inverts() {
        let text = "def f(a, b):\n    if a and b:\n        return 1\n    else:\n        a = 2\n        return a\n";
        assert_eq!(
            mutants("func_pm_ctrl_invert_if", text),
            [
                "def f(a, b):\n    if not (a and b):\n        return 1\n    else:\n        a = 2\n        return a\n",
                "def f(a, b):\n    if a and b:\n        a = 2\n        return a\n    else:\n        return 1\n",
            ]
        );
        let text =
            "def f(a):\n    if not a:\n        return 1\n    elif a == 2:\n        return 3\n";
        assert_eq!(
            mutants("func_pm_ctrl_invert_if", text),
            [
                "def f(a):\n    if a:\n        return 1\n    elif a == 2:\n        return 3\n",
                "def f(a):\n    if not a:\n        return 1\n    elif not a == 2:\n        return 3\n",
            ]
        );
        assert_eq!(
            body_mutants("func_pm_ctrl_invert_if", "return a if b else c"),
            ["return c if b else a"]
        );
    }

    #[test]
    fn shuffles_neighbours() {
        let text =
            "def f(a):\n    \"\"\"Doc.\"\"\"\n    x = 1\n    # note\n    x += a\n    return x\n";
        assert_eq!(
            mutants("func_pm_ctrl_shuffle", text),
            ["def f(a):\n    \"\"\"Doc.\"\"\"\n    x += a\n    # note\n    x = 1\n    return x\n"]
        );
    }
}
