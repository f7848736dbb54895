//! The user's function, first as it is written ([`Item`]), then as a task or flow ([`Function`]).

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericParam, Generics, Ident, Lit, Meta, Pat, PatType, Result, ReturnType,
    Signature, Token, Type, TypeReference, Visibility, WherePredicate,
};

use crate::root::Tokens;

/// Which attribute stands on the function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Task,
    Flow,
}

impl Kind {
    pub(crate) const fn attribute(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Flow => "flow",
        }
    }
}

/// A function whose body has not been looked at: what is wrong in there is for the compiler to say.
pub(crate) struct Item {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    /// With its braces.
    pub(crate) body: TokenTree,
}

/// What stands before a body.
struct Head {
    attrs: Vec<Attribute>,
    vis: Visibility,
    sig: Signature,
}

impl Item {
    /// The body is taken off first: the parser would look at each of its tokens.
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut trees: Vec<TokenTree> = tokens.into_iter().collect();
        let is_body =
            |tree: &mut TokenTree| matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        let body = trees.pop_if(is_body);
        let end = trees.last().map_or_else(Span::call_site, TokenTree::span);
        let Head { attrs, vis, sig } = syn::parse2(trees.into_iter().collect())?;
        let body = body.ok_or_else(|| Error::new(end, "this function has no body"))?;
        Ok(Self { attrs, vis, sig, body })
    }
}

impl Parse for Head {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let sig =
            input.parse().map_err(|error| Error::new(error.span(), format!("this is not a function: {error}")))?;
        input.parse::<Option<Token![;]>>()?;
        Ok(Self { attrs, vis, sig })
    }
}

impl ToTokens for Item {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { attrs, vis, sig, body } = self;
        tokens.extend(quote!(#(#attrs)* #vis #sig #body));
    }
}

/// A function that can be a task or a flow.
pub(crate) struct Function {
    pub(crate) kind: Kind,
    pub(crate) attrs: Attributes,
    pub(crate) item: Item,
    pub(crate) signature: Written,
    pub(crate) vis: Tokens,
    /// The same with spans of ours.
    pub(crate) generated_vis: Tokens,
    /// Those of the function without its lifetimes, which end with the borrow of an argument.
    pub(crate) generics: Generics,
    pub(crate) params: Vec<Param>,
    pub(crate) output: Output,
}

impl Function {
    /// `skipped` says for each parameter whether its argument is left out of the key or the record.
    pub(crate) fn new(kind: Kind, mut item: Item, skipped: &[bool]) -> Self {
        let attrs = Attributes::sort(std::mem::take(&mut item.attrs));
        let params = typed(&item.sig)
            .zip(skipped)
            .enumerate()
            .map(|(index, (param, skipped))| Param::new(index, param, *skipped))
            .collect();
        let output = Output::new(&item.sig);
        let generics = without_lifetimes(&item.sig.generics);
        let (signature, vis) = (Written::new(&item.sig), Tokens::from(item.vis.to_token_stream()));
        let generated_vis = vis.clone().map_spans(generated);
        Self { kind, attrs, item, signature, vis, generated_vis, generics, params, output }
    }

    pub(crate) fn ident(&self) -> &Ident {
        &self.item.sig.ident
    }

    pub(crate) fn is_generic(&self) -> bool {
        !self.generics.params.is_empty()
    }
}

/// A signature as tokens.
pub(crate) struct Written(Vec<TokenTree>);

impl Written {
    pub(crate) fn new(sig: &Signature) -> Self {
        Self(sig.to_token_stream().into_iter().collect())
    }

    pub(crate) fn trees(&self) -> &[TokenTree] {
        &self.0
    }

    /// The same of a function with another name.
    pub(crate) fn named(&self, name: &str) -> Vec<TokenTree> {
        let mut trees = self.0.clone();
        let is_fn = |tree: &TokenTree| matches!(tree, TokenTree::Ident(ident) if ident == "fn");
        let named = trees.iter().position(is_fn).and_then(|index| trees.get_mut(index + 1));
        if let Some(ident) = named {
            *ident = Ident::new(name, generated(ident.span())).into();
        }
        trees
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().cloned().collect::<TokenStream>().fmt(f)
    }
}

/// The parameters with a type, which all are but `self`.
pub(crate) fn typed(sig: &Signature) -> impl Iterator<Item = &PatType> {
    sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(param) => Some(param),
        FnArg::Receiver(_) => None,
    })
}

fn without_lifetimes(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    generics.params = generics.params.into_iter().filter(|param| !matches!(param, GenericParam::Lifetime(_))).collect();
    if let Some(clause) = &mut generics.where_clause {
        let kept: Punctuated<_, Token![,]> = std::mem::take(&mut clause.predicates)
            .into_iter()
            .filter(|predicate| !matches!(predicate, WherePredicate::Lifetime(_)))
            .collect();
        clause.predicates = kept;
    }
    generics
}

/// One parameter as callers of the task see it.
pub(crate) struct Param {
    /// The user's name, or `arg0` where there is a pattern.
    pub(crate) ident: Ident,
    pub(crate) name: String,
    pub(crate) passing: Passing,
    /// The type that is held for the body: `Vec<T>` for `&[T]`.
    pub(crate) ty: Tokens,
    pub(crate) span: Span,
    /// Not part of the cache key or the record.
    pub(crate) skipped: bool,
}

/// How the body takes an argument.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    Reference,
    Value,
}

impl Param {
    fn new(index: usize, param: &PatType, skipped: bool) -> Self {
        let ident = if let Pat::Ident(pattern) = &*param.pat {
            pattern.ident.clone()
        } else {
            Ident::new(&format!("arg{index}"), param.pat.span())
        };
        let (passing, ty) = if let Type::Reference(TypeReference { elem, .. }) = peeled(&param.ty) {
            (Passing::Reference, owned(elem))
        } else {
            (Passing::Value, param.ty.to_token_stream())
        };
        Self { name: ident.unraw().to_string(), ident, passing, ty: ty.into(), span: param.ty.span(), skipped }
    }
}

/// A type without the parentheses and invisible groups around it.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other type stands for itself, whatever syn adds")]
pub(crate) fn peeled(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peeled(&group.elem),
        Type::Paren(paren) => peeled(&paren.elem),
        ty => ty,
    }
}

/// The sized type whose value lends a `&ty`.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other type is sized, or the compiler says that it is not")]
fn owned(ty: &Type) -> TokenStream {
    let span = generated(ty.span());
    match peeled(ty) {
        Type::Slice(slice) => {
            let elem = &slice.elem;
            quote_spanned!(span=> ::std::vec::Vec<#elem>)
        }
        Type::Path(path) if path.path.is_ident("str") => quote_spanned!(span=> ::std::string::String),
        Type::Path(path)
            if path.path.segments.last().is_some_and(|last| last.ident == "Path" && last.arguments.is_none()) =>
        {
            quote_spanned!(span=> ::std::path::PathBuf)
        }
        ty => ty.to_token_stream(),
    }
}

/// The type of a parameter as a person would write it, without the reference in front: tokens alone are printed with spaces
/// between them.
pub(crate) fn written(param: &PatType) -> String {
    let ty = peeled(&param.ty);
    let ty = if let Type::Reference(TypeReference { elem, .. }) = ty { peeled(elem) } else { ty };
    let mut text = ty.to_token_stream().to_string();
    for (spaced, close) in
        [(" :: ", "::"), (":: ", "::"), (" <", "<"), ("< ", "<"), (" >", ">"), (" ,", ","), ("& ", "&")]
    {
        text = text.replace(spaced, close);
    }
    text
}

/// What the function returns.
pub(crate) struct Output {
    pub(crate) declared: Tokens,
    pub(crate) span: Span,
    /// Whether the type's name ends in `Result`.
    pub(crate) is_result: bool,
    /// Whether there is a `&'static` in it. The compiler finds `&str` to be `Deserialize` only to refuse it later, so the
    /// question must not be asked of such types.
    pub(crate) has_references: bool,
}

impl Output {
    fn new(sig: &Signature) -> Self {
        match &sig.output {
            ReturnType::Default => {
                Self { declared: quote!(()).into(), span: sig.ident.span(), is_result: false, has_references: false }
            }
            ReturnType::Type(_, ty) => {
                let last = if let Type::Path(path) = peeled(ty) { path.path.segments.last() } else { None };
                let is_result = last.is_some_and(|segment| segment.ident.to_string().ends_with("Result"));
                let mut references = References(false);
                references.visit_type(ty);
                Self { declared: ty.to_token_stream().into(), span: ty.span(), is_result, has_references: references.0 }
            }
        }
    }
}

struct References(bool);

impl<'ast> Visit<'ast> for References {
    fn visit_type_reference(&mut self, _: &'ast TypeReference) {
        self.0 = true;
    }
}

/// The function's attributes, by where they go.
#[derive(Default)]
pub(crate) struct Attributes {
    /// To all items.
    pub(crate) cfg: Vec<Attribute>,
    /// To the items that users see.
    pub(crate) docs: Vec<Attribute>,
    /// To the function that replaces the user's.
    pub(crate) outer: Vec<Attribute>,
    /// To the function as it was written.
    pub(crate) body: Vec<Attribute>,
}

impl Attributes {
    fn sort(attrs: Vec<Attribute>) -> Self {
        let mut sorted = Self::default();
        for attr in attrs {
            let name = attr.path().get_ident().map(ToString::to_string).unwrap_or_default();
            match name.as_str() {
                "cfg" => sorted.cfg.push(attr),
                "doc" => sorted.docs.push(attr),
                "deprecated" | "must_use" => sorted.outer.push(attr),
                "allow" => {
                    sorted.outer.push(attr.clone());
                    sorted.body.push(attr);
                }
                _ => sorted.body.push(attr),
            }
        }
        sorted
    }

    /// The doc comment as plain text.
    pub(crate) fn description(&self) -> String {
        let lines: Vec<String> = self.docs.iter().filter_map(doc_line).flat_map(lines).collect();
        lines.join("\n").trim().to_owned()
    }
}

fn doc_line(attr: &Attribute) -> Option<String> {
    if let Meta::NameValue(meta) = &attr.meta
        && meta.path.is_ident("doc")
        && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value
    {
        return Some(text.value());
    }
    None
}

/// A block comment is one attribute with many lines.
fn lines(text: String) -> Vec<String> {
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned()).collect()
}

/// A span at the user's code whose names are ours: errors point there, lints know that nobody wrote it.
pub(crate) fn generated(span: Span) -> Span {
    Span::call_site().located_at(span)
}
