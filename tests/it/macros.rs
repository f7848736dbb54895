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
