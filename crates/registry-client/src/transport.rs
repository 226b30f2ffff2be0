//! Sending a request and turning every way it can end into an answer or an [`Error`].
use std::future::Future;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::innermost;
use crate::{Client, Error, Refusal, Result, UnreachableReason};

/// The longest document read into memory, in bytes. A page of a list is far below.
const DOCUMENT_LIMIT: usize = 64 << 20;
/// The longest pause between two tries.
const RETRY_DELAY_LIMIT: Duration = Duration::from_secs(5);

/// The body of an error.
#[derive(Deserialize)]
struct ErrorDocument {
    error: String,
    code: Option<String>,
    request_id: Option<String>,
}

impl Client {
    /// A request with the token, to be sent once.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.inner.http.request(method, url);
        match &self.inner.token {
            Some(token) => request.header(AUTHORIZATION, token.authorization()),
            None => request,
        }
    }

    /// Sends `request` once and waits `patience` for the head of the answer. Only a 2xx is `Ok`.
    pub(crate) async fn send(&self, request: RequestBuilder, patience: Duration) -> Result<Response> {
        match tokio::time::timeout(patience, request.send()).await {
            Ok(sent) => self.accept(sent).await,
            Err(_) => Err(self.timed_out(patience)),
        }
    }

    /// The answer, or the error that it or its absence is.
    pub(crate) async fn accept(&self, sent: reqwest::Result<Response>) -> Result<Response> {
        let response = sent.map_err(|error| self.failure(&error))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status if status.is_redirection() => Err(Error::Redirected {
                server: self.inner.server.clone(),
                location: text_header(response.headers(), LOCATION.as_str()).unwrap_or_else(|| "nowhere".to_owned()),
            }),
            _ => Err(self.refusal(response).await.into()),
        }
    }

    /// Does `attempt` until it succeeds, fails for good, or the retries are used up. Only for what may be done twice.
    pub(crate) async fn retrying<T, F: Future<Output = Result<T>>>(&self, attempt: impl Fn() -> F) -> Result<T> {
        let mut failures = 0;
        loop {
            match attempt().await {
                Err(error) if error.is_transient() && failures < self.inner.retries => {
                    self.pause(failures).await;
                    failures += 1;
                }
                ended => return ended,
            }
        }
    }

    /// Waits before the try that follows `failures` + 1 failed ones.
    pub(crate) async fn pause(&self, failures: u32) {
        let delay = self.inner.retry_delay.saturating_mul(1 << failures.min(16));
        tokio::time::sleep(delay.min(RETRY_DELAY_LIMIT)).await;
    }

    /// Reads a document; safe to repeat.
    pub(crate) async fn get_json<T: DeserializeOwned>(&self, url: Url) -> Result<T> {
        self.retrying(|| async {
            let response = self.send(self.request(Method::GET, url.clone()), self.inner.timeouts.idle).await?;
            self.read_json(response).await
        })
        .await
    }

    /// The document in the body of `response`.
    pub(crate) async fn read_json<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        let body = self.read_at_most(response, DOCUMENT_LIMIT).await?;
        serde_json::from_slice(&body).map_err(|error| self.unexpected(format!("its document cannot be read: {error}")))
    }

    async fn read_at_most(&self, mut response: Response, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let idle = self.inner.timeouts.idle;
        loop {
            let chunk = tokio::time::timeout(idle, response.chunk()).await.map_err(|_| self.timed_out(idle))?;
            let Some(chunk) = chunk.map_err(|error| self.failure(&error))? else {
                return Ok(body);
            };
            if body.len() + chunk.len() > limit {
                return Err(self.unexpected(format!("its document is longer than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// What an error status says, as far as it can be read.
    async fn refusal(&self, response: Response) -> Refusal {
        let status = response.status();
        let request_id = text_header(response.headers(), "x-request-id");
        let retry_after = text_header(response.headers(), RETRY_AFTER.as_str())
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs);
        // A body that cannot be read takes nothing from the status.
        let body = self.read_at_most(response, DOCUMENT_LIMIT).await.unwrap_or_default();
        let document = serde_json::from_slice::<ErrorDocument>(&body).ok();
        let (message, code, id) = match document {
            Some(document) => (document.error, document.code, document.request_id),
            None => (format!("{} answered {status}", self.inner.server), None, None),
        };
        let message = match &self.inner.token {
            Some(token) => token.redact(message),
            None => message,
        };
        Refusal { status: status.as_u16(), code, message, request_id: request_id.or(id), retry_after }
    }

    pub(crate) fn failure(&self, error: &reqwest::Error) -> Error {
        let (server, cause) = (self.inner.server.clone(), innermost(error));
        if error.is_connect() {
            Error::Unreachable { server, reason: UnreachableReason::of(error), cause }
        } else {
            Error::Interrupted { server, cause }
        }
    }

    pub(crate) fn timed_out(&self, silence: Duration) -> Error {
        Error::TimedOut { server: self.inner.server.clone(), silence }
    }

    pub(crate) fn unexpected(&self, problem: impl Into<String>) -> Error {
        Error::UnexpectedAnswer { server: self.inner.server.clone(), problem: problem.into() }
    }
}

/// A header as text, if it is there and is text.
pub(crate) fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
