//! What a definition says, for whoever trains, measures or rewrites a network by other means than a run.

use std::path::Path;
use std::sync::Arc;

use super::samples::{Samples, Source};
use super::session::Session;
use crate::definition::Definition;
use crate::error::Result;
use crate::losses::Loss;
use crate::model::Model;

/// A model as it is before its fit, and all data in memory.
pub struct Prepared {
    pub definition: Definition,
    pub model: Model,
    pub losses: Vec<Loss>,
    pub training: Samples,
    pub validation: Option<Samples>,
    pub test: Option<Samples>,
}

impl Prepared {
    /// Reads the data that `definition` names, from `base` on, and builds its model.
    ///
    /// # Errors
    /// When the definition or the data isn't right.
    pub fn new(mut definition: Definition, base: &Path) -> Result<Prepared> {
        definition.data.stream = false;
        let session = Session::new(definition, base, base)?;
        let Session { definition, model, losses, training, validation, test, .. } = session;
        let (validation, test) = (validation.map(held).transpose()?, test.map(held).transpose()?);
        Ok(Prepared { definition, model, losses, training: held(training)?, validation, test })
    }

    /// The samples that a finished model is judged by: the test part, or the validation part, or what it is trained on.
    pub fn judged_by(&self) -> &Samples {
        self.test.as_ref().or(self.validation.as_ref()).unwrap_or(&self.training)
    }

    /// What names of figures on those begin with.
    pub fn judged_by_prefix(&self) -> &'static str {
        match (&self.test, &self.validation) {
            (Some(_), _) => "test_",
            (None, Some(_)) => "val_",
            (None, None) => "",
        }
    }
}

fn held(source: Source) -> Result<Samples> {
    match source {
        Source::Memory(samples) => Ok(Arc::unwrap_or_clone(samples)),
        Source::Disk(_) => {
            let order: Vec<usize> = (0..source.count()).collect();
            Ok(source.batch(&order)?.samples.into_owned())
        }
    }
}
