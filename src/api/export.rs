//! `/api/export`: the rows of the ledger, page by page, at the reader's own pace.
//!
//! A page is read and written as text on the ledger's lane; only then the connection's coroutine sends it, and the
//! next one is read once it has gone. So an export holds one page, and no connection of the store while it waits. What
//! cannot be completed is cut without its end: a short file never looks whole.

use super::answer::{Answered, Failure, finish};
use super::export_format::Format;
use super::query::Query;
use super::state::Api;
use super::wire::Rejection;
use crate::app::App;
use crate::http::{Answer, Exchange, Request, Stream};
use crate::limits::{EXPORT_PIECE_BYTES, EXPORT_TRIES_MAX, READ_WAIT_MS, RETRY_MS_MIN};
use crate::ports::{ExportCursor, ExportQuery, StoreError};

type Page = (Vec<u8>, Option<ExportCursor>);

impl Api {
    pub(super) fn export(&self, _: &str, request: &Request<'_>, exchange: &mut Exchange<'_>) -> Answered {
        let (query, format, with_mark) = asked(request.query, &self.app)?;
        let message = "as many exports as may be are under way: ask again once one of them has ended";
        let place = self.exports.enter().ok_or(Failure::TooMany("too_many_exports", message))?;
        // The first page comes before the head: a store that is away is an answer of its own.
        let (lines, next) = match query.to_ms.is_some_and(|to_ms| to_ms <= query.from_ms.unwrap_or(0)) {
            true => (Vec::new(), None),
            false => {
                let first = self.app.export(query, None, exchange.ticket(), move |events| format.lines(events));
                finish(first, exchange)?
            }
        };
        let body = [format.head(with_mark), lines].concat();
        let disposition = match format {
            Format::Ndjson => "attachment; filename=\"events.ndjson\"",
            Format::Csv => "attachment; filename=\"events.csv\"",
        };
        let headers = [("Content-Disposition", disposition), ("Cache-Control", "no-store")];
        let answer = Answer { status: 200, content_type: format.content_type(), headers: &headers, body: &body };
        let app = self.app.clone();
        exchange.stream(answer, move |stream| {
            let _place = place;
            if let Err(why) = send_rest(&app, query, format, next, stream) {
                tracing::warn!(why, "an export was cut");
                stream.abandon();
            }
        });
        Ok(())
    }
}

/// Every page from `next` on. The error says why there will be no more.
fn send_rest(
    app: &App,
    query: ExportQuery,
    format: Format,
    mut next: Option<ExportCursor>,
    stream: &mut Stream<'_>,
) -> Result<(), String> {
    let mut failures = 0;
    while let Some(after) = next {
        if !stream.is_open() {
            return Err("the server is stopping".to_owned());
        }
        match read(app, query, format, after, stream) {
            Ok((lines, behind)) => {
                for piece in lines.chunks(EXPORT_PIECE_BYTES) {
                    stream.write(piece).map_err(|error| format!("its reader is gone: {error}"))?;
                }
                (next, failures) = (behind, 0);
            }
            Err(StoreError::Retry(why) | StoreError::Cancelled(why)) if failures + 1 < EXPORT_TRIES_MAX => {
                tracing::debug!(why, "a page of an export is tried again");
                failures += 1;
                stream.pause(RETRY_MS_MIN << failures);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn read(
    app: &App,
    query: ExportQuery,
    format: Format,
    after: ExportCursor,
    stream: &mut Stream<'_>,
) -> Result<Page, StoreError> {
    let page = app.export(query, Some(after), stream.ticket(), move |events| format.lines(events));
    let page = page.map_err(|full| StoreError::Retry(full.to_string()))?;
    let done = stream.wait(READ_WAIT_MS);
    let page = if done { page.take() } else { None };
    page.unwrap_or_else(|| Err(StoreError::Retry("the ledger does not answer in time".to_owned())))
}

fn asked(query: &str, app: &App) -> Result<(ExportQuery, Format, bool), Rejection> {
    let query = Query::known(query, &["from", "to", "eventType", "format", "bom"])?;
    let format = Format::from_name(query.get("format").unwrap_or("ndjson"));
    let format = format.ok_or_else(|| Rejection::parameter("format", "must be ndjson or csv"))?;
    let with_mark = match (query.get("bom"), format) {
        (None | Some("false"), _) => false,
        (Some("true"), Format::Csv) => true,
        (Some("true"), Format::Ndjson) => return Err(Rejection::parameter("bom", "needs format=csv")),
        _ => return Err(Rejection::parameter("bom", "must be true or false")),
    };
    let (from_ms, to_ms) = query.ends(app)?;
    Ok((ExportQuery { event_type: query.event_type()?, from_ms, to_ms }, format, with_mark))
}
