//! A number that changes when a function's code does, and only then.
//!
//! Comments, white space, line breaks and positions are not code; documentation and attributes are left out by the caller.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The fingerprint of the tokens.
pub(crate) fn fingerprint<'t>(tokens: impl IntoIterator<Item = &'t TokenTree>) -> u128 {
    let mut hash = Fnv::new();
    for tree in tokens {
        hash.tree(tree);
    }
    hash.0
}

/// FNV-1a of 128 bits: this value is written into programs and compared across builds, so it must never depend on the
/// compiler's version, as the standard hasher may.
struct Fnv(u128);

impl Fnv {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    const fn new() -> Self {
        Self(Self::OFFSET)
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Self::PRIME);
    }

    /// The tag and the closing zero keep neighbours apart: `a b` is not `ab`.
    fn token(&mut self, tag: u8, text: &str) {
        self.byte(tag);
        // Not by an iterator, each step of which is a call where macros are not optimised.
        let (bytes, mut index) = (text.as_bytes(), 0);
        while index < bytes.len() {
            self.byte(bytes[index]);
            index += 1;
        }
        self.byte(0);
    }

    fn tree(&mut self, tree: &TokenTree) {
        match tree {
            TokenTree::Ident(ident) => self.token(b'i', &ident.to_string()),
            TokenTree::Punct(punct) => self.token(b'p', punct.as_char().encode_utf8(&mut [0; 4])),
            TokenTree::Literal(literal) => self.token(b'l', &literal.to_string()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    // Invisible groups come and go with macros.
                    Delimiter::None => return self.stream(group.stream()),
                };
                self.token(b'g', open);
                self.stream(group.stream());
                self.token(b'g', close);
            }
        }
    }

    fn stream(&mut self, tokens: TokenStream) {
        for tree in tokens {
            self.tree(&tree);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> u128 {
        let tokens: TokenStream = code.parse().expect("the test's code has tokens");
        fingerprint(&tokens.into_iter().collect::<Vec<_>>())
    }

    #[test]
    fn white_space_and_comments_do_not_count() {
        let plain = of("fn f(a: u32) -> u32 { a + 1 }");
        assert_eq!(plain, of("fn f( a : u32 )\n  ->u32\n{\n  a+1 // one more\n}"));
    }

    #[test]
    fn code_counts() {
        let plain = of("fn f(a: u32) -> u32 { a + 1 }");
        for changed in [
            "fn f(a: u32) -> u32 { a + 2 }",
            "fn f(a: u32) -> u32 { a - 1 }",
            "fn f(a: u64) -> u32 { a + 1 }",
            "fn f(a: u32) -> u32 { (a + 1) }",
            "async fn f(a: u32) -> u32 { a + 1 }",
        ] {
            assert_ne!(plain, of(changed), "{changed}");
        }
    }

    #[test]
    fn neighbours_are_kept_apart() {
        assert_ne!(of("a b"), of("ab"));
        assert_ne!(of("(a) b"), of("(a b)"));
        assert_ne!(of("{ a }"), of("[ a ]"));
        assert_ne!(of("\"a\""), of("a"));
    }

    #[test]
    fn the_value_is_the_same_in_every_build() {
        assert_eq!(of(""), Fnv::OFFSET);
        assert_eq!(of("a"), 0xa68d_3fac_ff8b_5822_836d_bc79_69e9_bba5);
    }
}
