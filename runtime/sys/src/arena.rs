//! The heap of a process that lives for milliseconds: memory is handed out from one block and given back
//! when the process ends. Measured in `docs/decisions/0011-start-of-a-process.md`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the block; what does not fit comes from the system's allocator. Untouched pages cost nothing.
const SIZE: usize = 1 << 20;

/// An allocator that never looks for free memory. Only the newest allocation grows, shrinks and goes in
/// place, which is what a vector being filled does.
#[derive(Debug)]
pub struct Arena {
    block: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

// SAFETY: `block` is touched only through pointers to ranges that `used`, an atomic, gave to one owner.
unsafe impl Sync for Arena {}

impl Arena {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "a static needs a const function, which Default is not")]
    #[must_use]
    pub const fn new() -> Self {
        Self { block: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    fn start(&self) -> usize {
        self.block.get().addr()
    }

    /// Where in the block a pointer lies.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        pointer.addr().checked_sub(self.start()).filter(|offset| *offset < SIZE)
    }

    /// Gives the newest allocation, from `offset` to `end`, another end.
    fn resize(&self, offset: usize, end: usize, new_size: usize) -> bool {
        let new_end = offset.saturating_add(new_size);
        new_end <= SIZE
            && self.used.compare_exchange(end, new_end, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: every range is given out once until it is given back: `used` only moves past a range by a
// successful compare-and-exchange, and back over it only when that range is the newest and its owner asked.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let address = (self.start() + used).next_multiple_of(layout.align());
            let offset = address - self.start();
            let end = offset.saturating_add(layout.size());
            if end > SIZE {
                // SAFETY: the caller's promise about `layout` is passed on.
                return unsafe { System.alloc(layout) };
            }
            match self.used.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
                // SAFETY: `end` is at most `SIZE`, so `offset` is within the block.
                Ok(_) => return unsafe { self.block.get().cast::<u8>().add(offset) },
                Err(now) => used = now,
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            // Of any other than the newest nothing is got back.
            Some(offset) => drop(self.resize(offset, offset + layout.size(), 0)),
            // SAFETY: not of the block, so it came from `System` with this layout.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: not of the block, so it came from `System` with this layout.
            return unsafe { System.realloc(pointer, layout, new_size) };
        };
        if self.resize(offset, offset + layout.size(), new_size) || new_size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller promises that `new_size` fits a layout of this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that `new_size` is not zero.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both are valid for the old size, the smaller one, and no two allocations overlap.
            unsafe { pointer.copy_to_nonoverlapping(new, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of calls is one case")]

    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    fn arena() -> Box<Arena> {
        Box::new(Arena::new())
    }

    #[test]
    fn allocations_are_aligned_and_apart() {
        let arena = arena();
        let mut ends = 0;
        for (size, align) in [(1, 1), (3, 8), (100, 64), (7, 2), (4096, 4096)] {
            // SAFETY: the layouts have a size.
            let at = unsafe { arena.alloc(layout(size, align)) }.addr();
            assert_eq!(at % align, 0);
            assert!(at >= ends);
            ends = at + size;
        }
    }

    #[test]
    fn the_newest_allocation_grows_and_goes_in_place() {
        let arena = arena();
        // SAFETY: each pointer is used with its last layout.
        unsafe {
            let first = arena.alloc(layout(16, 8));
            let newest = arena.alloc(layout(16, 8));
            assert_eq!(arena.realloc(newest, layout(16, 8), 64), newest);
            arena.dealloc(newest, layout(64, 8));
            assert_eq!(arena.alloc(layout(8, 8)), newest);
            let moved = arena.realloc(first, layout(16, 8), 32);
            assert_ne!(moved, first);
        }
    }

    #[test]
    fn contents_move_along() {
        let arena = arena();
        // SAFETY: each pointer is used with its last layout, within its size.
        unsafe {
            let first = arena.alloc(layout(4, 1));
            first.copy_from_nonoverlapping(b"abcd".as_ptr(), 4);
            let _other = arena.alloc(layout(4, 1));
            let moved = arena.realloc(first, layout(4, 1), 8);
            assert_eq!(std::slice::from_raw_parts(moved, 4), b"abcd");
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_the_system() {
        let arena = arena();
        // SAFETY: each pointer is used with its last layout.
        unsafe {
            let large = arena.alloc(layout(SIZE + 1, 1));
            assert!(arena.offset(large).is_none());
            let larger = arena.realloc(large, layout(SIZE + 1, 1), SIZE + 2);
            arena.dealloc(larger, layout(SIZE + 2, 1));
            let small = arena.alloc(layout(10, 1));
            assert!(arena.offset(small).is_some());
            let grown = arena.realloc(small, layout(10, 1), SIZE);
            assert!(arena.offset(grown).is_some());
            let out = arena.realloc(grown, layout(SIZE, 1), SIZE * 2);
            assert!(arena.offset(out).is_none());
            arena.dealloc(out, layout(SIZE * 2, 1));
        }
    }
}
