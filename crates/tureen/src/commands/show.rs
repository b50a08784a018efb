//! `tureen show`: what a model says of itself.

use anyhow::bail;
use clap::Args;
use formats::onnx::{Dimension, TensorSpec, is_onnx};
use serde_json::{Value, json};

use super::Context;
use super::model::{self, Model};
use super::table::{columns, parameters, size};
use crate::terminal::print;

/// Show what a model is: architecture, size, context, quantisation, template, licence
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A .gguf or .onnx file, a folder, or the name of a model that was pulled
    #[arg(value_name = "MODEL")]
    model: String,
    /// Print the chat template and nothing else
    #[arg(long)]
    template: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "template")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen show smollm2:135m
  tureen show ./model.gguf --template        how messages become a prompt";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let model = model::find(context, &arguments.model)?;
    if is_onnx(&model.path) && !arguments.template {
        return show_onnx(&model, arguments.json);
    }
    let files = model::open(&model.path)?;
    if arguments.template {
        match files.chat_template() {
            Some(template) => print(format!("{template}\n"))?,
            None => bail!(
                "{} has no chat template; it continues texts, and /v1/completions serves it",
                model.name
            ),
        }
        return Ok(());
    }
    let (decoder, facts) = (files.decoder(), files.facts());
    if arguments.json {
        let value = serde_json::json!({
            "name": model.name,
            "path": model.path,
            "family": decoder.family,
            "parameters": facts.parameters,
            "context": decoder.context,
            "quantisation": facts.quantisation,
            "vocabulary": decoder.vocabulary,
            "layers": decoder.layers.len(),
            "hidden": decoder.hidden,
            "bytes": facts.file_bytes,
            "template": files.chat_template().is_some(),
            "licence": facts.licence,
            "kv_element": facts.kv_element.map(|element| element.name()),
            "manifest": model.manifest,
        });
        print(serde_json::to_string_pretty(&value)? + "\n")?;
        return Ok(());
    }
    let attention =
        format!("{} heads of {}, {} for keys and values", decoder.heads, decoder.head_dim, decoder.kv_heads);
    let experts = decoder.experts.map(|experts| format!("{} of {} a token", experts.used, experts.count));
    let origin = model.manifest.as_ref().map(|manifest| manifest.source.clone());
    let sha256 = model.manifest.as_ref().and_then(|manifest| match manifest.files.as_slice() {
        [one] => Some(one.sha256.clone()),
        _ => None,
    });
    let template = if files.chat_template().is_some() { "yes (--template prints it)" } else { "no" };
    let rows = [
        ("name", Some(model.name.clone())),
        ("title", Some(facts.name.clone())),
        ("architecture", Some(decoder.family.clone())),
        ("parameters", Some(parameters(facts.parameters))),
        ("context", Some(format!("{} tokens", decoder.context))),
        ("quantisation", Some(facts.quantisation.clone())),
        ("size", Some(size(facts.file_bytes))),
        ("layers", Some(format!("{}, {} wide", decoder.layers.len(), decoder.hidden))),
        ("attention", Some(attention)),
        ("experts", experts),
        ("keys and values", facts.kv_element.map(|element| format!("{} (made for)", element.name()))),
        ("vocabulary", Some(format!("{} tokens", decoder.vocabulary))),
        ("chat template", Some(template.to_string())),
        ("licence", Some(facts.licence.clone().unwrap_or_else(|| "not said".to_string()))),
        ("path", Some(model.path.display().to_string())),
        ("source", origin),
        ("sha256", sha256),
    ];
    let rows: Vec<Vec<String>> =
        rows.into_iter().filter_map(|(name, value)| Some(vec![name.to_string(), value?])).collect();
    Ok(print(columns(&rows))?)
}

fn show_onnx(model: &Model, as_json: bool) -> anyhow::Result<()> {
    let facts = formats::onnx::read(&model.path)?;
    let operators: usize = facts.operators.values().sum();
    if as_json {
        let spec = |spec: &TensorSpec| json!({ "name": spec.name, "type": spec.element.to_string(), "shape": spec.shape.as_deref().map(shape_json) });
        let value = json!({
            "name": model.name,
            "path": model.path,
            "family": "onnx",
            "parameters": facts.parameters,
            "inputs": facts.signature.inputs.iter().map(spec).collect::<Vec<_>>(),
            "outputs": facts.signature.outputs.iter().map(spec).collect::<Vec<_>>(),
            "operators": facts.operators,
            "opset": facts.opset,
            "producer": facts.producer,
            "bytes": facts.file_bytes,
            "manifest": model.manifest,
        });
        return Ok(print(serde_json::to_string_pretty(&value)? + "\n")?);
    }
    let kinds: Vec<String> = facts.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let mut rows = vec![
        ("name", model.name.clone()),
        ("architecture", "onnx".to_string()),
        ("parameters", parameters(facts.parameters)),
        ("size", size(facts.file_bytes)),
    ];
    rows.extend(facts.signature.inputs.iter().map(|spec| ("input", spec.to_string())));
    rows.extend(facts.signature.outputs.iter().map(|spec| ("output", spec.to_string())));
    rows.push(("operators", format!("{operators}: {}", kinds.join(", "))));
    rows.extend(facts.opset.map(|opset| ("opset", opset.to_string())));
    rows.extend(facts.producer.map(|producer| ("producer", producer)));
    rows.push(("path", model.path.display().to_string()));
    rows.extend(model.manifest.as_ref().map(|manifest| ("source", manifest.source.clone())));
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    Ok(print(columns(&rows))?)
}

/// Lengths as numbers, names or null.
fn shape_json(shape: &[Dimension]) -> Vec<Value> {
    let length = |dimension: &Dimension| match dimension {
        Dimension::Fixed(length) => json!(length),
        Dimension::Dynamic(name) => json!(name),
    };
    shape.iter().map(length).collect()
}
