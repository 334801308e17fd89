//! What a transfer tells while it runs.

/// Something that happened in a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// `done` of `total` bytes of a file are here; more than zero at once when a cut transfer goes on.
    Download {
        /// The repository and the file.
        file: &'a str,
        /// Bytes that are here.
        done: u64,
        /// Bytes of the whole file, where the server tells.
        total: Option<u64>,
    },
    /// The file is whole, verified and in its place.
    Downloaded {
        /// The repository and the file.
        file: &'a str,
    },
    /// `done` of `total` bytes have been sent.
    Upload {
        /// Bytes sent.
        done: u64,
        /// Bytes to send in all.
        total: u64,
    },
    /// Nobody was named to publish as, so that the repository shown is one of this namespace.
    Unnamed {
        /// The namespace that stands in.
        namespace: &'a str,
    },
    /// The Hub asked to wait, and so much is left; told every second, at the end with 0.
    Waiting {
        /// Whole seconds.
        seconds: u64,
    },
    /// A sentence for the user: what is being waited for or was repaired.
    Notice(&'a str),
}

/// Receives [`Event`]s, perhaps from another thread: a closure, or `&|_| ()` for silence.
pub type Progress<'a> = &'a (dyn Fn(Event<'_>) + Sync);
