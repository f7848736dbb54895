//! A result that is not what was stored is computed again, with a warning, and takes the place of the damaged one.

use std::path::Path;

use orchestrator::prelude::*;

use super::{LARGE, database, objects, open, rows, warnings};
use crate::door::Calls;

struct Damage {
    what: &'static str,
    /// Is done to the database.
    sql: &'static str,
    /// Is done to each object.
    object: Option<fn(&Path)>,
    /// Part of the warning.
    said: &'static str,
}

const fn row(what: &'static str, sql: &'static str, said: &'static str) -> Damage {
    Damage { what, sql, object: None, said }
}

const fn object(what: &'static str, object: fn(&Path), said: &'static str) -> Damage {
    Damage { what, sql: "", object: Some(object), said }
}

const OTHER_FORMAT: Damage = row(
    "of another format",
    "INSERT INTO encoding SELECT 99, 'cbor/7', type_name FROM encoding; UPDATE result SET encoding = 99",
    "it is stored as cbor/7, which this version does not read",
);

const OTHER_TYPE: Damage = row(
    "of another type",
    "INSERT INTO encoding SELECT 99, format, 'u8' FROM encoding; UPDATE result SET encoding = 99",
    "it is of type u8",
);

const INLINE: [Damage; 9] = [
    row("truncated", "UPDATE result SET value = substr(value, 1, 3)", "its bytes are not those that were stored"),
    row("with other bytes", "UPDATE result SET value = zeroblob(size)", "its bytes are not those that were stored"),
    row("with another digest", "UPDATE result SET digest = zeroblob(32)", "its bytes are not those that were stored"),
    row("with half a digest", "UPDATE result SET digest = zeroblob(16)", "its record is damaged"),
    OTHER_FORMAT,
    OTHER_TYPE,
    row("of an unknown encoding", "UPDATE result SET encoding = 99", "its record is damaged"),
    row("of nothing", "UPDATE result SET value = NULL", "its record has neither bytes nor the name of an object"),
    row("without a run", "UPDATE result SET run = x'00'", "its record is damaged"),
];

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

const OBJECTS: [Damage; 7] = [
    object("missing", |path| std::fs::remove_file(path).unwrap(), "it is not there any more"),
    object("truncated", |path| overwrite(path, |bytes| bytes.truncate(10)), "it has 10 bytes instead of 2"),
    object("empty", |path| overwrite(path, Vec::clear), "it has 0 bytes instead of 2"),
    object(
        "with a flipped bit",
        |path| overwrite(path, |bytes| bytes[5_000] ^= 1),
        "its bytes are not those that were stored",
    ),
    OTHER_FORMAT,
    OTHER_TYPE,
    row("with the name of no object", "UPDATE result SET location = 'none/such'", "it is not there any more"),
];

/// Of texts of a size.
fn calls(bytes: usize) -> &'static Calls {
    static SHORT: Calls = Calls::new();
    static LONG: Calls = Calls::new();
    if bytes < LARGE { &SHORT } else { &LONG }
}

#[task(persist)]
async fn text(bytes: usize) -> String {
    calls(bytes).one();
    "y".repeat(bytes)
}

/// Gives its results away before it fails, always.
#[flow]
async fn never_done(bytes: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let text = text(bytes).await?;
    assert_eq!(*text, "y".repeat(bytes));
    Err("as always".into())
}

async fn check(bytes: usize, damages: &[Damage]) {
    let (said, _guard) = warnings();
    for Damage { what, sql, object, said: expected } in damages {
        let folder = tempfile::tempdir().unwrap();
        let orchestrator = open(folder.path()).await;
        let id = orchestrator
            .scope(async {
                let run = never_done(bytes);
                (&run).await.unwrap_err();
                run.run_id()
            })
            .await;
        let before = calls(bytes).get();
        let resume = async || {
            said.take();
            orchestrator.resume(id).await.unwrap_err();
            (calls(bytes).get() - before, said.take())
        };
        let (ran, warned) = resume().await;
        assert_eq!((ran, warned.contains("persisted result")), (0, false), "{what}: {warned}");

        assert_eq!(orchestrator.check_store().await.unwrap(), [], "{what}: nothing happened yet");
        database(folder.path()).execute_batch(sql).unwrap();
        if let Some(damage) = object {
            objects(folder.path()).iter().for_each(|path| damage(path));
            let findings = orchestrator.check_store().await.unwrap();
            let finding = findings.first().map(ToString::to_string).unwrap_or_default();
            assert!(finding.contains(expected) && finding.contains("/results/"), "{what}: {findings:?}");
        }
        let (ran, warned) = resume().await;
        assert_eq!(ran, 1, "{what}");
        let name = "Task run 'text-0' runs again, its persisted result is of no use: ";
        let place = folder.path().display().to_string();
        for part in [name, expected, &*place] {
            assert!(warned.contains(part), "{what}: '{part}' is not in {warned}");
        }
        assert_eq!(rows(folder.path()), if bytes < LARGE { (1, 0) } else { (0, 1) }, "{what}: there is another one");

        let (ran, warned) = resume().await;
        assert_eq!((ran, warned.contains("persisted result")), (1, false), "{what}: that one is found: {warned}");
        assert_eq!(orchestrator.check_store().await.unwrap(), [], "{what}");
        let left = objects(folder.path()).len();
        // An object whose name was lost is found by nobody.
        let expected = usize::from(bytes >= LARGE) + usize::from(sql.contains("none/such"));
        assert_eq!(left, expected, "{what}: the damaged object is gone");
        orchestrator.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn in_the_database() {
    check(20, &INLINE).await;
}

#[tokio::test]
async fn in_an_object() {
    check(LARGE, &OBJECTS).await;
}
