//! The `Def` that goes into the program: what the attribute says, as constants.

use std::fmt::Display;
use std::time::Duration;

use proc_macro2::{Delimiter, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{FnArg, LitStr};

use crate::code::Code;
use crate::fingerprint::fingerprint;
use crate::hooks;
use crate::model::{self, Function, Item, Written};
use crate::options::{Options, Policy, Want};
use crate::root::{Root, Tokens};
use crate::value::Delay;

/// How often a run goes on by itself after a crash where nobody says anything.
const CRASH_BUDGET: u32 = 3;

/// The expression behind `static __DEF: Def =`.
pub(crate) fn def(code: &mut Code, root: &Root, options: &Options, function: &Function) {
    let p = root.path();
    let ident = function.ident().unraw().to_string();
    let name = options.name.as_ref().map_or_else(|| ident.clone(), LitStr::value);
    let (mut fields, mut rare) = (Fields::new(root), Fields::new(root));
    let description = options.description.as_ref().map_or_else(|| function.attrs.description(), LitStr::value);
    if !description.is_empty() {
        fields.set("description", format_args!("{description:?}"));
    }
    let tags: Vec<_> = options.tags.iter().map(LitStr::value).collect();
    if !tags.is_empty() {
        fields.set("tags", format_args!("&{tags:?}"));
    }
    let parameters: Vec<_> = function.params.iter().map(|param| &param.name).collect();
    if !parameters.is_empty() {
        fields.set("parameters", format_args!("&{parameters:?}"));
    }
    fields.set("fingerprint", fingerprint_of(function));
    fields.some("retries", options.retries);
    if function.item.sig.asyncness.is_none() {
        fields.set("is_async", false);
    }
    rare.some("version", options.version.as_ref().map(|text| format!("{:?}", text.value())));
    rare.some_tokens("retry_delay", options.retry_delay.as_ref().map(|value| delay(p, value)));
    rare.some_tokens("retry_jitter", options.retry_jitter);
    rare.some_tokens("timeout", options.timeout.map(|value| duration(p, value)));
    rare.some_tokens("cache_ttl", options.cache_ttl.map(|value| duration(p, value)));
    rare.some_tokens("cache_policy", options.cache_policy.as_ref().map(|value| policy(p, value)));
    if options.cache_key.is_some() {
        rare.set("has_cache_key", true);
    }
    rare.some("refresh_cache", options.refresh_cache);
    rare.some("persist", options.persist);
    let wants: Vec<_> = options.concurrency.iter().map(|value| want(p, value)).collect();
    if !wants.is_empty() {
        rare.set_tokens("concurrency", quote!(&[#(#wants),*]));
    }
    rare.some("max_concurrent_tasks", options.max_concurrent_tasks);
    let budget = options.crash_budget.map_or(CRASH_BUDGET, |(_, times)| times);
    rare.some("crash_budget", options.on_crash.as_ref().map(|_| budget));
    if let Some(hooks) = hooks::of_states(root, options, function.kind) {
        rare.set_tokens("hooks", hooks);
    }
    let Fields { code: mut fields, .. } = fields;
    let Fields { code: mut rare, .. } = rare;
    if !rare.is_empty() {
        rare.text("..").root(root).text("::Rare::NONE");
        fields.text("rare: &").root(root).text("::Rare").group(Delimiter::Brace, rare).text(",");
    }
    let kind = function.kind.attribute();
    let key = format!("::core::concat!(::core::module_path!(), {:?})", format!("::{ident}"));
    fields.text("..").root(root).text(&format!("::Def::{kind}({name:?}, {key})"));
    code.root(root).text("::Def").group(Delimiter::Brace, fields);
}

/// The function's code: its documentation and its attributes are not part of it, nor is who may call it.
fn fingerprint_of(function: &Function) -> u128 {
    let Item { sig, body, .. } = &function.item;
    if model::typed(sig).all(|param| param.attrs.is_empty()) {
        return fingerprint(function.signature.trees().iter().chain([body]));
    }
    let mut sig = sig.clone();
    for input in &mut sig.inputs {
        match input {
            FnArg::Typed(param) => param.attrs.clear(),
            FnArg::Receiver(receiver) => receiver.attrs.clear(),
        }
    }
    fingerprint(Written::new(&sig).trees().iter().chain([body]))
}

/// The fields that differ from their defaults.
struct Fields<'a> {
    root: &'a Root,
    code: Code,
}

impl<'a> Fields<'a> {
    fn new(root: &'a Root) -> Self {
        Self { root, code: Code::default() }
    }

    /// A value that is written as it is displayed.
    fn set(&mut self, name: &str, value: impl Display) {
        self.code.text(&format!("{name}: {value},"));
    }

    fn some(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.code.text(name).text(":").root(self.root).text(&format!("::Some({value}),"));
        }
    }

    fn set_tokens(&mut self, name: &str, value: impl ToTokens) {
        self.code.text(name).text(":").stream(value.to_token_stream()).text(",");
    }

    fn some_tokens(&mut self, name: &str, value: Option<impl ToTokens>) {
        if let Some(value) = value {
            let p = self.root.path();
            self.set_tokens(name, quote!(#p::Some(#value)));
        }
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
