//! Measures a push to a folder and a pull from there: `copy FILE FOLDER` makes a version of the file in the folder, and
//! says in one line of JSON how many seconds each took. `bench/store/speed` compares that with `cp` and `sha256sum`.

use std::path::Path;
use std::time::Instant;

use store::manifest::{File, Manifest, SCHEMA};
use store::{ModelName, Remote, Store, hash};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, folder] = &arguments[..] else { return Err("copy FILE FOLDER".into()) };
    let folder = Path::new(folder);
    let (here, there) = (Store::new(&folder.join("here")), Store::new(&folder.join("there")));
    let model = ModelName::parse("measured")?;
    let name = Path::new(file).file_name().and_then(|name| name.to_str()).ok_or("a file without a name")?;
    let staging = here.stage(&model)?;
    let staged = staging.folder.join(name);
    std::fs::hard_link(file, &staged)?;
    let (bytes, sha256) = hash::of_file(&staged, |_| {})?;
    let files = vec![File { path: name.to_owned(), bytes, sha256, ..File::default() }];
    let manifest = Manifest { schema: SCHEMA, entry: name.to_owned(), files, ..Manifest::default() };
    let version = here.publish(&staging.folder, &model, manifest)?;
    let remote = Remote::open(&folder.join("remote").to_string_lossy())?;
    let begun = Instant::now();
    let pushed = here.push(&version, &remote, Some(&model), false, &|_| {})?;
    let push_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    there.pull(&remote, ("measured", pushed.number), &model, &|_| {})?;
    let pull_s = begun.elapsed().as_secs_f64();
    let stored = pushed.stored;
    println!(r#"{{"bytes": {bytes}, "stored": {stored}, "push_s": {push_s:.3}, "pull_s": {pull_s:.3}}}"#);
    Ok(())
}
