//! Reaching the database.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use super::leg::Stream;
use super::listener::tune;

/// Opens connections to a datasource's server.
///
/// A trait because tests give the driver a server that lives in memory.
pub(crate) trait Dial: Send + Sync + 'static {
    /// What an open connection is.
    type Stream: Stream;

    /// Connects, within the datasource's connect timeout.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// A server reached by TCP.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Name or address.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// How long a connect may take, name resolution included.
    pub(crate) connect_timeout: Duration,
}

impl Dial for Upstream {
    type Stream = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(self.connect_timeout, connect)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        tune(&stream);
        Ok(stream)
    }
}
