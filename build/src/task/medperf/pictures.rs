//! Raw data as pictures: files of one digit each, and a `labels.csv` that says what they show.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path};

use tracing::{error, warn};

use super::prepared;
use crate::data::idx::MOST_IMAGES;
use crate::data::sets::MNIST;
use crate::error::{Error, MedPerfError, Result};
use crate::interrupt;
use crate::open;
use crate::task::predict;
use crate::text::{Problem, counted, one_of, shortened};
use crate::threads;

/// The file with a line `FILE,LABEL` for each picture, below a line `file,label`.
pub const FILE_NAME: &str = "labels.csv";
const HEADER: &str = "file,label";
/// The longest that is read, in bytes.
const LONGEST: u64 = 1 << 28;
/// The longest path of a picture, in bytes: what an operating system opens, and a message can show.
const LONGEST_PATH: usize = 1024;
/// At most so many unreadable pictures are named.
const MOST_SHOWN: usize = 50;
/// How the names of pictures end.
const ENDS: [&str; 6] = ["png", "jpg", "jpeg", "gif", "bmp", "pgm"];
/// The next step after a fault.
const NEXT: &str = "labels.csv has the first line file,label, and then each picture once: its path below the directory of the \
                    pictures, and its digit";

/// A picture's path below the directory of the data, and its label.
type Labelled = (String, u8);

/// Reads the pictures in `data` that the file `list` names: their pixels (N,D), prepared like MNIST's images, and their
/// labels (N), in the order of the list.
///
/// # Errors
/// The list has a fault, or a picture is not in it, not there or not readable. The first of those that could
/// not be read are named.
pub fn read(data: &Path, list: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let listed = listed(list)?;
    all_are_listed(data, list, &listed)?;
    let prepare = |(file, _): &Labelled| {
        interrupt::check()?;
        predict::read_regular(&data.join(file), MNIST.frame)
    };
    let prepared = threads::side_by_side(threads::most(), listed.iter(), prepare);
    interrupt::check()?;
    let images = listed.len();
    let problems: Vec<&Error> = prepared.iter().filter_map(|picture| picture.as_ref().err()).collect();
    if !problems.is_empty() {
        return Err(unread(&problems, images));
    }
    let doubts =
        || prepared.iter().zip(&listed).filter_map(|(read, (file, _))| Some((file, read.as_ref().ok()?.doubt?)));
    if let Some((file, doubt)) = doubts().next() {
        let doubtful = doubts().count();
        warn!("{doubtful} of {images} pictures are doubtful, the first is {}: {}", shortened(file), doubt.phrase());
    }
    let pixels = prepared.into_iter().flatten().flat_map(|prepared| prepared.image).collect();
    Ok((pixels, listed.into_iter().map(|(_, label)| label).collect()))
}

/// Names the first pictures of `images` that could not be read, by their problems.
fn unread(problems: &[&Error], images: usize) -> Error {
    problems.iter().take(MOST_SHOWN).for_each(|problem| error!("{problem}"));
    let rest = problems.len().saturating_sub(MOST_SHOWN);
    if rest > 0 {
        error!("and {}", counted(rest, "more picture"));
    }
    Error::Pictures { unread: problems.len(), images }
}

/// The pictures that the file at `path` names.
fn listed(path: &Path) -> Result<Vec<Labelled>> {
    let fault = |problem| Error::from(MedPerfError::Fault { path: path.into(), problem, next: NEXT });
    let bytes = open::regular(path).and_then(|file| open::read_at_most(LONGEST, file));
    let bytes = bytes.map_err(Error::io("read", path))?;
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| fault(Problem::of_file("expected a text file in UTF-8 of at most 256 MiB")))?;
    parsed(&text).map_err(fault)
}

/// Every line's picture and label. A path with quotes around it, as spreadsheets write them, is taken without.
fn parsed(text: &str) -> std::result::Result<Vec<Labelled>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let problem = |line, text: String| Problem { line: Some(line), text };
    match lines.next() {
        Some((_, header)) if is_header(header) => {}
        Some((line, found)) => {
            return Err(problem(line, format!("expected the header {HEADER}, found {}", shortened(found))));
        }
        None => return Err(Problem::of_file(format!("expected the header {HEADER}, found an empty file"))),
    }
    let (mut listed, mut lines_of) = (vec![], HashMap::new());
    for (line, row) in lines {
        let at = |text| problem(line, text);
        let (file, label) =
            row.rsplit_once(',').ok_or_else(|| at(format!("expected FILE,LABEL, found {}", shortened(row))))?;
        let (file, label) = (unquoted(file), unquoted(label));
        let known = prepared::classes().iter().position(|class| *class == label);
        let known = known.ok_or_else(|| {
            at(format!("expected the label {}, found {}", one_of(prepared::classes()), shortened(&label)))
        })?;
        let file = below(&file).ok_or_else(|| {
            at(format!("expected a path below the directory of the pictures, found {}", shortened(&file)))
        })?;
        if file.len() > LONGEST_PATH {
            return Err(at(format!("expected a path of at most {LONGEST_PATH} bytes, found {}", file.len())));
        }
        if let Some(before) = lines_of.insert(file.clone(), line) {
            return Err(at(format!("{} is in line {before} already", shortened(&file))));
        }
        listed.push((file, known as u8));
    }
    if listed.is_empty() || listed.len() > MOST_IMAGES as usize {
        return Err(Problem::of_file(format!("expected 1 to {MOST_IMAGES} pictures, found {}", listed.len())));
    }
    Ok(listed)
}

/// Whether this first line is [`HEADER`], with or without quotes.
fn is_header(line: &str) -> bool {
    line.split(',').map(unquoted).collect::<Vec<_>>().join(",").eq_ignore_ascii_case(HEADER)
}

/// The path `file` in its shortest form, so that every picture has one; none if it leads out of its directory or is none.
fn below(file: &str) -> Option<String> {
    let parts = Path::new(file).components().filter(|part| *part != Component::CurDir);
    let names = parts.map(|part| if let Component::Normal(name) = part { name.to_str() } else { None });
    let path = names.collect::<Option<Vec<&str>>>()?.join("/");
    (!path.is_empty()).then_some(path)
}

/// A field without the quotes around it.
fn unquoted(field: &str) -> String {
    let field = field.trim();
    let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(|| field.to_string(), |inner| inner.replace("\"\"", "\""))
}

/// Checks that every picture below `data` has a label.
fn all_are_listed(data: &Path, list: &Path, listed: &[Labelled]) -> Result<()> {
    let labelled: std::collections::HashSet<_> = listed.iter().map(|(file, _)| data.join(file)).collect();
    let mut directories = vec![data.to_path_buf()];
    while let Some(directory) = directories.pop() {
        interrupt::check()?;
        for entry in fs::read_dir(&directory).map_err(Error::io("read the directory", &directory))? {
            let entry = entry.map_err(Error::io("read the directory", &directory))?;
            let path = entry.path();
            let end = path.extension().map(|end| end.to_string_lossy().to_lowercase());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            } else if end.is_some_and(|end| ENDS.contains(&&*end)) && !labelled.contains(&path) {
                let problem =
                    Problem::of_file(format!("expected a line for every picture, found none for {}", path.display()));
                return Err(MedPerfError::Fault { path: list.into(), problem, next: NEXT }.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_people_and_spreadsheets_write_it() {
        let text = "\u{feff}\"File\",\"Label\"\r\na.png,3\r\n\r\n\"with, comma.png\",\"0\"\r\nsub/a \"b\".jpg , 9\r\n";
        let expected = [("a.png", 3), ("with, comma.png", 0), ("sub/a \"b\".jpg", 9)];
        assert_eq!(parsed(text).unwrap(), expected.map(|(file, label)| (file.to_string(), label)));
    }

    #[test]
    fn a_fault_of_a_list_is_named_with_its_line() {
        for (text, expected) in [
            ("", "l.csv: expected the header file,label, found an empty file"),
            ("a.png,3\n", "l.csv:1: expected the header file,label, found a.png,3"),
            ("file,label\n", "l.csv: expected 1 to 6000000 pictures, found 0"),
            ("file,label\na.png\n", "l.csv:2: expected FILE,LABEL, found a.png"),
            ("file,label\na.png,10\n", "l.csv:2: expected the label 0, 1, 2, 3, 4, 5, 6, 7, 8 or 9, found 10"),
            ("file,label\n\n../a,1\n", "l.csv:3: expected a path below the directory of the pictures, found ../a"),
            ("file,label\n/a,1\n", "l.csv:2: expected a path below the directory of the pictures, found /a"),
            ("file,label\n,1\n", "l.csv:2: expected a path below the directory of the pictures, found "),
            ("file,label\n.,1\n", "l.csv:2: expected a path below the directory of the pictures, found ."),
            ("file,label\na,1\nb,1\na,2\n", "l.csv:4: a is in line 2 already"),
            ("file,label\ns/a,1\n./s//./a,2\n", "l.csv:3: s/a is in line 2 already"),
            ("\"file,label\"\na,1\n", "l.csv:1: expected the header file,label, found \"file,label\""),
        ] {
            assert_eq!(parsed(text).unwrap_err().in_file(Path::new("l.csv")), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = parsed(&text);
            let _ = parsed(&format!("file,label\n{text}"));
        }
    }
}
