//! The baseline of the design card: may_minihttp as published, with the tracker's trivial answer.
//!
//! `baseline-minihttp ADDRESS:PORT` on one worker a core that it may use.

use std::io::Read;

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Trivial;

impl HttpService for Trivial {
    fn call(&mut self, request: Request, response: &mut Response) -> std::io::Result<()> {
        match request.path() {
            "/healthz/live" => response.header("Content-Type: application/json").body(r#"{"status":"ok"}"#),
            // How many bytes of body arrived.
            "/length" => {
                let mut body = Vec::new();
                request.body().read_to_end(&mut body)?;
                response.body_vec(body.len().to_string().into_bytes());
            }
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

fn main() {
    let address = std::env::args().nth(1).expect("usage: baseline-minihttp ADDRESS:PORT");
    may::config().set_workers(std::thread::available_parallelism().map_or(1, usize::from));
    HttpServer(Trivial).start(address).expect("the address is free").join().expect("serves");
}
