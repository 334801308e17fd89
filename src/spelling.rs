//! What a misspelt name may have meant.

/// Least likeness (Jaro-Winkler, 1 of equals) of a name that is worth suggesting.
const LIKENESS: f64 = 0.75;

/// Up to three of `known` that are spelt most like `asked`, whatever their case, nearest first.
pub fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let asked = asked.to_lowercase();
    let mut close: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&asked, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > LIKENESS)
        .collect();
    close.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    close.dedup_by_key(|(_, name)| *name);
    close.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_names_come_first() {
        let known = ["bottle", "cable", "capsule", "carpet", "bottle@cait"];
        assert_eq!(nearest("botle", known)[0], "bottle");
        assert_eq!(nearest("Carpte", known)[0], "carpet");
        assert!(nearest("zzz", known).is_empty());
    }

    #[test]
    fn three_at_most_and_none_twice() {
        let known = ["cable", "cables", "cable", "cabled", "cabler"];
        assert_eq!(nearest("cable", known), ["cable", "cabled", "cabler"]);
    }
}
