//! Paths into a YAML document, and the line that one leads to: the parser reports no lines for values.

/// One step of a path into a YAML document.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A path as messages show it: `inputs[1].type`.
pub fn shown(path: &[PathStep]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            PathStep::Key(key) if text.is_empty() => text.push_str(key),
            PathStep::Key(key) => text.extend([".", key]),
            PathStep::Item(nth) => text.push_str(&format!("[{nth}]")),
        }
    }
    text
}

/// A line that is neither blank nor a comment, without its indentation.
struct SourceLine<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// The line (from 1) that `path` leads to in block-style YAML, or the line of the last step that has one of its own.
/// None for an empty path.
pub fn line_of(text: &str, path: &[PathStep]) -> Option<usize> {
    let lines = text.lines().enumerate().map(|(index, text)| {
        let trimmed = text.trim_start();
        SourceLine { number: index + 1, indent: text.len() - trimmed.len(), text: trimmed }
    });
    let mut block: Vec<SourceLine> = lines
        .filter(|line| !line.text.is_empty() && !line.text.starts_with(['#', '%']) && line.text != "---")
        .collect();
    let mut found = None;
    for step in path {
        let Some((number, inner)) = enter(&block, step) else { break };
        (found, block) = (Some(number), inner);
    }
    found
}

/// The line of `step` in `block`, and the lines of its value.
fn enter<'a>(block: &[SourceLine<'a>], step: &PathStep) -> Option<(usize, Vec<SourceLine<'a>>)> {
    let indent = block.first()?.indent;
    let starts = |line: &SourceLine| {
        line.indent == indent && matches!(step, PathStep::Key(_)) != (line.text == "-" || line.text.starts_with("- "))
    };
    let is_it = |(nth, line): (usize, &SourceLine)| match step {
        PathStep::Key(key) => key_of(line.text) == Some(key),
        PathStep::Item(item) => nth == *item,
    };
    let beginnings: Vec<usize> = (0..block.len()).filter(|&at| starts(&block[at])).collect();
    let nth = (0..beginnings.len()).find(|&nth| is_it((nth, &block[beginnings[nth]])))?;
    let end = beginnings.get(nth + 1).copied().unwrap_or(block.len());
    let first = &block[beginnings[nth]];
    let mut inner = Vec::new();
    if let (PathStep::Item(_), Some(rest)) = (step, first.text.strip_prefix("- ")) {
        let text = rest.trim_start();
        inner.push(SourceLine { number: first.number, indent: first.indent + first.text.len() - text.len(), text });
    }
    let rest = &block[beginnings[nth] + 1..end];
    inner.extend(rest.iter().map(|line| SourceLine { number: line.number, indent: line.indent, text: line.text }));
    Some((first.number, inner))
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
        line_of(text, &path.iter().map(step).collect::<Vec<_>>())
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
