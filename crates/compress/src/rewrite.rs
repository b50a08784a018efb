//! A GGUF file becomes another, its matrices in other types; a Hugging Face folder becomes one.
//!
//! A tensor at a time, so that a model need not fit in memory; of each tensor, parts of some rows on all threads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use formats::error::FormatError;
use formats::gguf::{Gguf, Value, Writer};
use formats::model::KV_ELEMENT;
use formats::to_gguf::GgufTensor;
use kernels::attention::KvElement;
use kernels::compute::Compute;
use kernels::elements::{ElementType, dequantize, is_compensable, quantize, quantize_compensated};
use serde::Serialize;

use crate::dropping::Kept;
use crate::error::CompressError;
use crate::hessian::Hessians;
use crate::importance::Importance;
use crate::mix::{Mix, Shape, Types};
use crate::progress::{Phase, Progress};
use crate::source::Source;

/// Elements that a thread takes at a time.
const PART_ELEMENTS: usize = 1 << 16;
/// Rows that compensation takes at a time.
const ROWS_TOGETHER: usize = 16;
/// Of how GGUF's blocks are laid out, in `general.quantization_version`.
const QUANTIZATION_VERSION: u32 = 2;
/// The largest number that a block's scale of 16 bits can stand for in every type.
const QUANTIZED_MAX: f32 = 65_504.0;

/// What became of one tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorChange {
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    pub from: &'static str,
    pub to: &'static str,
    pub bytes_before: usize,
    pub bytes_after: usize,
    /// The root of the mean squared error over that of the mean square: 0 where nothing changed.
    pub relative_error: f64,
    /// Whether errors were weighed by what a text showed to matter.
    pub weighed: bool,
    /// Whether later columns made up for errors of earlier ones: then errors of weights are larger, and of what they give
    /// smaller.
    pub compensated: bool,
}

/// What the file that was written is.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    pub tensors: Vec<TensorChange>,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// What the new file is to be.
pub struct Changes<'a> {
    pub types: Types<'a>,
    /// What rounding goes by, where it is known; tensors are called as in the source.
    pub importance: Option<&'a Importance>,
    /// Layers that are left out.
    pub dropped: &'a [usize],
    /// How keys and values are to be kept by who serves it; `None` for what the source says.
    pub kv_element: Option<KvElement>,
    /// Where matrices are to be rounded with compensation.
    pub hessians: Option<&'a mut Hessians>,
}

impl<'a> Changes<'a> {
    /// Other types, and nothing else.
    pub fn to(mix: &'a Mix) -> Changes<'a> {
        Changes::new(Types::Mix(mix))
    }

    /// As [`Changes::to`], of any types.
    pub fn new(types: Types<'a>) -> Changes<'a> {
        Changes { types, importance: None, dropped: &[], kv_element: None, hessians: None }
    }
}

/// Writes the model of `source` to `to`, changed: whole or not at all. Metadata is copied; what it says of types, parts
/// and layers is set right. `progress` may ask to stop.
///
/// # Errors
/// When the source is malformed or holds numbers that the types don't have, layers can't be left out, or the disk fails.
/// Nothing is at `to` then that was not there before.
pub fn rewrite(
    compute: &Compute,
    source: &Source,
    mut changes: Changes<'_>,
    to: &Path,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Rewritten, CompressError> {
    source.check_place(to)?;
    let parts = source.parts()?;
    let missing = || FormatError::Missing { what: "a file".to_owned(), needed_for: "a model".to_owned() };
    let first = parts.first().ok_or_else(missing)?;
    check_kv_element(first)?;
    let kept = Kept::new(first, changes.dropped, || source.decoder())?;
    let tensors = source.kept(&parts, &kept, changes.hessians.is_some())?;
    let (header, planned) = planned(first, &kept, &tensors, &changes)?;
    let mut out = Output::create(to)?;
    out.write(&header)?;
    let all = tensors.iter().map(|tensor| tensor.bytes_len() as u64).sum();
    let mut rewritten = Rewritten {
        tensors: Vec::with_capacity(tensors.len()),
        bytes_before: source.bytes(),
        bytes_after: 0,
    };
    let (mut done, mut written) = (0, 0);
    for (tensor, Planned { to, bytes: length, start }) in tensors.iter().zip(planned) {
        if progress(Progress { phase: Phase::Quantising, done, all, loss: None }).is_break() {
            return Err(CompressError::Stopped);
        }
        out.write(&vec![0; start - written])?;
        let weights = changes.importance.and_then(|importance| importance.of(tensor.source, &tensor.shape));
        let factor = match &mut changes.hessians {
            Some(hessians) if to != tensor.element_type && is_compensable(to) => {
                hessians.factor(tensor.source, tensor.shape.last().copied().unwrap_or(1), progress)?
            }
            _ => None,
        };
        let bytes = tensor.bytes();
        let task = Task { compute, tensor, bytes: &bytes, to, importance: weights, factor };
        let mut packed = vec![0; length];
        let relative_error = task.run(&mut packed)?;
        out.write(&packed)?;
        written = start + length;
        done += bytes.len() as u64;
        rewritten.tensors.push(TensorChange {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            from: tensor.element_type.name(),
            to: to.name(),
            bytes_before: bytes.len(),
            bytes_after: length,
            relative_error,
            weighed: weights.is_some()
                && factor.is_none()
                && to != tensor.element_type
                && to.block_elements() > 1,
            compensated: factor.is_some(),
        });
    }
    let _ = progress(Progress { phase: Phase::Quantising, done, all, loss: None });
    out.finish()?;
    rewritten.bytes_after = (header.len() + written) as u64;
    Ok(rewritten)
}

/// Bytes of the file that [`rewrite`] would write.
///
/// # Errors
/// As of [`rewrite`], before it writes.
pub fn bytes_after(source: &Source, changes: &Changes<'_>) -> Result<u64, CompressError> {
    let parts = source.parts()?;
    let Some(first) = parts.first() else { return Ok(0) };
    let kept = Kept::new(first, changes.dropped, || source.decoder())?;
    let tensors = source.kept(&parts, &kept, changes.hessians.is_some())?;
    let (header, planned) = planned(first, &kept, &tensors, changes)?;
    Ok((header.len() + planned.last().map_or(0, |last| last.start + last.bytes)) as u64)
}

/// The new file's header, and where each tensor is to stand.
fn planned(
    first: &Gguf<'_>,
    kept: &Kept,
    tensors: &[GgufTensor<'_>],
    changes: &Changes<'_>,
) -> Result<(Vec<u8>, Vec<Planned>), FormatError> {
    let mut model = shape(first, tensors, changes.importance.is_some())?;
    model.layers = model.layers.saturating_sub(changes.dropped.len());
    let wanted = changes.types.of(tensors, &model);
    let mut writer = Writer::new(first.alignment);
    let file_type = changes.types.file_type(tensors, &wanted);
    copy_metadata(first, kept, file_type, changes.kv_element, &mut writer);
    let planned = plan(&wanted, tensors, &mut writer)?;
    Ok((writer.header(), planned))
}

/// What an engine would refuse isn't copied.
fn check_kv_element(first: &Gguf<'_>) -> Result<(), FormatError> {
    match first.text(KV_ELEMENT)?.filter(|name| KvElement::find(name).is_none()) {
        Some(name) => Err(FormatError::Invalid {
            what: KV_ELEMENT.to_owned(),
            found: format!("{name:?}"),
            expected: KvElement::CODED.map(KvElement::name).join(" or "),
        }),
        None => Ok(()),
    }
}

/// What a tensor is to be.
struct Planned {
    to: ElementType,
    bytes: usize,
    /// Of the first of them, among the tensors' bytes.
    start: usize,
}

/// Announces each tensor in its type.
fn plan(
    wanted: &[ElementType],
    tensors: &[GgufTensor<'_>],
    writer: &mut Writer,
) -> Result<Vec<Planned>, FormatError> {
    let mut planned = Vec::with_capacity(tensors.len());
    for (tensor, to) in tensors.iter().zip(wanted.iter().copied()) {
        let elements: usize = tensor.shape.iter().product();
        let bytes = to.row_bytes(elements).ok_or_else(|| FormatError::Invalid {
            what: format!("the shape of tensor {}", tensor.name),
            found: format!("{:?}", tensor.shape),
            expected: format!("whole blocks of {to}"),
        })?;
        let start = writer.announce(&tensor.name, to, &tensor.shape, bytes);
        planned.push(Planned { to, bytes, start });
    }
    Ok(planned)
}

/// What the mix asks of the model.
fn shape(first: &Gguf<'_>, tensors: &[GgufTensor<'_>], has_importance: bool) -> Result<Shape, FormatError> {
    let family = first.text("general.architecture")?.unwrap_or_default();
    let size = |key: &str| {
        // Some families have one number a layer.
        Ok::<_, FormatError>(match first.get(&format!("{family}.{key}")) {
            Some(Value::Array(array)) => array.iter().filter_map(|value| value.integer()).max(),
            Some(value) => value.integer(),
            None => None,
        })
    };
    let number = |key: &str| size(key).map(|n| n.and_then(|n| usize::try_from(n).ok()));
    let heads = number("attention.head_count")?.unwrap_or(1);
    let kv_heads = number("attention.head_count_kv")?.unwrap_or(heads).max(1);
    Ok(Shape {
        layers: number("block_count")?.unwrap_or(0),
        heads_per_kv_head: heads / kv_heads,
        experts: number("expert_count")?.unwrap_or(0),
        has_output: tensors.iter().any(|tensor| tensor.name == "output.weight"),
        has_importance,
    })
}

/// All that the first part says, but for what is another in the new file.
fn copy_metadata(
    first: &Gguf<'_>,
    kept: &Kept,
    file_type: u32,
    kv_element: Option<KvElement>,
    writer: &mut Writer,
) {
    const CHANGED: [&str; 2] = ["general.file_type", "general.quantization_version"];
    for (key, value) in first.metadata() {
        let is_changed = CHANGED.contains(key) || (*key == KV_ELEMENT && kv_element.is_some());
        if !is_changed && !key.starts_with("split.") {
            kept.copy(key, *value, writer);
        }
    }
    writer.value("general.file_type", Value::U32(file_type));
    writer.value("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    if let Some(element) = kv_element {
        writer.value(KV_ELEMENT, Value::String(element.name()));
    }
}

/// One tensor's way from one type to another.
struct Task<'a> {
    compute: &'a Compute,
    tensor: &'a GgufTensor<'a>,
    bytes: &'a [u8],
    to: ElementType,
    importance: Option<&'a [f32]>,
    factor: Option<&'a [f32]>,
}

/// A number that the type doesn't have, and its row.
struct Unfit {
    row: usize,
    found: f32,
}

impl Task<'_> {
    /// Fills `out`, and gives the relative error.
    fn run(&self, out: &mut [u8]) -> Result<f64, CompressError> {
        if self.to == self.tensor.element_type {
            out.copy_from_slice(self.bytes);
            return self.check_numbers().map(|()| 0.0);
        }
        let columns = self.tensor.shape.last().copied().unwrap_or(1);
        let rows = match self.factor {
            Some(_) => ROWS_TOGETHER,
            None => (PART_ELEMENTS / columns).max(1),
        };
        let (Some(from_bytes), Some(to_bytes)) =
            (self.tensor.element_type.row_bytes(columns), self.to.row_bytes(columns))
        else {
            unreachable!("rows were whole when the file was read, and when the type was chosen")
        };
        let parts: Vec<_> =
            self.bytes.chunks(rows * from_bytes).zip(out.chunks_mut(rows * to_bytes)).collect();
        let parts: Vec<_> = parts.into_iter().map(Mutex::new).collect();
        let sums = Mutex::new((0.0, 0.0));
        let unfit = Mutex::new(None);
        self.compute.pool().for_each(parts.len(), |index| {
            let mut part = parts[index].lock().unwrap_or_else(PoisonError::into_inner);
            let (from, to) = &mut *part;
            match self.part(from, to, columns) {
                Ok((off, all)) => {
                    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                    *sums = (sums.0 + off, sums.1 + all);
                }
                Err(Unfit { row, found }) => {
                    let row = row + index * rows;
                    *unfit.lock().unwrap_or_else(PoisonError::into_inner) = Some(Unfit { row, found });
                }
            }
        });
        if let Some(Unfit { row, found }) = unfit.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(CompressError::Number {
                tensor: self.tensor.name.clone(),
                row,
                found,
                to: self.to.to_string(),
                advice: if found.is_finite() { "BF16 has" } else { "the model is damaged" },
            });
        }
        let (off, all): (f64, f64) = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(if all > 0.0 { (off / all).sqrt() } else { 0.0 })
    }

    /// Norms and biases are copied, and a number that is none there is what the whole model says.
    fn check_numbers(&self) -> Result<(), CompressError> {
        if self.tensor.element_type != ElementType::F32 {
            return Ok(());
        }
        let numbers = self.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let columns = self.tensor.shape.last().copied().unwrap_or(1).max(1);
        match numbers.enumerate().find(|(_, number)| !number.is_finite()) {
            Some((index, found)) => Err(self.unfit(index / columns, found)),
            None => Ok(()),
        }
    }

    fn unfit(&self, row: usize, found: f32) -> CompressError {
        CompressError::Number {
            tensor: self.tensor.name.to_owned(),
            row,
            found,
            to: self.to.to_string(),
            advice: if found.is_finite() { "BF16 has" } else { "the model is damaged" },
        }
    }

    /// Some rows; the sums of squared errors and of squares.
    fn part(&self, from: &[u8], to: &mut [u8], columns: usize) -> Result<(f64, f64), Unfit> {
        let elements =
            from.len() / self.tensor.element_type.block_bytes() * self.tensor.element_type.block_elements();
        let mut values = vec![0.0; elements];
        dequantize(self.tensor.element_type, from, &mut values);
        let most =
            if matches!(self.to, ElementType::F32 | ElementType::BF16) { f32::MAX } else { QUANTIZED_MAX };
        let (squares, is_fit) = squares(&values, most);
        if !is_fit && let Some(index) = values.iter().position(|x| !is_within(*x, most)) {
            return Err(Unfit { row: index / columns, found: values[index] });
        }
        let isa = self.compute.isa();
        let off = match self.factor {
            Some(factor) => quantize_compensated(isa, self.to, &values, columns, factor, to),
            None => quantize(isa, self.to, &values, columns, self.importance, to),
        };
        Ok((off, squares))
    }
}

/// False for what is no number too.
fn is_within(x: f32, most: f32) -> bool {
    x.abs() <= most
}

/// The sum of squares, and whether all are numbers of at most `most` in size. Side by side, so that it is quick.
fn squares(values: &[f32], most: f32) -> (f64, bool) {
    const SIDE: usize = 16;
    let mut sum = 0.0;
    let mut are_within = [true; SIDE];
    for part in values.chunks(64 * SIDE) {
        let mut sums = [0.0f32; SIDE];
        let (whole, rest) = part.as_chunks::<SIDE>();
        for values in whole {
            for i in 0..SIDE {
                sums[i] += values[i] * values[i];
                are_within[i] &= is_within(values[i], most);
            }
        }
        for (i, x) in rest.iter().enumerate() {
            sums[i] += x * x;
            are_within[i] &= is_within(*x, most);
        }
        sum += f64::from(sums.iter().sum::<f32>());
    }
    (sum, are_within.iter().all(|is_within| *is_within))
}

/// A file that is there whole or not at all.
struct Output {
    file: BufWriter<tempfile::NamedTempFile>,
    path: PathBuf,
}

impl Output {
    fn create(path: &Path) -> Result<Output, CompressError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As far as the user's mask lets others read.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.prefix(".compressing-").tempfile_in(folder);
        let file = file.map_err(|cause| CompressError::Io {
            operation: "write to",
            path: folder.to_owned(),
            cause,
        })?;
        Ok(Output { file: BufWriter::with_capacity(1 << 20, file), path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CompressError> {
        let written = self.file.write_all(bytes);
        written.map_err(|cause| CompressError::Io { operation: "write", path: self.path.clone(), cause })
    }

    fn finish(self) -> Result<(), CompressError> {
        let Output { file, path } = self;
        let finish = || -> std::io::Result<()> {
            let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            // The name is on disk once its folder is.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        finish().map_err(|cause| CompressError::Io { operation: "write", path: path.clone(), cause })
    }
}
