//! From the superblock through groups to data sets.

use super::bytes::{Bytes, Cursor, UNDEFINED};
use super::header::{self, LINK, LINK_INFO, Message, SYMBOL_TABLE, version};
use super::{DEPTH_MAX, Dataset, NAME_BYTES_MAX, OBJECTS_MAX, SIGNATURE, limit, malformed, unsupported};
use crate::error::FormatError;

/// Levels of a group's B-tree.
const LEVELS_MAX: u8 = 16;
/// Nodes of the B-trees of a file, counted as often as they are met.
const NODES_MAX: usize = 1 << 18;

/// A name and the object header that it leads to.
type Link = (String, u64);

/// Groups to go through, and how much has been met.
struct Walk<'a> {
    file: Bytes<'a>,
    objects: usize,
    nodes: usize,
}

pub(super) fn datasets(file: &Bytes<'_>) -> Result<Vec<Dataset>, FormatError> {
    let root = root(file)?;
    let mut walk = Walk { file: *file, objects: 0, nodes: 0 };
    let mut found = vec![];
    let mut groups = vec![(String::new(), root, 0)];
    while let Some((path, address, depth)) = groups.pop() {
        limit("the depth of groups", depth as u64, DEPTH_MAX as u64)?;
        let messages = header::messages(file, address)?;
        if let Some((shape, number, layout)) = header::dataset(&messages)? {
            found.push(Dataset { path, shape, number, layout });
            continue;
        }
        for (name, address) in walk.links(&messages)? {
            walk.objects += 1;
            limit("the number of groups and data sets", walk.objects as u64, OBJECTS_MAX as u64)?;
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            groups.push((path, address, depth + 1));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The address of the root group's header.
fn root(file: &Bytes<'_>) -> Result<u64, FormatError> {
    let mut cursor = file.cursor(0, "the superblock")?;
    if cursor.take(SIGNATURE.len()).ok() != Some(SIGNATURE) {
        return Err(malformed("it doesn't begin with HDF5's signature"));
    }
    let version = cursor.u8()?;
    self::version(version, &[0, 1, 2, 3], "the superblock")?;
    // versions of other parts
    cursor.take(if version < 2 { 4 } else { 0 })?;
    let sizes = (cursor.u8()?, cursor.u8()?);
    if sizes != (8, 8) {
        return Err(unsupported("the bytes of an offset and a length", format!("{sizes:?}"), "8 and 8"));
    }
    // what nodes of groups have room for, and flags
    cursor.take(match version {
        0 => 9,
        1 => 13,
        _ => 1,
    })?;
    let base = cursor.u64()?;
    if base != 0 {
        return Err(unsupported("the address that others are counted from", base.to_string(), "0"));
    }
    // free space or an extension, and the end of the file
    cursor.take(16)?;
    // of the old versions the address of a driver, and where the root's name is
    cursor.take(if version < 2 { 16 } else { 0 })?;
    cursor.u64()
}

impl Walk<'_> {
    /// The links of a group with these messages.
    fn links(&mut self, messages: &[Message<'_>]) -> Result<Vec<Link>, FormatError> {
        let mut links = vec![];
        for message in messages {
            match message.kind {
                SYMBOL_TABLE => {
                    let mut cursor = message.cursor("a symbol table");
                    let (tree, heap) = (cursor.u64()?, cursor.u64()?);
                    let names = names(&self.file, heap)?;
                    self.tree(tree, names, &mut links)?;
                }
                LINK_INFO => {
                    let mut cursor = message.cursor("information on links");
                    version(cursor.u8()?, &[0], "information on links")?;
                    let flags = cursor.u8()?;
                    cursor.take(if flags & 1 != 0 { 8 } else { 0 })?;
                    if cursor.u64()? != UNDEFINED {
                        let supported = "links in the group's header, or a symbol table";
                        return Err(unsupported("how a group keeps its links", "a fractal heap", supported));
                    }
                }
                LINK => links.extend(link(message.cursor("a link"))?),
                _ => {}
            }
        }
        Ok(links)
    }

    fn tree(&mut self, address: u64, names: &[u8], links: &mut Vec<Link>) -> Result<(), FormatError> {
        let mut nodes = vec![(address, LEVELS_MAX)];
        while let Some((address, below)) = nodes.pop() {
            self.nodes += 1;
            limit("the number of nodes of groups", self.nodes as u64, NODES_MAX as u64)?;
            let mut cursor = self.file.cursor(address, "the B-tree of a group")?;
            cursor.expect(b"TREE\0")?;
            let level = cursor.u8()?;
            if level >= below {
                return Err(malformed("the levels of the B-tree of a group don't fall"));
            }
            let count = cursor.u16()?;
            // its neighbours
            cursor.take(16)?;
            for _ in 0..count {
                cursor.take(8)?;
                let child = cursor.u64()?;
                if level > 0 {
                    nodes.push((child, level));
                } else {
                    self.symbols(child, names, links)?;
                }
            }
        }
        Ok(())
    }

    fn symbols(&mut self, address: u64, names: &[u8], links: &mut Vec<Link>) -> Result<(), FormatError> {
        self.nodes += 1;
        limit("the number of nodes of groups", self.nodes as u64, NODES_MAX as u64)?;
        let mut cursor = self.file.cursor(address, "the symbols of a group")?;
        cursor.expect(b"SNOD\x01\0")?;
        for _ in 0..cursor.u16()? {
            let (name, object, cached) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
            cursor.take(20)?;
            // 2 is a link to another name.
            if cached != 2 {
                let from = usize::try_from(name).ok().and_then(|start| names.get(start..));
                let from = from.ok_or_else(|| malformed("a name lies outside its heap"))?;
                let length = from.iter().position(|&byte| byte == 0);
                let length = length.ok_or_else(|| malformed("a name has no end"))?;
                links.push((self::name(&from[..length])?, object));
                limit("the number of links of a group", links.len() as u64, OBJECTS_MAX as u64)?;
            }
        }
        Ok(())
    }
}

fn name(bytes: &[u8]) -> Result<String, FormatError> {
    limit("a name, in bytes", bytes.len() as u64, NAME_BYTES_MAX as u64)?;
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() && !name.contains(['/', '\0']) => Ok(name.to_owned()),
        _ => Err(malformed(format!("{:?} is no name", String::from_utf8_lossy(bytes)))),
    }
}

/// The names in the local heap at `address`.
fn names<'a>(file: &Bytes<'a>, address: u64) -> Result<&'a [u8], FormatError> {
    let mut cursor = file.cursor(address, "a heap of names")?;
    cursor.expect(b"HEAP\0")?;
    cursor.take(3)?;
    let size = cursor.u64()?;
    cursor.take(8)?;
    file.at(cursor.u64()?, size, "a heap of names")
}

/// A link in a header; nothing where it leads to another name or file.
fn link(mut cursor: Cursor<'_>) -> Result<Option<Link>, FormatError> {
    version(cursor.u8()?, &[1], "a link")?;
    let flags = cursor.u8()?;
    let kind = if flags & 8 != 0 { cursor.u8()? } else { 0 };
    cursor.take(if flags & 4 != 0 { 8 } else { 0 })?;
    cursor.take(if flags & 16 != 0 { 1 } else { 0 })?;
    let length = usize::try_from(cursor.number(1 << (flags & 3))?).unwrap_or(usize::MAX);
    let name = name(cursor.take(length)?)?;
    if kind != 0 {
        return Ok(None);
    }
    Ok(Some((name, cursor.u64()?)))
}
