//! The template of a run's name: a text with the names of parameters in braces.

use syn::{Error, LitStr, Result};

use crate::suggest;

/// The names between the braces, each once, in the order of their first use.
///
/// # Errors
///
/// If a brace is not closed or holds something other than the name of a parameter.
pub(crate) fn fields(template: &LitStr, parameters: &[&str]) -> Result<Vec<String>> {
    let wrong = |message: String| Error::new(template.span(), message);
    let text = template.value();
    let mut names = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if (c == '{' || c == '}') && chars.next_if_eq(&c).is_some() {
            continue;
        }
        if c == '}' {
            return Err(wrong("this `}` closes nothing; write `}}` for the character".to_owned()));
        }
        if c != '{' {
            continue;
        }
        let mut field = String::new();
        loop {
            match chars.next() {
                Some('}') => break,
                Some(c) => field.push(c),
                None => return Err(wrong("this `{` is not closed; write `{{` for the character".to_owned())),
            }
        }
        let (name, format) = field.split_once(':').unwrap_or((&field, ""));
        if format.contains('$') {
            return Err(wrong(format!("`{{{field}}}`: the width of a field is a number here")));
        }
        let name = name.trim_end();
        if !parameters.contains(&name) {
            return Err(wrong(unknown(name, parameters)));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn unknown(name: &str, parameters: &[&str]) -> String {
    let all = parameters.iter().copied();
    if parameters.is_empty() {
        return format!("there is no parameter `{name}`: the function takes none");
    }
    if name.is_empty() {
        return format!("a field names a parameter: one of {}", suggest::list(all));
    }
    let hint = match suggest::nearest(name, all.clone()) {
        Some(nearest) => format!("did you mean `{nearest}`? the parameters are"),
        None => "the parameters are".to_owned(),
    };
    format!("there is no parameter `{name}`; {hint} {}", suggest::list(all))
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn of(template: &str) -> std::result::Result<Vec<String>, String> {
        fields(&LitStr::new(template, Span::call_site()), &["repo", "page"]).map_err(|error| error.to_string())
    }

    #[test]
    fn finds_the_fields() {
        for (template, expected) in [
            ("plain", &[][..]),
            ("{{repo}}", &[]),
            ("{repo}", &["repo"]),
            ("{repo:?}-{page:>3}-{repo}", &["repo", "page"]),
            ("{{{page}}}", &["page"]),
        ] {
            assert_eq!(of(template).as_deref(), Ok(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..]));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (template, part) in [
            ("{rep}", "did you mean `repo`?"),
            ("{client}", "the parameters are `repo`, `page`"),
            ("{}", "a field names a parameter"),
            ("{repo", "not closed"),
            ("repo}", "closes nothing"),
            ("{repo:page$}", "the width"),
            ("{repo.len()}", "no parameter `repo.len()`"),
        ] {
            let message = of(template).expect_err(template);
            assert!(message.contains(part), "{template}: {message}");
        }
    }
}
