//! A handler that runs until a signal: the first completes in-flight records, the second cancels them.
//!
//! ```text
//! cargo run --example handle -- TOPIC GROUP
//! ```
//!
//! Each record is printed. One with the value `slow` is in flight until the shutdown, one with the value `hang` forever;
//! `fail` fails, `panic` panics. What the library says of that is on stderr.

#![allow(clippy::print_stdout, clippy::panic, reason = "it is a program, to see what handlers may do")]

use std::process::ExitCode;

use ailurus::{Client, Config, HandlerOrdering, Message, Result};

async fn handle(message: Message) -> std::result::Result<(), String> {
    let value = String::from_utf8_lossy(message.value.as_deref().unwrap_or_default()).into_owned();
    println!("begun {value}");
    if matches!(&*value, "slow" | "hang") {
        message.stopping().await;
        println!("handled {value}");
    }
    match &*value {
        "hang" => std::future::pending().await,
        "fail" => return Err("the stock service refused".into()),
        "panic" => panic!("no such product"),
        _ => println!("done {value}"),
    }
    Ok(())
}

/// Runs until a signal.
pub async fn run(topic: &str, group: &str) -> Result<()> {
    let mut config = Config::from_env()?;
    config.processor.ordering = HandlerOrdering::Key;
    let client = Client::connect(config).await?;
    let subscription = client.processor(group).subscribe([topic], handle).await?;
    let left = subscription.run_until_signal().await?;
    println!("left: {left}");
    client.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let (Some(topic), Some(group)) = (args.next(), args.next()) else {
        println!("usage: handle TOPIC GROUP");
        return ExitCode::from(2);
    };
    match run(&topic, &group).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
