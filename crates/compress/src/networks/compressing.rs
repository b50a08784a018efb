//! One compression from a file to a folder: what was asked for is done, measured beside the original, and written down.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::calibrate::{Calibration, calibrate};
use super::changes::Change;
use super::coding::{Coding, codable, code};
use super::defined::Network;
use super::distilling::{Teaching, taught};
use super::document::Document;
use super::error::{Listener, NetworkError, Result, tell};
use super::integers::{Form, activations, rewrite};
use super::low_rank::{Budget, factorise};
use super::measure::{Figures, Measured, Samples, measure, warmed};
use super::pruning;
use super::report::{Report, worst};
use super::searching::search;
use crate::progress::Phase;
use crate::trade::Wish;
use train::files::write_whole;
use train::model::WeightView;

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// All weights in fewer bits; products stay those of floats.
    Weights(Coding),
    /// Products of 8-bit whole numbers.
    Products { form: Form, calibration: Calibration },
    /// Two thin products instead of one.
    LowRank(Budget),
    /// Whatever fulfils a wish.
    Search(Wish),
    /// The least weights zero (`units: false`), or the least units gone, and `epochs` of training after it. `keep` is the
    /// share of parameters that is left.
    Prune { keep: f64, units: bool, epochs: usize },
    /// The network of another definition, taught by this one.
    Distil { student: PathBuf, teaching: Teaching, epochs: Option<usize> },
    /// Trained with weights rounded to whole numbers up to this, then products of 8 bits.
    Aware { greatest: u32, epochs: usize, form: Form, calibration: Calibration },
}

/// What is compressed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// As people call it.
    pub name: String,
    /// An ONNX file. What is trained again needs `model.safetensors` beside it.
    pub source: PathBuf,
    /// The definition that says its network and its data: for all but [`Method::Weights`], [`Method::LowRank`] and dynamic
    /// ranges, and for figures of the task.
    pub definition: Option<PathBuf>,
    /// The folder that is written to.
    pub output: PathBuf,
    pub method: Method,
}

/// What came of it: the model first among the files.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub report: Report,
    pub files: Vec<PathBuf>,
}

/// Samples that ranges are calibrated and codings chosen with, at most.
const CALIBRATED_SAMPLES: usize = 1024;

/// What a method made.
struct Made {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    notes: Vec<String>,
    network: Option<Network>,
}

impl Made {
    fn of(document: &Document, changes: Vec<Change>, notes: Vec<String>) -> Made {
        Made { bytes: document.encode(), changes, notes, network: None }
    }
}

/// Does what is asked for and writes `model.onnx`, `report.json` and `report.html`, and `model.safetensors` and
/// `definition.toml` where the network was trained again. `on` is told how far it is, and may ask to stop.
///
/// # Errors
/// When a file can't be read or written, the network has nothing that the method takes, the method can't be done, or `on`
/// asked to stop: then nothing is written.
pub fn compress(request: &Request, on: &mut Listener<'_>) -> Result<Outcome> {
    let of = |path: &Path| path.canonicalize().ok();
    let source = of(&request.source).and_then(|path| path.parent().map(Path::to_owned));
    if source.is_some() && source == of(&request.output) {
        let expected = "a folder that the network isn't in, as its files would be written over".to_owned();
        let received = request.output.display().to_string();
        return Err(NetworkError::Setting { setting: "output", expected, received });
    }
    std::fs::create_dir_all(&request.output).map_err(NetworkError::io(&request.output, "made"))?;
    // Checks the file, and brings in weights that lie beside it.
    let original = Document::read(&request.source)?;
    let bytes = original.encode();
    let network = request.definition.as_deref().map(Network::read).transpose()?;
    let judged = network.as_ref().map(|network| network.samples().1);
    let part = network.as_ref().map_or("", |network| network.session.judged_by_prefix());
    tell(on, Phase::Measuring, 0, 2)?;
    // The first model that a process runs takes more memory than the next.
    let _first = judged.as_ref().map(|samples| warmed(&bytes, samples)).transpose()?;
    let before = judged.as_ref().map(|samples| measure(&bytes, samples, None)).transpose()?;
    let made = make(request, original, network, on)?;
    tell(on, Phase::Measuring, 1, 2)?;
    let answers = before.as_ref().map(|before| &before.answers);
    let after = judged.as_ref().map(|samples| measure(&made.bytes, samples, answers)).transpose()?;
    tell(on, Phase::Measuring, 2, 2)?;
    let worst = match (&judged, &before, &after) {
        (Some(samples), Some(before), Some(after)) => worst(samples, &before.answers, &after.answers),
        _ => vec![],
    };
    let figures = |measured: Option<Measured>, bytes: &[u8]| match measured {
        Some(measured) => Ok(measured.figures),
        None => unmeasured(bytes),
    };
    let report = Report {
        name: request.name.clone(),
        method: request.method.to_string(),
        notes: made.notes,
        samples: judged.as_ref().map_or(0, Samples::count),
        part,
        before: figures(before, &bytes)?,
        after: figures(after, &made.bytes)?,
        tensors: made.changes,
        worst,
    };
    let files = write(&request.output, &report, &made.bytes, made.network.as_ref())?;
    Ok(Outcome { report, files })
}

/// All that comes of it, or nothing: written beside its place first.
fn write(output: &Path, report: &Report, onnx: &[u8], network: Option<&Network>) -> Result<Vec<PathBuf>> {
    let staged = tempfile::Builder::new().prefix(".compressing-").tempdir_in(output);
    let staged = staged.map_err(NetworkError::io(output, "written to"))?;
    let mut names = vec!["model.onnx", "report.json", "report.html"];
    if let Some(network) = network {
        // With the network as it was trained, which what was made of it takes the place of.
        train::run::model_files(&network.session.model, staged.path())?;
        let definition = network.definition_text()?;
        write_whole(&staged.path().join("definition.toml"), |file| file.write_all(definition.as_bytes()))?;
        names.extend(["definition.toml", "model.safetensors"]);
    }
    let (json, html) = (report.json()?, report.html());
    for (name, bytes) in names.iter().zip([onnx, json.as_bytes(), html.as_bytes()]) {
        write_whole(&staged.path().join(name), |file| file.write_all(bytes))?;
    }
    let mut files = vec![];
    for name in names {
        let path = output.join(name);
        std::fs::rename(staged.path().join(name), &path).map_err(NetworkError::io(&path, "written"))?;
        files.push(path);
    }
    let synced = File::open(output).and_then(|folder| folder.sync_all());
    synced.map_err(NetworkError::io(output, "written to"))?;
    Ok(files)
}

/// What is known of a file that isn't run.
fn unmeasured(bytes: &[u8]) -> Result<Figures> {
    let parameters = formats::onnx::parse(bytes)?.parameters;
    Ok(Figures { bytes: bytes.len() as u64, parameters, ..Figures::default() })
}

fn make(
    request: &Request,
    mut document: Document,
    network: Option<Network>,
    on: &mut Listener<'_>,
) -> Result<Made> {
    match &request.method {
        Method::Weights(coding) => {
            let names = codable(&document);
            if names.is_empty() {
                return Err(NetworkError::model("ONNX file", "it has no weights that are worth fewer bits"));
            }
            let mut changes = vec![];
            for (done, name) in names.iter().enumerate() {
                tell(on, Phase::Coding, done, names.len())?;
                changes.push(code(&mut document, name, *coding)?);
            }
            Ok(Made::of(&document, changes, vec![]))
        }
        Method::Products { form, calibration } => {
            tell(on, Phase::Coding, 0, 1)?;
            products(document, network.as_ref(), *form, *calibration)
        }
        Method::LowRank(budget) => {
            tell(on, Phase::Coding, 0, 1)?;
            let changes = factorise(&mut document, *budget)?;
            let note =
                "no product is fewer numbers as two within this budget: nothing was changed".to_owned();
            let notes = if changes.is_empty() { vec![note] } else { vec![] };
            Ok(Made::of(&document, changes, notes))
        }
        Method::Search(wish) => {
            let network = needed(network)?;
            let choice = search(&document, &network.choosing().first(CALIBRATED_SAMPLES), *wish, on)?;
            let changes = choice.codings.iter().map(|(name, coding)| code(&mut document, name, *coding));
            let changes = changes.collect::<Result<_>>()?;
            let mut notes = vec![format!("on the samples that it was chosen by it loses {:.5}", choice.loss)];
            notes.extend(choice.sensitivities.iter().map(|one| {
                format!(
                    "{} alone as {}: {} bytes, answers differ by {:.5}",
                    one.tensor,
                    one.coding.name(),
                    one.bytes,
                    one.error
                )
            }));
            Ok(Made::of(&choice.document, changes, notes))
        }
        Method::Prune { keep, units, epochs } => {
            prune(request, needed(network)?, (*keep, *units, *epochs), on)
        }
        Method::Distil { student, teaching, epochs } => {
            let mut student = taught(student, &document.encode(), *teaching)?;
            let epochs = epochs.unwrap_or(student.session.definition.fit.epochs);
            let notes = vec![format!(
                "{} parameters, taught for {epochs} epochs",
                student.session.model.parameters()
            )];
            train(&mut student, epochs, on)?;
            Ok(Made { bytes: student.onnx()?, changes: vec![], notes, network: Some(student) })
        }
        Method::Aware { greatest, epochs, form, calibration } => {
            let network = needed(network)?;
            aware(request, network, (*greatest, *epochs), (*form, *calibration), on)
        }
    }
}

fn aware(
    request: &Request,
    mut network: Network,
    (greatest, epochs): (u32, usize),
    (form, calibration): (Form, Calibration),
    on: &mut Listener<'_>,
) -> Result<Made> {
    load(&mut network, &request.source)?;
    for (path, shape, _) in network.weights() {
        if shape.len() > 1 && !path.contains("normalization") {
            network.session.model.view_weight(&path, Some(WeightView::Rounded { greatest }))?;
        }
    }
    train(&mut network, epochs, on)?;
    network.session.model.settle_views();
    let document = Document::from_bytes(network.onnx()?)?;
    let made = products(document, Some(&network), form, calibration)?;
    Ok(Made { network: Some(network), ..made })
}

fn needed(network: Option<Network>) -> Result<Network> {
    network.ok_or_else(no_definition)
}

fn no_definition() -> NetworkError {
    NetworkError::Setting {
        setting: "definition",
        expected: "the network's definition file, for this method looks at its data".to_owned(),
        received: "none".to_owned(),
    }
}

fn load(network: &mut Network, source: &Path) -> Result<()> {
    network.load(&source.with_file_name("model.safetensors"))
}

fn train(network: &mut Network, epochs: usize, on: &mut Listener<'_>) -> Result<()> {
    network.train(epochs, on)
}

fn products(
    mut document: Document,
    network: Option<&Network>,
    form: Form,
    calibration: Calibration,
) -> Result<Made> {
    let names = activations(&document, form);
    let mut notes = vec![];
    let ranges = match (form, network) {
        (Form::Dynamic, _) => Default::default(),
        (_, network) => {
            let network = network.ok_or_else(no_definition)?;
            let samples = network.samples().0.first(CALIBRATED_SAMPLES);
            let ranges = calibrate(&document, &names, &samples, calibration)?;
            for name in &names {
                if let Some(range) = ranges.get(name) {
                    notes.push(format!("{name} is told apart from {:.5} to {:.5}", range.low, range.high));
                }
            }
            ranges
        }
    };
    let mut changes = rewrite(&mut document, form, &ranges)?;
    // What isn't multiplied with, such as an input's mean, is no place to lose anything.
    for name in codable(&document) {
        changes.push(code(&mut document, &name, Coding::Float16)?);
    }
    Ok(Made::of(&document, changes, notes))
}

fn prune(
    request: &Request,
    mut network: Network,
    (keep, units, epochs): (f64, bool, usize),
    on: &mut Listener<'_>,
) -> Result<Made> {
    load(&mut network, &request.source)?;
    if units {
        let (mut pruned, changes) = pruning::without_units(&network, keep)?;
        let [before, after] = [&network, &pruned].map(|network| network.session.model.parameters());
        train(&mut pruned, epochs, on)?;
        let notes = vec![format!("{after} of {before} parameters are left")];
        return Ok(Made { bytes: pruned.onnx()?, changes, notes, network: Some(pruned) });
    }
    let before = network.weights();
    let masked = pruning::mask(&mut network, keep)?;
    train(&mut network, epochs, on)?;
    network.session.model.settle_views();
    let after = network.weights();
    let pairs = before.iter().zip(&after).filter(|((path, ..), _)| masked.contains(path));
    let changes = pairs.map(|((path, shape, before), (_, _, after))| {
        Change::new((path, shape, "zeros where least".to_owned()), before, after, after.len() * 4)
    });
    let changes: Vec<Change> = changes.collect();
    let notes = vec![
        "zeros take as much room in the file as other numbers: a store's chunks or a codebook make them small".to_owned(),
    ];
    Ok(Made { bytes: network.onnx()?, changes, notes, network: Some(network) })
}

impl fmt::Display for Method {
    /// As a report has it: files by name, as folders are nobody's business who gets the model.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| 100.0 * share;
        match self {
            Method::Weights(coding) => write!(f, "weights as {}, products of floats", coding.name()),
            Method::Products { form, calibration } => write!(f, "{}", products_of(*form, *calibration)),
            Method::LowRank(Budget::Error(error)) => {
                write!(f, "two thin products instead of one, to a relative error of {error}")
            }
            Method::LowRank(Budget::Share(share)) => {
                write!(f, "two thin products instead of one, {:.0}% of the parameters", percent(*share))
            }
            Method::Search(Wish { bytes_max, loss_max }) => {
                write!(f, "a coding for each weight")?;
                bytes_max.iter().try_for_each(|bytes| write!(f, ", of at most {bytes} bytes"))?;
                loss_max.iter().try_for_each(|loss| write!(f, ", that loses at most {loss}"))
            }
            Method::Prune { keep, units, epochs } => {
                let what = if *units { "units" } else { "weights" };
                write!(f, "{:.0}% of the parameters: the least {what} are gone, ", percent(*keep))?;
                write!(f, "the rest trained for {epochs} epochs")
            }
            Method::Distil { student, teaching: Teaching { share, temperature }, .. } => {
                let name = student.file_name().unwrap_or_default().to_string_lossy();
                write!(
                    f,
                    "the network of {name}, taught by this one: {:.0}% of each target ",
                    100.0 * share
                )?;
                write!(f, "are its answers, at a temperature of {temperature}")
            }
            Method::Aware { greatest, epochs, form, calibration } => {
                write!(
                    f,
                    "trained for {epochs} epochs with weights rounded to whole numbers up to {greatest}, "
                )?;
                write!(f, "then {}", products_of(*form, *calibration))
            }
        }
    }
}

fn products_of(form: Form, calibration: Calibration) -> String {
    let ranges = match calibration {
        Calibration::MinMax => "all that was seen",
        Calibration::Percentile => "all but a ten-thousandth of what was seen at each end",
        Calibration::Entropy => "what loses least of what was seen",
    };
    match form {
        Form::Static => format!("products of 8-bit whole numbers; ranges take {ranges}"),
        Form::Qdq => format!("products of 8-bit whole numbers, said as QDQ; ranges take {ranges}"),
        Form::Dynamic => "products of 8-bit whole numbers; ranges are each batch's".to_owned(),
    }
}
