//! The path of the runtime's private module, the only thing that expansions name.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Ident, Path};

use crate::model::generated;

/// Tokens that are written often: one by one they go into an expansion without a word to the compiler, which a stream does
/// not.
#[derive(Clone)]
pub(crate) struct Tokens(Vec<TokenTree>);

impl From<TokenStream> for Tokens {
    fn from(stream: TokenStream) -> Self {
        Self(stream.into_iter().collect())
    }
}

impl ToTokens for Tokens {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(self.0.iter().cloned());
    }
}

/// The path that all of an expansion's names start with.
pub(crate) struct Root(Tokens);

impl Root {
    /// `krate` is what the option `crate` says.
    pub(crate) fn new(krate: Option<&Path>) -> Self {
        let krate = krate.map_or_else(|| quote!(::orchestrator), ToTokens::to_token_stream);
        Self(quote!(#krate::__private).into())
    }

    /// In a block that has a name of its own for it.
    pub(crate) fn in_block(module: &Ident) -> Self {
        Self(quote!(#module).into())
    }

    pub(crate) fn path(&self) -> &Tokens {
        &self.0
    }

    /// The path for an expression whose errors belong to the user's code at `span`.
    pub(crate) fn at(&self, span: Span) -> Tokens {
        let (span, mut tokens) = (generated(span), self.0.clone());
        tokens.0.iter_mut().for_each(|tree| tree.set_span(span));
        tokens
    }
}
