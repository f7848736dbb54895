//! Types that borrow, in places where nothing can be borrowed.
use orchestrator::prelude::*;

use std::borrow::Cow;

#[task]
async fn inside(names: Vec<&str>) -> usize {
    names.len()
}

#[task]
async fn elided(name: Cow<'_, str>) -> usize {
    name.len()
}

#[task]
async fn declared<'a>(names: &'a [&'a str]) -> usize {
    names.len()
}

#[task]
async fn exclusive(names: &mut Vec<String>) {
    names.clear();
}

#[task]
fn first(names: &[String]) -> &str {
    &names[0]
}

fn main() {}
