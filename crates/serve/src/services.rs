//! The names that applications call, and the models behind them as far as they are loaded.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use engine::llm::Llm;
use engine::onnx::Onnx;

use crate::error::ServeError;

/// All services of a server, in the order given at the start. Clones share it.
#[derive(Clone)]
pub struct Services {
    entries: Arc<RwLock<Vec<Entry>>>,
}

#[derive(Clone)]
struct Entry {
    name: String,
    service: Option<Service>,
}

/// A model that answers.
#[derive(Clone)]
pub struct Service {
    pub name: String,
    /// Its number in the store; 1 for a model that isn't from there.
    pub version: u64,
    /// Seconds since 1970, when it became ready.
    pub created: u64,
    pub engine: Engine,
}

/// What executes a model.
#[derive(Clone)]
pub enum Engine {
    Llm(Llm),
    Onnx(Onnx),
}

impl Engine {
    /// Whether its thread runs.
    pub fn is_alive(&self) -> bool {
        match self {
            Engine::Llm(llm) => llm.is_alive(),
            Engine::Onnx(onnx) => onnx.is_alive(),
        }
    }
}

impl From<Llm> for Engine {
    fn from(llm: Llm) -> Engine {
        Engine::Llm(llm)
    }
}

impl From<Onnx> for Engine {
    fn from(onnx: Onnx) -> Engine {
        Engine::Onnx(onnx)
    }
}

/// What is known of a name that somebody asks for.
pub enum Found {
    Ready(Service),
    Loading,
    /// With the names that there are.
    Unknown(Vec<String>),
}

impl Services {
    /// Announces services whose models are still to be loaded.
    ///
    /// # Errors
    /// Where two have the same name.
    pub fn announce(names: impl IntoIterator<Item = String>) -> Result<Services, ServeError> {
        let mut entries: Vec<Entry> = Vec::new();
        for name in names {
            if entries.iter().any(|entry| entry.name == name) {
                return Err(ServeError::NameTwice { name });
            }
            entries.push(Entry { name, service: None });
        }
        Ok(Services { entries: Arc::new(RwLock::new(entries)) })
    }

    /// From now on `engine` answers for `name`, which was announced, with this version.
    pub fn loaded(&self, name: &str, version: u64, engine: impl Into<Engine>) {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let service = Some(Service { name: name.to_owned(), version, created, engine: engine.into() });
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match entries.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => entry.service = service,
            None => unreachable!("{name} was not announced"),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Found {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        match entries.iter().find(|entry| entry.name == name) {
            Some(Entry { service: Some(service), .. }) => Found::Ready(service.clone()),
            Some(_) => Found::Loading,
            None => Found::Unknown(entries.iter().map(|entry| entry.name.clone()).collect()),
        }
    }

    /// Those that answer.
    pub(crate) fn ready(&self) -> Vec<Service> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter_map(|entry| entry.service.clone()).collect()
    }

    /// The names that don't answer yet.
    pub(crate) fn loading(&self) -> Vec<String> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|entry| entry.service.is_none()).map(|entry| entry.name.clone()).collect()
    }
}
