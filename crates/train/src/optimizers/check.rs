//! Arguments that make no sense, before a step is taken with them.

use super::{Optimizer, Rule};
use crate::error::{Result, TrainError};
use crate::schedules::Schedule;

/// Iterations of Newton and Schulz in a step of Muon, at most: each is products of its own.
const NS_STEPS_MAX: usize = 100;

/// What a number must be.
#[derive(Clone, Copy)]
enum Kind {
    /// 0 or more.
    Amount,
    /// More than 0.
    Positive,
    /// 1 or more.
    AtLeastOne,
    /// 0 to 1.
    Share,
    /// 0 to 1, and not 1: what an average keeps of itself.
    Kept,
}

impl Kind {
    fn takes(self, x: f32) -> bool {
        x.is_finite()
            && match self {
                Kind::Amount => x >= 0.0,
                Kind::Positive => x > 0.0,
                Kind::AtLeastOne => x >= 1.0,
                Kind::Share => (0.0..=1.0).contains(&x),
                Kind::Kept => (0.0..1.0).contains(&x),
            }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Amount => "0 or more",
            Kind::Positive => "more than 0",
            Kind::AtLeastOne => "1 or more",
            Kind::Share => "0 to 1",
            Kind::Kept => "0 to 1, and not 1",
        }
    }
}

use Kind::{Amount, AtLeastOne, Kept, Positive, Share};

type Argument = (&'static str, f32, Kind);

impl Optimizer {
    /// # Errors
    /// When a number makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        let mut arguments: Vec<Argument> = vec![("ema_momentum", self.ema_momentum, Share)];
        let given = [
            ("weight_decay", self.weight_decay, Amount),
            ("clipnorm", self.clipnorm, Positive),
            ("clipvalue", self.clipvalue, Positive),
            ("global_clipnorm", self.global_clipnorm, Positive),
        ];
        arguments.extend(given.into_iter().filter_map(|(name, value, kind)| Some((name, value?, kind))));
        arguments.extend(of_rule(&self.rule));
        check("optimizer", &arguments)?;
        for (argument, steps, least) in [
            ("ema_overwrite_frequency", self.ema_overwrite_frequency, 1),
            // As Keras has it: a single batch is no gathering.
            ("gradient_accumulation_steps", self.gradient_accumulation_steps, 2),
        ] {
            if let Some(steps) = steps.filter(|&steps| steps < least) {
                return Err(wrong("optimizer", argument, &format!("{least} or more"), steps.to_string()));
            }
        }
        if let Rule::Muon(muon) = &self.rule
            && muon.ns_steps > NS_STEPS_MAX
        {
            let expected = format!("at most {NS_STEPS_MAX}");
            return Err(wrong("optimizer", "ns_steps", &expected, muon.ns_steps.to_string()));
        }
        if let Schedule::PiecewiseConstantDecay { boundaries, values } = &self.learning_rate {
            let place = "learning_rate";
            if values.len() != boundaries.len() + 1 {
                let expected = format!("a value more than there are boundaries, {}", boundaries.len() + 1);
                return Err(wrong(place, "values", &expected, values.len().to_string()));
            }
            if !boundaries.is_sorted_by(|a, b| a < b) {
                return Err(wrong(place, "boundaries", "rising steps", format!("{boundaries:?}")));
            }
        }
        check("learning_rate", &of_schedule(&self.learning_rate))
    }
}

fn check(place: &str, arguments: &[Argument]) -> Result<()> {
    match arguments.iter().find(|(_, value, kind)| !kind.takes(*value)) {
        Some((argument, value, kind)) => Err(wrong(place, argument, kind.words(), value.to_string())),
        None => Ok(()),
    }
}

fn wrong(place: &str, argument: &'static str, expected: &str, received: String) -> TrainError {
    TrainError::Argument { place: place.to_owned(), argument, expected: expected.to_owned(), received }
}

fn of_rule(rule: &Rule) -> Vec<Argument> {
    let betas = |one: f32, two: f32| vec![("beta_1", one, Kept), ("beta_2", two, Kept)];
    match *rule {
        Rule::SGD { momentum, .. } => vec![("momentum", momentum, Share)],
        Rule::RMSprop { rho, momentum, epsilon, .. } => {
            vec![("rho", rho, Kept), ("momentum", momentum, Share), ("epsilon", epsilon, Amount)]
        }
        Rule::Adam { beta_1, beta_2, epsilon, .. }
        | Rule::Nadam { beta_1, beta_2, epsilon }
        | Rule::Adamax { beta_1, beta_2, epsilon }
        | Rule::Lamb { beta_1, beta_2, epsilon } => {
            [betas(beta_1, beta_2), vec![("epsilon", epsilon, Amount)]].concat()
        }
        Rule::Adagrad { initial_accumulator_value, epsilon } => {
            let begins = ("initial_accumulator_value", initial_accumulator_value, Amount);
            vec![begins, ("epsilon", epsilon, Amount)]
        }
        Rule::Adadelta { rho, epsilon } => vec![("rho", rho, Kept), ("epsilon", epsilon, Amount)],
        Rule::Adafactor { epsilon_1, epsilon_2, clip_threshold, .. } => vec![
            ("epsilon_1", epsilon_1, Amount),
            ("epsilon_2", epsilon_2, Amount),
            ("clip_threshold", clip_threshold, Positive),
        ],
        Rule::Lion { beta_1, beta_2 } => betas(beta_1, beta_2),
        Rule::Muon(ref muon) => vec![
            ("adam_beta_1", muon.adam_beta_1, Kept),
            ("adam_beta_2", muon.adam_beta_2, Kept),
            ("epsilon", muon.epsilon, Amount),
            ("momentum", muon.momentum, Share),
        ],
    }
}

fn of_schedule(schedule: &Schedule) -> Vec<Argument> {
    match *schedule {
        Schedule::Constant { learning_rate } => vec![("learning_rate", learning_rate, Amount)],
        Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, .. }
        | Schedule::InverseTimeDecay { initial_learning_rate, decay_steps, decay_rate, .. } => vec![
            ("initial_learning_rate", initial_learning_rate, Amount),
            ("decay_steps", decay_steps, Positive),
            ("decay_rate", decay_rate, Amount),
        ],
        Schedule::PiecewiseConstantDecay { ref values, .. } => {
            values.iter().map(|&value| ("values", value, Amount)).collect()
        }
        Schedule::PolynomialDecay {
            initial_learning_rate, decay_steps, end_learning_rate, power, ..
        } => vec![
            ("initial_learning_rate", initial_learning_rate, Amount),
            ("decay_steps", decay_steps, Positive),
            ("end_learning_rate", end_learning_rate, Amount),
            ("power", power, Amount),
        ],
        Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha, warmup_target, warmup_steps } => {
            vec![
                ("initial_learning_rate", initial_learning_rate, Amount),
                ("decay_steps", decay_steps, Positive),
                ("alpha", alpha, Amount),
                ("warmup_target", warmup_target.unwrap_or(0.0), Amount),
                ("warmup_steps", warmup_steps, Amount),
            ]
        }
        // Cycles that grow shorter would be without number.
        Schedule::CosineDecayRestarts { initial_learning_rate, first_decay_steps, t_mul, m_mul, alpha } => {
            vec![
                ("initial_learning_rate", initial_learning_rate, Amount),
                ("first_decay_steps", first_decay_steps, AtLeastOne),
                ("t_mul", t_mul, AtLeastOne),
                ("m_mul", m_mul, Amount),
                ("alpha", alpha, Amount),
            ]
        }
        Schedule::OneCycle { max_learning_rate, total_steps, pct_start, div_factor, final_div_factor } => {
            vec![
                ("max_learning_rate", max_learning_rate, Amount),
                ("total_steps", total_steps, AtLeastOne),
                ("pct_start", pct_start, Share),
                ("div_factor", div_factor, Positive),
                ("final_div_factor", final_div_factor, Positive),
            ]
        }
    }
}

#[test]
fn arguments_that_make_no_sense_are_said() {
    use super::{Adam, SGD, Settings};
    let said = |optimizer: Optimizer| optimizer.check().unwrap_err().to_string();
    assert_eq!(said(Adam.clipnorm(-1.0)), "optimizer: clipnorm takes more than 0; received -1");
    assert_eq!(
        said(Adam.learning_rate(f32::NAN)),
        "learning_rate: learning_rate takes 0 or more; received NaN"
    );
    let sgd = Optimizer::new(Rule::SGD { momentum: -3.0, nesterov: false }, 0.1);
    assert_eq!(said(sgd), "optimizer: momentum takes 0 to 1; received -3");
    let restarts = |t_mul: f32| {
        let schedule = Schedule::CosineDecayRestarts {
            initial_learning_rate: 0.1,
            first_decay_steps: 10.0,
            t_mul,
            m_mul: 1.0,
            alpha: 0.0,
        };
        SGD.learning_rate(schedule)
    };
    assert!(said(restarts(0.5)).contains("t_mul takes 1 or more") && restarts(1.0).check().is_ok());
    let steps = |boundaries: Vec<u64>, values: Vec<f32>| {
        SGD.learning_rate(Schedule::PiecewiseConstantDecay { boundaries, values })
    };
    assert!(
        said(steps(vec![3], vec![0.1])).contains("values takes a value more than there are boundaries, 2")
    );
    assert!(said(steps(vec![3, 1], vec![0.1; 3])).contains("rising steps"));
    assert!(steps(vec![1, 3], vec![0.1; 3]).check().is_ok());
}
