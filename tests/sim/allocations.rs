//! How much memory this thread's tests hold: the system's allocator, which counts for each thread what it gives and takes back.

// An allocator is unsafe by its nature; this one leaves all to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// Bytes that this thread allocated beyond those that it freed, others' among them: what grows between two calls is its own.
pub fn held() -> isize {
    HELD.get()
}

fn count(by: isize) {
    HELD.set(HELD.get().wrapping_add(by));
}

fn signed(size: usize) -> isize {
    size.cast_signed()
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(signed(new_size) - signed(layout.size()));
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[test]
fn what_is_held_is_counted() {
    let before = held();
    let some = vec![0_u8; 1 << 20];
    let during = held();
    drop(some);
    assert_eq!(during - before, 1 << 20);
    assert_eq!(held(), before);
}
