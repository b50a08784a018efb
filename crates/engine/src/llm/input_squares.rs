//! Sums of the squares of what each product of a decoder reads, by column: how much the columns of its weights matter to
//! whoever makes these smaller. Of some layers, the products of each column with every other too,
//! each row scaled to a mean square of 1.

use std::ops::Range;

use formats::model::{Decoder, FeedForward};
use kernels::compute::Compute;

use super::input_products::InputProducts;

/// Of every layer, and of the output.
#[derive(Debug)]
pub struct InputSquares {
    pub layers: Vec<LayerSquares>,
    /// `[h]`.
    pub output: ColumnSquares,
    products: Option<InputProducts>,
}

/// Whose input it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    QueryKeyValue,
    AttentionOutput,
    FeedForward,
    Down,
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
    /// Which of the products are its own.
    products: Option<usize>,
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
        InputSquares { layers: layers.collect(), output: ColumnSquares::new(decoder.hidden), products: None }
    }

    /// Of `layers`, products of at most `columns_max` columns too; a step has at most `rows_max` rows.
    pub(super) fn with_products(
        decoder: &Decoder,
        compute: &Compute,
        layers: Range<usize>,
        columns_max: usize,
        rows_max: usize,
    ) -> InputSquares {
        let mut squares = InputSquares::new(decoder);
        let mut columns = Vec::new();
        for layer in &mut squares.layers[layers] {
            for read in [
                &mut layer.query_key_value,
                &mut layer.attention_output,
                &mut layer.feed_forward,
                &mut layer.down,
            ] {
                if (1..=columns_max).contains(&read.sums.len()) {
                    read.products = Some(columns.len());
                    columns.push(read.sums.len());
                }
            }
        }
        squares.products = Some(InputProducts::new(compute, &columns, rows_max));
        squares
    }

    /// Adds rows that a product of a layer reads.
    pub(super) fn add(&mut self, compute: &Compute, layer: usize, reads: Reads, values: &[f32]) {
        let layer = &mut self.layers[layer];
        let columns = match reads {
            Reads::QueryKeyValue => &mut layer.query_key_value,
            Reads::AttentionOutput => &mut layer.attention_output,
            Reads::FeedForward => &mut layer.feed_forward,
            Reads::Down => &mut layer.down,
        };
        columns.add(values);
        if let (Some(products), Some(index)) = (&mut self.products, columns.products) {
            products.add(compute, index, values);
        }
    }

    /// The sums of products of `columns`, `[n, n]`, where they are gathered.
    pub fn products(&self, columns: &ColumnSquares) -> Option<&[f32]> {
        Some(self.products.as_ref()?.of(columns.products?))
    }
}

impl ColumnSquares {
    fn new(columns: usize) -> ColumnSquares {
        ColumnSquares { sums: vec![0.0; columns], rows: 0, products: None }
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
