//! In-memory ports, and the contract suites that every adapter must pass.
