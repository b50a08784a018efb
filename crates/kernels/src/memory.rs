//! Memory that kernels read and write: mapped files and aligned buffers.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use memmap2::Mmap;

/// A file's bytes, mapped read-only.
///
/// A file that another program cuts short while it is mapped ends this one (SIGBUS): published files are written
/// under another name and renamed, never changed in place.
#[derive(Debug)]
pub struct MappedFile {
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    /// As for opening and mapping; what is no regular file is refused.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Ok(MappedFile { map: None });
        }
        // SAFETY: the map is only read; that nobody changes the file meanwhile is the contract stated above.
        let map = unsafe { Mmap::map(&file)? };
        Ok(MappedFile { map: Some(map) })
    }

    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

/// Cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;

/// Element types that are valid when all their bytes are zero.
pub trait Zeroed: Copy + Send + Sync + 'static {}
impl Zeroed for f32 {}
impl Zeroed for u8 {}
impl Zeroed for i8 {}
impl Zeroed for u16 {}
impl Zeroed for i16 {}
impl Zeroed for i32 {}

/// A fixed-size buffer that starts on a cache line, zeroed; its pages are taken from the machine when first written.
pub struct AlignedVec<T: Zeroed> {
    start: *mut T,
    length: usize,
}

// SAFETY: it owns its memory as a `Box<[T]>` would.
unsafe impl<T: Zeroed> Send for AlignedVec<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroed> Sync for AlignedVec<T> {}

impl<T: Zeroed> AlignedVec<T> {
    /// # Panics
    /// When `length` elements don't fit the address space; callers bound what comes from outside.
    pub fn zeroed(length: usize) -> AlignedVec<T> {
        let layout = Self::layout(length);
        if layout.size() == 0 {
            return AlignedVec { start: std::ptr::dangling_mut(), length };
        }
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
        if start.is_null() {
            handle_alloc_error(layout);
        }
        AlignedVec { start, length }
    }

    fn layout(length: usize) -> Layout {
        let layout = length.checked_mul(size_of::<T>()).map(|size| Layout::from_size_align(size, ALIGNMENT));
        match layout {
            Some(Ok(layout)) => layout,
            _ => panic!("a buffer of {length} elements does not fit the address space"),
        }
    }
}

impl<T: Zeroed> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        let layout = Self::layout(self.length);
        if layout.size() > 0 {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.cast(), layout) };
        }
    }
}

impl<T: Zeroed> Deref for AlignedVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `length` elements were allocated and zeroed, which is a valid value of `T`.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl<T: Zeroed> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_and_aligned() {
        for length in [0, 1, 17, 1 << 20] {
            let mut buffer = AlignedVec::<f32>::zeroed(length);
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|x| *x == 0.0));
            assert!(length == 0 || (buffer.as_ptr() as usize).is_multiple_of(ALIGNMENT));
            buffer.fill(1.0);
        }
    }

    #[test]
    fn folders_and_missing_files_are_errors() {
        assert!(MappedFile::open(Path::new("/nowhere/at/all")).is_err());
        assert!(MappedFile::open(&std::env::temp_dir()).is_err());
    }
}
