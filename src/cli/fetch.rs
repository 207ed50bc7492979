//! `stubborn fetch`.

use super::args::Fetch;
use super::failure::{self, REFUSED};
use super::output;
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::message::{self, Request, Response};
use crate::stub::{Client, Namespace, Stub};

/// Sends the request, prints the answer, returns the exit status.
pub async fn run(args: Fetch) -> anyhow::Result<i32> {
    let limits = Limits::default();
    let (name, url) = target(&args)?;
    let (request, progress) = request(&args, url, &limits)?;
    let client = Client::connect_with(&args.server.connect, limits).await?;
    let stub = stub(&args, name, &client.namespace(&args.namespace)).await?;
    let answered = stub.fetch(request).await;
    progress.iter().for_each(Progress::finish);
    let response = answered?;
    let status = response.status();
    if args.include {
        output::write(head(&response)).await?;
    }
    print(response).await?;
    Ok(if status.is_client_error() || status.is_server_error() { REFUSED } else { 0 })
}

/// Tells the name, where one is needed, from the url.
fn target(args: &Fetch) -> Result<(Option<&str>, &str)> {
    let has_id = args.id.is_some() || args.new;
    match (has_id, args.target.as_slice()) {
        (true, [url]) => Ok((None, url)),
        (false, [name, url]) => Ok((Some(name), url)),
        (true, _) => {
            Err(Error::invalid_request("with --id or --new there is no NAME: give the URL"))
        }
        (false, _) => Err(Error::invalid_request(
            "give NAME and URL, or the URL and --id HEX or --new: which object is meant?",
        )),
    }
}

fn request(args: &Fetch, url: &str, limits: &Limits) -> Result<(Request, Option<Progress>)> {
    let url = message::parse_url(url)?;
    let data = args.data();
    let implied = if data.is_some() { http::Method::POST } else { http::Method::GET };
    let mut request = Request::default();
    *request.method_mut() = args.method.clone().unwrap_or(implied);
    *request.uri_mut() = url;
    for (name, value) in &args.headers {
        request.headers_mut().append(name, value.clone());
    }
    message::validate(&request, limits)?;
    let Some(data) = data else { return Ok((request, None)) };
    let (body, progress) = data.open()?;
    Ok((request.map(|_| body), progress))
}

async fn stub(args: &Fetch, name: Option<&str>, namespace: &Namespace) -> Result<Stub> {
    match (name, args.id) {
        (Some(name), _) => Ok(namespace.get_by_name(name)),
        (None, Some(id)) => Ok(namespace.get(id)),
        (None, None) => {
            let id = namespace.new_unique_id().await?;
            failure::output(&format!("id: {id}\n"));
            Ok(namespace.get(id))
        }
    }
}

/// Returns the status line and the headers, as text, with the empty line behind them.
fn head(response: &Response) -> Vec<u8> {
    let mut head = format!("HTTP {}\n", response.status().as_u16()).into_bytes();
    for (name, value) in response.headers() {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    head.push(b'\n');
    head
}

/// Prints the body as it comes.
async fn print(response: Response) -> anyhow::Result<()> {
    let mut body = response.into_body();
    let terminal = output::is_terminal();
    let progress = Progress::new("received", body.length());
    let mut last = None;
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.inspect_err(|_| progress.finish())?;
        let bytes = chunk.len();
        last = chunk.last().copied().or(last);
        output::write(chunk).await?;
        if !terminal {
            progress.advance(bytes);
        }
    }
    progress.finish();
    if terminal && last.is_some_and(|last| last != b'\n') {
        output::write("\n").await?;
    }
    Ok(())
}
