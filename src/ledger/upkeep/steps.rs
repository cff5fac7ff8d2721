//! How upkeep reaches a store: steps that write, and looks that read.

use super::pace::Pace;
use crate::ledger::sql::Sql;
use crate::ports::StoreError;

/// A housekeeper's connection.
pub trait Steps {
    /// Runs a job in a transaction under the upkeep lock, and commits it unless it fails.
    fn step<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut dyn Sql) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError>;

    /// Runs a job on one snapshot, beside batches and steps. It writes nothing.
    fn look<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut dyn Sql) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError>;

    /// What this housekeeper remembers from call to call.
    fn pace(&mut self) -> &mut Pace;
}
