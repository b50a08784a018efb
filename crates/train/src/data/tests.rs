//! Files to samples, and what is said of those that are broken.

use std::io::Write;

use super::*;
use crate::definition::Normalize;
use crate::losses::{CategoricalCrossentropy, Loss, SparseCategoricalCrossentropy};

pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn with(self, name: &str, content: impl AsRef<[u8]>) -> Folder {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn load(&self, data: &str, input: &[usize]) -> Result<Loaded> {
        let data: Data = toml::from_str(data).unwrap();
        let inputs = [("input".to_owned(), input.to_vec())];
        load(self.0.path(), &data, None, &inputs, &["output".to_owned()])
    }

    fn error(&self, data: &str, input: &[usize]) -> String {
        let error = self.load(data, input).map(|_| ()).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn numbers(target: &Target) -> &Array {
    match target {
        Target::Numbers(array) => array,
        Target::Names(names) => panic!("names: {names:?}"),
    }
}

#[test]
fn csv_columns_are_chosen_by_name() {
    let folder = Folder::new().with("a.csv", "a,b,w,kind\n1, 2,0.5,cat\n3,-4e1,1,\"a dog\"\n");
    let loaded = folder.load("path = 'a.csv'\ny = 'kind'\nweights = 'w'", &[2]).unwrap();
    assert_eq!(loaded.x, [Array::new([2, 2], vec![1.0, 2.0, 3.0, -40.0]).unwrap()]);
    assert_eq!(loaded.y, [Target::Names(vec!["cat".to_owned(), "a dog".to_owned()])]);
    assert_eq!(loaded.weights, Some(vec![0.5, 1.0]));
    let loaded = folder.load("path = 'a.csv'\nx = ['b']\ny = ['a', 'w']", &[1]).unwrap();
    assert_eq!(loaded.x[0].values, [2.0, -40.0]);
    assert_eq!(numbers(&loaded.y[0]).shape, [2, 2]);
}

#[test]
fn broken_rows_are_named_by_their_line() {
    let check = |csv: &str, expected: &str| {
        let folder = Folder::new().with("a.csv", csv);
        assert_eq!(folder.error("path = 'a.csv'\ny = 'y'", &[2]), expected);
    };
    check("a,b,y\n1,2,0\n1,2\n", "a.csv, line 3: the row has 2 values, and the first line names 3 columns");
    check("a,b,y\n1,2,0\n\n1,x,0\n", "a.csv, line 4: column b has \"x\", and a number was expected");
    check(
        "a,b,y\n1,nan,0\n",
        "a.csv, line 2: x has NaN at place 1 of the sample; every value is a finite number",
    );
    check(
        "a,b,y\r\n\r\n\"1\n\",2,3\r\n1,2\r\n",
        "a.csv, line 5: the row has 2 values, and the first line names 3 columns",
    );
    check("a,b,y\n1,2,\n", "a.csv, line 2: column y has no value");
    check("a,b,why\n1,2,3\n", "a.csv, line 1: there is no column y; there are: a, b, why");
    check("a,b,y\n", "a.csv, line 1: there are no samples");
    check("a,y\n1,0\n", "a.csv, line 2: samples have the shape [1], and the input input takes [2]");
}

#[test]
fn labels_become_what_the_loss_takes() {
    let places = Places::Lines("a.csv".to_owned(), vec![2, 3, 5]);
    let names = || Target::Names(["10", "9", "9"].map(str::to_owned).to_vec());
    let mut classes = None;
    let rows = encode(names(), &[2], &Loss::from(CategoricalCrossentropy), &mut classes, &places).unwrap();
    assert_eq!(rows, Array::new([3, 2], vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0]).unwrap());
    assert_eq!(classes, Some(vec!["9".to_owned(), "10".to_owned()]));
    let sparse = Loss::from(SparseCategoricalCrossentropy);
    let numbers = encode(names(), &[2], &sparse, &mut classes, &places).unwrap();
    assert_eq!(numbers, Array::new([3], vec![1.0, 0.0, 0.0]).unwrap());
    let check = |target: Target, output: &[usize], classes: Option<Vec<String>>, expected: &str| {
        let error = encode(target, output, &sparse, &mut classes.clone(), &places).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let wrong = Target::Numbers(Array::new([3], vec![0.0, 1.0, 2.0]).unwrap());
    check(wrong, &[2], None, "a.csv, line 5: the label is 2; the model's output has classes 0 to 1");
    check(
        names(),
        &[2],
        Some(vec!["9".to_owned()]),
        "a.csv, line 2: the class \"10\" isn't in the training part",
    );
    let three = Target::Names(["a", "b", "c"].map(str::to_owned).to_vec());
    check(three, &[2], None, "there are 3 classes (a, b, c), and the model's output has room for 2");
}

/// The header as numpy.lib.format describes it.
fn npy(descr: &str, shape: &str, fortran: bool, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

#[test]
fn npy_values_of_every_type_are_numbers() {
    let check = |descr: &str, shape: &str, fortran: bool, data: &[u8], expected: &[f32]| {
        let folder = Folder::new().with("x.npy", npy(descr, shape, fortran, data));
        let loaded = folder.load("x = 'x.npy'", &[2]).unwrap();
        assert_eq!(loaded.x[0].values, expected, "{descr}");
    };
    check("|u1", "(2, 2)", false, &[1, 2, 3, 255], &[1.0, 2.0, 3.0, 255.0]);
    check("|u1", "(2, 2)", true, &[1, 2, 3, 255], &[1.0, 3.0, 2.0, 255.0]);
    check("|i1", "(1, 2)", false, &[255, 1], &[-1.0, 1.0]);
    check(">i2", "(1, 2)", false, &[255, 254, 0, 7], &[-2.0, 7.0]);
    check("<f2", "(1, 2)", false, &[0, 0x3c, 0, 0xc0], &[1.0, -2.0]);
    check("<f8", "(1, 2)", false, &[1.5f64.to_le_bytes(), 2f64.to_le_bytes()].concat(), &[1.5, 2.0]);
    check("|b1", "(1, 2)", false, &[1, 0], &[1.0, 0.0]);
    let folder = Folder::new()
        .with("o.npy", npy("|O", "(2, 2)", false, b"x"))
        .with("cut.npy", npy("<f4", "(2, 2)", false, &[0; 15]))
        .with("huge.npy", npy("<f4", "(99999999999, 9999999999)", false, &[0; 15]))
        .with("text.npy", "hello, this is no array");
    let error = |file: &str| folder.error(&format!("x = '{file}'"), &[2]);
    assert!(error("o.npy").contains("o.npy: its values are of type \"|O\""));
    assert!(error("cut.npy").contains("fewer values than the 4"));
    assert!(error("huge.npy").contains("samples of more than"));
    assert!(error("text.npy").contains("isn't a .npy file"));
}

#[test]
fn npz_arrays_are_chosen_by_name() {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    let arrays = [("a", npy("<f4", "(3, 1)", false, &[0; 12])), ("b", npy("|u1", "(3,)", false, &[0, 1, 2]))];
    for (name, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    let folder = Folder::new().with("d.npz", archive.finish().unwrap().into_inner());
    let loaded = folder.load("path = 'd.npz'\nx = 'a'\ny = 'b'", &[1]).unwrap();
    assert_eq!(numbers(&loaded.y[0]).values, [0.0, 1.0, 2.0]);
    assert!(folder.error("path = 'd.npz'\nx = 'c'", &[1]).contains("d.npz: there is no array c"));
}

#[test]
fn idx_is_read_plain_and_compressed() {
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[1, 2, 3, 4]].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 7, 9];
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(&images).unwrap();
    let folder = Folder::new()
        .with("train-idx3-ubyte.gz", packed.finish().unwrap())
        .with("labels-idx1-ubyte", labels)
        .with("cut-idx3-ubyte", &images[..18])
        .with("one-idx1-ubyte", [0, 0, 8, 1, 0, 0, 0, 1, 7]);
    let data = "x = 'train-idx3-ubyte.gz'\ny = 'labels-idx1-ubyte'";
    let loaded = folder.load(data, &[1, 2, 1]).unwrap();
    assert_eq!(loaded.x, [Array::new([2, 1, 2, 1], vec![1.0, 2.0, 3.0, 4.0]).unwrap()]);
    assert_eq!(numbers(&loaded.y[0]).values, [7.0, 9.0]);
    let cut = folder.error("x = 'cut-idx3-ubyte'", &[2]);
    assert!(cut.contains("cut-idx3-ubyte: it has fewer values than the 4"), "{cut}");
    let uneven = folder.error("x = 'train-idx3-ubyte.gz'\ny = 'one-idx1-ubyte'", &[2]);
    assert!(uneven.contains("x has 2 samples, and another array has 1"), "{uneven}");
}

/// As `pigz` and `cat` make them.
#[test]
fn gzip_files_of_several_parts_are_read_whole() {
    let part = |text: &str| {
        let mut coder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        coder.write_all(text.as_bytes()).unwrap();
        coder.finish().unwrap()
    };
    let folder = Folder::new().with("a.csv.gz", [part("a,b\n1,2\n"), part("3,4\n")].concat());
    let loaded = folder.load("path = 'a.csv.gz'\nx = ['a', 'b']", &[2]).unwrap();
    assert_eq!(loaded.x[0].values, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn arrays_that_are_longer_than_they_say_or_damaged_are_refused() {
    let whole = npy("<f4", "(2, 1)", false, &[0; 8]);
    let longer = [whole.clone(), vec![0]].concat();
    let folder = Folder::new().with("a.npy", longer);
    assert!(folder.error("x = 'a.npy'", &[1]).contains("more values than the 2 of its shape"));
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("x.npy", stored).unwrap();
    archive.write_all(&whole).unwrap();
    let mut bytes = archive.finish().unwrap().into_inner();
    let end_of_data = bytes.windows(6).position(|part| part == b"\x93NUMPY").unwrap() + whole.len() - 1;
    bytes[end_of_data] ^= 1;
    let folder = Folder::new().with("a.npz", bytes);
    assert!(folder.error("path = 'a.npz'\nx = 'x'", &[1]).contains("it is damaged"));
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = Folder::new();
    let pipe = folder.path().join("a.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(folder.error("path = 'a.csv'", &[1]).contains("it is no file, but a folder, a pipe or a device"));
}

#[test]
fn json_lines_have_one_shape() {
    let good = "{\"p\": [[1, 2], [3, 4]], \"k\": \"a\"}\n\n{\"p\": [[5, 6], [7, 8]], \"k\": \"b\"}\n";
    let folder =
        Folder::new().with("a.jsonl", good).with("b.jsonl", format!("{good}{{\"p\": [1], \"k\": \"a\"}}\n"));
    let loaded = folder.load("path = 'a.jsonl'\nx = 'p'\ny = 'k'", &[2, 2]).unwrap();
    assert_eq!(loaded.x[0].values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(loaded.places.of(1), folder.0.path().join("a.jsonl").display().to_string() + ", line 3");
    let error = folder.error("path = 'b.jsonl'\nx = 'p'\ny = 'k'", &[2, 2]);
    assert_eq!(error, "b.jsonl, line 4: p has the shape [1], and [2, 2] in lines before");
    let error = folder.error("path = 'a.jsonl'\nx = 'q'", &[2, 2]);
    assert!(error.contains("a.jsonl, line 1: there is no key q"), "{error}");
}

#[test]
fn image_folders_are_classes() {
    let png = |width: u32, level: u8| {
        let mut file = std::io::Cursor::new(vec![]);
        image::GrayImage::from_pixel(width, 2, image::Luma([level]))
            .write_to(&mut file, image::ImageFormat::Png)
            .unwrap();
        file.into_inner()
    };
    let folder = Folder::new()
        .with("d/10/a.png", png(2, 200))
        .with("d/9/b.png", png(4, 50))
        .with("d/9/note.txt", "no");
    let loaded = folder.load("path = 'd'", &[2, 2, 1]).unwrap();
    assert_eq!(loaded.x[0].values, [200.0, 200.0, 200.0, 200.0, 50.0, 50.0, 50.0, 50.0]);
    assert_eq!(loaded.y, [Target::Names(vec!["10".to_owned(), "9".to_owned()])]);
    let folder = folder.with("d/9/c.png", "no image");
    assert!(folder.error("path = 'd'", &[2, 2, 1]).starts_with("d/9/c.png: "));
}

#[test]
fn splits_are_the_seeds_and_have_every_sample_once() {
    let (train, validation) = split(100, 0.2, 7);
    assert_eq!((train.len(), validation.len()), (80, 20));
    let mut all = [train.clone(), validation.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    assert_eq!(split(100, 0.2, 7), (train, validation.clone()));
    assert_ne!(split(100, 0.2, 8).1, validation);
}

#[test]
fn scales_are_learned_and_constants_are_left_alone() {
    let x = Array::new([4, 2], vec![1.0, 5.0, 3.0, 5.0, 1.0, 5.0, 3.0, 5.0]).unwrap();
    let learned = |normalize| {
        let mut learning = Learning::new(x.sample_len(), normalize);
        learning.add(&x.values);
        learning.scale()
    };
    let standard = learned(Normalize::Standard);
    assert_eq!((standard.mean, standard.variance), (vec![2.0, 5.0], vec![1.0, 1.0]));
    let min_max = learned(Normalize::MinMax);
    assert_eq!((min_max.mean, min_max.variance), (vec![1.0, 5.0], vec![4.0, 1.0]));
}

#[test]
fn text_is_cut_into_windows() {
    let folder = Folder::new().with("t/b.txt", "xyz!").with("t/a.txt", "hello, you").with("t/c.txt", "no");
    let loaded = folder.load("path = 't'\nformat = 'text'", &[3]).unwrap();
    let bytes = |texts: &[&str]| -> Vec<f32> { texts.concat().bytes().map(f32::from).collect() };
    assert_eq!(loaded.x[0].shape, [4, 3]);
    assert_eq!(loaded.x[0].values, bytes(&["hel", "lo,", " yo", "xyz"]));
    assert_eq!(numbers(&loaded.y[0]).values, bytes(&["ell", "o, ", "you", "yz!"]));
    assert_eq!(last_only(numbers(&loaded.y[0])).unwrap().values, bytes(&["l u!"]));
    let loaded = folder.load("path = 't/a.txt'\nstride = 1", &[8]).unwrap();
    assert_eq!(loaded.x[0].values, bytes(&["hello, y", "ello, yo"]));
    let check = |data: &str, expected: &str| assert!(folder.error(data, &[8]).contains(expected));
    check("path = 't/c.txt'", "no text there is longer than 8 bytes");
    check("path = 't/a.txt'\nstride = 0", "stride is 1 or more");
    check("path = 't/a.txt'\ny = 'b'", "text has no x, y or weights");
}

#[test]
fn sequences_of_labels_are_checked() {
    let encoded = |y: &str| {
        let folder = Folder::new().with("a.jsonl", format!("{{\"x\": [1, 2], \"y\": {y}}}\n"));
        let loaded = folder.load("path = 'a.jsonl'\nx = 'x'\ny = 'y'", &[2]).unwrap();
        let Loaded { mut y, places, .. } = loaded;
        encode(y.remove(0), &[4, 3], &crate::losses::CTC.into(), &mut None, &places)
    };
    assert_eq!(encoded("[1, 2, 1, 0, 0]").unwrap().shape, [1, 5]);
    let check = |y: &str, expected: &str| {
        let error = encoded(y).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains(expected), "{error}");
    };
    check("[1, 3]", "the label 3; there are 0 (none) to 2");
    check("[1, 0, 1]", "a label after a 0");
    check("[1, 1, 1]", "3 labels that take 5 steps; the model has 4");
}

#[test]
fn a_part_has_weights_of_its_own() {
    let folder = Folder::new()
        .with("a.csv", "a,w,v\n1,0.5,3\n2,1,4\n")
        .with("x.npy", npy("|u1", "(3, 1)", false, &[1, 2, 3]))
        .with("w.npy", npy("|u1", "(3,)", false, &[4, 5, 6]))
        .with("x2.npy", npy("|u1", "(2, 1)", false, &[7, 8]))
        .with("w2.npy", npy("|u1", "(2,)", false, &[9, 10]));
    let weights = |data: &str, part: &str| {
        let data: Data = toml::from_str(data).unwrap();
        let part: Part = toml::from_str(part).unwrap();
        let inputs = [("input".to_owned(), vec![1])];
        load(folder.path(), &data, Some(&part), &inputs, &["output".to_owned()]).unwrap().weights
    };
    let table = "path = 'a.csv'\nx = 'a'\nweights = 'w'";
    assert_eq!(weights(table, "path = 'a.csv'"), Some(vec![0.5, 1.0]));
    assert_eq!(weights(table, "path = 'a.csv'\nweights = 'v'"), Some(vec![3.0, 4.0]));
    let files = "x = 'x.npy'\nweights = 'w.npy'";
    assert_eq!(weights(files, "x = 'x2.npy'"), None);
    assert_eq!(weights(files, "x = 'x2.npy'\nweights = 'w2.npy'"), Some(vec![9.0, 10.0]));
}

/// What is read from the disk in any order is what would be in memory.
#[test]
fn samples_on_the_disk_are_those_in_memory() {
    let folder = many_samples()
        .with("a.csv", "a,b,w,kind,n\n1,2,0.5,10,4\n3,-4e1,1,9,5\n5,6,2,9,6.5\n7,8,1,10,7\n")
        .with("a.jsonl", "{\"a\": [1, 2], \"kind\": \"dog\"}\n\n{\"a\": [3, 4], \"kind\": \"cat\"}\n");
    let check = |data: &str, which: &[usize]| {
        let expected = folder.load(data, &[2]).unwrap();
        let parsed: Data = toml::from_str(data).unwrap();
        let inputs = [("input".to_owned(), vec![2])];
        let spool =
            spool(folder.path(), &parsed, None, &inputs, &["output".to_owned()], folder.path()).unwrap();
        assert_eq!(spool.samples, expected.x[0].samples());
        let read = spool.read(which, &inputs).unwrap();
        assert_eq!(read.x[0], expected.x[0].chosen(which));
        for (read, expected) in read.y.iter().zip(&expected.y) {
            match (read, expected) {
                (Target::Numbers(read), Target::Numbers(expected)) => {
                    assert_eq!(*read, expected.chosen(which))
                }
                (Target::Names(read), Target::Names(expected)) => {
                    assert!(read.iter().eq(which.iter().map(|&sample| &expected[sample])));
                }
                other => panic!("{other:?}"),
            }
        }
        let chosen = |weights: &Vec<f32>| which.iter().map(|&sample| weights[sample]).collect::<Vec<f32>>();
        assert_eq!(read.weights, expected.weights.as_ref().map(chosen));
        assert_eq!(read.places.of(1), expected.places.of(which[1]));
        let names = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let listing: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(names).collect();
        assert!(!listing.iter().any(|name| name.to_string_lossy().contains("spool")), "{listing:?}");
        spool.names(0)
    };
    assert_eq!(check("path = 'a.csv'\nx = ['a', 'b']\ny = 'kind'\nweights = 'w'", &[3, 0, 1]), None);
    assert_eq!(check("path = 'a.csv'\nx = ['a', 'b']\ny = ['n', 'w']", &[1, 2, 3, 0]), None);
    let names = check("path = 'a.jsonl'\nx = 'a'\ny = 'kind'", &[1, 0]);
    assert_eq!(names, Some(vec!["cat".to_owned(), "dog".to_owned()]));
    // Arrays of several blocks each.
    let last = 2 * BLOCK_VALUES;
    for data in [
        "x = 'x.npy'\ny = 'y.npy'\nweights = 'w.npy'",
        "x = 'fortran.npy'\ny = 'y.npy'",
        "path = 'a.npz'\nx = 'x'\ny = 'y'\nweights = 'w'",
        "x = 'x-idx2-ubyte.gz'\ny = 'y-idx1-ubyte'",
        "path = 'a.txt'\nstride = 1",
    ] {
        assert_eq!(check(data, &[last, 3, last - 1, 0, 1]), None, "{data}");
    }
}

/// Files of arrays and text, with samples for several blocks.
fn many_samples() -> Folder {
    let count = 2 * BLOCK_VALUES + 5;
    let bytes = |len: usize| (0..len).map(|i| (i * 7919 % 251) as u8).collect::<Vec<u8>>();
    let idx = |shape: &[usize], bytes: Vec<u8>| {
        let sizes = shape.iter().flat_map(|&size| (size as u32).to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(sizes).chain(bytes).collect::<Vec<u8>>()
    };
    let wide: Vec<u8> = bytes(2 * count).iter().flat_map(|&x| (f32::from(x) / 8.0).to_le_bytes()).collect();
    let x = npy("<f4", &format!("({count}, 2)"), false, &wide);
    let y = npy("|u1", &format!("({count},)"), false, &bytes(count));
    let weights = npy("|u1", &format!("({count}, 1)"), false, &bytes(count));
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    for (name, bytes) in [("x.npy", &x), ("y.npy", &y), ("w.npy", &weights)] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(&idx(&[count, 2], bytes(2 * count))).unwrap();
    Folder::new()
        .with("fortran.npy", npy("|u1", &format!("({count}, 2)"), true, &bytes(2 * count)))
        .with("cut.npy", &x[..x.len() - 1])
        .with("longer.npy", [&x[..], &[0]].concat())
        .with("w2.npy", &x)
        .with("x.npy", x)
        .with("y.npy", y)
        .with("w.npy", weights)
        .with("a.npz", archive.finish().unwrap().into_inner())
        .with("x-idx2-ubyte.gz", packed.finish().unwrap())
        .with("y-idx1-ubyte", idx(&[count], bytes(count)))
        .with("a.txt", bytes(count + 2))
}

#[test]
fn what_is_wrong_behind_the_first_block_is_found() {
    let folder = many_samples();
    let samples = 2 * BLOCK_VALUES + 5;
    let fewer = format!("cut.npy: it has fewer values than the {}", 2 * samples);
    assert!(folder.error("x = 'cut.npy'", &[2]).contains(&fewer));
    assert!(folder.error("x = 'longer.npy'", &[2]).contains("more values than"));
    let weights = folder.error("x = 'x.npy'\nweights = 'w2.npy'", &[2]);
    assert!(weights.contains("w2.npy: weights are one number a sample"), "{weights}");
    let mut bytes = std::fs::read(folder.path().join("x.npy")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let folder = folder.with("nan.npy", bytes);
    let error = folder.error("x = 'nan.npy'", &[2]);
    assert_eq!(
        error,
        format!(
            "nan.npy, sample {}: x has NaN at place 1 of the sample; every value is a finite number",
            samples - 1
        )
    );
}
