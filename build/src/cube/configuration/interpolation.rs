//! `${...}` in a configuration, by the rules of OmegaConf: the value of another key, or of an environment variable.

use std::borrow::Cow;

use serde_yaml::Value;

use super::super::locate::{PathStep, joined, key, shown};
use super::super::schema::{Mismatch, described, scalar};
use super::overrides::DEEPEST_KEYS;
use crate::text::{shortened, suggestion};

/// The most keys that lead to each other.
const DEEPEST: usize = 50;
/// The most bytes that all values may become.
const MOST: usize = 262_144;

/// `document` with the values of all `${...}`.
///
/// # Errors
/// One names a key that is not there, leads to itself, or is none of these.
pub fn resolved(document: &Value) -> Result<Value, Vec<Mismatch>> {
    let mut resolver = Resolver { document, open: vec![], left: Some(MOST), depth: 0 };
    let mut faults = vec![];
    let value = resolver.tree(document, &mut vec![], &mut faults);
    if faults.is_empty() { Ok(value) } else { Err(faults) }
}

/// Whether a `${...}` in `value` may name the key `name` of the document, or what is below it.
pub fn uses(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text.split("${").skip(1).any(|inner| {
            let inner = inner.trim_start_matches([' ', '.']); // points lead up from the text's own place
            let (first, end) = inner.split_at(inner.find(['.', '[', '}', ' ', '$']).unwrap_or(inner.len()));
            // A name with a `${...}` in it may become any.
            first == name || first.is_empty() || end.starts_with('$')
        }),
        Value::Sequence(items) => items.iter().any(|item| uses(item, name)),
        Value::Mapping(values) => values.values().any(|value| uses(value, name)),
        _ => false,
    }
}

/// The value of one `${...}` or of a text with some.
type Found = Result<Value, Mismatch>;

struct Resolver<'a> {
    document: &'a Value,
    /// The texts whose values are being found, from the outermost.
    open: Vec<Vec<PathStep>>,
    /// The bytes that values may still take; none once one has taken more.
    left: Option<usize>,
    /// The nesting: how many values are being found, each for the sake of the one before it.
    depth: usize,
}

impl Resolver<'_> {
    /// The whole document. Each text with a fault leaves it in `faults`.
    fn tree(&mut self, value: &Value, path: &mut Vec<PathStep>, faults: &mut Vec<Mismatch>) -> Value {
        match value {
            Value::Mapping(mapping) => {
                let mut values = serde_yaml::Mapping::new();
                for (name, value) in mapping {
                    path.push(key(&name.as_str().map_or_else(|| described(name), String::from)));
                    values.insert(name.clone(), self.tree(value, path, faults));
                    path.pop();
                }
                values.into()
            }
            Value::Sequence(items) => {
                let mut values = vec![];
                for (nth, item) in items.iter().enumerate() {
                    path.push(PathStep::Item(nth));
                    values.push(self.tree(item, path, faults));
                    path.pop();
                }
                values.into()
            }
            Value::String(text) if self.left.is_some() => self.text(text, path).unwrap_or_else(|fault| {
                faults.push(fault);
                Value::Null
            }),
            other => other.clone(),
        }
    }

    /// A value that another one names.
    fn value(&mut self, value: &Value, path: &[PathStep]) -> Found {
        self.spend(1, path)?;
        match value {
            Value::Mapping(mapping) => self.inside(path, |inside| {
                let named = mapping.iter().map(|(name, value)| {
                    let step = key(&name.as_str().map_or_else(|| described(name), String::from));
                    Ok((name.clone(), inside.value(value, &joined(path, step))?))
                });
                Ok(Value::Mapping(named.collect::<Result<_, Mismatch>>()?))
            }),
            Value::Sequence(items) => self.inside(path, |inside| {
                let items = items.iter().enumerate();
                let values = items.map(|(nth, item)| inside.value(item, &joined(path, PathStep::Item(nth))));
                Ok(Value::Sequence(values.collect::<Result<_, _>>()?))
            }),
            Value::String(text) => self.text(text, path),
            other => Ok(other.clone()),
        }
    }

    /// Finds a value that is inside the one at `path`.
    fn inside(&mut self, path: &[PathStep], find: impl FnOnce(&mut Self) -> Found) -> Found {
        if self.depth == DEEPEST_KEYS {
            return Err(fault(path, &format!("at most {DEEPEST_KEYS} values inside each other"), "more"));
        }
        self.depth += 1;
        let found = find(self);
        self.depth -= 1;
        found
    }

    fn text(&mut self, text: &str, path: &[PathStep]) -> Found {
        if !text.contains("${") {
            self.spend(text.len(), path)?;
            return Ok(text.into());
        }
        if let Some(first) = self.open.iter().position(|open| open == path) {
            return Err(circle(&self.open[first..]));
        }
        if self.open.len() == DEEPEST {
            return Err(fault(path, &format!("a value that {DEEPEST} others lead to at most"), "more"));
        }
        self.open.push(path.to_vec());
        let value = self.expanded(text, path);
        self.open.pop();
        value
    }

    /// A text with `${...}`. One that is nothing else is the value itself, which may be no text.
    fn expanded(&mut self, text: &str, path: &[PathStep]) -> Found {
        let mut done = String::new();
        let mut rest = text;
        while let Some(begin) = rest.find("${") {
            let (before, from) = rest.split_at(begin);
            if let Some(before) = before.strip_suffix('\\') {
                done.extend([before, "${"]);
                rest = &from[2..];
                continue;
            }
            let end = closing(&from[2..]).ok_or_else(|| fault(path, "a } for each ${", &quote(text)))?;
            let (inner, after) = (&from[2..2 + end], &from[3 + end..]);
            let value = self.named(inner, path)?;
            if done.is_empty() && before.is_empty() && after.is_empty() && rest.len() == text.len() {
                return Ok(value);
            }
            let value = scalar(&value).ok_or_else(|| {
                fault(path, &format!("a text or a number for ${{{}}}", shortened(inner)), &described(&value))
            })?;
            self.spend(before.len() + value.len(), path)?;
            done.extend([before, &value]);
            rest = after;
        }
        done.push_str(rest);
        self.spend(rest.len(), path)?;
        Ok(done.into())
    }

    /// The value that `inner` of `${inner}` stands for.
    fn named(&mut self, inner: &str, path: &[PathStep]) -> Found {
        let expanded;
        let inner = if inner.contains("${") {
            let value = self.inside(path, |inside| inside.expanded(inner, path))?;
            expanded = scalar(&value).ok_or_else(|| fault(path, "a name in ${...}", &described(&value)))?;
            expanded.trim()
        } else {
            inner.trim()
        };
        match inner.split_once(':') {
            Some((function, argument)) => environment(function.trim(), argument, path).map(Value::String),
            None => self.looked_up(inner, path),
        }
    }

    /// The value of the key `name`: of the whole document, or with a point in front beside `path`.
    fn looked_up(&mut self, name: &str, path: &[PathStep]) -> Found {
        let below = name.trim_start_matches('.');
        let up = name.len() - below.len();
        let base = if up == 0 { Some(&[][..]) } else { path.len().checked_sub(up).map(|length| &path[..length]) };
        let names = below.replace('[', ".").replace(']', "");
        let names: Vec<&str> = names.split('.').filter(|name| !name.is_empty()).collect();
        let (Some(base), false) = (base, names.is_empty()) else {
            return Err(fault(path, "a key in ${...}", &format!("${{{}}}", shortened(name))));
        };
        let document = self.document;
        let (mut at, mut place) = (Cow::Borrowed(document), vec![]);
        let steps = base.iter().cloned().chain(names.iter().map(|name| key(name)));
        for step in steps {
            if let Value::String(text) = &*at {
                let text = text.clone();
                at = Cow::Owned(self.text(&text, &place)?);
            }
            let next = match &at {
                Cow::Borrowed(value) => child(value, &step).map(Cow::Borrowed),
                Cow::Owned(value) => child(value, &step).cloned().map(Cow::Owned),
            };
            let Some(next) = next else {
                let found = format!("${{{}}}: {}", shortened(name), instead(&at, &step));
                return Err(fault(path, "a key of this file", &found));
            };
            at = next;
            place.push(step);
        }
        match at {
            Cow::Borrowed(value) => self.value(value, &place),
            Cow::Owned(value) => Ok(value),
        }
    }

    fn spend(&mut self, bytes: usize, path: &[PathStep]) -> Result<(), Mismatch> {
        let expected = || fault(path, &format!("values of {MOST} bytes at most, with all ${{...}} put in"), "more");
        self.left = self.left.and_then(|left| left.checked_sub(bytes));
        self.left.map(drop).ok_or_else(expected)
    }
}

fn fault(path: &[PathStep], expected: &str, found: &str) -> Mismatch {
    Mismatch::new(path, expected, found)
}

fn quote(text: &str) -> String {
    format!("{:?}", shortened(text))
}

/// The fault of texts that lead to each other, the same whichever of them is read first.
fn circle(open: &[Vec<PathStep>]) -> Mismatch {
    let mut names: Vec<String> = open.iter().map(|path| shown(path)).collect();
    let first = (0..names.len()).min_by_key(|nth| names[*nth].clone()).unwrap_or_default();
    names.rotate_left(first);
    names.push(names[0].clone());
    fault(&open[first], "a value that does not depend on itself", &names.join(" -> "))
}

/// The place of the `}` that ends `text`, which begins after `${`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' if text[..at].ends_with('$') => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn child<'a>(value: &'a Value, step: &PathStep) -> Option<&'a Value> {
    match (value, step) {
        (Value::Mapping(mapping), PathStep::Key(name)) => {
            let number = || name.parse::<u64>().ok().and_then(|number| mapping.get(Value::from(number)));
            mapping.get(name.as_str()).or_else(number)
        }
        (Value::Sequence(items), PathStep::Key(name)) => items.get(name.parse::<usize>().ok()?),
        (Value::Sequence(items), PathStep::Item(nth)) => items.get(*nth),
        _ => None,
    }
}

/// What there is in place of a key.
fn instead(value: &Value, step: &PathStep) -> String {
    let names: Vec<&str> =
        value.as_mapping().into_iter().flat_map(|mapping| mapping.keys()).filter_map(Value::as_str).collect();
    match step {
        PathStep::Key(name) if !names.is_empty() => suggestion(name, names.iter().copied(), &names),
        _ => format!("there is {}", described(value)),
    }
}

/// The value of an environment variable: `oc.env:NAME` or `oc.env:NAME,DEFAULT`. `env` is the older name.
fn environment(function: &str, argument: &str, path: &[PathStep]) -> Result<String, Mismatch> {
    if !["oc.env", "env"].contains(&function) {
        let found = format!("${{{}:...}}", shortened(function));
        return Err(fault(path, "${KEY}, ${oc.env:NAME} or ${oc.env:NAME,DEFAULT}", &found));
    }
    let (name, default) = argument.split_once(',').map_or((argument, None), |(name, default)| (name, Some(default)));
    let value = std::env::var(name.trim()).ok();
    let default = || default.map(|default| default.trim().trim_matches(['\'', '"']).to_string());
    let missing = || fault(path, &format!("the environment variable {}", shortened(name.trim())), "none");
    value.or_else(default).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, Vec<String>> {
        let document: Value = serde_yaml::from_str(text).unwrap();
        resolved(&document).map_err(|faults| faults.into_iter().map(|fault| fault.problem).collect())
    }

    #[track_caller]
    fn becomes(text: &str, expected: &str) {
        assert_eq!(read(text).unwrap(), serde_yaml::from_str::<Value>(expected).unwrap(), "{text}");
    }

    #[track_caller]
    fn fails(text: &str, problem: &str) {
        assert_eq!(read(text).unwrap_err(), [problem], "{text}");
    }

    #[test]
    fn values_of_other_keys_are_put_in() {
        // By OmegaConf 2.1.0: OmegaConf.to_container(OmegaConf.create(yaml), resolve=True).
        becomes("{name: x, a: '${name}', b: '1${name}2${name}'}", "{name: x, a: x, b: 1x2x}");
        becomes("{a: {b: 5}, c: '${a.b}', d: '${a}', e: 'v${a.b}'}", "{a: {b: 5}, c: 5, d: {b: 5}, e: v5}");
        becomes("{a: [x, y], c: '${a.1}', d: '${a[0]}'}", "{a: [x, y], c: y, d: x}");
        becomes("{a: {b: x, c: '${.b}', d: {e: '${..b}'}}}", "{a: {b: x, c: x, d: {e: x}}}");
        becomes("{a: '${b}', b: '${c}', c: 1}", "{a: 1, b: 1, c: 1}");
        becomes("{a: '${b.c}', b: '${d}', d: {c: 7}}", "{a: 7, b: {c: 7}, d: {c: 7}}");
        becomes("{k: b, a: {b: 1}, c: '${a.${k}}'}", "{k: b, a: {b: 1}, c: 1}");
        becomes("{a: '\\${name}', t: true, n: null, b: '${t}-${n}'}", "{a: '${name}', t: true, n: null, b: True-None}");
        becomes("{a: '${oc.env:NO_SUCH_VARIABLE, x}'}", "{a: x}");
    }

    #[test]
    fn faults_name_the_text_and_what_is_known() {
        fails("{name: x, a: '${nmae}'}", "a: expected a key of this file, found ${nmae}: did you mean name?");
        fails("{b: {image: x}, a: '${b.tag}'}", "a: expected a key of this file, found ${b.tag}: known are image");
        fails("{b: x, a: '${b.c}'}", "a: expected a key of this file, found ${b.c}: there is \"x\"");
        fails("{a: '${b', b: 1}", "a: expected a } for each ${, found \"${b\"");
        fails("{a: '${}'}", "a: expected a key in ${...}, found ${}");
        fails("{a: '${....b}'}", "a: expected a key in ${...}, found ${....b}");
        fails("{a: 'x${b}', b: [1]}", "a: expected a text or a number for ${b}, found a list");
        let functions = "a: expected ${KEY}, ${oc.env:NAME} or ${oc.env:NAME,DEFAULT}, found ${oc.decode:...}";
        fails("{a: '${oc.decode:x}'}", functions);
        fails("{a: '${oc.env:NO_SUCH_VARIABLE}'}", "a: expected the environment variable NO_SUCH_VARIABLE, found none");
    }

    #[test]
    fn a_circle_is_one_fault_and_much_text_is_refused() {
        let circle = "a: expected a value that does not depend on itself, found a -> b -> a";
        assert_eq!(read("{b: 'x${a}', a: '${b}'}").unwrap_err(), [circle, circle]); // shown once
        fails("{a: {b: '${a}'}}", "a.b: expected a value that does not depend on itself, found a.b -> a.b");
        let doubled: String = (0..40).map(|n| format!("a{n}: '${{a{}}}${{a{}}}'\n", n + 1, n + 1)).collect();
        let faults = read(&format!("{doubled}a40: xxxxxxxx\n")).unwrap_err();
        assert!(faults[0].contains("expected values of 262144 bytes at most"), "{faults:?}");
        let nested: String = (0..10).map(|n| format!("a{n}:\n {}'${{a{}}}'\n", "- ".repeat(60), n + 1)).collect();
        let faults = read(&format!("{nested}a10: x\n")).unwrap_err();
        assert!(faults[0].contains("expected at most 500 values inside each other, found more"), "{faults:?}");
        let text = (0..600).fold("a".to_string(), |text, _| format!("${{{text}}}"));
        let document = Value::Mapping([("a".into(), text.into())].into_iter().collect());
        let faults = resolved(&document).unwrap_err();
        assert!(faults[0].problem.contains("expected at most 500 values inside each other"), "{}", faults[0].problem);
        let chain: String = (0..60).map(|n| format!("a{n}: '${{a{}}}'\n", n + 1)).collect();
        let faults = read(&format!("{chain}a60: x\n")).unwrap_err();
        assert!(faults[0].contains("expected a value that 50 others lead to at most"), "{faults:?}");
    }
}
