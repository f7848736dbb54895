//! The path of the runtime's private module, the only thing that expansions name.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Ident, Path};

use crate::model::generated;

/// Tokens that are written often: one by one they go into an expansion without a word to the compiler, which a stream does
/// not.
#[derive(Clone)]
pub(crate) struct Tokens(Vec<TokenTree>);

impl Tokens {
    pub(crate) fn trees(&self) -> &[TokenTree] {
        &self.0
    }

    /// Without what is in groups.
    pub(crate) fn map_spans(mut self, map: impl Fn(Span) -> Span) -> Self {
        self.0.iter_mut().for_each(|tree| tree.set_span(map(tree.span())));
        self
    }
}

impl From<TokenStream> for Tokens {
    fn from(stream: TokenStream) -> Self {
        Self(stream.into_iter().collect())
    }
}

impl From<Vec<TokenTree>> for Tokens {
    fn from(trees: Vec<TokenTree>) -> Self {
        Self(trees)
    }
}

impl From<Ident> for Tokens {
    fn from(ident: Ident) -> Self {
        Self(vec![ident.into()])
    }
}

impl ToTokens for Tokens {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(self.0.iter().cloned());
    }
}

/// The path that all of an expansion's names start with.
pub(crate) struct Root {
    path: Tokens,
    /// The same, unless it is the user's.
    text: Option<String>,
}

impl Root {
    /// `krate` is what the option `crate` says.
    pub(crate) fn new(krate: Option<&Path>) -> Self {
        match krate {
            Some(krate) => Self { path: quote!(#krate::__private).into(), text: None },
            None => Self {
                path: quote!(::orchestrator::__private).into(),
                text: Some("::orchestrator::__private".to_owned()),
            },
        }
    }

    /// In a block that has a name of its own for it.
    pub(crate) fn in_block(module: &str) -> Self {
        let ident = Ident::new(module, Span::call_site());
        Self { path: ident.into(), text: Some(module.to_owned()) }
    }

    pub(crate) fn path(&self) -> &Tokens {
        &self.path
    }

    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The path for an expression whose errors belong to the user's code at `span`.
    pub(crate) fn at(&self, span: Span) -> Tokens {
        let span = generated(span);
        self.path.clone().map_spans(|_| span)
    }
}
