//! Names of ours that stand where names of the user's are looked up.
//!
//! Those of types and constants have no hygiene, so none is taken that the user's signature or attribute has. Those of
//! variables have.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Ident, Signature};

/// What the block of an expansion names.
pub(crate) struct Names {
    /// The runtime's module.
    pub(crate) module: Ident,
    /// What the attribute says.
    pub(crate) def: Ident,
    /// The return type as it is written, if it is a `Result`.
    pub(crate) declared: Ident,
    /// The type of the result on success.
    pub(crate) output: Ident,
    /// The arguments in the form in which runs hold them.
    pub(crate) args: Ident,
}

impl Names {
    pub(crate) fn new(attr: TokenStream, sig: &Signature) -> Self {
        let mut taken = Vec::new();
        collect(attr, &mut taken);
        collect(sig.to_token_stream(), &mut taken);
        let free = |name: &str| {
            let mut name = name.to_owned();
            while taken.contains(&name) {
                name.push('_');
            }
            Ident::new(&name, Span::call_site())
        };
        Self {
            module: free("__p"),
            def: free("__DEF"),
            declared: free("__Declared"),
            output: free("__Output"),
            args: free("__Args"),
        }
    }
}

/// The names that begin as ours do.
fn collect(tokens: TokenStream, names: &mut Vec<String>) {
    for tree in tokens {
        match tree {
            TokenTree::Group(group) => collect(group.stream(), names),
            TokenTree::Ident(ident) => {
                names.extend(Some(ident.unraw().to_string()).filter(|name| name.starts_with("__")))
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// A variable that no name in the user's code means. Hygiene does not tell it from a constant, which would make a pattern of
/// it, so that it has a name that no constant has.
pub(crate) fn variable(name: &str, span: Span) -> Ident {
    Ident::new(&format!("__{name}"), Span::mixed_site().located_at(span))
}
