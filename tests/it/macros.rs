//! What the attributes accept: every kind of function.

#![deny(missing_docs, unreachable_pub, missing_debug_implementations, unused_qualifications)]

use std::fmt::Display;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use orchestrator::prelude::*;

/// Has its own documentation.
#[task(name = "renamed", description = "said otherwise")]
pub(crate) async fn documented(n: u32) -> u32 {
    n
}

#[task]
async fn generic<T, const N: usize>(items: [T; N], first: &T) -> bool
where
    T: Clone + PartialEq + Send + Sync + 'static,
{
    items.first() == Some(first)
}

#[task(cache_ttl = "1h")]
async fn generic_cached<T: Display + Clone + serde::Serialize + Hash + Send + Sync + 'static>(item: T) -> String {
    item.to_string()
}

#[task]
async fn patterns(mut a: Vec<u32>, (b, c): (u32, u32), _: bool, Point { x, .. }: Point, r#type: u32) -> u32 {
    a.push(b);
    a.iter().sum::<u32>() + c + x + r#type
}

#[derive(Clone)]
struct Point {
    x: u32,
    #[expect(dead_code, reason = "left out by the pattern")]
    y: u32,
}

#[task]
#[expect(clippy::ptr_arg, reason = "a reference to a vector is a parameter like any other")]
fn borrows(text: &str, list: &[u32], path: &Path, owned: PathBuf, table: &Vec<String>) -> usize {
    text.len() + list.len() + path.as_os_str().len() + owned.as_os_str().len() + table.len()
}

#[task]
#[expect(clippy::too_many_arguments, reason = "clippy says so of this function, and of none that the attribute makes")]
async fn many(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, _unused: &str) -> u8 {
    [a, b, c, d, e, f, g].iter().sum()
}

#[task]
async fn lifetimes<'a>(text: &'a str, other: &'a str) -> usize {
    [text, other].map(str::len).iter().sum()
}

#[task]
async fn aliased() -> std::io::Result<u32> {
    Ok(1)
}

type OwnResult = Result<u32, String>;

#[task]
async fn own_alias() -> OwnResult {
    Ok(2)
}

#[task]
async fn nothing() {}

#[cfg(any())]
#[task]
async fn left_out(_n: NoSuchType) {}

#[task]
#[cfg(not(target_os = "none"))]
#[expect(unused_variables, reason = "shows that lint attributes reach the body")]
async fn attributes(unused: u32) -> u32 {
    let unused = 3;
    3
}

mod inside {
    use orchestrator::prelude::*;

    pub(super) mod deeper {
        use orchestrator::prelude::*;

        #[task]
        pub(in super::super) async fn visible(n: u32) -> u32 {
            n + 1
        }
    }

    #[flow]
    pub(super) async fn flow(n: u32) -> Result<u32, TaskError> {
        deeper::visible(n).await
    }
}

macro_rules! made {
    ($name:ident, $by:expr) => {
        #[task(run_name = "made-{n}")]
        async fn $name(n: u32) -> u32 {
            n * $by
        }
    };
}
made!(tripled, 3);

mod orchestrator_renamed {
    pub(super) use ::orchestrator as elsewhere;
}

#[task(crate = "crate::macros::orchestrator_renamed::elsewhere")]
async fn through_another_path(n: u32) -> u32 {
    n
}

#[orchestrator::test]
async fn every_kind_of_function_is_a_task() {
    assert_eq!(documented(1).await.unwrap(), 1);
    assert!(generic([1, 2], 1).await.unwrap());
    assert!(!generic([String::from("a")], "b").await.unwrap());
    assert_eq!(generic_cached(5).await.unwrap(), "5");
    assert_eq!(patterns(vec![1], (2, 3), true, Point { x: 4, y: 0 }, 5).await.unwrap(), 15);
    assert_eq!(
        borrows("a", vec![1, 2], Path::new("abc"), PathBuf::from("abcd"), vec![String::new()]).await.unwrap(),
        11
    );
    assert_eq!(lifetimes("ab", "c").await.unwrap(), 3);
    assert_eq!(many(1, 2, 3, 4, 5, 6, 7, "").await.unwrap(), 28);
    assert_eq!(aliased().await.unwrap() + own_alias().await.unwrap(), 3);
    nothing().await.unwrap();
    assert_eq!(attributes(1).await.unwrap(), 3);
    assert_eq!(inside::flow(1).await.unwrap(), 2);
    assert_eq!(tripled(2).await.unwrap(), 6);
    assert_eq!(through_another_path(2).await.unwrap(), 2);
    #[task]
    async fn in_a_function(n: u32) -> u32 {
        #[task]
        async fn in_a_task(n: u32) -> u32 {
            n + 1
        }
        in_a_task(n).await.unwrap() + 1
    }
    assert_eq!(in_a_function(1).await.unwrap(), 3);
}

#[orchestrator::test]
async fn bodies_can_be_called_without_the_runtime() {
    assert_eq!(documented::body(3).await, 3);
    assert_eq!(borrows::body("", &[], Path::new(""), PathBuf::new(), &Vec::new()), 0);
    assert_eq!(inside::deeper::visible::body(1).await, 2);
    assert_eq!(own_alias::body().await, Ok(2));
}

#[test]
fn tasks_and_flows_are_registered_by_name() {
    let known = |name: &str| orchestrator::registered().find(|def| def.name == name);
    let renamed = known("renamed").unwrap();
    assert_eq!(renamed.description, "said otherwise");
    assert_eq!(renamed.key, "it::macros::documented");
    assert_eq!(renamed.parameters, ["n"]);
    assert!(known("flow").is_some());
    assert!(known("generic").is_none(), "a generic function has no one entry point");
}

#[orchestrator::test]
async fn the_body_decides_the_fingerprint() {
    let of = |key: &str| orchestrator::registered().find(|def| def.key == key).unwrap().fingerprint;
    assert_ne!(of("it::macros::documented"), of("it::macros::nothing"));
}

/// Names that the expansion uses itself, or did.
mod named_as_ours {
    use std::fmt;

    use orchestrator::prelude::*;

    use crate::door::Notes;

    static CALLED: Notes = Notes::new();

    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
    struct __Output(u32);

    #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
    struct __Args(u32);

    #[derive(Debug)]
    struct __Declared;

    mod __p {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        pub(super) struct Inner(pub(super) u32);
    }

    const __DEF: usize = 2;

    impl fmt::Display for __Args {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl fmt::Display for __Declared {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("declared")
        }
    }

    impl std::error::Error for __Declared {}

    fn args(args: &__Args, _: &[u32; __DEF], _: &__p::Inner) -> Option<String> {
        CALLED.add("args");
        Some(args.to_string())
    }

    fn error(_: &__Declared) -> bool {
        CALLED.add("error");
        true
    }

    fn run(_: &TaskRun, _: &State) {
        CALLED.add("run");
    }

    fn state(_: &TaskRun, _: &State) {
        CALLED.add("state");
    }

    fn result(_: &__Output) {
        CALLED.add("result");
    }

    async fn outcome(_: &__Output) {
        CALLED.add("outcome");
    }

    fn reader(_: &FlowRun, _: &State) {
        CALLED.add("reader");
    }

    #[task(
        run_name = "of-{args}", retries = 1, retry_if = error, cache_key = args, cache_ttl = "1h",
        on_running = run, on_completion = state, on_commit = [result, outcome], on_rollback = outcome
    )]
    async fn task(args: __Args, arg1: [u32; __DEF], inner: &__p::Inner) -> Result<__Output, __Declared> {
        let again = RunContext::current().attempt() > 1;
        if again { Ok(__Output(args.0 + arg1[0] + arg1[1] + inner.0)) } else { Err(__Declared) }
    }

    #[flow(on_completion = reader)]
    async fn flow(args: __Args, reader: u32, __arg0: u32) -> Result<__Output, TaskError> {
        let arguments = (args, [reader, __arg0], __p::Inner(1));
        transaction(async { task(arguments.0, arguments.1, arguments.2).await }).await
    }

    #[task]
    async fn generic<__Output: Send + Sync + Clone + 'static, const __DEF: usize>(all: [__Output; __DEF]) -> usize {
        all.len()
    }

    #[orchestrator::test]
    async fn they_are_the_users() {
        assert_eq!(flow(__Args(10), 20, 30).await.unwrap(), __Output(61));
        let called = ["args", "run", "error", "run", "state", "result", "outcome", "reader"];
        assert_eq!(CALLED.take(), called);
        assert_eq!(generic([1, 2, 3]).await.unwrap(), 3);
    }

    #[orchestrator::test]
    async fn runtime() {
        assert_eq!(generic([()]).await.unwrap(), 1);
    }
}
