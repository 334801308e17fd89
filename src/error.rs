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
    /// A folder's photos of which it is not certain what they are.
    #[error("{}: {reason}; say it in its dataset.toml, for example: {}", path.display(), as_fields(path, guess))]
    Roles {
        /// The folder of the data set.
        path: PathBuf,
        /// What was found and is not clear, with counts.
        reason: String,
        /// What would say it, if this guess is right.
        guess: Vec<RoleOf>,
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
    #[error("the GPU has no memory left ({0}); {advice}", advice = Advice::LessGpuMemory)]
    GpuMemory(String),
    /// An error, and what would help.
    #[error("{error}; {advice}")]
    Advised {
        /// What went wrong.
        error: Box<Error>,
        /// What would help.
        advice: Advice,
    },
    /// The tensor library failed.
    #[error(transparent)]
    Candle(candle_core::Error),
}

/// What photos are, as a field of `datasets::Roles` and of `dataset.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleOf {
    /// `normal`, `abnormal`, `masks` or `normal_test`.
    pub field: &'static str,
    /// Folders, or patterns of files.
    pub paths: Vec<PathBuf>,
}

/// Roles as fields, with paths inside the data set's folder.
fn as_fields(root: &Path, roles: &[RoleOf]) -> String {
    let quoted = |path: &PathBuf| match path.strip_prefix(root) {
        Ok(inside) if inside.as_os_str().is_empty() => "\".\"".to_string(),
        Ok(inside) => format!("{:?}", inside.to_string_lossy()),
        Err(_) => format!("{:?}", path.to_string_lossy()),
    };
    let field = |role: &RoleOf| {
        let paths: Vec<String> = role.paths.iter().map(quoted).collect();
        format!("{} = [{}]", role.field, paths.join(", "))
    };
    roles.iter().map(field).collect::<Vec<_>>().join(", ")
}

/// What would help against an error. Shown, it names the library's fields, modules and features; a program
/// may say the same with its own words, as `fastflow` does with its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Give the file with the backbone's weights.
    BackboneWeights,
    /// Look at the backbones that there are.
    KnownBackbones,
    /// Build with this Cargo feature.
    BuildWith(&'static str),
    /// Compute on the CPU.
    UseCpu,
    /// Leave more of the GPU's memory free.
    LessGpuMemory,
    /// Train a detector first.
    Train,
    /// Let all files of the data set be checked.
    CheckData,
    /// Name the folder with the data.
    NameData,
    /// Go on from the checkpoint.
    Resume,
    /// Do not go on from a checkpoint.
    StartAnew,
    /// Take smaller steps.
    SmallerSteps,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BackboneWeights => "give `backbone_weights`",
            Self::KnownBackbones => "`backbones::list` has all",
            Self::BuildWith(feature) => return write!(f, "build with the feature `{feature}`"),
            Self::UseCpu => "the device `cpu` always works",
            Self::LessGpuMemory => {
                "use a smaller `batch`, close other programs that use it, or use the device `cpu`"
            }
            Self::Train => "training makes one",
            Self::CheckData => "`datasets::check` lists all",
            Self::NameData => "name the folder in `data`",
            Self::Resume => "go on with `resume`",
            Self::StartAnew => "to start anew leave out `resume`",
            Self::SmallerSteps => "try a smaller `learning_rate` or a `gradient_clip`",
        })
    }
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

    /// The same error, and what would help.
    pub fn advise(self, advice: Advice) -> Self {
        Self::Advised {
            error: Box::new(self),
            advice,
        }
    }

    /// The error without advice.
    pub fn problem(&self) -> &Self {
        match self {
            Self::Advised { error, .. } => error.problem(),
            other => other,
        }
    }

    /// The error that `reword` makes of this one's text, with this one's advice.
    pub(crate) fn reworded(self, reword: impl FnOnce(String) -> Self) -> Self {
        match self {
            Self::Advised { error, advice } => error.reworded(reword).advise(advice),
            other => reword(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_outlives_rewording_and_is_said_once() {
        let error = Error::Training("it broke".into()).advise(Advice::Resume);
        let text = "training stopped: it broke; go on with `resume`";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.problem().to_string(), "training stopped: it broke");
        let moved = error.reworded(|text| Error::Invalid(format!("cell 1: {text}")));
        assert_eq!(
            moved.to_string(),
            "cell 1: training stopped: it broke; go on with `resume`"
        );
    }

    #[test]
    fn a_full_gpu_is_told_once_however_often_wrapped() {
        let mut error = Error::from(candle_core::Error::Msg(
            "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY".into(),
        ));
        for _ in 0..3 {
            assert!(matches!(error, Error::GpuMemory(_)), "{error:?}");
            let text = error.to_string();
            assert_eq!(text.matches("no memory left").count(), 1, "{text}");
            error = Error::from(candle_core::Error::wrap(error));
        }
    }
}
