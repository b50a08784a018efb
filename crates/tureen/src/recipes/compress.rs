//! Compressing: a request and a model become a smaller one, and a report of what that cost.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use compress::mix::{MIXES, Types};
use compress::networks::{self, NetworkError};
use compress::report::Report as TextsReport;
use compress::rewrite::{Changes, rewrite};
use compress::smallest::{self, Asked, Wish};
use compress::{
    CompressError, Hessians, Importance, LayerInfluence, Mix, Phase, Progress, Source, choose_layers,
    layer_choice, measure,
};
use formats::onnx::is_onnx;
use kernels::attention::KvElement;
use kernels::compute::Compute;
use serde::{Deserialize, Serialize};

use super::compress_network;
use crate::nearest::nearest;
use crate::settings::{ByteSize, Misused, SettingValue};

/// All that may be asked, whoever asks: flags of the command (by clap), and what a job's folder and its HTTP body say (by
/// serde). Each field's first line is its help. Files are paths; those of a job lie beside its request.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A .gguf or .onnx file, a Hugging Face folder, or a model in the store: NAME[:TAG|@NUMBER]
    #[arg(value_name = "MODEL")]
    pub source: String,
    /// The type of the weights: Q4_K_M is what most people want; see the list below
    #[arg(long, value_name = "TYPE")]
    pub to: String,
    /// A text of the kind that the model will read: rounding goes by what matters on it
    #[arg(long, value_name = "TEXT")]
    pub calibration: Option<PathBuf>,
    /// Another such text: the report says perplexity and divergence from the original on it
    #[arg(long, value_name = "TEXT")]
    pub measure: Option<PathBuf>,
    /// Tokens of that text that are read at most
    #[arg(long, value_name = "TOKENS", default_value_t = measure_tokens_max())]
    #[serde(default = "measure_tokens_max")]
    pub measure_tokens_max: usize,
    /// Of a language model: search finds the least error of each block; gptq lets later columns make up for the errors of
    /// earlier ones, as far as the calibration text shows how
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    #[serde(default)]
    pub rounding: Rounding,
    /// Layers of a language model to leave out: those that the calibration text needs least
    #[arg(long, value_name = "LAYERS", default_value_t, hide_default_value = true)]
    #[serde(default)]
    pub drop_layers: usize,
    /// Of a language model: how keys and values are kept when it is served, unless a setting says otherwise: i16, or i8
    /// for half the memory
    #[arg(long, value_name = "TYPE", value_enum)]
    pub kv: Option<Kv>,
    /// Of a network: its definition, for int8, for what is trained again, and for figures on its data
    #[arg(long, value_name = "FILE.toml")]
    pub definition: Option<PathBuf>,
    /// Of a network: the share of parameters that is kept by fewer-units, fewer-weights and low-rank
    #[arg(long, value_name = "SHARE", default_value_t = keep())]
    #[serde(default = "keep")]
    pub keep: f64,
    /// Of a network, with --to low-rank: the relative error that a weight may have, instead of --keep
    #[arg(long, value_name = "ERROR", conflicts_with = "keep")]
    pub error_max: Option<f64>,
    /// Of a network: epochs of training afterwards
    #[arg(long, value_name = "EPOCHS")]
    pub epochs: Option<usize>,
    /// Of a network: the definition of the smaller one that --to distilled teaches
    #[arg(long, value_name = "FILE.toml")]
    pub student: Option<PathBuf>,
    /// Of a network: how ranges of int8 are chosen
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    #[serde(default)]
    pub ranges: Ranges,
    /// With --to smallest: the file's size at most, such as 100MB
    #[arg(long, value_name = "BYTES", value_parser = <ByteSize as SettingValue>::parse)]
    pub target_size: Option<ByteSize>,
    /// With --to smallest: what may be lost. Of a language model, divergence from the original in nats a token; of a network,
    /// a share of right answers, so that 0.005 is half a point
    #[arg(long, value_name = "LOSS")]
    pub max_loss: Option<f64>,
}

fn measure_tokens_max() -> usize {
    16_384
}

fn keep() -> f64 {
    0.5
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kv {
    I16,
    I8,
}

impl Kv {
    fn element(self) -> KvElement {
        match self {
            Kv::I16 => KvElement::I16,
            Kv::I8 => KvElement::I8,
        }
    }
}

/// How weights of a language model become codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    #[default]
    Search,
    Gptq,
}

/// What `to` says where types are chosen by a size or by what may be lost.
pub(super) const SMALLEST: &str = "smallest";
/// Of a text: a thousand times what is read of it.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// How ranges of integer products are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ranges {
    #[default]
    MinMax,
    Percentile,
    Entropy,
}

impl Request {
    /// The files that it names.
    pub fn files(&mut self) -> impl Iterator<Item = (&'static str, &mut PathBuf)> {
        // Each field stands here, so that one that comes later and names a file isn't forgotten: a job's would be looked for
        // where the server was started.
        let Request {
            calibration,
            measure,
            definition,
            student,
            source: _,
            to: _,
            measure_tokens_max: _,
            keep: _,
            error_max: _,
            epochs: _,
            ranges: _,
            rounding: _,
            kv: _,
            drop_layers: _,
            target_size: _,
            max_loss: _,
        } = self;
        let all = [
            ("calibration", calibration),
            ("measure", measure),
            ("definition", definition),
            ("student", student),
        ];
        all.into_iter().filter_map(|(name, file)| Some((name, file.as_mut()?)))
    }
}

impl Request {
    /// What is asked has to be for this kind of model: an option that does nothing is a mistake of somebody.
    fn check_kind(&self, name: &str, is_network: bool) -> anyhow::Result<()> {
        let for_texts = [
            ("--calibration", self.calibration.is_some()),
            ("--measure", self.measure.is_some()),
            ("--rounding gptq", self.rounding == Rounding::Gptq),
            ("--drop-layers", self.drop_layers > 0),
            ("--kv", self.kv.is_some()),
        ];
        let for_networks = [
            ("--definition", self.definition.is_some()),
            ("--error-max", self.error_max.is_some()),
            ("--epochs", self.epochs.is_some()),
            ("--student", self.student.is_some()),
        ];
        let (options, kinds) = if is_network {
            (for_texts.as_slice(), ["language models", "a network"])
        } else {
            (for_networks.as_slice(), ["networks", "a language model"])
        };
        if let Some((option, _)) = options.iter().find(|(_, is_asked)| *is_asked) {
            bail!(Misused(format!("{option} is for {}, and {name} is {}", kinds[0], kinds[1])))
        }
        self.check_wish()
    }

    /// A size or a loss and `smallest` go together.
    fn check_wish(&self) -> anyhow::Result<()> {
        let is_wished = self.target_size.is_some() || self.max_loss.is_some();
        match (self.is_smallest(), is_wished) {
            (true, false) => bail!(Misused(
                "--to smallest needs --target-size, --max-loss or both: it chooses types by them".to_owned()
            )),
            (false, true) => {
                let to = &self.to;
                bail!(Misused(format!("--target-size and --max-loss go with --to smallest, not with {to}")))
            }
            _ => {}
        }
        if self.max_loss.is_some_and(|loss| !(0.0..f64::INFINITY).contains(&loss)) {
            bail!(Misused("--max-loss takes a number from 0 on, such as 0.005".to_owned()));
        }
        Ok(())
    }

    /// What goes by a text has one, and what is chosen by what a model says is chosen alone.
    fn check_texts(&self) -> anyhow::Result<()> {
        let needs_text = [
            ("--drop-layers", self.drop_layers > 0),
            ("--rounding gptq", self.rounding == Rounding::Gptq),
            ("--to smallest", self.is_smallest()),
        ];
        if let Some((option, _)) = needs_text.iter().find(|(_, is_asked)| *is_asked)
            && self.calibration.is_none()
        {
            bail!(Misused(format!("{option} needs --calibration, a text to go by")));
        }
        if self.measure_tokens_max < measure::TOKENS_MIN {
            bail!(Misused(format!(
                "--measure-tokens-max takes {} or more, as texts are read in windows of so many; received {}",
                measure::TOKENS_MIN,
                self.measure_tokens_max
            )));
        }
        if self.is_smallest() && self.drop_layers > 0 {
            bail!(Misused(
                "--to smallest doesn't go with --drop-layers: drop them first, with --to F16, then compress that"
                    .to_owned()
            ));
        }
        Ok(())
    }

    fn is_smallest(&self) -> bool {
        self.to.eq_ignore_ascii_case(SMALLEST)
    }
}

/// What happens, as the events of a job tell it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    Progress(Progress),
}

/// A request whose model was found and whose `to` is something that this model can become.
pub struct Work<'a> {
    request: &'a Request,
    /// As a person calls the model.
    name: &'a str,
    model: &'a Path,
    way: Way,
}

enum Way {
    Texts(Target),
    Network(networks::Method),
}

/// The types of a model of texts.
enum Target {
    Mix(&'static Mix),
    /// Those that fulfil a wish.
    Smallest(Wish),
}

/// The texts that a request names.
struct Texts {
    calibration: Option<String>,
    measured: Option<String>,
}

/// What the calibration text showed.
struct Learned {
    layers: Vec<LayerInfluence>,
    importance: Option<Importance>,
    hessians: Option<Hessians>,
}

/// The files that came of it.
pub struct Made {
    pub report: Report,
    /// The model first, then its report (`report.json` and `report.html`; of a .gguf file, by names that begin with its),
    /// and of a network that was trained again its definition and weights.
    pub files: Vec<PathBuf>,
}

/// What it cost.
pub enum Report {
    Texts(TextsReport),
    Network(networks::Report),
}

impl<'a> Work<'a> {
    /// Of the model at `model`, which people call `name`.
    ///
    /// # Errors
    /// `to` names nothing that this kind of model can become, or lacks an option: [`Misused`].
    pub fn new(request: &'a Request, name: &'a str, model: &'a Path) -> anyhow::Result<Work<'a>> {
        request.check_kind(name, is_onnx(model))?;
        let way = if is_onnx(model) {
            Way::Network(compress_network::method(request)?)
        } else {
            request.check_texts()?;
            let bytes_max = request.target_size.map(|size| size.0);
            Way::Texts(match request.is_smallest() {
                true => Target::Smallest(Wish { bytes_max, loss_max: request.max_loss }),
                false => Target::Mix(find_mix(&request.to)?),
            })
        };
        Ok(Work { request, name, model, way })
    }

    /// The tag that a version of it gets, where no other is asked for.
    pub fn tag(&self) -> &str {
        match self.way {
            Way::Texts(Target::Mix(mix)) => mix.name,
            Way::Texts(Target::Smallest(_)) => SMALLEST,
            Way::Network(_) => &self.request.to,
        }
    }

    /// Where in a folder of its own the result is to be: what [`Work::run`] takes.
    pub fn place_in(&self, folder: &Path) -> PathBuf {
        match self.way {
            Way::Texts(_) => folder.join(format!("{}.gguf", self.tag())),
            Way::Network(_) => folder.to_owned(),
        }
    }

    /// Writes the smaller model to `out`, a .gguf file, or the folder for a network, with its report. `on` is told how far it
    /// is, and may ask to stop: then there is `None`.
    ///
    /// # Errors
    /// When a file can't be read or written, the model can't be run though that is needed, or the way isn't for this model.
    /// No file that isn't whole is left.
    pub fn run(
        &self,
        compute: &Arc<Compute>,
        out: &Path,
        on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> anyhow::Result<Option<Made>> {
        let made = match &self.way {
            Way::Texts(target) => self.with_types(target, compute, out, on),
            Way::Network(method) => self.network(method, out, on),
        };
        match made {
            Err(error) if is_stopped(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    fn with_types(
        &self,
        target: &Target,
        compute: &Arc<Compute>,
        out: &Path,
        on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> anyhow::Result<Made> {
        let began = Instant::now();
        let source = Source::open(self.model)?;
        let Texts { calibration, measured } = self.texts(&source, out)?;
        let Learned { layers, importance, mut hessians } = match &calibration {
            Some(text) => self.learn(compute, text, on)?,
            None => Learned { layers: Vec::new(), importance: None, hessians: None },
        };
        // Written and measured in a folder beside its place, so that all of it comes there or nothing.
        let beside = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = tempfile::Builder::new().prefix(".compressing-").tempdir_in(beside);
        let folder = folder.with_context(|| format!("writing to {}", beside.display()))?;
        let kv_element = self.request.kv.map(Kv::element);
        let mut choice = None;
        let types = match target {
            Target::Mix(mix) => Types::Mix(mix),
            Target::Smallest(wish) => {
                let text = calibration.as_deref().unwrap_or_default();
                let asked = Asked { wish: *wish, text, importance: importance.as_ref(), kv_element };
                let from = (self.model, &source);
                let found = smallest::choose(from, compute, &asked, folder.path(), on)?;
                Types::Each(&choice.insert(found).types)
            }
        };
        let dropped = layer_choice::dropped(&layers);
        let changes = Changes {
            importance: importance.as_ref(),
            dropped: &dropped,
            kv_element,
            hessians: hessians.as_mut(),
            ..Changes::new(types)
        };
        let made = folder.path().join(out.file_name().unwrap_or("model.gguf".as_ref()));
        let rewritten = rewrite(compute, &source, changes, &made, on)?;
        drop(hessians);
        let mut report = TextsReport::new(self.name, self.tag(), rewritten, began.elapsed().as_secs_f64());
        report.choice = choice;
        report.calibration_tokens = importance.map(|importance| importance.tokens);
        report.layers = layers;
        if let Some(text) = &measured {
            let progress = &mut |done, all| on(Progress::new(Phase::Measuring, done, all));
            let tokens_max = self.request.measure_tokens_max;
            report.comparison =
                Some(measure::compare(self.model, &made, compute, text, tokens_max, progress)?);
        }
        std::fs::rename(&made, out).with_context(|| format!("writing {}", out.display()))?;
        let [json, html] = ["report.json", "report.html"].map(|ending| out.with_extension(ending));
        store::write_durably(&json, report.json()?.as_bytes())?;
        store::write_durably(&html, report.html().as_bytes())?;
        Ok(Made { report: Report::Texts(report), files: vec![out.to_owned(), json, html] })
    }

    /// What can be found wrong is found before there is work.
    fn texts(&self, source: &Source, out: &Path) -> anyhow::Result<Texts> {
        let read =
            |path: &PathBuf| text_of(path).with_context(|| format!("reading the text {}", path.display()));
        // A device or a pipe would be replaced by a file.
        if std::fs::metadata(out).is_ok_and(|there| !there.is_file()) {
            bail!(Misused(format!("{} is there and is no file: name a file to write", out.display())));
        }
        source.check_place(out)?;
        if self.request.drop_layers > 0 {
            source.check_dropping()?;
        }
        let calibration = self.request.calibration.as_ref().map(read).transpose()?;
        let measured = self.request.measure.as_ref().map(read).transpose()?;
        if let Some(text) = &measured {
            measure::check_text(self.model, text)?;
        }
        Ok(Texts { calibration, measured })
    }

    /// Lets the model read the calibration text.
    fn learn(
        &self,
        compute: &Arc<Compute>,
        text: &str,
        on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> anyhow::Result<Learned> {
        let (model, count) = (self.model, self.request.drop_layers);
        let layers = if count > 0 {
            let progress = &mut |done, all| on(Progress::new(Phase::Choosing, done, all));
            choose_layers(model, compute, text, count, progress)?
        } else {
            Vec::new()
        };
        let dropped = layer_choice::dropped(&layers);
        let progress = &mut |done, all| on(Progress::new(Phase::Calibrating, done, all));
        let importance = Some(Importance::measure(model, compute, text, &dropped, progress)?);
        let hessians = match self.request.rounding {
            Rounding::Gptq => Some(Hessians::open(model, compute, text, &dropped)?),
            Rounding::Search => None,
        };
        Ok(Learned { layers, importance, hessians })
    }

    fn network(
        &self,
        method: &networks::Method,
        out: &Path,
        on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> anyhow::Result<Made> {
        let request = networks::Request {
            name: self.name.to_owned(),
            source: self.model.to_owned(),
            definition: self.request.definition.clone(),
            output: out.to_owned(),
            method: method.clone(),
        };
        let networks::Outcome { report, files } = networks::compress(&request, on)?;
        Ok(Made { report: Report::Network(report), files })
    }
}

impl Report {
    /// What a version's manifest keeps of it.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        match self {
            Report::Network(report) => compress_network::metrics(report),
            Report::Texts(report) => {
                let mut found = vec![("bits_per_weight", report.bits_per_weight)];
                if let Some(choice) = &report.choice {
                    found.push(("kl_mean_of_calibration", choice.loss));
                }
                if let Some(comparison) = &report.comparison {
                    found.push(("perplexity", comparison.compressed.perplexity));
                    found.push(("perplexity_of_parent", comparison.original.perplexity));
                    found.push(("kl_mean", comparison.kl_mean));
                }
                found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }
        }
    }
}

/// A text for a model to read.
fn text_of(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    let there = file.metadata()?;
    if !there.is_file() || there.len() > TEXT_BYTES_MAX {
        let found = if there.is_file() { format!("{} bytes", there.len()) } else { "no file".to_owned() };
        return Err(std::io::Error::other(format!(
            "it is {found}; a file of at most {TEXT_BYTES_MAX} bytes is read"
        )));
    }
    std::io::read_to_string(file.take(TEXT_BYTES_MAX))
}

fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CompressError::Stopped))
        || matches!(error.downcast_ref(), Some(NetworkError::Stopped))
}

fn find_mix(text: &str) -> anyhow::Result<&'static Mix> {
    Mix::find(text).ok_or_else(|| {
        let close = nearest(&text.to_ascii_uppercase(), MIXES.iter().map(|mix| mix.name));
        let close = close.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        Misused(format!("there is no type {text:?}{close} (tureen compress --help lists them)")).into()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        request: Request,
    }

    /// Flags and a table say the same, and what isn't said is the same for both.
    #[test]
    fn flags_and_tables_are_one_request() {
        let check = |flags: &str, table: &str| {
            let words = ["compress"].into_iter().chain(flags.split(' '));
            let request = Flags::try_parse_from(words).unwrap().request;
            assert_eq!(toml::from_str::<Request>(table).unwrap(), request);
            let written = toml::to_string(&request).unwrap();
            assert_eq!(toml::from_str::<Request>(&written).unwrap(), request, "{written}");
        };
        check("smollm2 --to Q4_K_M", "source = 'smollm2'\nto = 'Q4_K_M'");
        check(
            "smollm2 --to Q4_K_M --drop-layers 3 --calibration a.txt --rounding gptq --kv i8",
            "source = 'smollm2'\nto = 'Q4_K_M'\ndrop_layers = 3\ncalibration = 'a.txt'\nrounding = 'gptq'\nkv = 'i8'",
        );
        check(
            "net@3 --to smallest --max-loss 0.005 --target-size 1kB --definition net.toml --ranges entropy",
            "source = 'net@3'\nto = 'smallest'\nmax_loss = 0.005\ntarget_size = 1000\n\
             definition = 'net.toml'\nranges = 'entropy'",
        );
        check(
            "smollm2 --to smallest --target-size 100MB --calibration a.txt",
            "source = 'smollm2'\nto = 'smallest'\ntarget_size = '100MB'\ncalibration = 'a.txt'",
        );
        let wrong = "source = 'a'\nto = 'smallest'\ntarget_size = ";
        for size in ["'large'", "-1", "true", "1.5"] {
            let error = toml::from_str::<Request>(&format!("{wrong}{size}")).unwrap_err().to_string();
            assert!(error.contains("500MB"), "{error}");
        }
        let unknown = toml::from_str::<Request>("source = 'a'\nto = 'b'\ncolour = 1").unwrap_err();
        assert!(unknown.to_string().contains("colour"), "{unknown}");
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let check = |model: &str, flags: &str, said: &str| {
            let words = ["compress", model, "--to"].into_iter().chain(flags.split(' '));
            let request = Flags::try_parse_from(words).unwrap().request;
            let found = Work::new(&request, model, Path::new(model));
            let error = found.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        };
        for model in ["a.gguf", "a.onnx"] {
            check(model, "smallest", "needs --target-size, --max-loss or both");
            check(model, "Q4_0 --max-loss 0.1", "go with --to smallest");
            check(model, "smallest --max-loss=-1", "from 0 on");
        }
        check("a.gguf", "smallest --max-loss 0.1", "needs --calibration");
        check("a.gguf", "smallest --max-loss 0.1 --calibration t --drop-layers 2", "drop them first");
        check("a.gguf", "Q4_0 --drop-layers 2", "--drop-layers needs --calibration");
        check("a.gguf", "Q4_0 --measure-tokens-max 100", "512 or more");
        check("a.gguf", "Q4_0 --epochs 2", "--epochs is for networks");
        check("a.onnx", "int8 --kv i8", "--kv is for language models");
    }
}
