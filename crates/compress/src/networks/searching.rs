//! What a person asked for instead of how: a size, or what may be lost. Each weight gets the coding that costs the answers
//! least for the bytes it saves.

use std::collections::BTreeMap;

use serde::Serialize;

use super::coding::{Coding, codable, code};
use super::document::Document;
use super::error::{Listener, NetworkError, Result, tell};
use super::measure::{Answers, Running, Samples, compare, judged};
use crate::progress::Phase;
use crate::trade::{Way, Wish, steps};

/// Codings that are tried, from large to small.
const TRIED: [Coding; 5] =
    [Coding::Float16, Coding::Int8, Coding::Codebook8, Coding::Codebook4, Coding::Codebook2];

/// What coding a weight alone costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    pub tensor: String,
    pub coding: Coding,
    /// Relative difference of the answers.
    pub error: f64,
    pub bytes: usize,
}

/// What was chosen.
pub struct Choice {
    pub codings: BTreeMap<String, Coding>,
    pub sensitivities: Vec<Sensitivity>,
    /// What it loses on the samples that it was chosen by, as in [`Wish::loss_max`].
    pub loss: f64,
    pub document: Document,
}

struct Search<'a> {
    document: &'a Document,
    samples: &'a Samples,
    original: Answers,
}

impl Search<'_> {
    fn coded(&self, codings: &BTreeMap<String, Coding>) -> Result<Document> {
        let mut document = self.document.clone();
        for (name, coding) in codings {
            code(&mut document, name, *coding)?;
        }
        Ok(document)
    }

    /// The relative difference of answers, and what is lost.
    fn cost(&self, document: &Document) -> Result<(f64, f64)> {
        let answers = Running::new(&document.encode())?.answers(self.samples)?;
        let mut figures = judged(&answers, self.samples);
        compare(&mut figures, &answers, &self.original, self.samples);
        let before = judged(&self.original, self.samples);
        let error = figures.relative_error.unwrap_or(f64::INFINITY);
        let loss = match (
            figures.accuracy.zip(before.accuracy),
            figures.mean_squared_error.zip(before.mean_squared_error),
        ) {
            (Some((after, before)), _) => before - after,
            (_, Some((after, before))) => after / before.max(f64::MIN_POSITIVE) - 1.0,
            _ => error,
        };
        // Answers that are no numbers are the worst that there are.
        let or_worst = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
        Ok((or_worst(error), or_worst(loss)))
    }

    fn sensitivities(&self, on: &mut Listener<'_>) -> Result<Vec<Sensitivity>> {
        let mut all = vec![];
        let tensors = codable(self.document);
        let count = tensors.len() * TRIED.len();
        for tensor in tensors {
            for coding in TRIED {
                tell(on, Phase::Choosing, all.len(), count)?;
                let mut document = self.document.clone();
                let change = code(&mut document, &tensor, coding)?;
                let (error, _) = self.cost(&document)?;
                all.push(Sensitivity { tensor: tensor.clone(), coding, error, bytes: change.bytes_after });
            }
        }
        Ok(all)
    }

    /// States from all floats to the fewest bits: each step is the one that adds least squared error for its bytes. Errors of
    /// different weights are taken to be independent.
    fn path(&self, sensitivities: &[Sensitivity]) -> Vec<BTreeMap<String, Coding>> {
        let tensors = codable(self.document);
        // Of each tensor, in the order in which they were tried.
        let tried: Vec<Vec<&Sensitivity>> = tensors
            .iter()
            .map(|tensor| sensitivities.iter().filter(|one| one.tensor == *tensor).collect())
            .collect();
        let ways = |(tensor, tried): (&String, &Vec<&Sensitivity>)| {
            let bytes = self.document.weight(tensor).map_or(0, |weight| weight.bytes());
            let coded = tried.iter().map(|one| Way { bytes: one.bytes, cost: one.error.powi(2) });
            [Way { bytes, cost: 0.0 }].into_iter().chain(coded).collect()
        };
        let parts: Vec<Vec<Way>> = tensors.iter().zip(&tried).map(ways).collect();
        let mut path = vec![BTreeMap::new()];
        for (part, way) in steps(&parts) {
            let mut codings = path[path.len() - 1].clone();
            codings.insert(tensors[part].clone(), tried[part][way - 1].coding);
            path.push(codings);
        }
        path
    }
}

/// Codes the weights of `document` so that the wish is fulfilled, with no fewer bits than that takes, or as few as what may be
/// lost allows where no size is asked for. Answers are compared on `samples`.
///
/// # Errors
/// When nothing, or what can't be, was asked for; the error says what can. When `on` asked to stop.
pub fn search(document: &Document, samples: &Samples, wish: Wish, on: &mut Listener<'_>) -> Result<Choice> {
    let setting = |setting: &'static str, expected: String, received: String| {
        Err(NetworkError::Setting { setting, expected, received })
    };
    if wish == Wish::default() {
        return setting("search", "a size, or what may be lost".to_owned(), "neither".to_owned());
    }
    let original = Running::new(&document.encode())?.answers(samples)?;
    let search = Search { document, samples, original };
    let sensitivities = search.sensitivities(on)?;
    let path = search.path(&sensitivities);
    let place = match wish.bytes_max {
        Some(bytes_max) => {
            // The first state that is small enough: sizes fall along the path.
            let bytes = |at: usize| Ok::<u64, NetworkError>(search.coded(&path[at])?.encode().len() as u64);
            let (mut low, mut high) = (0, path.len());
            while low < high {
                let middle = (low + high) / 2;
                tell(on, Phase::Choosing, middle, path.len())?;
                if bytes(middle)? <= bytes_max { high = middle } else { low = middle + 1 }
            }
            let place = Some(low).filter(|low| *low < path.len());
            let least = bytes(path.len() - 1)?;
            match place {
                Some(place) => place,
                None => {
                    let expected = format!("{least} bytes or more, which is all weights in the fewest bits");
                    return setting("target size", expected, bytes_max.to_string());
                }
            }
        }
        None => {
            // The last state that loses no more, if more bits never lose more; a state is tried before it is taken.
            let allowed = wish.loss_max.unwrap_or(0.0);
            let (mut low, mut high) = (0, path.len());
            while high - low > 1 {
                let middle = (low + high) / 2;
                let (_, loss) = search.cost(&search.coded(&path[middle])?)?;
                if loss <= allowed { low = middle } else { high = middle }
            }
            low
        }
    };
    let document = search.coded(&path[place])?;
    let (_, loss) = search.cost(&document)?;
    if let Some(allowed) = wish.loss_max.filter(|allowed| loss > *allowed) {
        return setting("max loss", format!("{loss:.5} or more at this size"), allowed.to_string());
    }
    Ok(Choice { codings: path[place].clone(), sensitivities, loss, document })
}
