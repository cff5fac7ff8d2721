//! The real program by its front door: HTTP, the API, the import, the commands.

mod abuse;
mod access;
mod bad_input;
mod commands;
mod export;
mod heartbeat;
mod http;
mod http_access_log;
mod http_connection;
mod http_descriptors;
mod http_support;
mod http_transport;
mod import;
mod import_support;
mod ingest;
mod likes;
mod posts;
mod search;
mod statistics;
#[path = "../support/mod.rs"]
mod support;
mod tls;
