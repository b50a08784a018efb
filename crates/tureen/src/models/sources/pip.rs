//! Where pip would look for packages here: its variables and its files, in its order.
//!
//! Source: pip's documentation, "Configuration": later files win over earlier ones, variables over files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::url::Url;

const DEFAULT_INDEX: &str = "https://pypi.org/simple";
/// Bytes of one of pip's files.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Indexes in the order to ask them.
#[derive(Clone, Debug)]
pub struct Indexes {
    pub urls: Vec<Url>,
    /// A PEM file to trust instead of the system's certificates.
    pub certificates: Option<PathBuf>,
}

impl Indexes {
    /// From PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT, and the files that pip reads here.
    pub fn from_environment() -> anyhow::Result<Indexes> {
        let mut settings = BTreeMap::new();
        for path in files() {
            let small = std::fs::metadata(&path).is_ok_and(|facts| facts.len() <= FILE_BYTES_MAX);
            if let Some(text) = small.then(|| std::fs::read_to_string(&path).ok()).flatten() {
                read(&text, &mut settings);
            }
        }
        for key in ["index-url", "extra-index-url", "cert"] {
            let variable = format!("PIP_{}", key.replace('-', "_").to_uppercase());
            if let Some(value) = std::env::var(variable).ok().filter(|value| !value.is_empty()) {
                settings.insert(key.to_string(), value);
            }
        }
        Indexes::from_settings(&settings)
    }

    pub(super) fn from_settings(settings: &BTreeMap<String, String>) -> anyhow::Result<Indexes> {
        let get = |key: &str| settings.get(key).map_or("", String::as_str);
        let index = Some(get("index-url").trim()).filter(|url| !url.is_empty()).unwrap_or(DEFAULT_INDEX);
        let all = [index].into_iter().chain(get("extra-index-url").split_whitespace());
        let urls: Result<Vec<Url>, anyhow::Error> = all.map(Url::parse).collect();
        let certificates = Some(get("cert")).filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Indexes { urls: urls.map_err(|error| error.context("pip's index settings"))?, certificates })
    }
}

/// Global, user and site files, as on Linux and macOS; PIP_CONFIG_FILE comes last, or switches all off.
fn files() -> Vec<PathBuf> {
    let named = std::env::var_os("PIP_CONFIG_FILE").map(PathBuf::from);
    if named.as_ref().is_some_and(|path| path.as_os_str() == "/dev/null") {
        return Vec::new();
    }
    let home = std::env::home_dir();
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let user = folder("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let mut files = vec![PathBuf::from("/etc/xdg/pip/pip.conf"), PathBuf::from("/etc/pip.conf")];
    files.extend(home.map(|home| home.join(".pip/pip.conf")));
    files.extend(user.map(|user| user.join("pip/pip.conf")));
    files.extend(folder("VIRTUAL_ENV").map(|environment| environment.join("pip.conf")));
    files.extend(named);
    files
}

/// Adds the keys of `[global]` and `[install]` (which wins) to what earlier files said. The format is that of
/// Python's configparser: indented lines go on with the value above them.
fn read(text: &str, settings: &mut BTreeMap<String, String>) {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let (mut section, mut key) = (String::new(), String::new());
    for line in text.lines() {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) && !key.is_empty() {
            if let Some(value) = sections.get_mut(&section).and_then(|values| values.get_mut(&key)) {
                value.push(' ');
                value.push_str(content);
            }
        } else if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_string();
            key = String::new();
        } else if let Some((name, value)) = content.split_once(['=', ':']) {
            key = name.trim().to_lowercase().replace('_', "-");
            sections.entry(section.clone()).or_default().insert(key.clone(), value.trim().to_string());
        }
    }
    for name in ["global", "install"] {
        settings.extend(sections.remove(name).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_pip_reads_them() {
        let mut settings = BTreeMap::new();
        read(
            "[global]\nindex-url = https://a/simple\n# note\nextra_index_url =\n  https://b\n  https://c\n",
            &mut settings,
        );
        read("[install]\nindex-url: https://u:p@d/simple\n[other]\nindex-url = https://e\n", &mut settings);
        let indexes = Indexes::from_settings(&settings).unwrap();
        let urls: Vec<String> = indexes.urls.iter().map(Url::request).collect();
        assert_eq!(urls, ["https://d/simple", "https://b/", "https://c/"]);
        assert_eq!(indexes.urls[0].user.as_deref(), Some("u:p"));
    }

    #[test]
    fn without_settings_it_is_pypi() {
        let indexes = Indexes::from_settings(&BTreeMap::new()).unwrap();
        assert_eq!(indexes.urls[0].request(), DEFAULT_INDEX);
        assert!(indexes.certificates.is_none());
    }
}
