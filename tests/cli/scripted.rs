//! The real server on a host's socket, with a script in the node's place.

use crate::Host;
use p2plus::daemon::api::request::Request;
use p2plus::daemon::api::server::{Call, MAX_CALLS, MAX_EVENTS, Response, Server};
use p2plus::daemon::api::socket::ApiSocket;
use p2plus::daemon::api::types::Event;
use p2plus::daemon::config::Config;
use p2plus::daemon::failure::Failure;
use p2plus::daemon::paths::Roots;
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc};

/// A daemon of network `lab` that runs until dropped.
pub struct Scripted {
    /// What goes to readers of events.
    pub events: broadcast::Sender<Event>,
    runtime: Option<Runtime>,
}

impl Scripted {
    /// Serves `host`'s network `lab`; `script` answers every call.
    pub fn start(host: &Host, script: impl FnMut(&Request) -> Result<Response, Failure> + Send + 'static) -> Self {
        Self::start_with(host, &Config::default(), script)
    }

    /// The same with a configuration.
    pub fn start_with(
        host: &Host,
        config: &Config,
        mut script: impl FnMut(&Request) -> Result<Response, Failure> + Send + 'static,
    ) -> Self {
        Self::serve(host, config, move |call| script(&call.request))
    }

    /// The same with a script that sees who calls.
    pub fn start_judging(host: &Host, script: impl FnMut(&Call) -> Result<Response, Failure> + Send + 'static) -> Self {
        Self::serve(host, &Config::default(), script)
    }

    fn serve(
        host: &Host,
        config: &Config,
        mut script: impl FnMut(&Call) -> Result<Response, Failure> + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let roots = Roots { state_dir: host.state_dir(), run_dir: host.run_dir(), config_file: None };
        let socket = ApiSocket::bind(&roots.network("lab".parse().unwrap())).unwrap();
        let (calls, mut incoming) = mpsc::channel::<Call>(MAX_CALLS);
        let (events, _) = broadcast::channel(MAX_EVENTS);
        let server = Server::new(socket, config, calls, events.clone());
        runtime.spawn(server.run());
        // A thread of its own, as the node's: a script that blocks holds up no connection.
        std::thread::spawn(move || {
            while let Some(call) = incoming.blocking_recv() {
                let answer = script(&call);
                let _caller_may_have_gone = call.reply.send(answer);
            }
        });
        Self { events, runtime: Some(runtime) }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}
