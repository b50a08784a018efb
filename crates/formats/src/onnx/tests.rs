//! What is read of ONNX files, and what is refused.

use super::*;
use messages::{Attribute, Entry, Node, Shape, TensorType};

fn value(name: &str, elem_type: i32, dims: &[Option<i64>]) -> ValueInfo {
    let dim = |dim_value: &Option<i64>| messages::Dimension { dim_value: *dim_value, dim_param: None };
    let shape = Some(Shape { dim: dims.iter().map(dim).collect() });
    let tensor_type = Some(TensorType { elem_type, shape });
    ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor_type, ..Type::default() }) }
}

fn model(graph: Graph) -> Vec<u8> {
    Model { graph: Some(graph), ..Model::default() }.encode_to_vec()
}

fn plain() -> Graph {
    Graph {
        input: vec![value("x", 1, &[None, Some(3)])],
        output: vec![value("y", 7, &[])],
        ..Graph::default()
    }
}

fn check(bytes: &[u8], expected: &str) {
    let outcome = match parse(bytes) {
        Ok(facts) => format!("{} -> {}", facts.signature.inputs[0], facts.signature.outputs[0]),
        Err(error) => error.to_string(),
    };
    assert!(outcome.contains(expected), "{outcome:?} doesn't have {expected:?}");
}

#[test]
fn a_signature_is_read_and_what_has_no_type_here_is_named() {
    check(&model(plain()), "x float[?, 3] -> y int64[]");
    check(
        &model(Graph { input: vec![value("s", 8, &[])], ..plain() }),
        "the type of the input \"s\" is string",
    );
    check(&model(Graph { output: Vec::new(), ..plain() }), "the graph has no output");
    check(&model(Graph { input: vec![value("", 1, &[])], ..plain() }), "a name of 0 bytes");
    let twice = vec![value("x", 1, &[]), value("x", 1, &[])];
    check(&model(Graph { input: twice, ..plain() }), "two inputs are called \"x\"");
    check(b"", "it has no graph");
    check(b"not a model", "malformed ONNX");
}

#[test]
fn weights_among_the_inputs_are_no_inputs() {
    let weight = TensorData { name: "w".to_owned(), dims: vec![3, 4], ..TensorData::default() };
    let input = vec![value("x", 1, &[None]), value("w", 1, &[Some(3), Some(4)])];
    let bytes = model(Graph { input, initializer: vec![weight], ..plain() });
    let facts = parse(&bytes[..]).unwrap();
    assert_eq!((facts.signature.inputs.len(), facts.parameters), (1, 12));
}

#[test]
fn shapes_that_cannot_be_counted_and_files_elsewhere_are_refused() {
    let weights = |dims: &[i64], file: &str| {
        let entry = Entry { key: "location".to_owned(), value: file.to_owned() };
        let data_location = if file.is_empty() { 0 } else { EXTERNAL };
        let name = "w".to_owned();
        let weight = TensorData {
            name,
            dims: dims.to_vec(),
            data_location,
            external_data: vec![entry],
            ..TensorData::default()
        };
        model(Graph { initializer: vec![weight], ..plain() })
    };
    check(&weights(&[i64::MAX, 4], ""), "lengths from 0 whose product can be counted");
    check(&weights(&[-1], ""), "the shape of the weights \"w\" is [-1]");
    check(&weights(&[1], "../secret.data"), "expected the name of a file in the same folder");
    check(&weights(&[1], "/etc/passwd"), "expected the name of a file in the same folder");
    let facts = parse(&weights(&[1], "model.onnx_data")[..]).unwrap();
    assert_eq!(facts.external_files.into_iter().collect::<Vec<_>>(), ["model.onnx_data"]);
}

#[test]
fn graphs_nested_without_end_and_lengths_beyond_the_file_are_refused() {
    let mut graph = plain();
    for _ in 0..60 {
        let attribute = vec![Attribute { g: Some(Box::new(graph)), ..Attribute::default() }];
        graph = Graph { node: vec![Node { attribute, ..Node::default() }], ..plain() };
    }
    check(&model(graph), "recursion limit");
    let mut bytes = model(plain());
    bytes.truncate(bytes.len() - 3);
    check(&bytes, "malformed ONNX");
    // graph: a message of nearly 2^63 bytes
    check(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "malformed ONNX");
}

#[test]
fn what_is_written_is_read_without_what_nothing_uses() {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        element: ElementType::Float,
        shape: Some(vec![Dimension::Dynamic(Some("batch".to_owned())), Dimension::Fixed(2)]),
    };
    let mut writer = GraphWriter::new("model");
    writer.input(&spec("x"));
    writer.reserve("y");
    let weight = writer.floats("w", &[2], &[1.0, 2.0]);
    let unused = writer.floats("w", &[3], &[0.0; 3]);
    assert_eq!((weight.as_str(), unused.as_str()), ("w", "w_1"));
    let sum = writer.node("Add", &["x", &weight], &[]);
    writer.node("Mul", &["x", &unused], &[]);
    writer.output(&spec("y"), &sum);
    writer.output(&spec("again"), &sum);
    let facts = parse(&writer.finish("test").unwrap()[..]).unwrap();
    assert_eq!(facts.signature.inputs, [spec("x")]);
    assert_eq!(facts.signature.outputs, [spec("y"), spec("again")]);
    let operators: Vec<(&str, usize)> =
        facts.operators.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!((operators, facts.parameters), (vec![("Add", 1), ("Identity", 1)], 2));
}

#[test]
fn what_the_runtime_computes_otherwise_is_said_or_mended() {
    let node = |operator: &str, attribute: Vec<Attribute>| Node {
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        op_type: operator.to_owned(),
        attribute,
        ..Node::default()
    };
    let mode = |mode: &'static str| {
        vec![Attribute {
            name: "mode".to_owned(),
            s: Bytes::from_static(mode.as_bytes()),
            ..Attribute::default()
        }]
    };
    let facts = |node: Node| parse(&model(Graph { node: vec![node], ..plain() })[..]).unwrap();
    assert!(facts(node("Resize", mode("linear"))).deviations.is_empty());
    assert!(facts(node("Resize", mode("cubic"))).deviations.first().unwrap().contains("cubic"));
    assert!(facts(node("NonMaxSuppression", vec![])).deviations.first().unwrap().contains("any class"));
    assert!(!facts(node("Abs", vec![])).needs_mending);
    // One in a branch as well.
    let branch = Graph { node: vec![node("Sign", vec![])], ..Graph::default() };
    let attribute =
        Attribute { name: "then_branch".to_owned(), g: Some(Box::new(branch)), ..Attribute::default() };
    let bytes = model(Graph { node: vec![node("If", vec![attribute]), node("Sign", vec![])], ..plain() });
    let before = parse(&bytes[..]).unwrap();
    assert!(before.needs_mending && before.deviations.is_empty());
    let after = parse(&mended(bytes.into()).unwrap()[..]).unwrap();
    let counts: Vec<(&str, usize)> =
        after.operators.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, [("Equal", 2), ("If", 1), ("Sign", 2), ("Sub", 2), ("Where", 2)]);
}
