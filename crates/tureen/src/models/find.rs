//! The version that a person means by a name, or the nearest where there is none of that name.

use anyhow::bail;
use store::{Reference, Store, Version};

use crate::nearest::nearest;

/// # Errors
/// There is none: the nearest name.
pub fn require(store: &Store, text: &str) -> anyhow::Result<Version> {
    let wanted = Reference::parse(text)?;
    if let Some(version) = store.find(&wanted)? {
        return Ok(version);
    }
    let names = names(store)?;
    let same_name = || {
        let is_same = |name: &&str| name.split([':', '@']).next() == Some(wanted.name());
        names.iter().map(String::as_str).rev().find(is_same)
    };
    let wanted = wanted.to_string();
    match nearest(&wanted, names.iter().map(String::as_str)).or_else(same_name) {
        Some(close) => bail!("there is no model {wanted} here; did you mean {close}?"),
        None if names.is_empty() => {
            bail!(
                "there is no model {wanted} here, nor any other; `tureen list --catalogue` shows what can be pulled"
            )
        }
        None => bail!("there is no model {wanted} here; `tureen list` shows what is"),
    }
}

/// What each version is called in lists.
pub fn names(store: &Store) -> anyhow::Result<Vec<String>> {
    Ok(store.list()?.into_iter().map(|(label, _)| label).collect())
}

#[cfg(test)]
mod tests {
    use store::{Manifest, ModelName};

    use super::*;

    fn put(store: &Store, name: &str) {
        let model = ModelName::parse(name).unwrap();
        let staging = store.stage(&model).unwrap();
        let manifest = Manifest { model: name.to_owned(), entry: ".".to_owned(), ..Manifest::default() };
        store.publish(&staging.folder, &model, manifest).unwrap();
    }

    #[test]
    fn an_unknown_model_is_answered_with_the_nearest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let check = |text: &str, expected: &str| {
            assert_eq!(require(&store, text).unwrap_err().to_string(), expected);
        };
        check(
            "a",
            "there is no model a here, nor any other; `tureen list --catalogue` shows what can be pulled",
        );
        put(&store, "smollm2:135m");
        check("smollm2:135", "there is no model smollm2:135 here; did you mean smollm2:135m?");
        check("smollm2", "there is no model smollm2 here; did you mean smollm2:135m?");
        check("smollm2@7", "there is no model smollm2@7 here; did you mean smollm2:135m?");
        check("other", "there is no model other here; `tureen list` shows what is");
    }
}
