//! What `#[task]` and `#[flow]` put in the place of a function.
//!
//! The expansion names only the runtime's private module, and has no branch of its own: everything that happens in a run is
//! in the runtime. What nobody but the runtime names stands in one block, in which a short name means that module and others
//! mean the types of the arguments and of the result: each token and each path that is written costs time in each build.
//! Tokens that can fail to compile because of the user's types carry the span of those types.

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Ident, Index, LitStr, TypeGenerics};

use crate::args;
use crate::checks;
use crate::def;
use crate::hooks;
use crate::mistakes::Mistakes;
use crate::model::{Function, Item, Kind, Param, Passing, generated};
use crate::names::{Names, variable};
use crate::options::{Options, ROWS};
use crate::root::{Root, Tokens};
use crate::template;
use crate::validate::{self, Unusable};

/// Expands the attribute `kind` with the options `attr` on `item`.
pub(crate) fn expand(kind: Kind, attr: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let mut options = args::read(attr.clone(), ROWS, kind.attribute(), &mut mistakes);
    let parsed = syn::parse2::<Item>(item.clone());
    let Some(mut parsed) = mistakes.keep(parsed) else {
        let errors = mistakes.into_tokens();
        return quote!(#item #errors);
    };
    let skipped = validate::take_skips(&mut parsed.sig, kind, &mut mistakes);
    validate::attributes(&parsed.attrs, kind, &mut mistakes);
    if let Err(Unusable) = validate::signature(&parsed.sig, kind, &mut mistakes) {
        let errors = mistakes.into_tokens();
        return quote!(#parsed #errors);
    }
    let names = Names::new(attr, &parsed.sig);
    let function = Function::new(kind, parsed, &skipped);
    validate::options(&mut options, &function, &mut mistakes);
    let errors = mistakes.into_tokens();
    let (outer, root) = (Root::new(options.krate.as_ref()), Root::in_block(&names.module));
    let expansion = Expansion { outer, root, names, options: &options, function: &function }.items();
    quote!(#expansion #errors)
}

/// A function on its way to becoming a task or flow.
pub(crate) struct Expansion<'a> {
    /// The runtime's module for what stands beside the user's items.
    pub(crate) outer: Root,
    /// The same in the block.
    pub(crate) root: Root,
    pub(crate) names: Names,
    pub(crate) options: &'a Options,
    pub(crate) function: &'a Function,
}

impl Expansion<'_> {
    fn items(&self) -> TokenStream {
        let cfg = &self.function.attrs.cfg;
        let items = [
            Some(self.handle()),
            Some(self.call_function()),
            Some(self.as_written()),
            Some(self.block()),
            checks::hidden_result(self),
        ];
        items.into_iter().flatten().map(|item| quote!(#(#cfg)* #item)).collect()
    }

    /// What is reached by way of the struct, or not at all.
    fn block(&self) -> TokenStream {
        let (outer, def) = (self.outer.path(), def::def(&self.root, self.options, self.function));
        let (types, methods, configurable) = (self.types(), self.methods(), self.configurable());
        let (replaceable, registered) = (self.replaceable(), self.registered());
        let Names { module, def: name, .. } = &self.names;
        quote! {
            #[allow(
                dead_code, unreachable_pub, unused_qualifications, private_interfaces, private_bounds,
                clippy::all, clippy::pedantic, clippy::nursery
            )]
            const _: () = {
                use #outer as #module;
                use #module::probes::*;
                #types
                // Two functions are two addresses, which a constant does not have.
                static #name: #module::Def = #def;
                #methods
                #configurable
                #replaceable
                #registered
            };
        }
    }

    /// Names for the types that are written most often, where they are the same for all calls.
    fn types(&self) -> Option<TokenStream> {
        if self.function.is_generic() {
            return None;
        }
        let (output, args) = (&self.function.output, self.written_args());
        let (declared, names) = (&output.declared, &self.names);
        let (result, success, arguments) = (&names.declared, &names.output, &names.args);
        let results = if output.is_result {
            let succeeds = self.written_success(&self.root, result);
            quote!(type #result = #declared; type #success = #succeeds;)
        } else {
            quote!(type #success = #declared;)
        };
        Some(quote!(#results type #arguments = #args;))
    }

    /// The struct of the function's name: what `configure()` makes.
    fn handle(&self) -> TokenStream {
        let Function { attrs, item, .. } = self.function;
        let (docs, vis, ident) = (&attrs.docs, &item.vis, &item.sig.ident);
        let p = self.outer.path();
        let fallback = docs.is_empty().then(|| {
            let text = format!("The {} `{ident}`.", self.function.kind.attribute());
            quote!(#[doc = #text])
        });
        quote! {
            #(#docs)* #fallback
            #[allow(non_camel_case_types, dead_code, missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
            #vis struct #ident { #[doc(hidden)] __overrides: #p::Overrides }
        }
    }

    /// The function of the function's name: a call submits.
    fn call_function(&self) -> TokenStream {
        let Function { attrs, item, generics, .. } = self.function;
        let (docs, outer, vis) = (&attrs.docs, &attrs.outer, &item.vis);
        let (fn_token, ident) = (&item.sig.fn_token, &item.sig.ident);
        let (impl_generics, types, clause) = generics.split_for_impl();
        let function = self.constant(&quote!(#ident), &types);
        let succeeds = self.written_success(&self.outer, &self.function.output.declared);
        let (future, inputs) = (self.future(&self.outer, &succeeds), self.inputs(&self.outer, "IntoInput"));
        let (p, call, args) = (self.outer.path(), self.way_in("call"), self.args());
        // Not at the future's type: `notify(x).tolerate();` is a statement, and gives the future back.
        let said_so = outer.iter().any(|attr| attr.path().is_ident("must_use"));
        let must_use = (!said_so).then(|| must_use(ONE));
        // The keyword and the braces are the user's: without them the compiler takes the function for ours and does not
        // say that nobody calls it.
        let mut block = Group::new(Delimiter::Brace, quote!(#p::#call(#function, #args)));
        block.set_span(item.body.span());
        quote! {
            #(#docs)* #(#outer)* #must_use
            // A call is a call: flows that call hundreds of tasks stay small, and what the constant refers to is compiled once
            // and not in each part of the program in which there is a call.
            #[inline(never)]
            #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)]
            #vis #fn_token #ident #impl_generics (#inputs) -> #future #clause #block
        }
    }

    /// What the runtime is given of the function: a constant, or in a generic one a function whose value is one.
    fn function(&self) -> TokenStream {
        let Function { generics, params, .. } = self.function;
        let p = self.root.path();
        let (args, succeeds, checks) = (self.types_of_args(), self.success(), checks::checks(self));
        let names: Vec<_> = params.iter().enumerate().map(argument).collect();
        let attempt = self.attempt(&names);
        let encodings = params.iter().map(|Param { ty, span, skipped, .. }| {
            let at = self.root.at(*span);
            if *skipped { quote!(#p::Encoding::LeftOut) } else { quote!(#at::Probe::<#ty>::ENCODING) }
        });
        let at = self.root.at(self.function.output.span);
        let result = if self.function.output.has_references {
            quote!(#at::Unstored::<#succeeds>::RESULT)
        } else {
            quote!(#at::Probe::<#succeeds>::RESULT)
        };
        let run_name = self.options.run_name.as_ref().map(|template| self.run_name(template));
        let (cache_key, entry, hooks) = (self.cache_key(), self.entry(), hooks::of_results(self));
        let more = quote!(#run_name #cache_key #entry #hooks);
        // Methods that follow keep the type of the constant from being that of `new`.
        let types = (!more.is_empty()).then(|| quote!(::<#args, #succeeds>));
        let def = &self.names.def;
        let value = quote! {
            {
                #checks
                &#p::Callable #types ::new(&#def, |(#(#names,)*)| #attempt, (#(#encodings,)*), #result) #more
            }
        };
        // What is wrong with the parameters as a whole is said at the function's name.
        let name = generated(self.function.item.sig.ident.span());
        let at_name = self.root.at(name);
        let ty = quote_spanned!(name=> &'static #at_name::Callable<#args, #succeeds>);
        if self.function.is_generic() {
            let (impl_generics, _, clause) = generics.split_for_impl();
            quote!(#[inline] fn __function #impl_generics () -> #ty #clause { const #value })
        } else {
            quote!(const __FUNCTION: #ty = #value;)
        }
    }

    /// The expression for it, in `of`.
    fn constant(&self, of: &TokenStream, types: &TypeGenerics<'_>) -> TokenStream {
        if self.function.is_generic() {
            let turbofish = types.as_turbofish();
            quote!(#of::__function #turbofish ())
        } else {
            quote!(#of::__FUNCTION)
        }
    }

    /// One execution of the user's function.
    fn attempt(&self, args: &[Ident]) -> TokenStream {
        let Function { item, generics, params, output, .. } = self.function;
        let ident = &item.sig.ident;
        let turbofish = generics.split_for_impl().1;
        let turbofish = turbofish.as_turbofish();
        let passed = params.iter().zip(args).map(|(param, arg)| {
            let span = generated(param.span);
            match param.passing {
                Passing::Reference => quote_spanned!(span=> #arg.get()),
                Passing::Value => quote_spanned!(span=> #arg.take()),
            }
        });
        // What is not `Send` is said at the function's name; the notes then show what is held across which await.
        let span = generated(ident.span());
        let is_async = item.sig.asyncness.is_some();
        // A body that borrows from its arguments needs a future around both.
        let borrows = params.iter().any(|param| param.passing == Passing::Reference);
        let wait = (is_async && borrows).then(|| quote_spanned!(span=> .await));
        let outcome = quote_spanned!(span=> #ident::body #turbofish (#(#passed),*) #wait);
        let at_output = self.root.at(output.span);
        let span_output = generated(output.span);
        let p = self.root.at(ident.span());
        let retry_if = output.is_result.then(|| match &self.options.retry_if {
            Some(path) => quote!(, #p::Some(#path)),
            None => quote!(, #p::None),
        });
        if is_async && !borrows {
            let from = Ident::new(if output.is_result { "from_fallible" } else { "from_plain" }, span);
            return quote_spanned!(span=> #p::Attempt::#from(#outcome #retry_if));
        }
        let function = Ident::new(if output.is_result { "fallible" } else { "plain" }, span_output);
        let outcome = quote_spanned!(span_output=> #at_output::#function(#outcome #retry_if));
        if is_async {
            quote_spanned!(span=> #p::Attempt::from_future(async move { #outcome }))
        } else {
            quote_spanned!(span=> #p::Attempt::from_fn(move || #outcome))
        }
    }

    fn run_name(&self, template: &LitStr) -> TokenStream {
        let (params, args) = (&self.function.params, variable("args", Span::call_site()));
        let names: Vec<_> = params.iter().map(|param| param.name.as_str()).collect();
        let used = template::fields(template, &names).unwrap_or_default();
        let bindings =
            params.iter().enumerate().filter(|(_, param)| used.contains(&param.name)).map(|(index, param)| {
                let (ident, index) = (&param.ident, Index::from(index));
                quote_spanned!(generated(template.span())=> #ident = #args.#index.get())
            });
        quote!(.run_name(|#args| ::std::format!(#template, #(#bindings),*)))
    }

    fn cache_key(&self) -> Option<TokenStream> {
        let path = self.options.cache_key.as_ref()?;
        let args = variable("args", Span::call_site());
        let values = self.kept().map(|(index, _)| quote!(#args.#index.get()));
        Some(quote!(.cache_key(|#args| #path(#(#values),*))))
    }

    /// `body`: the function as the user wrote it. Nothing of ours is inside, so that lints and errors are the user's.
    fn as_written(&self) -> TokenStream {
        let Function { attrs, item, .. } = self.function;
        let Item { vis, sig, body, .. } = item;
        let (ident, attrs) = (&sig.ident, &attrs.body);
        let mut sig = sig.clone();
        sig.ident = Ident::new("body", generated(ident.span()));
        quote! {
            impl #ident {
                /// The function as it was written, without the runtime.
                #[allow(
                    unreachable_pub, private_interfaces, private_bounds,
                    clippy::missing_errors_doc, clippy::missing_panics_doc, clippy::must_use_candidate
                )]
                #(#attrs)*
                #vis #sig #body
            }
        }
    }

    /// `configure`, `submit`, and for tasks `map` and `submit_map`.
    fn methods(&self) -> TokenStream {
        let Function { item, generics, params, kind, .. } = self.function;
        let (vis, ident) = (&item.vis, &item.sig.ident);
        let p = self.root.path();
        let (impl_generics, types, clause) = generics.split_for_impl();
        let (inputs, args) = (self.inputs(&self.root, "IntoInput"), self.args());
        let future = self.future(&self.root, &self.success());
        let (function, constant, submit) =
            (self.function(), self.constant(&quote!(Self), &types), self.way_in("submit"));
        let must_use_one = must_use(ONE);
        // A task without parameters has nothing to map over.
        let maps = (*kind == Kind::Task && !params.is_empty()).then(|| {
            let succeeds = self.success();
            let inputs = self.inputs(&self.root, "IntoMapInput");
            let must_use_all = must_use(MANY);
            quote! {
                /// Submits one run for each element of the arguments that are collections.
                #must_use_all
                #vis fn map #impl_generics (#inputs) -> #p::MapFuture<#succeeds> #clause {
                    #p::call_map(#constant, #args)
                }

                /// Like `map`, with the options of this handle.
                #must_use_all
                #[inline(never)]
                #vis fn submit_map #impl_generics (&self, #inputs) -> #p::MapFuture<#succeeds> #clause {
                    #p::submit_map(#constant, &self.__overrides, #args)
                }
            }
        });
        quote! {
            impl #ident {
                #function

                /// The same with options that are changed at the call.
                #vis fn configure() -> #p::Configured<Self> {
                    #p::Configured::new(Self { __overrides: #p::Overrides::NONE })
                }

                /// Submits a run with the options of this handle.
                #must_use_one
                #[inline(never)]
                #vis fn submit #impl_generics (&self, #inputs) -> #future #clause {
                    #p::#submit(#constant, &self.__overrides, #args)
                }

                #maps
            }
        }
    }

    /// What is the same for all calls.
    fn configurable(&self) -> TokenStream {
        let (p, ident, def) = (self.root.path(), &self.function.item.sig.ident, &self.names.def);
        quote! {
            impl #p::Configurable for #ident {
                const DEF: &'static #p::Def = &#def;
                fn overrides(&mut self) -> &mut #p::Overrides { &mut self.__overrides }
            }
        }
    }

    /// The runtime's function for such a call.
    fn way_in(&self, how: &str) -> Ident {
        Ident::new(&format!("{how}_{}", self.function.kind.attribute()), Span::call_site())
    }

    /// What lets tests put a fake in the function's place, and what says whether an error that it gives is retried.
    fn replaceable(&self) -> Option<TokenStream> {
        if self.function.is_generic() {
            return None;
        }
        let (p, ident) = (self.root.path(), &self.function.item.sig.ident);
        let (args, succeeds) = (self.types_of_args(), self.success());
        let fails = if self.function.output.is_result {
            let (span, p) = (self.function.output.span, self.root.at(self.function.output.span));
            let declared = &self.names.declared;
            quote_spanned!(generated(span)=> <#declared as #p::Fallible>::Error)
        } else {
            quote!(#p::Infallible)
        };
        let retries = self.options.retry_if.as_ref().filter(|_| self.function.output.is_result).map(|path| {
            let error = variable("error", Span::call_site());
            quote! {
                fn retries(#error: &dyn ::core::any::Any) -> bool {
                    #p::retries::<#fails>(#error, #path)
                }
            }
        });
        Some(quote! {
            impl #p::Function<#args, #succeeds, #fails> for #ident { #retries }
        })
    }

    /// The way into a flow for those who know nothing of its types.
    fn entry(&self) -> Option<TokenStream> {
        let Function { kind, params, output, .. } = self.function;
        if *kind == Kind::Task || self.function.is_generic() {
            return None;
        }
        let (p, at, succeeds) = (self.root.path(), self.root.at(output.span), self.success());
        let [reader, args] = ["reader", "args"].map(|name| variable(name, Span::call_site()));
        let read = params.iter().map(|Param { name, ty, written, span, skipped, .. }| {
            let at = self.root.at(*span);
            if *skipped {
                quote!(#reader.skipped(#name, #written))
            } else {
                quote!(#reader.arg(#name, #written, (&&&#at::Probe::<#ty>::NEW).decoder()))
            }
        });
        let indices = (0..params.len()).map(Index::from);
        // With all of them gone over before the first that is missing is noticed.
        let body = if params.is_empty() {
            quote!(#p::Some(()))
        } else {
            quote! {
                let #args = (#(#read,)*);
                #p::Some((#(#args.#indices?,)*))
            }
        };
        let output = if output.has_references {
            quote!(#p::Encoding::LeftOut)
        } else {
            quote!(#at::Probe::<#succeeds>::ENCODING)
        };
        Some(quote!(.entry(|#reader| { #body }, #output)))
    }

    fn registered(&self) -> Option<TokenStream> {
        if self.function.is_generic() {
            return None;
        }
        let (p, ident, def) = (self.root.path(), self.function.ident(), &self.names.def);
        let registered = match self.function.kind {
            Kind::Task => quote!(task(&#def)),
            Kind::Flow => quote!(flow(#ident::__FUNCTION)),
        };
        Some(quote!(#p::inventory::submit! { #p::Registered::#registered }))
    }

    /// The parameters whose arguments belong to the cache key or the record, with their places in the tuple.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (Index, &Param)> {
        let params = self.function.params.iter().enumerate();
        params.filter(|(_, param)| !param.skipped).map(|(index, param)| (Index::from(index), param))
    }

    /// The type of the result on success, in the block.
    pub(crate) fn success(&self) -> Tokens {
        let output = &self.function.output;
        if self.function.is_generic() {
            self.written_success(&self.root, &output.declared)
        } else {
            let mut name = self.names.output.clone();
            name.set_span(generated(output.span));
            quote!(#name).into()
        }
    }

    /// The same, where it has no name.
    pub(crate) fn written_success(&self, root: &Root, declared: &impl ToTokens) -> Tokens {
        let output = &self.function.output;
        if output.is_result {
            let p = root.at(output.span);
            quote_spanned!(generated(output.span)=> <#declared as #p::Fallible>::Ok).into()
        } else {
            declared.to_token_stream().into()
        }
    }

    fn future(&self, root: &Root, succeeds: &Tokens) -> TokenStream {
        let span = self.function.output.span;
        let p = root.at(span);
        match self.function.kind {
            Kind::Task => quote_spanned!(generated(span)=> #p::TaskFuture<#succeeds>),
            Kind::Flow => quote_spanned!(generated(span)=> #p::FlowFuture<#succeeds>),
        }
    }

    /// The parameters, each of a type that the trait `accepts` describes.
    fn inputs(&self, root: &Root, accepts: &str) -> TokenStream {
        let inputs = self.function.params.iter().map(|Param { ident, ty, span, .. }| {
            let (p, accepts) = (root.at(*span), Ident::new(accepts, generated(*span)));
            quote_spanned!(generated(*span)=> #ident: impl #p::#accepts<#ty>)
        });
        quote!(#(#inputs),*)
    }

    /// The arguments as passed, as a tuple.
    fn args(&self) -> TokenStream {
        let args = self.function.params.iter().map(|param| &param.ident);
        quote!((#(#args,)*))
    }

    /// The arguments in the form in which runs hold them, in the block.
    fn types_of_args(&self) -> TokenStream {
        if self.function.is_generic() {
            self.written_args()
        } else {
            let mut name = self.names.args.clone();
            name.set_span(generated(self.function.ident().span()));
            quote!(#name)
        }
    }

    /// The same, where they have no name.
    fn written_args(&self) -> TokenStream {
        let carriers = self.function.params.iter().map(|param| self.carrier(param));
        quote_spanned!(generated(self.function.ident().span())=> (#(#carriers,)*))
    }

    fn carrier(&self, param: &Param) -> TokenStream {
        let (p, ty) = (self.root.at(param.span), &param.ty);
        match param.passing {
            Passing::Reference => quote_spanned!(generated(param.span)=> #p::Ref<#ty>),
            Passing::Value => quote_spanned!(generated(param.span)=> #p::Own<#ty>),
        }
    }
}

/// The lint for a future that nobody takes.
fn must_use(text: &str) -> TokenStream {
    quote!(#[must_use = #text])
}

const ONE: &str =
    "the run goes on, but nobody learns of its outcome: await it, pass it on, or `.tolerate()` its failure";
const MANY: &str =
    "the runs go on, but nobody learns of their outcome: await them, pass them on, or `.tolerate()` their failures";

/// The name that an argument has in our code, whatever the user called the parameter.
fn argument((index, param): (usize, &Param)) -> Ident {
    variable(&format!("arg{index}"), param.span)
}
