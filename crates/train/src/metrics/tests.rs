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
