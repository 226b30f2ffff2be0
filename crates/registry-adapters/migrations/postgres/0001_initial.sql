-- Portable by convention: identities and counts are 64-bit integers, upload ids 16 bytes, times microseconds since the
-- Unix epoch, documents text, manifests bytes. Texts sort by byte, whatever the collation of the database is.
--
-- The same tables as in ../sqlite. An index holds no more than its columns here, so some have one more; and rows do not
-- lie in the order of their key.

-- One row: older servers than this schema revision must not open the database.
CREATE TABLE schema_info (
    oldest_compatible_server BIGINT NOT NULL
);
INSERT INTO schema_info (oldest_compatible_server) VALUES (1);

CREATE TABLE registries (
    id         BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    format     TEXT COLLATE "C" NOT NULL,
    mode       TEXT COLLATE "C" NOT NULL,
    settings   TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL
);

-- What may stand first in /v2/<name>: the name of an `oci` registry (registry_id says which), or a first segment in
-- use in the default registry (NULL). One primary key: neither can shadow the other.
CREATE TABLE first_segments (
    name        TEXT COLLATE "C" PRIMARY KEY,
    registry_id BIGINT           REFERENCES registries (id)
);
CREATE INDEX first_segments_of_registry ON first_segments (registry_id) WHERE registry_id IS NOT NULL;

-- `listed` is 1 while the repository holds a manifest, so that a list does not walk over the empty ones.
CREATE TABLE repositories (
    id          BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    registry_id BIGINT           NOT NULL REFERENCES registries (id),
    name        TEXT COLLATE "C" NOT NULL,
    listed      BIGINT           NOT NULL DEFAULT 0,
    created_at  BIGINT           NOT NULL,
    UNIQUE (registry_id, name)
);
CREATE UNIQUE INDEX repositories_listed ON repositories (registry_id, name) WHERE listed = 1;

-- The ledger of the object store. state: 0 reserved, 1 live, 2 doomed; since: when it came to that state.
CREATE TABLE objects (
    key   TEXT COLLATE "C" PRIMARY KEY,
    state BIGINT           NOT NULL,
    since BIGINT           NOT NULL
);
CREATE INDEX objects_doomed ON objects (key) WHERE state = 2;

CREATE TABLE blobs (
    digest     TEXT COLLATE "C" PRIMARY KEY,
    size       BIGINT           NOT NULL,
    object_key TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES objects (key),
    created_at BIGINT           NOT NULL
);

-- A blob is visible in a repository. leased_until: until when its reference may still come; NULL: reviewed, and a
-- manifest of the repository names it.
CREATE TABLE repository_blobs (
    repository_id BIGINT           NOT NULL REFERENCES repositories (id),
    digest        TEXT COLLATE "C" NOT NULL REFERENCES blobs (digest),
    leased_until  BIGINT,
    PRIMARY KEY (repository_id, digest)
);
CREATE INDEX repository_blobs_due ON repository_blobs (leased_until, repository_id, digest)
    WHERE leased_until IS NOT NULL;
CREATE INDEX repository_blobs_of_blob ON repository_blobs (digest, repository_id);

CREATE TABLE manifests (
    id            BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository_id BIGINT           NOT NULL REFERENCES repositories (id),
    digest        TEXT COLLATE "C" NOT NULL,
    media_type    TEXT COLLATE "C" NOT NULL,
    artifact_type TEXT COLLATE "C" NOT NULL,
    subject       TEXT COLLATE "C",
    size          BIGINT           NOT NULL,
    pushed_at     BIGINT           NOT NULL,
    annotations   TEXT COLLATE "C" NOT NULL,
    content       BYTEA            NOT NULL,
    UNIQUE (repository_id, digest)
);
CREATE INDEX manifests_referrers ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifests_referrers_of_type ON manifests (repository_id, subject, artifact_type, digest)
    WHERE subject IS NOT NULL;

-- Every digest that a manifest names, blobs and children alike (BuildKit's cache index names blobs as children). No
-- foreign key on digest: what is named need not be there.
CREATE TABLE manifest_references (
    repository_id BIGINT           NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,
    manifest_id   BIGINT           NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    PRIMARY KEY (repository_id, digest, manifest_id)
);
CREATE INDEX manifest_references_of_manifest ON manifest_references (manifest_id);

CREATE TABLE tags (
    repository_id BIGINT           NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,
    updated_at    BIGINT           NOT NULL,
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest)
);
CREATE INDEX tags_of_manifest ON tags (repository_id, digest);

-- state: 0 open, 1 finalising, 2 done, 3 ended. repository_id is set for the upload of a repository's blob,
-- description for that of a version. Sessions come and go with every push: no foreign keys, which would need indexes.
CREATE TABLE uploads (
    id              BYTEA            PRIMARY KEY,
    registry_id     BIGINT           NOT NULL,
    repository_id   BIGINT,
    name            TEXT COLLATE "C" NOT NULL,
    description     TEXT COLLATE "C",
    state           BIGINT           NOT NULL,
    epoch           BIGINT           NOT NULL,
    durable_offset  BIGINT           NOT NULL,
    durable_hashes  BYTEA            NOT NULL,
    durable_staging TEXT COLLATE "C" NOT NULL,
    told_offset     BIGINT           NOT NULL,
    told_hashes     BYTEA            NOT NULL,
    told_staging    TEXT COLLATE "C" NOT NULL,
    final_digest    TEXT COLLATE "C",
    final_size      BIGINT,
    object_key      TEXT COLLATE "C",
    touched_at      BIGINT           NOT NULL
);
CREATE INDEX uploads_touched ON uploads (touched_at);
CREATE INDEX uploads_ended ON uploads (touched_at) WHERE state = 3;

CREATE TABLE packages (
    id              BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    registry_id     BIGINT           NOT NULL REFERENCES registries (id),
    name            TEXT COLLATE "C" NOT NULL,
    version_count   BIGINT           NOT NULL,
    latest_version  TEXT COLLATE "C" NOT NULL,
    latest_sort_key BYTEA            NOT NULL,
    updated_at      BIGINT           NOT NULL,
    UNIQUE (registry_id, name)
);

-- Every substring of one to three characters of a package's name in lower case: a search walks the rows of one.
CREATE TABLE package_grams (
    registry_id BIGINT           NOT NULL,
    gram        TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (registry_id, gram, name)
);

CREATE TABLE versions (
    id         BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    package_id BIGINT           NOT NULL REFERENCES packages (id),
    version    TEXT COLLATE "C" NOT NULL,
    sort_key   BYTEA            NOT NULL,
    UNIQUE (package_id, version),
    UNIQUE (package_id, sort_key)
);

CREATE TABLE files (
    id           BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version_id   BIGINT           NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    filename     TEXT COLLATE "C" NOT NULL,
    content_type TEXT COLLATE "C" NOT NULL,
    digest       TEXT COLLATE "C" NOT NULL REFERENCES blobs (digest),
    size         BIGINT           NOT NULL,
    uploaded_at  BIGINT           NOT NULL,
    UNIQUE (version_id, filename)
);
CREATE INDEX files_of_blob ON files (digest);

-- Digests that lost a membership or a file; whether anything refers to them is found out when they are collected.
CREATE TABLE garbage_candidates (
    digest TEXT COLLATE "C" PRIMARY KEY
);

CREATE TABLE tokens (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL,
    hash       BYTEA            NOT NULL,
    scopes     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL,
    expires_at BIGINT
);

CREATE TABLE signing_keys (
    id         TEXT COLLATE "C" PRIMARY KEY,
    secret     BYTEA            NOT NULL,
    created_at BIGINT           NOT NULL
);

CREATE TABLE job_cursors (
    job    TEXT COLLATE "C" PRIMARY KEY,
    cursor TEXT COLLATE "C" NOT NULL
);
