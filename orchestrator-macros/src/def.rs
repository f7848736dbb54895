//! The `Def` that goes into the program: what the attribute says, as constants.

use std::time::Duration;

use proc_macro2::TokenStream;
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
    let mut fields = Fields::default();
    let description = options.description.as_ref().map_or_else(|| function.attrs.description(), LitStr::value);
    if !description.is_empty() {
        fields.set(quote!(description), description);
    }
    fields.some(quote!(version), options.version.as_ref());
    let tags = &options.tags;
    if !tags.is_empty() {
        fields.set(quote!(tags), quote!(&[#(#tags),*]));
    }
    let parameters: Vec<_> = function.params.iter().map(|param| &param.name).collect();
    if !parameters.is_empty() {
        fields.set(quote!(parameters), quote!(&[#(#parameters),*]));
    }
    fields.set(quote!(fingerprint), fingerprint_of(function));
    fields.some(quote!(retries), options.retries);
    fields.some(quote!(retry_delay), options.retry_delay.as_ref().map(|value| delay(p, value)));
    fields.some(quote!(retry_jitter), options.retry_jitter);
    fields.some(quote!(timeout), options.timeout.map(|value| duration(p, value)));
    fields.some(quote!(cache_ttl), options.cache_ttl.map(|value| duration(p, value)));
    fields.some(quote!(cache_policy), options.cache_policy.as_ref().map(|value| policy(p, value)));
    if options.cache_key.is_some() {
        fields.set(quote!(has_cache_key), true);
    }
    fields.some(quote!(refresh_cache), options.refresh_cache);
    fields.some(quote!(persist), options.persist);
    let wants: Vec<_> = options.concurrency.iter().map(|value| want(p, value)).collect();
    if !wants.is_empty() {
        fields.set(quote!(concurrency), quote!(&[#(#wants),*]));
    }
    fields.some(quote!(max_concurrent_tasks), options.max_concurrent_tasks.map(|value| value as usize));
    let budget = options.crash_budget.map_or(CRASH_BUDGET, |(_, times)| times);
    fields.some(quote!(crash_budget), options.on_crash.as_ref().map(|_| budget));
    if let Some(hooks) = hooks::of_states(root, options, function.kind) {
        fields.set(quote!(hooks), hooks);
    }
    if function.item.sig.asyncness.is_none() {
        fields.set(quote!(is_async), false);
    }
    let fields = fields.0;
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
#[derive(Default)]
struct Fields(TokenStream);

impl Fields {
    fn set(&mut self, name: TokenStream, value: impl ToTokens) {
        self.0.extend(quote!(#name: #value,));
    }

    fn some(&mut self, name: TokenStream, value: Option<impl ToTokens>) {
        if let Some(value) = value {
            self.set(name, quote!(::core::option::Option::Some(#value)));
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
        Some(slots) => quote!(::core::option::Option::Some(#slots)),
        None => quote!(::core::option::Option::None),
    };
    quote!(#p::Want { limit: #limit, slots: #slots, declare: #declare })
}
