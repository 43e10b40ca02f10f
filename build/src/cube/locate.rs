//! Finds the line of a key in block-style YAML, since the parser does not tell.

/// One step of a path into a YAML document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value of this key.
    Key(String),
    /// The item with this number, from 0.
    Item(usize),
}

/// A line without its indentation, comments and blank lines left out.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// The line (from 1) of what `path` leads to, or of the last step on the way there that has a line of its own; none for
/// an empty path.
pub fn line_of(text: &str, path: &[Step]) -> Option<usize> {
    let lines = text.lines().enumerate().map(|(index, text)| {
        let trimmed = text.trim_start();
        Line { number: index + 1, indent: text.len() - trimmed.len(), text: trimmed }
    });
    let mut block: Vec<Line> = lines
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
fn enter<'a>(block: &[Line<'a>], step: &Step) -> Option<(usize, Vec<Line<'a>>)> {
    let indent = block.first()?.indent;
    let starts = |line: &Line| {
        line.indent == indent && matches!(step, Step::Key(_)) != (line.text == "-" || line.text.starts_with("- "))
    };
    let is_it = |(nth, line): (usize, &Line)| match step {
        Step::Key(key) => key_of(line.text) == Some(key),
        Step::Item(item) => nth == *item,
    };
    let beginnings: Vec<usize> = (0..block.len()).filter(|&at| starts(&block[at])).collect();
    let nth = (0..beginnings.len()).find(|&nth| is_it((nth, &block[beginnings[nth]])))?;
    let end = beginnings.get(nth + 1).copied().unwrap_or(block.len());
    let first = &block[beginnings[nth]];
    let mut inner = Vec::new();
    if let (Step::Item(_), Some(rest)) = (step, first.text.strip_prefix("- ")) {
        let text = rest.trim_start();
        inner.push(Line { number: first.number, indent: first.indent + first.text.len() - text.len(), text });
    }
    let rest = &block[beginnings[nth] + 1..end];
    inner.extend(rest.iter().map(|line| Line { number: line.number, indent: line.indent, text: line.text }));
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
        let step = |part: &&str| part.parse().map_or_else(|_| Step::Key(part.to_string()), Step::Item);
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
    fn what_is_not_there_has_the_line_of_the_last_step_that_is() {
        let text = "tasks:\n  train: { inputs: { a: b } }\n";
        assert_eq!(at(text, &["tasks", "train", "inputs", "a"]), Some(2));
        assert_eq!(at(text, &["tasks", "other"]), Some(1));
        assert_eq!(at(text, &["nothing"]), None);
        assert_eq!(at("", &["a"]), None);
    }
}
