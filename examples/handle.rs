//! A handler that runs until a signal: the first finishes what is in hand, the second cuts that short.
//!
//! ```text
//! cargo run --example handle -- TOPIC GROUP
//! ```
//!
//! Each record is printed. One with the value `slow` is in hand until the end is asked for, one with the value `hang` for ever.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::process::ExitCode;

use ailurus::{Client, Config, HandlerOrdering, Message, Processor, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

async fn handle(message: Message) {
    let value = String::from_utf8_lossy(message.value.as_deref().unwrap_or_default()).into_owned();
    println!("begun {value}");
    if matches!(&*value, "slow" | "hang") {
        message.stopping().await;
        println!("told {value}");
    }
    if value == "hang" {
        std::future::pending::<()>().await;
    }
    println!("done {value}");
}

/// Until the end that the signals ask for.
pub async fn run(topic: &str, group: &str, mut terminate: Signal, mut interrupt: Signal) -> Result<()> {
    let mut config = Config::from_env()?;
    config.processor.ordering = HandlerOrdering::Key;
    let client = Client::connect(config).await?;
    let subscription = Processor::new(&client).subscribe(&[topic], group, handle).await?;
    let left = subscription.run_until(terminate.recv(), interrupt.recv()).await?;
    println!("left: {left}");
    client.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(topic), Some(group)) = (args.next(), args.next()) else {
        println!("usage: handle TOPIC GROUP");
        return ExitCode::from(2);
    };
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(terminate), Ok(interrupt)) = signals else { return ExitCode::FAILURE };
    match run(&topic, &group, terminate, interrupt).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{}", e.full());
            ExitCode::FAILURE
        }
    }
}
