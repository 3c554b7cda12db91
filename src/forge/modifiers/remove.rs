//! Modifiers that remove: conditions, loops, assignments, `try` and `with` wrappers.

use super::super::edit::Edit;
use super::super::syntax::{Entity, Source, each_node, each_node_of};
use super::lines::{dedent, indentation, own_lines, remainder};
use tree_sitter::Node;

/// One edit for each statement that `wanted` picks: the statement goes.
fn cut_statements(
    source: &Source,
    entity: &Entity,
    wanted: impl Fn(Node<'_>) -> bool,
) -> Vec<Edit> {
    let mut edits = Vec::new();
    each_node_of(source, entity, &mut |node| {
        if wanted(node)
            && let Some(lines) = own_lines(source, node)
            && let Some(rest) = remainder(source, node)
        {
            edits.push(Edit::new(lines, rest));
        }
    });
    edits
}

/// `func_pm_remove_cond`: an `if` statement with all its branches.
pub fn cond(source: &Source, entity: &Entity) -> Vec<Edit> {
    cut_statements(source, entity, |node| node.kind() == "if_statement")
}

/// `func_pm_remove_loop`: a `for` or `while` statement.
pub fn loops(source: &Source, entity: &Entity) -> Vec<Edit> {
    cut_statements(source, entity, |node| {
        matches!(node.kind(), "for_statement" | "while_statement")
    })
}

/// `func_pm_remove_assign`: an assignment.
pub fn assign(source: &Source, entity: &Entity) -> Vec<Edit> {
    cut_statements(source, entity, |node| {
        node.kind() == "expression_statement"
            && node.named_child_count() == 1
            && node
                .named_child(0)
                .is_some_and(|inner| matches!(inner.kind(), "assignment" | "augmented_assignment"))
    })
}

/// `func_pm_remove_wrapper`: a `try` or `with` statement is replaced by its body.
pub fn wrapper(source: &Source, entity: &Entity) -> Vec<Edit> {
    let mut edits = Vec::new();
    each_node_of(source, entity, &mut |node| {
        if matches!(node.kind(), "try_statement" | "with_statement")
            && let Some(edit) = unwrap_statement(source, node)
        {
            edits.push(edit);
        }
    });
    edits
}

fn unwrap_statement(source: &Source, node: Node<'_>) -> Option<Edit> {
    let body = node.child_by_field_name("body")?;
    let first = body.named_child(0)?;
    // `with x: y` on one line has no lines of its own to keep.
    if first.start_position().row == node.start_position().row {
        return None;
    }
    let mut many_line_text = false;
    each_node(body, &mut |inner| {
        many_line_text |=
            inner.kind() == "string" && inner.start_position().row != inner.end_position().row;
    });
    if many_line_text {
        return None;
    }
    let lines = own_lines(source, node)?;
    let start = source.line_start(first.start_byte());
    let last = body.start_byte() + source.of(body).trim_end().len();
    let kept = source.slice(start..source.line_end(last));
    let kept = dedent(kept, indentation(source, first), indentation(source, node))?;
    Some(Edit::new(lines, kept))
}

#[cfg(test)]
mod tests {
    use super::super::testing::mutants;

    #[test]
    fn conditions_go_with_their_branches() {
        let text = "def f(a):\n    x = 1\n    if a:  # why\n        x = 2\n    else:\n        if x:\n            x = 3\n    return x\n";
        assert_eq!(
            mutants("func_pm_remove_cond", text),
            [
                "def f(a):\n    x = 1\n    return x\n",
                "def f(a):\n    x = 1\n    if a:  # why\n        x = 2\n    else:\n        pass\n    return x\n",
            ]
        );
    }

    #[test]
    fn loops_go() {
        let text = "def f(a):\n    for x in a:\n        print(x)\n    while a: a = 0\n";
        assert_eq!(
            mutants("func_pm_remove_loop", text),
            [
                "def f(a):\n    while a: a = 0\n",
                "def f(a):\n    for x in a:\n        print(x)\n",
            ]
        );
    }

    #[test]
    fn assignments_go_and_shared_lines_stay() {
        let text = "def f(a):\n    x = a\n    x += 1; y = 2\n    return x\n";
        assert_eq!(
            mutants("func_pm_remove_assign", text),
            ["def f(a):\n    x += 1; y = 2\n    return x\n"]
        );
        assert_eq!(
            mutants("func_pm_remove_assign", "def f(a):\n    a.x = 1\n"),
            ["def f(a):\n    pass\n"]
        );
    }

    #[test]
    fn wrappers_leave_their_body() {
        let text = "def f(a):\n    try:\n        x = 1\n\n        return x\n    except ValueError:\n        return 2\n    finally:\n        a()\n";
        assert_eq!(
            mutants("func_pm_remove_wrapper", text),
            ["def f(a):\n    x = 1\n\n    return x\n"]
        );
        let with =
            "def f(a):\n    with a as b, c:\n        if b:\n            return 1\n    return 2\n";
        assert_eq!(
            mutants("func_pm_remove_wrapper", with),
            ["def f(a):\n    if b:\n        return 1\n    return 2\n"]
        );
        let text = "def f(a):\n    with a:\n        return '''x\n  y'''\n";
        assert!(mutants("func_pm_remove_wrapper", text).is_empty());
    }
}
