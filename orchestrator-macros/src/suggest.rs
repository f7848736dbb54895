//! The nearest valid name for one that is misspelt.

/// The candidate that was most likely meant, if one is close enough to be worth naming.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let distance = match () {
                () if is_singular(typed, candidate) => 0,
                () if is_abbreviation(typed, candidate) => 1,
                () => distance(typed, candidate),
            };
            (distance <= allowed).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The names as a list for a message: `a`, `b`, `c`.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// `timeout` for `timeout_secs`, or `tag` for `tags`.
fn is_abbreviation(typed: &str, candidate: &str) -> bool {
    typed.len() >= 3 && candidate.starts_with(typed)
}

/// `retry` for `retries`.
fn is_singular(typed: &str, candidate: &str) -> bool {
    typed.strip_suffix('y').is_some_and(|stem| candidate.strip_prefix(stem) == Some("ies"))
}

/// Edits between two words, a swap of neighbours counting as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = last;
        last = row;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_singular_means_the_plural() {
        assert_eq!(nearest("retry", ["retry_delay_secs", "retries"]), Some("retries"));
    }

    const NAMES: [&str; 5] = ["name", "retries", "retry_if", "timeout_secs", "tags"];

    #[test]
    fn counts_edits() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn names_the_nearest() {
        for (typed, expected) in [
            ("retrys", Some("retries")),
            ("reties", Some("retries")),
            ("timeout", Some("timeout_secs")),
            ("tag", Some("tags")),
            ("naem", Some("name")),
            ("colour", None),
        ] {
            assert_eq!(nearest(typed, NAMES), expected, "{typed}");
        }
    }
}
