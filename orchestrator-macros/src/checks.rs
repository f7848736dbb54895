//! Questions to the compiler about the user's types, each with the span of the type that it is about.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use crate::expand::Expansion;
use crate::model::{Function, Kind, Param, Passing, generated};

/// Statements that compile only if the types are fit for what is asked of them.
pub(crate) fn checks(expansion: &Expansion<'_>) -> TokenStream {
    let (values, encoded, stored) = (by_value(expansion), encoded(expansion), stored(expansion));
    quote!(#values #encoded #stored)
}

/// A parameter taken by value is cloned for each attempt.
fn by_value(expansion: &Expansion<'_>) -> TokenStream {
    let params = expansion.function.params.iter().filter(|param| param.passing == Passing::Value);
    params.map(|param| about(expansion, param, quote!(assert_by_value))).collect()
}

/// Arguments of a cached task are part of its key, those of a flow are recorded.
fn encoded(expansion: &Expansion<'_>) -> TokenStream {
    let options = expansion.options;
    let assert = match expansion.function.kind {
        Kind::Flow => quote!(assert_parameter),
        Kind::Task if is_cached(expansion) && options.cache_key.is_none() => quote!(assert_cache_input),
        Kind::Task => return TokenStream::new(),
    };
    let in_key = |param: &Param| match &options.cache_policy {
        Some(policy) => policy.inputs && policy.exclude.iter().all(|name| name.value() != param.name),
        None => true,
    };
    let params = expansion.kept().map(|(_, param)| param).filter(|param| in_key(param));
    params.map(|param| about(expansion, param, assert.clone())).collect()
}

/// The result of a cached task is kept, and so is that of a task that persists it.
fn stored(expansion: &Expansion<'_>) -> TokenStream {
    if expansion.function.kind == Kind::Flow {
        return TokenStream::new();
    }
    let assert = if is_cached(expansion) {
        quote!(assert_cache_output)
    } else if expansion.options.persist == Some(true) {
        quote!(assert_persist_output)
    } else {
        return TokenStream::new();
    };
    let span = expansion.function.output.span;
    // As it was written, so that the message is at the user's own words.
    let succeeds = expansion.written_success(&expansion.root, &expansion.function.output.declared);
    let p = expansion.root.at(span);
    quote_spanned!(generated(span)=> #p::#assert::<#succeeds>();)
}

fn is_cached(expansion: &Expansion<'_>) -> bool {
    let options = expansion.options;
    let by_policy = options.cache_policy.as_ref().map(|policy| !policy.is_none());
    by_policy.unwrap_or(options.cache_ttl.is_some() || options.cache_key.is_some())
}

/// A `Result` whose alias does not say so would be a success that carries an error.
pub(crate) fn hidden_result(expansion: &Expansion<'_>) -> Option<TokenStream> {
    let Function { output, .. } = expansion.function;
    if output.is_result || expansion.function.is_generic() {
        return None;
    }
    let (p, declared) = (expansion.outer.at(output.span), &output.declared);
    let message =
        "this return type is a Result behind an alias: end the alias's name in Result, or write Result<..> here";
    Some(quote_spanned! {generated(output.span)=>
        const _: () = {
            use #p::probes::*;
            ::core::assert!(!#p::Probe::<#declared>::IS_RESULT, #message);
        };
    })
}

fn about(expansion: &Expansion<'_>, param: &Param, assert: TokenStream) -> TokenStream {
    let (p, ty) = (expansion.root.at(param.span), &param.ty);
    quote_spanned!(generated(param.span)=> #p::#assert::<#ty>();)
}
