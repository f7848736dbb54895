//! The pages in `docs/` name tests: those have to be there.

use std::path::Path;

/// The names `file::test` or `folder::file::test` between backticks in a table or a sentence.
fn named_tests(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|text| text.rsplit_once("::"))
        .filter(|(file, test)| file.split("::").all(is_name) && is_name(test) && test.contains('_'))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/prefect.md")).unwrap();
    let named: Vec<_> = named_tests(&page).collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(file, test)| {
            let file = root.join("tests/it").join(file.replace("::", "/"));
            let source = std::fs::read_to_string(file.with_extension("rs"))
                .or_else(|_| std::fs::read_to_string(file.join("mod.rs")))
                .unwrap_or_default();
            !source.contains(&format!("fn {test}()"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/prefect.md names tests that are not there: {missing:?}");
}
