//! HDF5 against files that h5py wrote (`fixtures/hdf5`), and against bytes that nobody should trust.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use super::*;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../fixtures/hdf5/{name}.h5", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What `make.py` put into a data set.
fn numbers(dataset: &Dataset) -> Vec<f64> {
    let unsigned = matches!(dataset.number, Some(Number::Unsigned(_)));
    let first = if unsigned { 0.0 } else { -50.0 };
    (0..dataset.shape.iter().product()).map(|i: usize| first + (i % 100) as f64).collect()
}

#[test]
fn what_h5py_writes_is_read() {
    for (name, count, paths) in
        [("default", 319, &["chunked", "gzip", "shuffled", "many/299"][..]), ("latest", 7, &["scalar"])]
    {
        let file = file(name);
        let datasets = read(&file).unwrap();
        assert_eq!(datasets.len(), count, "{name}");
        let always = ["types/f2", "types/u8", "compact", "deep/er/and/deeper/vars/0"];
        for path in paths.iter().chain(&always) {
            assert!(datasets.iter().any(|dataset| dataset.path == *path), "{name} has no {path}");
        }
        for dataset in &datasets {
            match dataset.path.split_once('/') {
                _ if ["big_endian", "text"].contains(&dataset.path.as_str()) => {
                    let error = dataset.values(&file).unwrap_err().to_string();
                    assert!(error.contains("supported: little-endian"), "{error}");
                }
                Some(("many", number)) => {
                    let expected = -50.0 + (number.parse::<usize>().unwrap() % 100) as f64;
                    assert_eq!(dataset.values(&file).unwrap(), [expected], "{name}: {}", dataset.path);
                }
                _ => assert_eq!(dataset.values(&file).unwrap(), numbers(dataset), "{name}: {}", dataset.path),
            }
        }
    }
}

#[test]
fn halves_are_read() {
    for (bits, expected) in [
        (0x3c00u16, 1.0),
        (0xc000, -2.0),
        (0x0001, 2f64.powi(-24)),
        (0x7bff, 65504.0),
        (0xfc00, f64::NEG_INFINITY),
    ] {
        assert_eq!(Number::Float(2).value(&bits.to_le_bytes()), expected);
    }
    assert_eq!(Number::Signed(2).value(&(-3i16).to_le_bytes()), -3.0);
}

fn some_file(groups: usize, each: usize) -> (Vec<u8>, Vec<String>) {
    let paths: Vec<String> =
        (0..groups).flat_map(|group| (0..each).map(move |i| format!("group {group}/vars/{i}"))).collect();
    let datasets: Vec<(&str, &[usize], Values<'_>)> = paths
        .iter()
        .map(|path| (path.as_str(), &[2, 3][..], Values::F32(&[-50.0, -49.0, -48.0, -47.0, -46.0, -45.0])))
        .chain([("count", &[][..], Values::I64(&[-50]))])
        .collect();
    (write(&datasets).unwrap(), paths)
}

#[test]
fn what_is_written_is_read() {
    for (groups, each) in [(1, 1), (3, 8), (2, 9), (1, 257), (300, 1), (1, 3000)] {
        let (file, mut paths) = some_file(groups, each);
        paths.push("count".to_owned());
        paths.sort();
        let datasets = read(&file).unwrap();
        assert_eq!(
            datasets.iter().map(|dataset| &dataset.path).collect::<Vec<_>>(),
            paths.iter().collect::<Vec<_>>()
        );
        for dataset in &datasets {
            assert_eq!(dataset.values(&file).unwrap(), numbers(dataset));
        }
    }
    let one: &[usize] = &[1];
    let value = Values::F32(&[0.0]);
    for wrong in
        [vec![("a", one, value); 2], vec![("a", one, value), ("a/b", one, value)], vec![("a//b", one, value)]]
    {
        write(&wrong).unwrap_err();
    }
    write(&[("a", &[2][..], value)]).unwrap_err();
}

fn consume(file: &[u8]) {
    for dataset in read(file).unwrap_or_default() {
        drop(dataset.values(file));
    }
}

#[test]
fn files_cut_short_are_refused() {
    let whole = some_file(2, 9).0;
    for length in 0..whole.len() {
        let cut = &whole[..length];
        let missing = read(cut).map_or(true, |datasets| datasets.iter().any(|d| d.values(cut).is_err()));
        assert!(missing, "{length} of {} bytes are taken for the whole", whole.len());
    }
    let default = file("default");
    (0..default.len()).step_by(61).for_each(|length| consume(&default[..length]));
}

/// Bytes changed at random: nothing panics, loops or takes memory without end.
#[test]
fn files_that_nobody_should_trust() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    for original in [file("default"), file("latest"), some_file(3, 5).0] {
        for _ in 0..1500 {
            let mut bytes = original.clone();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                bytes[at] = [0, 1, 0xff, 0x7f, next(256) as u8][next(5)];
            }
            consume(&bytes);
        }
    }
}

/// A group that holds itself.
#[test]
fn groups_without_end_are_refused() {
    let mut file = some_file(1, 1).0;
    let root = file[64..72].to_vec();
    let symbols = file.windows(4).enumerate().filter(|(_, bytes)| *bytes == b"SNOD").map(|(at, _)| at);
    for at in symbols.collect::<Vec<_>>() {
        file[at + 16..at + 24].copy_from_slice(&root);
    }
    let error = read(&file).unwrap_err().to_string();
    assert!(error.contains("at most"), "{error}");
}
