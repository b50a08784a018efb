//! Several calls as one run: rows one below the other, and their results apart again.

use super::tensor::Tensor;

/// Calls' inputs, each in the signature's order, joined along the first dimension. The other dimensions are equal:
/// see [`fit`].
pub(super) fn join<'a>(mut calls: impl Iterator<Item = &'a [Tensor]>) -> Vec<Tensor> {
    let Some(first) = calls.next() else { return Vec::new() };
    let mut joined = first.to_vec();
    for call in calls {
        for (whole, part) in joined.iter_mut().zip(call) {
            whole.shape[0] += part.shape[0];
            whole.elements.append(&part.elements);
        }
    }
    joined
}

/// Outputs of a run of calls of so many rows each, apart; `None` where an output hasn't as many rows as all of them.
pub(super) fn split(outputs: &[Tensor], rows: &[usize]) -> Option<Vec<Vec<Tensor>>> {
    let total: usize = rows.iter().sum();
    if !outputs.iter().all(|output| output.shape.first() == Some(&total)) {
        return None;
    }
    let mut begin = 0;
    let part = |rows: &usize| {
        let end = begin + rows;
        let parts = outputs.iter().map(|output| {
            let width = output.elements.len() / total.max(1);
            let shape = [&[*rows], &output.shape[1..]].concat();
            Tensor { shape, elements: output.elements.part(begin * width..end * width) }
        });
        let parts = parts.collect();
        begin = end;
        parts
    };
    Some(rows.iter().map(part).collect())
}

/// Rows of a call that can be run with others: its inputs have equally many, and at least one.
pub(super) fn rows(inputs: &[Tensor]) -> Option<usize> {
    let rows = *inputs.first()?.shape.first()?;
    (rows > 0 && inputs.iter().all(|input| input.shape.first() == Some(&rows))).then_some(rows)
}

/// Whether two calls can be one run: all but the first dimensions are equal.
pub(super) fn fit(one: &[Tensor], other: &[Tensor]) -> bool {
    one.iter().zip(other).all(|(one, other)| one.shape.get(1..) == other.shape.get(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_comes_apart_again() {
        let call = |rows: usize, begin: i32| {
            let wide = (0..rows as i32 * 2).map(|at| begin + at).collect();
            vec![Tensor::int32(&[rows, 2], wide), Tensor::float(&[rows], vec![begin as f32; rows])]
        };
        let calls = [call(1, 0), call(3, 10), call(2, 100)];
        let joined = join(calls.iter().map(Vec::as_slice));
        assert_eq!(joined[0].shape, [6, 2]);
        assert_eq!(split(&joined, &[1, 3, 2]).unwrap(), calls);
        assert_eq!(split(&joined, &[1, 3]), None);
        assert!(fit(&calls[0], &calls[1]));
        assert!(!fit(&[Tensor::float(&[1, 2], vec![0.0; 2])], &[Tensor::float(&[1, 3], vec![0.0; 3])]));
        assert_eq!((rows(&calls[1]), rows(&[])), (Some(3), None));
        assert_eq!(rows(&[Tensor::float(&[0, 2], Vec::new())]), None);
    }
}
