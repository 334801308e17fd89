//! What one word of a name says.

/// What a word says. Weak ones count only where nothing else in the name could mean another thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Normal,
    Defective,
    WeakNormal,
    WeakDefective,
    Mask,
    WeakMask,
    Train,
    Test,
    Validation,
    /// Turns what follows around: `not good`.
    Not,
    /// Turns what stands before it around (`defect free`), or what follows (`free of defects`).
    Free,
    Unsure,
    /// Makes a label doubtful: `almost good`.
    Hedge,
    Neutral,
    /// A lot, a camera, a day.
    Serial,
    Class,
    /// Of so many digits; dates and hexadecimal ids too.
    Number(usize),
    Letter,
    Other,
}

impl Word {
    /// Whether two such words may be written as one: `goodparts`, but not `goodyear`.
    pub fn joins(self, text: &str) -> bool {
        match self {
            Self::Neutral => {
                text.chars().count() > 3 || ["img", "pic", "dir", "set"].contains(&text)
            }
            Self::Serial | Self::Class | Self::Unsure | Self::Hedge => false,
            _ => true,
        }
    }
}
