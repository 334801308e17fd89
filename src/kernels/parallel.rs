//! How kernels share the machine: over the global pool, or on the caller's thread inside one.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// How many threads [`for_each`] uses here; results must not depend on it.
pub(crate) fn threads() -> usize {
    if rayon::current_thread_index().is_some() {
        1
    } else {
        rayon::current_num_threads()
    }
}

/// Runs `task` for `0..tasks` on all threads of the global pool, or in order on this thread
/// when it already is a pool's worker (training gives each worker its own images).
///
/// The tasks must not depend on the number of threads: that keeps results identical bit for bit.
pub(crate) fn for_each(tasks: usize, task: impl Fn(usize) + Send + Sync) {
    if tasks <= 1 || threads() == 1 {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// What `task` returns for `0..tasks`, in this order; shared like [`for_each`].
pub(crate) fn map<T: Send>(tasks: usize, task: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
    if tasks <= 1 || threads() == 1 {
        (0..tasks).map(task).collect()
    } else {
        let tasks = (0..tasks).into_par_iter().with_max_len(1);
        tasks.map(task).collect()
    }
}

/// A buffer that several tasks write at once, each its own elements.
pub(crate) struct SharedMut<'a> {
    start: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a unique borrow of a slice of plain numbers; `slice` and the users of `at` leave it to their
// callers that no two threads touch the same element.
unsafe impl Sync for SharedMut<'_> {}
// SAFETY: as above; the borrow may move to another thread like `&mut [f32]` itself.
unsafe impl Send for SharedMut<'_> {}

impl<'a> SharedMut<'a> {
    /// Lends the whole buffer.
    pub(crate) fn new(buffer: &'a mut [f32]) -> Self {
        Self {
            start: buffer.as_mut_ptr(),
            len: buffer.len(),
            owner: PhantomData,
        }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other live slice or pointer may be used to access elements of `range`.
    #[allow(clippy::mut_from_ref)] // the point of the type; see Safety
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [f32] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside the buffer"
        );
        // SAFETY: inside the borrowed buffer (asserted), and unaliased by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The elements of `range`, to be read.
    ///
    /// # Safety
    /// Nobody may write elements of `range` while the slice lives.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &[f32] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside the buffer"
        );
        // SAFETY: inside the borrowed buffer (asserted), not written by this function's contract.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// A pointer to element `index`, for strided writers.
    pub(crate) fn at(&self, index: usize) -> *mut f32 {
        assert!(index <= self.len, "index outside the buffer");
        // SAFETY: inside the borrowed buffer or one past its end (asserted).
        unsafe { self.start.add(index) }
    }
}

/// A vector of `len` elements that `work` writes; zeroing it first would take a tenth of the time of
/// what fills it.
///
/// # Safety
/// `work` must write every element, and read none before it is written.
pub(crate) unsafe fn written(len: usize, work: impl FnOnce(&SharedMut)) -> Vec<f32> {
    let mut values = Vec::<f32>::with_capacity(len);
    let shared = SharedMut {
        start: values.as_mut_ptr(),
        len,
        owner: PhantomData,
    };
    work(&shared);
    // SAFETY: the capacity is there, and `work` wrote all, by this function's contract.
    unsafe { values.set_len(len) };
    values
}

thread_local! {
    /// Freed scratch buffers of this thread, largest last.
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of unspecified (old) content that are kept for the thread's next call.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = work(&mut buffer[..len]);
    SCRATCH.with_borrow_mut(|free| free.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_task_runs_once_in_and_outside_a_worker() {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap();
        let count = |inside: bool| {
            let mut hits = vec![0.0; 100];
            let shared = SharedMut::new(&mut hits);
            // SAFETY: task i touches element i only.
            let run = || for_each(100, |i| unsafe { shared.slice(i..i + 1)[0] += 1.0 });
            if inside {
                pool.install(run)
            } else {
                run()
            }
            hits
        };
        assert_eq!(count(false), vec![1.0; 100]);
        assert_eq!(count(true), vec![1.0; 100]);
    }

    #[test]
    fn a_worker_works_alone() {
        assert_eq!(threads(), rayon::current_num_threads());
        assert_eq!(rayon::scope(|_| threads()), 1);
        assert!((0..64).into_par_iter().all(|_| threads() == 1));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap();
        assert_eq!(pool.install(threads), 1);
    }

    #[test]
    fn nested_scratch_buffers_do_not_overlap() {
        with_scratch(8, |outer| {
            outer.fill(1.0);
            with_scratch(8, |inner| inner.fill(2.0));
            assert_eq!(outer, [1.0; 8]);
        });
    }
}
