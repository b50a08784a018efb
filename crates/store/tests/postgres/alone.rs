//! What only PostgreSQL can do wrong: not be there, know another folder, go away, be of tomorrow; and machines that
//! share it.

use std::net::TcpListener;

use store::{DatabaseUrl, JobRun, ModelName, State, Store};

use super::place::{folder_and_store, opened_anew, server};

fn create(store: &Store) -> String {
    store.create_job("train", &ModelName::parse("digits").unwrap(), "a = 1\n", &[]).unwrap().id
}

fn name_of(store: &Store) -> String {
    store.database_url().unwrap().secret_text().rsplit('/').next().unwrap().to_owned()
}

#[test]
fn errors_say_the_way_out_and_no_password() {
    let Some(server) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let check = |url: &str, expected: &str| {
        let url = DatabaseUrl::parse(url).unwrap();
        let store = Store::with_database(folder.path(), Some(url));
        let error = store.jobs().unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        assert!(error.starts_with("the store's database postgres://"), "{error}");
    };
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(&format!("postgres://a:hush@{unused}/b"), "connection refused");
    check(&server.url("postgres").replace("secret", "hush"), "the password of tureen is wrong");
    check(&server.url("nothing"), "createdb nothing");
    server.ask("postgres", "CREATE ROLE guest LOGIN PASSWORD 'hush'");
    check(
        &server.url("postgres").replace("tureen:secret", "guest:hush"),
        "GRANT CREATE ON DATABASE postgres TO guest",
    );
}

#[test]
fn tables_of_tomorrow_are_left_alone() {
    let Some((_folder, store)) = folder_and_store() else { return };
    create(&store);
    server().unwrap().ask(&name_of(&store), "UPDATE tureen.about SET form = 99");
    let error = opened_anew(&store).jobs().unwrap_err().to_string();
    assert!(error.ends_with("has form 99, and this tureen reads form 1: use a newer tureen"), "{error}");
}

#[test]
fn a_database_is_of_one_folder() {
    let Some((folder, store)) = folder_and_store() else { return };
    create(&store);
    let other = folder.path().join("others");
    std::fs::create_dir(&other).unwrap();
    let other = Store::with_database(&other, store.database_url().cloned());
    let error = other.jobs().unwrap_err().to_string();
    assert!(error.contains("is of another models folder"), "{error}");
    // The same folder by another way.
    let moved = folder.path().join("moved");
    std::fs::rename(store.folder(), &moved).unwrap();
    assert_eq!(Store::with_database(&moved, store.database_url().cloned()).jobs().unwrap().len(), 1);
}

#[test]
fn a_connection_that_was_cut_is_made_anew() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let id = create(&store);
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'",
        name_of(&store)
    );
    for _ in 0..3 {
        assert_eq!(server().unwrap().ask("postgres", &cut).trim(), "1");
        assert_eq!(store.job(&id).unwrap().unwrap().state, State::Queued);
        create(&store);
    }
    assert_eq!(store.jobs().unwrap().len(), 4);
}

#[test]
fn a_job_is_taken_by_one_machine() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let ids: Vec<String> = (0..20).map(|_| create(&store)).collect();
    let taken = std::thread::scope(|scope| {
        let take = || {
            let store = opened_anew(&store);
            std::iter::from_fn(|| store.claim_job(100).unwrap()).map(|job| job.id).collect::<Vec<String>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<String>>()
    });
    let mut sorted = taken.clone();
    sorted.sort();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(sorted, expected, "each once");
}

#[test]
fn a_job_of_another_machine_is_gone_when_it_is_not_heard_of() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let (id, database) = (create(&store), name_of(&store));
    drop(JobRun::begin(&store, &id).unwrap());
    let set = |what: &str| server().unwrap().ask(&database, &format!("UPDATE tureen.jobs SET {what}"));
    // As where locks aren't seen by other machines: it is free here, and the job lives there.
    set("host = 'elsewhere', seen = tureen.unixepoch()");
    assert!(store.reap_jobs().unwrap().is_empty());
    let another = create(&store);
    assert_eq!(store.claim_job(1).unwrap().unwrap().id, another, "places are each machine's own");
    set("seen = tureen.unixepoch() - 61");
    assert_eq!(store.reap_jobs().unwrap().len(), 2);
    assert_eq!(store.job(&id).unwrap().unwrap().state, State::Interrupted);
}
