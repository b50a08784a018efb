//! `pull` from a registry: a manifest that is what its digest says, blobs likewise, and a version of them here. What was
//! received stays for the next try.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ureq::http::Method;

use super::super::Progress;
use super::super::workers::each;
use super::Result;
use super::address::is_digest;
use super::artefact::{Blob, Form, IMAGE, INDEX, Image, LAYERS_MAX, MODEL};
use super::client::{Ask, Client, Failed};
use super::unpack::unpack;
use super::{Address, MANIFEST_BYTES_MAX, THREADS, refused};
use crate::durable::{delete, make_folder, rename};
use crate::error::StoreError;
use crate::manifest::{self, Facts, Manifest, SCHEMA};
use crate::name::ModelName;
use crate::versions::{Store, Version};
use crate::{clock, hash};

/// The end of a file's name that isn't whole.
const PARTIAL: &str = ".partial";
/// Where archives are received, in the staging folder.
const ARCHIVES: &str = ".archives";
const READ_BYTES: usize = 1 << 20;

/// What a registry has under an address.
pub struct Registered {
    client: Client,
    image: Image,
    /// Of its manifest.
    pub digest: String,
}

/// What is to be known of files that somebody else packed.
pub struct Described {
    /// As in [`Manifest::entry`].
    pub entry: String,
    pub facts: Option<Facts>,
}

/// Looks at the files in a folder, of these names: what they are, or why they are no model.
pub type Describe<'a> = &'a dyn Fn(&Path, &[String]) -> Result<Described, String>;

impl Registered {
    /// # Errors
    /// There is nothing there, or no model; the registry can't be reached, or refuses.
    pub fn find(address: &Address) -> Result<Registered> {
        let what = format!("looking for {address}");
        let client = Client::new(address, vec![format!("repository:{}:pull", address.name)])?;
        let accept = format!("{IMAGE}, {INDEX}");
        let url = address.url(&format!("manifests/{}", address.reference));
        let (text, digest) = client.again(|| {
            let ask = Ask { headers: &[("Accept", &accept)], ..Ask::new(&what, Method::GET, url.clone()) };
            let mut answer = client.once(&ask, &[200])?;
            let text = answer.read(&what, MANIFEST_BYTES_MAX)?;
            Ok((text, answer.header("Docker-Content-Digest").map(str::to_owned)))
        })?;
        let came = format!("sha256:{}", hash::of_bytes(&text));
        let asked = address.is_digest().then(|| address.reference.clone());
        let told = asked.or(digest.filter(|digest| is_digest(digest)));
        if let Some(told) = told.filter(|told| *told != came) {
            return Err(refused(what, format!("its manifest is to be {told}, received {came}")));
        }
        let image: Image = serde_json::from_slice(&text)
            .map_err(|error| refused(what.clone(), format!("its manifest can't be read: {error}")))?;
        if !image.is_model() {
            return Err(refused(what, format!("it is no model: artifactType {MODEL} is expected")));
        }
        if image.layers.len() > LAYERS_MAX {
            return Err(refused(what, format!("it has more than {LAYERS_MAX} layers")));
        }
        Ok(Registered { client, image, digest: came })
    }

    /// Of all layers.
    pub fn bytes(&self) -> u64 {
        self.image.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }

    /// As a version's manifest names it.
    pub fn source(&self) -> String {
        format!("{} ({})", self.client.address, self.digest)
    }
}

/// A file, or an archive of files, that is to be received.
struct Wanted<'a> {
    blob: &'a Blob,
    form: Form,
    place: PathBuf,
}

impl Store {
    /// Brings what a registry has here, under `model`. `describe` is asked about files that another program packed.
    ///
    /// # Errors
    /// A blob is missing or isn't what it was; names that lead elsewhere; the disk; the registry can't be reached.
    pub fn pull_from_registry(
        &self,
        from: &Registered,
        model: &ModelName,
        describe: Describe<'_>,
        progress: Progress<'_>,
    ) -> Result<Version> {
        let source = from.source();
        let what = format!("pulling {source}");
        let staging = self.stage(model)?;
        let wanted = wanted(&from.image, &staging.folder, &what)?;
        each(THREADS, &wanted, |wanted| receive(&from.client, wanted, &what, progress))?;
        let mut files = Vec::new();
        for wanted in &wanted {
            if wanted.form == Form::Raw {
                let path = relative(&wanted.place, &staging.folder);
                let sha256 = wanted.blob.digest.trim_start_matches("sha256:").to_owned();
                files.push(manifest::File {
                    path,
                    bytes: wanted.blob.size,
                    sha256,
                    ..manifest::File::default()
                });
            } else {
                files.extend(unpack(&wanted.place, wanted.form, &staging.folder, &what)?);
            }
        }
        delete(&staging.folder.join(ARCHIVES))?;
        let names: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            return Err(refused(what, "two of its files have the same name"));
        }
        staging.keep_only(&names)?;
        for file in &mut files {
            file.verified = true;
            file.origin.clone_from(&source);
        }
        let manifest = match from.image.own() {
            // Numbers and jobs are each store's own.
            Some(own) => Manifest { parent: None, job: None, ..own },
            None => {
                let Described { entry, facts } =
                    describe(&staging.folder, &names).map_err(|why| refused(what, why))?;
                Manifest { created: clock::now(), entry, facts, ..Manifest::default() }
            }
        };
        let manifest = Manifest { schema: SCHEMA, model: model.to_string(), source, files, ..manifest };
        self.publish(&staging.folder, model, manifest)
    }
}

fn relative(place: &Path, folder: &Path) -> String {
    place.strip_prefix(folder).unwrap_or(place).to_string_lossy().into_owned()
}

/// Checks all layers before one is asked for.
fn wanted<'a>(image: &'a Image, folder: &Path, what: &str) -> Result<Vec<Wanted<'a>>> {
    let mut places = BTreeSet::new();
    let mut found = Vec::new();
    for blob in &image.layers {
        let media_type: String = blob.media_type.chars().filter(|c| !c.is_control()).take(100).collect();
        let form = blob.form().ok_or_else(|| {
            refused(
                what.to_owned(),
                format!("layers of {media_type:?} can't be read: raw, tar and tar+gzip can"),
            )
        })?;
        if !is_digest(&blob.digest) {
            return Err(refused(what.to_owned(), "a layer has no digest of sha256"));
        }
        let place = match form {
            Form::Raw => {
                let path = blob.path().filter(|path| is_free(path));
                folder.join(path.ok_or_else(|| {
                    refused(
                        what.to_owned(),
                        format!("a layer of {media_type:?} names no file that may be written"),
                    )
                })?)
            }
            _ => folder.join(ARCHIVES).join(blob.digest.trim_start_matches("sha256:")),
        };
        if !places.insert(place.clone()) {
            return Err(refused(what.to_owned(), "two of its layers are the same file"));
        }
        found.push(Wanted { blob, form, place });
    }
    if found.is_empty() {
        return Err(refused(what.to_owned(), "it has no layers"));
    }
    Ok(found)
}

/// Whether a file of a model may be called that: a few names are ours.
pub fn is_free(path: &str) -> bool {
    path != manifest::FILE_NAME && !path.ends_with(PARTIAL) && !path.starts_with(&format!("{ARCHIVES}/"))
}

fn receive(client: &Client, wanted: &Wanted<'_>, what: &str, progress: Progress<'_>) -> Result<()> {
    let (blob, place) = (wanted.blob, &wanted.place);
    let is_whole = |path: &Path| {
        let came = path.is_file().then(|| hash::of_file(path, |_| {})).and_then(Result::ok);
        came.is_some_and(|(_, sha256)| blob.digest.strip_prefix("sha256:") == Some(&sha256))
    };
    if is_whole(place) {
        progress(blob.size);
        return Ok(());
    }
    if let Some(folder) = place.parent() {
        make_folder(folder)?;
    }
    let mut partial = place.clone().into_os_string();
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    // What an earlier pull left may be something else; then all of it is received again, once.
    let was_begun = partial.exists();
    let mut told = 0;
    client.again(|| fetch(client, blob, &partial, what, &mut told, progress))?;
    if !is_whole(&partial) && was_begun {
        delete_file(&partial)?;
        client.again(|| fetch(client, blob, &partial, what, &mut told, progress))?;
    }
    if !is_whole(&partial) {
        delete_file(&partial)?;
        let name = wanted.place.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        return Err(refused(what.to_owned(), format!("what was received for {name} isn't {}", blob.digest)));
    }
    rename(&partial, place)
}

fn delete_file(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(StoreError::io("deleting", path))
}

/// Receives what is missing of a blob. `told` is how far `progress` knows.
fn fetch(
    client: &Client,
    blob: &Blob,
    partial: &Path,
    what: &str,
    told: &mut u64,
    progress: Progress<'_>,
) -> Result<(), Failed> {
    let open = OpenOptions::new().create(true).append(true).open(partial);
    let mut file = open.map_err(StoreError::io("making", partial))?;
    let mut have = file.metadata().map_err(StoreError::io("reading", partial))?.len();
    if have > blob.size {
        have = empty(&file, partial)?;
    }
    let mut tell = |have: u64| {
        if have > *told {
            progress(have - *told);
            *told = have;
        }
    };
    tell(have);
    if have == blob.size {
        return Ok(());
    }
    let range = format!("bytes={have}-");
    let headers = [("Range", range.as_str())];
    let headers = if have > 0 { &headers[..] } else { &[] };
    let url = client.address.url(&format!("blobs/{}", blob.digest));
    let ask = Ask { headers, ..Ask::new(what, Method::GET, url) };
    let mut answer = client.once(&ask, &[200, 206])?;
    if answer.status == 200 {
        have = empty(&file, partial)?;
    } else if !answer.header("Content-Range").is_some_and(|said| said.starts_with(&format!("bytes {have}-")))
    {
        return Err(
            refused(what.to_owned(), "the registry answers with another part than was asked for").into()
        );
    }
    let mut chunk = vec![0; READ_BYTES];
    let mut reader = answer.body.as_reader();
    loop {
        let lost = |error: std::io::Error| Failed::passing(refused(what.to_owned(), error.to_string()));
        let count = reader.read(&mut chunk).map_err(lost)?;
        if count == 0 {
            break;
        }
        have += count as u64;
        if have > blob.size {
            let why = format!("the registry sends more than the {} bytes of {}", blob.size, blob.digest);
            return Err(refused(what.to_owned(), why).into());
        }
        file.write_all(&chunk[..count]).map_err(StoreError::io("writing", partial))?;
        tell(have);
    }
    if have < blob.size {
        let why = format!("the registry sent {have} of {} bytes", blob.size);
        return Err(Failed::passing(refused(what.to_owned(), why)));
    }
    file.sync_all().map_err(StoreError::io("syncing", partial))?;
    Ok(())
}

fn empty(file: &File, path: &Path) -> Result<u64> {
    file.set_len(0).map_err(StoreError::io("emptying", path)).map(|()| 0)
}
