//! Questions to the compiler about the user's types, each with the span of the type that it is about.

use proc_macro2::{Delimiter, TokenStream};
use quote::quote_spanned;

use crate::code::{At, Code};
use crate::expand::Expansion;
use crate::model::{Function, Kind, Param, Passing, generated};
use crate::root::Tokens;

/// Statements that compile only if the types are fit for what is asked of them.
pub(crate) fn checks(code: &mut Code, expansion: &Expansion<'_>) {
    by_value(code, expansion);
    encoded(code, expansion);
    stored(code, expansion);
}

/// A parameter taken by value is cloned for each attempt.
fn by_value(code: &mut Code, expansion: &Expansion<'_>) {
    let params = expansion.function.params.iter().filter(|param| param.passing == Passing::Value);
    params.for_each(|param| about(code, expansion, param, "assert_by_value"));
}

/// Arguments of a cached task are part of its key, those of a flow are recorded.
fn encoded(code: &mut Code, expansion: &Expansion<'_>) {
    let options = expansion.options;
    let assert = match expansion.function.kind {
        Kind::Flow => "assert_parameter",
        Kind::Task if is_cached(expansion) && options.cache_key.is_none() => "assert_cache_input",
        Kind::Task => return,
    };
    let in_key = |param: &Param| match &options.cache_policy {
        Some(policy) => policy.inputs && policy.exclude.iter().all(|name| name.value() != param.name),
        None => true,
    };
    let params = expansion.kept().map(|(_, param)| param).filter(|param| in_key(param));
    params.for_each(|param| about(code, expansion, param, assert));
}

/// The result of a cached task is kept, and so is that of a task that persists it.
fn stored(code: &mut Code, expansion: &Expansion<'_>) {
    let assert = match expansion.function.kind {
        Kind::Task if is_cached(expansion) => "assert_cache_output",
        Kind::Task if expansion.options.persist == Some(true) => "assert_persist_output",
        Kind::Task | Kind::Flow => return,
    };
    let output = &expansion.function.output;
    // As it was written, so that the message is at the user's own words.
    let succeeds = expansion.written_success(&expansion.root, &output.declared);
    ask(&mut code.at(generated(output.span)), expansion, assert, &succeeds);
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

fn about(code: &mut Code, expansion: &Expansion<'_>, param: &Param, assert: &str) {
    ask(&mut code.at(generated(param.span)), expansion, assert, &param.ty);
}

fn ask(at: &mut At<'_>, expansion: &Expansion<'_>, assert: &str, ty: &Tokens) {
    at.path(&expansion.root, &[assert]).colons().angled(ty);
    at.group(Delimiter::Parenthesis, Code::default()).sign(';');
}
