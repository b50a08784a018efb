//! What a person asked for instead of types: a size, or what may be lost. Each matrix gets the type that costs the answers
//! least for the bytes it saves.
//!
//! A matrix's cost is `s · e²`: `e²` is the error of what it gives, relative and weighed by importance, of some of its rows
//! rounded to each type; `s` says how far an answer is off for that, and is measured: all matrices of one role, and all of
//! a tenth of the layers, are rounded coarsely in turn, and both models read a part of the text. Costs of several matrices
//! are taken to add up, which holds as long as they are small.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use formats::to_gguf::GgufTensor;
use kernels::attention::KvElement;
use kernels::compute::Compute;
use kernels::elements::{ElementType, dequantize, quantize};
use serde::Serialize;

use crate::error::CompressError;
use crate::importance::Importance;
use crate::measure::divergence;
use crate::mix::{Types, fitting, is_matrix, layer_and_role};
use crate::progress::{Phase, Progress};
use crate::rewrite::{Changes, bytes_after, rewrite};
use crate::sequence::{Reader, spread};
use crate::source::Source;
use crate::trade::{Way, Wish, steps};

/// Types that are tried, the largest first.
const TRIED: [ElementType; 7] = {
    use ElementType::*;
    [F16, Q8_0, Q6_K, Q5_K, Q4_K, Q3_K, Q2_K]
};
/// What a group is rounded to when its sensitivity is measured: its error is large enough to be seen, and small enough to
/// tell of smaller ones.
const COARSE: ElementType = ElementType::Q3_K;
/// Elements of a matrix whose errors are looked at.
const SAMPLED_ELEMENTS: usize = 1 << 17;
/// Groups of layers.
const BANDS: usize = 10;
/// Windows on which a group's sensitivity is measured, and on which a model is judged.
const SENSED_WINDOWS: usize = 2;
const JUDGED_WINDOWS: usize = 8;
/// Models that are made and judged to find one that loses no more than is allowed.
const JUDGED_MAX: usize = 8;
/// A group counts at least so many nats: a text doesn't show all that a model is asked.
const DIVERGENCE_MIN: f64 = 1e-6;

/// What the choice goes by.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub wish: Wish,
    /// For the model to read.
    pub text: &'a str,
    /// What the new file is to be besides: see [`Changes`].
    pub importance: Option<&'a Importance>,
    pub kv_element: Option<KvElement>,
}

impl<'a> Asked<'a> {
    fn changes(&self, types: Types<'a>) -> Changes<'a> {
        Changes { importance: self.importance, kv_element: self.kv_element, ..Changes::new(types) }
    }
}

/// What rounding one group coarsely does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// A role, as `ffn_down`, or layers, as `layers 3 to 5`.
    pub group: String,
    pub matrices: usize,
    /// From the original, in nats a token.
    pub divergence: f64,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// By the source's names; those of the new file are in a report's table.
    #[serde(skip)]
    pub types: BTreeMap<String, ElementType>,
    /// What was asked for.
    pub wish: Wish,
    pub sensitivities: Vec<Sensitivity>,
    /// On the windows that it was chosen by, in nats a token.
    pub loss: f64,
}

/// Chooses types for the model of `source` at `path`, by what it does with a text. Models are tried in `folder`. `progress`
/// hears how many of how many were, and may ask to stop.
///
/// # Errors
/// What can't be had was asked for; a model that can't be read or run, a text that is too short; the disk.
pub fn choose(
    (path, source): (&Path, &Source),
    compute: &Arc<Compute>,
    asked: &Asked<'_>,
    folder: &Path,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Choice, CompressError> {
    let parts = source.parts()?;
    let tensors = source.tensors(&parts)?;
    let matrices = matrices(&tensors, compute, asked.importance);
    let groups = groups(&matrices);
    let wish = asked.wish;
    let all = groups.len() + if wish.bytes_max.is_none() { JUDGED_MAX } else { 1 };
    let original = Reader::open(path, compute)?;
    let tokens = original.tokens(asked.text)?;
    let trial = folder.join("trial.gguf");
    let mut trials = Trials { source, compute, asked, original, trial, progress, done: 0, all };
    let mut sensitivities = Vec::with_capacity(groups.len());
    for (group, members) in &groups {
        let mut ways = vec![0; matrices.len()];
        members.iter().for_each(|at| ways[*at] = matrices[*at].coarse());
        let divergence = trials.run(&named(&matrices, &ways), &spread(&tokens, SENSED_WINDOWS))?;
        sensitivities.push(Sensitivity { group: group.clone(), matrices: members.len(), divergence });
    }
    let ladder = Ladder::new(&matrices, &groups, &sensitivities);
    let judged = spread(&tokens, JUDGED_WINDOWS);
    let size = |ways: &[usize]| bytes_after(source, &asked.changes(Types::Each(&named(&matrices, ways))));
    let mut judge = |ways: &[usize]| trials.run(&named(&matrices, ways), &judged);
    let (ways, loss) = match (wish.bytes_max, wish.loss_max) {
        (Some(bytes_max), _) => {
            let alignment = parts.first().map_or(0, |first| first.alignment);
            let ways = ladder.within_bytes(bytes_max, alignment, size)?;
            let loss = judge(&ways)?;
            (ways, loss)
        }
        (None, loss_max) => ladder.within_loss(loss_max.unwrap_or(0.0), judge)?,
    };
    let types = named(&matrices, &ways);
    if let Some(most) = wish.loss_max.filter(|most| loss > *most) {
        let least = format!("at this size it is {loss:.4} nats a token");
        return Err(CompressError::Wish { option: "max-loss", asked: most.to_string(), least });
    }
    Ok(Choice { types, wish, sensitivities, loss })
}

/// Whether a size can be had at all, by the shapes of what is there.
///
/// # Errors
/// It can't: what can.
pub fn check_size(
    source: &Source,
    bytes_max: u64,
    kv_element: Option<KvElement>,
) -> Result<(), CompressError> {
    let parts = source.parts()?;
    let tensors = source.tensors(&parts)?;
    let smallest = |tensor: &&GgufTensor<'_>| {
        let elements: usize = tensor.shape.iter().product();
        let types = TRIED.map(|to| fitting(to, tensor.shape.last().copied().unwrap_or(1)));
        let bytes = |to: &ElementType| to.row_bytes(elements).unwrap_or(usize::MAX);
        let least = types.into_iter().min_by_key(bytes)?;
        (bytes(&least) < tensor.bytes_len()).then(|| (tensor.source.to_owned(), least))
    };
    let types = tensors.iter().filter(is_choosable).filter_map(|tensor| smallest(&tensor)).collect();
    let changes = Changes { kv_element, ..Changes::new(Types::Each(&types)) };
    match bytes_after(source, &changes)? {
        least if least > bytes_max => Err(too_small(bytes_max, least)),
        _ => Ok(()),
    }
}

fn too_small(bytes_max: u64, least: u64) -> CompressError {
    let least = format!("with all weights in the fewest bits it has {least} bytes");
    CompressError::Wish { option: "target-size", asked: bytes_max.to_string(), least }
}

fn is_choosable(tensor: &&GgufTensor<'_>) -> bool {
    tensor.shape.len() > 1 && is_matrix(&tensor.name) && !tensor.shape.contains(&0)
}

/// A matrix, and what it can become.
struct Matrix<'a> {
    /// In the source.
    name: &'a str,
    role: String,
    layer: Option<usize>,
    /// What it is, then the smaller ones, by size.
    types: Vec<ElementType>,
    /// Of each type: bytes, and the relative squared error of what the matrix gives.
    ways: Vec<Way>,
}

impl Matrix<'_> {
    /// The way of the coarse type; where that isn't smaller than what the matrix is, the last.
    fn coarse(&self) -> usize {
        let found = self.types.iter().skip(1).position(|one| *one == COARSE);
        found.map_or(self.types.len() - 1, |at| at + 1)
    }
}

fn matrices<'t>(
    tensors: &'t [GgufTensor<'_>],
    compute: &Compute,
    importance: Option<&Importance>,
) -> Vec<Matrix<'t>> {
    let chosen: Vec<&GgufTensor<'_>> = tensors.iter().filter(is_choosable).collect();
    let found: Vec<Mutex<Option<Matrix<'_>>>> = chosen.iter().map(|_| Mutex::new(None)).collect();
    compute.pool().for_each(chosen.len(), |at| {
        let weights = importance.and_then(|found| found.of(chosen[at].source, &chosen[at].shape));
        *found[at].lock().unwrap_or_else(PoisonError::into_inner) =
            Some(matrix(chosen[at], compute, weights));
    });
    found.into_iter().filter_map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

fn matrix<'t>(tensor: &'t GgufTensor<'_>, compute: &Compute, importance: Option<&[f32]>) -> Matrix<'t> {
    let (layer, role) = layer_and_role(&tensor.name);
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let values = some_rows(tensor, columns);
    let elements: usize = tensor.shape.iter().product();
    let mut types = vec![tensor.element_type];
    let mut ways = vec![Way { bytes: tensor.bytes_len(), cost: 0.0 }];
    for to in TRIED.map(|wanted| fitting(wanted, columns)) {
        let smaller = to.row_bytes(elements).filter(|bytes| ways.iter().all(|way| *bytes < way.bytes));
        let (Some(bytes), Some(row)) = (smaller, to.row_bytes(columns)) else { continue };
        let mut packed = vec![0; values.len() / columns * row];
        quantize(compute.isa(), to, &values, columns, importance, &mut packed);
        let mut back = vec![0.0; values.len()];
        dequantize(to, &packed, &mut back);
        types.push(to);
        ways.push(Way { bytes, cost: relative_error(&values, &back, importance) });
    }
    let role = role.trim_end_matches(".weight").to_owned();
    Matrix { name: tensor.source, role, layer: Some(layer).filter(|layer| *layer < usize::MAX), types, ways }
}

/// Rows from all over the matrix.
fn some_rows(tensor: &GgufTensor<'_>, columns: usize) -> Vec<f32> {
    let bytes = tensor.bytes();
    let from = tensor.element_type;
    let Some(row_bytes) = from.row_bytes(columns).filter(|bytes| *bytes > 0) else { return Vec::new() };
    let rows = bytes.len() / row_bytes;
    let chosen = (SAMPLED_ELEMENTS / columns.max(1)).clamp(1, rows.max(1)).min(rows);
    let mut values = vec![0.0; chosen * columns];
    for (index, values) in values.chunks_mut(columns.max(1)).enumerate() {
        let row = index * rows / chosen;
        dequantize(from, &bytes[row * row_bytes..][..row_bytes], values);
    }
    values
}

/// The sum of squared errors over that of squares, weighed by column.
fn relative_error(values: &[f32], back: &[f32], importance: Option<&[f32]>) -> f64 {
    let columns = importance.map_or(1, <[f32]>::len);
    let (mut off, mut all) = (0.0, 0.0);
    for (values, back) in values.chunks(columns).zip(back.chunks(columns)) {
        for (at, (x, y)) in values.iter().zip(back).enumerate() {
            let weight = f64::from(importance.map_or(1.0, |columns| columns[at]));
            off += weight * f64::from(x - y).powi(2);
            all += weight * f64::from(*x).powi(2);
        }
    }
    // What is no number is as wrong as can be.
    let error = if all > 0.0 { off / all } else { 0.0 };
    if error.is_finite() { error } else { 1.0 }
}

/// Matrices by role, then by layers; those that are in none have only a role.
fn groups(matrices: &[Matrix<'_>]) -> Vec<(String, Vec<usize>)> {
    let mut roles: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, matrix) in matrices.iter().enumerate() {
        roles.entry(&matrix.role).or_default().push(at);
    }
    let mut groups: Vec<(String, Vec<usize>)> =
        roles.into_iter().map(|(role, members)| (role.to_owned(), members)).collect();
    let layers = matrices.iter().filter_map(|matrix| matrix.layer).max().map_or(0, |last| last + 1);
    let bands = BANDS.min(layers);
    for band in 0..bands {
        let range = band * layers / bands..(band + 1) * layers / bands;
        let is_in = |matrix: &Matrix<'_>| matrix.layer.is_some_and(|layer| range.contains(&layer));
        let members = (0..matrices.len()).filter(|at| is_in(&matrices[*at])).collect();
        groups.push((format!("layers {} to {}", range.start, range.end - 1), members));
    }
    groups
}

/// The types of those that become smaller.
fn named(matrices: &[Matrix<'_>], ways: &[usize]) -> BTreeMap<String, ElementType> {
    let changed = matrices.iter().zip(ways).filter(|(_, way)| **way > 0);
    changed.map(|(matrix, way)| (matrix.name.to_owned(), matrix.types[*way])).collect()
}

/// Each matrix's ways with what they cost in nats a token, and the order in which matrices become smaller.
struct Ladder {
    matrices: Vec<Vec<Way>>,
    steps: Vec<(usize, usize)>,
}

impl Ladder {
    fn new(
        matrices: &[Matrix<'_>],
        groups: &[(String, Vec<usize>)],
        sensitivities: &[Sensitivity],
    ) -> Ladder {
        // Roles come first, so that bands correct what roles say.
        let mut priced: Vec<Vec<Way>> = matrices.iter().map(|matrix| matrix.ways.clone()).collect();
        for ((_, members), found) in groups.iter().zip(sensitivities) {
            let expected: f64 = members.iter().map(|at| priced[*at][matrices[*at].coarse()].cost).sum();
            if expected <= 0.0 {
                continue;
            }
            let factor = found.divergence.max(DIVERGENCE_MIN) / expected;
            for at in members {
                priced[*at].iter_mut().for_each(|way| way.cost *= factor);
            }
        }
        let steps = steps(&priced);
        Ladder { matrices: priced, steps }
    }

    /// After the first steps.
    fn ways(&self, steps: usize) -> Vec<usize> {
        let mut ways = vec![0; self.matrices.len()];
        self.steps[..steps].iter().for_each(|(at, way)| ways[*at] = *way);
        ways
    }

    /// In nats a token.
    fn expected(&self, steps: usize) -> f64 {
        self.matrices.iter().zip(self.ways(steps)).map(|(matrix, way)| matrix[way].cost).sum()
    }

    /// The best that is no larger.
    fn within_bytes(
        &self,
        bytes_max: u64,
        alignment: usize,
        size: impl Fn(&[usize]) -> Result<u64, CompressError>,
    ) -> Result<Vec<usize>, CompressError> {
        let least = size(&self.ways(self.steps.len()))?;
        if least > bytes_max {
            return Err(too_small(bytes_max, least));
        }
        let (mut low, mut high) = (0, self.steps.len());
        while low < high {
            let middle = (low + high) / 2;
            if size(&self.ways(middle))? <= bytes_max { high = middle } else { low = middle + 1 }
        }
        let mut ways = self.ways(low);
        // Each tensor begins at a multiple of the alignment.
        let slack = (alignment * ways.len()) as u64;
        self.fill(&mut ways, bytes_max.saturating_sub(size(&self.ways(low))?).saturating_sub(slack));
        Ok(ways)
    }

    /// Gives back what the last step took more of than was needed.
    fn fill(&self, ways: &mut [usize], mut room: u64) {
        loop {
            let mut best: Option<(f64, usize, usize)> = None;
            for (at, matrix) in self.matrices.iter().enumerate() {
                let now = matrix[ways[at]];
                for (way, to) in matrix.iter().enumerate() {
                    let Some(more) = to.bytes.checked_sub(now.bytes).filter(|more| *more > 0) else {
                        continue;
                    };
                    let worth = (now.cost - to.cost) / more as f64;
                    if more as u64 <= room && worth > 0.0 && best.is_none_or(|(most, ..)| worth > most) {
                        best = Some((worth, at, way));
                    }
                }
            }
            let Some((_, at, way)) = best else { return };
            room -= (self.matrices[at][way].bytes - self.matrices[at][ways[at]].bytes) as u64;
            ways[at] = way;
        }
    }

    /// The smallest found that loses no more, and what it loses, by trying some: what is expected says which, and is set right
    /// by what is seen.
    fn within_loss(
        &self,
        loss_max: f64,
        mut judge: impl FnMut(&[usize]) -> Result<f64, CompressError>,
    ) -> Result<(Vec<usize>, f64), CompressError> {
        let expected: Vec<f64> = (0..=self.steps.len()).map(|at| self.expected(at)).collect();
        let (mut low, mut high, mut factor) = (0, self.steps.len() + 1, 1.0);
        // As it is, nothing is lost.
        let mut lost = 0.0;
        for _ in 0..JUDGED_MAX {
            if high - low <= 1 {
                break;
            }
            let guess = expected.partition_point(|expected| expected * factor <= loss_max);
            let at = guess.saturating_sub(1).clamp(low + 1, high - 1);
            let loss = judge(&self.ways(at))?;
            match loss <= loss_max {
                true => (low, lost) = (at, loss),
                false => high = at,
            }
            if expected[at] > 0.0 && loss > 0.0 {
                factor = loss / expected[at];
            }
        }
        Ok((self.ways(low), lost))
    }
}

/// Models that are made to see what they lose.
struct Trials<'a> {
    source: &'a Source,
    compute: &'a Arc<Compute>,
    asked: &'a Asked<'a>,
    original: Reader,
    trial: PathBuf,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    done: usize,
    all: usize,
}

impl Trials<'_> {
    /// The divergence over `windows` of the model with these types, in nats a token.
    fn run(
        &mut self,
        types: &BTreeMap<String, ElementType>,
        windows: &[&[u32]],
    ) -> Result<f64, CompressError> {
        let at = Progress::new(Phase::Choosing, self.done, self.all);
        self.done = (self.done + 1).min(self.all);
        let changes = self.asked.changes(Types::Each(types));
        let progress = &mut *self.progress;
        rewrite(self.compute, self.source, changes, &self.trial, &mut |_| progress(at))?;
        let mut made = Reader::open(&self.trial, self.compute)?;
        let mut sum = 0.0;
        for window in windows {
            if progress(at).is_break() {
                return Err(CompressError::Stopped);
            }
            sum += divergence(&mut self.original, &mut made, self.compute, window);
        }
        Ok(sum / windows.len().max(1) as f64)
    }
}
