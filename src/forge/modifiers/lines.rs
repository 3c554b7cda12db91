//! Cutting whole statements out of a block without touching their neighbours.

use super::super::syntax::Source;
use std::ops::Range;
use tree_sitter::Node;

/// The whole lines that a statement stands on, when nothing else stands on them
/// (comments after it are its own); `None` for `a; b` and for `if x: y`.
pub fn own_lines(source: &Source, node: Node<'_>) -> Option<Range<usize>> {
    let start = source.line_start(node.start_byte());
    // A block's last statement may end with the newline itself.
    let text = source.of(node);
    let content_end = node.start_byte() + text.trim_end().len();
    let end = source.line_end(content_end);
    let before = source.slice(start..node.start_byte());
    let after = source.slice(content_end..end).trim();
    (before.trim().is_empty() && (after.is_empty() || after.starts_with('#'))).then_some(start..end)
}

/// The white space before a statement on its line.
pub fn indentation<'text>(source: &'text Source, node: Node<'_>) -> &'text str {
    source.slice(source.line_start(node.start_byte())..node.start_byte())
}

/// Statements of a block, comments left out.
pub fn statements<'tree>(block: Node<'tree>) -> Vec<Node<'tree>> {
    let mut cursor = block.walk();
    block
        .named_children(&mut cursor)
        .filter(|child| child.kind() != "comment")
        .collect()
}

/// What is left when a statement is cut from its block: nothing, or `pass` when it
/// was the only one.
pub fn remainder(source: &Source, node: Node<'_>) -> Option<String> {
    let block = node.parent().filter(|parent| parent.kind() == "block")?;
    let alone = statements(block).len() == 1;
    Some(if alone {
        format!("{}pass\n", indentation(source, node))
    } else {
        String::new()
    })
}

/// Lines moved left by the difference of two indentations; `None` when a line is not
/// indented by at least that much (a continued string, a comment at the margin).
pub fn dedent(lines: &str, from: &str, to: &str) -> Option<String> {
    let mut out = String::with_capacity(lines.len());
    for line in lines.split_inclusive('\n') {
        if line.trim().is_empty() {
            out.push_str(line);
        } else {
            out.push_str(to);
            out.push_str(line.strip_prefix(from)?);
        }
    }
    Some(out)
}
