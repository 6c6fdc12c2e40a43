//! The thread that heartbeats run on goes before others, so that a busy node is no dead one.

use std::io;

/// The priority among real-time threads: above ordinary work, below the kernel's own.
const REAL_TIME_PRIORITY: libc::c_int = 10;

/// What is left where the kernel does not allow that.
const NICE: libc::c_int = -15;

/// Puts the calling thread before ordinary ones; the class that it is in then.
///
/// # Errors
///
/// When the kernel allows neither real time nor a better nice value, which takes CAP_SYS_NICE.
pub fn prioritise() -> io::Result<&'static str> {
    real_time().or_else(|_| nice())
}

#[expect(unsafe_code, reason = "sched_setscheduler of this thread, with a live local")]
fn real_time() -> io::Result<&'static str> {
    let parameter = libc::sched_param { sched_priority: REAL_TIME_PRIORITY };
    // SAFETY: the pointer is to `parameter`, which outlives the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    if result == 0 { Ok("SCHED_FIFO") } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "setpriority of this thread, without pointers")]
fn nice() -> io::Result<&'static str> {
    // SAFETY: no pointers; in Linux 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if result == 0 { Ok("nice -15") } else { Err(io::Error::last_os_error()) }
}
