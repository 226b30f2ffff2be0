//! The client against a server on the loopback interface that can be made to fail in every way.
mod answers;
mod pull;
mod push;
mod support;
