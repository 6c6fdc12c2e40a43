//! How glibc is asked to keep house: a list of everything leaves as much behind as it is worth, in as many heaps as
//! there are threads, and none of it goes back to the kernel by itself. With another C library nothing is asked.

/// What is larger than this gets a mapping of its own: the answer to a list, a table that grows. Left to itself, glibc
/// takes larger and larger ones from the heap, once it has seen them come and go.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 128 * 1024;

/// One heap for all threads: what one of them gives back, the others can use. Nothing large is in it. To be called
/// before there are threads.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "mallopt takes two numbers and sets one")
)]
pub fn use_one_heap() {
    // SAFETY: no pointer is involved; the parameters are ones that glibc documents.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives the kernel back what is free.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "malloc_trim takes a number and touches only what nobody has")
)]
pub(crate) fn give_back() {
    // SAFETY: no pointer is involved, and glibc takes its own locks.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
