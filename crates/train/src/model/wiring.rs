//! Functional wiring: layers called on tensors that have no values yet.

use std::sync::Arc;

use crate::layers::Layer;

/// A layer that may be called several times, with one set of weights.
#[derive(Clone, Debug)]
pub struct Shared(pub(super) Arc<Instance>);

#[derive(Debug)]
pub(super) struct Instance {
    pub layer: Box<dyn Layer>,
    pub name: Option<String>,
    /// Whether its weights are trained.
    pub trainable: bool,
}

/// What a layer yields, or an input of a model.
#[derive(Clone, Debug)]
pub struct Tensor(pub(super) Arc<Source>);

#[derive(Debug)]
pub(super) enum Source {
    /// With the shape of a sample.
    Input { shape: Vec<usize>, name: Option<String> },
    /// Output number `output` of a call.
    Output { called: Arc<Called>, output: usize },
}

/// One call of a layer.
#[derive(Debug)]
pub(super) struct Called {
    pub layer: Shared,
    pub inputs: Vec<Tensor>,
}

/// The inputs of a model.
#[derive(Debug)]
pub struct Input;

impl Input {
    /// An input of samples with this shape, the batch not counted.
    #[allow(clippy::new_ret_no_self)] // it reads as Keras's `Input(...)`, which yields a tensor too
    pub fn new(shape: impl Into<Vec<usize>>) -> Tensor {
        Tensor(Arc::new(Source::Input { shape: shape.into(), name: None }))
    }

    pub fn named(name: &str, shape: impl Into<Vec<usize>>) -> Tensor {
        Tensor(Arc::new(Source::Input { shape: shape.into(), name: Some(name.to_owned()) }))
    }
}

/// One tensor or several.
#[derive(Clone, Debug)]
pub struct Tensors(pub(super) Vec<Tensor>);

impl From<&Tensor> for Tensors {
    fn from(tensor: &Tensor) -> Tensors {
        Tensors(vec![tensor.clone()])
    }
}

impl From<Tensor> for Tensors {
    fn from(tensor: Tensor) -> Tensors {
        Tensors(vec![tensor])
    }
}

impl<const N: usize> From<[&Tensor; N]> for Tensors {
    fn from(tensors: [&Tensor; N]) -> Tensors {
        Tensors(tensors.into_iter().cloned().collect())
    }
}

impl From<Vec<Tensor>> for Tensors {
    fn from(tensors: Vec<Tensor>) -> Tensors {
        Tensors(tensors)
    }
}

impl Shared {
    /// A layer of any kind under a name of its own.
    pub fn boxed(layer: Box<dyn Layer>, name: &str) -> Shared {
        Shared(Arc::new(Instance { layer, name: Some(name.to_owned()), trainable: true }))
    }

    /// The layer with weights that stay as they are, as Keras's `trainable = False`. Calls before this are of another layer.
    pub fn frozen(self) -> Shared {
        match Arc::try_unwrap(self.0) {
            Ok(instance) => Shared(Arc::new(Instance { trainable: false, ..instance })),
            // It has been called already, and what is called doesn't change.
            Err(called) => Shared(called),
        }
    }

    pub(crate) fn is_trainable(&self) -> bool {
        self.0.trainable
    }

    /// Whether it goes by its moving statistics even while others train: as in Keras, a frozen `BatchNormalization`.
    pub(super) fn is_frozen_with_statistics(&self) -> bool {
        let class = self.0.layer.class_name();
        let is_inside = || self.0.layer.config()["layer"]["class_name"] == "BatchNormalization";
        !self.0.trainable
            && (class == "BatchNormalization" || (crate::layers::WRAPPERS.contains(&class) && is_inside()))
    }

    /// Calls the layer. Whether the shapes go together is found when a model is made of it.
    pub fn on(&self, inputs: impl Into<Tensors>) -> Tensor {
        let called = Arc::new(Called { layer: self.clone(), inputs: inputs.into().0 });
        Tensor(Arc::new(Source::Output { called, output: 0 }))
    }

    /// Calls a layer that yields `count` tensors, such as a recurrent one that returns its state.
    pub fn outputs(&self, inputs: impl Into<Tensors>, count: usize) -> Vec<Tensor> {
        let called = Arc::new(Called { layer: self.clone(), inputs: inputs.into().0 });
        (0..count).map(|output| Tensor(Arc::new(Source::Output { called: called.clone(), output }))).collect()
    }
}

/// What every layer can be asked for.
pub trait Wire: Layer + Sized + 'static {
    /// Calls the layer once.
    fn on(self, inputs: impl Into<Tensors>) -> Tensor {
        self.shared().on(inputs)
    }

    /// The layer under a name of its own.
    fn named(self, name: &str) -> Shared {
        Shared(Arc::new(Instance { layer: Box::new(self), name: Some(name.to_owned()), trainable: true }))
    }

    /// The layer to be called several times.
    fn shared(self) -> Shared {
        Shared(Arc::new(Instance { layer: Box::new(self), name: None, trainable: true }))
    }
}

impl<L: Layer + Sized + 'static> Wire for L {}

impl From<Box<dyn Layer>> for Shared {
    fn from(layer: Box<dyn Layer>) -> Shared {
        Shared(Arc::new(Instance { layer, name: None, trainable: true }))
    }
}
