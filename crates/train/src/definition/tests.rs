//! Definitions: what they become, and what is said of those that are wrong.

use super::*;

/// A definition with these layers, optimiser and rest.
fn definition(layers: &str, optimizer: &str, rest: &str) -> String {
    format!(
        "[model]\ninput = [12, 12, 1]\nlayers = [\n{layers}\n]\n[data]\npath = 'a.csv'\n[compile]\noptimizer = \
         {optimizer}\nloss = 'mse'\n{rest}"
    )
}

fn build(text: &str) -> Result<crate::model::Model> {
    let definition = Definition::parse(text)?;
    let mut model = definition.model.build(definition.data.normalize, 1, 1)?;
    definition.compile.apply(&mut model)?;
    Ok(model)
}

fn error(text: &str) -> String {
    build(text).map(|_| ()).unwrap_err().to_string()
}

const DENSE: &str = "{ class = 'Flatten' }, { class = 'Dense', units = 3 }";

#[test]
fn the_template_is_a_definition() {
    let model = build(TEMPLATE).unwrap();
    assert_eq!(model.output_shape(0), [10]);
    assert_eq!(model.parameters(), 200 + 100 * 128 + 128 + 128 * 10 + 10);
}

#[test]
fn kerass_short_spellings_are_taken() {
    let layers = "{ class = 'Conv2D', filters = 4, kernel_size = 3, padding = 'same', kernel_initializer = 'he_normal', \
                  kernel_regularizer = { class = 'L2', l2 = 0.1 } },\n{ class = 'ZeroPadding2D', padding = [1, 2] },\n\
                  { class = 'MaxPooling2D', pool_size = 2 },\n{ class = 'Reshape', target_shape = [7, -1] },\n\
                  { class = 'Bidirectional', layer = { class = 'LSTM', units = 3 } }";
    let model = build(&definition(
        layers,
        "'rmsprop'",
        "metrics = ['mae', { class = 'F1Score', average = 'macro' }]",
    ))
    .unwrap();
    assert_eq!(model.output_shape(0), [6]);
    let names = model.figure_names("");
    assert_eq!(names, ["loss", "mean_absolute_error", "f1_score"]);
}

#[test]
fn layers_are_wired_by_name_and_shared() {
    let text = "[model]\nlayers = [\n\
        { class = 'Dense', units = 4, name = 'twin', inputs = 'a' },\n\
        { shared = 'twin', name = 'other', inputs = 'b' },\n\
        { class = 'Concatenate', name = 'both', inputs = ['twin', 'other'] },\n\
        { class = 'Dense', units = 2, name = 'first' },\n\
        { class = 'Dense', units = 1, name = 'second', inputs = 'both' },\n]\n\
        outputs = ['first', 'second']\n[model.inputs]\na = [3]\nb = [3]\n\
        [data]\npath = 'a.csv'\n[compile]\noptimizer = { class = 'SGD', momentum = 0.9, nesterov = true, learning_rate = \
        { class = 'cosine_decay', initial_learning_rate = 0.1, decay_steps = 100 }, clipnorm = 1.0 }\nloss = ['mse', 'mae']";
    let model = build(text).unwrap();
    assert_eq!(model.weights().count(), 6);
    assert_eq!((model.output_shape(0), model.output_shape(1)), (vec![2], vec![1]));
    let wrong = text.replace("inputs = 'both'", "inputs = 'bath'");
    assert!(
        error(&wrong).contains("layer second: no input or layer above is named \"bath\"; did you mean both?")
    );
}

#[test]
fn what_is_not_known_is_named_with_the_nearest() {
    let check = |text: String, expected: &str| {
        let error = error(&text);
        assert!(error.contains(expected), "{error}\n{expected}");
    };
    let with = |layers: &str| definition(layers, "'adam'", "");
    check(with("{ class = 'Dens', units = 3 }"), "layer \"Dens\" is not supported");
    check(with("{ class = 'Dens', units = 3 }"), "did you mean Dense?");
    check(with("{ class = 'Lambda' }"), "layer \"Lambda\" is not supported");
    check(
        with("{ class = 'Dense', unit = 3, units = 4 }"),
        "layer 1 (Dense): there is no argument unit; did you mean units?",
    );
    check(with("{ class = 'Dense' }"), "layer 1 (Dense): it needs the argument units");
    check(with("{ class = 'Dense', units = 'many' }"), "layer 1 (Dense): invalid type: string \"many\"");
    check(with("{ class = 'Dense', units = 3, activation = 'rellu' }"), "unknown variant `rellu`");
    check(with("{ class = 'Dense', units = 3, kernel_initializer = 'he_norml' }"), "did you mean HeNormal?");
    check(with("{ class = 'Dense', units = 3, inputs = 'inputs' }"), "named \"inputs\"; did you mean input?");
    check(with("{ class = 'LSTM', units = 3 }"), "lstm: ");
    check(
        with("{ class = 'Normalization' }"),
        "layer 1 (Normalization): say normalize = \"standard\" in [data]",
    );
    check(with("{ class = 'Dense', units = 99999999999 }"), "none is larger than 16777216");
    check(
        with(
            "{ class = 'Flatten' }, { class = 'Dense', units = 16000000 }, { class = 'Dense', units = 16000000 }",
        ),
        "its result takes at most 1073741824 weights in a model",
    );
    check(definition(DENSE, "'adam'", "[fit]\nthreads = 100000"), "[fit]: threads takes 1 to 1024");
    check(definition(DENSE, "'adm'", ""), "optimizer \"adm\" is not supported");
    check(definition(DENSE, "{ class = 'Adam', learning_rat = 0.1 }", ""), "did you mean learning_rate?");
    check(definition(DENSE, "'adam'", "metric = []"), "unknown field `metric`");
    check(definition(DENSE, "'adam'", "metric = []"), "line 11");
    check(definition(DENSE, "'adam'", "[fit]\nepoch = 3"), "did you mean epochs?");
    check(
        definition(DENSE, "'adam'", "[fit]\nbatch_size = 0"),
        "[fit]: batch_size takes 1 or more; received 0",
    );
    check(definition(DENSE, "'adam'", "[fit]\nvalidation_split = 1.0"), "validation_split takes a share");
    check("[model".to_owned(), "line 1");
}

/// Written by `tureen train --schema > docs/definition.schema.json`.
#[test]
fn the_published_schema_is_that_of_the_structs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/definition.schema.json");
    let published: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    // Numbers as they are after having been written.
    let now: Value = serde_json::from_str(&schema().to_string()).unwrap();
    assert!(published == now, "write it anew: tureen train --schema > docs/definition.schema.json");
}

#[test]
fn the_schema_knows_every_layer_and_its_arguments() {
    let schema = schema();
    let tables = schema["$defs"]["LayerEntry"]["oneOf"].as_array().unwrap();
    for class in crate::layers::supported().filter(|class| *class != "Normalization") {
        let table = tables.iter().find(|table| table["properties"]["class"]["const"] == class);
        assert!(table.is_some_and(|table| table["properties"].as_object().unwrap().len() >= 3), "{class}");
    }
    let dense = tables.iter().find(|table| table["properties"]["class"]["const"] == "Dense").unwrap();
    assert_eq!(dense["properties"]["use_bias"]["type"], "boolean");
    assert_eq!(dense["properties"]["units"]["type"], "integer");
    let text = schema.to_string();
    assert!(!text.contains("/Named"), "what serde takes as a map is replaced");
}

#[test]
fn the_schema_knows_gans() {
    let schema = schema();
    let kinds: Vec<&Value> = schema["anyOf"].as_array().unwrap().iter().map(|kind| &kind["$ref"]).collect();
    assert_eq!(kinds, ["#/$defs/Definition", "#/$defs/GanDefinition"]);
    let keys = &schema["$defs"]["Adversaries"]["properties"];
    assert_eq!(keys["generator_optimizer"]["$ref"], "#/$defs/Optimizer");
    assert_eq!(keys["loss"]["$ref"], "#/$defs/GanLoss");
    let losses = schema["$defs"]["GanLoss"].to_string();
    for part in ["wasserstein_clipped", "non_saturating", "gradient_penalty", "\"clip\""] {
        assert!(losses.contains(part), "{part}");
    }
}

#[test]
fn gans_are_told_from_models() {
    let networks = "[generator]\ninput = [3]\nlayers = [{ class = 'Dense', units = 2 }]\n\
        [discriminator]\ninput = [2]\nlayers = [{ class = 'Dense', units = 1 }]\n[data]\npath = 'a.csv'\n";
    let Ok(Defined::Gan(definition)) = Defined::parse(networks) else { panic!("no GAN") };
    assert_eq!(definition.gan.settings().unwrap(), crate::gan::GanSettings::default());
    assert_eq!(definition.build(1).unwrap().sample_shape(), [2]);
    let with =
        format!("{networks}[gan]\nrange = [0, 255]\nloss = {{ class = 'WassersteinClipped', clip = 0.2 }}");
    let Ok(Defined::Gan(definition)) = Defined::parse(&with) else { panic!("no GAN") };
    let clipped = crate::gan::GanLoss::WassersteinClipped { clip: 0.2 };
    assert_eq!(definition.gan.settings().unwrap().loss, clipped);
    let last = definition
        .published(1)
        .unwrap()
        .layers()
        .last()
        .map(|(name, layer)| (name.to_owned(), layer.config()));
    assert_eq!(last, Some(("samples".to_owned(), serde_json::json!({ "scale": 127.5, "offset": 127.5 }))));
    assert!(matches!(Defined::parse(TEMPLATE), Ok(Defined::Model(_))));
    let error = Defined::parse(&networks.replace("[discriminator]", "[discriminater]")).unwrap_err();
    assert!(error.to_string().contains("did you mean discriminator?"), "{error}");
}

#[test]
fn outputs_have_metrics_of_their_own() {
    let compiled = |metrics: &str| {
        let text = format!(
            "[model]\ninput = [3]\noutputs = ['a', 'b']\nlayers = [\n\
             {{ class = 'Dense', units = 2, activation = 'softmax', name = 'a' }},\n\
             {{ class = 'Dense', units = 1, name = 'b', inputs = 'input' }},\n]\n[data]\n\
             [compile]\nloss = ['sparse_categorical_crossentropy', 'mse']\nmetrics = {metrics}\n"
        );
        let definition = Definition::parse(&text).unwrap();
        let mut model = definition.model.build(Normalize::None, 1, 1).unwrap();
        definition.compile.apply(&mut model).map(|()| model.figure_names("val_"))
    };
    let names = compiled("[['accuracy'], ['mae', 'r2_score']]").unwrap();
    let own =
        ["val_loss", "val_output_0_accuracy", "val_output_1_mean_absolute_error", "val_output_1_r2_score"];
    assert_eq!(names, own);
    assert_eq!(compiled("['mae']").unwrap().len(), 3);
    assert!(compiled("[['mae']]").unwrap_err().to_string().contains("2 lists of metrics"));
    assert!(compiled("[['mae'], 'mae']").unwrap_err().to_string().contains("received both"));
}
