//! The kinds of value that settings have: how each is written, and what is wrong with one that isn't.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use kernels::attention::KvElement;
use kernels::compute::Isa;
use serde::{Deserialize, Serialize};
use store::DatabaseUrl;

/// A type that a setting may have.
pub trait SettingValue: Sized {
    /// What a file to begin with shows where there is no default.
    const EXAMPLE: &str = "";

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
    const EXAMPLE: &str = "/etc/tureen/keys";

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

/// A whole number in a range, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: usize, const MAX: usize>(pub usize);

impl<const MIN: usize, const MAX: usize> SettingValue for Count<MIN, MAX> {
    const EXAMPLE: &str = "4096";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count) if (MIN..=MAX).contains(&count) => Ok(Count(count)),
            _ => Err(expected(&format!("a whole number from {MIN} to {MAX}"), text)),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl SettingValue for i32 {
    fn parse(text: &str) -> Result<i32, String> {
        text.parse().map_err(|_| expected("a whole number", text))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Where to listen. A host's name is looked up when it is listened on, which most commands never do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    host: String,
    port: u16,
}

impl Listen {
    /// # Errors
    /// No address of that name.
    pub fn look_up(&self) -> Result<SocketAddr, String> {
        let Listen { host, port } = self;
        let found = (host.as_str(), *port).to_socket_addrs().map_err(|error| error.to_string());
        let first = found.and_then(|mut addresses| addresses.next().ok_or("it has no address".to_string()));
        first.map_err(|why| format!("looking up {host:?} to listen there: {why}"))
    }
}

impl SettingValue for Listen {
    const EXAMPLE: &str = "127.0.0.1:8001";

    /// A port alone is one of this machine's own.
    fn parse(text: &str) -> Result<Listen, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = address.unwrap_or(host);
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_host = if address.is_some() {
            matches!(host.parse(), Ok(IpAddr::V6(_)))
        } else {
            // A number alone is one of the old ways to write an address, and more likely a mistake.
            !host.is_empty() && host.chars().all(known) && host.parse::<u32>().is_err()
        };
        match port.parse() {
            Ok(port) if is_host => Ok(Listen { host: host.to_string(), port }),
            _ => Err(expected("an address and a port such as 127.0.0.1:8080 or [::]:8080, or a port", text)),
        }
    }

    fn show(&self) -> String {
        let Listen { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    const EXAMPLE: &str = T::EXAMPLE;

    fn parse(text: &str) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

impl SettingValue for DatabaseUrl {
    const EXAMPLE: &str = "postgres://tureen@db.example:5432/tureen";

    fn parse(text: &str) -> Result<DatabaseUrl, String> {
        DatabaseUrl::parse(text)
    }

    /// Without its password.
    fn show(&self) -> String {
        self.to_string()
    }
}

/// What MODEL means on the command line: a file, a folder, or the name of a model that was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelText(pub String);

impl SettingValue for ModelText {
    const EXAMPLE: &str = "smollm2:135m";

    fn parse(text: &str) -> Result<ModelText, String> {
        if text.trim().is_empty() {
            return Err(expected("a file, a folder or a model's name", text));
        }
        Ok(ModelText(text.to_string()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A number of bytes, written with or without a unit: `4096`, `500MB`, `8GiB`. In JSON and TOML a number, or such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenSize")]
pub struct ByteSize(pub u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of bytes such as 4096, \"500MB\" or \"8GiB\"")]
enum WrittenSize {
    Number(u64),
    Text(String),
}

impl TryFrom<WrittenSize> for ByteSize {
    type Error = String;

    fn try_from(written: WrittenSize) -> Result<ByteSize, String> {
        match written {
            WrittenSize::Number(bytes) => Ok(ByteSize(bytes)),
            WrittenSize::Text(text) => ByteSize::parse(&text),
        }
    }
}

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
    const EXAMPLE: &str = "8GiB";

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

/// Keys that open the service. Printing them shows how many there are, never what they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(pub Vec<String>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

impl SettingValue for Keys {
    const EXAMPLE: &str = "a-long-secret";

    fn parse(text: &str) -> Result<Keys, String> {
        let keys: Vec<String> = text.split(',').map(|key| key.trim().to_string()).collect();
        if !keys.iter().all(|key| serve::is_key(key)) {
            return Err("expected keys of visible ASCII characters, separated by commas".to_string());
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
    const EXAMPLE: &str = "https://chat.example";

    fn parse(text: &str) -> Result<Origins, String> {
        let origins: Vec<String> = text.split(',').map(|origin| origin.trim().to_string()).collect();
        if !origins.iter().all(|origin| serve::is_origin(origin)) {
            let what = "* or origins without a path such as https://chat.example, separated by commas";
            return Err(expected(what, text));
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
        let found = Isa::ALL.into_iter().find(|isa| isa.name() == text);
        let isa = found.ok_or_else(|| expected("auto, portable, avx2, avx512 or avx512-bf16", text))?;
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
    const EXAMPLE: &str = "i8";

    fn parse(text: &str) -> Result<KvKind, String> {
        KvElement::find(text).map(KvKind).ok_or_else(|| expected("i16 or i8", text))
    }

    fn show(&self) -> String {
        self.0.name().to_string()
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
    fn origins_are_such_as_the_server_takes() {
        let origins = "https://chat.example, tauri://localhost,*";
        assert_eq!(Origins::parse(origins).unwrap().show(), "https://chat.example,tauri://localhost,*");
        for wrong in ["https://a/", "https://", "://a", "chat.example", "https://a,"] {
            assert!(Origins::parse(wrong).unwrap_err().contains("without a path"), "{wrong}");
        }
    }

    #[test]
    fn how_keys_and_values_are_kept_is_shown_as_it_is_read() {
        for text in ["i16", "i8"] {
            assert_eq!(KvKind::parse(text).unwrap().show(), text);
        }
        assert!(KvKind::parse("f16").is_err());
    }

    #[test]
    fn a_wrong_value_says_what_is_right() {
        let count = |text| Count::<1, 9>::parse(text).map(|count| count.0);
        assert_eq!((count("1"), count("9")), (Ok(1), Ok(9)));
        for wrong in ["0", "10", "-1", "18446744073709551616", "one"] {
            let message = format!("expected a whole number from 1 to 9, received {wrong:?}");
            assert_eq!(count(wrong), Err(message));
        }
        assert_eq!((i32::parse("-5"), i32::parse("1.5").is_err()), (Ok(-5), true));
        assert!(CpuPath::parse("sse2").unwrap_err().contains("auto, portable"));
    }

    #[test]
    fn places_to_listen_are_read_without_being_looked_up() {
        for text in ["127.0.0.1:8080", "[::1]:0", "no-such-host.invalid:80"] {
            assert_eq!(Listen::parse(text).unwrap().show(), text);
        }
        assert_eq!(Listen::parse("9000").unwrap().show(), "127.0.0.1:9000");
        assert_eq!(Listen::parse("[::1]:9").unwrap().look_up(), Ok("[::1]:9".parse().unwrap()));
        assert!(Listen::parse("no-such-host.invalid:80").unwrap().look_up().is_err());
        for wrong in
            ["", ":80", "::1:80", "http://a:80", "host", "host:", "host:65536", "[::1]", "0:80", "a b:80"]
        {
            assert!(Listen::parse(wrong).unwrap_err().contains("127.0.0.1:8080"), "{wrong}");
        }
    }
}
