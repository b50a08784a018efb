//! The table of jobs: turns, stops, resumes, processes that are gone, what is published.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "place/mod.rs"]
mod place;

use std::collections::BTreeMap;

use place::folder_and_store;
use serde_json::json;
use store::{EventFile, JobRun, Manifest, ModelName, Reference, State, Stop, Store};

fn create(store: &Store) -> String {
    store.create_job("train", &ModelName::parse("digits").unwrap(), "a = 1\n", &[]).unwrap().id
}

fn state(store: &Store, id: &str) -> State {
    store.job(id).unwrap().unwrap().state
}

fn upload(store: &Store, contents: &[u8]) -> String {
    let mut receiving = store.receive(100, 1000).unwrap();
    receiving.write(contents).unwrap();
    store.keep(receiving, "samples.csv", "train").unwrap().id
}

#[test]
fn jobs_take_turns() {
    let Some((_folder, store)) = folder_and_store() else { return };
    assert!(store.claim_job(1).unwrap().is_none() && !store.folder().exists());
    let (first, second) = (create(&store), create(&store));
    assert_eq!(store.claim_job(1).unwrap().unwrap().id, first);
    assert!(store.claim_job(1).unwrap().is_none(), "one at a time");
    assert_eq!(store.claim_job(2).unwrap().unwrap().id, second);
    let ids: Vec<String> = store.jobs().unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(ids, [second, first], "newest first");
}

#[test]
fn a_job_is_given_its_files_and_publishes_a_version() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let file = upload(&store, b"1,2");
    let model = ModelName::parse("digits").unwrap();
    let files = [("samples.csv".to_owned(), file.clone())];
    let id = store.create_job("train", &model, "a = 1\n", &files).unwrap().id;
    assert!(store.delete_upload(&file).unwrap() && !store.delete_upload(&file).unwrap());
    let mut run = JobRun::begin(&store, &id).unwrap();
    assert!(JobRun::begin(&store, &id).is_err(), "one process a job");
    assert_eq!(std::fs::read_to_string(run.folder.definition()).unwrap(), "a = 1\n");
    let beside = run.folder.definition().with_file_name("samples.csv");
    assert_eq!(std::fs::read_to_string(beside).unwrap(), "1,2", "though the upload is deleted");
    assert!(!run.tell(&json!({ "event": "step", "step": 1 }), true).unwrap());
    let out = run.folder.work().join("model.onnx");
    std::fs::write(&out, "weights").unwrap();
    let metrics = BTreeMap::from([("loss".to_owned(), 0.5), ("val_loss".to_owned(), f64::NAN)]);
    let (entry, parent) = ("model.onnx".to_owned(), Some("digits@7".to_owned()));
    let known = Manifest { entry, parent, metrics, ..Manifest::default() };
    let version = run.publish(&[out], known).unwrap();
    assert!(run.published().unwrap().is_some(), "a process that goes on after a kill knows");
    run.done(&version).unwrap();
    let found = store.find(&Reference::parse("digits").unwrap()).unwrap().unwrap();
    assert_eq!((found.id().as_str(), found.manifest.job.as_deref()), ("digits@1", Some(id.as_str())));
    assert_eq!(found.manifest.parent.as_deref(), Some("digits@7"));
    assert_eq!(found.manifest.metrics, [("loss".to_owned(), 0.5)].into());
    assert!(store.verify(&found, |_| {}).unwrap().is_empty());
    let job = store.job(&id).unwrap().unwrap();
    assert_eq!(
        (job.state, job.version, job.progress.unwrap()["step"].as_u64()),
        (State::Done, Some(1), Some(1))
    );
    let events = EventFile(&store.job_folder(&id).events()).after(0).unwrap();
    assert!(events.last().unwrap().1.contains("digits@1"), "{events:?}");
    assert!(!store.job_folder(&id).work().exists());
    assert!(store.resume_job(&id).is_err() && store.stop_job(&id, Stop::Asked).is_err());
}

#[test]
fn a_job_stops_when_it_is_asked_and_goes_on() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let id = create(&store);
    assert_eq!(store.stop_job(&id, Stop::Asked).unwrap().state, State::Stopped, "at once, as it waits");
    store.resume_job(&id).unwrap();
    let mut run = JobRun::begin(&store, &id).unwrap();
    store.stop_job(&id, Stop::Interrupted).unwrap();
    while !run.tell(&json!({}), false).unwrap() {}
    run.stopped().unwrap();
    assert_eq!(state(&store, &id), State::Interrupted);
    store.resume_job(&id).unwrap();
    let mut run = JobRun::begin(&store, &id).unwrap();
    assert!(!run.tell(&json!({}), false).unwrap(), "the wish was for the last time");
    store.stop_job(&id, Stop::Interrupted).unwrap();
    store.stop_job(&id, Stop::Asked).unwrap();
    store.stop_job(&id, Stop::Interrupted).unwrap();
    while !run.tell(&json!({}), false).unwrap() {}
    run.stopped().unwrap();
    assert_eq!(state(&store, &id), State::Stopped, "a person's wish goes first");
}

#[test]
fn a_job_that_has_ended_is_forgotten_with_its_files() {
    let Some((_folder, store)) = folder_and_store() else { return };
    assert!(store.delete_job("job-none").is_err());
    let (id, other) = (create(&store), create(&store));
    assert!(store.delete_job(&id).unwrap_err().to_string().contains("is queued; stop it first"));
    store.claim_job(1).unwrap();
    let run = JobRun::begin(&store, &id).unwrap();
    assert!(store.delete_job(&id).unwrap_err().to_string().contains("is running; stop it first"));
    drop(run);
    assert!(store.close_job(&id, State::Failed, "out of luck").unwrap());
    assert!(store.job_folder(&id).folder.exists());
    store.delete_job(&id).unwrap();
    assert!(!store.job_folder(&id).folder.exists() && store.job(&id).unwrap().is_none());
    assert!(store.delete_job(&id).unwrap_err().to_string().contains(&id), "it is gone");
    assert_eq!(state(&store, &other), State::Queued);
}

#[test]
fn a_process_that_is_gone_is_found() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let id = create(&store);
    store.claim_job(1).unwrap().unwrap();
    assert!(store.reap_jobs().unwrap().is_empty(), "it is only just being started");
    let run = JobRun::begin(&store, &id).unwrap();
    assert!(store.reap_jobs().unwrap().is_empty() && !store.close_job(&id, State::Failed, "").unwrap());
    drop(run);
    assert_eq!(store.reap_jobs().unwrap(), std::slice::from_ref(&id));
    assert_eq!(state(&store, &id), State::Interrupted);
    store.resume_job(&id).unwrap();
    JobRun::begin(&store, &id).unwrap().failed("a label out of range").unwrap();
    let job = store.job(&id).unwrap().unwrap();
    assert_eq!((job.state, job.error.as_deref()), (State::Failed, Some("a label out of range")));
}

#[test]
fn a_job_whose_folder_was_deleted_holds_up_no_other() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let id = create(&store);
    store.claim_job(1).unwrap().unwrap();
    drop(JobRun::begin(&store, &id).unwrap());
    std::fs::remove_dir_all(store.job_folder(&id).events().parent().unwrap()).unwrap();
    assert_eq!(store.reap_jobs().unwrap(), std::slice::from_ref(&id));
    assert_eq!(state(&store, &id), State::Interrupted);
    let next = create(&store);
    assert_eq!(store.claim_job(1).unwrap().map(|job| job.id), Some(next));
}

#[test]
fn what_names_no_file_of_a_job_is_refused() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let file = upload(&store, b"1");
    let model = ModelName::parse("digits").unwrap();
    for (name, id) in [
        ("../x", &file),
        ("a/b", &file),
        (".hidden", &file),
        ("definition.toml", &file),
        ("x", &"file-none".to_owned()),
        ("x", &"../../secret".to_owned()),
    ] {
        assert!(
            store.create_job("train", &model, "", &[(name.to_owned(), id.clone())]).is_err(),
            "{name} {id}"
        );
    }
    assert!(store.jobs().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(store.folder().join(".store/jobs")).unwrap().count(), 0);
}

#[test]
fn uploads_have_limits() {
    let Some((_folder, store)) = folder_and_store() else { return };
    assert!(store.receive(3, 100).unwrap().write(b"1234").is_err());
    upload(&store, b"1234");
    assert!(store.receive(100, 7).unwrap().write(b"1234").is_err(), "all together");
    assert_eq!(store.uploads().unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(store.folder().join(".store/files")).unwrap().count(), 1, "nothing is left");
}
