//! The kinds of value that settings have: how each is written, and what is wrong with one that isn't.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use kernels::attention::KvElement;
use kernels::compute::Isa;

/// A type that a setting may have.
pub trait SettingValue: Sized {
    /// Reads what a person wrote.
    ///
    /// # Errors
    /// What was expected, and what came.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value as a person would write it, or a stand-in for what nobody should see.
    fn show(&self) -> String;
}

fn expected(what: &str, received: impl Display) -> String {
    format!("expected {what}, received {received:?}", received = received.to_string())
}

impl SettingValue for PathBuf {
    fn parse(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            return Err(expected("a path", text));
        }
        Ok(PathBuf::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl SettingValue for usize {
    /// Every count is at least 1: nothing here can be switched off by 0.
    fn parse(text: &str) -> Result<usize, String> {
        match text.parse() {
            Ok(count) if count >= 1 => Ok(count),
            _ => Err(expected("a whole number from 1", text)),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for SocketAddr {
    /// An address and a port; a host name is looked up.
    fn parse(text: &str) -> Result<SocketAddr, String> {
        let what = "an address and a port such as 127.0.0.1:8080 or [::]:8080";
        let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        found.ok_or_else(|| expected(what, text))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    fn parse(text: &str) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

/// A number of bytes, written with or without a unit: `4096`, `500MB`, `8GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
];

impl SettingValue for ByteSize {
    fn parse(text: &str) -> Result<ByteSize, String> {
        let lower = text.trim().to_ascii_lowercase();
        let unit = BYTE_UNITS.iter().find_map(|(name, bytes)| Some((lower.strip_suffix(name)?, *bytes)));
        let (number, bytes) = unit.unwrap_or((&lower, 1));
        let what = "a number of bytes such as 4096, 500MB or 8GiB";
        let number: f64 = number.trim().parse().map_err(|_| expected(what, text))?;
        let product = number * bytes as f64;
        if !(1.0..9e18).contains(&product) {
            return Err(expected(what, text));
        }
        Ok(ByteSize(product.round() as u64))
    }

    fn show(&self) -> String {
        let whole = |(_, unit): &&(&str, u64)| self.0.is_multiple_of(*unit);
        let (name, unit) = BYTE_UNITS.iter().filter(whole).max_by_key(|(_, unit)| *unit).unwrap_or(&("b", 1));
        let name = match *name {
            "b" => "",
            "tib" => "TiB",
            "gib" => "GiB",
            "mib" => "MiB",
            "kib" => "KiB",
            other => return format!("{}{}", self.0 / unit, other.to_uppercase()),
        };
        format!("{}{name}", self.0 / unit)
    }
}

/// A whole number of seconds; 0 is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl SettingValue for Seconds {
    fn parse(text: &str) -> Result<Seconds, String> {
        text.parse().map(Seconds).map_err(|_| expected("a whole number of seconds", text))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A length of time in millionths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Microseconds(pub u64);

impl SettingValue for Microseconds {
    fn parse(text: &str) -> Result<Microseconds, String> {
        text.parse().map(Microseconds).map_err(|_| expected("a whole number of microseconds", text))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Keys that open the service. Printing them shows how many there are, never what they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(pub Vec<String>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

impl SettingValue for Keys {
    fn parse(text: &str) -> Result<Keys, String> {
        let keys: Vec<String> = text.split(',').map(|key| key.trim().to_string()).collect();
        let printable = |key: &String| !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic());
        if !keys.iter().all(printable) {
            return Err("expected keys of printable characters, separated by commas".to_string());
        }
        Ok(Keys(keys))
    }

    fn show(&self) -> String {
        match self.0.len() {
            1 => "1 key (not shown)".to_string(),
            count => format!("{count} keys (not shown)"),
        }
    }
}

/// Origins of web pages, as browsers send them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(pub Vec<String>);

impl SettingValue for Origins {
    fn parse(text: &str) -> Result<Origins, String> {
        let origins: Vec<String> = text.split(',').map(|origin| origin.trim().to_string()).collect();
        if !origins.iter().all(|origin| origin == "*" || origin.contains("://")) {
            return Err(expected("* or origins such as https://chat.example, separated by commas", text));
        }
        Ok(Origins(origins))
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// The code path of the kernels; `None` takes the best that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuPath(pub Option<Isa>);

impl SettingValue for CpuPath {
    fn parse(text: &str) -> Result<CpuPath, String> {
        if text == "auto" {
            return Ok(CpuPath(None));
        }
        let all = [Isa::Portable, Isa::Avx2, Isa::Avx512];
        let found = all.into_iter().find(|isa| isa.name() == text);
        let isa = found.ok_or_else(|| expected("auto, portable, avx2 or avx512", text))?;
        if !Isa::available().contains(&isa) {
            let here: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
            return Err(format!("this machine has no {text}; it has {}", here.join(", ")));
        }
        Ok(CpuPath(Some(isa)))
    }

    fn show(&self) -> String {
        self.0.map_or("auto", Isa::name).to_string()
    }
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvKind(pub KvElement);

impl SettingValue for KvKind {
    fn parse(text: &str) -> Result<KvKind, String> {
        match text {
            "f16" => Ok(KvKind(KvElement::F16)),
            "f32" => Ok(KvKind(KvElement::F32)),
            _ => Err(expected("f16 or f32", text)),
        }
    }

    fn show(&self) -> String {
        match self.0 {
            KvElement::F16 => "f16".to_string(),
            KvElement::F32 => "f32".to_string(),
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(pub tracing::level_filters::LevelFilter);

impl SettingValue for LogLevel {
    fn parse(text: &str) -> Result<LogLevel, String> {
        let what = "off, error, warn, info, debug or trace";
        text.parse().map(LogLevel).map_err(|_| expected(what, text))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes_are_read_and_shown() {
        let check = |text: &str, bytes: u64, shown: &str| {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!((size.0, size.show().as_str()), (bytes, shown), "{text}");
        };
        check("4096", 4096, "4KiB");
        check("1000", 1000, "1KB");
        check("1001", 1001, "1001");
        check("500 MB", 500_000_000, "500MB");
        check("8GiB", 8 << 30, "8GiB");
        check("1.5gib", 3 << 29, "1536MiB");
        for wrong in ["", "GiB", "-1", "8 gallons", "nan", "1e30", "0"] {
            assert!(ByteSize::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_never_shown() {
        let keys = Keys::parse("first, second").unwrap();
        assert_eq!(keys.0, ["first", "second"]);
        assert_eq!(keys.show(), "2 keys (not shown)");
        assert!(!format!("{keys:?}").contains("first"));
        assert!(Keys::parse("first,,second").is_err());
    }

    #[test]
    fn a_wrong_value_says_what_is_right() {
        assert_eq!(usize::parse("0").unwrap_err(), "expected a whole number from 1, received \"0\"");
        assert!(SocketAddr::parse("8080").unwrap_err().contains("127.0.0.1:8080"));
        assert!(CpuPath::parse("sse2").unwrap_err().contains("auto, portable"));
    }
}
