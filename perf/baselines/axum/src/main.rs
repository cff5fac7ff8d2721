//! A baseline: axum with the tracker's trivial answer.
//!
//! `baseline-axum ADDRESS:PORT` on one worker a core that it may use.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::serve::ListenerExt;

fn main() {
    let address = std::env::args().nth(1).expect("usage: baseline-axum ADDRESS:PORT");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = match cores {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let trivial = || async { ([(CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#) };
    runtime.worker_threads(cores).enable_io().build().expect("a runtime").block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("the address is free");
        // As the others do: without it pipelined answers wait for the client's delayed acknowledgements.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket takes it"));
        axum::serve(listener, Router::new().route("/healthz/live", get(trivial))).await.expect("serves");
    });
}
