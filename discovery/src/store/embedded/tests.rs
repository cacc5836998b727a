//! Real files in folders of their own.

use super::*;

fn put(key: &str, value: &str, expect: Expect) -> Vec<Write> {
    vec![Write::put(key, value, expect)]
}

#[tokio::test]
async fn writes_are_numbered_and_survive() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let mut revisions = store.revisions();
    assert_eq!(store.apply(put("a/1", "one", Expect::Absent)).await.unwrap(), 1);
    assert_eq!(store.apply(put("a/2", "two", Expect::Anything)).await.unwrap(), 2);
    assert_eq!(store.apply(put("b/1", "other", Expect::Anything)).await.unwrap(), 3);
    assert_eq!(*revisions.borrow_and_update(), 3);
    drop(store);
    let store = Embedded::open(folder.path()).unwrap();
    let listing = store.list("a/").await.unwrap();
    let keys: Vec<_> = listing.entries.iter().map(|entry| (entry.key.as_str(), entry.revision)).collect();
    assert_eq!((listing.revision, keys), (3, vec![("a/1", 1), ("a/2", 2)]));
    assert_eq!(store.get("b/1").await.unwrap().unwrap().value, b"other");
    assert_eq!(store.get("b/2").await.unwrap(), None);
}

#[tokio::test]
async fn a_write_that_finds_something_else_changes_nothing() {
    let store = Embedded::in_memory().unwrap();
    let first = store.apply(put("key", "1", Expect::Absent)).await.unwrap();
    let check = async |writes: Vec<Write>, expected: Found| match store.apply(writes).await {
        Err(StoreError::Conflict { found, .. }) => assert_eq!(found, expected),
        other => panic!("{other:?} where {expected:?} was to be found"),
    };
    check(put("key", "2", Expect::Absent), Found::Revision(first)).await;
    check(put("key", "2", Expect::Revision(first + 1)), Found::Revision(first)).await;
    check(put("none", "2", Expect::Revision(1)), Found::Nothing).await;
    check(vec![Write::delete("none", Expect::Revision(1))], Found::Nothing).await;
    let mixed = vec![Write::put("new", "x", Expect::Anything), Write::put("key", "2", Expect::Absent)];
    check(mixed, Found::Revision(first)).await;
    assert_eq!(store.get("new").await.unwrap(), None, "all or nothing");
    assert_eq!(store.apply(put("key", "2", Expect::Revision(first))).await.unwrap(), first + 1);
    store.apply(vec![Write::delete("key", Expect::Revision(first + 1))]).await.unwrap();
    assert_eq!(store.get("key").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lease_has_one_holder_until_it_is_over() {
    let store = Embedded::in_memory().unwrap();
    let ttl = Duration::from_secs(10);
    let held = |term| Leased::Held { term };
    let by_a = Leased::HeldBy { holder: "a".to_owned() };
    assert_eq!(store.lease("planner", "a", ttl).await.unwrap(), held(1));
    assert_eq!(store.lease("planner", "b", ttl).await.unwrap(), by_a);
    tokio::time::advance(ttl / 2).await;
    assert_eq!(store.lease("planner", "a", ttl).await.unwrap(), held(1), "renewed");
    tokio::time::advance(ttl / 2).await;
    assert_eq!(store.lease("planner", "b", ttl).await.unwrap(), by_a, "the renewal counts");
    tokio::time::advance(ttl / 2).await;
    assert_eq!(store.lease("planner", "b", ttl).await.unwrap(), held(2));
    store.release("planner", "a").await.unwrap();
    assert_eq!(store.lease("planner", "a", ttl).await.unwrap(), Leased::HeldBy { holder: "b".to_owned() });
    store.release("planner", "b").await.unwrap();
    assert_eq!(store.lease("planner", "a", ttl).await.unwrap(), held(3));
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Embedded::open(folder.path()).unwrap();
    let error = Embedded::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("--state-dir"), "{error}");
}

#[test]
fn what_is_no_store_is_told_with_its_path_and_a_way_out() {
    let check = |content: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, content).unwrap();
        let error = Embedded::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{} is damaged", path.display())), "{error}");
    };
    check(b"this is no database at all");
    check(&[0xff; 100_000]);
}

#[tokio::test]
async fn a_file_with_a_damaged_page_is_refused_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    for i in 0..50 {
        store.apply(put(&format!("key/{i}"), &"x".repeat(500), Expect::Absent)).await.unwrap();
    }
    drop(store);
    let path = folder.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    let damaged = bytes.windows(20).rposition(|window| window == [b'x'; 20]).unwrap();
    for at in (0..bytes.len() - 20).filter(|at| bytes[*at..*at + 20] == [b'x'; 20]).collect::<Vec<_>>() {
        bytes[at] = b'y';
    }
    assert_eq!(bytes[damaged], b'y');
    std::fs::write(&path, bytes).unwrap();
    let error = Embedded::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let error = Embedded::open(Path::new("/proc/nowhere")).unwrap_err();
    assert!(error.to_string().starts_with("/proc/nowhere/discovery.redb cannot be opened"), "{error}");
}
