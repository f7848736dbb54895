//! What `#[orchestrator::test]` puts in the place of an async function.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{LitStr, Path, Token};

use crate::args::{self, Read, Row};
use crate::mistakes::Mistakes;
use crate::model::Item;
use crate::names::variable;
use crate::root::Root;
use crate::value;

/// What the attribute says.
#[derive(Default)]
struct Options {
    krate: Option<Path>,
    start_paused: bool,
    flavor: Option<LitStr>,
    worker_threads: Option<u32>,
}

const ROWS: &[Row<Options>] = &[
    row("start_paused", "start_paused = true", Read::Flag(|o, paused| o.start_paused = paused)),
    row(
        "flavor",
        "flavor = \"multi_thread\"",
        Read::Value(|o, v| {
            let flavor = value::text(v)?;
            if !["multi_thread", "current_thread"].contains(&flavor.value().as_str()) {
                return Err(syn::Error::new(flavor.span(), "the flavors are \"current_thread\" and \"multi_thread\""));
            }
            o.flavor = Some(flavor);
            Ok(())
        }),
    ),
    row(
        "worker_threads",
        "worker_threads = 2",
        Read::Value(|o, v| {
            o.worker_threads = Some(value::whole(v, 1)?);
            Ok(())
        }),
    ),
    row(
        "crate",
        "crate = \"my::path\"",
        Read::Value(|o, v| {
            o.krate = Some(value::module(v)?);
            Ok(())
        }),
    ),
];

const fn row(name: &'static str, example: &'static str, read: Read<Options>) -> Row<Options> {
    Row { name, example, only_on: None, read }
}

/// Expands `#[test]` with the options `attr` on `item`.
pub(crate) fn expand(attr: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let options: Options = args::read(attr.clone(), ROWS, "test", &mut mistakes);
    let parsed = Item::parse(item.clone());
    let Some(item_fn) = mistakes.keep(parsed) else {
        let errors = mistakes.into_tokens();
        return quote!(#item #errors);
    };
    let multi_thread = options.flavor.as_ref().is_some_and(|flavor| flavor.value() == "multi_thread");
    if options.start_paused && multi_thread {
        mistakes.on(&attr, "the clock can be paused only in a runtime of one thread: leave out `flavor`");
    }
    if options.worker_threads.is_some() && !multi_thread {
        mistakes.on(&attr, "`worker_threads` needs `flavor = \"multi_thread\"`");
    }
    if let Err(NotATest) = check(&item_fn, &mut mistakes) {
        let errors = mistakes.into_tokens();
        return quote!(#item_fn #errors);
    }
    let test = test(&options, multi_thread, item_fn);
    let errors = mistakes.into_tokens();
    quote!(#test #errors)
}

/// A function that cannot be expanded; the mistakes say why.
struct NotATest;

fn check(item: &Item, mistakes: &mut Mistakes) -> Result<(), NotATest> {
    let sig = &item.sig;
    let mut outcome = Ok(());
    if sig.asyncness.is_none() {
        mistakes.at(sig.fn_token.span, "this test is not async: write `async fn`, or `#[test]` for a sync one");
        outcome = Err(NotATest);
    }
    if !sig.inputs.is_empty() {
        mistakes.on(&sig.inputs, "a test takes no parameters");
        outcome = Err(NotATest);
    }
    if !sig.generics.params.is_empty() {
        mistakes.on(&sig.generics.params, "a test is not generic");
        outcome = Err(NotATest);
    }
    outcome
}

fn test(options: &Options, multi_thread: bool, item: Item) -> TokenStream {
    let root = Root::new(options.krate.as_ref());
    let p = root.path();
    let Item { attrs, vis, sig, body } = item;
    let ident = &sig.ident;
    let mut outer = sig.clone();
    outer.asyncness = None::<Token![async]>;
    let new = if multi_thread { quote!(new_multi_thread) } else { quote!(new_current_thread) };
    let paused = options.start_paused && !multi_thread;
    let start_paused = paused.then(|| quote!(.start_paused(true)));
    let worker_threads = options
        .worker_threads
        .filter(|_| multi_thread)
        .map(|threads| threads as usize)
        .map(|threads| quote!(.worker_threads(#threads)));
    // The test may be named so itself.
    let runtime = variable("runtime", Span::call_site());
    quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        #vis #outer {
            // The function inside has the user's signature, so that a wrong result is reported where it is returned.
            #sig #body
            #[allow(clippy::expect_used)]
            let #runtime = #p::tokio::runtime::Builder::#new()
                .enable_all() #start_paused #worker_threads
                .build()
                .expect("the runtime of a test can be built");
            #runtime.block_on(#p::test_scope(#paused, #ident()))
        }
    }
}
