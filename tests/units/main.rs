//! Parts that need no server: the journal and its crash model, the cache, flights, parsers against models.

mod cache_model;
mod cache_steps;
mod flight;
mod http_models;
mod journal;
mod journal_disk;
mod journal_model;
mod journal_support;
#[path = "../support/seed.rs"]
mod seed;
