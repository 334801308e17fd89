//! A row of a table by category: ours among the figures that others published.

use super::table::Entry;

/// Name, the first of theirs, ours, the rest of theirs; empty where they published nothing.
pub(super) fn line<T: Copy + Figures>(
    name: &str,
    ours: Vec<Entry>,
    theirs: &[T],
    methods: usize,
) -> Vec<Entry> {
    let mut published: Vec<Entry> = theirs
        .iter()
        .flat_map(|figures| figures.entries())
        .collect();
    published.resize(methods * T::COUNT, Entry::Empty);
    let rest = published.split_off(published.len().min(T::COUNT));
    let name = Entry::Text(name.into());
    [name]
        .into_iter()
        .chain(published)
        .chain(ours)
        .chain(rest)
        .collect()
}

/// One figure, or image and pixel.
pub(super) trait Figures {
    const COUNT: usize;
    fn entries(self) -> Vec<Entry>;
}

impl Figures for f64 {
    const COUNT: usize = 1;

    fn entries(self) -> Vec<Entry> {
        vec![Some(self).into()]
    }
}

impl Figures for [f64; 2] {
    const COUNT: usize = 2;

    fn entries(self) -> Vec<Entry> {
        self.map(|figure| Entry::from(Some(figure))).to_vec()
    }
}
