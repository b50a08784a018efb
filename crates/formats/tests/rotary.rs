//! Rotary frequencies against those of `transformers` (`make_rotary_golden.py` wrote the golden file).

use formats::decoder::read_config;
use serde_json::Value;

#[test]
fn frequencies_are_those_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("rotary_golden.json")).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let decoder = read_config(&case["config"]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let rotaries = decoder.rotaries_at(case["context"].as_u64().unwrap() as usize);
        let expected = case["frequencies"].as_array().unwrap();
        assert_eq!(rotaries.len(), 1, "{name}");
        assert_eq!(rotaries[0].frequencies.len(), expected.len(), "{name}");
        let numbers = rotaries[0].frequencies.iter().zip(expected.iter().map(|x| x.as_f64().unwrap()));
        let factor = (&rotaries[0].attention_factor, case["attention_factor"].as_f64().unwrap());
        for (found, expected) in numbers.chain([factor]) {
            assert!(
                (f64::from(*found) / expected - 1.0).abs() < 1e-6,
                "{name}: {found}, expected {expected}"
            );
        }
    }
}
