//! Lists that come in pages, and the streams that read them to the end.
use std::future::Future;

use futures_util::Stream;
use futures_util::stream::{self, TryStreamExt};

use crate::{Client, Result};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// What to pass as `after` for the next page; `None` on the last one.
    pub next: Option<String>,
}

impl Client {
    /// All items of a list, asking for a page when the one before is used up.
    ///
    /// A server whose pages do not advance ends the stream with an error, not with an endless loop.
    pub(crate) fn all_pages<T, F>(&self, fetch: impl Fn(Client, Option<String>) -> F) -> impl Stream<Item = Result<T>>
    where
        F: Future<Output = Result<Page<T>>>,
    {
        enum At {
            Page(Option<String>),
            End,
        }
        let client = self.clone();
        stream::try_unfold((At::Page(None), fetch), move |(at, fetch)| {
            let client = client.clone();
            async move {
                let At::Page(after) = at else { return Ok(None) };
                let page = fetch(client.clone(), after.clone()).await?;
                let next = match page.next {
                    Some(next) if Some(&next) == after.as_ref() => {
                        return Err(client.unexpected(format!("the page after {next:?} leads back to itself")));
                    }
                    Some(next) => At::Page(Some(next)),
                    None => At::End,
                };
                let items = stream::iter(page.items.into_iter().map(Ok));
                Ok(Some((items, (next, fetch))))
            }
        })
        .try_flatten()
    }
}
