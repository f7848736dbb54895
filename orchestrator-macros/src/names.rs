//! Names of ours that stand where names of the user's are looked up.
//!
//! Those of types and constants have no hygiene, so none is taken that the user's signature or attribute has. Those of
//! variables have.

use proc_macro2::Span;
use syn::Ident;

/// What the block of an expansion names.
pub(crate) struct Names {
    /// The runtime's module.
    pub(crate) module: String,
    /// What the attribute says.
    pub(crate) def: String,
    /// The return type as it is written, if it is a `Result`.
    pub(crate) declared: String,
    /// The type of the result on success.
    pub(crate) output: String,
    /// The arguments in the form in which runs hold them.
    pub(crate) args: String,
}

impl Names {
    /// Names that are nowhere in these texts.
    pub(crate) fn new(users: &[String]) -> Self {
        let free = |name: &str| {
            let mut name = name.to_owned();
            while users.iter().any(|text| text.contains(&name)) {
                name.push('_');
            }
            name
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

/// A variable that no name in the user's code means. Hygiene does not tell it from a constant, which would make a pattern of
/// it, so that it has a name that no constant has.
pub(crate) fn variable(name: &str, span: Span) -> Ident {
    Ident::new(&format!("__{name}"), Span::mixed_site().located_at(span))
}
