//! The classes one by one: how many images of each were read wrong, and examples of both.

use serde::Serialize;

use super::images::{self, Mistaken};
use super::{percent, rate};
use crate::data::dataset::Images;
use crate::score::{Classification, Score};
use crate::text::grouped;

/// How many mistakes are shown of each class.
const MISTAKES: usize = 4;

/// A class as the page shows it.
#[derive(Serialize)]
pub struct Digit {
    name: &'static str,
    images: String,
    wrong: String,
    /// The share of its images that were read wrong, as text.
    error: String,
    /// The same as a share of that of the worst class, from 0 to 1.
    bar: f64,
    precision: String,
    examples: Vec<Example>,
}

/// An image with the answer that it got.
#[derive(Serialize)]
struct Example {
    index: usize,
    image: String,
    right: bool,
    said: &'static str,
    confidence: String,
}

/// All classes of `score`, with examples from its images, which got these `answers` (N). `mistaken` are the mistakes, the worst
/// first.
pub fn all(score: &Score, answers: &[Classification], mistaken: &[Mistaken], images: &Images) -> Vec<Digit> {
    let error = |class: usize| score.recall(class).map_or(0.0, |recall| 1.0 - recall);
    let most = (0..score.classes()).map(error).fold(0.0, f64::max);
    let right = surest_and_least_sure(answers, images, score.classes());
    let digit = |(class, ends): (usize, &Option<[RightAnswer; 2]>)| {
        let of_class: u32 = score.confusion[class].iter().sum();
        Digit {
            name: images.classes[class],
            images: grouped(of_class as usize),
            wrong: grouped((of_class - score.confusion[class][class]) as usize),
            error: score.recall(class).map_or("–".into(), |recall| percent(1.0 - recall)),
            bar: if most > 0.0 { error(class) / most } else { 0.0 },
            precision: rate(score.precision(class)),
            examples: examples(class, ends.as_ref(), mistaken, images),
        }
    };
    right.iter().enumerate().map(digit).collect()
}

fn examples(class: usize, right: Option<&[RightAnswer; 2]>, mistaken: &[Mistaken], images: &Images) -> Vec<Example> {
    let example = |index: usize, said: usize, confidence: f64| Example {
        index,
        image: images::png(images.image(index), images.side),
        right: said == class,
        said: images.classes[said],
        confidence: rate(Some(confidence)),
    };
    let ends = right.into_iter().flatten().map(|answer| example(answer.index, class, answer.confidence));
    let of_class = mistaken.iter().filter(|mistake| usize::from(images.labels[mistake.index]) == class);
    let wrong =
        of_class.take(MISTAKES).map(|Mistaken { index, answer }| example(*index, answer.class, answer.confidence()));
    ends.chain(wrong).collect()
}

/// A right answer.
#[derive(Clone, Copy)]
struct RightAnswer {
    index: usize,
    confidence: f64,
}

/// Of each class the right answers with the most and the least confidence; none without a right answer.
fn surest_and_least_sure(answers: &[Classification], images: &Images, classes: usize) -> Vec<Option<[RightAnswer; 2]>> {
    let mut ends: Vec<Option<[RightAnswer; 2]>> = vec![None; classes];
    for (index, (answer, &label)) in answers.iter().zip(&images.labels).enumerate() {
        let class = usize::from(label);
        if answer.class != class {
            continue;
        }
        let answer = RightAnswer { index, confidence: answer.confidence() };
        let [surest, least] = ends[class].get_or_insert([answer; 2]);
        if answer.confidence > surest.confidence {
            *surest = answer;
        }
        if answer.confidence < least.confidence {
            *least = answer;
        }
    }
    ends
}
