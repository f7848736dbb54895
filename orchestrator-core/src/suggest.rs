//! The nearest known name for one that is not known.

/// The candidate that was most likely meant, if one is close enough to be worth naming.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.chars().count() / 3).max(1);
    let begins = |candidate: &str| typed.len() >= 3 && candidate.starts_with(typed);
    let near = candidates.into_iter().filter_map(|candidate| {
        let distance = if begins(candidate) { 1 } else { strsim::osa_distance(typed, candidate) };
        (distance <= allowed).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn names_the_nearest() {
        let names = ["report", "reports_of_all", "load"];
        for (typed, expected) in [
            ("reprot", Some("report")),
            ("rep", Some("report")),
            ("reports_of_al", Some("reports_of_all")),
            ("laod", Some("load")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names), expected, "{typed}");
        }
    }
}
