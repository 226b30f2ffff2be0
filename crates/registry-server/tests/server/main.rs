//! The program as people start it: the real binary, real folders, real sockets.

mod backup;
mod commands;
mod configuration;
mod first_start;
mod serving;
mod support;
