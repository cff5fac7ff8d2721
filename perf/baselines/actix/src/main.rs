//! A baseline: actix-web with the tracker's trivial answer.
//!
//! `baseline-actix ADDRESS:PORT` on one worker a core that it may use.

use actix_web::{App, HttpResponse, HttpServer, web};

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).expect("usage: baseline-actix ADDRESS:PORT");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let trivial = || async { HttpResponse::Ok().content_type("application/json").body(r#"{"status":"ok"}"#) };
    HttpServer::new(move || App::new().route("/healthz/live", web::get().to(trivial)))
        .workers(cores)
        .bind(address)?
        .run()
        .await
}
