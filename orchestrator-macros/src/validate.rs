//! What makes a function unfit to be a task or flow, or an option unfit for the function.
//!
//! Checks that need types are not made here: the expansion asks the compiler, with the user's spans.

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    Attribute, FnArg, Generics, Ident, Lifetime, Meta, PatType, Path, ReturnType, Safety, Signature, Type,
    TypeImplTrait, TypeReference,
};

use crate::mistakes::Mistakes;
use crate::model::{self, Function, Kind};
use crate::options::Options;
use crate::{suggest, template};

/// The longest tuple that the runtime takes.
const MOST_PARAMETERS: usize = 16;

/// Names that parameters cannot have, because a call takes options of these names.
const RESERVED: [&str; 2] = ["wait_for", "return_state"];

/// A signature that cannot be expanded; the mistakes say why.
pub(crate) struct Unusable;

/// Checks the signature. What is reported without [`Unusable`] does not keep the function from being expanded.
pub(crate) fn signature(sig: &Signature, kind: Kind, mistakes: &mut Mistakes) -> Result<(), Unusable> {
    let mut check = Check { kind, lifetimes: declared(&sig.generics), place: Place::Bound, usable: true, mistakes };
    check.qualifiers(sig);
    check.visit_generics(&sig.generics);
    check.parameters(sig);
    if let ReturnType::Type(_, ty) = &sig.output {
        check.output(ty);
    }
    if check.usable { Ok(()) } else { Err(Unusable) }
}

/// Takes `#[cache(skip)]` or `#[param(skip)]` off the parameters, and says for each whether it was there.
pub(crate) fn take_skips(sig: &mut Signature, kind: Kind, mistakes: &mut Mistakes) -> Vec<bool> {
    let mut skips = Vec::new();
    for input in &mut sig.inputs {
        let FnArg::Typed(PatType { attrs, .. }) = input else { continue };
        let mut skip = false;
        attrs.retain(|attr| {
            let ours = attr.path().is_ident("cache") || attr.path().is_ident("param");
            if ours {
                skip |= is_skip(attr, kind, mistakes);
            }
            !ours
        });
        skips.push(skip);
    }
    skips
}

fn is_skip(attr: &Attribute, kind: Kind, mistakes: &mut Mistakes) -> bool {
    let right = match kind {
        Kind::Task => "#[cache(skip)]",
        Kind::Flow => "#[param(skip)]",
    };
    let fits = attr.path().is_ident(if kind == Kind::Task { "cache" } else { "param" });
    let skips = matches!(&attr.meta, Meta::List(list) if list.tokens.to_string() == "skip");
    if !fits {
        let other = if kind == Kind::Task { "flow" } else { "task" };
        mistakes
            .on(attr, format!("this is for parameters of #[{other}]; in a #[{}] write `{right}`", kind.attribute()));
    } else if !skips {
        mistakes.on(attr, format!("write `{right}`"));
    }
    fits && skips
}

/// Checks the options against the function, and drops those that do not fit.
pub(crate) fn options(options: &mut Options, function: &Function, mistakes: &mut Mistakes) {
    let names: Vec<&str> = function.params.iter().map(|param| param.name.as_str()).collect();
    if let Some(path) = options.retry_if.take_if(|_| !function.output.is_result) {
        mistakes.on(path, "`retry_if` looks at errors, and this function returns no `Result`");
    }
    if let Some(run_name) = &options.run_name
        && let Err(error) = template::fields(run_name, &names)
    {
        mistakes.push(error);
        options.run_name = None;
    }
    if let (Some((span, _)), None) = (options.crash_budget, &options.on_crash) {
        mistakes.at(span, "a budget is for runs that go on by themselves: write `on_crash = \"resume\"` as well");
    }
    let skipped = function.params.iter().find(|param| param.skipped);
    if let Some(resume) = options.on_crash.take_if(|_| function.is_generic() || skipped.is_some()) {
        let why = match skipped {
            Some(param) => format!("its parameter `{}` is not on record", param.name),
            None => "a flow with type parameters is not known by name".to_owned(),
        };
        mistakes.at(resume.span(), format!("runs of this flow cannot go on by themselves: {why}"));
    }
    if let Some(policy) = &mut options.cache_policy {
        policy.exclude.retain(|argument| {
            let typed = argument.value();
            let known = names.contains(&typed.as_str());
            if !known {
                let hint = match suggest::nearest(&typed, names.iter().copied()) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("the parameters are {}", suggest::list(names.iter().copied())),
                };
                mistakes.at(argument.span(), format!("there is no parameter `{typed}`; {hint}"));
            }
            known
        });
    }
}

fn declared(generics: &Generics) -> Vec<Ident> {
    generics.lifetimes().map(|param| param.lifetime.ident.clone()).collect()
}

/// Where a type stands, for the wording.
#[derive(Clone, Copy)]
enum Place {
    Bound,
    Parameter,
    Output,
}

struct Check<'m> {
    kind: Kind,
    /// Those that the function declares.
    lifetimes: Vec<Ident>,
    place: Place,
    usable: bool,
    mistakes: &'m mut Mistakes,
}

impl Check<'_> {
    fn unusable(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.usable = false;
        self.mistakes.on(tokens, message);
    }

    fn qualifiers(&mut self, sig: &Signature) {
        let kind = self.kind.attribute();
        if let Some(token) = &sig.constness {
            self.unusable(token, format!("a {kind} cannot be `const`: it runs in the orchestrator"));
        }
        if let Safety::Unsafe(token) = &sig.safety {
            self.unusable(token, format!("a {kind} cannot be `unsafe`: the orchestrator calls it from safe code"));
        }
        if let Some(abi) = &sig.abi {
            self.unusable(abi, format!("a {kind} cannot be `extern`: it is called from Rust"));
        }
        if let Some(variadic) = &sig.variadic {
            self.unusable(variadic, format!("a {kind} cannot be variadic: take a `Vec`"));
        }
    }

    fn parameters(&mut self, sig: &Signature) {
        self.place = Place::Parameter;
        let kind = self.kind.attribute();
        if let Some(receiver) = sig.receiver() {
            self.unusable(
                receiver,
                format!("a method cannot be a {kind}: write a free function that takes the value as a parameter"),
            );
        }
        for param in model::typed(sig) {
            self.parameter(param);
        }
        if let Some(param) = model::typed(sig).nth(MOST_PARAMETERS) {
            let message =
                format!("a {kind} takes at most {MOST_PARAMETERS} parameters: put some of them into a struct");
            self.unusable(param, message);
        }
    }

    fn parameter(&mut self, param: &PatType) {
        if let Some(attr) = param.attrs.iter().find(|attr| attr.path().is_ident("cfg")) {
            self.unusable(attr, "a parameter cannot be conditional here: put `#[cfg]` on the function");
        }
        if let syn::Pat::Ident(pattern) = &*param.pat
            && let Some(name) = RESERVED.iter().find(|name| pattern.ident == **name)
        {
            self.mistakes.at(
                pattern.ident.span(),
                format!("`{name}` is an option of the call: give the parameter another name"),
            );
        }
        let Type::Reference(reference) = model::peeled(&param.ty) else {
            self.visit_type(&param.ty);
            return;
        };
        if reference.mutability.is_some() {
            let message =
                "an argument is shared with other runs: take it by value, with `mut` before its name, or as `&T`";
            self.unusable(reference, message);
            return;
        }
        if let Some(lifetime) = reference.lifetime.as_ref().filter(|lifetime| lifetime.ident == "static") {
            self.unusable(lifetime, "an argument is borrowed for the time of one attempt: leave out `'static`");
        }
        if let Type::TraitObject(object) = model::peeled(&reference.elem) {
            self.unusable(object, "a value of this type has no known size: take `&Box<dyn ..>` or `&Arc<dyn ..>`");
            return;
        }
        self.visit_type(&reference.elem);
    }

    fn output(&mut self, ty: &Type) {
        self.place = Place::Output;
        if let Type::Never(_) = ty {
            let kind = self.kind.attribute();
            self.unusable(ty, format!("a {kind} that never returns has no result: return `()`"));
        }
        self.visit_type(ty);
    }

    fn borrowed(&mut self, tokens: impl ToTokens) {
        let message = match self.place {
            Place::Bound => "arguments outlive the call, so their types have no lifetimes: leave it out",
            Place::Parameter => {
                "arguments outlive the call, so a type cannot borrow: take an owned type, such as `Vec<String>`, or a reference to one"
            }
            Place::Output => "a result outlives the body, so it cannot borrow: return an owned type, such as `String`",
        };
        self.unusable(tokens, message);
    }
}

impl<'ast> Visit<'ast> for Check<'_> {
    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident == "_" || self.lifetimes.contains(&lifetime.ident) {
            self.borrowed(lifetime);
        }
    }

    /// A lifetime may be declared, and outlive others.
    fn visit_lifetime_param(&mut self, _: &'ast syn::LifetimeParam) {}

    fn visit_predicate_lifetime(&mut self, _: &'ast syn::PredicateLifetime) {}

    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        match &reference.lifetime {
            Some(lifetime) if lifetime.ident == "static" => visit::visit_type_reference(self, reference),
            Some(_) | None => self.borrowed(reference),
        }
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        let message = match self.place {
            Place::Parameter | Place::Bound => {
                "the type of a parameter is named: write a generic parameter, `<T: ..>`, or the type"
            }
            Place::Output => "the type of a result is named: write the type itself, or `Box<dyn ..>`",
        };
        self.unusable(ty, message);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if let Some(segment) = path.segments.first().filter(|segment| segment.ident == "Self") {
            let message = format!("there is no `Self` in a {}: write the type's name", self.kind.attribute());
            self.unusable(&segment.ident, message);
        }
        visit::visit_path(self, path);
    }

    /// `fn(&T)` and `dyn Fn(&T)` borrow nothing.
    fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}

    fn visit_parenthesized_generic_arguments(&mut self, _: &'ast syn::ParenthesizedGenericArguments) {}
}

/// Reports attributes that cannot stand beside ours.
pub(crate) fn attributes(attrs: &[Attribute], kind: Kind, mistakes: &mut Mistakes) {
    let other = if kind == Kind::Task { "flow" } else { "task" };
    for attr in attrs {
        let last = attr.path().segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        if last == other {
            mistakes.on(attr, "a function is either a task or a flow");
        } else if last == kind.attribute() {
            mistakes.on(attr, format!("#[{last}] stands here twice"));
        }
    }
}
