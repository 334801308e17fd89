//! A quick check before something long: what would stop it after minutes should stop it at once.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Dataset, Sample};
use crate::{
    Advice, Error, Result,
    imaging::{self, Reading},
};

/// Files that an error names before it only counts.
const NAMED: usize = 20;

impl Dataset {
    /// Width over height of the training photos: the middle one's, read off the headers.
    ///
    /// # Errors
    /// When headers of photos cannot be read, all in one, or when there is none.
    pub fn aspect(&self) -> Result<f64> {
        let of = |sample: &Sample| {
            let (width, height) = match sample.record {
                // CIFAR-10's are square.
                Some(_) => (1, 1),
                None => sample.dimensions()?,
            };
            Ok(f64::from(width) / f64::from(height.max(1)))
        };
        let mut aspects = self.of_photos(of)?;
        aspects.sort_unstable_by(f64::total_cmp);
        match aspects.get(aspects.len() / 2) {
            Some(aspect) => Ok(aspect.clamp(0.25, 4.0)),
            None => Err(super::layout::fault(
                &self.root,
                "holds no photos of good products",
            )),
        }
    }

    /// Reads the headers of all test images and masks. [`super::check()`] decodes them too.
    ///
    /// # Errors
    /// As [`imaging::dimensions`], or [`Error::Dataset`] when a mask has another size than its image; of
    /// several files all in one.
    pub fn quick_check(&self) -> Result<()> {
        self.together(self.test.par_iter().map(look).collect())
    }

    /// [`Dataset::quick_check`] of the images to train on too.
    ///
    /// # Errors
    /// As there.
    pub fn quick_check_all(&self) -> Result<()> {
        let all = self.train.par_iter().chain(&self.test);
        self.together(all.map(look).collect())
    }

    /// Decodes the images to train on: which of them stopped a run that met the first.
    ///
    /// # Errors
    /// When any cannot be decoded, all in one.
    pub fn damage_check(&self) -> Result<()> {
        let decode = |sample: &Sample| sample.read().map(drop);
        self.together(self.train.par_iter().map(decode).collect())
    }

    fn together(&self, looks: Vec<Result<()>>) -> Result<()> {
        self.all(looks).map(drop)
    }

    /// Something read off every image to train on. Where that fails, all that are damaged are named, wherever in the
    /// file the damage is.
    pub(super) fn of_photos<T: Send>(
        &self,
        read: impl Fn(&Sample) -> Result<T> + Sync + Send,
    ) -> Result<Vec<T>> {
        let found = self.all(self.train.par_iter().map(read).collect());
        found.map_err(|faults| self.damage_check().err().unwrap_or(faults))
    }

    /// All values, or all faults in one.
    fn all<T>(&self, looks: Vec<Result<T>>) -> Result<Vec<T>> {
        let (mut values, mut faults) = (Vec::with_capacity(looks.len()), Vec::new());
        for look in looks {
            match look {
                Ok(value) => values.push(value),
                Err(fault) => faults.push(fault),
            }
        }
        let count = faults.len();
        if count < 2 {
            return faults.pop().map_or(Ok(values), Err);
        }
        let named: Vec<String> = faults.iter().take(NAMED).map(Error::to_string).collect();
        let named = named.join("; ");
        let fault = |reason| Error::Dataset {
            path: self.root.clone(),
            reason: format!("{count} files cannot be used: {reason}"),
        };
        Err(match count.saturating_sub(NAMED) {
            0 => fault(named),
            more => fault(format!("{named}; and {more} more")).advise(Advice::CheckData),
        })
    }
}

fn look(sample: &Sample) -> Result<()> {
    if sample.record.is_some() {
        return Ok(());
    }
    let size = |path: &Path, reading: &Reading| {
        let header = imaging::header(path, reading)?;
        Ok::<_, Error>((header.width, header.height))
    };
    let image = size(&sample.image, &sample.reading)?;
    let of_mask = Reading {
        page: 1,
        ..sample.reading
    };
    let fits = |mask: &PathBuf| sample.expect_size(mask, size(mask, &of_mask)?, image);
    sample.masks.iter().try_for_each(fits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_faults_are_listed_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let save = |name: &str, side| image::RgbImage::new(side, side).save(path(name)).unwrap();
        save("good.png", 8);
        save("mask.png", 9);
        std::fs::write(path("torn.png"), "no photo").unwrap();
        let sample = |name: &str| Sample::normal(path(name));
        let masked = Sample::defective(path("good.png"), "scratch", Some(path("mask.png")));
        let mut dataset = Dataset {
            root: folder.path().into(),
            name: "some".into(),
            train: vec![sample("good.png"), sample("torn.png")],
            test: vec![sample("good.png"), sample("gone.png"), masked],
        };
        let message = |looked: Result<()>| looked.unwrap_err().to_string();
        let test = message(dataset.quick_check());
        assert!(test.contains("2 files cannot be used"), "{test}");
        assert!(test.contains("gone.png") && test.contains("9x9"), "{test}");
        assert!(!test.contains("torn.png"), "{test}");
        assert!(message(dataset.quick_check_all()).contains("torn.png"));
        // So for what training measures first, and for damage behind a sound header.
        save("torn-later.png", 64);
        let png = std::fs::read(path("torn-later.png")).unwrap();
        std::fs::write(path("torn-later.png"), &png[..png.len() - 30]).unwrap();
        let mut training = dataset.clone();
        training.train.push(sample("gone.png"));
        for found in [
            message(training.measured().map(drop)),
            message(training.aspect().map(drop)),
        ] {
            assert!(found.contains("2 files cannot be used"), "{found}");
            assert!(found.contains("torn.png") && found.contains("gone.png"));
        }
        training.train = ["torn-later.png", "good.png", "torn.png"]
            .map(sample)
            .into();
        let found = message(training.damage_check());
        assert!(found.contains("2 files cannot be used"), "{found}");
        assert!(found.contains("torn-later.png") && !found.contains("good.png"));
        // One alone is given as it is.
        dataset.test.pop();
        assert!(message(dataset.quick_check()).starts_with(path("gone.png").to_str().unwrap()));
        dataset.test = vec![sample("gone.png"); NAMED + 3];
        assert!(message(dataset.quick_check()).contains("and 3 more"));
    }
}
