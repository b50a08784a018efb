//! The GGUF reader: every value type, and every way in which a header may not fit its file.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use formats::gguf::{ARRAY_DEPTH_MAX, Value, ValueType, Writer, read};
use kernels::elements::ElementType;

fn refuses(file: &[u8], expected: &str) {
    let error = read(file).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}\nexpected: {expected}");
}

#[test]
fn values_of_every_type_are_read() {
    let values = [
        Value::U8(200),
        Value::I8(-3),
        Value::U16(60_000),
        Value::I16(-30_000),
        Value::U32(4_000_000_000),
        Value::I32(-2_000_000_000),
        Value::F32(0.5),
        Value::Bool(true),
        Value::String("Ünïcödé"),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F64(1e300),
    ];
    let mut writer = Writer::default();
    for value in values {
        writer.value(&format!("one.{:?}", value.value_type()), value);
        writer.array(&format!("many.{:?}", value.value_type()), value.value_type(), [value, value]);
    }
    let file = writer.finish();
    let gguf = read(&file).unwrap();
    assert_eq!((gguf.version, gguf.alignment, gguf.metadata().len()), (3, 32, 24));
    for value in values {
        assert_eq!(gguf.get(&format!("one.{:?}", value.value_type())), Some(value));
        let array = gguf.array(&format!("many.{:?}", value.value_type())).unwrap().unwrap();
        assert_eq!(array.iter().collect::<Vec<_>>(), [value, value]);
    }
    assert!(gguf.size("one.I8").unwrap_err().to_string().contains("one.I8 is -3"));
    assert_eq!(gguf.size("none").unwrap(), None);
}

/// `depth` arrays, one in the other.
fn nested(depth: usize) -> Vec<u8> {
    let mut elements = vec![7];
    let mut element_type = ValueType::U8;
    for _ in 1..depth {
        let mut outer = (element_type as u32).to_le_bytes().to_vec();
        outer.extend(1u64.to_le_bytes());
        outer.extend(&elements);
        (elements, element_type) = (outer, ValueType::Array);
    }
    let mut writer = Writer::default();
    writer.encoded_array("nested", element_type, 1, &elements);
    writer.finish()
}

#[test]
fn arrays_nest_to_a_limit() {
    let file = nested(ARRAY_DEPTH_MAX);
    let mut array = read(&file).unwrap().array("nested").unwrap().unwrap();
    for _ in 1..ARRAY_DEPTH_MAX {
        array = array.iter().next().unwrap().array().unwrap();
    }
    assert_eq!(array.iter().next(), Some(Value::U8(7)));
    refuses(&nested(ARRAY_DEPTH_MAX + 1), "the nesting of arrays in nested is 5");
}

#[test]
fn tensors_are_found_in_their_shapes() {
    let mut writer = Writer::new(64);
    writer.value("general.alignment", Value::U32(64));
    writer.tensor("b", ElementType::Q4_0, &[3, 2, 64], &[1; 3 * 2 * 36]);
    writer.tensor("a", ElementType::F32, &[5], &[2; 20]);
    let file = writer.finish();
    let gguf = read(&file).unwrap();
    let (a, b) = (gguf.tensor("a").unwrap(), gguf.tensor("b").unwrap());
    assert_eq!((a.shape(), b.shape()), (&[5][..], &[3, 2, 64][..]));
    assert_eq!((&file[a.bytes.clone()], &file[b.bytes.clone()]), (&[2; 20][..], &[1; 216][..]));
    assert_eq!((a.bytes.start % 64, b.bytes.start % 64), (0, 0));
    assert!(gguf.tensor("c").is_none());
}

#[test]
fn versions_and_byte_orders_are_told_apart() {
    let header = |version: [u8; 4]| [b"GGUF".as_slice(), &version, &[0; 16]].concat();
    assert_eq!(read(&header([2, 0, 0, 0])).unwrap().version, 2);
    refuses(&header([1, 0, 0, 0]), "is 1, which is not supported");
    refuses(&header([4, 0, 0, 0]), "is 4");
    refuses(&header([0, 0, 0, 3]), "big-endian");
    refuses(b"GGML", "expected \"GGUF\"");
    refuses(b"", "the file ends within the magic number");
}

#[test]
fn counts_are_held_against_the_bytes_that_remain() {
    let header = |tensors: u64, keys: u64| {
        [b"GGUF\x03\0\0\0".as_slice(), &tensors.to_le_bytes(), &keys.to_le_bytes(), &[0; 100]].concat()
    };
    refuses(&header(4, 0), "the number of tensors is 4, and the 108 bytes that remain can hold 3 at most");
    refuses(&header(0, 8), "the number of metadata entries is 8");
    refuses(&header(u64::MAX, 0), "and at most 131072 is accepted");
    let array = |count: u64| Writer::default().encoded_array("a", ValueType::U64, count, &[0; 80]).finish();
    assert!(read(&array(10)).is_ok());
    refuses(&array(5_000), "a is 5000, and the");
    refuses(&array(1 << 61), "is accepted");
}

#[test]
fn names_are_unique_and_not_empty() {
    let key = |key: &str| Writer::default().value(key, Value::U8(1)).value("b", Value::U8(1)).finish();
    refuses(&key("b"), "metadata key b occurs twice");
    refuses(&key(""), "expected 1 to 1024");
    refuses(&key(&"k".repeat(2000)), "2000 bytes; expected 1 to 1024");
    let tensors = |name: &str| {
        let mut writer = Writer::default();
        writer
            .tensor(name, ElementType::F32, &[8], &[0; 32])
            .tensor("b", ElementType::F32, &[8], &[0; 32])
            .finish()
    };
    refuses(&tensors("b"), "tensor b occurs twice");
}

#[test]
fn bad_values_are_refused() {
    let mut file = Writer::default().value("k", Value::Bool(true)).finish();
    let place = 24 + 8 + 1 + 4;
    file[place] = 2;
    refuses(&file, "k is a boolean of value 2");
    file[place - 4] = 13;
    refuses(&file, "k has the unknown value type 13");
    let mut file = Writer::default().text("k", "text").finish();
    file[24 + 8 + 1 + 4 + 8] = 0xFF;
    refuses(&file, "k at offset 37 is not UTF-8");
    for alignment in [0, 3, 1 << 30] {
        refuses(
            &Writer::default().value("general.alignment", Value::U32(alignment)).finish(),
            "a power of two",
        );
    }
}

#[test]
fn tensors_lie_within_the_file_and_apart() {
    let file = |shape: &[usize], element_type: ElementType, bytes: usize| {
        Writer::default().tensor("t", element_type, shape, &vec![0; bytes]).finish()
    };
    assert!(read(&file(&[2, 32], ElementType::Q4_0, 36)).is_ok());
    refuses(&file(&[2, 32], ElementType::Q4_0, 35), "was not fully downloaded");
    refuses(&file(&[2, 33], ElementType::Q4_0, 36), "a multiple of 32 elements (Q4_0)");
    refuses(&file(&[0, 32], ElementType::Q4_0, 36), "dimensions of at least 1");
    refuses(&file(&[1 << 40, 1 << 40], ElementType::F32, 36), "a size that a file can have");
    refuses(&file(&[1; 5], ElementType::F32, 4), "5 dimensions; expected 1 to 4");
    refuses(&file(&[], ElementType::F32, 4), "0 dimensions");

    // The offset is the last field of the description.
    let mut two = Writer::default();
    two.tensor("t", ElementType::F32, &[8], &[0; 32]).tensor("u", ElementType::F32, &[8], &[0; 32]);
    let good = two.finish();
    let offset = 24 + 2 * (8 + 1 + 4 + 8 + 4 + 8) - 8;
    let with_offset = |offset_bytes: u64| {
        let mut file = good.clone();
        file[offset..offset + 8].copy_from_slice(&offset_bytes.to_le_bytes());
        file
    };
    assert!(read(&with_offset(32)).is_ok());
    refuses(&with_offset(0), "overlap");
    refuses(&with_offset(16), "no multiple of the alignment 32");
    refuses(&with_offset(64), "not fully downloaded");
    refuses(&with_offset(u64::MAX - 31), "tensor u");
    refuses(&with_offset(u64::MAX), "past any file");
}

#[test]
fn unknown_element_types_are_named_with_their_tensor() {
    let file = Writer::default().tensor("t", ElementType::F32, &[8], &[0; 32]).finish();
    let place = 24 + 8 + 1 + 4 + 8;
    for (id, expected) in
        [(39, "tensor t is MXFP4 (39)"), (16, "IQ2_XXS (16)"), (4, "number 4"), (1000, "number 1000")]
    {
        let mut file = file.clone();
        file[place..place + 4].copy_from_slice(&u32::to_le_bytes(id));
        refuses(&file, expected);
    }
}
