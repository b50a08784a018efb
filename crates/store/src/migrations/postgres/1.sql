-- The form of these tables, and which models folder they are of: the contents of its .store/folder.
CREATE TABLE about (form BIGINT NOT NULL, folder TEXT);
INSERT INTO about (form) VALUES (1);
-- As SQLite has it, so that both are asked the same.
CREATE FUNCTION unixepoch() RETURNS BIGINT LANGUAGE sql AS
    $$ SELECT CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT) $$;
-- The same tables as in ../sqlite; see there.
CREATE TABLE models (name TEXT PRIMARY KEY, next BIGINT NOT NULL);
CREATE TABLE versions (
    model TEXT NOT NULL,
    number BIGINT NOT NULL,
    job TEXT,
    manifest_sha256 TEXT NOT NULL,
    PRIMARY KEY (model, number)
);
CREATE TABLE tags (
    model TEXT NOT NULL,
    tag TEXT NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (model, tag),
    FOREIGN KEY (model, number) REFERENCES versions ON DELETE CASCADE
);
CREATE TABLE files (
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE TABLE jobs (
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    is_to_stop BIGINT NOT NULL DEFAULT 0,
    progress TEXT,
    error TEXT,
    version BIGINT,
    pid BIGINT,
    created BIGINT NOT NULL,
    started BIGINT,
    ended BIGINT,
    host TEXT,
    seen BIGINT
);
CREATE INDEX jobs_by_state ON jobs (state, created);
