//! The options of `#[task]` and `#[flow]`: a further option is a further row here, and a field.

use std::time::Duration;

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Ident, LitStr, Path, Result, Token, parenthesized, token};

use crate::args::{self, Read, Row};
use crate::mistakes::Mistakes;
use crate::suggest;
use crate::value::{self, Delay};

/// What the attribute says; an option that is absent takes the orchestrator's default.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) krate: Option<Path>,
    pub(crate) name: Option<LitStr>,
    pub(crate) run_name: Option<LitStr>,
    pub(crate) description: Option<LitStr>,
    pub(crate) version: Option<LitStr>,
    pub(crate) tags: Vec<LitStr>,
    pub(crate) retries: Option<u32>,
    pub(crate) retry_delay: Option<Delay>,
    pub(crate) retry_jitter: Option<f64>,
    pub(crate) retry_if: Option<Path>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cache_ttl: Option<Duration>,
    pub(crate) cache_policy: Option<Policy>,
    pub(crate) cache_key: Option<Path>,
    pub(crate) refresh_cache: Option<bool>,
    pub(crate) persist: Option<bool>,
    pub(crate) concurrency: Vec<Want>,
    pub(crate) max_concurrent_tasks: Option<u32>,
    pub(crate) on_crash: Option<LitStr>,
    pub(crate) crash_budget: Option<(Span, u32)>,
    pub(crate) on_running: Vec<Path>,
    pub(crate) on_completion: Vec<Path>,
    pub(crate) on_failure: Vec<Path>,
    pub(crate) on_cancellation: Vec<Path>,
    pub(crate) on_crashed: Vec<Path>,
    pub(crate) on_commit: Vec<Path>,
    pub(crate) on_rollback: Vec<Path>,
}

/// What a cache key is made of.
#[derive(Default)]
pub(crate) struct Policy {
    pub(crate) inputs: bool,
    pub(crate) task_source: bool,
    pub(crate) run_id: bool,
    pub(crate) flow_parameters: bool,
    pub(crate) exclude: Vec<LitStr>,
}

impl Policy {
    pub(crate) fn is_none(&self) -> bool {
        !(self.inputs || self.task_source || self.run_id || self.flow_parameters)
    }
}

/// Slots of one limit.
pub(crate) struct Want {
    pub(crate) limit: LitStr,
    pub(crate) slots: u32,
    pub(crate) declare: Option<u32>,
}

pub(crate) const ROWS: &[Row<Options>] = &[
    both("name", "name = \"fetch\"", |o, v| set(&mut o.name, value::filled_text(v))),
    both("run_name", "run_name = \"fetch-{id}\"", |o, v| set(&mut o.run_name, value::filled_text(v))),
    both("description", "description = \"what it does\"", |o, v| set(&mut o.description, value::text(v))),
    both("version", "version = \"1\"", |o, v| set(&mut o.version, value::filled_text(v))),
    both("tags", "tags = [\"a\", \"b\"]", |o, v| {
        o.tags = value::list(v, value::filled_text)?;
        Ok(())
    }),
    both("retries", "retries = 3", |o, v| set(&mut o.retries, value::whole(v, 0))),
    both("retry_delay_secs", "retry_delay_secs = 10", |o, v| set(&mut o.retry_delay, value::delay(v))),
    task("retry_jitter", "retry_jitter = 0.5", |o, v| set(&mut o.retry_jitter, value::factor(v))),
    task("retry_if", "retry_if = is_transient", |o, v| set(&mut o.retry_if, value::function(v))),
    both("timeout_secs", "timeout_secs = 60", |o, v| set(&mut o.timeout, value::filled_duration(v))),
    task("cache_ttl", "cache_ttl = \"1d\"", |o, v| set(&mut o.cache_ttl, value::filled_duration(v))),
    task("cache_policy", "cache_policy = inputs", |o, v| set(&mut o.cache_policy, policy(v))),
    task("cache_key", "cache_key = key_of", |o, v| set(&mut o.cache_key, value::function(v))),
    Row {
        name: "refresh_cache",
        example: "refresh_cache",
        only_on: Some("task"),
        read: Read::Flag(|o, value| o.refresh_cache = Some(value)),
    },
    Row { name: "persist", example: "persist", only_on: None, read: Read::Flag(|o, value| o.persist = Some(value)) },
    task("concurrency", "concurrency = \"db\"", |o, v| {
        o.concurrency = wants(v)?;
        Ok(())
    }),
    Row {
        name: "max_concurrent_tasks",
        example: "max_concurrent_tasks = 8",
        only_on: Some("flow"),
        read: Read::Value(|o, v| set(&mut o.max_concurrent_tasks, value::whole(v, 1))),
    },
    Row {
        name: "on_crash",
        example: "on_crash = \"resume\"",
        only_on: Some("flow"),
        read: Read::Value(|o, v| set(&mut o.on_crash, on_crash(v))),
    },
    Row {
        name: "crash_budget",
        example: "crash_budget = 3",
        only_on: Some("flow"),
        read: Read::Value(|o, v| {
            let span = v.span();
            set(&mut o.crash_budget, value::whole(v, 1).map(|times| (span, times)))
        }),
    },
    both("on_running", "on_running = [tell, count]", |o, v| hooks(&mut o.on_running, v)),
    both("on_completion", "on_completion = tell", |o, v| hooks(&mut o.on_completion, v)),
    both("on_failure", "on_failure = tell", |o, v| hooks(&mut o.on_failure, v)),
    both("on_cancellation", "on_cancellation = tell", |o, v| hooks(&mut o.on_cancellation, v)),
    both("on_crashed", "on_crashed = tell", |o, v| hooks(&mut o.on_crashed, v)),
    task("on_commit", "on_commit = publish", |o, v| hooks(&mut o.on_commit, v)),
    task("on_rollback", "on_rollback = undo", |o, v| hooks(&mut o.on_rollback, v)),
    both("crate", "crate = \"my::path\"", |o, v| set(&mut o.krate, value::module(v))),
];

type ReadValue<O> = fn(&mut O, ParseStream<'_>) -> Result<()>;

/// An option of tasks and flows.
const fn both<O>(name: &'static str, example: &'static str, read: ReadValue<O>) -> Row<O> {
    Row { name, example, only_on: None, read: Read::Value(read) }
}

/// An option of tasks.
const fn task(name: &'static str, example: &'static str, read: ReadValue<Options>) -> Row<Options> {
    Row { name, example, only_on: Some("task"), read: Read::Value(read) }
}

fn set<T>(field: &mut Option<T>, value: Result<T>) -> Result<()> {
    *field = Some(value?);
    Ok(())
}

/// What becomes of a run that crashed; there is one thing so far.
fn on_crash(input: ParseStream<'_>) -> Result<LitStr> {
    let wrong = |span| {
        Error::new(
            span,
            "write `on_crash = \"resume\"`; functions that are called after a crash are `on_crashed = tell`",
        )
    };
    let text: LitStr = input.parse().map_err(|error: Error| wrong(error.span()))?;
    if text.value() == "resume" { Ok(text) } else { Err(wrong(text.span())) }
}

/// The path of a function, or a list of them.
fn hooks(field: &mut Vec<Path>, input: ParseStream<'_>) -> Result<()> {
    *field =
        if input.peek(token::Bracket) { value::list(input, value::function)? } else { vec![value::function(input)?] };
    Ok(())
}

/// A sum such as `inputs + task_source - "client"`.
fn policy(input: ParseStream<'_>) -> Result<Policy> {
    const NAMES: [&str; 6] = ["inputs", "task_source", "run_id", "flow_parameters", "default", "none"];
    let mut policy = Policy::default();
    let mut terms = 0;
    let mut none = None;
    loop {
        let name = Ident::parse_any(input).map_err(|error| {
            Error::new(error.span(), format!("expected a cache policy: one of {}", suggest::list(NAMES)))
        })?;
        terms += 1;
        match name.to_string().as_str() {
            "inputs" => policy.inputs = true,
            "task_source" => policy.task_source = true,
            "run_id" => policy.run_id = true,
            "flow_parameters" => policy.flow_parameters = true,
            "default" => (policy.inputs, policy.task_source) = (true, true),
            "none" => none = Some(name),
            other => {
                let hint = match suggest::nearest(other, NAMES) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("the policies are {}", suggest::list(NAMES)),
                };
                return Err(Error::new(name.span(), format!("unknown cache policy `{other}`; {hint}")));
            }
        }
        while input.peek(Token![-]) {
            input.parse::<Token![-]>()?;
            let argument: LitStr = input
                .parse()
                .map_err(|error| Error::new(error.span(), "expected the name of a parameter in quotes"))?;
            policy.exclude.push(argument);
        }
        if input.parse::<Option<Token![+]>>()?.is_none() {
            break;
        }
    }
    if let (Some(none), true) = (none, terms > 1 || !policy.exclude.is_empty()) {
        return Err(Error::new(none.span(), "`none` stands alone: a task without caching has no key"));
    }
    if let (Some(argument), false) = (policy.exclude.first(), policy.inputs) {
        return Err(Error::new(argument.span(), "only `inputs` has arguments to leave out"));
    }
    Ok(policy)
}

/// One limit, or a list of them.
fn wants(input: ParseStream<'_>) -> Result<Vec<Want>> {
    if !input.peek(token::Bracket) {
        return Ok(vec![want(input)?]);
    }
    let wants = value::list(input, want)?;
    let mut mistakes = Mistakes::default();
    for (index, want) in wants.iter().enumerate() {
        if wants[..index].iter().any(|earlier| earlier.limit.value() == want.limit.value()) {
            mistakes.at(want.limit.span(), "this limit is named twice; for more of its slots write `slots = 2`");
        }
    }
    mistakes.into_result()?;
    Ok(wants)
}

/// The part of a [`Want`] behind its name.
#[derive(Default)]
struct WantOptions {
    slots: Option<u32>,
    limit: Option<u32>,
}

const WANT_ROWS: &[Row<WantOptions>] = &[
    both("slots", "slots = 2", |o, v| set(&mut o.slots, value::whole(v, 1))),
    both("limit", "limit = 10", |o, v| set(&mut o.limit, value::whole(v, 1))),
];

/// `"db"`, or `("db", slots = 2, limit = 10)`.
fn want(input: ParseStream<'_>) -> Result<Want> {
    if !input.peek(token::Paren) {
        let limit = value::text(input).map_err(|error| {
            Error::new(error.span(), "expected the name of a limit in quotes, or `(\"db\", slots = 2)`")
        })?;
        return Ok(Want { limit: named(limit)?, slots: 1, declare: None });
    }
    let content;
    parenthesized!(content in input);
    let limit = value::text(&content)?;
    content.parse::<Option<Token![,]>>()?;
    let mut options = WantOptions::default();
    let mut mistakes = Mistakes::default();
    args::read_list(&content, WANT_ROWS, "task", &mut options, &mut mistakes);
    mistakes.into_result()?;
    let limit = named(limit)?;
    let slots = options.slots.unwrap_or(1);
    if let Some(all) = options.limit.filter(|all| *all < slots) {
        return Err(Error::new(limit.span(), format!("{slots} slots are asked of a limit that has {all}")));
    }
    Ok(Want { limit, slots, declare: options.limit })
}

/// The name of a limit, if it is one.
fn named(limit: LitStr) -> Result<LitStr> {
    if limit.value().trim().is_empty() { Err(Error::new(limit.span(), "a limit needs a name")) } else { Ok(limit) }
}
