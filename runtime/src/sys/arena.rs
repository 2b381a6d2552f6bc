//! An allocator for a program that ends soon.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How much is handed out before another allocator is asked, in bytes. Pages of it that are never used cost nothing.
const SIZE: usize = 512 * 1024;

/// Hands out memory of the program's own, one piece after the other, and takes back only the piece that was handed out last.
///
/// containerd starts the runtime several times for each container. Finding room among what was freed touches pages all over,
/// and after a clone each page touched is copied. What does not fit any more comes from `rest`, so that a command that runs
/// for long needs no more memory than with that alone, and this much.
#[derive(Debug)]
pub struct Arena<A> {
    rest: A,
    memory: UnsafeCell<[u8; SIZE]>,
    /// Where the next piece starts.
    next: AtomicUsize,
}

// SAFETY: pieces of the memory are disjoint, and `next`, which says which are taken, is changed in one step.
unsafe impl<A: Sync> Sync for Arena<A> {}

impl<A> Arena<A> {
    /// An arena of which nothing is taken.
    pub const fn new(rest: A) -> Self {
        Arena { rest, memory: UnsafeCell::new([0; SIZE]), next: AtomicUsize::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    /// Where in the arena a piece starts; `None` for one of the other allocator's.
    fn offset(&self, piece: *mut u8) -> Option<usize> {
        piece.addr().checked_sub(self.base().addr()).filter(|offset| *offset < SIZE)
    }

    /// Takes a piece; `None` if there is no room.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let base = self.base();
        // An alignment is a power of two: no division, which takes longer than all else here.
        let mask = layout.align() - 1;
        let place = |next: usize| {
            let start = ((base.addr() + next).checked_add(mask)? & !mask) - base.addr();
            Some((start, start.checked_add(layout.size())?)).filter(|(_, end)| *end <= SIZE)
        };
        let next = self.next.fetch_update(Relaxed, Relaxed, |next| place(next).map(|(_, end)| end)).ok()?;
        place(next).map(|(start, _)| base.wrapping_add(start))
    }

    /// Moves the end of the piece that was handed out last; whether this is the one.
    fn move_end(&self, offset: usize, from: usize, to: usize) -> bool {
        offset.checked_add(to).is_some_and(|end| {
            end <= SIZE && self.next.compare_exchange(offset + from, end, Relaxed, Relaxed).is_ok()
        })
    }
}

// SAFETY: a piece is aligned and as large as was asked for, within the memory, and no other is until it is taken back; what is
// not of the arena is passed to the other allocator, which keeps the same promises.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Arena<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(piece) => piece,
            // SAFETY: the caller's promises are the same.
            None => unsafe { self.rest.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.offset(piece) {
            Some(offset) => {
                self.move_end(offset, layout.size(), 0);
            }
            // SAFETY: it is no piece of the arena, so it is one of the other's.
            None => unsafe { self.rest.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match self.offset(piece) {
            // SAFETY: as in `dealloc`.
            None => unsafe { self.rest.realloc(piece, layout, size) },
            Some(offset) if self.move_end(offset, layout.size(), size) || size <= layout.size() => piece,
            Some(_) => {
                // SAFETY: the alignment is that of a valid layout, and the caller promises that the size fits it; both pieces are
                // at least as long as what is copied, and are disjoint.
                unsafe {
                    let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !moved.is_null() {
                        std::ptr::copy_nonoverlapping(piece, moved, layout.size());
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn pieces_are_disjoint_aligned_and_keep_what_is_in_them() {
        let arena = Box::new(Arena::new(System));
        let mut pieces: Vec<(*mut u8, Layout, u8)> = Vec::new();
        // More than the arena holds: the rest comes from the system.
        for number in 0..3000_usize {
            let layout = layout(1 + number * 7 % 500, 1 << (number % 8));
            // SAFETY: the layout is not empty; the piece is written within its size.
            let piece = unsafe {
                let piece = arena.alloc(layout);
                piece.write_bytes(number.to_le_bytes()[0], layout.size());
                piece
            };
            assert_eq!(piece.addr() % layout.align(), 0);
            pieces.push((piece, layout, number.to_le_bytes()[0]));
            if number % 3 == 0 {
                let (piece, old, byte) = pieces.swap_remove(number % pieces.len());
                let size = 1 + number % 900;
                // SAFETY: the piece is this allocator's with that layout, and is forgotten here.
                let piece = unsafe { arena.realloc(piece, old, size) };
                let kept = old.size().min(size);
                // SAFETY: the piece has `size` bytes, the first of which were written before.
                let content = unsafe { std::slice::from_raw_parts(piece, kept) };
                assert!(content.iter().all(|one| *one == byte));
                // SAFETY: as above.
                unsafe { piece.write_bytes(byte, size) };
                pieces.push((piece, self::layout(size, old.align()), byte));
            }
            if number % 5 == 0 {
                let (piece, layout, _) = pieces.pop().unwrap();
                // SAFETY: the piece is this allocator's with that layout, and is forgotten here.
                unsafe { arena.dealloc(piece, layout) };
            }
        }
        assert!(pieces.iter().any(|(piece, ..)| arena.offset(*piece).is_none()));
        for (piece, layout, byte) in pieces {
            // SAFETY: each piece was written within its size.
            let content = unsafe { std::slice::from_raw_parts(piece, layout.size()) };
            assert!(content.iter().all(|one| *one == byte));
            // SAFETY: the piece is this allocator's with that layout.
            unsafe { arena.dealloc(piece, layout) };
        }
    }

    #[test]
    fn the_last_piece_is_taken_back() {
        let arena = Box::new(Arena::new(System));
        // SAFETY: the layouts are not empty, and each piece is given back once with its own.
        unsafe {
            let first = arena.alloc(layout(100, 8));
            let second = arena.realloc(first, layout(100, 8), 200);
            assert_eq!(first, second);
            arena.dealloc(second, layout(200, 8));
            assert_eq!(arena.alloc(layout(1, 1)), first);
        }
    }
}
