//! Reading the list of options in an attribute.
//!
//! An attribute has a table of [`Row`]s, one for each option. The reader knows nothing about single options: it finds
//! the row, lets it read its value, and goes on behind the next comma when something is wrong.

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, LitBool, Result, Token, token};

use crate::mistakes::Mistakes;
use crate::suggest;

/// One option: how it is called and written, and what to do with it.
pub(crate) struct Row<O> {
    pub(crate) name: &'static str,
    /// Shown when the option is written in another way.
    pub(crate) example: &'static str,
    /// The attribute that has this option, if the table serves several and the others have not.
    pub(crate) only_on: Option<&'static str>,
    pub(crate) read: Read<O>,
}

impl<O> Row<O> {
    fn is_known(&self, on: &str) -> bool {
        self.only_on.is_none_or(|attribute| attribute == on)
    }
}

/// The two forms of an option.
pub(crate) enum Read<O> {
    /// `name = value`.
    Value(fn(&mut O, ParseStream<'_>) -> Result<()>),
    /// `name`, or `name = true`, or `name = false`.
    Flag(fn(&mut O, bool)),
}

/// Reads the options of the attribute `#[on(..)]`.
pub(crate) fn read<O: Default>(tokens: TokenStream, rows: &[Row<O>], on: &str, mistakes: &mut Mistakes) -> O {
    let mut options = O::default();
    let parser = |input: ParseStream<'_>| {
        read_list(input, rows, on, &mut options, mistakes);
        Ok(())
    };
    let outcome = parser.parse2(tokens);
    mistakes.keep(outcome);
    options
}

/// Reads options up to the end of `input`.
pub(crate) fn read_list<O>(
    input: ParseStream<'_>,
    rows: &[Row<O>],
    on: &str,
    options: &mut O,
    mistakes: &mut Mistakes,
) {
    let mut seen = Vec::new();
    while !input.is_empty() {
        let outcome = read_one(input, rows, on, options, &mut seen);
        let complete = mistakes.keep(outcome).is_some();
        if complete && !input.is_empty() && !input.peek(Token![,]) {
            mistakes.push(input.error("expected `,` before the next option"));
        }
        while !input.is_empty() && !input.peek(Token![,]) {
            if input.parse::<TokenTree>().is_err() {
                return;
            }
        }
        if input.parse::<Option<Token![,]>>().is_err() {
            return;
        }
    }
}

fn read_one<O>(
    input: ParseStream<'_>,
    rows: &[Row<O>],
    on: &str,
    options: &mut O,
    seen: &mut Vec<&'static str>,
) -> Result<()> {
    let name = Ident::parse_any(input).map_err(|error| {
        let names = rows.iter().filter(|row| row.is_known(on)).map(|row| row.name);
        Error::new(error.span(), format!("expected the name of an option; the options are {}", suggest::list(names)))
    })?;
    let row = find(&name, rows, on)?;
    if seen.contains(&row.name) {
        return Err(Error::new(name.span(), format!("`{}` is given twice", row.name)));
    }
    seen.push(row.name);
    if input.parse::<Option<Token![=]>>()?.is_some() {
        return match row.read {
            Read::Value(read) => read(options, input),
            Read::Flag(set) => {
                let value: LitBool =
                    input.parse().map_err(|error| Error::new(error.span(), "expected `true` or `false`"))?;
                set(options, value.value);
                Ok(())
            }
        };
    }
    match row.read {
        Read::Flag(set) if !input.peek(token::Paren) => {
            set(options, true);
            Ok(())
        }
        Read::Flag(_) | Read::Value(_) => {
            Err(Error::new(name.span(), format!("`{name}` is written with a value: `{}`", row.example)))
        }
    }
}

fn find<'a, O>(name: &Ident, rows: &'a [Row<O>], on: &str) -> Result<&'a Row<O>> {
    let typed = name.to_string();
    match rows.iter().find(|row| row.name == typed) {
        Some(row) if row.is_known(on) => Ok(row),
        Some(Row { only_on: Some(other), .. }) => {
            Err(Error::new(name.span(), format!("`{typed}` is an option of #[{other}], not of #[{on}]")))
        }
        Some(_) | None => {
            let names = || rows.iter().filter(|row| row.is_known(on)).map(|row| row.name);
            let hint = match suggest::nearest(&typed, names()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("the options are {}", suggest::list(names())),
            };
            Err(Error::new(name.span(), format!("unknown option `{typed}`; {hint}")))
        }
    }
}
