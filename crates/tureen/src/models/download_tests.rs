//! Downloads against a server that cuts, lies, redirects and waits.

use super::super::test_server::{PATIENCE, Page, Server, client};
use super::*;

struct Case {
    server: Server,
    folder: tempfile::TempDir,
}

fn case(page: Page) -> Case {
    let server = Server::start();
    server.serve("/m.gguf", page);
    Case { server, folder: tempfile::tempdir().unwrap() }
}

/// Different in every part, so that a piece in the wrong place shows.
fn contents() -> Vec<u8> {
    (0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

impl Case {
    fn wanted(&self) -> Wanted {
        Wanted { url: self.server.url_of("/m.gguf"), name: "m.gguf".to_string(), sha256: None, bytes: None }
    }

    fn download(&self, wanted: &Wanted) -> anyhow::Result<Fetched> {
        download(&client(), wanted, self.folder.path())
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join(name)).ok()
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.server.seen().iter().map(|seen| seen.headers.get("range").cloned()).collect()
    }
}

#[test]
fn a_file_arrives_whole_with_its_hash() {
    let case = case(Page::new(contents()));
    let fetched = case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), contents());
    assert_eq!((fetched.bytes, fetched.sha256, fetched.verified), (400_000, sha256(&contents()), false));
    assert!(case.read("m.gguf.partial").is_none() && case.read("m.gguf.partial.json").is_none());
}

#[test]
fn a_cut_connection_is_taken_up_where_it_ended() {
    let page = Page { cuts: vec![100_000, 70_000], ..Page::new(contents()) }.header("etag", "\"one\"");
    let case = case(page);
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), contents());
    let ranges = [None, Some("bytes=100000-".to_string()), Some("bytes=170000-".to_string())];
    assert_eq!(case.ranges(), ranges);
    assert_eq!(case.server.seen()[1].headers["if-range"], "\"one\"");
}

#[test]
fn the_next_run_goes_on_where_the_last_one_gave_up() {
    let page =
        Page { cuts: vec![100_000], failures: vec![], ..Page::new(contents()) }.header("etag", "\"one\"");
    let case = case(page.clone());
    let impatient = Client::new(super::super::http::Patience { retries_max: 0, ..PATIENCE }, None).unwrap();
    // The first try makes progress, so one more is allowed; the server fails that one.
    case.server.serve("/m.gguf", Page { cuts: vec![100_000, 0], ..page });
    let error = download(&impatient, &case.wanted(), case.folder.path()).unwrap_err().to_string();
    assert!(error.contains("What is here is kept: the same command goes on"), "{error}");
    assert_eq!(case.read("m.gguf.partial").unwrap().len(), 100_000);
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), contents());
    assert_eq!(case.ranges().last().unwrap().as_deref(), Some("bytes=100000-"));
}

#[test]
fn a_server_that_drips_is_given_up() {
    let case = case(Page { drip: true, ..Page::new(contents()) });
    let error = case.download(&case.wanted()).unwrap_err().to_string();
    assert!(error.contains("too slow to wait for; 3 tries failed"), "{error}");
}

#[test]
fn a_page_that_drips_is_given_up() {
    let case = case(Page { drip: true, ..Page::new("") });
    let error = client().page(&case.server.url_of("/m.gguf"), &[]).unwrap_err().to_string();
    assert!(error.ends_with("no whole page within 1 s"), "{error}");
    assert_eq!(case.server.seen().len(), 3);
}

#[test]
fn a_file_without_an_end_is_given_up() {
    let page = Page { length: false, ..Page::new(vec![7; 2 << 20]) };
    let case = case(page);
    let wanted = Wanted { sha256: Some("0".repeat(64)), ..case.wanted() };
    let error = case.download(&wanted).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes: given up"), "{error}");
    assert!(case.read("m.gguf.partial").is_none());
    let wanted = Wanted { bytes: Some(5), ..wanted };
    let error = case.download(&wanted).unwrap_err().to_string();
    assert!(error.contains("more than the 5 bytes came that were announced; 3 tries failed"), "{error}");
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_anew() {
    let page = Page { cuts: vec![100_000, 0, 0, 0], ..Page::new(contents()) }.header("etag", "\"one\"");
    let case = case(page);
    case.download(&case.wanted()).unwrap_err();
    let other: Vec<u8> = contents().into_iter().rev().collect();
    case.server.serve("/m.gguf", Page::new(other.clone()).header("etag", "\"two\""));
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), other);
}

/// A server that is cut off and answers the try to go on with `part`.
fn going_on_with(part: &'static str) -> (Case, anyhow::Result<Fetched>) {
    let page = Page { cuts: vec![100_000], part: Some(part), ..Page::new(contents()) };
    let case = case(page.header("etag", "\"one\""));
    let fetched = case.download(&case.wanted());
    (case, fetched)
}

#[test]
fn a_part_of_another_file_is_not_joined_to_what_is_here() {
    let parts = [
        // Another validator, though the range named the first one.
        "HTTP/1.1 206 Part\r\netag: \"two\"\r\ncontent-range: bytes 100000-399999/400000\r\ncontent-length: 300000\r\n\r\n",
        // No validator at all.
        "HTTP/1.1 206 Part\r\ncontent-range: bytes 100000-399999/400000\r\ncontent-length: 300000\r\n\r\n",
        // A shorter file, that ends where we are.
        "HTTP/1.1 206 Part\r\netag: \"one\"\r\ncontent-range: bytes 100000-100000/100000\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 416 Range\r\ncontent-range: bytes */100000\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 416 Range\r\netag: \"two\"\r\ncontent-range: bytes */100000\r\ncontent-length: 0\r\n\r\n",
    ];
    for part in parts {
        let (case, fetched) = going_on_with(part);
        assert_eq!(fetched.unwrap().sha256, sha256(&contents()), "{part}");
        let ranges = [None, Some("bytes=100000-".to_string()), None];
        assert_eq!(case.ranges(), ranges, "{part}");
    }
}

#[test]
fn a_file_that_is_always_another_is_given_up() {
    let part = "HTTP/1.1 416 Range\r\ncontent-range: bytes */100000\r\ncontent-length: 0\r\n\r\n";
    let page = Page { cuts: vec![100_000; 9], part: Some(part), ..Page::new(contents()) };
    let case = case(page.header("etag", "\"one\""));
    let error = case.download(&case.wanted()).unwrap_err().to_string();
    assert!(error.contains("3 tries failed"), "{error}");
    assert!(case.read("m.gguf").is_none());
}

#[test]
fn a_length_beyond_all_files_is_no_panic() {
    let part = "HTTP/1.1 206 Part\r\netag: \"one\"\r\ncontent-range: bytes 100000-*/*\r\ncontent-length: 18446744073709551615\r\n\r\n";
    let page = Page { cuts: vec![100_000], part: Some(part), ..Page::new(contents()) };
    let case = case(page.header("etag", "\"one\""));
    let state = Partial {
        identity: case.wanted().url.identity(),
        validator: Some("\"one\"".to_string()),
        ..Partial::default()
    };
    std::fs::write(case.folder.path().join("m.gguf.partial"), &contents()[..100_000]).unwrap();
    std::fs::write(case.folder.path().join("m.gguf.partial.json"), serde_json::to_vec(&state).unwrap())
        .unwrap();
    let error = case.download(&case.wanted()).unwrap_err().to_string();
    assert!(error.contains("tries failed"), "{error}");
}

#[test]
fn a_file_in_another_form_than_asked_for_is_refused() {
    let coded = case(Page::new(contents()).header("content-encoding", "gzip"));
    let error = coded.download(&coded.wanted()).unwrap_err().to_string();
    assert!(error.contains("sends the file as gzip"), "{error}");
    let plain = case(Page::new(contents()).header("content-encoding", "identity"));
    plain.download(&plain.wanted()).unwrap();

    let nowhere = case(Page { status: 416, ..Page::new("") }.header("content-range", "bytes */0"));
    let error = nowhere.download(&nowhere.wanted()).unwrap_err().to_string();
    assert!(error.contains("answers 416 (no such range) where all of the file was asked for"), "{error}");
}

#[test]
fn without_a_validator_or_a_hash_nothing_is_resumed() {
    let case = case(Page { cuts: vec![100_000], ..Page::new(contents()) });
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), contents());
    assert_eq!(case.ranges(), [None, None]);
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let page = Page { cuts: vec![100_000], ranges: false, ..Page::new(contents()) }.header("etag", "\"one\"");
    let case = case(page);
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), contents());
}

#[test]
fn a_wrong_hash_leaves_nothing_and_says_so() {
    let case = case(Page::new(contents()));
    let wanted = Wanted { sha256: Some("0".repeat(64)), ..case.wanted() };
    let error = case.download(&wanted).unwrap_err().to_string();
    assert!(error.contains(&"0".repeat(64)) && error.contains(&sha256(&contents())), "{error}");
    assert!(case.read("m.gguf").is_none() && case.read("m.gguf.partial").is_none());
}

#[test]
fn a_bad_beginning_is_dropped_and_the_file_fetched_anew() {
    let page = Page { cuts: vec![100_000, 0, 0, 0], ..Page::new(contents()) }.header("etag", "\"one\"");
    let case = case(page.clone());
    let wanted = Wanted { sha256: Some(sha256(&contents())), ..case.wanted() };
    case.download(&wanted).unwrap_err();
    std::fs::write(case.folder.path().join("m.gguf.partial"), vec![7; 100_000]).unwrap();
    case.server.serve("/m.gguf", Page { cuts: vec![], ..page });
    let fetched = case.download(&wanted).unwrap();
    assert!(fetched.verified);
    assert_eq!(case.read("m.gguf").unwrap(), contents());
}

#[test]
fn what_was_received_whole_is_not_asked_for_again() {
    let case = case(Page { cuts: vec![400_000], ..Page::new(contents()) }.header("etag", "\"one\""));
    case.download(&case.wanted()).unwrap();
    // As if the process had died between the last byte and the name.
    std::fs::rename(case.folder.path().join("m.gguf"), case.folder.path().join("m.gguf.partial")).unwrap();
    let state = Partial {
        identity: case.wanted().url.identity(),
        validator: Some("\"one\"".to_string()),
        sha256: None,
        total: Some(400_000),
    };
    std::fs::write(case.folder.path().join("m.gguf.partial.json"), serde_json::to_vec(&state).unwrap())
        .unwrap();
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), contents());
    let asked = case.ranges().len();
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.ranges().len(), asked, "a finished file of an unfinished pull is kept");
}

#[test]
fn refusals_are_final_and_failures_are_tried_again() {
    let refused = case(Page { status: 403, ..Page::new("") });
    let error = refused.download(&refused.wanted()).unwrap_err().to_string();
    assert!(error.ends_with("/m.gguf answers 403 Forbidden"), "{error}");
    assert_eq!(refused.server.seen().len(), 1);

    let failing = case(Page { failures: vec![503, 500], ..Page::new(contents()) });
    failing.download(&failing.wanted()).unwrap();
    assert_eq!(failing.server.seen().len(), 3);

    let broken = case(Page { failures: vec![503; 9], ..Page::new(contents()) });
    let error = broken.download(&broken.wanted()).unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("3 tries"), "{error}");
}

#[test]
fn a_server_that_stops_sending_is_left() {
    let case = case(Page { delay: std::time::Duration::from_secs(30), ..Page::new(contents()) });
    let started = std::time::Instant::now();
    let error = case.download(&case.wanted()).unwrap_err().to_string();
    assert!(error.contains("timeout") && error.contains("3 tries"), "{error}");
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn redirects_are_followed_and_the_first_answer_heard() {
    let case =
        case(Page::redirect("/deep/er").header("x-linked-etag", &format!("\"{}\"", sha256(&contents()))));
    case.server.serve("/deep/er", Page::redirect("../last?x=1"));
    case.server.serve("/last?x=1", Page::new(contents()));
    let fetched = case.download(&case.wanted()).unwrap();
    assert!(fetched.verified, "the hash of the first answer counts");

    case.server.serve("/m.gguf", Page::redirect("/m.gguf"));
    let error =
        case.download(&Wanted { name: "again".to_string(), ..case.wanted() }).unwrap_err().to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn a_token_stays_with_its_host() {
    let case = case(Page::new(""));
    let other = Server::start();
    // The same machine under another name and port.
    case.server.serve("/m.gguf", Page::redirect(&format!("{}/m.gguf", other.url)));
    other.serve("/m.gguf", Page::new(contents()));
    let host = case.wanted().url.host;
    let client = client().with_token(&host, Some("secret".to_string()));
    download(&client, &case.wanted(), case.folder.path()).unwrap();
    assert_eq!(case.server.seen()[0].headers["authorization"], "Bearer secret");
    assert!(!other.seen()[0].headers.contains_key("authorization"));
}

#[test]
fn a_size_that_differs_from_the_listing_is_refused() {
    let case = case(Page::new(contents()));
    let error = case.download(&Wanted { bytes: Some(7), ..case.wanted() }).unwrap_err().to_string();
    assert!(error.contains("says 7 bytes, the server sends 400000"), "{error}");
}

#[test]
fn parts_are_asked_for_until_the_file_is_whole() {
    let page =
        Page { cuts: vec![5000], part_max: 150_000, ..Page::new(contents()) }.header("etag", "\"one\"");
    let case = case(page);
    case.download(&case.wanted()).unwrap();
    assert_eq!(case.read("m.gguf").unwrap(), contents());
}

#[test]
fn a_part_that_nobody_asked_for_is_no_file() {
    let page =
        Page { status: 206, ..Page::new(&contents()[..100]) }.header("content-range", "bytes 0-99/400000");
    let case = case(page);
    let error = case.download(&case.wanted()).unwrap_err().to_string();
    assert!(error.contains("a part of the file where all of it was asked for"), "{error}");
    assert!(case.read("m.gguf").is_none());
}

#[test]
fn an_end_that_cannot_be_told_from_a_cut_needs_a_hash() {
    let case = case(Page { length: false, cuts: vec![7000, 400_000], ..Page::new(contents()) });
    let error = case.download(&case.wanted()).unwrap_err().to_string();
    assert!(error.contains("doesn't say how long the file is"), "{error}");
    let wanted = Wanted { sha256: Some(sha256(&contents())), ..case.wanted() };
    assert!(case.download(&wanted).unwrap().verified);
    assert_eq!(case.read("m.gguf").unwrap(), contents());
}

#[test]
fn a_full_disk_says_what_to_do() {
    let error =
        disk_error(std::io::Error::from(ErrorKind::StorageFull), Path::new("/m/a.partial")).to_string();
    assert!(error.contains("no space left for /m/a.partial") && error.contains("tureen rm"), "{error}");
}
