//! Values as Python writes them: `str`, `repr`, `json.dumps`, `strftime`.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use formats::calendar::DateTime;
use minijinja::value::{Value, ValueKind};

/// Lists in lists, at most.
const DEPTH_MAX: usize = 128;

/// `str(value)`, and nothing for an undefined one.
pub(super) fn write_str(value: &Value, out: &mut dyn Write) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(value, out, 0),
    }
}

fn write_repr(value: &Value, out: &mut dyn Write, depth: usize) -> fmt::Result {
    if depth > DEPTH_MAX {
        return Err(fmt::Error);
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.write_str(&number(value, ["nan", "inf", "-inf"])),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            let Ok(items) = value.try_iter() else { return write!(out, "{value}") };
            out.write_char('[')?;
            for (index, item) in items.enumerate() {
                out.write_str(if index == 0 { "" } else { ", " })?;
                write_repr(&item, out, depth + 1)?;
            }
            out.write_char(']')
        }
        ValueKind::Map => {
            let Ok(keys) = value.try_iter() else { return write!(out, "{value}") };
            out.write_char('{')?;
            for (index, key) in keys.enumerate() {
                out.write_str(if index == 0 { "" } else { ", " })?;
                write_repr(&key, out, depth + 1)?;
                out.write_str(": ")?;
                write_repr(&value.get_item(&key).unwrap_or_default(), out, depth + 1)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

fn write_quoted(text: &str, whole: &mut dyn Write) -> fmt::Result {
    let out = &mut String::with_capacity(text.len() + 2);
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(out, "\\x{:02x}", c as u32)?,
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)?;
    whole.write_str(out)
}

fn number(value: &Value, special: [&str; 3]) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => {
            if float.is_nan() {
                special[0].to_owned()
            } else if float.is_infinite() {
                special[if float > 0.0 { 1 } else { 2 }].to_owned()
            } else {
                float_repr(float)
            }
        }
        _ => value.to_string(),
    }
}

/// `repr(float)`: the shortest digits, an exponent from 1e16 up and below 1e-4.
fn float_repr(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = float.to_string();
        if plain.contains('.') { plain } else { format!("{plain}.0") }
    } else {
        format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct JsonOptions {
    pub ensure_ascii: bool,
    /// Spaces a level; `None` writes one line.
    pub indent: Option<usize>,
    /// Between items, and between key and value.
    pub separators: Option<(String, String)>,
    pub sort_keys: bool,
}

/// Why a value can't be written as JSON; `None` where the writer failed.
type JsonError = Option<&'static str>;

/// `json.dumps`, of a value that stands `depth` levels deep in another.
pub(super) fn write_json(
    value: &Value,
    options: &JsonOptions,
    depth: usize,
    out: &mut dyn Write,
) -> Result<(), JsonError> {
    if depth > DEPTH_MAX {
        return Err(Some("the value is nested too deeply"));
    }
    let items = || value.try_iter().map_err(|_| Some("the value is not JSON"));
    match value.kind() {
        ValueKind::None => put(out, "null"),
        ValueKind::Bool => put(out, if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => put(out, &number(value, ["NaN", "Infinity", "-Infinity"])),
        ValueKind::String => write_json_string(value.as_str().unwrap_or_default(), options.ensure_ascii, out),
        ValueKind::Seq | ValueKind::Iterable => {
            write_json_items(items()?, ['[', ']'], options, depth, out, |item, out| {
                write_json(&item, options, depth + 1, out)
            })
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = items()?.collect();
            if options.sort_keys {
                keys.sort_by_key(Value::to_string);
            }
            let colon = options.separators.as_ref().map_or(": ", |(_, colon)| colon);
            write_json_items(keys.into_iter(), ['{', '}'], options, depth, out, |key, out| {
                write_json_string(&key.to_string(), options.ensure_ascii, out)?;
                put(out, colon)?;
                write_json(&value.get_item(&key).unwrap_or_default(), options, depth + 1, out)
            })
        }
        ValueKind::Undefined => Err(Some("the value is undefined")),
        _ => Err(Some("the value is not JSON")),
    }
}

fn put(out: &mut dyn Write, text: &str) -> Result<(), JsonError> {
    out.write_str(text).map_err(|_| None)
}

fn write_json_items(
    items: impl Iterator<Item = Value>,
    brackets: [char; 2],
    options: &JsonOptions,
    depth: usize,
    out: &mut dyn Write,
    mut write: impl FnMut(Value, &mut dyn Write) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let default = if options.indent.is_some() { "," } else { ", " };
    let comma = options.separators.as_ref().map_or(default, |(comma, _)| comma);
    let break_line = |out: &mut dyn Write, depth: usize| match options.indent {
        Some(indent) => put(out, &format!("\n{}", " ".repeat(indent * depth))),
        None => Ok(()),
    };
    put(out, brackets[0].encode_utf8(&mut [0; 4]))?;
    let mut any = false;
    for item in items {
        if any {
            put(out, comma)?;
        }
        any = true;
        break_line(out, depth + 1)?;
        write(item, out)?;
    }
    if any {
        break_line(out, depth)?;
    }
    put(out, brackets[1].encode_utf8(&mut [0; 4]))
}

fn write_json_string(text: &str, ensure_ascii: bool, out: &mut dyn Write) -> Result<(), JsonError> {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            c if (c as u32) < 0x20 || ensure_ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => json.push(c),
        }
    }
    json.push('"');
    put(out, &json)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `datetime.strftime` in UTC: a server's answers don't depend on where it stands. The error is the directive
/// that isn't known.
pub(super) fn strftime(format: &str, time: SystemTime) -> Result<String, String> {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let DateTime { year, month, day, hour, minute, second, day_of_year, weekday } = DateTime::utc(seconds);
    let weekday = DAYS[weekday as usize];
    let month_name = MONTHS[month as usize - 1];
    let hour12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = characters.next().unwrap_or('%');
        let plain = directive == '-';
        if plain {
            directive = characters.next().unwrap_or('%');
        }
        let padded = |value: u64| if plain { value.to_string() } else { format!("{value:02}") };
        out.push_str(&match directive {
            'Y' => year.to_string(),
            'y' => padded(year % 100),
            'm' => padded(month),
            'd' => padded(day),
            'e' => format!("{day:2}"),
            'H' => padded(hour),
            'I' => padded(hour12),
            'M' => padded(minute),
            'S' => padded(second),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => month_name.to_owned(),
            'b' | 'h' => month_name[..3].to_owned(),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'j' => format!("{day_of_year:03}"),
            'F' => format!("{year}-{month:02}-{day:02}"),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            unknown => return Err(format!("%{unknown}")),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn floats_look_as_in_python() {
        let check = |float: f64, expected: &str| assert_eq!(float_repr(float), expected);
        check(1.0, "1.0");
        check(-0.5, "-0.5");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(1e16, "1e+16");
        check(1.5e300, "1.5e+300");
        check(123456789012345.0, "123456789012345.0");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |seconds: u64, format: &str, expected: &str| {
            assert_eq!(strftime(format, UNIX_EPOCH + Duration::from_secs(seconds)).as_deref(), Ok(expected));
        };
        check(0, "%d %b %Y", "01 Jan 1970");
        check(951_782_400, "%A %Y-%m-%d %j", "Tuesday 2000-02-29 060");
        check(1_735_689_599, "%-d %B %y %H:%M:%S %I%p", "31 December 24 23:59:59 11PM");
        check(4_102_444_800, "%F %a %%", "2100-01-01 Fri %");
        assert_eq!(strftime("%Q", UNIX_EPOCH), Err("%Q".to_owned()));
    }
}
