//! A read of several statements.

use std::time::Instant;

use postgres::types::{ToSql, Type};
use postgres::{IsolationLevel, Row, Statement, Transaction};

use super::connect::Session;
use crate::limits::{POSTGRES_READ_STATEMENT_MS_MAX, READ_TIME_STEP_MS};

/// A value with its type: the server is not asked for what it would say, which is a way there and back for each statement.
pub(super) type Typed<'v> = (&'v (dyn ToSql + Sync), Type);

/// One snapshot, all of whose statements share the time of one.
pub(super) struct Reading<'s> {
    transaction: Transaction<'s>,
    begun: Instant,
    /// What was spent when the server was last told how much is left; it is told nothing where a writer reads, which has more
    /// time.
    told_ms: Option<u64>,
}

impl<'s> Reading<'s> {
    pub(super) fn begin(session: &'s mut Session) -> Result<Reading<'s>, postgres::Error> {
        let begun = Instant::now();
        let builder = session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        // A connection of readers gives each statement that much.
        Ok(Reading { transaction: builder.read_only(true).start()?, begun, told_ms: Some(0) })
    }

    /// Of a writer's.
    pub(super) fn within(transaction: Transaction<'s>) -> Reading<'s> {
        Reading { transaction, begun: Instant::now(), told_ms: None }
    }

    pub(super) fn transaction(&mut self) -> &mut Transaction<'s> {
        &mut self.transaction
    }

    /// What runs once.
    pub(super) fn query(&mut self, sql: &str, values: &[Typed<'_>]) -> Result<Vec<Row>, postgres::Error> {
        self.tell()?;
        self.transaction.query_typed(sql, values)
    }

    /// What may run several times.
    pub(super) fn query_prepared(
        &mut self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        self.tell()?;
        self.transaction.query(statement, values)
    }

    /// Not before each statement, which is another way there and back: all together may take a step longer.
    fn tell(&mut self) -> Result<(), postgres::Error> {
        let Some(told) = self.told_ms else { return Ok(()) };
        let spent = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if spent - told >= READ_TIME_STEP_MS {
            let left = POSTGRES_READ_STATEMENT_MS_MAX.saturating_sub(spent).max(1);
            self.transaction.batch_execute(&format!("SET LOCAL statement_timeout = {left}"))?;
            self.told_ms = Some(spent);
        }
        Ok(())
    }
}
