//! The real binary against a server on the loopback interface that can be made to fail in every way.
mod credentials;
mod failures;
mod management;
mod support;
mod transfers;
