//! A contact sheet: some photos of each folder under what they were taken for.

use serde::Serialize;

use super::{item, mask_picture, outline, page};
use crate::{
    Result,
    datasets::{Dataset, FolderRole, Sample, Taken},
    imaging,
};

/// Pictures of a folder.
const PICTURES: usize = 24;
/// Folders of one role.
const FOLDERS: usize = 40;

/// One data set's photos.
#[derive(Serialize)]
pub struct ContactSheet {
    name: String,
    summary: String,
    groups: Vec<Group>,
    /// Folders that are not shown.
    more: usize,
}

#[derive(Serialize)]
struct Page<'a> {
    title: String,
    sheets: &'a [ContactSheet],
}

/// A folder and what it was taken for.
#[derive(Serialize)]
struct Group {
    role: &'static str,
    folder: String,
    class: Option<String>,
    files: usize,
    pictures: Vec<Picture>,
}

#[derive(Serialize)]
struct Picture {
    name: String,
    /// None where the file cannot be read.
    uri: Option<String>,
}

impl ContactSheet {
    /// Reads some photos of each folder, evenly spread; defects are outlined where they are drawn.
    ///
    /// # Errors
    /// When a picture cannot be encoded.
    pub fn of(dataset: &Dataset) -> Result<Self> {
        let folders = dataset.grouped();
        let shown = folders.iter().take(FOLDERS);
        let group =
            |(folder, samples): &(FolderRole, Vec<&Sample>)| group(dataset, folder, samples);
        Ok(Self {
            name: dataset.name.clone(),
            summary: dataset.summary(),
            groups: shown.map(group).collect::<Result<_>>()?,
            more: folders.len().saturating_sub(FOLDERS),
        })
    }
}

/// A self-contained page with the photos of one or several data sets.
///
/// # Errors
/// When the page cannot be made.
pub fn contact_page(sheets: &[ContactSheet]) -> Result<String> {
    let title = match sheets {
        [one] => format!("{}: what its folders were taken for", one.name),
        _ => "What folders were taken for".to_string(),
    };
    page(include_str!("contact.html"), Page { title, sheets })
}

fn group(dataset: &Dataset, folder: &FolderRole, samples: &[&Sample]) -> Result<Group> {
    let step = samples.len().div_ceil(PICTURES).max(1);
    let chosen = samples.iter().step_by(step);
    let pictures = chosen.map(|sample| match folder.role {
        Taken::Masks => mask(sample),
        _ => photo(dataset, sample),
    });
    Ok(Group {
        role: folder.role.words(),
        folder: folder.folder.clone(),
        class: folder.class.clone(),
        files: folder.files,
        pictures: pictures.collect::<Result<_>>()?,
    })
}

fn photo(dataset: &Dataset, sample: &Sample) -> Result<Picture> {
    let name = sample.name(&dataset.root);
    let Ok(photo) = sample.read() else {
        return Ok(Picture { name, uri: None });
    };
    let mut small = item::thumbnail(&photo);
    let (width, height) = photo.dimensions();
    if let (true, Ok(Some(mask))) = (sample.is_defective(), sample.read_mask(width, height)) {
        outline(&mut small, &mask);
    }
    let uri = Some(item::jpeg_uri(&small)?);
    Ok(Picture { name, uri })
}

fn mask(sample: &Sample) -> Result<Picture> {
    let path = &sample.masks[0];
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let uri = match imaging::decode_mask(path) {
        Ok(mask) => Some(item::jpeg_uri(&item::thumbnail(&mask_picture(&mask)))?),
        Err(_) => None,
    };
    Ok(Picture { name, uri })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_shows_each_folder_and_escapes_names() {
        let folder = tempfile::tempdir().unwrap();
        let save = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let shade = image::Rgb([90, 120, 150]);
            image::RgbImage::from_pixel(8, 8, shade)
                .save(&path)
                .unwrap();
            path
        };
        let good = Sample::normal(save("good/<b>1&2.png"));
        let bad = Sample::defective(save("bad/x.png"), "a<script>", []);
        std::fs::write(folder.path().join("good/torn.png"), "no").unwrap();
        let torn = Sample::normal(folder.path().join("good/torn.png"));
        let dataset = Dataset {
            root: folder.path().into(),
            name: "<i>set".into(),
            train: vec![good, torn],
            test: vec![bad],
        };
        let page = contact_page(&[ContactSheet::of(&dataset).unwrap()]).unwrap();
        assert!(!page.contains("<b>1") && !page.contains("<script>") && !page.contains("<i>set"));
        assert!(page.contains("&lt;b&gt;1&amp;2.png") && page.contains("a&lt;script&gt;"));
        assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), 2);
        assert!(page.contains("cannot be read") && page.contains("good, to train on"));
        assert!(
            !page.contains("http"),
            "the page needs nothing from outside"
        );
    }
}
