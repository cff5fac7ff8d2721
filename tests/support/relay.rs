//! A relay in front of a server: a test delays, cuts or holds back what goes through it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Gets each piece of one direction, and how it can end that direction's source. Returns how many bytes go on; fewer
/// than there are end the connection. At the end it gets an empty piece.
pub(crate) type Filter = Box<dyn FnMut(&TcpStream, &[u8]) -> usize + Send>;

/// Listens in front of `to`. Each connection has filters of its own: towards the server, and back.
pub(crate) fn start(to: SocketAddr, filters: impl Fn() -> [Filter; 2] + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let filters = filters();
            thread::spawn(move || both_ways(client, to, filters));
        }
    });
    address
}

pub(crate) fn all() -> Filter {
    Box::new(|_, piece| piece.len())
}

pub(crate) fn both_ways(client: TcpStream, to: SocketAddr, [up, down]: [Filter; 2]) {
    let Ok(server) = TcpStream::connect(to) else { return };
    let (from, back) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let towards = thread::spawn(move || pass(from, server, up));
    pass(back, client, down);
    let _ = towards.join();
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut filter: Filter) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length) = from.read(&mut buffer) {
        let passed = filter(&from, &buffer[..length]);
        if length == 0 || to.write_all(&buffer[..passed]).is_err() || passed < length {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
