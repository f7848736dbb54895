//! Hooks: the functions that an attribute names, in the runtime's form.
//!
//! Whether a hook is async, and whether it can fail, is found out by the compiler: `hook_kind` is a method of what the
//! function returns.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Path;
use syn::spanned::Spanned;

use crate::code::Code;
use crate::expand::Expansion;
use crate::model::{Kind, generated};
use crate::names::variable;
use crate::options::Options;
use crate::root::Root;

/// The expression for the hooks on states, if there are any.
pub(crate) fn of_states(root: &Root, options: &Options, kind: Kind) -> Option<TokenStream> {
    let lists = [
        (quote!(on_running), &options.on_running),
        (quote!(on_completion), &options.on_completion),
        (quote!(on_failure), &options.on_failure),
        (quote!(on_cancellation), &options.on_cancellation),
        (quote!(on_crashed), &options.on_crashed),
    ];
    let fields: Vec<_> = lists
        .iter()
        .filter(|(_, paths)| !paths.is_empty())
        .map(|(field, paths)| {
            let hooks = paths.iter().map(|path| of_state(root, path, kind));
            quote!(#field: &[#(#hooks),*])
        })
        .collect();
    let p = root.path();
    let rest = (fields.len() < lists.len()).then(|| quote!(..#p::Hooks::NONE));
    (!fields.is_empty()).then(|| quote!(#p::Hooks { #(#fields,)* #rest }))
}

fn of_state(root: &Root, path: &Path, kind: Kind) -> TokenStream {
    let new = match kind {
        Kind::Task => quote!(of_task),
        Kind::Flow => quote!(of_flow),
    };
    let span = generated(path.span());
    let p = root.at(span);
    let name = name(path);
    let [run, state] = ["run", "state"].map(|name| variable(name, span));
    let (call, is_async) = (call(root, span, quote_spanned!(span=> #path(#run, #state))), is_async(root, path, 2));
    quote_spanned!(span=> #p::Hook::#new(#name, |#run, #state| #call, || #is_async))
}

/// What is said of a function's hooks on commit and rollback.
pub(crate) fn of_results(code: &mut Code, expansion: &Expansion<'_>) {
    let lists =
        [(quote!(on_commit), &expansion.options.on_commit), (quote!(on_rollback), &expansion.options.on_rollback)];
    let root = &expansion.root;
    let succeeds = expansion.success();
    for (method, paths) in lists.iter().filter(|(_, paths)| !paths.is_empty()) {
        let hooks = paths.iter().map(|path| {
            let span = generated(path.span());
            let p = root.at(span);
            let name = name(path);
            let result = variable("result", span);
            let outcome = quote_spanned!(span=> #path(#p::result_of_type::<#succeeds>(#result)));
            let (call, is_async) = (call(root, span, outcome), is_async(root, path, 1));
            quote_spanned!(span=> #p::ResultHook::new(#name, |#result| #call, || #is_async))
        });
        code.stream(quote!(.#method(|| ::std::vec![#(#hooks),*])));
    }
}

fn name(path: &Path) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}

/// The call of a hook, whatever it returns.
fn call(root: &Root, span: Span, outcome: TokenStream) -> TokenStream {
    let p = root.at(span);
    quote_spanned! {span=>
        {
            use #p::probes::*;
            // What the hook is named is not looked up any more where this name is.
            let __outcome = #outcome;
            (&&#p::probe_of(&__outcome)).hook_kind().run(__outcome)
        }
    }
}

/// Whether the hook, which takes that many references, is async.
fn is_async(root: &Root, path: &Path, references: usize) -> TokenStream {
    let span = generated(path.span());
    let p = root.at(span);
    let probe =
        if references == 2 { quote_spanned!(span=> probe_hook) } else { quote_spanned!(span=> probe_result_hook) };
    quote_spanned! {span=>
        {
            use #p::probes::*;
            (&&#p::#probe(#path)).hook_kind().is_async()
        }
    }
}
