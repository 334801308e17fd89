//! From a folder to the Hub: staged, uploaded, verified.

use std::path::Path;

use super::{
    fetch::{Hub, on_own_thread},
    names::checked_revision,
    progress::Progress,
    stage::{PublishOptions, Staged},
    upload::{Published, Upload},
};
use crate::{Error, Result};

impl Hub {
    /// Checks, stages and uploads the detector in `folder`: see [`Hub::stage`] and [`Hub::upload`].
    ///
    /// # Errors
    /// As the two.
    pub fn publish(
        &self,
        folder: &Path,
        options: &PublishOptions,
        progress: Progress,
    ) -> Result<Published> {
        self.upload(&self.stage(folder, options, progress)?, options, progress)
    }

    /// Uploads what was staged in one commit, downloads it again, compares, and tags it.
    ///
    /// After an error before the commit the repository is as it was (one that this call has made is
    /// removed again). The same call may be repeated in any case; it goes on with what is missing.
    ///
    /// # Errors
    /// When the Hub refuses, cannot be reached, or gives back other bytes than it got.
    pub fn upload(
        &self,
        staged: &Staged,
        options: &PublishOptions,
        progress: Progress,
    ) -> Result<Published> {
        check_options(options)?;
        if self.options().offline {
            return Err(Error::Invalid(
                "HF_HUB_OFFLINE is set; unset it to publish".into(),
            ));
        }
        let place = staged.repo.to_string();
        if self.options().token.is_none() {
            return Err(Error::Hub {
                place,
                reason: "publishing needs a token that may write there; set HF_TOKEN, or log in once with `hf auth login`".into(),
            });
        }
        let work = || Upload::new(&self.client, staged, options, progress)?.run();
        on_own_thread(work).map_err(|failure| self.client.at(&place, failure))
    }
}

fn check_options(options: &PublishOptions) -> Result<()> {
    for name in [&options.tag, &options.revision].into_iter().flatten() {
        checked_revision(name)?;
    }
    if options.create_pr && options.tag.is_some() {
        return Err(Error::Invalid(
            "a pull request cannot be tagged; tag it once it is merged".into(),
        ));
    }
    Ok(())
}
