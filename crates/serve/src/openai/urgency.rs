//! How urgent a request is: `priority` as vLLM has it, a number of which lower goes first, or OpenAI's `service_tier`.

use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};

/// Of the tier `flex`: whatever else there is goes first.
const FLEX_PRIORITY: i32 = 10;
/// Of the tier `priority`.
const PRIORITY_PRIORITY: i32 = -10;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    priority: i32,
    /// Asked for by its name.
    tier: Option<Tier>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Default,
    Flex,
    Priority,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Tier::Default => "default",
            Tier::Flex => "flex",
            Tier::Priority => "priority",
        }
    }

    fn priority(self) -> i32 {
        match self {
            Tier::Default => 0,
            Tier::Flex => FLEX_PRIORITY,
            Tier::Priority => PRIORITY_PRIORITY,
        }
    }
}

impl Urgency {
    pub fn take(fields: &mut Fields) -> Result<Urgency, ApiError> {
        let tier = match fields.string("service_tier")?.as_deref() {
            None => None,
            Some("auto" | "default" | "scale") => Some(Tier::Default),
            Some("flex") => Some(Tier::Flex),
            Some("priority") => Some(Tier::Priority),
            Some(other) => {
                let expected = "auto, default, flex, priority or scale";
                return Err(wrong("service_tier", expected, &json!(other)));
            }
        };
        match (fields.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX))?, tier) {
            (Some(priority), None) => Ok(Urgency { priority: priority as i32, tier }),
            (None, tier) => Ok(Urgency { priority: tier.map_or(0, Tier::priority), tier }),
            (Some(_), Some(_)) => {
                let message = "`priority` and `service_tier` mean the same: give one of them".to_owned();
                Err(ApiError::invalid("priority", message))
            }
        }
    }

    /// The priority to serve it with and the tier to report, where callers may ask for `priority_min` at the least. A
    /// tier that is not to be had becomes the default one, as OpenAI has it.
    ///
    /// # Errors
    /// A number below that.
    pub fn within(self, priority_min: i32) -> Result<(i32, Option<Tier>), ApiError> {
        match self.tier {
            Some(tier) if tier.priority() < priority_min => {
                Ok((Tier::Default.priority().max(priority_min), Some(Tier::Default)))
            }
            None if self.priority < priority_min && self != Urgency::default() => {
                let expected = format!("an integer of {priority_min} or more, as this server is set");
                Err(wrong("priority", &expected, &Value::from(self.priority)))
            }
            tier => Ok((self.priority.max(priority_min), tier)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(body: Value, priority_min: i32) -> Result<(i32, Option<&'static str>), String> {
        let Value::Object(map) = body else { panic!("an object") };
        let taken = Urgency::take(&mut Fields::new(map)).and_then(|urgency| urgency.within(priority_min));
        let message = |error: ApiError| error.json()["error"]["message"].as_str().unwrap().to_owned();
        taken.map(|(priority, tier)| (priority, tier.map(Tier::name))).map_err(message)
    }

    #[test]
    fn numbers_and_tiers_are_understood() {
        let check =
            |body: Value, priority_min: i32, expected| assert_eq!(take(body, priority_min), Ok(expected));
        check(json!({}), 0, (0, None));
        check(json!({ "priority": 7 }), 0, (7, None));
        check(json!({ "priority": -7 }), -7, (-7, None));
        check(json!({ "service_tier": "auto" }), 0, (0, Some("default")));
        check(json!({ "service_tier": "flex" }), 0, (10, Some("flex")));
        check(json!({ "service_tier": "priority" }), -10, (-10, Some("priority")));
        check(json!({ "service_tier": "priority" }), 0, (0, Some("default")));
        check(json!({}), 3, (3, None));
    }

    #[test]
    fn what_is_not_to_be_had_is_refused() {
        let check = |body: Value, expected: &str| assert_eq!(take(body, 0), Err(expected.to_owned()));
        check(
            json!({ "priority": -1 }),
            "`priority` must be an integer of 0 or more, as this server is set; received -1",
        );
        check(
            json!({ "service_tier": "fast" }),
            "`service_tier` must be auto, default, flex, priority or scale; received \"fast\"",
        );
        check(
            json!({ "service_tier": "flex", "priority": 1 }),
            "`priority` and `service_tier` mean the same: give one of them",
        );
    }
}
