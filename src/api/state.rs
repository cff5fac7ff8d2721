//! What the handlers share.

use std::sync::Arc;

use super::access::Access;
use super::board::Streams;
use super::places::Exports;
use crate::app::App;

pub struct Api {
    pub app: Arc<App>,
    pub metrics: crate::metrics::Metrics,
    pub access: Access,
    pub exports: Arc<Exports>,
    pub streams: Arc<Streams>,
}
