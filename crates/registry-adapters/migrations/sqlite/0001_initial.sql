-- Portable by convention: identities and counts are 64-bit integers, upload ids 16 bytes, times microseconds since the
-- Unix epoch, documents text, manifests bytes. Names sort by byte (SQLite's default collation).

-- One row: older servers than this schema revision must not open the database.
CREATE TABLE schema_info (
    oldest_compatible_server INTEGER NOT NULL
) STRICT;
INSERT INTO schema_info (oldest_compatible_server) VALUES (1);

CREATE TABLE registries (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    format     TEXT    NOT NULL,
    mode       TEXT    NOT NULL,
    settings   TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- What may stand first in /v2/<name>: the name of an `oci` registry (registry_id says which), or a first segment in
-- use in the default registry (NULL). One primary key: neither can shadow the other.
CREATE TABLE first_segments (
    name        TEXT PRIMARY KEY,
    registry_id INTEGER REFERENCES registries (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX first_segments_of_registry ON first_segments (registry_id) WHERE registry_id IS NOT NULL;

-- `listed` is 1 while the repository holds a manifest, so that a list does not walk over the empty ones.
CREATE TABLE repositories (
    id          INTEGER PRIMARY KEY,
    registry_id INTEGER NOT NULL REFERENCES registries (id),
    name        TEXT    NOT NULL,
    listed      INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    UNIQUE (registry_id, name)
) STRICT;
CREATE UNIQUE INDEX repositories_listed ON repositories (registry_id, name) WHERE listed = 1;

-- The ledger of the object store. state: 0 reserved, 1 live, 2 doomed; since: when it came to that state.
CREATE TABLE objects (
    key   TEXT    PRIMARY KEY,
    state INTEGER NOT NULL,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX objects_doomed ON objects (key) WHERE state = 2;

CREATE TABLE blobs (
    digest     TEXT    PRIMARY KEY,
    size       INTEGER NOT NULL,
    object_key TEXT    NOT NULL UNIQUE REFERENCES objects (key),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A blob is visible in a repository. leased_until: until when its reference may still come; NULL: reviewed, and a
-- manifest of the repository names it.
CREATE TABLE repository_blobs (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    digest        TEXT    NOT NULL REFERENCES blobs (digest),
    leased_until  INTEGER,
    PRIMARY KEY (repository_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_blobs_due ON repository_blobs (leased_until) WHERE leased_until IS NOT NULL;
CREATE INDEX repository_blobs_of_blob ON repository_blobs (digest);

-- The content stands last, so that a description does not read it.
CREATE TABLE manifests (
    id            INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    digest        TEXT    NOT NULL,
    media_type    TEXT    NOT NULL,
    artifact_type TEXT    NOT NULL,
    subject       TEXT,
    size          INTEGER NOT NULL,
    pushed_at     INTEGER NOT NULL,
    annotations   TEXT    NOT NULL,
    content       BLOB    NOT NULL,
    UNIQUE (repository_id, digest)
) STRICT;
CREATE INDEX manifests_referrers ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifests_referrers_of_type ON manifests (repository_id, subject, artifact_type, digest)
    WHERE subject IS NOT NULL;

-- Every digest that a manifest names, blobs and children alike (BuildKit's cache index names blobs as children). No
-- foreign key on digest: what is named need not be there.
CREATE TABLE manifest_references (
    repository_id INTEGER NOT NULL,
    digest        TEXT    NOT NULL,
    manifest_id   INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    PRIMARY KEY (repository_id, digest, manifest_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_references_of_manifest ON manifest_references (manifest_id);

CREATE TABLE tags (
    repository_id INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    digest        TEXT    NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_of_manifest ON tags (repository_id, digest);

-- state: 0 open, 1 finalising, 2 done, 3 ended. repository_id is set for the upload of a repository's blob,
-- description for that of a version. Sessions come and go with every push: no foreign keys, which would need indexes.
CREATE TABLE uploads (
    id              BLOB    PRIMARY KEY,
    registry_id     INTEGER NOT NULL,
    repository_id   INTEGER,
    name            TEXT    NOT NULL,
    description     TEXT,
    state           INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    durable_offset  INTEGER NOT NULL,
    durable_hashes  BLOB    NOT NULL,
    durable_staging TEXT    NOT NULL,
    told_offset     INTEGER NOT NULL,
    told_hashes     BLOB    NOT NULL,
    told_staging    TEXT    NOT NULL,
    final_digest    TEXT,
    final_size      INTEGER,
    object_key      TEXT,
    touched_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_touched ON uploads (touched_at);
CREATE INDEX uploads_ended ON uploads (touched_at) WHERE state = 3;

CREATE TABLE packages (
    id              INTEGER PRIMARY KEY,
    registry_id     INTEGER NOT NULL REFERENCES registries (id),
    name            TEXT    NOT NULL,
    version_count   INTEGER NOT NULL,
    latest_version  TEXT    NOT NULL,
    latest_sort_key BLOB    NOT NULL,
    updated_at      INTEGER NOT NULL,
    UNIQUE (registry_id, name)
) STRICT;

-- Every substring of one to three characters of a package's name in lower case: a search walks the rows of one.
CREATE TABLE package_grams (
    registry_id INTEGER NOT NULL,
    gram        TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    PRIMARY KEY (registry_id, gram, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE versions (
    id         INTEGER PRIMARY KEY,
    package_id INTEGER NOT NULL REFERENCES packages (id),
    version    TEXT    NOT NULL,
    sort_key   BLOB    NOT NULL,
    UNIQUE (package_id, version),
    UNIQUE (package_id, sort_key)
) STRICT;

CREATE TABLE files (
    id           INTEGER PRIMARY KEY,
    version_id   INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    filename     TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    digest       TEXT    NOT NULL REFERENCES blobs (digest),
    size         INTEGER NOT NULL,
    uploaded_at  INTEGER NOT NULL,
    UNIQUE (version_id, filename)
) STRICT;
CREATE INDEX files_of_blob ON files (digest);

-- Digests that lost a membership or a file; whether anything refers to them is found out when they are collected.
CREATE TABLE garbage_candidates (
    digest TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL,
    scopes     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
    id         TEXT    PRIMARY KEY,
    secret     BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job_cursors (
    job    TEXT PRIMARY KEY,
    cursor TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What the planner should think of, having no statistics of its own: a repository has many tags, a manifest few. Without
-- this it looks for the tags of a manifest among all tags of the repository, as its primary key begins the same.
ANALYZE;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('tags', 'tags', '1000000 10000 1'),
    ('tags', 'tags_of_manifest', '1000000 10000 3 1');
-- Only makes this connection read them.
ANALYZE sqlite_schema;
