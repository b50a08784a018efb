//! Files that pyarrow wrote, whole and damaged.

use std::path::PathBuf;

use super::super::tests::Folder;
use super::super::{Loaded, Target, load};
use crate::definition::Data;

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/training"))
}

fn loaded(data: &str, input: &[usize]) -> crate::Result<Loaded> {
    let data: Data = toml::from_str(data).unwrap();
    load(&fixtures(), &data, None, &[("input".to_owned(), input.to_vec())], &["output".to_owned()])
}

#[test]
fn columns_have_the_values_that_pyarrow_wrote() {
    let shapes: [(&str, &[usize]); 9] = [
        ("narrow", &[1]),
        ("wide", &[1]),
        ("half", &[1]),
        ("count", &[1]),
        ("small", &[1]),
        ("unsigned", &[1]),
        ("flag", &[1]),
        ("pixels", &[4]),
        ("grid", &[2, 3]),
    ];
    for (name, shape) in shapes {
        let of = |file: &str| loaded(&format!("path = '{file}'\nx = '{name}'"), shape).unwrap().x;
        let expected = of("table.npz");
        assert_eq!(expected[0].samples(), 50);
        assert_eq!(of("table.parquet"), expected, "{name}");
        if ["narrow", "wide", "pixels"].contains(&name) {
            for codec in ["gzip", "lz4", "none"] {
                assert_eq!(of(&format!("table_{codec}.parquet")), expected, "{name} by {codec}");
            }
        }
    }
    let several =
        loaded("path = 'table.parquet'\nx = ['count', 'flag']\ny = 'kind'\nweights = 'unsigned'", &[2])
            .unwrap();
    let of =
        |name: &str| loaded(&format!("path = 'table.npz'\nx = '{name}'"), &[1]).unwrap().x.remove(0).values;
    let pairs: Vec<f32> = of("count").into_iter().zip(of("flag")).flat_map(|(a, b)| [a, b]).collect();
    assert_eq!((several.x[0].values.clone(), several.weights), (pairs, Some(of("unsigned"))));
    let names = of("kind").into_iter().map(|kind| ["cat", "dog", "owl"][kind as usize].to_owned()).collect();
    assert_eq!(several.y, [Target::Names(names)]);
}

#[test]
fn what_is_not_read_is_named() {
    let check = |column: &str, shape: &[usize], expected: &str| {
        let error =
            loaded(&format!("path = 'table.parquet'\nx = '{column}'"), shape).map(|_| ()).unwrap_err();
        let error = error.to_string().replace(&format!("{}/", fixtures().display()), "");
        assert!(error.contains(expected), "{error}");
    };
    check("gap", &[1], "table.parquet, row group 1, column gap: row 13 has no value");
    check(
        "ragged",
        &[2],
        "table.parquet, row group 2, column ragged: the lists of row 1 haven't the shape [3]",
    );
    check("when", &[1], "column when: its values are INT64 (Timestamp");
    check("kinds", &[2], "column kinds: it has lists of texts");
    check("kind", &[1], "the input input is read from texts");
    check("grids", &[6], "there is no column grids; did you mean grid?; there are: narrow, wide");
    check("pixels", &[5], "row group 0, row 0: samples have the shape [4], and the input input takes [5]");
    let zstd = loaded("path = 'table_zstd.parquet'\nx = 'narrow'", &[1]).map(|_| ()).unwrap_err().to_string();
    assert!(zstd.contains("row group 0") && zstd.to_lowercase().contains("zstd"), "{zstd}");
}

/// A damaged file is an error or other values, at once and without much memory.
#[test]
fn damaged_files_are_errors() {
    let whole = std::fs::read(fixtures().join("table.parquet")).unwrap();
    let data: Data = toml::from_str("path = 'a.parquet'\nx = ['narrow', 'count']\ny = 'kind'").unwrap();
    let read = |bytes: &[u8]| {
        let folder = Folder::new().with("a.parquet", bytes);
        let inputs = [("input".to_owned(), vec![2])];
        load(folder.path(), &data, None, &inputs, &["output".to_owned()]).map(|_| ())
    };
    read(&whole).unwrap();
    for len in (0..whole.len()).step_by(311) {
        let error = read(&whole[..len]).unwrap_err().to_string();
        assert!(error.contains("a.parquet"), "{error}");
    }
    let mut state = 1u64;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 25) as u8;
        }
        let _ = read(&bytes);
    }
}
