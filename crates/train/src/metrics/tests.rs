//! Metrics against Keras. `fixtures/training/f_scores.py` made the goldens.

use serde::Deserialize;

use crate::prelude::*;

#[derive(Deserialize)]
struct Golden {
    t: Vec<f32>,
    y: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    average: Option<super::Average>,
    threshold: Option<f32>,
    beta: Option<f32>,
    scores: Vec<f64>,
}

#[test]
fn f_scores_are_kerass() {
    let golden: Golden =
        serde_json::from_str(include_str!("../../../../fixtures/training/f_scores.json")).unwrap();
    let [y, t] = [golden.y, golden.t].map(|values| Array::new([60, 5], values).unwrap());
    let inputs = Input::new([5]);
    let mut model = Model::with(&inputs, ActivationLayer::new(Linear).on(&inputs), 1, 1).unwrap();
    for Case { average, threshold, beta, scores } in golden.cases {
        let metric = match beta {
            Some(beta) => Metric::FBetaScore { average, beta, threshold },
            None => Metric::F1Score { average, threshold },
        };
        model.compile(SGD, MeanSquaredError, [metric.clone()]).unwrap();
        let figures = model.evaluate(&y, &t, 7).unwrap().split_off(1);
        assert_eq!(figures.len(), scores.len(), "{metric:?}");
        for ((name, figure), score) in figures.iter().zip(&scores) {
            assert!((figure - score).abs() < 1e-6, "{metric:?}: {name} is {figure}, and {score} in Keras");
        }
    }
}

#[derive(Deserialize)]
struct Counts {
    right: Vec<f32>,
    share: Vec<f32>,
    classes: Vec<f32>,
    scores: Vec<f32>,
    values: Vec<f32>,
    pairs: Vec<f64>,
    cases: Vec<Counted>,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(flatten)]
    metric: Metric,
    target: String,
    value: f64,
}

/// Figures of `metric`, in batches of 7.
fn figures(metric: Metric, loss: Loss, t: &[f32], y: &[f32]) -> Vec<(String, f64)> {
    let width = y.len() / 60;
    let inputs = Input::new([width]);
    let mut model = Model::with(&inputs, ActivationLayer::new(Linear).on(&inputs), 1, 1).unwrap();
    model.compile(SGD, loss, [metric]).unwrap();
    let [t, y] = [t, y].map(|values| Array::new([60, values.len() / 60], values.to_vec()).unwrap());
    model.evaluate(&y, &t, 7).unwrap().split_off(1)
}

#[test]
fn counts_and_rates_are_kerass() {
    let golden: Counts =
        serde_json::from_str(include_str!("../../../../fixtures/training/metrics.json")).unwrap();
    for Counted { metric, target, value } in golden.cases {
        let (t, y) = match &*target {
            "right" => (&golden.right, &golden.share),
            "classes" => (&golden.classes, &golden.scores),
            _ => (&golden.values, &golden.scores),
        };
        let found = figures(metric.clone(), MeanSquaredError.into(), t, y);
        assert!((found[0].1 - value).abs() < 1e-5, "{metric:?}: {found:?}, and {value} in Keras");
    }
    let numbers: Vec<f32> =
        golden.classes.chunks(4).map(|row| row.iter().position(|x| *x == 1.0).unwrap() as f32).collect();
    for (loss, t) in
        [(MeanSquaredError.into(), &golden.classes), (SparseCategoricalCrossentropy.into(), &numbers)]
    {
        let found = figures(Metric::ConfusionMatrix {}, loss, t, &golden.scores);
        let counts: Vec<f64> = found.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, golden.pairs);
        assert_eq!(
            (found[0].0.as_str(), found[6].0.as_str()),
            ("confusion_matrix_0_0", "confusion_matrix_1_2")
        );
    }
    let two = figures(Metric::ConfusionMatrix {}, MeanSquaredError.into(), &golden.right, &golden.share);
    assert_eq!((two.len(), two.iter().map(|(_, count)| *count).sum::<f64>()), (4, 60.0));
}
