//! The attributes on token streams: every expansion is Rust, and every mistake is reported.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Item, LitStr};

use crate::model::Kind;
use crate::{expand, test_attr};

/// The items of an expansion, and the messages of its `compile_error!`s.
fn check(expansion: TokenStream) -> (Vec<Item>, Vec<String>) {
    let file: syn::File = syn::parse2(expansion).expect("an expansion is Rust");
    let is_error = |item: &Item| matches!(item, Item::Macro(item) if item.mac.path.segments.last().is_some_and(|last| last.ident == "compile_error"));
    let (errors, items): (Vec<_>, Vec<_>) = file.items.into_iter().partition(is_error);
    (items, errors.iter().map(message).collect())
}

fn message(item: &Item) -> String {
    let Item::Macro(item) = item else { panic!("not a macro") };
    syn::parse2::<LitStr>(item.mac.tokens.clone()).expect("compile_error! takes a text").value()
}

fn task(options: TokenStream, function: TokenStream) -> (Vec<Item>, Vec<String>) {
    check(expand::expand(Kind::Task, options, function))
}

fn flow(options: TokenStream, function: TokenStream) -> (Vec<Item>, Vec<String>) {
    check(expand::expand(Kind::Flow, options, function))
}

/// Without white space, so that tests do not depend on how tokens are printed.
fn compact(items: &[Item]) -> String {
    items.iter().map(|item| item.to_token_stream().to_string()).collect::<String>().replace(char::is_whitespace, "")
}

fn is_expanded(items: &[Item]) -> bool {
    matches!(items, [Item::Struct(_), Item::Fn(_), Item::Impl(_), Item::Const(_), ..])
}

#[test]
fn a_task_is_a_struct_a_function_and_what_belongs_to_them() {
    let (items, errors) = task(
        quote!(retries = 3, retry_delay_secs = [1, 2.5], cache_ttl = "1d", concurrency = ("db", slots = 2, limit = 10)),
        quote! {
            /// Docs.
            #[cfg(test)]
            pub async fn fetch(#[cache(skip)] client: &Client, repo: String) -> Result<u64, Error> { client.get(repo).await }
        },
    );
    assert_eq!(errors, [""; 0]);
    assert!(is_expanded(&items));
    let code = compact(&items);
    for part in [
        "pubfnfetch(client:impl::orchestrator::__private::IntoInput<Client>,repo:impl",
        "retries:__p::Some(3)",
        "RetryDelay::List(&[__p::Duration::from_nanos(1000000000u64),",
        "Want{limit:\"db\",slots:2u32,declare:__p::Some(10u32)}",
        "parameters:&[\"client\",\"repo\"]",
        "pubasyncfnbody(client:&Client,repo:String)->Result<u64,Error>{client.get(repo).await}",
        "description:\"Docs.\"",
        "(__p::Encoding::LeftOut,__p::Probe::<String>::ENCODING,)",
    ] {
        assert!(code.contains(part), "{part} in {code}");
    }
    assert_eq!(code.matches("#[cfg(test)]").count(), items.len());
}

#[test]
fn a_flow_has_no_map() {
    let (items, errors) = flow(quote!(max_concurrent_tasks = 8), quote! { async fn report(day: String) {} });
    assert_eq!(errors, [""; 0]);
    let code = compact(&items);
    assert!(
        code.contains("__private::call_flow(report::__FUNCTION,") && code.contains("max_concurrent_tasks:__p::Some(8)")
    );
    assert!(!code.contains("submit_map"));
}

#[test]
fn a_flow_can_be_entered_by_those_who_know_nothing_of_its_types() {
    let (items, errors) = flow(
        quote!(),
        quote! { async fn report(days: &[HashMap<String, u8>], #[param(skip)] client: &std::sync::Arc<Client>) -> u32 {} },
    );
    assert_eq!(errors, [""; 0]);
    let code = compact(&items);
    for part in [
        "__reader.arg(\"days\",\"[HashMap<String,u8>]\",(&&&__p::Probe::<::std::vec::Vec<HashMap<String,u8>>>::NEW).decoder())",
        "__reader.skipped(\"client\",\"std::sync::Arc<Client>\")",
        "__p::Some((__args.0?,__args.1?,))",
        "Registered::flow(report::__FUNCTION)",
    ] {
        assert!(code.contains(part), "{part} in {code}");
    }
    let (items, _) = flow(quote!(), quote! { async fn report<T: Send>(it: T) {} });
    assert!(!compact(&items).contains("reader"));
}

#[test]
fn generics_stay_and_lifetimes_go() {
    let (items, errors) = task(
        quote!(),
        quote! { fn first<'a, T: Clone, const N: usize>(list: &'a [T; N], _: (u8, u8)) -> T where T: Send, { list[0].clone() } },
    );
    assert_eq!(errors, [""; 0]);
    let code = compact(&items);
    assert!(code.contains("fnfirst<T:Clone,constN:usize>(list:impl::orchestrator::__private::IntoInput<[T;N]>,arg1:"));
    assert!(code.contains("fnbody<'a,T:Clone,constN:usize>(list:&'a[T;N],_:(u8,u8))"));
    assert!(!code.contains("inventory"));
}

#[test]
fn another_path_to_the_crate() {
    let (items, _) = task(quote!(crate = "my::path"), quote! { async fn fetch() {} });
    let code = compact(&items);
    assert!(code.contains("my::path::__private::TaskFuture") && !code.contains("orchestrator"));
}

#[test]
fn a_body_may_be_unfinished() {
    let expansion =
        expand::expand(Kind::Task, quote!(), quote! { async fn fetch(id: u32) -> u32 { let x: u32 = ; id } });
    let code = expansion.to_string().replace(char::is_whitespace, "");
    assert!(code.contains("structfetch") && code.contains("fnbody(id:u32)->u32{letx:u32=;id}"), "{code}");
    assert!(!code.contains("compile_error"));
}

#[test]
fn the_fingerprint_is_that_of_the_code() {
    let fingerprint = |options: TokenStream, function: TokenStream| {
        let tokens = expand::expand(Kind::Task, options, function).to_string();
        let (_, after) = tokens.split_once("fingerprint :").expect("the definition has a fingerprint");
        after.split_once(',').expect("more fields follow").0.to_owned()
    };
    let plain = fingerprint(quote!(), quote! { fn f(a: u32) -> u32 { a } });
    assert_eq!(
        plain,
        fingerprint(quote!(retries = 3), quote! { #[doc = "Docs."] pub fn f(#[cache(skip)] a: u32) -> u32 { a } })
    );
    assert_ne!(plain, fingerprint(quote!(), quote! { fn f(a: u32) -> u32 { a + 1 } }));
}

#[test]
fn a_wrong_option_leaves_the_function_expanded() {
    for (options, part) in [
        (quote!(retrys = 3), "unknown option `retrys`; did you mean `retries`?"),
        (quote!(on_fail = hook), "unknown option `on_fail`; did you mean `on_failure`?"),
        (quote!(timeout = 3), "did you mean `timeout_secs`?"),
        (quote!(max_concurrent_tasks = 3), "an option of #[flow]"),
        (quote!(retries), "is written with a value: `retries = 3`"),
        (quote!(retries(3)), "is written with a value"),
        (quote!(retries = "3"), "a whole number"),
        (quote!(retries = 3.5), "a whole number"),
        (quote!(retries = -1), "negative"),
        (quote!(retries = 3u8), "without `u8`"),
        (quote!(retries = 99999999999), "too large"),
        (quote!(retries = 1, retries = 2), "given twice"),
        (quote!(retries = 1 2), "expected `,`"),
        (quote!("name"), "the name of an option"),
        (quote!(retry_jitter = -0.5), "negative"),
        (quote!(retry_jitter = "0.5"), "without quotes"),
        (quote!(retry_delay_secs = []), "empty"),
        (quote!(retry_delay_secs = linear(1)), "exponential(base, max)"),
        (quote!(retry_delay_secs = exponential()), "takes two durations"),
        (quote!(retry_delay_secs = exponential(1)), "takes two durations"),
        (quote!(retry_delay_secs = exponential(2, 1)), "shorter"),
        (quote!(retry_if = is_transient), "returns no `Result`"),
        (quote!(timeout_secs = 0), "more than zero"),
        (quote!(cache_ttl = "1x"), "not a unit"),
        (quote!(cache_policy = input), "did you mean `inputs`?"),
        (quote!(cache_policy = none + inputs), "stands alone"),
        (quote!(cache_policy = task_source - "id"), "only `inputs`"),
        (quote!(cache_policy = inputs - "idd"), "did you mean `id`?"),
        (quote!(refresh_cache = 1), "`true` or `false`"),
        (quote!(concurrency = 3), "the name of a limit"),
        (quote!(concurrency = ("db", slots = 0)), "at least 1"),
        (quote!(concurrency = ("db", slot = 1)), "did you mean `slots`?"),
        (quote!(concurrency = ("db", slots = 3, limit = 2)), "3 slots"),
        (quote!(concurrency = ["db", "db"]), "named twice"),
        (quote!(tags = "a"), "a list"),
        (quote!(tags = [""]), "empty"),
        (quote!(name = fetch), "a text in quotes"),
        (quote!(name = " "), "empty"),
        (quote!(run_name = "{idd}"), "did you mean `id`?"),
        (quote!(crate = 3), "the path of a crate"),
    ] {
        let (items, errors) = task(options.clone(), quote! { async fn fetch(id: u32) -> u32 { id } });
        assert!(is_expanded(&items), "{options}");
        assert!(matches!(&errors[..], [message] if message.contains(part)), "{options}: {errors:?}");
    }
}

#[test]
fn a_wrong_signature_leaves_the_function_alone() {
    for (function, part) in [
        (quote! { fn f(&self) {} }, "a method cannot be a task"),
        (quote! { fn f() -> impl Sized {} }, "the type of a result is named"),
        (quote! { fn f(x: impl Sized) {} }, "the type of a parameter is named"),
        (quote! { fn f() -> Self {} }, "no `Self`"),
        (quote! { fn f() -> ! { loop {} } }, "return `()`"),
        (quote! { fn f() -> &str { "" } }, "a result outlives the body"),
        (quote! { fn f(x: &mut u32) {} }, "shared with other runs"),
        (quote! { fn f(x: &'static str) {} }, "leave out `'static`"),
        (quote! { fn f(x: &dyn Any) {} }, "no known size"),
        (quote! { fn f(x: Vec<&str>) {} }, "cannot borrow"),
        (quote! { fn f(x: Cow<'_, str>) {} }, "cannot borrow"),
        (quote! { fn f<'a>(x: &'a [Cow<'a, str>]) {} }, "cannot borrow"),
        (quote! { fn f<'a, T: 'a>(x: T) {} }, "have no lifetimes"),
        (quote! { const fn f() {} }, "`const`"),
        (quote! { unsafe fn f() {} }, "`unsafe`"),
        (quote! { extern "C" fn f() {} }, "`extern`"),
        (quote! { fn f(#[cfg(test)] x: u32) {} }, "conditional"),
    ] {
        let (items, errors) = task(quote!(), function.clone());
        assert!(matches!(&errors[..], [message] if message.contains(part)), "{function}: {errors:?}");
        assert_eq!(compact(&items), function.to_string().replace(char::is_whitespace, ""));
    }
}

#[test]
fn too_many_parameters() {
    let names: Vec<_> = (0..17).map(|index| quote::format_ident!("p{index}")).collect();
    let (_, errors) = task(quote!(), quote! { fn f(#(#names: u8),*) {} });
    assert!(matches!(&errors[..], [message] if message.contains("at most 16 parameters")));
}

#[test]
fn mistakes_that_leave_the_signature_usable() {
    for (function, part) in [
        (quote! { fn f(wait_for: u32) {} }, "an option of the call"),
        (quote! { fn f(#[param(skip)] x: u32) {} }, "for parameters of #[flow]"),
        (quote! { fn f(#[cache(leave)] x: u32) {} }, "write `#[cache(skip)]`"),
        (quote! { #[flow] fn f(x: u32) {} }, "either a task or a flow"),
        (quote! { #[task] fn f(x: u32) {} }, "twice"),
    ] {
        let (items, errors) = task(quote!(), function.clone());
        assert!(is_expanded(&items), "{function}");
        assert!(matches!(&errors[..], [message] if message.contains(part)), "{function}: {errors:?}");
    }
}

#[test]
fn what_is_no_function_stays() {
    for item in [quote! { struct Fetch; }, quote! { const X: u32 = 1; }, quote! { trait T { fn f(); } }] {
        let (items, errors) = task(quote!(), item.clone());
        assert_eq!(compact(&items), item.to_string().replace(char::is_whitespace, ""));
        assert!(matches!(&errors[..], [message] if message.contains("not a function")), "{errors:?}");
    }
}

#[test]
fn all_mistakes_are_reported() {
    let (_, errors) =
        task(quote!(retrys = 3, name = 1, retries = 2), quote! { fn f(&self, x: &mut u32) -> impl Sized {} });
    assert_eq!(errors.len(), 5, "{errors:?}");
}

#[test]
fn a_test_runs_its_body_in_a_scope() {
    let (items, errors) = check(test_attr::expand(
        quote!(start_paused = true),
        quote! { #[should_panic] async fn works() -> Result<(), Error> { body().await } },
    ));
    assert_eq!(errors, [""; 0]);
    let code = compact(&items);
    assert!(code.starts_with("#[::core::prelude::v1::test]#[should_panic]fnworks()->Result<(),Error>{"));
    assert!(code.contains(".enable_all().start_paused(true).build()"));
    assert!(code.contains("runtime.block_on(::orchestrator::__private::test_scope(true,works()))"));
}

#[test]
fn mistakes_in_a_test() {
    for (options, function, part) in [
        (quote!(start_pause), quote! { async fn f() {} }, "did you mean `start_paused`?"),
        (quote!(flavor = "two_threads"), quote! { async fn f() {} }, "the flavors are"),
        (quote!(flavor = "multi_thread", start_paused), quote! { async fn f() {} }, "one thread"),
        (quote!(worker_threads = 2), quote! { async fn f() {} }, "needs `flavor"),
        (quote!(), quote! { fn f() {} }, "not async"),
        (quote!(), quote! { async fn f(x: u32) {} }, "no parameters"),
        (quote!(), quote! { async fn f<T>() {} }, "not generic"),
    ] {
        let (items, errors) = check(test_attr::expand(options.clone(), function.clone()));
        assert_eq!(items.len(), 1, "{options} {function}");
        assert!(matches!(&errors[..], [message] if message.contains(part)), "{options} {function}: {errors:?}");
    }
}

#[test]
fn the_table_of_options_is_in_the_documentation() {
    let source = include_str!("lib.rs");
    for row in crate::options::ROWS {
        assert!(source.contains(&format!("/// | `{}", row.name)), "{} is not documented", row.name);
    }
}

fn count(tokens: TokenStream) -> usize {
    let of = |tree| if let TokenTree::Group(group) = tree { 2 + count(group.stream()) } else { 1 };
    tokens.into_iter().map(of).sum()
}

/// In tokens; a function that grows the expansion of all tasks is better placed in the runtime.
#[test]
fn an_expansion_is_small() {
    let tokens = expand::expand(Kind::Task, quote!(), quote! { async fn f(x: u32) -> u32 { x } });
    let size = count(tokens);
    assert!(size < 600, "{size} tokens");
}
