//! Reaching a server before anything is made for it.

use super::calls::one_line;
use super::client::Client;
use crate::executor::tuning::{CANCEL_POLL, NETWORK_THREADS};
use shim::config::ServerSettings;
use tokio::runtime::Runtime;
use tonic::Status;

/// A server and the threads that make calls to it.
#[derive(Debug)]
pub struct Server {
    pub(super) runtime: Runtime,
    /// `None` if the server is to be connected to when there is a task for it.
    pub(super) client: Option<Client>,
}

impl Server {
    /// A server that is connected to when there is a task for it. An error is for the user.
    pub(crate) fn later() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(NETWORK_THREADS)
            .enable_all()
            .build();
        Ok(Self {
            runtime: runtime.map_err(|e| format!("no threads to talk to a server: {e}"))?,
            client: None,
        })
    }

    /// Connects to a server, unless `cancelled` becomes true before it answers. An error is for the user.
    pub(crate) fn reach(
        settings: &ServerSettings,
        cancelled: impl Fn() -> bool,
    ) -> Result<Self, String> {
        let mut server = Self::later()?;
        let cancelled = async {
            while !cancelled() {
                tokio::time::sleep(CANCEL_POLL).await;
            }
            Err(Status::deadline_exceeded("no answer in time"))
        };
        let connected = server.runtime.block_on(async {
            tokio::select! {
                client = Client::connect(settings) => client,
                cancelled = cancelled => cancelled,
            }
        });
        match connected {
            Ok(client) => {
                server.client = Some(client);
                Ok(server)
            }
            Err(status) => {
                // Do not wait for the user's credential helper or for name resolution.
                server.runtime.shutdown_background();
                Err(one_line(&status))
            }
        }
    }
}
