//! The nearest known name for one that is not known.

/// The candidate that was most likely meant, if one is close enough to be worth naming.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.chars().count() / 3).max(1);
    let begins = |candidate: &str| typed.len() >= 3 && candidate.starts_with(typed);
    // One letter and three: `retry` and `retries`.
    let stem = typed.strip_suffix(['y', 'Y']);
    let is_plural = |candidate: &str| {
        stem.and_then(|stem| candidate.strip_prefix(stem)).is_some_and(|end| end.eq_ignore_ascii_case("ies"))
    };
    let near = candidates.into_iter().filter_map(|candidate| {
        let distance = match candidate {
            _ if is_plural(candidate) => 0,
            _ if begins(candidate) => 1,
            _ => strsim::osa_distance(typed, candidate),
        };
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
        assert_eq!(nearest("RETRY", ["RETRY_JITTER", "RETRIES"]), Some("RETRIES"));
    }
}
