//! What `#[task]` and `#[flow]` put in the place of a function.
//!
//! The expansion names only the runtime's private module, and has no branch of its own: everything that happens in a run is
//! in the runtime. What nobody but the runtime names stands in one block, in which a short name means that module and others
//! mean the types of the arguments and of the result: each token and each path that is written costs time in each build.
//! Tokens that can fail to compile because of the user's types carry the span of those types.

use proc_macro2::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, Index, LitStr, Path};

use crate::args;
use crate::checks;
use crate::code::{At, Code};
use crate::def;
use crate::hooks;
use crate::mistakes::Mistakes;
use crate::model::{self, Function, Item, Kind, Param, Passing, generated};
use crate::names::{Names, variable};
use crate::options::{Options, ROWS};
use crate::root::{Root, Tokens};
use crate::template;
use crate::validate::{self, Unusable};

/// Expands the attribute `kind` with the options `attr` on `item`.
pub(crate) fn expand(kind: Kind, attr: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let written = attr.to_string();
    let mut options = args::read(attr, ROWS, kind.attribute(), &mut mistakes);
    let Some(mut parsed) = mistakes.keep(Item::parse(item.clone())) else {
        let errors = mistakes.into_tokens();
        return quote!(#item #errors);
    };
    let skipped = validate::take_skips(&mut parsed.sig, kind, &mut mistakes);
    validate::attributes(&parsed.attrs, kind, &mut mistakes);
    if let Err(Unusable) = validate::signature(&parsed.sig, kind, &mut mistakes) {
        let errors = mistakes.into_tokens();
        return quote!(#parsed #errors);
    }
    let function = Function::new(kind, parsed, &skipped);
    let names = Names::new(&[written, function.signature.to_string()]);
    validate::options(&mut options, &function, &mut mistakes);
    let (outer, root) = (Root::new(options.krate.as_ref()), Root::in_block(&names.module));
    let mut code = Expansion { outer, root, names, options: &options, function: &function }.items();
    if !mistakes.is_empty() {
        code.stream(mistakes.into_tokens());
    }
    code.finish()
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
    fn items(&self) -> Code {
        let mut code = Code::default();
        let cfg = &self.function.attrs.cfg;
        write(&mut code, cfg);
        self.handle(&mut code);
        write(&mut code, cfg);
        self.call_function(&mut code);
        write(&mut code, cfg);
        self.as_written(&mut code);
        write(&mut code, cfg);
        self.block(&mut code);
        if let Some(check) = checks::hidden_result(self) {
            write(&mut code, cfg);
            code.stream(check);
        }
        code
    }

    /// What is reached by way of the struct, or not at all.
    fn block(&self, code: &mut Code) {
        let Names { module: p, def, .. } = &self.names;
        let ident = self.function.ident();
        let mut block = Code::default();
        block.text("use").root(&self.outer).text(&format!("as {p}; use {p}::probes::*;"));
        self.types(&mut block);
        // Two functions are two addresses, which a constant does not have.
        block.text(&format!("static {def}: {p}::Def ="));
        def::def(&mut block, &self.root, self.options, self.function);
        block.text(&format!("; impl {ident}")).group(Delimiter::Brace, self.methods());
        // What is the same for all calls.
        block.text(&format!(
            "impl {p}::Configurable for {ident} {{
                const DEF: &'static {p}::Def = &{def};
            }}"
        ));
        if !self.function.is_generic() {
            self.replaceable(&mut block);
            let registered = match self.function.kind {
                Kind::Task => format!("task(&{def})"),
                Kind::Flow => format!("flow({ident}::__FUNCTION)"),
            };
            block.text(&format!("{p}::inventory::submit! {{ {p}::Registered::{registered} }}"));
        }
        code.text("const _: () =").group(Delimiter::Brace, block).text(";");
    }

    /// Names for the types that are written most often, where they are the same for all calls.
    fn types(&self, code: &mut Code) {
        if self.function.is_generic() {
            return;
        }
        let (output, names) = (&self.function.output, &self.names);
        if output.is_result {
            code.text(&format!("type {} =", names.declared)).trees(output.declared.trees());
            code.text(&format!("; type {} =", names.output));
            self.of_declared(&mut code.at(generated(output.span)), "Ok");
        } else {
            code.text(&format!("type {} =", names.output)).trees(output.declared.trees());
        }
        code.text(&format!("; type {} =", names.args)).trees(self.written_args().trees()).text(";");
    }

    /// `Ok` or `Error` of the return type, which is a `Result`.
    fn of_declared(&self, at: &mut At<'_>, what: &str) {
        let declared = &self.names.declared;
        at.sign('<').word(declared).word("as").path(&self.root, &["Fallible"]).sign('>').colons().word(what);
    }

    /// The struct of the function's name: what `configure()` makes.
    fn handle(&self, code: &mut Code) {
        let Function { attrs, generated_vis, kind, .. } = self.function;
        let ident = self.function.ident();
        write(code, &attrs.docs);
        if attrs.docs.is_empty() {
            code.text(&format!("#[doc = \"The {} `{ident}`.\"]", kind.attribute()));
        }
        // With spans of ours lints know that nobody wrote it, and each that is allowed by an attribute costs time.
        let mut name = ident.clone();
        name.set_span(generated(ident.span()));
        code.trees(generated_vis.trees()).tree(Ident::new("struct", Span::call_site())).tree(name).text("{}");
    }

    /// The function of the function's name: a call submits.
    fn call_function(&self, code: &mut Code) {
        let Function { attrs, item, generics, vis, .. } = self.function;
        let (impl_generics, _, clause) = generics.split_for_impl();
        write(code, &attrs.docs);
        write(code, &attrs.outer);
        // Not at the future's type: `notify(x).tolerate();` is a statement, and gives the future back.
        if !attrs.outer.iter().any(|attr| attr.path().is_ident("must_use")) {
            code.text(MUST_USE_ONE);
        }
        // A call is a call: flows that call hundreds of tasks stay small, and what the constant refers to is compiled once
        // and not in each part of the program in which there is a call.
        code.text("#[inline(never)] #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery)]");
        // The keyword and the braces are the user's: without them the compiler takes the function for ours and does not
        // say that nobody calls it.
        let ident = &item.sig.ident;
        code.trees(vis.trees()).tree(Ident::new("fn", item.sig.fn_token.span)).tree(ident.clone());
        if self.function.is_generic() {
            code.stream(impl_generics.to_token_stream());
        }
        code.tree(Group::new(Delimiter::Parenthesis, self.inputs(&self.outer, "IntoInput").finish()));
        let span = generated(self.function.output.span);
        let succeeds = self.written_success(&self.outer, &self.function.output.declared);
        code.at(span).arrow().path(&self.outer, &[self.future()]).angled(&succeeds);
        if let Some(clause) = clause {
            code.stream(clause.to_token_stream());
        }
        let mut call = Code::default();
        call.tree(ident.clone());
        self.constant(&mut call, Span::call_site());
        call.at(Span::call_site()).sign(',');
        call.tree(self.args());
        let mut block = Code::default();
        let way_in = format!("call_{}", self.function.kind.attribute());
        block.at(Span::call_site()).path(&self.outer, &[&way_in]).group(Delimiter::Parenthesis, call);
        let mut block = Group::new(Delimiter::Brace, block.finish());
        block.set_span(item.body.span());
        code.tree(block);
    }

    /// What the runtime is given of the function: a constant, or in a generic one a function whose value is one.
    fn function(&self, code: &mut Code) {
        let Function { generics, params, output, .. } = self.function;
        let (p, def) = (&self.names.module, &self.names.def);
        let succeeds = self.success();
        let mut more = Code::default();
        if let Some(template) = &self.options.run_name {
            more.stream(self.run_name(template));
        }
        for stream in [self.cache_key(), self.entry()].into_iter().flatten() {
            more.stream(stream);
        }
        hooks::of_results(&mut more, self);

        let names: Vec<_> = params.iter().enumerate().map(argument).collect();
        let mut closure = Code::default();
        names.iter().for_each(|name| _ = closure.tree(name.clone()).at(name.span()).sign(','));
        let mut arguments = Code::default();
        arguments.text(&format!("&{def}, |"));
        let ours = Span::call_site();
        arguments.at(ours).group(Delimiter::Parenthesis, closure).sign('|');
        self.attempt(&mut arguments, &names);
        let mut encodings = Code::default();
        for Param { ty, span, skipped, .. } in params {
            if *skipped {
                encodings.text(&format!("{p}::Encoding::LeftOut,"));
            } else {
                let mut at = encodings.at(generated(*span));
                at.path(&self.root, &["Probe"]).colons().angled(ty).colons().word("ENCODING").sign(',');
            }
        }
        arguments.at(ours).sign(',').group(Delimiter::Parenthesis, encodings).sign(',');
        let of_type = if output.has_references { "Unstored" } else { "Probe" };
        let mut at = arguments.at(generated(output.span));
        at.path(&self.root, &[of_type]).colons().angled(&succeeds).colons().word("RESULT");

        let mut value = Code::default();
        checks::checks(&mut value, self);
        value.at(ours).sign('&').path(&self.root, &["Callable"]);
        // Methods that follow keep the type of the constant from being that of `new`.
        if !more.is_empty() {
            let args = self.types_of_args();
            let mut at = value.at(ours);
            at.colons().sign('<').as_they_are(args.trees()).sign(',').as_they_are(succeeds.trees()).sign('>');
        }
        value.at(ours).colons().word("new").group(Delimiter::Parenthesis, arguments);
        value.append(more);

        // What is wrong with the parameters as a whole is said at the function's name.
        let at_name = generated(self.function.ident().span());
        if self.function.is_generic() {
            let (impl_generics, _, clause) = generics.split_for_impl();
            code.text("#[inline] fn __function").stream(impl_generics.to_token_stream()).text("() ->");
            self.callable(code.at(at_name).sign('&').lifetime("static"));
            if let Some(clause) = clause {
                code.stream(clause.to_token_stream());
            }
            let mut body = Code::default();
            body.text("const").group(Delimiter::Brace, value);
            code.group(Delimiter::Brace, body);
        } else {
            code.text("const __FUNCTION:");
            self.callable(code.at(at_name).sign('&').lifetime("static"));
            code.at(ours).sign('=').group(Delimiter::Brace, value);
            code.text(";");
        }
    }

    fn callable(&self, at: &mut At<'_>) {
        let (args, succeeds) = (self.types_of_args(), self.success());
        at.path(&self.root, &["Callable"]);
        at.sign('<').as_they_are(args.trees()).sign(',').as_they_are(succeeds.trees()).sign('>');
    }

    /// The expression for it, behind the type's name.
    fn constant(&self, code: &mut Code, span: Span) {
        if self.function.is_generic() {
            let types = self.function.generics.split_for_impl().1;
            code.text("::__function").stream(types.as_turbofish().to_token_stream()).text("()");
        } else {
            code.at(span).colons().word("__FUNCTION");
        }
    }

    /// One execution of the user's function.
    fn attempt(&self, code: &mut Code, args: &[Ident]) {
        let Function { item, params, output, .. } = self.function;
        // What is not `Send` is said at the function's name; the notes then show what is held across which await.
        let span = generated(item.sig.ident.span());
        let mut body = Code::default();
        self.call_of_body(&mut body, args);
        let condition = self.options.retry_if.as_ref().filter(|_| output.is_result);
        if item.sig.asyncness.is_none() {
            return self.blocking(code, body, condition);
        }
        // A body that borrows from its arguments needs a future around both.
        if params.iter().any(|param| param.passing == Passing::Reference) {
            body.at(span).sign('.').word("await");
            let inner = std::mem::take(&mut body);
            body.at(span).word("async").word("move").group(Delimiter::Brace, inner);
        }
        if let Some(path) = condition {
            body.at(span).sign(',');
            body.stream(path.to_token_stream());
        }
        let from = match (output.is_result, condition) {
            (false, _) => "from_plain",
            (true, None) => "from_fallible",
            (true, Some(_)) => "from_retryable",
        };
        code.at(span).path(&self.root, &["Attempt", from]).group(Delimiter::Parenthesis, body);
    }

    /// The same of a sync function.
    fn blocking(&self, code: &mut Code, mut outcome: Code, condition: Option<&Path>) {
        let Function { item, output, .. } = self.function;
        let span = generated(item.sig.ident.span());
        if output.is_result {
            let mut at = outcome.at(span);
            at.sign(',').path(&self.root, &[if condition.is_some() { "Some" } else { "None" }]);
            if let Some(path) = condition {
                outcome.group(Delimiter::Parenthesis, Code::from(path.to_token_stream()));
            }
        }
        let mut closure = Code::default();
        closure.at(span).word("move").sign('|').sign('|');
        let function = if output.is_result { "fallible" } else { "plain" };
        let mut at = closure.at(generated(output.span));
        at.path(&self.root, &[function]).group(Delimiter::Parenthesis, outcome);
        code.at(span).path(&self.root, &["Attempt", "from_fn"]).group(Delimiter::Parenthesis, closure);
    }

    fn call_of_body(&self, code: &mut Code, args: &[Ident]) {
        let Function { item, params, generics, .. } = self.function;
        let mut passed = Code::default();
        for (param, arg) in params.iter().zip(args) {
            let how = match param.passing {
                Passing::Reference => "get",
                Passing::Value => "take",
            };
            passed.tree(arg.clone());
            let mut at = passed.at(generated(param.span));
            at.sign('.').word(how).group(Delimiter::Parenthesis, Code::default()).sign(',');
        }
        let span = generated(item.sig.ident.span());
        code.tree(item.sig.ident.clone()).at(span).colons().word("body");
        if self.function.is_generic() {
            code.stream(generics.split_for_impl().1.as_turbofish().to_token_stream());
        }
        code.at(span).group(Delimiter::Parenthesis, passed);
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
    fn as_written(&self, code: &mut Code) {
        let Function { attrs, item, vis, signature, .. } = self.function;
        let mut body = Code::default();
        body.text(
            "/// The function as it was written, without the runtime.
            #[allow(
                unreachable_pub, private_interfaces, private_bounds,
                clippy::missing_errors_doc, clippy::missing_panics_doc, clippy::must_use_candidate
            )]",
        );
        write(&mut body, &attrs.body);
        body.trees(vis.trees()).trees(&signature.named("body")).tree(item.body.clone());
        code.text("impl").tree(item.sig.ident.clone()).group(Delimiter::Brace, body);
    }

    /// What the runtime is given, `configure`, and for tasks `map`.
    fn methods(&self) -> Code {
        let Function { params, kind, generated_vis, generics, .. } = self.function;
        let (impl_generics, _, clause) = generics.split_for_impl();
        let p = &self.names.module;
        let mut code = Code::default();
        self.function(&mut code);
        let generic = |code: &mut Code| {
            if self.function.is_generic() {
                code.stream(impl_generics.to_token_stream());
            }
        };
        let bounded = |code: &mut Code| {
            if let Some(clause) = clause {
                code.stream(clause.to_token_stream());
            }
        };

        code.text("/// The same with options that are changed at the call.\n").trees(generated_vis.trees());
        code.text("fn configure");
        generic(&mut code);
        let of = match kind {
            Kind::Task => "OfTask",
            Kind::Flow => "OfFlow",
        };
        let at_name = generated(self.function.ident().span());
        let mut at = code.at(at_name);
        at.group(Delimiter::Parenthesis, Code::default()).arrow().path(&self.root, &["Configured"]);
        at.sign('<').path(&self.root, &[of]).sign(',');
        self.callable(&mut at);
        at.sign('>');
        bounded(&mut code);
        // At the name too: what is wrong with the parameters is then said once.
        let (mut block, mut constant) = (Code::default(), Code::default());
        constant.at(at_name).word("Self");
        self.constant(&mut constant, at_name);
        block.at(at_name).path(&self.root, &["Configured", "new"]).group(Delimiter::Parenthesis, constant);
        code.group(Delimiter::Brace, block);

        // A task without parameters has nothing to map over.
        if *kind == Kind::Task && !params.is_empty() {
            code.text(&format!(
                "/// Submits one run for each element of the arguments that are collections.
                {MUST_USE_MANY}"
            ));
            self.allow_for_parameters(&mut code);
            code.trees(generated_vis.trees()).text("fn map");
            generic(&mut code);
            code.group(Delimiter::Parenthesis, self.inputs(&self.root, "IntoMapInput"));
            code.text(&format!("-> {p}::MapFuture<")).trees(self.success().trees()).text(">");
            bounded(&mut code);
            let (mut block, mut call) = (Code::default(), Code::default());
            call.text("Self");
            self.constant(&mut call, Span::call_site());
            call.at(Span::call_site()).sign(',');
            call.tree(self.args());
            block.text(&format!("{p}::call_map")).group(Delimiter::Parenthesis, call);
            code.group(Delimiter::Brace, block);
        }
        code
    }

    /// For lints of clippy's about parameters, which go by the user's function and not by ours. Each that is named costs time in
    /// each build.
    fn allow_for_parameters(&self, code: &mut Code) {
        // As many as clippy takes for enough if nobody says otherwise.
        const ENOUGH: usize = 7;
        let params = &self.function.params;
        if params.len() > ENOUGH {
            code.text("#[allow(clippy::too_many_arguments)]");
        }
        if params.iter().any(|param| param.name.starts_with('_')) {
            code.text("#[allow(clippy::used_underscore_binding)]");
        }
    }

    /// What lets tests put a fake in the function's place, and what says whether an error that it gives is retried.
    fn replaceable(&self, code: &mut Code) {
        let (Names { module: p, args, output, .. }, span) = (&self.names, generated(self.function.output.span));
        let is_result = self.function.output.is_result;
        let fails = |code: &mut Code| {
            if is_result {
                self.of_declared(&mut code.at(span), "Error");
            } else {
                code.text(&format!("{p}::Infallible"));
            }
        };
        code.text(&format!("impl {p}::Function<{args}, {output},"));
        fails(code);
        code.text(&format!("> for {}", self.function.ident()));
        let mut methods = Code::default();
        if let Some(path) = self.options.retry_if.as_ref().filter(|_| is_result) {
            methods.text("fn retries(__error: &dyn ::core::any::Any) -> bool");
            let mut body = Code::default();
            body.text(&format!("{p}::retries::<"));
            fails(&mut body);
            let mut arguments = Code::default();
            arguments.text("__error,").stream(path.to_token_stream());
            body.text(">").group(Delimiter::Parenthesis, arguments);
            methods.group(Delimiter::Brace, body);
        }
        code.group(Delimiter::Brace, methods);
    }

    /// The way into a flow for those who know nothing of its types.
    fn entry(&self) -> Option<TokenStream> {
        let Function { kind, item, params, output, .. } = self.function;
        if *kind == Kind::Task || self.function.is_generic() {
            return None;
        }
        let (p, at, succeeds) = (self.root.path(), self.root.at(output.span), self.success());
        let [reader, args] = ["reader", "args"].map(|name| variable(name, Span::call_site()));
        let types = model::typed(&item.sig);
        let read = params.iter().zip(types).map(|(Param { name, ty, span, skipped, .. }, declared)| {
            let written = model::written(declared);
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
            Ident::new(&self.names.output, generated(output.span)).into()
        }
    }

    /// The same, where it has no name.
    pub(crate) fn written_success(&self, root: &Root, declared: &Tokens) -> Tokens {
        let output = &self.function.output;
        if output.is_result {
            let mut trees = Vec::new();
            let mut at = At::new(&mut trees, generated(output.span));
            at.sign('<').as_they_are(declared.trees()).word("as").path(root, &["Fallible"]).sign('>');
            at.colons().word("Ok");
            trees.into()
        } else {
            declared.clone()
        }
    }

    fn future(&self) -> &'static str {
        match self.function.kind {
            Kind::Task => "TaskFuture",
            Kind::Flow => "FlowFuture",
        }
    }

    /// The parameters, each of a type that the trait `accepts` describes.
    fn inputs(&self, root: &Root, accepts: &str) -> Code {
        let mut code = Code::default();
        for Param { ident, ty, span, .. } in &self.function.params {
            code.tree(ident.clone());
            let mut at = code.at(generated(*span));
            at.sign(':').word("impl").path(root, &[accepts]).angled(ty).sign(',');
        }
        code
    }

    /// The arguments as passed, as a tuple.
    fn args(&self) -> Group {
        let mut args = Vec::new();
        for param in &self.function.params {
            args.push(TokenTree::from(param.ident.clone()));
            args.push(Punct::new(',', Spacing::Alone).into());
        }
        Group::new(Delimiter::Parenthesis, args.into_iter().collect())
    }

    /// The arguments in the form in which runs hold them, in the block.
    fn types_of_args(&self) -> Tokens {
        if self.function.is_generic() {
            self.written_args()
        } else {
            Ident::new(&self.names.args, generated(self.function.ident().span())).into()
        }
    }

    /// The same, where they have no name.
    fn written_args(&self) -> Tokens {
        let mut carriers = Code::default();
        for Param { passing, ty, span, .. } in &self.function.params {
            let carrier = match passing {
                Passing::Reference => "Ref",
                Passing::Value => "Own",
            };
            carriers.at(generated(*span)).path(&self.root, &[carrier]).angled(ty).sign(',');
        }
        let mut trees = Vec::new();
        At::new(&mut trees, generated(self.function.ident().span())).group(Delimiter::Parenthesis, carriers);
        trees.into()
    }
}

/// Attributes of the user's.
fn write(code: &mut Code, attrs: &[Attribute]) {
    attrs.iter().for_each(|attr| _ = code.stream(attr.to_token_stream()));
}

/// The lints for futures that nobody takes.
const MUST_USE_ONE: &str = r#"#[must_use = "the run goes on, but nobody learns of its outcome: await it, pass it on, or `.tolerate()` its failure"]"#;
const MUST_USE_MANY: &str = r#"#[must_use = "the runs go on, but nobody learns of their outcome: await them, pass them on, or `.tolerate()` their failures"]"#;

/// The name that an argument has in our code, whatever the user called the parameter.
fn argument((index, param): (usize, &Param)) -> Ident {
    variable(&format!("arg{index}"), param.span)
}
