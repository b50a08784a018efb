//! Compressing: a request and a model become a smaller one, and a report of what that cost.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use compress::mix::{MIXES, Types};
use compress::networks::{self, NetworkError};
use compress::report::Report as TextsReport;
use compress::rewrite::{Changes, rewrite};
use compress::smallest::{self, Asked};
use compress::{
    CompressError, Hessians, Importance, LayerInfluence, Mix, Phase, Progress, Source, Wish, choose_layers,
    is_same_file, layer_choice, measure,
};
use formats::onnx::is_onnx;
use kernels::compute::Compute;
use serde::{Deserialize, Serialize};

use super::compress_network;
pub use super::compress_request::Request;
use super::compress_request::{Kv, Rounding, SMALLEST};
use crate::nearest::nearest;
use crate::settings::Misused;

/// Of a text: a thousand times what is read of it.
const TEXT_BYTES_MAX: u64 = 256 << 20;

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
        let kv_element = self.request.kv.map(Kv::element);
        if let Target::Smallest(Wish { bytes_max: Some(bytes_max), .. }) = target {
            smallest::check_size(&source, *bytes_max, kv_element)?;
        }
        let Texts { calibration, measured } = self.texts(&source, out)?;
        // Written and measured in a folder beside its place, so that all of it comes there or nothing.
        let beside = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = tempfile::Builder::new().prefix(".compressing-").tempdir_in(beside);
        let folder = folder.with_context(|| format!("writing to {}", beside.display()))?;
        let Learned { layers, importance, mut hessians } = match &calibration {
            Some(text) => self.learn(compute, text, on)?,
            None => Learned { layers: Vec::new(), importance: None, hessians: None },
        };
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
        for text in self.request.calibration.iter().chain(&self.request.measure) {
            if is_same_file(text, out) {
                bail!(Misused(format!("{} would be written over the text that is read", out.display())));
            }
        }
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

    use super::super::compress_request::tests::Flags;
    use super::*;

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
