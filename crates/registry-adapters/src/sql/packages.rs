//! Packages, their versions and files.

use async_trait::async_trait;
use registry_core::digest::Digest;
use registry_core::error::StoreError;
use registry_core::names::{PackageName, Version};
use registry_core::package::{Artifact, ArtifactDescription, PackageSummary};
use registry_core::ports::blob_store::ObjectKey;
use registry_core::ports::metadata::{NameRange, PackageStore};
use registry_core::precondition::Precondition;
use registry_core::registry::RegistryId;
use registry_core::time::Timestamp;
use registry_core::version_order::sort_key;

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::garbage::add_candidate;
use super::range::Bounds;
use super::statement::{Connection, Row, dialects, list, on_postgres, sql};

/// The longest pieces of names that are indexed, in characters.
const LONGEST_GRAM: usize = 3;

/// The distinct pieces of a name in lower case, sorted.
fn grams(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.to_ascii_lowercase().chars().collect();
    let mut grams: Vec<String> =
        (1..=LONGEST_GRAM).flat_map(|length| characters.windows(length)).map(|gram| gram.iter().collect()).collect();
    grams.sort_unstable();
    grams.dedup();
    grams
}

fn read_artifact(package: &PackageName, row: &Row) -> SqlResult<Artifact> {
    Ok(Artifact {
        package: package.clone(),
        version: row.parse("version")?,
        digest: row.parse("digest")?,
        size: row.unsigned("size")?,
        content_type: row.get("content_type")?,
        filename: row.parse("filename")?,
        uploaded_at: row.time("uploaded_at")?,
    })
}

fn read_summary(row: Row) -> SqlResult<PackageSummary> {
    Ok(PackageSummary {
        package: row.parse("name")?,
        version_count: row.unsigned("version_count")?,
        latest_version: row.parse("latest_version")?,
        updated_at: row.time("updated_at")?,
    })
}

/// Whether the version is there.
pub(super) async fn version_exists(
    connection: &mut Connection,
    registry: RegistryId,
    package: &PackageName,
    version: &Version,
) -> SqlResult<bool> {
    let find = sql("SELECT v.id FROM packages p CROSS JOIN versions v
         WHERE p.registry_id = $1 AND p.name = $2 AND v.package_id = p.id AND v.version = $3");
    Ok(connection.fetch_optional(find.bind(registry).bind(package).bind(version)).await?.is_some())
}

/// Makes a version that is not there, with its file, and the package with its first one. The package's row is locked from
/// here on, so that its count and its latest version are right; a version that came meanwhile is refused by its key.
pub(super) async fn publish_version(
    connection: &mut Connection,
    (registry, package): (RegistryId, &PackageName),
    description: &ArtifactDescription,
    (digest, size): (&Digest, u64),
    now: Timestamp,
) -> SqlResult<()> {
    let key = sort_key(&description.version);
    let upsert =
        sql("INSERT INTO packages (registry_id, name, version_count, latest_version, latest_sort_key, updated_at)
         VALUES ($1, $2, 1, $3, $4, $5)
         ON CONFLICT (registry_id, name) DO UPDATE SET
             version_count = packages.version_count + 1,
             latest_version = CASE WHEN excluded.latest_sort_key > packages.latest_sort_key
                                   THEN excluded.latest_version ELSE packages.latest_version END,
             latest_sort_key = CASE WHEN excluded.latest_sort_key > packages.latest_sort_key
                                    THEN excluded.latest_sort_key ELSE packages.latest_sort_key END,
             updated_at = excluded.updated_at
         RETURNING id, version_count")
        .bind(registry)
        .bind(package)
        .bind(&description.version)
        .bind(key.as_slice())
        .bind(now);
    let row = connection.fetch_one(upsert).await?;
    let package_id: i64 = row.get("id")?;
    if row.unsigned("version_count")? == 1 {
        let index = sql(dialects!(
            "INSERT INTO package_grams (registry_id, gram, name)
             SELECT $1, g.value, $2 FROM ",
            ["json_each($3) g" | "unnest($3) g (value)"],
            " WHERE 1 = 1 ON CONFLICT (registry_id, gram, name) DO NOTHING"
        ));
        connection.execute(index.bind(registry).bind(package).bind(list(grams(package.as_str())))).await?;
    }
    let insert = sql("INSERT INTO versions (package_id, version, sort_key) VALUES ($1, $2, $3) RETURNING id");
    let row = connection.fetch_one(insert.bind(package_id).bind(&description.version).bind(key)).await?;
    let insert = sql("INSERT INTO files (version_id, filename, content_type, digest, size, uploaded_at)
         VALUES ($1, $2, $3, $4, $5, $6)")
    .bind(row.get::<i64>("id")?)
    .bind(description.filename.as_str())
    .bind(&description.content_type)
    .bind(digest)
    .bind(size)
    .bind(now);
    connection.execute(insert).await?;
    Ok(())
}

async fn delete(
    connection: &mut Connection,
    (registry, package, version, precondition, now): &(RegistryId, PackageName, Version, Precondition, Timestamp),
) -> SqlResult<Decision<bool>> {
    let lock = on_postgres("SELECT 1 FROM packages WHERE registry_id = $1 AND name = $2 FOR UPDATE");
    connection.lock(lock.bind(*registry).bind(package)).await?;
    let find = sql("SELECT v.package_id, v.id FROM packages p CROSS JOIN versions v
         WHERE p.registry_id = $1 AND p.name = $2 AND v.package_id = p.id AND v.version = $3");
    let Some(row) = connection.fetch_optional(find.bind(*registry).bind(package).bind(version)).await? else {
        return Ok(Decision::Commit(false));
    };
    let (package_id, version_id) = (row.get::<i64>("package_id")?, row.get::<i64>("id")?);
    let files = sql("DELETE FROM files WHERE version_id = $1 RETURNING digest, uploaded_at").bind(version_id);
    for file in connection.fetch_all(files).await? {
        let digest = file.parse("digest")?;
        if !precondition.holds_for_dated(&digest, file.time("uploaded_at")?) {
            return Ok(Decision::Rollback(false));
        }
        add_candidate(connection, &digest).await?;
    }
    connection.execute(sql("DELETE FROM versions WHERE id = $1").bind(version_id)).await?;
    let latest = sql("SELECT version, sort_key FROM versions WHERE package_id = $1 ORDER BY sort_key DESC LIMIT 1");
    match connection.fetch_optional(latest.bind(package_id)).await? {
        Some(latest) => {
            let update = sql("UPDATE packages SET version_count = version_count - 1, latest_version = $2,
                 latest_sort_key = $3, updated_at = $4 WHERE id = $1")
            .bind(package_id)
            .bind(latest.get::<String>("version")?)
            .bind(latest.get::<Vec<u8>>("sort_key")?)
            .bind(*now);
            connection.execute(update).await?;
        }
        None => {
            connection.execute(sql("DELETE FROM packages WHERE id = $1").bind(package_id)).await?;
            let unindex = sql(dialects!(
                "DELETE FROM package_grams WHERE registry_id = $1 AND name = $2 AND gram ",
                ["IN (SELECT g.value FROM json_each($3) g)" | "= ANY ($3)"]
            ));
            connection.execute(unindex.bind(*registry).bind(package).bind(list(grams(package.as_str())))).await?;
        }
    }
    Ok(Decision::Commit(true))
}

/// A page of the packages whose name contains `search`, in lower case and not empty.
async fn search_page(
    connection: &mut Connection,
    registry: RegistryId,
    bounds: &Bounds,
    search: &str,
    limit: usize,
) -> SqlResult<Vec<PackageSummary>> {
    // The rows of one piece of the text are walked, and the names checked for the whole text; of several pieces the
    // one that the fewest names have, counted up to a bound.
    let gram = if search.chars().count() <= LONGEST_GRAM {
        search.to_owned()
    } else {
        let longest = grams(search).into_iter().filter(|gram| gram.chars().count() == LONGEST_GRAM);
        let rarest = sql(dialects!(
            "SELECT g.value AS gram,
                 (SELECT COUNT(*) FROM (SELECT 1 FROM package_grams p
                                        WHERE p.registry_id = $1 AND p.gram = g.value LIMIT 200) counted) AS names
             FROM ",
            ["json_each($2) g" | "unnest($2) g (value)"],
            " ORDER BY names LIMIT 1"
        ));
        connection.fetch_one(rarest.bind(registry).bind(list(longest))).await?.get("gram")?
    };
    let page = sql(dialects!(
        "SELECT p.name, p.version_count, p.latest_version, p.updated_at
         FROM package_grams g CROSS JOIN packages p
         WHERE g.registry_id = $1
           AND g.name >= $2 AND (g.name > $2 OR $3 = 1) AND g.name <= $4 AND (g.name < $4 OR $5 = 1)
           AND g.gram = $6 AND ",
        ["instr" | "strpos"],
        "(lower(g.name), $7) > 0
           AND p.registry_id = g.registry_id AND p.name = g.name
         ORDER BY g.name LIMIT $8"
    ));
    let page = bounds.bind_to(page.bind(registry)).bind(gram).bind(search).bind(limit);
    connection.fetch_all(page).await?.into_iter().map(read_summary).collect()
}

#[async_trait]
impl PackageStore for SqlMetadata {
    async fn find_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
    ) -> Result<Option<(Artifact, ObjectKey)>, StoreError> {
        let statement =
            sql("SELECT v.version, f.digest, f.size, f.content_type, f.filename, f.uploaded_at, b.object_key
             FROM packages p CROSS JOIN versions v CROSS JOIN files f CROSS JOIN blobs b
             WHERE p.registry_id = $1 AND p.name = $2 AND v.package_id = p.id AND v.version = $3
               AND f.version_id = v.id AND b.digest = f.digest");
        self.database
            .fetch_optional("finding an artifact", statement.bind(registry).bind(package).bind(version), |row| {
                Ok((read_artifact(package, &row)?, row.key("object_key")?))
            })
            .await
    }

    async fn delete_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let input = (registry, package.clone(), version.clone(), precondition.clone(), now);
        self.database.write("deleting a version", input, |connection, input| Box::pin(delete(connection, input))).await
    }

    async fn packages(
        &self,
        registry: RegistryId,
        range: &NameRange,
        search: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PackageSummary>, StoreError> {
        let bounds = Bounds::of(range);
        match search.map(str::to_ascii_lowercase).filter(|search| !search.is_empty()) {
            Some(search) => {
                self.database
                    .read("searching packages", |connection| {
                        let (bounds, search) = (bounds.clone(), search.clone());
                        Box::pin(async move { search_page(connection, registry, &bounds, &search, limit).await })
                    })
                    .await
            }
            None => {
                let page = sql("SELECT name, version_count, latest_version, updated_at FROM packages
                     WHERE registry_id = $1
                       AND name >= $2 AND (name > $2 OR $3 = 1) AND name <= $4 AND (name < $4 OR $5 = 1)
                     ORDER BY name LIMIT $6");
                let page = bounds.bind_to(page.bind(registry)).bind(limit);
                self.database.fetch_all("listing packages", page, read_summary).await
            }
        }
    }

    async fn versions(
        &self,
        registry: RegistryId,
        package: &PackageName,
        after: Option<&Version>,
        limit: usize,
    ) -> Result<Option<Vec<Artifact>>, StoreError> {
        // Every key is greater than the empty one.
        let page = sql("SELECT v.version, f.digest, f.size, f.content_type, f.filename, f.uploaded_at
             FROM versions v CROSS JOIN files f
             WHERE v.package_id = (SELECT id FROM packages WHERE registry_id = $1 AND name = $2) AND v.sort_key > $3
               AND f.version_id = v.id
             ORDER BY v.sort_key LIMIT $4")
        .bind(registry)
        .bind(package)
        .bind(after.map_or_else(Vec::new, sort_key))
        .bind(limit);
        let versions = self.database.fetch_all("listing versions", page, |row| read_artifact(package, &row)).await?;
        if !versions.is_empty() {
            return Ok(Some(versions));
        }
        let exists = sql("SELECT id FROM packages WHERE registry_id = $1 AND name = $2").bind(registry).bind(package);
        self.database.fetch_optional("listing versions", exists, |_| Ok(Vec::new())).await
    }
}

#[cfg(test)]
mod tests {
    use super::grams;

    #[test]
    fn grams_are_the_pieces_of_a_name() {
        assert_eq!(grams("Abab"), ["a", "ab", "aba", "b", "ba", "bab"]);
        assert_eq!(grams("a"), ["a"]);
        assert_eq!(grams(""), Vec::<String>::new());
    }
}
