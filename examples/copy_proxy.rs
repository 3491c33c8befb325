//! The floor the benchmarks compare with: copies bytes both ways on tokio and looks at none.
//!
//! `copy_proxy LISTEN UPSTREAM`, e.g. `copy_proxy 127.0.0.1:6000 127.0.0.1:5432`. Not a product.

use std::io::{Error, ErrorKind};

use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err(Error::new(ErrorKind::InvalidInput, "usage: copy_proxy LISTEN UPSTREAM"));
    };
    let listener = TcpListener::bind(&listen).await?;
    loop {
        let (client, _) = listener.accept().await?;
        let upstream = upstream.clone();
        #[expect(clippy::disallowed_methods, reason = "a benchmark's floor has nothing to drain")]
        tokio::spawn(async move {
            // A broken connection is the peer's business here; the next benchmark run tells.
            let _ = splice(client, &upstream).await;
        });
    }
}

async fn splice(mut client: TcpStream, upstream: &str) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
