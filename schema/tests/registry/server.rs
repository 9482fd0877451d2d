//! A scripted HTTP server: it records requests, and responds by a function.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Lines of the head in lower case.
    pub headers: Vec<String>,
    pub body: String,
}

impl Request {
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reaction of a server to a request.
pub enum Reply {
    /// Responds with JSON.
    Json(u16, String),
    /// Responds with a body of another type.
    Other(u16, &'static str, Vec<u8>),
    /// Closes the connection.
    Close,
    /// Responds when this is ready.
    After(Arc<tokio::sync::Semaphore>, Box<Reply>),
    /// Does not respond.
    Never,
}

pub fn ok(body: &str) -> Reply {
    Reply::Json(200, body.into())
}

pub fn error(status: u16, code: i32, message: &str) -> Reply {
    Reply::Json(status, format!(r#"{{"error_code":{code},"message":"{message}"}}"#))
}

type Script = Arc<dyn Fn(usize, &Request) -> Reply + Send + Sync>;

pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    pub connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts a server whose script gets the number of requests before this one, and the request.
    pub async fn start(script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (script, log, opened): (Script, _, _) = (Arc::new(script), requests.clone(), connections.clone());
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(serve(stream, script.clone(), log.clone()));
            }
        });
        Self { url, requests, connections, task }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

async fn serve(stream: TcpStream, script: Script, log: Arc<Mutex<Vec<Request>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let mut reply = script(number, &request);
        if let Reply::After(ready, inner) = reply {
            ready.acquire().await.unwrap().forget();
            reply = *inner;
        }
        let (status, media_type, body) = match reply {
            Reply::Json(status, body) => (status, "application/vnd.schemaregistry.v1+json", body.into_bytes()),
            Reply::Other(status, media_type, body) => (status, media_type, body),
            Reply::Close | Reply::After(..) => return,
            Reply::Never => std::future::pending().await,
        };
        let head =
            format!("HTTP/1.1 {status} x\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(&body).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let (mut first, mut headers) = (String::new(), Vec::new());
    stream.read_line(&mut first).await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" => break,
            line => {
                let (name, value) = line.split_once(": ")?;
                headers.push(format!("{}: {value}", name.to_lowercase()));
            }
        }
    }
    let mut parts = first.split(' ');
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut request = Request { method, path, headers, body: String::new() };
    let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
