//! Operations that only move elements, as other views of the same memory.

use kernels::workspace::View;

use crate::graph::Op;

/// The view of what `op` yields, with `shape`, when its operand is at `from`; none if no strides describe it.
pub(super) fn moved(op: &Op, shape: &[usize], from: &View) -> Option<View> {
    match op {
        Op::Reshape => reshaped(from, shape),
        Op::Again => Some(from.clone()),
        Op::Transpose(axes) => {
            let strides = axes.iter().map(|&axis| from.strides[axis]).collect();
            Some(View { offset: from.offset, shape: shape.to_vec(), strides })
        }
        Op::Broadcast => {
            let stride = |axis: usize| if from.shape[axis] == shape[axis] { from.strides[axis] } else { 0 };
            let strides = (0..shape.len()).map(stride).collect();
            Some(View { offset: from.offset, shape: shape.to_vec(), strides })
        }
        Op::Slice { start, step } => {
            let offset: isize =
                start.iter().zip(&from.strides).map(|(&at, &stride)| at as isize * stride).sum();
            let strides =
                step.iter().zip(&from.strides).map(|(&step, &stride)| step as isize * stride).collect();
            Some(View { offset: (from.offset as isize + offset) as usize, shape: shape.to_vec(), strides })
        }
        Op::Reverse(axes) => {
            let mut view = from.clone();
            for &axis in axes {
                let last = (view.shape[axis] as isize - 1) * view.strides[axis];
                view.offset = (view.offset as isize + last) as usize;
                view.strides[axis] = -view.strides[axis];
            }
            Some(view)
        }
        _ => None,
    }
}

/// The same elements in order under another shape, if strides can say that.
pub(super) fn reshaped(from: &View, shape: &[usize]) -> Option<View> {
    let dims = from.collapsed();
    let mut strides = vec![0; shape.len()];
    // Each dimension of the new shape, from the last, is cut from the end of a dimension of the old one.
    let mut left = dims.iter().rev().copied();
    let mut current = left.next();
    let mut taken = 1;
    for axis in (0..shape.len()).rev() {
        if shape[axis] == 1 {
            continue;
        }
        if let Some((size, _)) = current
            && taken == size
        {
            current = left.next();
            taken = 1;
        }
        let (size, stride) = current?;
        if !(size / taken).is_multiple_of(shape[axis]) {
            return None;
        }
        strides[axis] = stride * taken as isize;
        taken *= shape[axis];
    }
    Some(View { offset: from.offset, shape: shape.to_vec(), strides })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_are_views_where_strides_can_say_it() {
        let contiguous = View::contiguous(0, &[2, 3, 4]);
        assert_eq!(reshaped(&contiguous, &[6, 1, 4]).unwrap().strides, [4, 0, 1]);
        let transposed = View { offset: 0, shape: vec![3, 2], strides: vec![1, 3] };
        assert!(reshaped(&transposed, &[6]).is_none());
        assert_eq!(reshaped(&transposed, &[3, 1, 2]).unwrap().strides, [1, 0, 3]);
        let rows = View { offset: 7, shape: vec![4, 6], strides: vec![10, 1] };
        assert_eq!(reshaped(&rows, &[2, 2, 3, 2]).unwrap().strides, [20, 10, 2, 1]);
        assert!(reshaped(&rows, &[8, 3]).is_none());
        let broadcast = View { offset: 0, shape: vec![4, 6], strides: vec![0, 0] };
        assert_eq!(reshaped(&broadcast, &[24]).unwrap().strides, [0]);
    }
}
