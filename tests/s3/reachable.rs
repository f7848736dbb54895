//! The server is there.

use orchestrator::ResultStore as _;
use orchestrator::results::{Bytes, ObjectResults};

use super::*;

#[tokio::test]
#[ignore = "needs a server: tests/s3/run"]
async fn an_object_is_written_once_and_read_and_listed_and_deleted() {
    let store = ObjectResults::open(&url("once")).unwrap();
    assert_eq!(store.get("a/b").await.unwrap(), None);
    assert!(store.put("a/b", Bytes::from_static(b"first")).await.unwrap());
    assert!(!store.put("a/b", Bytes::from_static(b"second")).await.unwrap(), "there is one");
    assert_eq!(store.get("a/b").await.unwrap().unwrap(), "first");
    assert!(store.put("ab/c", Bytes::new()).await.unwrap());
    let large = Bytes::from(vec![7; 12 << 20]);
    assert!(store.put("a/large", large.clone()).await.unwrap());
    assert_eq!(store.get("a/large").await.unwrap().unwrap(), large);
    let mut names = store.list("a").await.unwrap();
    names.sort_unstable();
    assert_eq!(names, ["a/b", "a/large"]);
    store.delete("a/b").await.unwrap();
    store.delete("a/b").await.unwrap();
    assert_eq!(store.get("a/b").await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs a server: tests/s3/run"]
async fn results_are_found_later_and_go_with_their_run() {
    let folder = tempfile::tempdir().unwrap();
    let url = url("later");
    let store = ObjectResults::open(&url).unwrap();
    let first = open(folder.path(), &*url).await;
    let id = failed(&first, "later", 3).await;
    first.shutdown().await.unwrap();
    assert_eq!((rows(folder.path()), store.list(&id.to_string()).await.unwrap().len()), (3, 3));

    let later = open(folder.path(), &*url).await;
    let (said, _guard) = warnings();
    later.resume(id).await.unwrap_err();
    assert_eq!((calls("later"), said.take()), (3, String::new()));
    assert_eq!(later.check_store().await.unwrap(), []);
    later.remove_runs([id]).await.unwrap();
    later.shutdown().await.unwrap();
    assert_eq!(store.list(&id.to_string()).await.unwrap(), [] as [String; 0]);
}

#[tokio::test]
#[ignore = "needs a server: tests/s3/run"]
async fn what_is_missing_or_truncated_or_foreign_is_computed_again() {
    let changes: [(Option<&'static [u8]>, &str); 3] = [
        (None, "it is not there any more"),
        (Some(b"short"), "it has 5 bytes instead of 20003"),
        (Some(&[7; 20003]), "its bytes are not those that were stored"),
    ];
    let (said, _guard) = warnings();
    for (number, (bytes, expected)) in changes.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let test = format!("changed-{number}");
        let url = url(&test);
        let store = ObjectResults::open(&url).unwrap();
        let orchestrator = open(folder.path(), &*url).await;
        let id = failed(&orchestrator, &test, 1).await;
        let name = store.list(&id.to_string()).await.unwrap().remove(0);
        store.delete(&name).await.unwrap();
        if let Some(bytes) = bytes {
            assert!(store.put(&name, Bytes::from_static(bytes)).await.unwrap());
        }
        let findings = orchestrator.check_store().await.unwrap();
        let place = format!("cannot read the object {url}/{name}: {expected}");
        assert!(findings.len() == 1 && findings[0].what.contains(&place), "{findings:?}");
        said.take();
        orchestrator.resume(id).await.unwrap_err();
        let warned = said.take();
        let expected = format!("Task run 'page-0' runs again, its persisted result is of no use: {place}");
        assert!(warned.contains(&expected), "{warned}");
        orchestrator.resume(id).await.unwrap_err();
        assert_eq!((calls(&test), said.take()), (2, String::new()), "the new one is found");
        let names = store.list(&id.to_string()).await.unwrap();
        assert!(names.len() == 1 && names[0] != name, "the damaged one is gone: {names:?}");
        orchestrator.shutdown().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a server: tests/s3/run"]
async fn a_bucket_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path(), "s3://nobodys-bucket/results").await;
    let (said, _guard) = warnings();
    failed(&orchestrator, "no bucket", 1).await;
    let warned = said.take();
    let expected =
        "the result of Task run 'page-0' is not persisted: cannot write the object s3://nobodys-bucket/results/";
    assert!(warned.contains(expected) && warned.contains("NoSuchBucket"), "{warned}");
    assert_eq!(rows(folder.path()), 0);
}
