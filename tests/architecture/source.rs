//! Rust source as far as the rules need it: code without comments, strings and tests; its imports, functions and types.
//! Not a parser: it relies on code that compiles and that rustfmt has formatted.

/// A file of the library.
pub struct Source {
    /// Its path below `build/src`, or below the repository for other files.
    pub path: String,
    /// The text as it is.
    pub text: String,
    /// The text with comments, literals and tests replaced by spaces; the lines are the same.
    pub code: String,
}

/// A function with a body.
#[derive(Debug, PartialEq)]
pub struct Function {
    pub name: String,
    /// With `self`.
    pub arguments: usize,
    /// The lines between its braces.
    pub lines: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: without_tests(&without_literals(text)) }
    }

    /// The modules down to this file: `["engine", "fused"]` for `engine/fused/mod.rs`.
    pub fn module(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" { vec![] } else { path.split('/').collect() }
    }

    /// The paths that begin with `crate`, `super`, `self` or, in a `use`, with any other name; from the root of the crate.
    pub fn imports(&self) -> Vec<Vec<String>> {
        let mut found = vec![];
        for (at, word) in words(&self.code) {
            let rest = &self.code[at + word.len()..];
            let before = self.code[..at].trim_end();
            if word == "use"
                && (before.is_empty() || before.ends_with(['{', '}', ';', ']', ')']) || before.ends_with("pub"))
            {
                let tree = rest.split(';').next().unwrap_or_default();
                expand(tree, &[], &mut found);
            } else if matches!(word, "crate" | "super" | "self" | "mnist")
                && rest.starts_with("::")
                && !before.ends_with("::")
            {
                let end = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':')).unwrap_or(rest.len());
                found.push(format!("{word}{}", &rest[..end]).split("::").map(String::from).collect());
            }
        }
        let here = self.module();
        found.into_iter().filter_map(|path| from_root(&here, &path)).collect()
    }

    pub fn functions(&self) -> Vec<Function> {
        words(&self.code)
            .filter(|(_, word)| *word == "fn")
            .filter_map(|(at, _)| function(&self.code[at + 2..]))
            .collect()
    }

    /// The names of structs, enums and traits.
    pub fn types(&self) -> Vec<String> {
        let mut types = vec![];
        let mut declares = false;
        for (_, word) in words(&self.code) {
            if declares {
                types.push(word.to_string());
            }
            declares = matches!(word, "struct" | "enum" | "trait");
        }
        types
    }
}

/// The identifiers and keywords of `code`, each with the byte that it begins at.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at + code[at..].find(inside)?;
        let end = code[begin..].find(|c| !inside(c)).map_or(code.len(), |length| begin + length);
        at = end;
        Some((begin, &code[begin..end]))
    })
}

/// The paths of a `use` tree: `crate::{a, b::{self, C}}` has `crate::a`, `crate::b` and `crate::b::C`.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    for part in split(tree) {
        let (path, group) = part.split_once('{').map_or((part, None), |(path, group)| (path, Some(group)));
        let mut full = prefix.to_vec();
        let path = path.split(" as ").next().unwrap_or_default();
        full.extend(path.split("::").map(|name| name.trim().to_string()).filter(|name| !name.is_empty()));
        match group {
            Some(group) => expand(group.trim_end().trim_end_matches('}'), &full, found),
            None => {
                if full.len() > 1 && full.last().is_some_and(|name| name == "self") {
                    full.pop();
                }
                found.push(full);
            }
        }
    }
}

/// `path`, as written in module `here`, from the root of the crate; none for `Self::f` or other crates that it surely names.
fn from_root(here: &[&str], path: &[String]) -> Option<Vec<String>> {
    let mut full: Vec<String> = here.iter().map(|name| name.to_string()).collect();
    match path.first()?.as_str() {
        "crate" | "mnist" => full.clear(),
        "super" | "self" => {}
        "std" | "core" | "alloc" => return None,
        // A module of this one, or another crate; those that are no file of this crate are sorted out later.
        name => full.push(name.into()),
    }
    if path[0] == "super" {
        full.pop();
    }
    for name in &path[1..] {
        if name == "super" {
            full.pop();
        } else {
            full.push(name.clone());
        }
    }
    Some(full)
}

/// The function whose name `rest` begins with; none without a body, or for the type `fn(..)`.
fn function(rest: &str) -> Option<Function> {
    let (at, name) = words(rest).next().filter(|(at, _)| rest[..*at].trim().is_empty() && *at > 0)?;
    let after = &rest[at + name.len()..];
    let generics = if after.starts_with('<') { closing(after)? + 1 } else { 0 };
    let list = &after[generics..];
    if !list.starts_with('(') {
        return None;
    }
    let end = closing(list)?;
    let arguments = split(&list[1..end]).count();
    let tail = &list[end..];
    let brace = tail.find(['{', ';']).filter(|at| tail[*at..].starts_with('{'))?;
    let body = &tail[brace..];
    let lines = body[..closing(body)?].matches('\n').count().saturating_sub(1);
    Some(Function { name: name.into(), arguments, lines })
}

/// The byte of the bracket that closes the one which `code` begins with.
fn closing(code: &str) -> Option<usize> {
    let mut depth = 0;
    // In a body, `<` and `>` compare.
    let angles = !code.starts_with('{');
    let mut before = ' ';
    for (at, c) in code.char_indices() {
        depth += match c {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            '<' if angles => 1,
            '>' if angles && !matches!(before, '-' | '=') => -1,
            _ => 0,
        };
        before = c;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The parts of `list` between its commas, without those inside of brackets and without empty ones.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut begin, mut before, mut parts) = (0, 0, ' ', vec![]);
    for (at, c) in list.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if !matches!(before, '-' | '=') => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    parts.push(&list[begin..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty())
}

/// `text` with comments and the insides of string and character literals as spaces.
pub fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal(rest, code.chars().last()).unwrap_or(0);
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// The length of the comment or literal that `rest` begins with; `before` is the character before it.
fn literal(rest: &str, before: Option<char>) -> Option<usize> {
    let until = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(until("*/", 2));
    }
    if rest.starts_with('r') && !before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        if rest[1 + hashes..].starts_with('"') {
            return Some(until(&format!("\"{}", "#".repeat(hashes)), hashes + 2));
        }
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    // 'a' and '\n' are characters, 'a is a lifetime.
    let mut chars = rest.chars();
    if chars.next() == Some('\'') {
        let (first, second) = (chars.next()?, chars.next()?);
        return (first == '\\' || second == '\'').then(|| quoted(rest, '\''));
    }
    None
}

/// The length of the literal that begins and ends with `quote`.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// `code` with the items under `#[cfg(test)]` as spaces.
pub fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = [rest.find("#[cfg(test)]"), rest.find("#[cfg(all(test")].into_iter().flatten().min() {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let begin = item.find(['{', ';']).unwrap_or(item.len() - 1);
        let end = if item[begin..].starts_with('{') { begin + closing(&item[begin..]).unwrap_or(0) } else { begin };
        kept.extend(item[..=end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[end + 1..];
    }
    kept + rest
}
