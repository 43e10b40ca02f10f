//! Paths into a YAML document, and the line that one leads to: the parser reports no lines for values.

use std::collections::HashMap;

use crate::text::shortened;

/// One step of a path into a YAML document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathStep {
    /// The value of this key.
    Key(String),
    /// The item with this number, from 0.
    Item(usize),
}

/// A key as a step.
pub fn key(name: &str) -> PathStep {
    PathStep::Key(name.to_string())
}

/// `path` and one step more.
pub fn joined(path: &[PathStep], step: PathStep) -> Vec<PathStep> {
    [path, &[step]].concat()
}

/// The most steps of a path that a message shows.
const MOST_SHOWN: usize = 20;

/// A path as messages show it: `inputs[1].type`. Of a very long one its beginning.
pub fn shown(path: &[PathStep]) -> String {
    let mut text = String::new();
    for step in path.iter().take(MOST_SHOWN) {
        match step {
            PathStep::Key(key) if text.is_empty() => text.push_str(&shortened(key)),
            PathStep::Key(key) => text.extend([".", &shortened(key)]),
            PathStep::Item(nth) => text.push_str(&format!("[{nth}]")),
        }
    }
    text + if path.len() > MOST_SHOWN { "..." } else { "" }
}

/// The lines of the keys and items of a document in block style.
#[derive(Debug)]
pub struct Places {
    /// The node and the line of each step from a node. The document is node 0.
    steps: HashMap<(usize, PathStep), (usize, usize)>,
}

/// A node that a line may belong to.
struct Open {
    node: usize,
    indent: usize,
    is_item: bool,
    /// The number of its items so far.
    items: usize,
}

impl Places {
    /// Reads `text` once, from top to bottom.
    pub fn of(text: &str) -> Self {
        let mut steps = HashMap::new();
        let mut nodes = 1;
        let mut open = vec![];
        let mut root = Open { node: 0, indent: 0, is_item: false, items: 0 };
        for (index, line) in text.lines().enumerate() {
            let mut rest = line.trim_start();
            if rest.is_empty() || rest.starts_with(['#', '%']) || rest == "---" {
                continue;
            }
            let mut indent = line.len() - rest.len();
            loop {
                let inner = if rest == "-" { Some("") } else { rest.strip_prefix("- ") };
                let Some(key) = inner.map(|_| "").or_else(|| key_of(rest)) else { break };
                let is_item = inner.is_some();
                // The items of a key may stand as far left as the key.
                let is_parent = |open: &Open| open.indent < indent || open.indent == indent && is_item && !open.is_item;
                while open.last().is_some_and(|last| !is_parent(last)) {
                    open.pop();
                }
                let parent = open.last_mut().unwrap_or(&mut root);
                let step = if is_item { PathStep::Item(parent.items) } else { PathStep::Key(key.to_string()) };
                parent.items += usize::from(is_item);
                steps.entry((parent.node, step)).or_insert((nodes, index + 1));
                open.push(Open { node: nodes, indent, is_item, items: 0 });
                nodes += 1;
                let Some(inner) = inner else { break };
                indent += rest.len() - inner.trim_start().len();
                rest = inner.trim_start();
            }
        }
        Self { steps }
    }

    /// The line (from 1) that `path` leads to, or the line of the last step that has one of its own. None for an empty
    /// path.
    pub fn line_of(&self, path: &[PathStep]) -> Option<usize> {
        let mut at = (0, None);
        for step in path {
            let Some((node, line)) = self.steps.get(&(at.0, step.clone())) else { break };
            at = (*node, Some(*line));
        }
        at.1
    }
}

fn key_of(text: &str) -> Option<&str> {
    let (key, rest) = text.split_once(':')?;
    let unquoted = key.trim_matches(['"', '\'']);
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some(unquoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &[&str]) -> Option<usize> {
        let step = |part: &&str| part.parse().map_or_else(|_| PathStep::Key(part.to_string()), PathStep::Item);
        Places::of(text).line_of(&path.iter().map(step).collect::<Vec<_>>())
    }

    #[test]
    fn keys_and_items_are_found_in_nested_blocks() {
        let text = "# a comment\nname: x\n\ninputs:\n  - name: a\n    type: file\n  - name: b\n    type: file\nmore:\n\
                    - first\n- second\n\"quoted\": 1\n";
        assert_eq!(at(text, &["name"]), Some(2));
        assert_eq!(at(text, &["inputs", "1", "type"]), Some(8));
        assert_eq!(at(text, &["inputs", "0"]), Some(5));
        assert_eq!(at(text, &["more", "1"]), Some(11));
        assert_eq!(at(text, &["quoted"]), Some(12));
    }

    #[test]
    fn a_missing_key_has_the_line_of_the_last_step_that_exists() {
        let text = "tasks:\n  train: { inputs: { a: b } }\n";
        assert_eq!(at(text, &["tasks", "train", "inputs", "a"]), Some(2));
        assert_eq!(at(text, &["tasks", "other"]), Some(1));
        assert_eq!(at(text, &["nothing"]), None);
        assert_eq!(at("", &["a"]), None);
    }
}
