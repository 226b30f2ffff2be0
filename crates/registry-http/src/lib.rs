//! The HTTP edge of Foundry: everything between a socket and the use cases.
//!
//! [`serve`](serve::serve) accepts connections and hands each request, with its context, to an [`Application`]; what
//! comes back is sent. The APIs (one folder each) are written on [`Request`], [`RequestBody`] and [`Response`] alone
//! and know nothing of sockets.

pub mod access_log;
mod activity;
pub mod activity_metrics;
pub mod api_v1;
pub mod application;
pub mod auth;
mod backlog;
pub mod body;
mod byteranges;
pub mod conditional;
mod connection;
mod drain;
mod driver;
mod exchange;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod operations;
pub mod origin;
mod ranges;
pub mod request;
pub mod request_body;
pub mod request_id;
pub mod response;
pub mod router;
mod sendfile;
pub mod serve;
pub mod tls;
pub mod v2;
mod wire_body;

pub use application::Application;
pub use body::ResponseBody;
pub use request::Request;
pub use request_body::RequestBody;
pub use request_id::RequestId;
pub use response::Response;
