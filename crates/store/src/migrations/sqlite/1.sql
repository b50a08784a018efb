-- A name with a line of versions; `next` never falls, so that a number is never given twice.
CREATE TABLE models (name TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT;
-- What is in the folder NAME/@NUMBER.
CREATE TABLE versions (
    model TEXT NOT NULL,
    number INTEGER NOT NULL,
    job TEXT,
    manifest_sha256 TEXT NOT NULL,
    PRIMARY KEY (model, number)
) STRICT;
CREATE TABLE tags (
    model TEXT NOT NULL,
    tag TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (model, tag),
    FOREIGN KEY (model, number) REFERENCES versions ON DELETE CASCADE
) STRICT;
-- Uploaded files; their contents are in .store/files/ID.
CREATE TABLE files (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;
-- Work that takes long; its folder is .store/jobs/ID. Times are seconds since 1970.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    is_to_stop INTEGER NOT NULL DEFAULT 0,
    progress TEXT,
    error TEXT,
    version INTEGER,
    pid INTEGER,
    created INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, created);
PRAGMA user_version = 1;
