//! What something takes, as it was measured of late.

/// Measurements that count.
const LATEST: usize = 5;

/// The median of the last measurements: one or two that were held up by something else change nothing, and three that
/// weren't change it for good.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    /// The last of them, in seconds, each in the place of the one five before.
    latest: [f64; LATEST],
    count: usize,
}

impl Measured {
    pub fn learn(&mut self, seconds: f64) {
        self.latest[self.count % LATEST] = seconds;
        self.count += 1;
    }

    /// Seconds; of an even number of measurements, the lower one of the two in the middle. `None` before the first.
    pub fn get(&self) -> Option<f64> {
        let known = self.count.min(LATEST);
        let mut sorted = self.latest;
        sorted[..known].sort_unstable_by(f64::total_cmp);
        known.checked_sub(1).map(|last| sorted[last / 2])
    }
}

#[test]
fn it_is_the_median_of_the_last_five() {
    let mut measured = Measured::default();
    assert_eq!(measured.get(), None);
    let expected = [9.0, 2.0, 3.0, 2.0, 3.0, 3.0, 5.0, 6.0];
    for (seconds, expected) in [9.0, 2.0, 3.0, 1.0, 5.0, 7.0, 6.0, 8.0].into_iter().zip(expected) {
        measured.learn(seconds);
        assert_eq!(measured.get(), Some(expected), "after {seconds}");
    }
}
