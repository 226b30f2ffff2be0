//! What clients see of connections, over real sockets on the loopback interface.

mod answers;
mod bodies;
mod client;
mod files;
mod http2;
mod limits;
mod logs;
mod operations;
mod origins;
mod server;
mod stopping;
mod tls;
