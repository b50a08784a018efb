//! Reads rotary embeddings out of `config.json`, in its older form (`rope_theta`, `rope_scaling`) and the newer
//! (`rope_parameters`). Source: `modeling_rope_utils.py` of the `transformers` library.

use serde_json::{Map, Value};

use super::config::Section;
use super::rotary::yarn_attention;
use crate::error::FormatError;
use crate::model::{RotaryScaling, RotarySettings};

/// What a family's rotary embeddings are read with.
pub(super) struct Reading<'c> {
    pub config: Section<'c>,
    pub head_dim: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// Where the configuration names no theta.
    pub theta: f64,
    /// Phi-3 calls longrope by other names, keeps the original context outside, and rotates a part of each head.
    pub phi3: bool,
}

impl Reading<'_> {
    /// The one rotary embedding of most families.
    pub fn single(&self) -> Result<RotarySettings, FormatError> {
        let parameters = match self.config.object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => self.config.object("rope_scaling")?,
        };
        let theta = self.config.float("rope_theta")?.unwrap_or(self.theta);
        self.settings(parameters, theta)
    }

    /// Gemma 3's: the global one and the local one of its sliding windows.
    pub fn global_and_local(&self, theta_local: f64) -> Result<Vec<RotarySettings>, FormatError> {
        let parameters = self.config.object("rope_parameters")?;
        let of = |kind: &str| match parameters {
            Some(parameters) => Section::new(parameters, "rope_parameters").object(kind),
            None => Ok(None),
        };
        let global = match of("full_attention")? {
            Some(global) => Some(global),
            None => self.config.object("rope_scaling")?,
        };
        let theta = self.config.float("rope_theta")?.unwrap_or(self.theta);
        let theta_local = self.config.float("rope_local_base_freq")?.unwrap_or(theta_local);
        Ok(vec![self.settings(global, theta)?, self.settings(of("sliding_attention")?, theta_local)?])
    }

    fn settings(
        &self,
        parameters: Option<&Map<String, Value>>,
        theta: f64,
    ) -> Result<RotarySettings, FormatError> {
        let empty = Map::new();
        let parameters = Section::new(parameters.unwrap_or(&empty), "the rope parameters");
        for key in ["full_attention", "sliding_attention", "mrope_section", "short_mscale", "long_mscale"] {
            parameters.refuse(key)?;
        }
        let theta = parameters.float("rope_theta")?.unwrap_or(theta);
        let partial = match parameters.float("partial_rotary_factor")? {
            Some(partial) => partial,
            None => self.config.float("partial_rotary_factor")?.unwrap_or(1.0),
        };
        if partial != 1.0 && !self.phi3 {
            return Err(self.config.unsupported("partial_rotary_factor", partial.to_string(), "1"));
        }
        // A negative or huge product becomes a size that is refused later.
        let dim = (self.head_dim as f64 * partial) as usize;
        Ok(RotarySettings { dim, theta: theta as f32, scaling: self.scaling(&parameters)? })
    }

    fn scaling(&self, parameters: &Section<'_>) -> Result<RotaryScaling, FormatError> {
        let kind = match parameters.text("rope_type")? {
            Some(kind) => kind,
            None => parameters.text("type")?.unwrap_or("default"),
        };
        let factor = || parameters.required_float("factor").map(|factor| factor as f32);
        match kind {
            "default" => Ok(RotaryScaling::None),
            "longrope" => self.longrope(parameters),
            "su" | "yarn" if self.phi3 => self.longrope(parameters),
            "linear" => Ok(RotaryScaling::Linear { factor: factor()? }),
            "dynamic" => Ok(RotaryScaling::Dynamic { factor: factor()?, original_context: self.context }),
            "yarn" => self.yarn(parameters),
            "llama3" => Ok(RotaryScaling::Llama3 {
                factor: factor()?,
                low_frequency_factor: parameters.required_float("low_freq_factor")? as f32,
                high_frequency_factor: parameters.required_float("high_freq_factor")? as f32,
                original_context: self.original_context(parameters)?,
            }),
            other => Err(parameters.unsupported(
                "rope_type",
                other.to_owned(),
                "default, linear, dynamic, yarn, llama3, longrope",
            )),
        }
    }

    fn original_context(&self, parameters: &Section<'_>) -> Result<usize, FormatError> {
        const KEY: &str = "original_max_position_embeddings";
        /// Phi-3's where its configuration names none.
        const PHI3_ORIGINAL_CONTEXT: usize = 4096;
        match (self.config.size(KEY)?, self.phi3) {
            (Some(original), _) => Ok(original),
            (None, true) => Ok(parameters.size(KEY)?.unwrap_or(PHI3_ORIGINAL_CONTEXT)),
            (None, false) => Ok(parameters.size(KEY)?.unwrap_or(self.context)),
        }
    }

    fn yarn(&self, parameters: &Section<'_>) -> Result<RotaryScaling, FormatError> {
        if parameters.boolean("truncate")? == Some(false) {
            return Err(parameters.unsupported("truncate", "false".to_owned(), "true"));
        }
        let original_context = self.original_context(parameters)?;
        let factor = match parameters.float("factor")? {
            Some(factor) => factor,
            None => self.context as f64 / original_context as f64,
        };
        let some = |key: &str| Ok::<_, FormatError>(parameters.float(key)?.filter(|x| *x != 0.0));
        let attention_factor = match parameters.float("attention_factor")? {
            Some(given) => Some(given as f32),
            None => match (some("mscale")?, some("mscale_all_dim")?) {
                (Some(one), Some(all)) => {
                    Some((yarn_attention(factor, one) / yarn_attention(factor, all)) as f32)
                }
                _ => None,
            },
        };
        Ok(RotaryScaling::Yarn {
            factor: factor as f32,
            original_context,
            beta_fast: some("beta_fast")?.unwrap_or(32.0) as f32,
            beta_slow: some("beta_slow")?.unwrap_or(1.0) as f32,
            attention_factor,
        })
    }

    fn longrope(&self, parameters: &Section<'_>) -> Result<RotaryScaling, FormatError> {
        let original_context = self.original_context(parameters)?;
        let attention_factor = match (parameters.float("attention_factor")?, parameters.float("factor")?) {
            (Some(given), _) => Some(given as f32),
            (None, Some(factor)) => Some(super::rotary::longrope_attention(factor, original_context) as f32),
            (None, None) => None,
        };
        Ok(RotaryScaling::LongRope {
            short: parameters.required_floats("short_factor")?,
            long: parameters.required_floats("long_factor")?,
            original_context,
            attention_factor,
        })
    }
}
