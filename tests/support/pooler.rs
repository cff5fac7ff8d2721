//! A proxy that shares connections of PostgreSQL by transaction, as PgBouncer does with `pool_mode = transaction`.
//!
//! It answers a client's start-up with what the server told the first connection. A server connection belongs to a
//! client from its first message to the end of that transaction, and goes back to the top of a stack of idle ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A server connection that is between two transactions, and what the server said when it began.
struct Idle {
    stream: TcpStream,
    greeting: Vec<u8>,
}

type Stack = Arc<Mutex<Vec<Idle>>>;

/// Listens in front of `server`, which must let clients in without a password. Ends with the test's process.
pub(crate) fn start(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address");
    let stack = Stack::default();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let stack = stack.clone();
            // A client that goes, and a server that goes, end the thread.
            thread::spawn(move || serve(client, server, &stack));
        }
    });
    address
}

fn serve(mut client: TcpStream, server: SocketAddr, stack: &Stack) -> Option<()> {
    let startup = read_startup(&mut client)?;
    let first = take(stack, server, &startup)?;
    client.write_all(&first.greeting).ok()?;
    give_back(stack, first);
    let mut held: Option<Idle> = None;
    loop {
        let message = read_message(&mut client)?;
        // Terminate: the server connection stays.
        if message[0] == b'X' {
            return None;
        }
        let mut link = match held.take() {
            Some(link) => link,
            None => take(stack, server, &startup)?,
        };
        link.stream.write_all(&message).ok()?;
        // Query and Sync are answered up to ReadyForQuery.
        let is_idle = matches!(message[0], b'Q' | b'S') && forward_answer(&mut link.stream, &mut client)?;
        if is_idle { give_back(stack, link) } else { held = Some(link) }
    }
}

fn take(stack: &Stack, server: SocketAddr, startup: &[u8]) -> Option<Idle> {
    if let Some(idle) = stack.lock().unwrap_or_else(PoisonError::into_inner).pop() {
        return Some(idle);
    }
    let mut stream = TcpStream::connect(server).ok()?;
    stream.write_all(startup).ok()?;
    let mut greeting = Vec::new();
    loop {
        let message = read_message(&mut stream)?;
        greeting.extend_from_slice(&message);
        match message[0] {
            b'Z' => return Some(Idle { stream, greeting }),
            b'E' => return None,
            _ => {}
        }
    }
}

fn give_back(stack: &Stack, idle: Idle) {
    stack.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
}

/// Passes on what the server says. True at the end of a transaction, false within one and at the begin of a COPY.
fn forward_answer(server: &mut TcpStream, client: &mut TcpStream) -> Option<bool> {
    loop {
        let message = read_message(server)?;
        client.write_all(&message).ok()?;
        match message[0] {
            b'Z' => return Some(message[5] == b'I'),
            b'G' => return Some(false),
            _ => {}
        }
    }
}

/// Length and content; what asks for encryption is told that there is none.
fn read_startup(client: &mut TcpStream) -> Option<Vec<u8>> {
    const WANTS_TLS: [u8; 4] = 80_877_103_i32.to_be_bytes();
    loop {
        let message = read_sized(client, Vec::new())?;
        if message[4..] != WANTS_TLS {
            return Some(message);
        }
        client.write_all(b"N").ok()?;
    }
}

fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut kind = [0];
    stream.read_exact(&mut kind).ok()?;
    read_sized(stream, kind.to_vec())
}

fn read_sized(stream: &mut TcpStream, mut message: Vec<u8>) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let begin = message.len();
    message.extend_from_slice(&length);
    message.resize(begin + usize::try_from(u32::from_be_bytes(length)).ok()?, 0);
    stream.read_exact(&mut message[begin + 4..]).ok()?;
    Some(message)
}
