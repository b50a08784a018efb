//! The article's network in Rust, line by line as in Keras: `cargo run --release --example article TRAIN.csv FILE.onnx`.

use std::error::Error;
use std::path::PathBuf;

use train::data::read_csv;
use train::files::onnx;
use train::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(data), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("call it with a CSV file, and the name of the ONNX file that is written".into());
    };
    let (x_train, y_train) = read_csv(&data, "label", 10)?;

    let inputs = Input::new([100]);
    let x = Dense::new(128).activation(Relu).on(&inputs);
    let outputs = Dense::new(10).activation(Softmax).on(&x);
    let mut model = Model::new(&inputs, &outputs)?;
    model.compile(Adam, CategoricalCrossentropy, [Accuracy])?;
    println!("{}", model.summary());
    let history = model.fit(&x_train, &y_train, &Fit::epochs(10).batch_size(32))?;
    println!("accuracy of each epoch: {:.3?}", history.of("accuracy"));

    std::fs::write(&file, onnx::write(&model)?)?;
    println!("wrote {}; now: tureen serve article={}", file.display(), file.display());
    Ok(())
}
