//! Columns for people, and sizes as they are read in commands' output.

use crate::terminal::plain;

/// Rows under a heading, columns two spaces apart; the last may be as long as it is. Whatever a cell holds, it stays
/// in its line.
pub fn columns(rows: &[Vec<String>]) -> String {
    let one_line = |cell: &String| plain(cell).replace(['\n', '\t'], " ");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(one_line).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes as disks are labelled: `98.4 MB`.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

/// A number of parameters: `134.5M`, `8.0B`.
pub fn parameters(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.1}K", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}B", count as f64 / 1e9),
    }
}

#[test]
fn tables_are_aligned_and_sizes_read_well() {
    let row = |cells: [&str; 2]| cells.map(str::to_string).to_vec();
    assert_eq!(columns(&[row(["NAME", "SIZE"]), row(["smollm2", "1"])]), "NAME     SIZE\nsmollm2  1\n");
    assert_eq!(columns(&[row(["a\nb", "\u{1b}[2J"])]), "a b  \u{fffd}[2J\n");
    assert_eq!([size(17), size(98_362_432), size(999_960)], ["17 bytes", "98.4 MB", "1.0 MB"]);
    assert_eq!([parameters(134_515_008), parameters(8_030_261_248)], ["134.5M", "8.0B"]);
}
