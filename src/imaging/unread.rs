//! What lies in a folder and is not looked at, so that nobody takes it for inspected.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

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

/// What was passed over: how many images of which formats that are not read, links and folders that lead nowhere, and
/// overlays of earlier inspections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    formats: BTreeMap<String, usize>,
    dead_links: Vec<PathBuf>,
    circles: Vec<PathBuf>,
    closed: Vec<PathBuf>,
    overlays: Vec<PathBuf>,
    lost: Vec<PathBuf>,
}

impl Unread {
    pub(super) fn file(&mut self, path: &Path) {
        if let Some(name) = name(path) {
            *self.formats.entry(name).or_default() += 1;
        }
    }

    pub(super) fn dead_link(&mut self, path: PathBuf) {
        self.dead_links.push(path);
    }

    /// Of what cannot be looked at only the name says whether it is a photo.
    pub(super) fn lost(&mut self, path: &Path) {
        if path.extension().is_some() && super::is_image_file(path) {
            self.lost.push(path.to_path_buf());
        }
    }

    pub(super) fn circle(&mut self, path: PathBuf) {
        self.circles.push(path);
    }

    pub(super) fn closed(&mut self, path: PathBuf) {
        self.closed.push(path);
    }

    pub(super) fn overlay(&mut self, path: PathBuf) {
        self.overlays.push(path);
    }

    /// An overlay that was named itself.
    pub fn of_overlay(path: PathBuf) -> Self {
        Self {
            overlays: vec![path],
            ..Self::default()
        }
    }

    /// Adds those of another folder.
    pub fn add(&mut self, other: Self) {
        for (name, count) in other.formats {
            *self.formats.entry(name).or_default() += count;
        }
        self.dead_links.extend(other.dead_links);
        self.lost.extend(other.lost);
        self.circles.extend(other.circles);
        self.closed.extend(other.closed);
        self.overlays.extend(other.overlays);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is a photo by its name and cannot be looked at: a link to it leads nowhere, or its folder is closed.
    pub fn lost_photos(&self) -> &[PathBuf] {
        &self.lost
    }

    /// What a person should know, a line each.
    pub fn notes(&self) -> Vec<String> {
        let kinds = [
            (
                &self.dead_links,
                ["link that leads nowhere", "links that lead nowhere"],
            ),
            (
                &self.circles,
                [
                    "link to a folder that it lies in",
                    "links to folders that they lie in",
                ],
            ),
            (
                &self.closed,
                [
                    "folder or file that may not be read",
                    "folders or files that may not be read",
                ],
            ),
            (
                &self.overlays,
                [
                    "overlay that this program wrote",
                    "overlays that this program wrote",
                ],
            ),
        ];
        let formats = (!self.formats.is_empty()).then(|| self.formats());
        let passed = kinds
            .into_iter()
            .filter_map(|(paths, words)| passed(paths, words));
        formats.into_iter().chain(passed).collect()
    }

    /// `3 files were not looked at: 2 .heic, 1 .jp2 (cannot be read here); convert them to PNG`
    fn formats(&self) -> String {
        let kinds: Vec<String> = self
            .formats
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let (files, them) = match self.formats.values().sum() {
            1 => ("1 file was".to_string(), "it"),
            many => (format!("{many} files were"), "them"),
        };
        format!(
            "{files} not looked at: {} (cannot be read here); convert {them} to PNG",
            kinds.join(", ")
        )
    }
}

/// `passed over 2 links that lead nowhere, the first photos/a.png`
fn passed(paths: &[PathBuf], [one, many]: [&str; 2]) -> Option<String> {
    let first = paths.iter().min()?.display();
    Some(match paths.len() {
        1 => format!("passed over 1 {one}: {first}"),
        count => format!("passed over {count} {many}, the first {first}"),
    })
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

/// All of [`Unread::notes`].
impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.notes().join("; "))
    }
}
