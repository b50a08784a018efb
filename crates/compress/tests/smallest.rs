//! A tiny Llama (`fixtures/decoders/llama`) as small as is asked for, or as nothing more than is allowed is lost.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

mod tiny;

use std::ops::ControlFlow;

use compress::mix::Types;
use compress::rewrite::{Changes, rewrite};
use compress::smallest::{Asked, Choice, check_size, choose};
use compress::{CompressError, Importance, Mix, Phase, Progress, Source, Wish, measure};
use tiny::{compute, go, text, tiny};

const SENTENCES: usize = 100;

fn chosen(wish: Wish) -> Result<Choice, CompressError> {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(&tiny()).unwrap();
    let mut on = |_, _| ControlFlow::Continue(());
    let importance = Importance::measure(&tiny(), &compute(), &text(SENTENCES), &[], &mut on).unwrap();
    let text = text(SENTENCES);
    let asked = Asked { wish, text: &text, importance: Some(&importance), kv_element: None };
    let found = choose((&tiny(), &source), &compute(), &asked, folder.path(), &mut go);
    assert!(folder.path().read_dir().unwrap().all(|file| file.unwrap().file_name() == "trial.gguf"));
    found
}

/// Bytes, and divergence over the text.
fn made(types: Types<'_>) -> (u64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small.gguf");
    let source = Source::open(&tiny()).unwrap();
    let rewritten = rewrite(&compute(), &source, Changes::new(types), &out, &mut go).unwrap();
    let mut on = |_, _| ControlFlow::Continue(());
    let found = measure::compare(&tiny(), &out, &compute(), &text(SENTENCES), usize::MAX, &mut on).unwrap();
    (rewritten.bytes_after, found.kl_mean)
}

#[test]
fn a_size_is_kept_and_used() {
    let of = |mix: &str| made(Types::Mix(Mix::find(mix).unwrap()));
    for mix in ["Q8_0", "Q5_0"] {
        let (bytes_max, lost) = of(mix);
        let choice = chosen(Wish { bytes_max: Some(bytes_max), loss_max: None }).unwrap();
        let (bytes, loss) = made(Types::Each(&choice.types));
        assert!(bytes <= bytes_max, "{mix}: {bytes} of {bytes_max}");
        assert!(bytes * 10 > bytes_max * 9, "{mix}: {bytes} of {bytes_max}");
        assert!(loss < lost * 1.5, "{mix}: {loss}, and one type for all {lost}");
        assert!(choice.sensitivities.iter().all(|found| found.divergence.is_finite() && found.matrices > 0));
    }
}

#[test]
fn no_more_is_lost_than_is_allowed() {
    let sizes: Vec<u64> = [0.3, 0.01]
        .map(|loss_max| {
            let choice = chosen(Wish { bytes_max: None, loss_max: Some(loss_max) }).unwrap();
            assert!(choice.loss <= loss_max, "{} of {loss_max}", choice.loss);
            made(Types::Each(&choice.types)).0
        })
        .to_vec();
    let original = std::fs::metadata(tiny()).unwrap().len();
    assert!(sizes[0] < sizes[1] && sizes[1] < original, "{sizes:?} of {original}");
    let none = chosen(Wish { bytes_max: None, loss_max: Some(0.0) }).unwrap();
    assert_eq!(none.loss, 0.0);
}

#[test]
fn what_can_t_be_had_says_what_can() {
    let check = |wish: Wish, said: &str| {
        let error = chosen(wish).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    };
    check(Wish { bytes_max: Some(1000), loss_max: None }, "with all weights in the fewest bits it has");
    // The same is said before there is work.
    let source = Source::open(&tiny()).unwrap();
    let least = |bytes: u64| check_size(&source, bytes, None).err().map(|error| error.to_string());
    let said = least(1000).unwrap();
    let bytes: u64 = said.split(' ').rev().nth(1).unwrap().parse().unwrap();
    assert!(said.contains("fewest bits") && least(bytes).is_none() && least(bytes - 1).is_some(), "{said}");
    let (all, _) = made(Types::Each(&chosen(Wish { bytes_max: Some(bytes), loss_max: None }).unwrap().types));
    assert_eq!(all, bytes);
    let (bytes, _) = made(Types::Mix(Mix::find("Q4_0").unwrap()));
    check(Wish { bytes_max: Some(bytes), loss_max: Some(1e-9) }, "at this size it is");
}

#[test]
fn it_stops_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(&tiny()).unwrap();
    let wish = Wish { bytes_max: Some(1 << 20), loss_max: None };
    let mut seen = 0;
    let mut stop = |progress: Progress| {
        assert_eq!(progress.phase, Phase::Choosing);
        seen += 1;
        if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let asked = Asked { wish, text: &text(SENTENCES), importance: None, kv_element: None };
    let found = choose((&tiny(), &source), &compute(), &asked, folder.path(), &mut stop);
    assert!(matches!(found, Err(CompressError::Stopped)), "{found:?}");
}
