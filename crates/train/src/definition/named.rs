//! Things by Keras's name: an identifier such as `"mse"`, or a class with arguments such as
//! `{ class = "Huber", delta = 0.5 }`, completed with the defaults.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Result, TrainError};

/// A name alone, or a table with a class and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Named {
    Name(String),
    Class(Map<String, Value>),
}

/// One kind of things: its word in errors, and each class with the defaults of its arguments.
pub struct Known {
    pub kind: &'static str,
    pub classes: Vec<(String, Map<String, Value>)>,
}

/// A class and all of its arguments.
pub type Resolved = (String, Map<String, Value>);

/// Keras's short names that aren't the class in other letters.
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("mse", "MeanSquaredError"),
    ("mae", "MeanAbsoluteError"),
    ("mape", "MeanAbsolutePercentageError"),
    ("msle", "MeanSquaredLogarithmicError"),
    ("kld", "KLDivergence"),
    ("bce", "BinaryCrossentropy"),
    ("acc", "Accuracy"),
    ("rmse", "RootMeanSquaredError"),
    ("orthogonal", "OrthogonalInitializer"),
    ("identity", "IdentityInitializer"),
    ("one", "Ones"),
    ("zero", "Zeros"),
    ("normal", "RandomNormal"),
    ("uniform", "RandomUniform"),
];

/// Names are equal without regard to capitals and underscores.
fn folded(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A class in snake case, as Keras names metrics.
pub(super) fn snake(class: &str) -> String {
    let mut snake = String::new();
    let letters: Vec<char> = class.chars().collect();
    for (i, letter) in letters.iter().enumerate() {
        let begins = letter.is_uppercase()
            && i > 0
            && (letters[i - 1].is_lowercase() || letters.get(i + 1).is_some_and(|next| next.is_lowercase()));
        if begins {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// `; did you mean "..."?` for the known name nearest to `given`, where one is near enough.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // Any letter is near to any other.
    let edits_max = (given.chars().count() / 3).max(usize::from(given.len() > 2));
    let given = folded(given);
    let scored = known.into_iter().map(|name| (strsim::damerau_levenshtein(&given, &folded(name)), name));
    match scored.min().filter(|(edits, _)| *edits <= edits_max) {
        Some((_, name)) => format!("; did you mean {name}?"),
        None => String::new(),
    }
}

/// Serde's message for a key that isn't known, with the nearest of those that it lists.
pub fn with_nearest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((given, known)) if message.starts_with("unknown") => {
            format!("{message}{}", nearest(given, known.iter().copied()))
        }
        _ => message.to_owned(),
    }
}

impl Known {
    /// From values as serde writes adjacently tagged enums: `{"class_name": .., "config": ..}`.
    pub fn new<T: Serialize>(kind: &'static str, defaults: impl IntoIterator<Item = T>) -> Known {
        let classes = defaults.into_iter().filter_map(|default| {
            let value = serde_json::to_value(default).ok()?;
            let config = value["config"].as_object().cloned().unwrap_or_default();
            Some((value["class_name"].as_str()?.to_owned(), config))
        });
        Known { kind, classes: classes.collect() }
    }

    fn class(&self, given: &str) -> Result<&(String, Map<String, Value>)> {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == given).map_or(given, |(_, class)| class);
        let wanted = folded(alias);
        self.classes.iter().find(|(class, _)| folded(class) == wanted).ok_or_else(|| {
            let names: Vec<&str> = self.classes.iter().map(|(class, _)| class.as_str()).collect();
            let known = format!("{}{}", names.join(", "), nearest(given, names.iter().copied()));
            TrainError::Unknown { kind: self.kind, name: given.to_owned(), known }
        })
    }

    /// The class that `given` names, with all of its arguments, and the arguments that it doesn't have.
    fn split(&self, given: &Named) -> Result<(Resolved, Map<String, Value>)> {
        match given {
            Named::Name(name) => {
                let (class, config) = self.class(name)?;
                Ok(((class.clone(), config.clone()), Map::new()))
            }
            Named::Class(arguments) => {
                let mut arguments = arguments.clone();
                let Some(Value::String(name)) = arguments.remove("class") else {
                    return Err(TrainError::Definition {
                        place: self.kind.to_owned(),
                        problem: format!(
                            "it takes a name or a table with `class`; received {}",
                            Value::from(arguments)
                        ),
                    });
                };
                let (class, defaults) = self.class(&name)?;
                let mut config = defaults.clone();
                let mut others = Map::new();
                for (key, value) in arguments {
                    match config.get_mut(&key) {
                        Some(place) => *place = value,
                        None => drop(others.insert(key, value)),
                    }
                }
                Ok(((class.clone(), config), others))
            }
        }
    }

    /// As [`Known::split`], with all arguments known.
    pub fn resolve(&self, given: &Named) -> Result<Resolved> {
        let ((class, config), others) = self.split(given)?;
        match others.keys().next() {
            Some(other) => Err(unknown_argument(
                &format!("{} {class}", self.kind),
                other,
                config.keys().map(String::as_str),
            )),
            None => Ok((class, config)),
        }
    }

    /// As [`Known::split`], where `further` arguments are taken too.
    pub fn resolve_with(&self, given: &Named, further: &[&str]) -> Result<(Resolved, Map<String, Value>)> {
        let ((class, config), others) = self.split(given)?;
        match others.keys().find(|key| !further.contains(&key.as_str())) {
            Some(other) => {
                let known = config.keys().map(String::as_str).chain(further.iter().copied());
                Err(unknown_argument(&format!("{} {class}", self.kind), other, known))
            }
            None => Ok(((class, config), others)),
        }
    }

    /// The thing itself, as serde reads adjacently tagged enums.
    pub fn read<T: serde::de::DeserializeOwned>(&self, given: &Named) -> Result<T> {
        let (class, config) = self.resolve(given)?;
        let value = serde_json::json!({ "class_name": class, "config": config });
        serde_json::from_value(value).map_err(|error| TrainError::Definition {
            place: format!("{} {class}", self.kind),
            problem: error.to_string(),
        })
    }
}

/// The error for an argument that isn't there.
pub fn unknown_argument<'a>(
    place: &str,
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> TrainError {
    let known: Vec<&str> = known.into_iter().collect();
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    TrainError::Definition {
        place: place.to_owned(),
        problem: format!("there is no argument {given}{}; it takes: {list}", nearest(given, known)),
    }
}
