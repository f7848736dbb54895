//! Rust on its way into an expansion.
//!
//! For a debug build cargo builds macros without optimisation, and each token that they make themselves, and each stream
//! that they copy into another, costs some thousand instructions in every build of the user's program. So what is ours is
//! written as text, which the compiler reads, and it is asked once for each group.

use proc_macro2::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

use crate::root::{Root, Tokens};

/// Text, which has the attribute's span, and tokens, which have spans of their own, in the order in which they are written.
#[derive(Default)]
pub(crate) struct Code {
    /// What is complete; behind it come the `trees`, or the `text`.
    parts: Vec<TokenStream>,
    trees: Vec<TokenTree>,
    text: String,
}

impl Code {
    /// Whole tokens, with all brackets closed.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.end_trees();
        self.text.push_str(text);
        self.text.push(' ');
        self
    }

    pub(crate) fn tree(&mut self, tree: impl Into<TokenTree>) -> &mut Self {
        self.end_text();
        self.trees.push(tree.into());
        self
    }

    pub(crate) fn trees(&mut self, trees: &[TokenTree]) -> &mut Self {
        self.end_text();
        self.trees.extend_from_slice(trees);
        self
    }

    pub(crate) fn stream(&mut self, stream: TokenStream) -> &mut Self {
        self.end_text();
        self.end_trees();
        self.parts.push(stream);
        self
    }

    /// The runtime's module.
    pub(crate) fn root(&mut self, root: &Root) -> &mut Self {
        match root.text() {
            Some(text) => self.text(text),
            None => self.trees(root.path().trees()),
        }
    }

    pub(crate) fn group(&mut self, delimiter: Delimiter, inner: Self) -> &mut Self {
        if inner.parts.is_empty() && inner.trees.is_empty() {
            let (open, close) = match delimiter {
                Delimiter::Brace => ("{", "}"),
                Delimiter::Bracket => ("[", "]"),
                Delimiter::Parenthesis => ("(", ")"),
                Delimiter::None => ("", ""),
            };
            return self.text(open).text(&inner.text).text(close);
        }
        self.tree(Group::new(delimiter, inner.finish()))
    }

    pub(crate) fn append(&mut self, other: Self) -> &mut Self {
        for part in other.parts {
            self.stream(part);
        }
        if !other.trees.is_empty() {
            self.end_text();
            self.trees.extend(other.trees);
        }
        if !other.text.is_empty() {
            self.text(&other.text);
        }
        self
    }

    /// Tokens of ours with the span of the user's code.
    pub(crate) fn at(&mut self, span: Span) -> At<'_> {
        self.end_text();
        At::new(&mut self.trees, span)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.trees.is_empty() && self.text.is_empty()
    }

    pub(crate) fn finish(mut self) -> TokenStream {
        self.end_text();
        self.end_trees();
        if self.parts.len() == 1 { self.parts.remove(0) } else { self.parts.into_iter().collect() }
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.parts.push(read(&self.text));
            self.text.clear();
        }
    }

    fn end_trees(&mut self) {
        if !self.trees.is_empty() {
            self.parts.push(self.trees.drain(..).collect());
        }
    }
}

/// By the compiler, where there is one: `proc_macro2` would read it all before that.
fn read(text: &str) -> TokenStream {
    const WHOLE: &str = "what is written as text are whole tokens";
    if proc_macro::is_available() {
        text.parse::<proc_macro::TokenStream>().expect(WHOLE).into()
    } else {
        text.parse().expect(WHOLE)
    }
}

impl From<TokenStream> for Code {
    fn from(stream: TokenStream) -> Self {
        Self { parts: vec![stream], ..Self::default() }
    }
}

/// Writes tokens one by one, all with the same span.
pub(crate) struct At<'c> {
    trees: &'c mut Vec<TokenTree>,
    span: Span,
}

impl<'c> At<'c> {
    pub(crate) fn new(trees: &'c mut Vec<TokenTree>, span: Span) -> Self {
        Self { trees, span }
    }

    pub(crate) fn word(&mut self, word: &str) -> &mut Self {
        self.trees.push(Ident::new(word, self.span).into());
        self
    }

    /// Characters that each stand alone.
    pub(crate) fn sign(&mut self, sign: char) -> &mut Self {
        self.punct(sign, Spacing::Alone)
    }

    /// `root::names[0]::names[1]..`.
    pub(crate) fn path(&mut self, root: &Root, names: &[&str]) -> &mut Self {
        for tree in root.path().trees() {
            let mut tree = tree.clone();
            tree.set_span(self.span);
            self.trees.push(tree);
        }
        for name in names {
            self.colons().word(name);
        }
        self
    }

    pub(crate) fn colons(&mut self) -> &mut Self {
        self.punct(':', Spacing::Joint).punct(':', Spacing::Alone)
    }

    pub(crate) fn lifetime(&mut self, name: &str) -> &mut Self {
        self.punct('\'', Spacing::Joint).word(name)
    }

    pub(crate) fn arrow(&mut self) -> &mut Self {
        self.punct('-', Spacing::Joint).punct('>', Spacing::Alone)
    }

    /// `<ty>`.
    pub(crate) fn angled(&mut self, ty: &Tokens) -> &mut Self {
        self.sign('<').as_they_are(ty.trees()).sign('>')
    }

    /// Tokens with spans of their own.
    pub(crate) fn as_they_are(&mut self, trees: &[TokenTree]) -> &mut Self {
        self.trees.extend_from_slice(trees);
        self
    }

    pub(crate) fn group(&mut self, delimiter: Delimiter, inner: Code) -> &mut Self {
        let mut group = Group::new(delimiter, inner.finish());
        group.set_span(self.span);
        self.trees.push(group.into());
        self
    }

    fn punct(&mut self, sign: char, spacing: Spacing) -> &mut Self {
        let mut punct = Punct::new(sign, spacing);
        punct.set_span(self.span);
        self.trees.push(punct.into());
        self
    }
}
