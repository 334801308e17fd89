//! One error type. Every variant names what failed (file, field, tensor) and says what to do.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, with the place where it did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that should be an image is not one, or is too large or too small to be inspected.
    #[error("{}: {reason}", path.display())]
    Image {
        /// The image file.
        path: PathBuf,
        /// What is wrong and what would be accepted.
        reason: String,
    },
    /// A folder does not hold a usable data set.
    #[error("{}: {reason}", path.display())]
    Dataset {
        /// The folder or file at fault.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A safetensors file lacks a tensor, or holds one of the wrong shape or type.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Missing, or expected against found shape.
        reason: String,
    },
    /// A configuration file or a setting is malformed or out of range.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file (or the option on the command line).
        path: PathBuf,
        /// The field, and what it must be.
        reason: String,
    },
    /// An id that no registry knows.
    #[error("unknown {kind} `{name}`; {hint}")]
    Unknown {
        /// What kind of thing was asked for (backbone, preset, detector).
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The nearest known names.
        hint: String,
    },
    /// Tensors that do not fit together.
    #[error("{what}: expected shape {expected}, found {found}")]
    Shape {
        /// The operation or tensor.
        what: String,
        /// The shape it needs.
        expected: String,
        /// The shape it got.
        found: String,
    },
    /// A training run that cannot go on.
    #[error("training stopped: {0}")]
    Training(String),
    /// A metric that is not defined on this input.
    #[error("{metric}: {reason}")]
    Metric {
        /// The metric's name.
        metric: &'static str,
        /// Why it is not defined.
        reason: String,
    },
    /// The Hub, or what it holds, is not as needed.
    #[error("{place}: {reason}")]
    Hub {
        /// The repository, file or address.
        place: String,
        /// What happened and what helps.
        reason: String,
    },
    /// A value that no command can work with.
    #[error("{0}")]
    Invalid(String),
    /// A GPU has no memory left.
    #[error(
        "the GPU has no memory left ({0}); give a smaller --batch, close other programs that use it, or use --device cpu"
    )]
    GpuMemory(String),
    /// The tensor library failed.
    #[error(transparent)]
    Candle(candle_core::Error),
}

/// What CUDA, cuBLAS and cuDNN call it when an allocation fails.
const OUT_OF_MEMORY: [&str; 4] = [
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    // cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, and HOST.
    "ALLOCATION_FAILED",
];

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        match OUT_OF_MEMORY.iter().find(|name| text.contains(**name)) {
            // Said once, however often it was wrapped.
            Some(_) if text.contains("no memory left") => Self::Invalid(text),
            Some(name) => Self::GpuMemory((*name).to_string()),
            None => Self::Candle(error),
        }
    }
}

impl Error {
    /// Wraps an [`std::io::Error`] with the path it concerns; for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }
}
