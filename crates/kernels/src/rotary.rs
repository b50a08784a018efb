//! Rotary position embedding of one head.
//!
//! Source: Su et al., "RoFormer" (2021).

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Pairs `(2i, 2i+1)`.
    Interleaved,
    /// Pairs `(i, i + n)` for `n` pairs.
    Halves,
}

/// Turns the leading `2 * cos.len()` elements of `head` by the angles whose cosines and sines are given.
///
/// # Panics
/// When the head is shorter than that, or `cos` and `sin` differ in length.
pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], layout: Layout) {
    let pairs = cos.len();
    assert_eq!(pairs, sin.len(), "as many sines as cosines");
    let head = &mut head[..2 * pairs];
    match layout {
        Layout::Interleaved => {
            for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[0] * s + pair[1] * c);
            }
        }
        Layout::Halves => {
            let (first, second) = head.split_at_mut(pairs);
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(layout: Layout, expected: [f32; 6]) {
        let mut head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        // A quarter turn, and none; the last two elements are not rotated.
        rotate(&mut head, &[0.0, 1.0], &[1.0, 0.0], layout);
        assert_eq!(head, expected);
    }

    #[test]
    fn pairs_are_those_of_the_layout() {
        check(Layout::Interleaved, [-2.0, 1.0, 3.0, 4.0, 5.0, 6.0]);
        check(Layout::Halves, [-3.0, 2.0, 1.0, 4.0, 5.0, 6.0]);
    }
}
