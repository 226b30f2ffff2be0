//! A relay between a client and a server that breaks off an answer at a chosen byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What becomes of a connection when its answer is broken off.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// It ends.
    Cut,
    /// It stays, and nothing more comes.
    Hang,
}

/// A relay. Its threads end with the connections and the test.
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: Mutex<SocketAddr>,
    /// How many more bytes pass before a break, and which.
    limit: Mutex<Option<(usize, Break)>>,
    /// How many bytes of answers have passed.
    passed: Mutex<usize>,
    /// The clients' connections.
    clients: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens, and passes on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            target: Mutex::new(target),
            limit: Mutex::new(None),
            passed: Mutex::new(0),
            clients: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                shared.serve(&client);
            }
        });
        Self { address, state }
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Passes later connections on to another server.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock().expect("no holder panics") = target;
    }

    /// The next `bytes` bytes of answers still pass, over whichever connections; then one break follows.
    pub fn break_after(&self, bytes: usize, how: Break) {
        *self.state.limit.lock().expect("no holder panics") = Some((bytes, how));
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for client in self.state.clients.lock().expect("no holder panics").drain(..) {
            // It may have ended by itself.
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// How many bytes of answers passed since this was asked last.
    pub fn passed(&self) -> usize {
        std::mem::take(&mut *self.state.passed.lock().expect("no holder panics"))
    }
}

impl State {
    fn serve(self: &Arc<Self>, client: &TcpStream) {
        let target = *self.target.lock().expect("no holder panics");
        let Ok(server) = TcpStream::connect(target) else { return };
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor is free");
        self.clients.lock().expect("no holder panics").push(clone(client));
        let (mut from_client, mut to_server) = (clone(client), clone(&server));
        std::thread::spawn(move || {
            // Ends when either side does.
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Both);
        });
        let (state, client) = (Arc::clone(self), clone(client));
        std::thread::spawn(move || {
            let broken = state.answer(server, &client);
            if !matches!(broken, Some(Break::Hang)) {
                let _ = client.shutdown(Shutdown::Both);
            }
        });
    }

    /// Passes answers on to their end or to a break.
    fn answer(&self, mut server: TcpStream, mut client: &TcpStream) -> Option<Break> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Ok(read @ 1..) = server.read(&mut buffer) else { return None };
            let (allowed, broken) = self.allow(read);
            if client.write_all(&buffer[..allowed]).is_err() {
                return None;
            }
            *self.passed.lock().expect("no holder panics") += allowed;
            if broken.is_some() {
                return broken;
            }
        }
    }

    /// How many of `bytes` pass, and the break after them.
    fn allow(&self, bytes: usize) -> (usize, Option<Break>) {
        let mut limit = self.limit.lock().expect("no holder panics");
        match limit.as_mut() {
            Some((left, how)) if *left < bytes => {
                let broken = (*left, Some(*how));
                *limit = None;
                broken
            }
            Some((left, _)) => {
                *left -= bytes;
                (bytes, None)
            }
            None => (bytes, None),
        }
    }
}
