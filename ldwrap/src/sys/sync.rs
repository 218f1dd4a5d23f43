//! Locks that stay usable when a thread has panicked while it held one.
//!
//! A panic is a bug of ours, and what the lock protects may then be incomplete; but a link can still end
//! in order, with its children stopped and its scratch directory removed.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks a mutex, whether or not it is poisoned.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    ignore_poison(mutex.lock())
}

/// What a lock or a condition variable gives, whether or not the lock is poisoned.
pub fn ignore_poison<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
