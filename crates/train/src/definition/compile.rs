//! A definition's optimiser, losses and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::OneOrMany;
use super::named::{Known, Named, snake, unknown_argument};
use crate::error::{Result, TrainError};
use crate::gan::GanLoss;
use crate::losses::{self, Loss};
use crate::metrics::Metric;
use crate::model::{DtypePolicy, Model};
use crate::optimizers::{self, Optimizer};
use crate::schedules::Schedule;

/// Optimiser, loss and metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compiling {
    #[serde(default = "adam")]
    pub optimizer: Named,
    /// One, or one for each output.
    pub loss: OneOrMany<Named>,
    /// For every output; or a list for each output.
    #[serde(default)]
    pub metrics: Vec<OneOrMany<Named>>,
    /// What the products of training steps are computed in.
    #[serde(default)]
    pub dtype_policy: DtypePolicy,
    /// Keep only a part of what layers yield for the gradient, and compute the rest again: less memory for a tenth to a
    /// quarter more time a step.
    #[serde(default)]
    pub checkpoint_activations: bool,
}

fn adam() -> Named {
    Named::Name("adam".to_owned())
}

/// Arguments that every optimiser takes.
pub(super) const OF_ALL_OPTIMIZERS: [&str; 9] = [
    "learning_rate",
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "gradient_accumulation_steps",
];

pub(super) fn losses() -> Known {
    use losses::*;
    let all: [Loss; 18] = [
        CategoricalCrossentropy.into(),
        SparseCategoricalCrossentropy.into(),
        BinaryCrossentropy.into(),
        CategoricalFocalCrossentropy.into(),
        BinaryFocalCrossentropy.into(),
        MeanSquaredError.into(),
        MeanAbsoluteError.into(),
        MeanAbsolutePercentageError.into(),
        MeanSquaredLogarithmicError.into(),
        Huber.into(),
        LogCosh.into(),
        KLDivergence.into(),
        Poisson.into(),
        CosineSimilarity.into(),
        Hinge.into(),
        SquaredHinge.into(),
        CategoricalHinge.into(),
        CTC.into(),
    ];
    Known::new("loss", all)
}

pub(super) fn gan_losses() -> Known {
    use GanLoss::*;
    let wasserstein = [Wasserstein { gradient_penalty: 10.0 }, WassersteinClipped { clip: 0.01 }];
    let others = [NonSaturating {}, LeastSquares {}, Hinge {}];
    Known::new("loss of a GAN", others.into_iter().chain(wasserstein))
}

pub(super) fn metrics() -> Known {
    use Metric::*;
    let own = [
        Accuracy {},
        CategoricalAccuracy {},
        SparseCategoricalAccuracy {},
        BinaryAccuracy { threshold: 0.5 },
        TopKCategoricalAccuracy { k: 5 },
        SparseTopKCategoricalAccuracy { k: 5 },
        Precision { threshold: 0.5 },
        Recall { threshold: 0.5 },
        F1Score { average: None, threshold: None },
        FBetaScore { average: None, beta: 1.0, threshold: None },
        TruePositives { threshold: 0.5 },
        TrueNegatives { threshold: 0.5 },
        FalsePositives { threshold: 0.5 },
        FalseNegatives { threshold: 0.5 },
        PrecisionAtRecall { recall: 0.5, num_thresholds: 200 },
        RecallAtPrecision { precision: 0.5, num_thresholds: 200 },
        SensitivityAtSpecificity { specificity: 0.5, num_thresholds: 200 },
        SpecificityAtSensitivity { sensitivity: 0.5, num_thresholds: 200 },
        ConfusionMatrix {},
        OneHotMeanIoU {},
        OneHotIoU { target_class_ids: vec![0] },
        BinaryIoU { target_class_ids: vec![0, 1], threshold: 0.5 },
        PearsonCorrelation {},
        ConcordanceCorrelation {},
        AUC { num_thresholds: 200 },
        RootMeanSquaredError {},
        R2Score {},
        Perplexity {},
    ];
    let mut known = Known::new("metric", own);
    // Every loss is a metric too: its mean.
    known.classes.extend(losses().classes);
    known
}

pub(super) fn schedules() -> Known {
    use Schedule::*;
    let (initial_learning_rate, decay_steps) = (0.001, 1000.0);
    Known::new(
        "schedule",
        [
            Constant { learning_rate: 0.001 },
            ExponentialDecay { initial_learning_rate, decay_steps, decay_rate: 0.96, staircase: false },
            PiecewiseConstantDecay { boundaries: vec![], values: vec![] },
            PolynomialDecay {
                initial_learning_rate,
                decay_steps,
                end_learning_rate: 0.0001,
                power: 1.0,
                cycle: false,
            },
            InverseTimeDecay { initial_learning_rate, decay_steps, decay_rate: 0.96, staircase: false },
            CosineDecay {
                initial_learning_rate,
                decay_steps,
                alpha: 0.0,
                warmup_target: None,
                warmup_steps: 0.0,
            },
            CosineDecayRestarts {
                initial_learning_rate,
                first_decay_steps: 1000.0,
                t_mul: 2.0,
                m_mul: 1.0,
                alpha: 0.0,
            },
            OneCycle {
                max_learning_rate: 0.01,
                total_steps: 1000.0,
                pct_start: 0.3,
                div_factor: 25.0,
                final_div_factor: 1e4,
            },
        ],
    )
}

/// The optimisers by class: the arguments of its rule, and its learning rate and weight decay.
pub(super) fn optimizers() -> (Known, Vec<Optimizer>) {
    use optimizers::*;
    let all: [(&str, Optimizer); 12] = [
        ("SGD", SGD.into()),
        ("RMSprop", RMSprop.into()),
        ("Adam", Adam.into()),
        ("AdamW", AdamW.into()),
        ("Nadam", Nadam.into()),
        ("Adamax", Adamax.into()),
        ("Adagrad", Adagrad.into()),
        ("Adadelta", Adadelta.into()),
        ("Adafactor", Adafactor.into()),
        ("Lion", Lion.into()),
        ("Lamb", Lamb.into()),
        ("Muon", Muon.into()),
    ];
    let mut classes = vec![];
    let mut defaults = vec![];
    for (class, optimizer) in all {
        let rule = serde_json::to_value(&optimizer.rule).unwrap_or_default();
        let arguments = rule.as_object().and_then(|rule| rule.values().next()).and_then(Value::as_object);
        classes.push((class.to_owned(), arguments.cloned().unwrap_or_default()));
        defaults.push(optimizer);
    }
    (Known { kind: "optimizer", classes }, defaults)
}

impl Compiling {
    /// Compiles `model` as the definition says.
    ///
    /// # Errors
    /// When something named isn't known, or has an argument that isn't.
    pub fn apply(&self, model: &mut Model) -> Result<()> {
        model.set_dtype_policy(self.dtype_policy)?;
        model.set_checkpoint_activations(self.checkpoint_activations);
        let losses = self.losses()?;
        let each: Vec<Vec<Metric>> = self
            .metrics
            .iter()
            .map(|given| given.as_slice().iter().map(metric).collect())
            .collect::<Result<_>>()?;
        let is_list = |given: &OneOrMany<Named>| matches!(given, OneOrMany::Many(_));
        let metrics = if !self.metrics.iter().any(is_list) {
            vec![each.concat(); losses.len()]
        } else if self.metrics.iter().all(is_list) {
            each
        } else {
            let problem = "metrics are names, or a list of names for each output; received both".to_owned();
            return Err(TrainError::Definition { place: "[compile]".to_owned(), problem });
        };
        model.compile_each(optimizer(&self.optimizer)?, losses, metrics)
    }

    /// The loss of each output.
    pub fn losses(&self) -> Result<Vec<Loss>> {
        self.loss.as_slice().iter().map(|loss| losses().read(loss)).collect()
    }
}

fn metric(given: &Named) -> Result<Metric> {
    let known = metrics();
    let (class, config) = known.resolve(given)?;
    if losses().classes.iter().any(|(loss, _)| *loss == class) {
        let loss: Loss = losses().read(given)?;
        return Ok(Metric::Mean { name: snake(&class), loss });
    }
    read(&format!("metric {class}"), json!({ "class_name": class, "config": config }))
}

fn read<T: serde::de::DeserializeOwned>(place: &str, value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|error| TrainError::Definition { place: place.to_owned(), problem: error.to_string() })
}

pub(super) fn optimizer(given: &Named) -> Result<Optimizer> {
    let (known, defaults) = optimizers();
    let ((class, config), others) = known.resolve_with(given, &OF_ALL_OPTIMIZERS)?;
    let at = known.classes.iter().position(|(name, _)| *name == class).unwrap_or(0);
    let mut optimizer = defaults[at].clone();
    let place = format!("optimizer {class}");
    let rule = serde_json::to_value(&optimizer.rule).unwrap_or_default();
    let name = rule.as_object().and_then(|rule| rule.keys().next()).cloned().unwrap_or_default();
    let mut tagged = Map::new();
    tagged.insert(name, Value::Object(config));
    optimizer.rule = read(&place, Value::Object(tagged))?;
    for (argument, value) in others {
        let number = || {
            value.as_f64().map(|x| Some(x as f32)).ok_or_else(|| TrainError::Definition {
                place: place.clone(),
                problem: format!("{argument} is a number; received {value}"),
            })
        };
        match argument.as_str() {
            "learning_rate" => optimizer.learning_rate = learning_rate(&place, &value)?,
            "weight_decay" => optimizer.weight_decay = number()?,
            "clipnorm" => optimizer.clipnorm = number()?,
            "clipvalue" => optimizer.clipvalue = number()?,
            "global_clipnorm" => optimizer.global_clipnorm = number()?,
            "use_ema" => optimizer.use_ema = read(&format!("{place}: {argument}"), value)?,
            "ema_momentum" => optimizer.ema_momentum = read(&format!("{place}: {argument}"), value)?,
            "ema_overwrite_frequency" => {
                optimizer.ema_overwrite_frequency = read(&format!("{place}: {argument}"), value)?;
            }
            "gradient_accumulation_steps" => {
                optimizer.gradient_accumulation_steps = read(&format!("{place}: {argument}"), value)?;
            }
            other => return Err(unknown_argument(&place, other, OF_ALL_OPTIMIZERS)),
        }
    }
    optimizer.check()?;
    Ok(optimizer)
}

fn learning_rate(place: &str, given: &Value) -> Result<Schedule> {
    if let Some(rate) = given.as_f64() {
        return Ok(Schedule::from(rate as f32));
    }
    let named = Named::deserialize(given).map_err(|_| TrainError::Definition {
        place: place.to_owned(),
        problem: format!("learning_rate is a number or a schedule with `class`; received {given}"),
    })?;
    schedules().read(&named)
}
