//! Which endpoint a path below `/v2/` is: names hold slashes, so it is read from its end.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// An endpoint of the specification, with its parts as the client wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/tags/list`: the tags of all repositories.
    AllTags,
    /// `/v2/<name>/tags/list`
    Tags(&'a str),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(&'a str, Cow<'a, str>),
    /// `/v2/<name>/blobs/<digest>`
    Blob(&'a str, Cow<'a, str>),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(&'a str),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(&'a str, &'a str),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(&'a str, Cow<'a, str>),
}

impl<'a> Route<'a> {
    /// Reads the path after `/v2`; `None` when it is no endpoint.
    pub fn read(rest: &'a str) -> Option<Self> {
        match rest {
            "" | "/" => return Some(Route::Base),
            "/_catalog" => return Some(Route::Catalog),
            "/tags/list" => return Some(Route::AllTags),
            _ => {}
        }
        let rest = rest.strip_prefix('/')?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Route::Tags(name));
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
            return Some(Route::Uploads(name));
        }
        let (before, last) = rest.rsplit_once('/')?;
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            return Some(Route::Upload(name, last));
        }
        let (name, kind) = before.rsplit_once('/')?;
        // A digest's colon may come percent-encoded.
        let last = percent_decode_str(last).decode_utf8().ok()?;
        match kind {
            "manifests" => Some(Route::Manifest(name, last)),
            "blobs" => Some(Route::Blob(name, last)),
            "referrers" => Some(Route::Referrers(name, last)),
            _ => None,
        }
    }

    /// The methods that the endpoint answers, as `Allow` lists them.
    pub const fn methods(&self) -> &'static str {
        match self {
            Route::Base => "GET, HEAD",
            Route::Catalog | Route::AllTags | Route::Tags(_) | Route::Referrers(..) => "GET",
            Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Route::Blob(..) => "GET, HEAD, DELETE",
            Route::Uploads(_) => "POST",
            Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endpoints() {
        for (path, expected) in [
            ("", Some(Route::Base)),
            ("/", Some(Route::Base)),
            ("/_catalog", Some(Route::Catalog)),
            ("/tags/list", Some(Route::AllTags)),
            ("/a/tags/list", Some(Route::Tags("a"))),
            ("/tags/tags/list", Some(Route::Tags("tags"))),
            ("/a/b/manifests/latest", Some(Route::Manifest("a/b", "latest".into()))),
            ("/a/manifests/sha256%3Aab", Some(Route::Manifest("a", "sha256:ab".into()))),
            ("/a/blobs/sha256:ab", Some(Route::Blob("a", "sha256:ab".into()))),
            ("/a/blobs/uploads/", Some(Route::Uploads("a"))),
            ("/a/blobs/uploads", Some(Route::Uploads("a"))),
            ("/a/blobs/uploads/id", Some(Route::Upload("a", "id"))),
            ("/blobs/uploads/blobs/uploads/id", Some(Route::Upload("blobs/uploads", "id"))),
            ("/a/manifests/manifests/x", Some(Route::Manifest("a/manifests", "x".into()))),
            ("/a/referrers/sha256:ab", Some(Route::Referrers("a", "sha256:ab".into()))),
            ("/a", None),
            ("/a/b", None),
            ("/a/b/c", None),
            ("x", None),
            ("/a/manifests/%ff", None),
        ] {
            assert_eq!(Route::read(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_the_reader_panic(path in any::<String>()) {
            let _ = Route::read(&path);
        }

        #[test]
        fn any_name_is_found_again(name in "[a-z]{1,5}(/(tags|list|blobs|uploads|manifests|[a-z]{1,4})){0,4}", tag in "[a-z]{1,8}") {
            let path = format!("/{name}/manifests/{tag}");
            prop_assert_eq!(Route::read(&path), Some(Route::Manifest(&name, tag.into())));
        }
    }
}
