//! Manifests, tags and referrers.

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::digest::Digest;
use registry_core::error::StoreError;
use registry_core::names::{Reference, RepositoryName, Tag};
use registry_core::ports::metadata::manifests::{
    DESCRIPTION_BYTES, ManifestDescription, NewManifest, PutManifest, REFERRERS_PAGE_BYTES, Referrer, StoredManifest,
    TagEntry,
};
use registry_core::ports::metadata::{ManifestStore, NameRange};
use registry_core::precondition::Precondition;
use registry_core::registry::{References, RegistryId, Repository};
use registry_core::time::Timestamp;

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::range::{self, Bounds};
use super::registries::{RepositoryRow, create_repository, find_repository};
use super::statement::{Connection, Row, Statement, Value, dialects, list, on_postgres, parse, sql};

// CROSS JOIN fixes the order in which tables are visited: by name, then by what belongs to it. A list that is in order
// stands alone, with its repository looked up first: Postgres takes the order of a join from its first table only.

/// The statement that finds a manifest by tag or digest; the columns are the same.
macro_rules! manifest_by {
    ($repository:expr, $reference:expr, $columns:literal) => {
        match $reference {
            Reference::Tag(tag) => sql(concat!(
                "SELECT ",
                $columns,
                // Not a join with the repositories: Postgres without statistics may then walk over all tags of that name.
                " FROM tags t CROSS JOIN manifests m
                  WHERE t.repository_id = (SELECT id FROM repositories WHERE registry_id = $1 AND name = $2)
                    AND t.name = $3
                    AND m.repository_id = t.repository_id AND m.digest = t.digest"
            ))
            .bind($repository.registry)
            .bind(&$repository.name)
            .bind(tag),
            Reference::Digest(digest) => sql(concat!(
                "SELECT ",
                $columns,
                " FROM repositories r CROSS JOIN manifests m
                  WHERE r.registry_id = $1 AND r.name = $2
                    AND m.repository_id = r.id AND m.digest = $3"
            ))
            .bind($repository.registry)
            .bind(&$repository.name)
            .bind(digest),
        }
    };
}

fn read_description(row: &Row) -> SqlResult<ManifestDescription> {
    Ok(ManifestDescription {
        digest: row.parse("digest")?,
        media_type: row.get("media_type")?,
        size: row.unsigned("size")?,
    })
}

fn read_tag_entry(repository: RepositoryName, row: &Row) -> SqlResult<TagEntry> {
    Ok(TagEntry { repository, tag: row.parse("tag")?, digest: row.parse("digest")? })
}

/// What the manifest names that the repository does not have. A child may be there as a manifest or as a blob:
/// BuildKit's cache index names layers as children.
async fn missing(connection: &mut Connection, repository_id: i64, new: &NewManifest) -> SqlResult<Vec<Digest>> {
    if new.facts.blobs.is_empty() && new.facts.children.is_empty() {
        return Ok(Vec::new());
    }
    let statement = sql(dialects!(
        "SELECT n.value AS digest FROM ",
        ["json_each($2) n" | "unnest($2) n (value)"],
        " WHERE NOT EXISTS (SELECT 1 FROM repository_blobs b WHERE b.repository_id = $1 AND b.digest = n.value)
         UNION ALL
         SELECT n.value AS digest FROM ",
        ["json_each($3) n" | "unnest($3) n (value)"],
        " WHERE NOT EXISTS (SELECT 1 FROM repository_blobs b WHERE b.repository_id = $1 AND b.digest = n.value)
           AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = $1 AND m.digest = n.value)"
    ));
    let statement = statement.bind(repository_id).bind(digests(&new.facts.blobs)).bind(digests(&new.facts.children));
    connection.fetch_all(statement).await?.iter().map(|row| row.parse("digest")).collect()
}

fn digests(digests: &[Digest]) -> Value {
    list(digests.iter().map(Digest::as_str))
}

/// What the reference leads to, which stays so until this transaction ends.
async fn current(connection: &mut Connection, repository_id: i64, reference: &Reference) -> SqlResult<Option<Digest>> {
    // Where there is nothing, there is no row to lock: whoever stores a manifest takes this row before it commits.
    let lock = on_postgres("SELECT 1 FROM repositories WHERE id = $1 FOR NO KEY UPDATE");
    connection.lock(lock.bind(repository_id)).await?;
    let find = match reference {
        Reference::Tag(tag) => {
            sql(dialects!("SELECT digest FROM tags WHERE repository_id = $1 AND name = $2", ["" | " FOR UPDATE"]))
                .bind(repository_id)
                .bind(tag)
        }
        Reference::Digest(digest) => sql(dialects!(
            "SELECT digest FROM manifests WHERE repository_id = $1 AND digest = $2",
            ["" | " FOR UPDATE"]
        ))
        .bind(repository_id)
        .bind(digest),
    };
    connection.fetch_optional(find).await?.map(|row| row.parse("digest")).transpose()
}

async fn put(connection: &mut Connection, (new, now): &(NewManifest, Timestamp)) -> SqlResult<Decision<PutManifest>> {
    let Repository { registry, name } = &new.repository;
    let row = match find_repository(connection, *registry, name).await? {
        Some(row) => row,
        None => match create_repository(connection, *registry, name, *now).await? {
            Some(row) => row,
            None => return Ok(Decision::Rollback(PutManifest::NameTaken)),
        },
    };
    let mut named: Vec<&str> = new.facts.blobs.iter().chain(&new.facts.children).map(Digest::as_str).collect();
    named.sort_unstable();
    named.dedup();
    if !named.is_empty() {
        // A review that holds one of them is waited for, and one that comes later passes it over.
        let lock = on_postgres(
            "SELECT 1 FROM unnest($2) n (value) CROSS JOIN LATERAL
                 (SELECT 1 FROM repository_blobs WHERE repository_id = $1 AND digest = n.value FOR KEY SHARE) locked",
        );
        connection.lock(lock.bind(row.id).bind(list(&named))).await?;
    }
    if new.references == References::Strict {
        let missing = missing(connection, row.id, new).await?;
        if !missing.is_empty() {
            return Ok(Decision::Rollback(PutManifest::Missing(missing)));
        }
    }
    if let Some((reference, precondition)) = &new.condition
        && !precondition.holds(current(connection, row.id, reference).await?.as_ref())
    {
        return Ok(Decision::Rollback(PutManifest::PreconditionFailed));
    }
    // The row that is there has that size already. To set its digest, though the same, would look for all its tags.
    let insert = sql("INSERT INTO manifests
             (repository_id, digest, media_type, artifact_type, subject, size, pushed_at, annotations, content)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (repository_id, digest) DO UPDATE SET size = excluded.size
         RETURNING id")
    .bind(row.id)
    .bind(&new.digest)
    .bind(&new.facts.media_type)
    .bind(&new.facts.artifact_type)
    .bind(new.facts.subject.as_ref())
    .bind(new.content.len())
    .bind(*now)
    .bind(&new.facts.annotations)
    .bind(&new.content[..]);
    let manifest_id: i64 = connection.fetch_one(insert).await?.get("id")?;

    if !named.is_empty() {
        // A row that is there belongs to this manifest, whose row is locked by the insert above.
        let refer = sql(dialects!(
            "INSERT INTO manifest_references (repository_id, digest, manifest_id)
             SELECT $1, n.value, $2 FROM ",
            ["json_each($3) n" | "unnest($3) n (value)"],
            " WHERE 1 = 1 ON CONFLICT (repository_id, digest, manifest_id) DO NOTHING"
        ));
        connection.execute(refer.bind(row.id).bind(manifest_id).bind(list(named))).await?;
    }
    if !new.tags.is_empty() {
        let mut tags: Vec<&str> = new.tags.iter().map(Tag::as_str).collect();
        tags.sort_unstable();
        tags.dedup();
        let tag = sql(dialects!(
            "INSERT INTO tags (repository_id, name, digest, updated_at)
             SELECT $1, n.value, $2, $3 FROM ",
            ["json_each($4) n" | "unnest($4) n (value)"],
            " WHERE 1 = 1
             ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, updated_at = excluded.updated_at
             WHERE tags.digest <> excluded.digest"
        ));
        connection.execute(tag.bind(row.id).bind(&new.digest).bind(*now).bind(list(tags))).await?;
    }
    list_repository(connection, row).await?;
    Ok(Decision::Commit(PutManifest::Stored))
}

/// Lists a repository that holds a manifest now.
async fn list_repository(connection: &mut Connection, row: RepositoryRow) -> SqlResult<()> {
    if row.listed {
        if connection.is_alone() {
            return Ok(());
        }
        // Whoever deletes its last manifest but this one holds the row, and may just have unlisted it.
        let lock = on_postgres("SELECT 1 FROM repositories WHERE id = $1 FOR SHARE");
        connection.lock(lock.bind(row.id)).await?;
    }
    let list = sql("UPDATE repositories SET listed = 1 WHERE id = $1 AND listed = 0");
    connection.execute(list.bind(row.id)).await?;
    Ok(())
}

async fn delete(
    connection: &mut Connection,
    (repository, digest, lease_until): &(Repository, Digest, Timestamp),
) -> SqlResult<Decision<bool>> {
    let find = sql(dialects!(
        "SELECT m.repository_id, m.id FROM repositories r CROSS JOIN manifests m
         WHERE r.registry_id = $1 AND r.name = $2 AND m.repository_id = r.id AND m.digest = $3",
        ["" | " FOR UPDATE OF m"]
    ));
    let find = find.bind(repository.registry).bind(&repository.name).bind(digest);
    let Some(row) = connection.fetch_optional(find).await? else {
        return Ok(Decision::Commit(false));
    };
    let (repository_id, manifest_id) = (row.get::<i64>("repository_id")?, row.get::<i64>("id")?);
    let lock = on_postgres(
        "SELECT 1 FROM (SELECT digest FROM manifest_references WHERE manifest_id = $2 ORDER BY digest) f
         CROSS JOIN LATERAL
             (SELECT 1 FROM repository_blobs WHERE repository_id = $1 AND digest = f.digest FOR NO KEY UPDATE) locked",
    );
    connection.lock(lock.bind(repository_id).bind(manifest_id)).await?;
    // A comparison with NULL is not true, so a reviewed membership gets the lease.
    let lease = sql(dialects!(
        "UPDATE repository_blobs SET leased_until = CASE WHEN leased_until > $3 THEN leased_until ELSE $3 END
         WHERE repository_id = $1 AND digest ",
        ["IN" | "= ANY (ARRAY"],
        " (SELECT digest FROM manifest_references WHERE manifest_id = $2)",
        ["" | ")"]
    ));
    connection.execute(lease.bind(repository_id).bind(manifest_id).bind(*lease_until)).await?;
    let untag = sql("DELETE FROM tags WHERE repository_id = $1 AND digest = $2");
    connection.execute(untag.bind(repository_id).bind(digest)).await?;
    // Its references go with it.
    connection.execute(sql("DELETE FROM manifests WHERE id = $1").bind(manifest_id)).await?;
    // What others store or delete there at the same time shows to a statement after this.
    let lock = on_postgres("SELECT 1 FROM repositories WHERE id = $1 FOR NO KEY UPDATE");
    connection.lock(lock.bind(repository_id)).await?;
    let unlist = sql("UPDATE repositories SET listed = 0 WHERE id = $1
           AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = $1)");
    connection.execute(unlist.bind(repository_id)).await?;
    Ok(Decision::Commit(true))
}

async fn delete_tag(
    connection: &mut Connection,
    (repository, tag, precondition): &(Repository, Tag, Precondition),
) -> SqlResult<Decision<bool>> {
    let delete = sql("DELETE FROM tags
         WHERE repository_id = (SELECT id FROM repositories WHERE registry_id = $1 AND name = $2) AND name = $3
         RETURNING digest");
    let delete = delete.bind(repository.registry).bind(&repository.name).bind(tag);
    let Some(deleted) = connection.fetch_optional(delete).await? else { return Ok(Decision::Commit(false)) };
    let holds = precondition.holds(Some(&deleted.parse("digest")?));
    Ok(if holds { Decision::Commit(true) } else { Decision::Rollback(false) })
}

async fn page_of_all_tags(
    connection: &mut Connection,
    registry: RegistryId,
    mut range: NameRange,
    after: Option<(&str, &str)>,
    limit: usize,
) -> SqlResult<Vec<TagEntry>> {
    let mut entries = Vec::new();
    range.after = None;
    if let Some((repository, tag)) = after {
        // The rest of the repository in which the page before ended, if it is among those asked for.
        if Bounds::of(&range).contain(repository) {
            let rest = sql("SELECT name AS tag, digest FROM tags
                 WHERE repository_id = (SELECT id FROM repositories WHERE registry_id = $1 AND name = $2)
                   AND name > $3
                 ORDER BY name LIMIT $4");
            let rest = rest.bind(registry).bind(repository).bind(range::after(Some(tag))).bind(limit);
            for row in connection.fetch_all(rest).await? {
                entries.push(read_tag_entry(parse(repository, "repository")?, &row)?);
            }
        }
        range.after = Some(repository.to_owned());
    }
    if entries.len() < limit {
        // Of a repository that fills the page, Postgres would otherwise put all tags in order.
        let rest = sql(dialects!(
            "SELECT r.name AS repository, t.name AS tag, t.digest
             FROM repositories r CROSS JOIN ",
            ["tags t"
                | "LATERAL (SELECT name, digest, repository_id FROM tags
                            WHERE repository_id = r.id ORDER BY name LIMIT $6) t"],
            " WHERE r.registry_id = $1 AND r.listed = 1
               AND r.name >= $2 AND (r.name > $2 OR $3 = 1) AND r.name <= $4 AND (r.name < $4 OR $5 = 1)
               AND t.repository_id = r.id
             ORDER BY r.name, t.name LIMIT $6"
        ));
        let rest = Bounds::of(&range).bind_to(rest.bind(registry)).bind(limit - entries.len());
        for row in connection.fetch_all(rest).await? {
            entries.push(read_tag_entry(row.parse("repository")?, &row)?);
        }
    }
    Ok(entries)
}

fn referrers_page(
    repository: &Repository,
    subject: &Digest,
    artifact_type: Option<&str>,
    after: Option<&str>,
    limit: usize,
) -> Statement {
    // Their lengths come first, so that no long text is read which is not on the page.
    macro_rules! page_where {
        ($more:literal) => {
            sql(concat!(
                "SELECT m.digest, m.media_type, m.size, m.artifact_type, m.annotations, p.found
                 FROM (SELECT repository_id, digest, COUNT(*) OVER () AS found, ROW_NUMBER() OVER up_to AS place,
                           SUM(bytes) OVER up_to AS total
                       FROM (SELECT repository_id, digest, $7 + octet_length(media_type)
                                 + octet_length(artifact_type) + octet_length(annotations) AS bytes
                             FROM manifests
                             WHERE repository_id = (SELECT id FROM repositories WHERE registry_id = $1 AND name = $2)
                               AND subject = $3 AND digest > $4",
                $more,
                "
                             ORDER BY digest LIMIT $5) r
                       WINDOW up_to AS (ORDER BY digest ROWS UNBOUNDED PRECEDING)) p
                 JOIN manifests m ON m.repository_id = p.repository_id AND m.digest = p.digest
                 WHERE p.place = 1 OR (p.place < $5 AND p.total <= $6)
                 ORDER BY p.digest"
            ))
        };
    }
    let statement = match artifact_type {
        None => page_where!(""),
        Some(_) => page_where!(" AND artifact_type = $8"),
    };
    let statement = statement.bind(repository.registry).bind(&repository.name).bind(subject);
    let statement = statement.bind(range::after(after)).bind(limit.saturating_add(1));
    let statement = statement.bind(REFERRERS_PAGE_BYTES).bind(DESCRIPTION_BYTES);
    match artifact_type {
        Some(artifact_type) => statement.bind(artifact_type),
        None => statement,
    }
}

#[async_trait]
impl ManifestStore for SqlMetadata {
    async fn put_manifest(&self, new: NewManifest, now: Timestamp) -> Result<PutManifest, StoreError> {
        self.database
            .write("storing a manifest", (new, now), |connection, input| Box::pin(put(connection, input)))
            .await
    }

    async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let query = async || {
            let statement = manifest_by!(repository, reference, "m.digest, m.media_type, m.content");
            let decode = |row: Row| {
                Ok(StoredManifest {
                    digest: row.parse("digest")?,
                    media_type: row.get("media_type")?,
                    content: Bytes::from(row.get::<Vec<u8>>("content")?),
                })
            };
            self.database.try_fetch_optional(statement, decode).await
        };
        let found = self.manifests.read((repository.clone(), reference.clone()), query).await;
        found.map_err(|failure| failure.while_doing("finding a manifest"))
    }

    async fn describe_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<ManifestDescription>, StoreError> {
        let statement = manifest_by!(repository, reference, "m.digest, m.media_type, m.size");
        self.database.fetch_optional("describing a manifest", statement, |row| read_description(&row)).await
    }

    async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        lease_until: Timestamp,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        let input = (repository.clone(), digest.clone(), lease_until);
        self.database.write("deleting a manifest", input, |connection, input| Box::pin(delete(connection, input))).await
    }

    async fn delete_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        precondition: &Precondition,
    ) -> Result<bool, StoreError> {
        let input = (repository.clone(), tag.clone(), precondition.clone());
        self.database.write("deleting a tag", input, |connection, input| Box::pin(delete_tag(connection, input))).await
    }

    async fn tags(
        &self,
        repository: &Repository,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, StoreError> {
        let page = sql("SELECT name FROM tags
             WHERE repository_id = (SELECT id FROM repositories WHERE registry_id = $1 AND name = $2) AND name > $3
             ORDER BY name LIMIT $4")
        .bind(repository.registry)
        .bind(&repository.name)
        .bind(range::after(after))
        .bind(limit);
        let tags: Vec<Tag> = self.database.fetch_all("listing tags", page, |row| row.parse("name")).await?;
        if !tags.is_empty() {
            return Ok(Some(tags));
        }
        let exists = sql("SELECT id FROM repositories WHERE registry_id = $1 AND name = $2");
        let exists = exists.bind(repository.registry).bind(&repository.name);
        self.database.fetch_optional("listing tags", exists, |_| Ok(Vec::new())).await
    }

    async fn all_tags(
        &self,
        registry: RegistryId,
        range: &NameRange,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<TagEntry>, StoreError> {
        let range = range.clone();
        let after = after.map(|(repository, tag)| (repository.to_owned(), tag.to_owned()));
        self.database
            .read("listing all tags", |connection| {
                let (range, after) = (range.clone(), after.clone());
                Box::pin(async move {
                    let after = after.as_ref().map(|(repository, tag)| (repository.as_str(), tag.as_str()));
                    page_of_all_tags(connection, registry, range, after, limit).await
                })
            })
            .await
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Referrer>, bool), StoreError> {
        let statement = referrers_page(repository, subject, artifact_type, after, limit);
        let decode = |row: Row| {
            let referrer = Referrer {
                manifest: read_description(&row)?,
                artifact_type: row.get("artifact_type")?,
                annotations: row.get("annotations")?,
            };
            Ok((referrer, row.unsigned("found")?))
        };
        let page = self.database.fetch_all("listing referrers", statement, decode).await?;
        let found = page.first().map_or(0, |(_, found)| *found);
        let more = found > page.len() as u64;
        Ok((page.into_iter().map(|(referrer, _)| referrer).collect(), more))
    }
}
