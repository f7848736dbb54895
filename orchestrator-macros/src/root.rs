//! The path of the runtime's private module, the only thing that expansions name.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::Path;

use crate::model::generated;

/// The path that all of an expansion's names start with.
pub(crate) struct Root(TokenStream);

impl Root {
    /// `krate` is what the option `crate` says.
    pub(crate) fn new(krate: Option<&Path>) -> Self {
        let krate = krate.map_or_else(|| quote!(::orchestrator), ToTokens::to_token_stream);
        Self(quote!(#krate::__private))
    }

    pub(crate) fn path(&self) -> &TokenStream {
        &self.0
    }

    /// The path for an expression whose errors belong to the user's code at `span`.
    pub(crate) fn at(&self, span: Span) -> TokenStream {
        let span = generated(span);
        let respanned = self.0.clone().into_iter().map(|mut tree: TokenTree| {
            tree.set_span(span);
            tree
        });
        respanned.collect()
    }
}
