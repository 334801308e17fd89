//! A folder's or file's name taken apart into words that mean something. Words, not parts of words: `okra`, `goodyear` and
//! `unbroken` say nothing.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::{vocabulary, word::Word};

static KNOWN: LazyLock<HashMap<String, Word>> = LazyLock::new(|| {
    let mut known = HashMap::new();
    let lists = vocabulary::WORDS.into_iter();
    for (word, list) in lists.chain([(Word::Class, vocabulary::CLASS)]) {
        for text in list.split_whitespace() {
            known.entry(folded(text).to_lowercase()).or_insert(word);
        }
    }
    known
});

/// The words of a name, in order.
pub(super) fn words(name: &str) -> Vec<Word> {
    let name = folded(name);
    let chunks: Vec<&str> = name
        .split(|c: char| !c.is_alphanumeric())
        .filter(|chunk| !chunk.is_empty())
        .collect();
    let lower: Vec<String> = chunks.iter().map(|c| c.to_lowercase()).collect();
    let (mut words, mut at) = (Vec::new(), 0);
    while at < chunks.len() {
        let phrase = vocabulary::PHRASES.iter().find(|(phrase, _)| {
            let part = lower.get(at..at + phrase.len());
            part.is_some_and(|part| part.iter().map(String::as_str).eq(phrase.iter().copied()))
        });
        match phrase {
            Some((phrase, word)) => {
                words.push(*word);
                at += phrase.len();
            }
            None => {
                words.extend(chunk(chunks[at]));
                at += 1;
            }
        }
    }
    words
}

/// Without accents; what Unicode does not take apart is spelled as people do who lack the key.
fn folded(text: &str) -> String {
    let bare: String = text
        .nfd()
        .filter(|c| !is_combining_mark(*c))
        .nfc()
        .collect();
    let plain = [
        ('ł', "l"),
        ('Ł', "L"),
        ('ı', "i"),
        ('ß', "ss"),
        ('ø', "o"),
        ('đ', "d"),
    ];
    plain
        .iter()
        .fold(bare, |text, (from, to)| text.replace(*from, to))
}

fn known(text: &str) -> Option<Word> {
    KNOWN.get(text).copied()
}

/// A run of letters and digits.
fn chunk(text: &str) -> Vec<Word> {
    let lower = text.to_lowercase();
    if let Some(word) = known(&lower) {
        return vec![word];
    }
    let head = lower.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = lower.len() - head.len();
    if head.is_empty() {
        return vec![Word::Number(digits)];
    }
    if let Some(word) = known(head) {
        return vec![word, Word::Number(digits)];
    }
    if lower.chars().any(is_ideograph) {
        return ideographs(&lower);
    }
    if let Some(words) = humps(text).or_else(|| joined(head)) {
        return words;
    }
    if head.chars().count() == 1 && digits <= 2 {
        return match digits {
            0 => vec![Word::Letter],
            _ => vec![Word::Letter, Word::Number(digits)],
        };
    }
    vec![if is_id(&lower) {
        Word::Number(9)
    } else {
        Word::Other
    }]
}

/// Dates, times and hexadecimal ids.
fn is_id(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let hex = text.len() >= 6 && text.chars().all(|c| c.is_ascii_hexdigit());
    digits > 0 && (hex || digits >= 4)
}

/// `NotGood`, `OKParts`: words by their capitals. A short word may be chance, so that then all must be known.
fn humps(text: &str) -> Option<Vec<Word>> {
    let letters: Vec<char> = text.chars().collect();
    let mut parts: Vec<String> = vec![String::new()];
    for (i, letter) in letters.iter().enumerate() {
        let after_lower = i > 0 && letter.is_uppercase() && !letters[i - 1].is_uppercase();
        let before_lower = i > 0
            && letter.is_uppercase()
            && letters.get(i + 1).is_some_and(|next| next.is_lowercase());
        if after_lower || before_lower {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(*letter);
        }
    }
    if parts.len() < 2 {
        return None;
    }
    let mut words = Vec::new();
    let mut told = false;
    let mut all = true;
    for part in &parts {
        let lower = part.to_lowercase();
        let head = lower.trim_end_matches(|c: char| c.is_ascii_digit());
        let word = known(head);
        all &= word.is_some();
        told |= word.is_some() && head.chars().count() > 2;
        words.push(word.unwrap_or(Word::Other));
        if head.len() < lower.len() {
            words.push(Word::Number(lower.len() - head.len()));
        }
    }
    (all || told).then_some(words)
}

/// Known words written as one.
fn joined(text: &str) -> Option<Vec<Word>> {
    let ends = text.char_indices().map(|(i, _)| i).skip(2);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        let (first, rest) = text.split_at(end);
        let fits = |text: &str| known(text).filter(|word| word.joins(text));
        if rest.chars().count() < 2 {
            continue;
        }
        let Some(word) = fits(first) else { continue };
        let more = fits(rest).map(|word| vec![word]).or_else(|| joined(rest));
        if let Some(more) = more {
            return Some([vec![word], more].concat());
        }
    }
    None
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}')
}

/// Scripts without spaces: the longest known word at each place.
fn ideographs(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if !is_ideograph(first) {
            let end = rest.find(is_ideograph).unwrap_or(rest.len());
            words.extend(chunk(&rest[..end]));
            rest = &rest[end..];
            continue;
        }
        let ends = rest.char_indices().map(|(i, c)| i + c.len_utf8()).take(8);
        let longest = ends
            .filter_map(|end| Some((end, known(&rest[..end])?)))
            .last();
        let (end, word) = longest.unwrap_or((first.len_utf8(), Word::Other));
        if word != Word::Other || words.last() != Some(&Word::Other) {
            words.push(word);
        }
        rest = &rest[end..];
    }
    words
}
