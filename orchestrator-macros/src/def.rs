//! The `Def` that goes into the program: what the attribute says, as constants.

use std::time::Duration;

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::LitStr;
use syn::ext::IdentExt;

use crate::fingerprint::fingerprint;
use crate::hooks;
use crate::model::{Function, Kind};
use crate::options::{Options, Policy, Want};
use crate::root::{Root, Tokens};
use crate::value::Delay;

/// How often a run goes on by itself after a crash where nobody says anything.
const CRASH_BUDGET: u32 = 3;

/// The expression behind `static __DEF: Def =`.
pub(crate) fn def(root: &Root, options: &Options, function: &Function) -> TokenStream {
    let p = root.path();
    let ident = function.ident().unraw().to_string();
    let name = options.name.as_ref().map_or_else(|| ident.to_token_stream(), ToTokens::to_token_stream);
    let new = match function.kind {
        Kind::Task => quote!(task),
        Kind::Flow => quote!(flow),
    };
    let key = format!("::{ident}");
    let (mut fields, mut rare) = (Fields::new(p), Fields::new(p));
    let description = options.description.as_ref().map_or_else(|| function.attrs.description(), LitStr::value);
    if !description.is_empty() {
        fields.set("description", description);
    }
    let tags = &options.tags;
    if !tags.is_empty() {
        fields.set("tags", quote!(&[#(#tags),*]));
    }
    let parameters: Vec<_> = function.params.iter().map(|param| &param.name).collect();
    if !parameters.is_empty() {
        fields.set("parameters", quote!(&[#(#parameters),*]));
    }
    fields.set("fingerprint", Literal::u128_unsuffixed(fingerprint_of(function)));
    fields.some("retries", options.retries);
    if function.item.sig.asyncness.is_none() {
        fields.set("is_async", false);
    }
    rare.some("version", options.version.as_ref());
    rare.some("retry_delay", options.retry_delay.as_ref().map(|value| delay(p, value)));
    rare.some("retry_jitter", options.retry_jitter);
    rare.some("timeout", options.timeout.map(|value| duration(p, value)));
    rare.some("cache_ttl", options.cache_ttl.map(|value| duration(p, value)));
    rare.some("cache_policy", options.cache_policy.as_ref().map(|value| policy(p, value)));
    if options.cache_key.is_some() {
        rare.set("has_cache_key", true);
    }
    rare.some("refresh_cache", options.refresh_cache);
    rare.some("persist", options.persist);
    let wants: Vec<_> = options.concurrency.iter().map(|value| want(p, value)).collect();
    if !wants.is_empty() {
        rare.set("concurrency", quote!(&[#(#wants),*]));
    }
    rare.some("max_concurrent_tasks", options.max_concurrent_tasks.map(|value| value as usize));
    let budget = options.crash_budget.map_or(CRASH_BUDGET, |(_, times)| times);
    rare.some("crash_budget", options.on_crash.as_ref().map(|_| budget));
    if let Some(hooks) = hooks::of_states(root, options, function.kind) {
        rare.set("hooks", hooks);
    }
    if let Some(rare) = rare.written() {
        fields.set("rare", quote!(&#p::Rare { #rare ..#p::Rare::NONE }));
    }
    let fields = fields.written();
    quote! {
        #p::Def { #fields ..#p::Def::#new(#name, ::core::concat!(::core::module_path!(), #key)) }
    }
}

/// The function's code: its documentation and its attributes are not part of it, nor is who may call it.
fn fingerprint_of(function: &Function) -> u128 {
    let mut sig = function.item.sig.clone();
    for input in &mut sig.inputs {
        match input {
            syn::FnArg::Typed(param) => param.attrs.clear(),
            syn::FnArg::Receiver(receiver) => receiver.attrs.clear(),
        }
    }
    let body = &function.item.body;
    fingerprint(quote!(#sig #body))
}

/// The fields that differ from their defaults.
struct Fields<'a> {
    p: &'a Tokens,
    written: TokenStream,
}

impl<'a> Fields<'a> {
    fn new(p: &'a Tokens) -> Self {
        Self { p, written: TokenStream::new() }
    }

    fn set(&mut self, name: &str, value: impl ToTokens) {
        let name = Ident::new(name, Span::call_site());
        self.written.extend(quote!(#name: #value,));
    }

    fn some(&mut self, name: &str, value: Option<impl ToTokens>) {
        if let Some(value) = value {
            let p = self.p;
            self.set(name, quote!(#p::Some(#value)));
        }
    }

    fn written(self) -> Option<TokenStream> {
        (!self.written.is_empty()).then_some(self.written)
    }
}

fn duration(p: &Tokens, value: Duration) -> TokenStream {
    // Whoever parsed it made sure that it fits.
    let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
    quote!(#p::Duration::from_nanos(#nanos))
}

fn delay(p: &Tokens, value: &Delay) -> TokenStream {
    match value {
        Delay::Fixed(one) => {
            let one = duration(p, *one);
            quote!(#p::RetryDelay::Fixed(#one))
        }
        Delay::List(list) => {
            let list = list.iter().map(|one| duration(p, *one));
            quote!(#p::RetryDelay::List(&[#(#list),*]))
        }
        Delay::Exponential { base, max } => {
            let (base, max) = (duration(p, *base), duration(p, *max));
            quote!(#p::RetryDelay::Exponential { base: #base, max: #max })
        }
    }
}

fn policy(p: &Tokens, value: &Policy) -> TokenStream {
    let Policy { inputs, task_source, run_id, flow_parameters, exclude } = value;
    quote! {
        #p::CachePolicy {
            inputs: #inputs, task_source: #task_source, run_id: #run_id, flow_parameters: #flow_parameters,
            exclude: &[#(#exclude),*],
        }
    }
}

fn want(p: &Tokens, Want { limit, slots, declare }: &Want) -> TokenStream {
    let declare = match declare {
        Some(slots) => quote!(#p::Some(#slots)),
        None => quote!(#p::None),
    };
    quote!(#p::Want { limit: #limit, slots: #slots, declare: #declare })
}
