//! The values that options take: texts, numbers, durations, lists.

use std::time::Duration;

use proc_macro2::Span;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Error, Ident, Lit, LitStr, Path, Result, Token, bracketed, parenthesized, token};

use crate::duration;

/// How long to wait before each retry.
#[derive(Debug, PartialEq)]
pub(crate) enum Delay {
    Fixed(Duration),
    List(Vec<Duration>),
    Exponential { base: Duration, max: Duration },
}

/// A text in quotes.
pub(crate) fn text(input: ParseStream<'_>) -> Result<LitStr> {
    input.parse().map_err(|error| Error::new(error.span(), "expected a text in quotes"))
}

/// A text in quotes with something in it.
pub(crate) fn filled_text(input: ParseStream<'_>) -> Result<LitStr> {
    let text = text(input)?;
    if text.value().trim().is_empty() {
        return Err(Error::new(text.span(), "this text is empty"));
    }
    Ok(text)
}

/// The path of a function.
pub(crate) fn function(input: ParseStream<'_>) -> Result<Path> {
    input.parse().map_err(|error| Error::new(error.span(), "expected the path of a function"))
}

/// The path of a module, in quotes or not.
pub(crate) fn module(input: ParseStream<'_>) -> Result<Path> {
    let wrong = |error: Error| Error::new(error.span(), "expected the path of a crate or module, such as \"my::path\"");
    if input.peek(LitStr) {
        let text: LitStr = input.parse()?;
        return text.parse_with(Path::parse_mod_style).map_err(wrong);
    }
    input.call(Path::parse_mod_style).map_err(wrong)
}

/// A whole number of at least `least`.
pub(crate) fn whole(input: ParseStream<'_>, least: u32) -> Result<u32> {
    let (number, span) = number(input, "a whole number")?;
    let value: u32 = match number {
        Number::Whole(digits) => {
            digits.parse().map_err(|_| Error::new(span, "this number is too large: it has to fit into 32 bits"))?
        }
        Number::Fraction(_) | Number::Text(_) => return Err(Error::new(span, "expected a whole number")),
    };
    if value < least {
        return Err(Error::new(span, format!("this number has to be at least {least}")));
    }
    Ok(value)
}

/// A number that is not negative, such as the jitter's.
pub(crate) fn factor(input: ParseStream<'_>) -> Result<f64> {
    let (number, span) = number(input, "a number")?;
    let digits = match number {
        Number::Whole(digits) | Number::Fraction(digits) => digits,
        Number::Text(_) => return Err(Error::new(span, "expected a number, without quotes")),
    };
    let value: f64 = digits.parse().map_err(|_| Error::new(span, "expected a number"))?;
    if value.is_finite() { Ok(value) } else { Err(Error::new(span, "this number is too large")) }
}

/// A number of seconds, or a text such as "1h30m".
pub(crate) fn duration(input: ParseStream<'_>) -> Result<Duration> {
    let (number, span) = number(input, "a number of seconds or a text such as \"1h30m\"")?;
    match number {
        Number::Whole(digits) | Number::Fraction(digits) => duration::from_secs(&digits),
        Number::Text(text) => duration::from_text(&text),
    }
    .map_err(|message| Error::new(span, message))
}

/// A duration of more than nothing.
pub(crate) fn filled_duration(input: ParseStream<'_>) -> Result<Duration> {
    let span = input.span();
    let value = duration(input)?;
    if value.is_zero() { Err(Error::new(span, "this duration has to be more than zero")) } else { Ok(value) }
}

/// One duration, a list of them, or `exponential(base, max)`.
pub(crate) fn delay(input: ParseStream<'_>) -> Result<Delay> {
    if input.peek(token::Bracket) {
        let span = input.span();
        let list = list(input, duration)?;
        return if list.is_empty() {
            Err(Error::new(span, "this list is empty: write one delay for each retry, such as `[1, 10, 60]`"))
        } else {
            Ok(Delay::List(list))
        };
    }
    if input.peek(Ident) {
        return exponential(input);
    }
    duration(input).map(Delay::Fixed)
}

fn exponential(input: ParseStream<'_>) -> Result<Delay> {
    const RIGHT: &str =
        "expected a duration, a list of them, or `exponential(base, max)`, such as `exponential(1, 60)`";
    let name: Ident = input.parse()?;
    if name != "exponential" || !input.peek(token::Paren) {
        return Err(Error::new(name.span(), RIGHT));
    }
    let content;
    parenthesized!(content in input);
    if content.is_empty() {
        return Err(Error::new(name.span(), "`exponential` takes two durations: `exponential(1, 60)`"));
    }
    let base = duration(&content)?;
    if !content.peek(Token![,]) {
        return Err(content.error("`exponential` takes two durations: `exponential(1, 60)`"));
    }
    content.parse::<Token![,]>()?;
    let at_max = content.span();
    let max = duration(&content)?;
    content.parse::<Option<Token![,]>>()?;
    if !content.is_empty() {
        return Err(content.error("`exponential` takes two durations: `exponential(1, 60)`"));
    }
    if max < base {
        return Err(Error::new(at_max, "the longest delay is shorter than the first one"));
    }
    Ok(Delay::Exponential { base, max })
}

/// Values in brackets, separated by commas.
pub(crate) fn list<T>(input: ParseStream<'_>, one: fn(ParseStream<'_>) -> Result<T>) -> Result<Vec<T>> {
    if !input.peek(token::Bracket) {
        return Err(input.error("expected a list in brackets, such as `[\"a\", \"b\"]`"));
    }
    let content;
    bracketed!(content in input);
    Ok(Punctuated::<T, Token![,]>::parse_terminated_with(&content, one)?.into_iter().collect())
}

enum Number {
    Whole(String),
    Fraction(String),
    Text(String),
}

/// A literal that is not negative; `expected` says what belongs here.
fn number(input: ParseStream<'_>, expected: &str) -> Result<(Number, Span)> {
    let minus: Option<Token![-]> = input.parse()?;
    let literal: Lit = input.parse().map_err(|error| Error::new(error.span(), format!("expected {expected}")))?;
    if let Some(minus) = minus {
        return Err(Error::new_spanned(quote::quote!(#minus #literal), "a negative value makes no sense here"));
    }
    let span = literal.span();
    let unsuffixed = |digits: &str, suffix: &str| {
        if suffix.is_empty() {
            Ok(digits.to_owned())
        } else if duration::from_text(&format!("{digits}{suffix}")).is_ok() {
            Err(Error::new(span, format!("a duration with a unit stands in quotes: \"{digits}{suffix}\"")))
        } else {
            Err(Error::new(span, format!("write `{digits}`, without `{suffix}`")))
        }
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other literal is wrong, whatever syn calls it")]
    let number = match &literal {
        Lit::Int(int) => Number::Whole(unsuffixed(int.base10_digits(), int.suffix())?),
        Lit::Float(float) => Number::Fraction(unsuffixed(float.base10_digits(), float.suffix())?),
        Lit::Str(text) => Number::Text(text.value()),
        _ => return Err(Error::new(span, format!("expected {expected}"))),
    };
    Ok((number, span))
}
