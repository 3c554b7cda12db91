//! Python source as a syntax tree, and the entities (functions and methods) in it.
//!
//! Everything here is a function of the text. Offsets are bytes, lines count from 1.

use std::collections::BTreeMap;
use std::ops::Range;
use tree_sitter::{Node, Parser, Tree};

/// A parsed Python file.
pub struct Source {
    text: String,
    tree: Tree,
}

impl Source {
    /// Parses a file. `None` when the text has a syntax error, or when the grammar
    /// and the parser library do not fit (a defect of the build).
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let mut parser = Parser::new();
        parser
            .set_language(&tree_sitter_python::LANGUAGE.into())
            .ok()?;
        let tree = parser.parse(&text, None)?;
        if tree.root_node().has_error() {
            return None;
        }
        Some(Self { text, tree })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a node.
    pub fn of(&self, node: Node<'_>) -> &str {
        self.text.get(node.byte_range()).unwrap_or("")
    }

    /// The text of a range; empty when the range is not in the text.
    pub fn slice(&self, range: Range<usize>) -> &str {
        self.text.get(range).unwrap_or("")
    }

    /// The root of the tree.
    pub fn root(&self) -> Node<'_> {
        self.tree.root_node()
    }

    /// Start of the line that holds `at`.
    pub fn line_start(&self, at: usize) -> usize {
        self.slice(0..at)
            .rfind('\n')
            .map_or(0, |newline| newline + 1)
    }

    /// End of the line that holds `at`, its newline included.
    pub fn line_end(&self, at: usize) -> usize {
        self.text
            .get(at..)
            .and_then(|rest| rest.find('\n'))
            .map_or(self.text.len(), |newline| at + newline + 1)
    }
}

/// A function or method of a file. Functions nested in it belong to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entity {
    /// Qualified name: `function`, `Class.method`, `Outer.Inner.method`.
    pub name: String,
    /// Name of the enclosing class, qualified; `None` for functions.
    pub class: Option<String>,
    /// Decorators without the `@`, in order.
    pub decorators: Vec<String>,
    /// Bytes from the first decorator (or `def`) to the end of the body.
    pub range: Range<usize>,
    /// Bytes from `def` to the end of the body.
    pub definition: Range<usize>,
    /// Line of the first decorator, or of `def`.
    pub first_line: usize,
    /// Last line of the body.
    pub last_line: usize,
}

impl Entity {
    /// Lines from the first decorator to the end.
    pub fn lines(&self) -> usize {
        self.last_line + 1 - self.first_line
    }

    /// Its `function_definition` node in the source that it was found in.
    pub fn node<'tree>(&self, source: &'tree Source) -> Option<Node<'tree>> {
        let mut node = source
            .root()
            .named_descendant_for_byte_range(self.definition.start, self.definition.end)?;
        while node.kind() != "function_definition" || node.byte_range() != self.definition {
            node = node.parent()?;
        }
        Some(node)
    }
}

/// All entities of a file in order of appearance. Names that occur twice (overloads,
/// property setters, definitions by platform) are left out: a statement that names
/// one of them would not say which.
pub fn entities(source: &Source) -> Vec<Entity> {
    let mut found = Vec::new();
    collect(source, source.root(), &mut Vec::new(), None, &mut found);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entity in &found {
        *counts.entry(entity.name.clone()).or_default() += 1;
    }
    found.retain(|entity| counts.get(&entity.name) == Some(&1));
    found
}

fn collect<'tree>(
    source: &'tree Source,
    node: Node<'tree>,
    classes: &mut Vec<String>,
    decorated: Option<Node<'tree>>,
    found: &mut Vec<Entity>,
) {
    match node.kind() {
        "function_definition" => {
            let Some(name) = node.child_by_field_name("name") else {
                return;
            };
            let outer = decorated.unwrap_or(node);
            let mut cursor = outer.walk();
            let decorators = outer
                .children(&mut cursor)
                .filter(|child| child.kind() == "decorator")
                .map(|child| source.of(child).trim_start_matches('@').trim().to_owned())
                .collect();
            let class = (!classes.is_empty()).then(|| classes.join("."));
            let own = source.of(name);
            found.push(Entity {
                name: class
                    .as_ref()
                    .map_or_else(|| own.to_owned(), |class| format!("{class}.{own}")),
                class,
                decorators,
                range: outer.start_byte()..node.end_byte(),
                definition: node.byte_range(),
                first_line: outer.start_position().row + 1,
                last_line: node.end_position().row + 1,
            });
        }
        "class_definition" => {
            let name = node.child_by_field_name("name").map(|name| source.of(name));
            classes.push(name.unwrap_or("").to_owned());
            each_child(node, |child| collect(source, child, classes, None, found));
            classes.pop();
        }
        "decorated_definition" => {
            if let Some(definition) = node.child_by_field_name("definition") {
                collect(source, definition, classes, Some(node), found);
            }
        }
        _ => each_child(node, |child| collect(source, child, classes, None, found)),
    }
}

/// Calls `visit` with every named child, in order.
pub fn each_child<'tree>(node: Node<'tree>, mut visit: impl FnMut(Node<'tree>)) {
    let mut cursor = node.walk();
    let children: Vec<_> = node.named_children(&mut cursor).collect();
    for child in children {
        visit(child);
    }
}

/// Calls `visit` with `node` and all named nodes below it, parents first. Type
/// annotations and decorators are not entered: a change there is no bug at run time,
/// or one that breaks the whole file.
pub fn each_node<'tree>(node: Node<'tree>, visit: &mut impl FnMut(Node<'tree>)) {
    if matches!(node.kind(), "type" | "decorator") {
        return;
    }
    visit(node);
    each_child(node, |child| each_node(child, visit));
}

/// Calls `visit` with every node of an entity's parameters and body.
pub fn each_node_of<'tree>(
    source: &'tree Source,
    entity: &Entity,
    visit: &mut impl FnMut(Node<'tree>),
) {
    let Some(node) = entity.node(source) else {
        return;
    };
    for field in ["parameters", "body"] {
        if let Some(part) = node.child_by_field_name(field) {
            each_node(part, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
import os

def plain(a, b=1):
    def inner():
        return a
    return inner() + b

class Box:
    @property
    def size(self):
        return self._size

    @size.setter
    def size(self, value):
        self._size = value

    class Lid:
        @staticmethod
        def turn(x):
            return -x

if os.name == 'posix':
    async def only_posix():
        return 1
";

    #[test]
    fn finds_functions_methods_and_leaves_out_doubles() {
        let source = Source::parse(TEXT).unwrap();
        let found = entities(&source);
        let names: Vec<_> = found.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["plain", "Box.Lid.turn", "only_posix"]);
        let turn = found.iter().find(|e| e.name == "Box.Lid.turn").unwrap();
        assert_eq!(turn.class.as_deref(), Some("Box.Lid"));
        assert_eq!(turn.decorators, ["staticmethod"]);
        assert_eq!((turn.first_line, turn.last_line), (18, 20));
        assert_eq!(turn.node(&source).unwrap().kind(), "function_definition");
        let plain = found.first().unwrap();
        assert_eq!((plain.first_line, plain.last_line), (3, 6));
    }

    #[test]
    fn refuses_text_with_errors() {
        assert!(Source::parse("def f(:\n  return").is_none());
    }
}
