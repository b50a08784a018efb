//! Sums of the squares of what each product of a decoder reads, by column: how much the columns of its weights matter to
//! whoever makes these smaller.

use formats::model::{Decoder, FeedForward};

/// Of every layer, and of the output.
#[derive(Clone, Debug)]
pub struct InputSquares {
    pub layers: Vec<LayerSquares>,
    /// `[h]`.
    pub output: ColumnSquares,
}

#[derive(Clone, Debug)]
pub struct LayerSquares {
    /// `[h]`.
    pub query_key_value: ColumnSquares,
    /// `[a·d]`.
    pub attention_output: ColumnSquares,
    /// Of gate and up, and of the router and all experts' where there are experts: `[h]`.
    pub feed_forward: ColumnSquares,
    /// `[f]`; empty where there are experts.
    pub down: ColumnSquares,
}

/// Sums over rows.
#[derive(Clone, Debug)]
pub struct ColumnSquares {
    pub sums: Vec<f64>,
    pub rows: u64,
}

impl InputSquares {
    pub(super) fn new(decoder: &Decoder) -> InputSquares {
        let layers = decoder.layers.iter().map(|layer| LayerSquares {
            query_key_value: ColumnSquares::new(decoder.hidden),
            attention_output: ColumnSquares::new(decoder.heads * decoder.head_dim),
            feed_forward: ColumnSquares::new(decoder.hidden),
            down: ColumnSquares::new(match layer.feed_forward {
                FeedForward::Dense => decoder.feed_forward,
                FeedForward::Experts => 0,
            }),
        });
        InputSquares { layers: layers.collect(), output: ColumnSquares::new(decoder.hidden) }
    }
}

impl ColumnSquares {
    fn new(columns: usize) -> ColumnSquares {
        ColumnSquares { sums: vec![0.0; columns], rows: 0 }
    }

    /// Adds rows.
    pub(super) fn add(&mut self, values: &[f32]) {
        // Within a batch f32 is exact enough, and quicker.
        let mut squares = vec![0.0f32; self.sums.len()];
        for row in values.chunks_exact(self.sums.len()) {
            squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
            self.rows += 1;
        }
        self.sums.iter_mut().zip(squares).for_each(|(sum, more)| *sum += f64::from(more));
    }

    /// The mean square of each column; `None` where no row came.
    pub fn means(&self) -> Option<Vec<f32>> {
        let rows = self.rows as f64;
        (self.rows > 0).then(|| self.sums.iter().map(|sum| (sum / rows) as f32).collect())
    }
}
