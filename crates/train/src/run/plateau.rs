//! A learning rate that becomes less where a figure no longer gets better.
//!
//! Source: Keras's `ReduceLROnPlateau`.

use serde::{Deserialize, Serialize};

use crate::definition::ReduceLrOnPlateau;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Plateau {
    pub best: Option<f64>,
    /// Epochs since the best.
    pub waited: usize,
    /// Epochs that aren't counted, after a change.
    pub cooldown: usize,
}

/// As a checkpoint has it: numbers as their bits.
#[derive(Serialize, Deserialize)]
pub(super) struct PlateauBits {
    best: Option<u64>,
    waited: usize,
    cooldown: usize,
    learning_rate: u32,
}

impl Plateau {
    /// After an epoch with `figure`, trained at `rate`: the new rate, where it changes.
    pub fn judge(&mut self, settings: &ReduceLrOnPlateau, figure: f64, rate: f32) -> Option<f32> {
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.waited = 0;
        }
        let more_is_better = settings.mode.is_more(&settings.monitor);
        let is_better = match self.best {
            Some(best) if more_is_better => figure > best + settings.min_delta,
            Some(best) => figure < best - settings.min_delta,
            None => figure.is_finite(),
        };
        if is_better {
            (self.best, self.waited) = (Some(figure), 0);
            return None;
        }
        if self.cooldown > 0 {
            return None;
        }
        self.waited += 1;
        if self.waited < settings.patience || rate <= settings.min_lr as f32 {
            return None;
        }
        (self.cooldown, self.waited) = (settings.cooldown, 0);
        Some((f64::from(rate) * settings.factor).max(settings.min_lr) as f32)
    }

    pub fn bits(&self, rate: f32) -> PlateauBits {
        let Plateau { best, waited, cooldown } = *self;
        PlateauBits { best: best.map(f64::to_bits), waited, cooldown, learning_rate: rate.to_bits() }
    }
}

impl PlateauBits {
    pub fn read(&self) -> (Plateau, f32) {
        let plateau =
            Plateau { best: self.best.map(f64::from_bits), waited: self.waited, cooldown: self.cooldown };
        (plateau, f32::from_bits(self.learning_rate))
    }
}

/// `fixtures/training/plateau.py` made the goldens.
#[test]
fn rates_are_those_of_kerass_callback() {
    #[derive(Deserialize)]
    struct Golden {
        figures: Vec<f64>,
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        settings: ReduceLrOnPlateau,
        rates: Vec<f32>,
    }
    let golden: Golden =
        serde_json::from_str(include_str!("../../../../fixtures/training/plateau.json")).unwrap();
    for Case { settings, rates } in golden.cases {
        let (mut plateau, mut rate) = (Plateau::default(), 0.01f32);
        for (epoch, (&figure, &expected)) in golden.figures.iter().zip(&rates).enumerate() {
            rate = plateau.judge(&settings, figure, rate).unwrap_or(rate);
            assert_eq!(rate, expected, "{settings:?}, epoch {epoch}");
        }
    }
}
