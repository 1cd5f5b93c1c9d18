//! Records of tags: by whom they are written, when they are believed, when they are taken away (rules T1 to T3).

use super::*;

#[tokio::test]
async fn t1_a_pull_by_tag_leaves_a_record_that_cri_shows() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let request = relay.pins("busybox", ONE, "sha256:aa", Some(1));
    assert_eq!(caller.call(PULL, request).await.status().0, Code::Ok);
    let name = "docker.io/library/busybox:latest";
    assert_eq!(relay.fake.state.target(name).as_deref(), Some(ONE));
    let record = relay.fake.state.records.lock().unwrap()[name].clone();
    assert_eq!(record.labels["io.cri-containerd.image"], "managed");
    assert_eq!(record.target.unwrap().size, 7, "copied from containerd's own record");
    for call in relay.fake.state.calls("/Create") {
        assert_eq!(call.headers["containerd-namespace"], "k8s.io");
    }

    let request = relay.pins("busybox", TWO, "sha256:bb", Some(2));
    assert_eq!(caller.call(PULL, request).await.status().0, Code::Ok);
    assert_eq!(relay.fake.state.target(name).as_deref(), Some(TWO), "a moved tag moves");
    let request = relay.pins("busybox", TWO, "sha256:bb", Some(3));
    assert_eq!(caller.call(PULL, request).await.status().0, Code::Ok);
    assert_eq!(relay.fake.state.calls("/Update").len(), 1, "only if the target differs");
}

#[tokio::test]
async fn t1_an_older_resolution_does_not_overwrite_a_newer_one() {
    let mut relay = Relay::start();
    let pulling = Arc::new(Semaphore::new(0));
    *relay.fake.state.pull.lock().unwrap() = Pull::Wait(Arc::clone(&pulling));
    let caller = relay.caller().await;
    let request = relay.pins("busybox", ONE, "sha256:aa", Some(1));
    let older = tokio::spawn({
        let caller = caller.clone();
        async move { caller.call(PULL, request).await.status() }
    });
    assert_eq!(relay.fake.event().await, Event::Began("pull"));

    *relay.fake.state.pull.lock().unwrap() = Pull::Succeed;
    let request = relay.pins("busybox", TWO, "sha256:bb", Some(2));
    assert_eq!(caller.call(PULL, request).await.status().0, Code::Ok);
    pulling.add_permits(1);
    let (code, message) = older.await.unwrap();
    assert_eq!(code, Code::Unavailable);
    assert!(message.contains("the tag moved during the pull"), "{message}");
    assert_eq!(relay.fake.state.target("docker.io/library/busybox:latest").as_deref(), Some(TWO));
}

#[tokio::test]
async fn t2_no_record_for_a_digest_or_for_what_was_not_resolved() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    for (image, resolved) in [
        (format!("busybox:1@{ONE}"), Some(1)),
        (format!("busybox@{ONE}"), Some(2)),
        ("busybox:1".into(), None),
    ] {
        let request = relay.pins(&image, ONE, "sha256:aa", resolved);
        assert_eq!(caller.call(PULL, request).await.status().0, Code::Ok, "{image}");
    }
    assert_eq!(caller.call(PULL, pull_request("busybox:1")).await.status().0, Code::Ok, "as sent");
    let names: Vec<_> = relay.fake.state.records.lock().unwrap().keys().cloned().collect();
    assert_eq!(names, [format!("busybox@{ONE}"), format!("docker.io/library/busybox@{ONE}")][1..]);
}

#[tokio::test]
async fn t3_a_record_that_cri_does_not_show_is_removed_and_the_pull_fails() {
    let relay = Relay::start();
    relay.fake.state.takes_up_records.store(false, Ordering::SeqCst);
    let caller = relay.caller().await;
    let request = relay.pins("busybox", ONE, "sha256:aa", Some(1));
    let (code, message) = caller.call(PULL, request).await.status();
    assert_eq!(code, Code::Unavailable);
    assert!(message.ends_with("tag record not visible"), "{message}");
    assert_eq!(relay.fake.state.target("docker.io/library/busybox:latest"), None);
    assert_eq!(relay.proxy.counts().tags_not_visible.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn t3_a_record_that_was_there_or_that_cri_says_nothing_of_stays() {
    let relay = Relay::start();
    let state = &relay.fake.state;
    let caller = relay.caller().await;
    let request = relay.pins("busybox", ONE, "sha256:aa", Some(1));
    state.hangs.store(true, Ordering::SeqCst);
    let (code, message) = caller.call(PULL, request).await.status();
    assert_eq!((code, message.ends_with("tag record not visible")), (Code::Unavailable, true), "{message}");
    assert_eq!(state.target("docker.io/library/busybox:latest").as_deref(), Some(ONE), "silent");

    state.hangs.store(false, Ordering::SeqCst);
    state.takes_up_records.store(false, Ordering::SeqCst);
    let request = relay.pins("busybox", ONE, "sha256:aa", Some(2));
    assert_eq!(caller.call(PULL, request).await.status().0, Code::Unavailable);
    assert_eq!(state.target("docker.io/library/busybox:latest").as_deref(), Some(ONE), "was there before");
    assert_eq!(relay.proxy.counts().tags_not_visible.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn t1_a_record_is_copied_moved_or_kept() {
    let relay = Relay::start();
    let client = Client::new(relay.fake.socket());
    let state = &relay.fake.state;
    let (one, two) = (ONE.parse().unwrap(), TWO.parse().unwrap());
    let write = |pinned: &'static str, digest, existing| {
        let client = client.clone();
        async move { client.write_tag_record("a:1", pinned, digest, existing).await }
    };
    assert!(matches!(write("a@one", &one, Existing::Replace).await, Err(ContainerdError::Pinned(_))));
    state.add_record("a@one", ONE);
    state.add_record("a@two", TWO);
    assert!(matches!(write("a@one", &two, Existing::Replace).await, Err(ContainerdError::Pinned(_))));
    assert_eq!(state.target("a:1"), None);
    assert_eq!(write("a@one", &one, Existing::Keep).await.unwrap(), TagRecord::Written);
    assert_eq!(write("a@one", &one, Existing::Replace).await.unwrap(), TagRecord::Unchanged);
    let kept = write("a@two", &two, Existing::Keep).await.unwrap();
    assert!(matches!(kept, TagRecord::Kept(target) if target.digest == one));
    assert_eq!(write("a@two", &two, Existing::Replace).await.unwrap(), TagRecord::Written);
    assert_eq!(state.target("a:1").as_deref(), Some(TWO));
}

#[tokio::test]
async fn t3_a_record_that_moved_on_is_not_removed() {
    let relay = Relay::start();
    let client = Client::new(relay.fake.socket());
    relay.fake.state.add_record("a:1", TWO);
    client.remove_tag_record("a:1", &ONE.parse().unwrap()).await.unwrap();
    assert_eq!(relay.fake.state.target("a:1").as_deref(), Some(TWO));
    client.remove_tag_record("a:1", &TWO.parse().unwrap()).await.unwrap();
    assert_eq!(relay.fake.state.target("a:1"), None);
    client.remove_tag_record("a:1", &TWO.parse().unwrap()).await.unwrap();
}
