//! One compression from a file to a folder: what was asked for is done, measured beside the original, and written down.

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
use super::measure::{Answers, Figures, Samples, measure};
use super::pruning;
use super::report::{Report, worst};
use super::searching::{Wish, search};
use crate::progress::Phase;
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
    tell(on, Phase::Measuring, 0, 2)?;
    let (before, answers) = figures(&bytes, judged.as_ref(), None)?;
    let made = make(request, original, network, on)?;
    tell(on, Phase::Measuring, 1, 2)?;
    let (after, new_answers) = figures(&made.bytes, judged.as_ref(), Some(&answers))?;
    tell(on, Phase::Measuring, 2, 2)?;
    let worst = judged.as_ref().map(|samples| worst(samples, &answers, &new_answers)).unwrap_or_default();
    let name = request.source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let report = Report {
        name,
        method: shown(&request.method),
        notes: made.notes,
        samples: judged.as_ref().map_or(0, Samples::count),
        before,
        after,
        tensors: made.changes,
        worst,
    };
    let mut parts = vec![("model.onnx", made.bytes)];
    parts.push(("report.json", report.json()?.into_bytes()));
    parts.push(("report.html", report.html().into_bytes()));
    let mut weights = None;
    if let Some(network) = &made.network {
        parts.push(("definition.toml", network.definition_text()?.into_bytes()));
        // It writes the network as it was trained too, which what was made of it takes the place of.
        weights = Some(train::run::model_files(&network.session.model, &request.output)?);
    }
    let mut files = vec![];
    for (name, bytes) in parts {
        let path = request.output.join(name);
        write_whole(&path, |file| file.write_all(&bytes))?;
        files.push(path);
    }
    files.extend(
        weights
            .into_iter()
            .flatten()
            .filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")),
    );
    Ok(Outcome { report, files })
}

fn figures(
    bytes: &[u8],
    samples: Option<&Samples>,
    original: Option<&Answers>,
) -> Result<(Figures, Answers)> {
    match samples {
        Some(samples) => measure(bytes, samples, original),
        None => {
            let parameters = formats::onnx::parse(bytes)?.parameters;
            let figures = Figures { bytes: bytes.len() as u64, parameters, ..Figures::default() };
            Ok((figures, Answers::default()))
        }
    }
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

/// As the report has it: files by name, as folders are nobody's business who gets the model.
fn shown(method: &Method) -> String {
    let mut method = method.clone();
    if let Method::Distil { student, .. } = &mut method {
        *student = student.file_name().map(PathBuf::from).unwrap_or_default();
    }
    format!("{method:?}")
}
