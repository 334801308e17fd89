//! The one memory map of the crate: read-only views of files that may be larger than memory.
