//! Images that lie in a folder and are not read, so that nobody takes them for inspected.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

/// Ends of names of images that [`super::decode()`] does not read.
const NOT_READ: [&str; 37] = [
    "avif", "heic", "heif", "jp2", "j2k", "jpf", "jpx", "jpm", "j2c", "jpc", "jxl", "jxr", "wdp",
    "tga", "exr", "hdr", "dds", "psd", "ico", "qoi", "pcx", "dcm", "dicom", "fits", "svg", "eps",
    "raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "raf", "rw2", "pfm", "jls",
];

/// Bytes that tell a format.
const HEAD: usize = 16;

/// What the first bytes of a file say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An image that is read.
    Read,
    /// One that is not, and what it is called.
    NotRead(&'static str),
}

/// By content; none where it is no image, or cannot be looked at.
pub(super) fn kind(path: &Path) -> Option<Kind> {
    let mut head = Vec::with_capacity(HEAD);
    let file = std::fs::File::open(path).ok()?;
    file.take(HEAD as u64).read_to_end(&mut head).ok()?;
    let not_read: [(usize, &[u8], &str); 9] = [
        (4, b"ftypavif", "avif"),
        (4, b"ftyphei", "heic"),
        (4, b"ftyphev", "heic"),
        (4, b"ftypmif1", "heif"),
        (0, b"\0\0\0\x0cjP  ", "jp2"),
        (0, b"\xffO\xffQ", "j2k"),
        (0, b"\0\0\0\x0cJXL ", "jxl"),
        (0, b"v/1\x01", "exr"),
        (0, b"8BPS", "psd"),
    ];
    let found = not_read
        .iter()
        .find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, name)) = found {
        return Some(Kind::NotRead(name));
    }
    // `P1` to `P7` alone may begin a text.
    let pnm = matches!(head[..], [b'P', b'1'..=b'7', b'\n' | b'\r' | b' ', ..]);
    let bmp = head.starts_with(b"BM") && head.get(6..10) == Some(&[0; 4]);
    let read = match head[..] {
        [b'P', ..] => pnm,
        [b'B', b'M', ..] => bmp,
        _ => {
            super::tiff::is_tiff(&head)
                || image::guess_format(&head).is_ok_and(|format| format.reading_enabled())
        }
    };
    read.then_some(Kind::Read)
}

/// How many images of which formats were passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread(BTreeMap<String, usize>);

impl Unread {
    /// Below a folder, hidden files and folders aside; what cannot be looked at does not count.
    pub fn below(dir: &Path) -> Self {
        let visible = |entry: &DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        let walk = WalkDir::new(dir).follow_links(true).into_iter();
        let mut found = Self::default();
        for entry in walk.filter_entry(visible).filter_map(Result::ok) {
            if entry.file_type().is_file()
                && let Some(name) = name(entry.path())
            {
                *found.0.entry(name).or_default() += 1;
            }
        }
        found
    }

    /// Adds those of another folder.
    pub fn add(&mut self, other: Self) {
        for (name, count) in other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a file is called that is an image and not read.
fn name(path: &Path) -> Option<String> {
    match path.extension() {
        Some(extension) => {
            let extension = extension.to_string_lossy().to_ascii_lowercase();
            NOT_READ
                .contains(&extension.as_str())
                .then(|| format!(".{extension}"))
        }
        None => match kind(path)? {
            Kind::NotRead(name) => Some(format!("{name} without extension")),
            Kind::Read => None,
        },
    }
}

/// `3 files were not looked at: 2 .heic, 1 .jp2 (cannot be read here); convert them to PNG`
impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self
            .0
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let (files, them) = match self.0.values().sum() {
            1 => ("1 file was".to_string(), "it"),
            many => (format!("{many} files were"), "them"),
        };
        write!(
            f,
            "{files} not looked at: {} (cannot be read here); convert {them} to PNG",
            kinds.join(", ")
        )
    }
}
