//! What names say: words, labels, and whether folders hold more of the same.

mod said;
mod vocabulary;
mod word;
mod words;

pub(super) use said::{Kind, Label, Said, Split, one_kind};
