//! A broker that is far away: a TCP proxy that delivers every byte later, and limits nothing else.
//!
//! ```text
//! cargo run --release --example delay_proxy -- --listen 127.0.0.1:PORT --to 127.0.0.1:PORT --round-trip 50ms
//! ```
//!
//! Each direction delays by half of the round trip, and a new connection's first bytes wait a round trip more, as they would
//! for TCP's handshake. Clients follow the address that the broker advertises, which so has to be the proxy's:
//!
//! ```text
//! P=$(scripts/kafka-local.sh ports)   # Kafka listens at P and, for the proxy at P+5, at P+6
//! cat >far.properties <<X
//! listeners=PLAINTEXT://127.0.0.1:$P,CONTROLLER://127.0.0.1:$((P+1)),FAR://127.0.0.1:$((P+6))
//! advertised.listeners=PLAINTEXT://127.0.0.1:$P,FAR://127.0.0.1:$((P+5))
//! listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT
//! X
//! KAFKA_PORT=$P KAFKA_PROPS=far.properties scripts/kafka-local.sh start
//! cargo run --release --example delay_proxy -- --listen 127.0.0.1:$((P+5)) --to 127.0.0.1:$((P+6)) --round-trip 50ms &
//! ailurus --brokers 127.0.0.1:$((P+5)) bench produce TOPIC    # at P: the same cluster without delay
//! ```
//!
//! It prints one line once it listens and runs until it is killed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

const USAGE: &str = "usage: delay_proxy --listen HOST:PORT --to HOST:PORT --round-trip DURATION (50ms, 1s)";
/// Size of the largest chunk that is read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Number of chunks on the line before the proxy stops reading: far more than any round trip holds.
const CHUNKS: usize = 16 << 10;

struct Arguments {
    listen: String,
    to: String,
    round_trip: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let listener = match TcpListener::bind(&arguments.listen).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("delay_proxy: cannot listen on {}: {error}", arguments.listen);
            return ExitCode::FAILURE;
        }
    };
    println!("delay_proxy: {} to {}, round trip {:?}", arguments.listen, arguments.to, arguments.round_trip);
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(forward(client, arguments.to.clone(), arguments.round_trip));
            }
            Err(error) => eprintln!("delay_proxy: accept: {error}"),
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let (mut listen, mut to, mut round_trip) = (None, None, None);
    while let Some(name) = words.next() {
        let value = words.next()?;
        match name.as_str() {
            "--listen" => listen = Some(value),
            "--to" => to = Some(value),
            "--round-trip" => round_trip = Some(parse_duration(&value)?),
            _ => return None,
        }
    }
    Some(Arguments { listen: listen?, to: to?, round_trip: round_trip? })
}

fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return Some(Duration::from_millis(millis.parse().ok()?));
    }
    Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?))
}

async fn forward(client: TcpStream, to: String, round_trip: Duration) {
    let accepted = Instant::now();
    let server = match TcpStream::connect(&to).await {
        Ok(server) => server,
        Err(error) => return eprintln!("delay_proxy: cannot connect to {to}: {error}"),
    };
    _ = client.set_nodelay(true);
    _ = server.set_nodelay(true);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let half = round_trip / 2;
    tokio::spawn(delay(server_read, client_write, half, accepted));
    delay(client_read, server_write, half, accepted + round_trip).await;
}

/// A delay line: what was read at a time is written `delay` later, what was read before `open` as if it came then.
async fn delay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, open: Instant) {
    let (line, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let at = Instant::now().max(open) + delay;
            if line.send((at, buffer[..count].to_vec())).await.is_err() {
                break; // the other side is gone
            }
        }
    });
    while let Some((at, chunk)) = due.recv().await {
        sleep_until(at).await;
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
    _ = to.shutdown().await;
}
