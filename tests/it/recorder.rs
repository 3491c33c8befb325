//! A TCP proxy of the tests that records every byte each way.
//!
//! Between Portcullis and PostgreSQL it proves that a refused statement never reached the server;
//! between client and Portcullis, that a value is in no byte the client got.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A running recorder; its connections end on drop.
#[derive(Debug)]
pub(crate) struct Recorder {
    address: SocketAddr,
    tape: Arc<Tape>,
}

#[derive(Debug, Default)]
struct Tape {
    to_server: Mutex<Vec<u8>>,
    to_client: Mutex<Vec<u8>>,
    streams: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Recorder {
    /// Listens on a free port and forwards to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let tape = Arc::new(Tape::default());
        let accepting = Arc::clone(&tape);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) {
                    accepting.splice(client, server);
                }
            }
        });
        Self { address, tape }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went towards the server since the last `clear`.
    pub(crate) fn to_server(&self) -> Vec<u8> {
        self.tape.to_server.lock().unwrap().clone()
    }

    /// Bytes that went towards the client since the last `clear`.
    pub(crate) fn to_client(&self) -> Vec<u8> {
        self.tape.to_client.lock().unwrap().clone()
    }

    /// Forgets what was recorded.
    pub(crate) fn clear(&self) {
        self.tape.to_server.lock().unwrap().clear();
        self.tape.to_client.lock().unwrap().clear();
    }

    /// Breaks every connection, both ways.
    pub(crate) fn cut(&self) {
        for stream in self.tape.streams.lock().unwrap().drain(..) {
            // Already closed by a peer is just as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tape.stopped.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the accepting thread so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

impl Tape {
    fn splice(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            self.streams.lock().unwrap().push(stream.try_clone().unwrap());
        }
        let (client_again, server_again) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        std::thread::spawn(move || copy(client, server, &up.to_server));
        std::thread::spawn(move || copy(server_again, client_again, &down.to_client));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, tape: &Mutex<Vec<u8>>) {
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        // Recorded before it is sent: whoever saw the effect of a byte finds it on the tape.
        tape.lock().unwrap().extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Whether `needle` occurs in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
