//! Names of the users behind Unix sockets.

use tracing::warn;

use crate::session::PeerCredentials;

/// Who `uid` is. The system's user database may be a network away, so it is asked on a thread of
/// its own; a user without a name there has none here.
pub(super) async fn credentials(uid: u32) -> PeerCredentials {
    let asked = tokio::task::spawn_blocking(move || {
        nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
    });
    let user = match asked.await {
        Ok(Ok(found)) => found.map(|user| user.name),
        Ok(Err(error)) => {
            warn!(uid, %error, "the user database could not be read");
            None
        }
        Err(error) => {
            warn!(uid, %error, "the user database could not be read");
            None
        }
    };
    PeerCredentials { uid, user }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_has_a_name_and_a_stranger_none() {
        let root = PeerCredentials { uid: 0, user: Some("root".to_owned()) };
        assert_eq!(credentials(0).await, root);
        assert_eq!(credentials(4_000_000_123).await.user, None);
    }
}
