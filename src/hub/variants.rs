//! A short name says a category; where no default detector of it is published but a single other one is, that is meant.

use super::{
    cache::cached_repos,
    fetch::{Hub, Place},
    names::RepoId,
    progress::{Event, Progress},
};

impl Hub {
    /// The one detector of the category that `name` says, if it says no more and there is just one. The progress hears
    /// what was taken.
    pub(super) fn only_variant(
        &self,
        name: &str,
        asked: &RepoId,
        place: Place,
        progress: Progress,
    ) -> Option<RepoId> {
        let options = &self.client.options;
        if name.contains(['@', '/']) {
            return None;
        }
        let (known, state) = match place {
            Place::Cache => (cached_repos(&options.cache), "in the cache"),
            Place::Hub => (self.published(asked.owner(), progress).ok()?, "published"),
        };
        let only = single(known, asked)?;
        let taken = only.short_name(options.namespace());
        let notice = format!("{name}: {taken} is the only one {state}, and is taken");
        progress(Event::Notice(&notice));
        Some(only)
    }
}

/// The only repository of the same owner and category; none where the one that was asked for is among them.
fn single(known: Vec<RepoId>, asked: &RepoId) -> Option<RepoId> {
    let category = |repo: &RepoId| {
        repo.detector_parts()
            .map(|(.., category)| category.to_owned())
    };
    let wanted = category(asked)?;
    let same = |repo: &RepoId| {
        repo.owner() == asked.owner() && category(repo).as_deref() == Some(wanted.as_str())
    };
    let mut found = known.into_iter().filter(same);
    let only = found.next().filter(|only| only != asked)?;
    found.next().is_none().then_some(only)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_is_taken_and_two_are_not() {
        let repo = |id: &str| RepoId::parse(id).unwrap();
        let asked = repo("zoo/fastflow-resnet18-fabric");
        let wavelet = repo("zoo/fastflow-wavelet-fabric");
        let others = [
            repo("zoo/fastflow-resnet18-bottle"),
            repo("else/fastflow-cait_m48_448-fabric"),
            repo("zoo/notes"),
        ];
        let with = |more: &[&RepoId]| {
            let known = others.iter().chain(more.iter().copied()).cloned().collect();
            single(known, &asked)
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[&wavelet]), Some(wavelet.clone()));
        let patchcore = repo("zoo/fastflow-resnet18-patchcore-fabric");
        assert_eq!(with(&[&patchcore]), Some(patchcore.clone()));
        assert_eq!(with(&[&wavelet, &patchcore]), None);
        assert_eq!(with(&[&asked]), None);
    }
}
