//! Texts that differ, line by line.

use similar::{ChangeTag, TextDiff};

/// How many lines that agree are shown around those that do not.
const AROUND: usize = 3;

/// What to tell if the lines of `happened` are not those of `expected`; `None` if they are.
///
/// Indentation and blank lines do not count.
pub(super) fn difference(what: &str, expected: &str, happened: &str) -> Option<String> {
    let (expected, happened) = (trimmed(expected), trimmed(happened));
    if expected == happened {
        return None;
    }
    let mut said = format!("{what} not as expected (- expected, + happened):\n");
    let diff = TextDiff::from_slices(&expected, &happened);
    let mut shown = 0;
    for group in diff.grouped_ops(AROUND) {
        if group.first().is_some_and(|op| op.old_range().start > shown) {
            said.push_str("  …\n");
        }
        for op in &group {
            for change in diff.iter_changes(op) {
                let sign = match change.tag() {
                    ChangeTag::Delete => '-',
                    ChangeTag::Insert => '+',
                    ChangeTag::Equal => ' ',
                };
                said.push(sign);
                said.push(' ');
                said.push_str(change.value());
                said.push('\n');
            }
            shown = op.old_range().end;
        }
    }
    if shown < expected.len() {
        said.push_str("  …\n");
    }
    said.truncate(said.trim_end().len());
    Some(said)
}

/// The lines that count.
pub(super) fn trimmed(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_near_a_difference_are_shown() {
        let lines = |skip: u32| (0..30).filter(|n| *n != skip).map(|n| format!("line {n}\n")).collect::<String>();
        let said = difference("the lines are", &lines(99), &lines(15)).expect("they differ");
        let mut shown = said.lines();
        assert_eq!(shown.next(), Some("the lines are not as expected (- expected, + happened):"));
        assert_eq!(shown.next(), Some("  …"));
        assert_eq!(shown.next(), Some("  line 12"));
        assert!(said.contains("\n- line 15\n") && said.ends_with("line 18\n  …"), "{said}");
        assert_eq!(difference("", " a\n\n  b ", "a\nb\n"), None);
    }
}
