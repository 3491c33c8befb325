//! A PostgreSQL server in the test process: trusts everybody and answers every query with one row.
//! For thousands of sessions, which a real server's processes would be too heavy for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::raw::frame;

/// A running server; its connections end on drop.
#[derive(Debug)]
pub(crate) struct FakeServer {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl FakeServer {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            for pid in 1_u32.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                // A client that goes away is not the server's problem.
                tokio::spawn(async move { drop(serve(stream, pid).await) });
            }
        });
        Self { address, _runtime: runtime }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(mut stream: TcpStream, pid: u32) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let length = stream.read_u32().await?;
    let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut startup).await?;
    stream.write_all(&greeting(pid)).await?;
    let mut body = Vec::new();
    loop {
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        body.resize(usize::try_from(length).unwrap() - 4, 0);
        stream.read_exact(&mut body).await?;
        match tag {
            b'Q' => stream.write_all(&one_row()).await?,
            b'X' => return Ok(()),
            _ => {}
        }
        body.shrink_to(1024);
    }
}

fn greeting(pid: u32) -> Vec<u8> {
    let parameter = |name: &str, value: &str| {
        frame(b'S', &[name.as_bytes(), &[0], value.as_bytes(), &[0]].concat())
    };
    [
        frame(b'R', &[0; 4]),
        parameter("server_version", "15.0"),
        parameter("client_encoding", "UTF8"),
        parameter("standard_conforming_strings", "on"),
        frame(b'K', &[pid.to_be_bytes(), [1, 2, 3, 4]].concat()),
        frame(b'Z', b"I"),
    ]
    .concat()
}

fn one_row() -> Vec<u8> {
    let column = [&b"x\0"[..], &[0; 6], &23_u32.to_be_bytes(), &[0, 4], &[0xff; 4], &[0, 0]];
    [
        frame(b'T', &[&[0, 1][..], &column.concat()].concat()),
        frame(b'D', &[0, 1, 0, 0, 0, 1, b'1']),
        frame(b'C', b"SELECT 1\0"),
        frame(b'Z', b"I"),
    ]
    .concat()
}
