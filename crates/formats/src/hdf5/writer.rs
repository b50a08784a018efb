//! Writes HDF5 as `h5py` does by default: superblock 0, groups with symbol tables, contiguous data.

use std::collections::BTreeMap;

use super::bytes::UNDEFINED;
use super::{NAME_BYTES_MAX, SIGNATURE, malformed};
use crate::error::FormatError;

/// Numbers of a data set.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    F32(&'a [f32]),
    I64(&'a [i64]),
}

/// A group under construction.
#[derive(Default)]
struct Group<'a> {
    groups: BTreeMap<&'a str, Group<'a>>,
    datasets: BTreeMap<&'a str, (&'a [usize], Values<'a>)>,
}

impl Group<'_> {
    fn len(&self) -> usize {
        self.groups.len() + self.datasets.len()
    }

    /// Links of the group below that has the most.
    fn most(&self) -> usize {
        self.groups.values().map(Group::most).max().unwrap_or(0).max(self.len())
    }
}

/// A file with these data sets, each with its path (names with `/` between) and shape.
///
/// # Errors
/// When a path has an empty or overlong name, or is there twice, or a shape has another number of values.
pub fn write(datasets: &[(&str, &[usize], Values<'_>)]) -> Result<Vec<u8>, FormatError> {
    let mut root = Group::default();
    for (path, shape, values) in datasets {
        let names: Vec<&str> = path.split('/').collect();
        let wrong = |name: &&str| name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0');
        let len = match values {
            Values::F32(values) => values.len(),
            Values::I64(values) => values.len(),
        };
        if names.iter().any(wrong) || shape.iter().product::<usize>() != len {
            return Err(malformed(format!("{path:?} of {shape:?} with {len} values can't be written")));
        }
        let (last, above) = names.split_last().unwrap_or((path, &[]));
        let mut group = &mut root;
        let mut twice = false;
        for &name in above {
            twice |= group.datasets.contains_key(name);
            group = group.groups.entry(name).or_default();
        }
        twice |= group.datasets.insert(last, (shape, *values)).is_some();
        if twice || group.groups.contains_key(last) {
            return Err(malformed(format!("{path:?} is there twice")));
        }
    }
    // What the library takes if nobody asks for another: nodes of 8 symbols, trees of 32 nodes. One level of tree has to
    // do, so both grow with the largest group.
    let most = root.most();
    let (mut leaf, mut inner) = (4, 16);
    if most > 4 * leaf * inner {
        leaf = 64;
        inner = inner.max(most.div_ceil(4 * leaf) + 1);
    }
    if inner > usize::from(u16::MAX) {
        return Err(malformed(format!("a group of {most} objects can't be written")));
    }
    let mut writer = Writer { bytes: vec![0; 96], leaf, inner };
    let written = writer.group(&root);
    writer.superblock(&written);
    Ok(writer.bytes)
}

/// Where parts of a group are.
struct Written {
    header: u64,
    tree: u64,
    heap: u64,
}

struct Writer {
    bytes: Vec<u8>,
    /// Half of a node's symbols, and half of a tree's nodes.
    leaf: usize,
    inner: usize,
}

impl Writer {
    /// The address of what is added next, at a multiple of 8.
    fn next(&mut self) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.bytes.len() as u64
    }

    fn add(&mut self, parts: &[&[u8]]) -> u64 {
        let address = self.next();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        address
    }

    fn group(&mut self, group: &Group<'_>) -> Written {
        let mut links: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, below) in &group.groups {
            links.insert(name, self.group(below).header);
        }
        for (name, (shape, values)) in &group.datasets {
            links.insert(name, self.dataset(shape, *values));
        }
        // Names, after the empty one.
        let mut names = vec![0; 8];
        let mut symbols = vec![];
        for (name, header) in links {
            symbols.push((names.len() as u64, header));
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            names.resize(names.len().next_multiple_of(8), 0);
        }
        let data = self.add(&[&names]);
        // No free space in it is said by 1.
        let [size, free, data] = [names.len() as u64, 1, data].map(u64::to_le_bytes);
        let heap = self.add(&[b"HEAP\0\0\0\0", &size, &free, &data]);
        let tree = self.tree(&symbols);
        let table = [tree.to_le_bytes(), heap.to_le_bytes()].concat();
        let header = self.header(&[(0x11, table)]);
        Written { header, tree, heap }
    }

    /// The B-tree of a group with these places of names and addresses.
    fn tree(&mut self, symbols: &[(u64, u64)]) -> u64 {
        let nodes = symbols.chunks(2 * self.leaf);
        // Before, between and after nodes stands the name that closes the one before.
        let mut tree = vec![0u8; 8];
        let count = nodes.len() as u16;
        for node in nodes {
            let address = self.next();
            self.bytes.extend_from_slice(b"SNOD\x01\0");
            self.bytes.extend_from_slice(&(node.len() as u16).to_le_bytes());
            for (name, header) in node {
                self.bytes.extend_from_slice(&name.to_le_bytes());
                self.bytes.extend_from_slice(&header.to_le_bytes());
                self.bytes.extend_from_slice(&[0; 24]);
            }
            let end = address as usize + 8 + 40 * 2 * self.leaf;
            self.bytes.resize(end, 0);
            tree.extend_from_slice(&address.to_le_bytes());
            tree.extend_from_slice(&node[node.len() - 1].0.to_le_bytes());
        }
        tree.resize(8 * (4 * self.inner + 1), 0);
        let none = UNDEFINED.to_le_bytes();
        self.add(&[b"TREE\0\0", &count.to_le_bytes(), &none, &none, &tree])
    }

    /// An object header of version 1.
    fn header(&mut self, messages: &[(u16, Vec<u8>)]) -> u64 {
        let mut all = vec![];
        for (kind, data) in messages {
            let size = data.len().next_multiple_of(8);
            all.extend_from_slice(&kind.to_le_bytes());
            all.extend_from_slice(&(size as u16).to_le_bytes());
            all.extend_from_slice(&[0; 4]);
            all.extend_from_slice(data);
            all.resize(all.len() + size - data.len(), 0);
        }
        let count = (messages.len() as u16).to_le_bytes();
        let size = (all.len() as u32).to_le_bytes();
        self.add(&[&[1, 0], &count, &1u32.to_le_bytes(), &size, &[0; 4], &all])
    }

    fn dataset(&mut self, shape: &[usize], values: Values<'_>) -> u64 {
        let address = self.next();
        // Type: class and version, its flags, bytes, then places and sizes of its parts.
        let kind: &[u8] = match values {
            Values::F32(values) => {
                self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                &[0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0]
            }
            Values::I64(values) => {
                self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                &[0x10, 8, 0, 0, 8, 0, 0, 0, 0, 0, 64, 0]
            }
        };
        let bytes = self.bytes.len() as u64 - address;
        let mut space = vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0];
        shape.iter().for_each(|&size| space.extend_from_slice(&(size as u64).to_le_bytes()));
        let layout = [&[3, 1][..], &address.to_le_bytes(), &bytes.to_le_bytes()].concat();
        // Filled with the default where nothing is written.
        let fill = vec![2, 2, 2, 1, 0, 0, 0, 0];
        self.header(&[(0x1, space), (0x3, kind.to_vec()), (0x5, fill), (0x8, layout)])
    }

    fn superblock(&mut self, root: &Written) {
        let end = self.next();
        let mut block = SIGNATURE.to_vec();
        block.extend_from_slice(&[0, 0, 0, 0, 0, 8, 8, 0]);
        block.extend_from_slice(&(self.leaf as u16).to_le_bytes());
        block.extend_from_slice(&(self.inner as u16).to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        let numbers = [0, UNDEFINED, end, UNDEFINED, 0, root.header, 1, root.tree, root.heap];
        numbers.iter().for_each(|number| block.extend_from_slice(&number.to_le_bytes()));
        self.bytes[..96].copy_from_slice(&block);
    }
}
