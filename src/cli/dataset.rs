//! Which data, and which photos in it are what: flags that several verbs share.

use std::path::{Path, PathBuf};

use candle_fastflow::datasets::{self, Dataset, Roles};

use super::common;

/// The data set of a verb that needs one.
#[derive(clap::Args)]
pub struct DataArgs {
    /// The data set's folder: photos of good products, flat or by date and lot, or folders whose names say what is in them
    #[arg(long, value_name = "DIR", required_unless_present = "normal")]
    data: Option<PathBuf>,
    #[command(flatten)]
    roles: RoleArgs,
}

impl DataArgs {
    /// The folder, where it was named.
    pub fn dir(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// Opens it, and says what below its folders is not looked at.
    pub fn open(&self) -> anyhow::Result<Dataset> {
        let dataset = self.roles.open(self.data.as_deref())?;
        common::tell_unread(&self.roles.folders(self.dir(), &dataset.root));
        Ok(dataset)
    }
}

/// What is said of photos; a file dataset.toml in the folder may say the same.
#[derive(clap::Args)]
#[command(next_help_heading = "Which photos are what, where folders' names do not say it")]
pub struct RoleArgs {
    /// Good photos to train on: folders, files, or patterns in quotes ('lot_*/ok')
    #[arg(long, value_name = "DIR", num_args = 1..)]
    normal: Vec<PathBuf>,
    /// Defective photos; folders inside name classes
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "normal")]
    abnormal: Vec<PathBuf>,
    /// Masks, called as their photos are
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "normal")]
    masks: Vec<PathBuf>,
    /// Good photos to test on; by default every fifth good one where there are defective ones
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "normal")]
    normal_test: Vec<PathBuf>,
}

impl RoleArgs {
    /// Whether anything is said.
    pub fn given(&self) -> bool {
        !self.normal.is_empty()
    }

    /// The folders that photos are looked for in: the data set's, or where only parts were named (which may have nothing
    /// in common but the disk), these.
    pub fn folders(&self, dir: Option<&Path>, root: &Path) -> Vec<PathBuf> {
        if dir.is_some() || !self.given() {
            return vec![root.to_path_buf()];
        }
        let entries = [&self.normal, &self.abnormal, &self.masks, &self.normal_test];
        let named = entries.into_iter().flatten();
        named.filter(|path| path.is_dir()).cloned().collect()
    }

    /// Opens the folder as it was said, or as it is recognised.
    pub fn open(&self, dir: Option<&Path>) -> anyhow::Result<Dataset> {
        if let (false, Some(dir)) = (self.given(), dir) {
            return Ok(datasets::open(dir)?);
        }
        let roles = Roles {
            normal: self.normal.clone(),
            abnormal: self.abnormal.clone(),
            masks: self.masks.clone(),
            normal_test: self.normal_test.clone(),
            name: None,
        };
        Ok(datasets::open_as(dir, &roles)?)
    }
}
