//! Networks that together have a layer of every class, with weights that make each of them matter: what is written to
//! files is tried on them.

use train::prelude::*;

/// A network by name, with an input for it.
pub struct Network {
    pub name: String,
    pub model: Model,
    pub x: Vec<Array>,
}

pub const SAMPLES: usize = 5;

fn numbers(n: usize, salt: usize) -> Vec<f32> {
    (0..n + salt * 37)
        .skip(salt * 37)
        .map(|i| ((i * i * 31 + i * 7919) % 1009) as f32 / 504.5 - 1.0)
        .collect()
}

fn filled(shape: &[usize], salt: usize) -> Array {
    let shape = [&[SAMPLES], shape].concat();
    let values = numbers(shape.iter().product(), salt);
    Array::new(shape, values).unwrap()
}

/// Numbers of rows of a table.
fn tokens(length: usize, count: f32) -> Array {
    let mut array = filled(&[length], 3);
    array.values.iter_mut().for_each(|x| *x = ((*x + 1.0) * 0.499 * count).trunc());
    array
}

fn network(name: &str, x: Vec<Array>, inputs: impl Into<Tensors>, outputs: impl Into<Tensors>) -> Network {
    let mut model = Model::with(inputs, outputs, 5, 1).unwrap();
    let weights: Vec<(String, usize)> =
        model.weights().map(|(path, _, values)| (path.to_owned(), values.len())).collect();
    for (salt, (path, len)) in weights.into_iter().enumerate() {
        let mut values = numbers(len, salt);
        let variance = path.ends_with("variance");
        values.iter_mut().for_each(|x| *x = if variance { 1.5 + *x } else { 0.6 * *x });
        model.set_weight(&path, &values).unwrap();
    }
    Network { name: name.to_owned(), model, x }
}

/// A network of one input and one output.
fn chain(name: &str, shape: &[usize], wire: impl Fn(&Tensor) -> Tensor) -> Network {
    let input = Input::new(shape);
    let output = wire(&input);
    network(name, vec![filled(shape, 1)], &input, &output)
}

fn activations() -> Network {
    let all = [
        Linear,
        Relu,
        Relu6,
        LeakyRelu,
        Elu,
        Selu,
        Celu,
        Gelu,
        Silu,
        Softmax,
        LogSoftmax,
        Softplus,
        Softsign,
        Tanh,
        Sigmoid,
        HardSigmoid,
        HardSilu,
        HardTanh,
        Exponential,
        Mish,
        LogSigmoid,
        TanhShrink,
        HardShrink,
        SoftShrink,
        Squareplus,
        SparsePlus,
        SparseSigmoid,
    ];
    let input = Input::new([6]);
    let grown = Rescaling::new(4.0, 0.1).on(&input);
    let outputs: Vec<Tensor> =
        all.iter().map(|&activation| ActivationLayer::new(activation).on(&grown)).collect();
    network("activations", vec![filled(&[6], 1)], &input, outputs)
}

/// The one that Keras itself can't predict with: it doesn't crop then.
pub const CROPPED: &str = "cropped";

fn dense() -> Vec<Network> {
    let (a, b) = (Input::named("left", [7]), Input::named("right", [7]));
    let shared = Dense::new(5).activation(Tanh).shared();
    let (l, r) = (shared.on(&a), shared.on(&b));
    let merged = [
        Add::new().on([&l, &r]),
        Subtract::new().on([&l, &r]),
        Multiply::new().on([&l, &r]),
        Average::new().on([&l, &r]),
        Maximum::new().on([&l, &r]),
        Minimum::new().on([&l, &r]),
    ];
    let all = Concatenate::new().on(merged.to_vec());
    let one = Dense::new(3).activation(Softmax).named("class").on(&all);
    let two = Dense::new(1).use_bias(false).named("value").on(&all);
    let xs = vec![filled(&[7], 1), filled(&[7], 2)];
    vec![
        network("merges", xs, [&a, &b], [&one, &two]),
        chain("dense", &[100], |x| {
            let h = Dense::new(16).activation(Relu).on(x);
            let h = Dropout::new(0.3).on(&h);
            Dense::new(10).activation(Softmax).on(&h)
        }),
        chain("dense_rank_3", &[3, 4], |x| {
            let h = Dense::new(6).activation(Glu).on(x);
            let h = Permute::new([2, 1]).on(&h);
            let h = Reshape::new([-1, 3]).on(&h);
            Dense::new(2).activation(HardSilu).on(&h)
        }),
        chain("learned_normalisation", &[4, 6], |x| {
            let h = Normalization::new().on(x);
            let h = Normalization::new().axis([1, 2]).on(&h);
            Dense::new(3).named("still").frozen().on(&h)
        }),
        chain("normalised", &[4, 6], |x| {
            let h = BatchNormalization::new().on(x);
            let h = LayerNormalization::new().on(&h);
            let h = RMSNormalization::new().on(&h);
            GroupNormalization::new(3).on(&h)
        }),
    ]
}

fn convolutions() -> Vec<Network> {
    vec![
        chain("conv1d", &[12, 3], |x| {
            let h = Conv1D::new(6, 3).padding(Padding::Causal).dilation_rate(2).activation(Relu).on(x);
            let h = MaxPooling1D::new(2).on(&h);
            let h = Conv1D::new(4, 3).padding(Padding::Same).strides(2).on(&h);
            AveragePooling1D::new(2).padding(Padding::Same).on(&h)
        }),
        chain("conv2d", &[9, 8, 3], |x| {
            let h = Conv2D::new(8, 3).activation(Relu).on(x);
            let h = BatchNormalization::new().on(&h);
            let h = MaxPooling2D::new(2).padding(Padding::Same).on(&h);
            let h = Conv2D::new(4, [3, 2]).padding(Padding::Same).strides([2, 1]).groups(2usize).on(&h);
            let h = ActivationLayer::new(Silu).on(&h);
            let h = AveragePooling2D::new(2).strides(1).padding(Padding::Same).on(&h);
            let h = Flatten::new().on(&h);
            Dense::new(3).on(&h)
        }),
        chain("residual", &[8, 8, 4], |x| {
            let h = Conv2D::new(4, 3).padding(Padding::Same).activation(LeakyRelu).on(x);
            let h = Add::new().on([x, &h]);
            let g = Conv2D::new(4, 1).on(&h);
            let g = Conv2D::new(4, 3).padding(Padding::Same).dilation_rate(2).on(&g);
            let h = Concatenate::new().on([&g, &h]);
            let h = Conv2D::new(4, 1).strides(2).on(&h);
            GlobalAveragePooling2D::new().on(&h)
        }),
        chain("conv3d", &[5, 6, 7, 2], |x| {
            let h = Conv3D::new(4, 3).padding(Padding::Same).strides([2, 1, 1]).activation(Elu).on(x);
            let h = MaxPooling3D::new(2).padding(Padding::Same).on(&h);
            let h = Conv3D::new(3, [2, 2, 2]).on(&h);
            AveragePooling3D::new([1, 2, 2]).on(&h)
        }),
        chain("pooled_1d", &[8, 3], |x| {
            let (a, b) = (GlobalAveragePooling1D::new().on(x), GlobalMaxPooling1D::new().on(x));
            Concatenate::new().on([&a, &b])
        }),
        chain("pooled_2d", &[6, 5, 3], |x| {
            let h = Conv2D::new(3, 2).on(x);
            let (a, b) = (GlobalAveragePooling2D::new().on(&h), GlobalMaxPooling2D::new().on(&h));
            let c = GlobalAveragePooling2D::new().keepdims(true).on(&h);
            let gated = Multiply::new().on([&h, &c]);
            let d = GlobalMaxPooling2D::new().on(&gated);
            Concatenate::new().on([&a, &b, &d])
        }),
        chain("pooled_3d", &[4, 5, 3, 2], |x| {
            let (a, b) = (GlobalAveragePooling3D::new().on(x), GlobalMaxPooling3D::new().on(x));
            Concatenate::new().on([&a, &b])
        }),
        chain("depthwise", &[9, 9, 3], |x| {
            let h = DepthwiseConv2D::new(3).depth_multiplier(2usize).activation(Softplus).on(x);
            let h = SeparableConv2D::new(5, 3).strides(2).padding(Padding::Same).on(&h);
            let h = GroupNormalization::new(5).on(&h);
            LayerNormalization::new().on(&h)
        }),
        chain("transposed", &[4, 5, 3], |x| {
            let h = Conv2DTranspose::new(4, 3).strides(2).padding(Padding::Same).activation(Relu).on(x);
            let h = Conv2DTranspose::new(2, [2, 3]).strides(3).on(&h);
            Conv2DTranspose::new(2, 4).on(&h)
        }),
        chain("margins", &[4, 5, 2], |x| {
            let h = UpSampling2D::new([2, 3]).on(x);
            let h = ZeroPadding2D::new([[1, 2], [0, 3]]).on(&h);
            let h = Conv2D::new(3, 2).on(&h);
            let h = ZeroPadding2D::default().on(&h);
            let h = UpSampling2D::new(2).on(&h);
            Cropping2D::new([[2, 1], [1, 0]]).on(&h)
        }),
    ]
}

fn wrapped() -> Vec<Network> {
    let (one, other) = (Input::named("one", [5, 4]), Input::named("other", [3, 4]));
    let products = Dot::new(-1).on([&one, &other]);
    let cosines = Dot::new([2, 1]).normalize(true).on([&one, &Permute::new([2, 1]).on(&other)]);
    let seen = GroupQueryAttention::new(3, 4, 2).use_causal_mask(true).on([&one, &other]);
    let near =
        GroupQueryAttention::new(2, 2, 1).use_gate(true).use_bias(false).sliding_window(2).on([&one, &one]);
    let sums = [&one, &other].map(|x| GlobalAveragePooling1D::new().on(x));
    let flat = Dot::new(1).on([&sums[0], &sums[1]]);
    let xs = vec![filled(&[5, 4], 1), filled(&[3, 4], 2)];
    let rectified = [
        |x: &Tensor| ReLU::new().on(x),
        |x: &Tensor| ReLU::new().max_value(1.5).negative_slope(0.2).threshold(0.5).on(x),
        |x: &Tensor| LeakyReLU::new().on(x),
        |x: &Tensor| PReLU::new().on(x),
        |x: &Tensor| PReLU::new().shared_axes(vec![1]).on(x),
        |x: &Tensor| ELU::new().alpha(0.5).on(x),
        |x: &Tensor| SoftmaxLayer::new().on(x),
        |x: &Tensor| SoftmaxLayer::new().axis(1).on(x),
        |x: &Tensor| SoftmaxLayer::new().axis([1, 2]).on(x),
    ];
    let input = Input::new([4, 3]);
    let outputs: Vec<Tensor> = rectified.iter().map(|wire| wire(&input)).collect();
    vec![
        network("products", xs, [&one, &other], [&products, &cosines, &seen, &near, &flat]),
        network("rectified", vec![filled(&[4, 3], 1)], &input, outputs),
        chain("each_step", &[4, 6, 5, 2], |x| {
            let h = TimeDistributed::new(Conv2D::new(3, 2).activation(Relu)).on(x);
            let h = TimeDistributed::new(BatchNormalization::new()).on(&h);
            let h = TimeDistributed::new(Flatten::new()).on(&h);
            let h = TimeDistributed::new(LayerNormalization::new()).on(&h);
            TimeDistributed::new(SpectralNormalization::new(Dense::new(3))).on(&h)
        }),
        chain("spectral", &[6, 6, 2], |x| {
            let h = SpectralNormalization::new(Conv2D::new(4, 3)).power_iterations(2usize).on(x);
            let h = Flatten::new().on(&h);
            SpectralNormalization::new(Dense::new(3)).on(&h)
        }),
        chain("augmented", &[6, 5, 2], |x| {
            let h = RandomFlip::new().mode(FlipMode::Horizontal).on(x);
            let h = RandomRotation::new(0.1).fill_mode(FillMode::Nearest).on(&h);
            let h = RandomCrop::new(6, 5).on(&h);
            Conv2D::new(3, 2).on(&h)
        }),
        chain(CROPPED, &[9, 8, 2], |x| {
            let h = RandomCrop::new(4, 5).on(x);
            Conv2D::new(3, 2).on(&h)
        }),
    ]
}

fn sequences() -> Vec<Network> {
    let (query, value) = (Input::named("query", [6, 8]), Input::named("value", [4, 5]));
    let crossed = MultiHeadAttention::new(2, 3).value_dim(4).output_shape(7).on([&query, &value]);
    let xs = vec![filled(&[6, 8], 1), filled(&[4, 5], 2)];
    let input = Input::new([5, 4]);
    let states = LSTM::new(3).return_state(true).return_sequences(true).shared().outputs(&input, 3);
    let tokens_in = Input::new([7]);
    let e = Embedding::new(20, 8).on(&tokens_in);
    let a = MultiHeadAttention::new(2, 4).use_causal_mask(true).on([&e, &e]);
    let h = Add::new().on([&e, &a]);
    let h = LayerNormalization::new().on(&h);
    let h = Dense::new(16).activation(Gelu).on(&h);
    let decoded = Dense::new(20).activation(Softmax).on(&h);
    vec![
        network("attention", xs, [&query, &value], &crossed),
        network("states", vec![filled(&[5, 4], 1)], &input, states),
        network("transformer", vec![tokens(7, 20.0)], &tokens_in, &decoded),
        chain("lstm", &[6, 4], |x| {
            let h = LSTM::new(5).return_sequences(true).go_backwards(true).on(x);
            LSTM::new(3).recurrent_activation(HardSigmoid).use_bias(false).on(&h)
        }),
        chain("gru", &[6, 4], |x| {
            let h = GRU::new(5).return_sequences(true).on(x);
            GRU::new(3).reset_after(false).on(&h)
        }),
        chain("simple_rnn", &[6, 4], |x| SimpleRNN::new(5).activation(Relu).on(x)),
        chain("bidirectional", &[6, 4], |x| {
            let h = Bidirectional::new(GRU::new(4).return_sequences(true)).on(x);
            let h = Bidirectional::new(LSTM::new(3).return_sequences(true)).merge_mode(MergeMode::Ave).on(&h);
            Bidirectional::new(SimpleRNN::new(3)).merge_mode(MergeMode::Mul).on(&h)
        }),
    ]
}

/// Sequences of which some steps don't count.
fn masked() -> Vec<Network> {
    let ids = Input::named("ids", [7]);
    let h = Embedding::new(4, 6).mask_zero(true).on(&ids);
    let h = LSTM::new(5).return_sequences(true).on(&h);
    let tags = Dense::new(3).activation(Softmax).on(Dropout::new(0.2).on(&h));
    let h = Bidirectional::new(GRU::new(4).return_sequences(true)).on(&h);
    let mean = GlobalAveragePooling1D::new().on(&h);
    let mut x = filled(&[6, 4], 5);
    for (sample, values) in x.values.chunks_mut(24).enumerate() {
        values[(sample + 1) * 4..].fill(0.5);
    }
    let steps = Input::named("steps", [6, 4]);
    let m = Masking::new().mask_value(0.5).on(&steps);
    let seen = MultiHeadAttention::new(2, 3).use_causal_mask(true).on([&m, &m]);
    let d = Dense::new(4).on(&steps);
    let other = SimpleRNN::new(4).return_sequences(true).zero_output_for_mask(true).on(&d);
    let h = LayerNormalization::new().on(Concatenate::new().on([&seen, &other]));
    let all = GlobalAveragePooling1D::new().on(&h);
    vec![
        network("masked_ids", vec![tokens(7, 4.0)], &ids, vec![tags, mean]),
        network("masked_steps", vec![x], &steps, vec![seen, all]),
    ]
}

/// All of them; every class of layer is in one at least.
pub fn all() -> Vec<Network> {
    // Keras itself can't call the activation of this name, which wants arguments.
    let threshold = chain("threshold", &[6], |x| ActivationLayer::new(Threshold).on(x));
    let mut networks = vec![activations(), threshold];
    networks.extend(dense());
    networks.extend(convolutions());
    networks.extend(sequences());
    networks.extend(wrapped());
    networks.extend(masked());
    networks
}
