//! The words of a command line in a file, split as a shell splits them, without a shell.

/// What a shell would act on. A file that means it is refused instead of taken by the letter.
const ACTS: &[char] = &['$', '`', ';', '|', '&', '<', '>', '(', ')', '\n'];

/// The words of `text`: split at blanks, except in quotes and after a backslash. None where a quote has no end, or where a
/// shell would do more than split.
pub fn words(text: &str) -> Option<Vec<String>> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let (quoted, rest) = chars.as_str().split_once('\'')?;
                word.get_or_insert_default().push_str(quoted);
                chars = rest.chars();
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c if "\"\\$`".contains(c) => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        '$' | '`' => return None,
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c if ACTS.contains(&c) => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        // By Python's shlex.split.
        for (text, expected) in [
            ("", vec![]),
            ("  ", vec![]),
            ("python  train.py", vec!["python", "train.py"]),
            ("'' \"\"", vec!["", ""]),
            ("-e A='b c'd \"e \\\"f\\\" \\g\" h\\ i", vec!["-e", "A=b cd", "e \"f\" \\g", "h i"]),
            ("--gpus='\"device=0,1\"'", vec!["--gpus=\"device=0,1\""]),
            ("'$HOME;' \"\\$x;\"", vec!["$HOME;", "$x;"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        for text in ["'a", "\"a", "a\\", "$HOME", "\"$HOME\"", "a; b", "a|b", "`a`", "a && b", "a >b", "$(a)", "a\nb"] {
            assert_eq!(words(text), None, "{text}");
        }
    }
}
