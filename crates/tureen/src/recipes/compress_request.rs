//! What a compression may be asked: the same for flags, a job's folder and its HTTP body.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use compress::measure;
use kernels::attention::KvElement;
use serde::{Deserialize, Serialize};

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
    /// With --to smallest: what may be lost. Of a language model, divergence from the original in nats a token on the
    /// calibration text: 0.01 is hardly noticed, 0.1 is; of a network, a share of right answers: 0.005 is half a point
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
    pub(super) fn element(self) -> KvElement {
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
    pub(super) fn check_kind(&self, name: &str, is_network: bool) -> anyhow::Result<()> {
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
    pub(super) fn check_texts(&self) -> anyhow::Result<()> {
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

    pub(super) fn is_smallest(&self) -> bool {
        self.to.eq_ignore_ascii_case(SMALLEST)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    pub struct Flags {
        #[command(flatten)]
        pub request: Request,
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
}
