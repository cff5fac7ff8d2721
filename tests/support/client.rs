//! A small HTTP client over a socket: keep-alive, time-outs, and raw bytes for what no proper client would send.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// One connection at a time to one server; a failed one is replaced by the next request.
pub(crate) struct Client {
    address: SocketAddr,
    /// Its own end, where that matters.
    from: Option<IpAddr>,
    stream: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of a header that may be there several times.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("answers are UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The answer itself if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client { address, from: None, stream: None }
    }

    /// One that comes from an address of its own: each of 127.0.0.0/8 is this machine.
    pub(crate) fn coming_from(from: impl Into<IpAddr>, address: SocketAddr) -> Client {
        Client { from: Some(from.into()), ..Client::new(address) }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let within = Duration::from_secs(5);
        let Some(from) = self.from else { return TcpStream::connect_timeout(&self.address, within) };
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&self.address.into(), within)?;
        Ok(socket.into())
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    #[track_caller]
    pub(crate) fn read(&mut self, path: &str) -> Value {
        self.get(path).expect(200).json()
    }

    /// What `/metrics` says of a family, all labels together.
    pub(crate) fn metric(&mut self, name: &str) -> f64 {
        let text = self.get("/metrics").expect(200);
        let lines = text.text().lines().filter(|line| line.starts_with(&format!("event_tracker_{name}")));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.json("POST", path, body)
    }

    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "most callers make the body in the call")]
    pub(crate) fn json(&mut self, method: &str, path: &str, body: impl ToString) -> Answer {
        self.send(method, path, &[JSON], body.to_string().as_bytes())
    }

    #[track_caller]
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends once and reads the answer; after an error nothing is known of the request.
    pub(crate) fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        if method == "POST" || !body.is_empty() {
            headers.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        self.write(&[head.as_bytes(), body].concat())?;
        self.read_answer(method == "HEAD")
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = self.connect()?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(15)))?;
            stream.set_write_timeout(Some(Duration::from_secs(15)))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("just connected");
        // A server that refuses may answer and close before it has read all: the answer counts.
        match stream.get_mut().write_all(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            other => other,
        }
    }

    pub(crate) fn read_answer(&mut self, is_head: bool) -> io::Result<Answer> {
        let answer = self.read_head().and_then(|mut answer| {
            if !is_head {
                self.read_body(&mut answer)?;
            }
            Ok(answer)
        });
        let ends = |answer: &Answer| answer.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if answer.as_ref().map_or(true, ends) {
            self.stream = None;
        }
        answer
    }

    pub(crate) fn read_head(&mut self) -> io::Result<Answer> {
        read_head(self.stream.as_mut().expect("something was sent"))
    }

    fn read_body(&mut self, answer: &mut Answer) -> io::Result<()> {
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let chunk = self.read_chunk()?;
                if chunk.is_empty() {
                    return Ok(());
                }
                answer.body.extend_from_slice(&chunk);
            }
        }
        let length = answer.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        answer.body = vec![0; length];
        self.stream.as_mut().expect("something was sent").read_exact(&mut answer.body)
    }

    /// The next chunk of a body; empty: the last one. An error if the connection ends before it.
    pub(crate) fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let stream = self.stream.as_mut().expect("something was sent");
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(|_| ErrorKind::UnexpectedEof)?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok(chunk)
    }

    /// Goes away in the middle of whatever was sent.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }
}

/// An answer up to the end of its head; not a byte more is read.
pub(crate) fn read_head(stream: &mut impl Read) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read_exact(&mut byte) {
            Err(error) if !head.is_empty() => return Err(broken(&head, &error.to_string())),
            read => read?,
        }
        head.push(byte[0]);
    }
    let parse = |text: &str| {
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Some(Answer { status, headers: lines.map(header).collect::<Option<_>>()?, body: Vec::new() })
    };
    std::str::from_utf8(&head).ok().and_then(parse).ok_or_else(|| broken(&head, "no head of an answer"))
}

fn broken(head: &[u8], why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{why}: {:?}", String::from_utf8_lossy(head)))
}
