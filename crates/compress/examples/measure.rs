//! Compresses a model and measures it without the command around it: what `bench/compress` runs.
//!
//! Usage: `measure importance MODEL TEXT OUT.json`, `measure make MODEL MIX OUT [IMPORTANCE.json]`, `measure gptq MODEL MIX
//! OUT TEXT` or `measure compare MODEL OTHER TEXT`; the last three print a line of JSON.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use compress::mix::Types;
use compress::rewrite::{Changes, rewrite};
use compress::smallest::{self, Asked};
use compress::{Hessians, Importance, Mix, Source, Wish, measure};
use kernels::compute::{Compute, Isa};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let compute = Arc::new(Compute::new(Isa::detect(), 2));
    let on = |_, _| ControlFlow::Continue(());
    match arguments.as_slice() {
        ["importance", model, text, out] => {
            let text = std::fs::read_to_string(text)?;
            let importance = Importance::measure(Path::new(model), &compute, &text, &[], &mut { on })?;
            let columns: BTreeMap<&str, &[f32]> = importance.tensors().collect();
            std::fs::write(out, serde_json::to_string(&columns)?)?;
        }
        ["make", model, mix, out, rest @ ..] => {
            let mix = Mix::find(mix).ok_or_else(|| anyhow::anyhow!("no mix {mix}"))?;
            let importance = match rest.first() {
                Some(file) => Some(Importance::new(serde_json::from_slice(&std::fs::read(file)?)?)),
                None => None,
            };
            let began = Instant::now();
            let source = Source::open(Path::new(model))?;
            let importance = importance.as_ref();
            let go = &mut |_| ControlFlow::Continue(());
            let changes = Changes { importance, ..Changes::to(mix) };
            let rewritten = rewrite(&compute, &source, changes, Path::new(out), go)?;
            let seconds = began.elapsed().as_secs_f64();
            println!("{{\"bytes\": {}, \"seconds\": {seconds:.3}}}", rewritten.bytes_after);
        }
        ["gptq", model, mix, out, text] => {
            let mix = Mix::find(mix).ok_or_else(|| anyhow::anyhow!("no mix {mix}"))?;
            let text = std::fs::read_to_string(text)?;
            let importance = Importance::measure(Path::new(model), &compute, &text, &[], &mut { on })?;
            let began = Instant::now();
            let mut hessians = Hessians::open(Path::new(model), &compute, &text, &[])?;
            let (importance, hessians) = (Some(&importance), Some(&mut hessians));
            let changes = Changes { importance, hessians, ..Changes::to(mix) };
            let source = Source::open(Path::new(model))?;
            let go = &mut |_| ControlFlow::Continue(());
            let rewritten = rewrite(&compute, &source, changes, Path::new(out), go)?;
            let seconds = began.elapsed().as_secs_f64();
            println!("{{\"bytes\": {}, \"seconds\": {seconds:.3}}}", rewritten.bytes_after);
        }
        ["smallest", model, bytes, out, text] => {
            make_smallest(&compute, Path::new(model), bytes.parse()?, Path::new(out), text)?;
        }
        ["compare", model, other, text] => {
            let text = std::fs::read_to_string(text)?;
            let mut on = on;
            let found =
                measure::compare(Path::new(model), Path::new(other), &compute, &text, usize::MAX, &mut on)?;
            println!(
                "{{\"perplexity\": {:.4}, \"original\": {:.4}, \"kl\": {:.6}, \"same_first\": {:.4}, \"tokens\": {}}}",
                found.compressed.perplexity,
                found.original.perplexity,
                found.kl_mean,
                found.same_first,
                found.tokens
            );
        }
        _ => anyhow::bail!(
            "usage: measure importance MODEL TEXT OUT | make MODEL MIX OUT [IMPORTANCE] | gptq MODEL MIX OUT TEXT | compare MODEL OTHER TEXT"
        ),
    }
    Ok(())
}

/// The best of so many bytes, with types that are chosen by the text.
fn make_smallest(
    compute: &Arc<Compute>,
    model: &Path,
    bytes: u64,
    out: &Path,
    text: &str,
) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(text)?;
    let importance = Importance::measure(model, compute, &text, &[], &mut |_, _| ControlFlow::Continue(()))?;
    let began = Instant::now();
    let source = Source::open(model)?;
    let wish = Wish { bytes_max: Some(bytes), loss_max: None };
    let asked = Asked { wish, text: &text, importance: Some(&importance), kv_element: None };
    let folder = out.parent().unwrap_or(Path::new("."));
    let go = &mut |_| ControlFlow::Continue(());
    let from = (model, &source);
    let choice = smallest::choose(from, compute, &asked, folder, go)?;
    let changes = Changes { importance: Some(&importance), ..Changes::new(Types::Each(&choice.types)) };
    let rewritten = rewrite(compute, &source, changes, out, go)?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{{\"bytes\": {}, \"seconds\": {seconds:.3}}}", rewritten.bytes_after);
    Ok(())
}
