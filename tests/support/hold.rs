//! A ledger that stands still while its server goes on.

use std::path::Path;

/// Holds up the ledger's sink from outside: reads go on, no batch is applied until it is released.
pub(crate) enum Hold {
    Postgres(::postgres::Client),
    Sqlite(rusqlite::Connection),
}

impl Hold {
    pub(crate) fn of(database_url: Option<&str>, data_dir: &Path) -> Hold {
        match database_url {
            Some(url) => {
                let mut client = ::postgres::Client::connect(url, ::postgres::NoTls).expect("connects");
                client.batch_execute("BEGIN; LOCK TABLE watermark IN EXCLUSIVE MODE").expect("locks");
                Hold::Postgres(client)
            }
            None => {
                let connection = rusqlite::Connection::open(data_dir.join("ledger.sqlite")).expect("opens");
                connection.busy_timeout(std::time::Duration::from_secs(5)).expect("sets");
                connection.execute_batch("BEGIN IMMEDIATE").expect("locks");
                Hold::Sqlite(connection)
            }
        }
    }

    pub(crate) fn release(self) {
        match self {
            Hold::Postgres(mut client) => client.batch_execute("ROLLBACK").expect("unlocks"),
            Hold::Sqlite(connection) => connection.execute_batch("ROLLBACK").expect("unlocks"),
        }
    }
}
